"""Several bundles into one: node kept on every row, ids made unique, clocks aligned, cluster metadata once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kubetape.bundle.manifest import Manifest, Node, ProbeStatus
from kubetape.bundle.reader import Bundle
from kubetape.bundle.realtime import realtime
from kubetape.bundle.schema import TABLES, arrow_schema
from kubetape.bundle.writer import BundleWriter
from kubetape.capture.clock import End, Stream, align
from kubetape.errors import BundleError

# Columns that hold ids which are unique in one bundle only, and the family each belongs to.
ID_COLUMNS = {"connection_id": "connection", "wait_connection_id": "connection", "stack_id": "stack"}
# What makes two rows of the cluster's metadata the same thing; of several the one that says most is kept.
KEYS = {
    "k8s_object": ("kind", "namespace", "name", "uid", "taken", "observed_ns"),
    "k8s_pod": ("namespace", "name", "uid", "ips"),
    "k8s_container": ("namespace", "pod_name", "pod_uid", "name"),
    "k8s_service": ("namespace", "name", "protocol", "port"),
    "k8s_endpoint": ("namespace", "service", "slice", "ip", "port", "protocol"),
    "k8s_node": ("name",),
    "k8s_workload": ("kind", "namespace", "name"),
    "k8s_event": ("namespace", "kind", "name", "reason", "message"),
}


def merge(paths: list[str], output: str) -> Manifest:
    """Write one bundle of several; its manifest. Raises BundleError, one line.

    Two recordings of one node keep its name if it did not boot between; else the later is renamed `NAME-2`.
    """
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise BundleError("one bundle was given twice: give each once")
    bundles = [Bundle(path) for path in paths]
    nodes, names = _nodes(bundles)
    shifts = _shifts(bundles)
    ends = _ends(bundles, names)
    notes = align(nodes, ends)
    for node in nodes:
        node.notes += [note for note in notes if note.startswith(f"{node.name}: ")]
    manifest = Manifest(nodes=nodes)
    with BundleWriter(output, manifest) as writer:
        for name in sorted({name for bundle in bundles for name in bundle.table_names}):
            parts = [
                _part(bundle, name, names[index], shifts[index])
                for index, bundle in enumerate(bundles)
                if name in bundle.table_names
            ]
            _write(writer, name, parts, [node.name for node in nodes])
    return manifest


def _nodes(bundles: list[Bundle]) -> tuple[list[Node], list[dict[str, str]]]:
    """All nodes, sorted by name, and for each bundle how it calls them -> how the merged bundle does."""
    merged: dict[str, Node] = {}
    names: list[dict[str, str]] = []
    for bundle in bundles:
        mine = {}
        for node in bundle.manifest.nodes:
            name, number = node.name, 1
            while name in merged and not _is_same(merged[name], node):
                number += 1
                name = f"{node.name}-{number}"
            mine[node.name] = name
            if name in merged:
                _join(merged[name], node)
            else:
                merged[name] = dataclasses.replace(node, name=name, notes=list(node.notes), facts=dict(node.facts))
        names.append(mine)
    return [merged[name] for name in sorted(merged)], names


def _is_same(one: Node, other: Node) -> bool:
    return bool(one.boot_id) and one.boot_id == other.boot_id


def _join(node: Node, more: Node) -> None:
    """A further recording of the same node since the same boot: its monotonic clock went on."""
    node.clock = sorted([*node.clock, *more.clock], key=lambda anchor: anchor.monotonic_ns)
    node.start_ns, node.end_ns = min(node.start_ns, more.start_ns), max(node.end_ns, more.end_ns)
    node.notes += more.notes
    probes = {probe.probe: probe for probe in node.probes}
    for probe in more.probes:
        if probe.probe in probes:
            _add(probes[probe.probe], probe)
        else:
            node.probes.append(probe)


def _add(probe: ProbeStatus, more: ProbeStatus) -> None:
    for name in ("event_count", "lost_count", "truncated_count"):
        setattr(probe, name, getattr(probe, name) + getattr(more, name))


def _shifts(bundles: list[Bundle]) -> list[dict[str, int]]:
    """For each bundle what is added to the ids of each family, so that none is used twice."""
    used = dict.fromkeys(ID_COLUMNS.values(), 0)
    shifts = []
    for bundle in bundles:
        shifts.append(dict(used))
        for table, column in (("connection", "connection_id"), ("stack", "stack_id")):
            values = bundle.table(table, [column]).column(column)
            if len(values):
                used[ID_COLUMNS[column]] += int(pc.max(values).as_py()) + 1
    return shifts


def _part(bundle: Bundle, name: str, names: dict[str, str], shifts: dict[str, int]) -> Any:
    """A bundle's table with the merged bundle's node names and ids."""
    table = bundle.table(name)
    for index, field in enumerate(table.schema):
        values = table.column(index)
        if field.name == "node" and name != "k8s_pod" and any(old != new for old, new in names.items()):
            plain = values.cast(pa.string())
            renamed = pa.array([names.get(v, v) for v in plain.to_pylist()], pa.string())
            values = renamed.dictionary_encode() if pa.types.is_dictionary(field.type) else renamed
            table = table.set_column(index, field, values.cast(field.type))
        elif shift := shifts.get(ID_COLUMNS.get(field.name, ""), 0):
            table = table.set_column(index, field, pc.add(values, pa.scalar(shift, field.type)))
    return table


def _write(writer: BundleWriter, name: str, parts: list[Any], nodes: list[str]) -> None:
    known = TABLES.get(name)
    schema = arrow_schema(known) if known else parts[0].schema
    if any(part.schema.names != schema.names for part in parts):
        raise BundleError(f"the bundles disagree on the columns of table {name}: they cannot be merged")
    if name in KEYS:
        writer.write(name, _distinct(pa.concat_tables(part.cast(schema) for part in parts), KEYS[name]), schema)
        return
    out = writer.table(name, schema)
    if "node" not in schema.names or len(parts) == 1:
        for part in parts:
            out.write(part)
        return
    keys = [key for key in (known.sort_by if known else ("ts_ns",)) if key in schema.names]
    for node in nodes:
        mine = [part.filter(pc.equal(part.column("node").cast(pa.string()), node)) for part in parts]
        mine = [part for part in mine if part.num_rows]
        for part in mine if len(mine) < 2 else [_sorted(pa.concat_tables(p.cast(schema) for p in mine), keys)]:
            out.write(part)


def _sorted(table: Any, keys: Sequence[str]) -> Any:
    """Arrow does not sort by dictionary-encoded columns."""
    plain = {key: table.column(key) for key in keys}
    texts = {k: v.cast(pa.string()) if pa.types.is_dictionary(v.type) else v for k, v in plain.items()}
    return table.take(pc.sort_indices(pa.table(texts), sort_keys=[(key, "ascending") for key in keys]))


def _distinct(table: Any, keys: tuple[str, ...]) -> Any:
    """One row for each value of `keys`: the one with the fewest NULLs, of equal ones the last."""
    best: dict[tuple[Any, ...], tuple[int, int]] = {}
    columns = [table.column(key).to_pylist() for key in keys]
    said = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        said += column.is_valid().to_numpy(zero_copy_only=False)
    for row, key in enumerate(zip(*columns, strict=True)):
        best[key] = max(best.get(key, (-1, -1)), (int(said[row]), row))
    rows = sorted(row for _, row in best.values())
    chosen = table.take(pa.array(rows, pa.int64()))
    sort_by = TABLES[next(name for name, value in KEYS.items() if value == keys)].sort_by
    return _sorted(chosen, sort_by)


def _ends(bundles: list[Bundle], names: list[dict[str, str]]) -> list[End]:
    """Both ends of every TCP connection that were recorded, with the times of their bytes."""
    if sum(len(bundle.manifest.nodes) for bundle in bundles) < 2:
        return []
    ends = []
    for bundle, called in zip(bundles, names, strict=True):
        clocks = {node.name: node for node in bundle.manifest.nodes}
        connections = bundle.table(
            "connection",
            ["node", "connection_id", "transport", "side", "local_ip", "local_port", "remote_ip", "remote_port"],
        ).to_pylist()
        wanted = {c["connection_id"]: c for c in connections if c["transport"] == "tcp" and c["side"] != "wire"}
        data = bundle.table("socket_data", ["ts_ns", "connection_id", "direction", "position", "size_bytes", "source"])
        plain = pc.equal(data.column("source").cast(pa.string()), "socket")
        data = data.filter(plain)
        ids = data.column("connection_id").to_numpy()
        position, size = data.column("position").to_numpy(), data.column("size_bytes").to_numpy()
        times = data.column("ts_ns").to_numpy()
        is_sent = pc.equal(data.column("direction").cast(pa.string()), "send").to_numpy(zero_copy_only=False)
        order = np.lexsort((position, ids))
        bounds = np.flatnonzero(np.diff(ids[order])) + 1
        for rows in np.split(order, bounds) if len(order) else []:
            connection = wanted.get(int(ids[rows[0]]))
            if connection is None:
                continue
            real = realtime(clocks[connection["node"]].clock, times[rows])
            streams = [
                Stream(position[rows][mine], position[rows][mine] + size[rows][mine], real[mine])
                for mine in (is_sent[rows], ~is_sent[rows])
            ]
            addresses = tuple(connection[k] for k in ("local_ip", "local_port", "remote_ip", "remote_port"))
            ends.append(End(called[connection["node"]], addresses, *streams))
    return ends
