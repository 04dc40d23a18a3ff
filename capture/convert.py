"""Spool -> bundle. The recording is over: nothing here is in a hurry, but memory stays bounded by the window.

Payload-bearing and scheduler events are written window by window; the rest (connections, TCP events, samples,
processes) is small beside them and is kept until its table's turn, since a bundle is written table by table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kubetape.bundle.manifest import ClockAnchor, Manifest, Node, ProbeStatus
from kubetape.bundle.schema import TABLES
from kubetape.bundle.writer import BundleWriter
from kubetape.capture import (
    convert_block,
    convert_connections,
    convert_data,
    convert_process,
    convert_sched,
    convert_tcp,
    convert_tls,
    user_probe,
)
from kubetape.capture.convert_stacks import StackConverter
from kubetape.capture.layouts import Layout
from kubetape.capture.records import Array, windows
from kubetape.capture.spool import SpoolReader
from kubetape.capture.stacks import Spaces, from_spool

_KEPT = (
    "connection_event",
    "owner_event",
    "state_event",
    "tcp_sample_event",
    "packet_event",
    "process_event",
    "slice_event",
    "block_io_event",
)

# Which probe an event belongs to, for the counts in the manifest.
_PROBE_OF = {
    "data_event": "socket_data",
    "datagram_event": "socket_data",
    "connection_event": "connection",
    "owner_event": "connection",
    "state_event": "connection",
    "tcp_sample_event": "tcp_sample",
    "packet_event": "tcp_event",
    "process_event": "process",
    "slice_event": "sched_slice",
    "block_io_event": "block_io",
    "tls_event": "tls",
    "tls_socket_event": "tls",
    "stack_event": "stack_sample",
}


def convert(
    spool: SpoolReader,
    output: str,
    extra_tables: Callable[[BundleWriter], None] | None = None,
    end: dict[str, Any] | None = None,
    given: frozenset[str] = frozenset(),
    spaces: Spaces | None = None,
) -> Manifest:
    """Write the bundle `output` from a spool; returns its manifest. Raises CaptureError, BundleError.

    extra_tables: writes tables that did not go through the spool (samplers, Kubernetes snapshot). end: the
    recording's last words, where they may not have found room in the spool. given: tables
    that extra_tables writes, where the spool has an older state of them. spaces: what was mapped in the processes
    sampled, where the recorder still holds it.
    """
    header = spool.header
    layouts = {data["name"]: Layout.from_json(data) for data in header["layouts"]}
    if end is None:
        end = next(spool.objects("end"), {})
    node = _node(spool, header, end, end.get("stop_reason") or "recovered")
    manifest = Manifest(nodes=[node])
    with BundleWriter(output, manifest) as writer:
        user_probes = [user_probe.from_json(one) for one in header.get("facts", {}).get("user_probes", [])]
        kept: dict[str, list[Array]] = {name: [] for name in (*_KEPT, *(p[0] for p in user_probes)) if name in layouts}
        arguments: list[Any] = []
        counts: dict[str, int] = dict.fromkeys(layouts, 0)
        busy = damaged = 0
        beats = [r for o in spool.objects("rows") if o["table"] == "heartbeat" for r in o["rows"]]
        beat_times = np.array([r["ts_ns"] for r in beats], np.int64)
        beat_counts = np.zeros(len(beats) + 1, np.int64)
        stacks = StackConverter(layouts["stack_event"]) if "stack_event" in layouts else None
        evidence, ties = _tls_evidence(spool, layouts, end)
        data = convert_data.DataConverter(node.name, layouts, node.start_ns, node.end_ns, ties)
        table = writer.table("socket_data")
        for window in windows(spool, layouts):
            for name, count in window.counts().items():
                counts[name] += count
            beat_counts += np.bincount(np.searchsorted(beat_times, window.times()), minlength=len(beat_counts))
            busy += window.busy_count
            damaged += window.damaged_bytes
            if evidence is not None and ties is None:
                evidence.look(window, layouts["data_event"])
            for part in data.feed(window):
                table.write(part)
            for name in kept:
                kept[name].append(window.events(name))
            arguments.append(convert_process.arguments(window, layouts["process_event"]))
            if stacks is not None:
                stacks.feed(window)
        for part in data.rest():
            table.write(part)
        arrays = {name: _joined(parts, layouts[name]) for name, parts in kept.items()}
        connections = _write_connections(writer, spool, node, arrays, data, header, end)
        if evidence is not None:
            _write_tls(writer, spool, node, evidence, ties, connections)
        convert_process.write(
            writer, spool, node.name, arrays["process_event"], arguments, arrays["connection_event"], data.io_uring_pids
        )
        if "slice_event" in layouts:
            _write_slices(writer, spool, node, arrays.pop("slice_event"), layouts["slice_event"])
        if "block_io_event" in arrays:
            writer.write("block_io", convert_block.table(node.name, arrays.pop("block_io_event")))
        for name, what, user_columns in user_probes:
            rows = user_probe.table(node.name, arrays[name], what, user_columns)
            writer.write(name, rows, rows.schema)
        if stacks is not None:
            hertz = node.policy.get("stack_hz") or 1
            stacks.write(writer, node.name, spaces or from_spool(spool, node.boot_id), hertz)
        for beat, total in zip(beats, np.cumsum(beat_counts).tolist(), strict=False):
            beat["events_count"] = total
        writer.write_rows("heartbeat", [{"node": node.name, **beat} for beat in beats])
        _write_rows(writer, spool, node.name, given | {"heartbeat"})
        if extra_tables is not None:
            extra_tables(writer)
        _count_probes(node, counts, data, busy, damaged, spool)
    return manifest


def _write_slices(writer: BundleWriter, spool: SpoolReader, node: Node, events: Array, layout: Layout) -> None:
    """sched_slice; what threads were doing at the end of the recording included."""
    rest = [t for o in spool.objects("sched_threads") for t in o["threads"]]
    names = {int(n): name for o in spool.objects("syscalls") for n, name in o["names"].items()}
    open_ones = convert_sched.open_slices(rest, node.end_ns, layout)
    if not len(events) and not len(open_ones):
        return
    table = writer.table("sched_slice")
    for part in convert_sched.slice_tables(node.name, np.concatenate([events, open_ones]), names):
        table.write(part)


def _joined(parts: list[Array], layout: Layout) -> Array:
    joined = np.concatenate(parts) if parts else np.zeros(0, layout.dtype)
    return joined[np.argsort(joined["ts_ns"], kind="stable")]


def _node(spool: SpoolReader, header: dict[str, Any], end: dict[str, Any], stop_reason: str) -> Node:
    anchors = [ClockAnchor(**a) for o in spool.objects("anchor") for a in [o["anchor"]]]
    notes = list(header.get("notes", [])) + [n for o in spool.objects("note") for n in o["notes"]]
    notes += end.get("notes", [])
    if spool.cut_bytes:
        notes.append(f"the last {spool.cut_bytes} bytes of the spool were cut off and are missing")
    start_ns = header["start_ns"]
    for one in spool.objects("dropped"):
        start_ns = one["until_ns"]
        dropped_bytes = one["bytes"]
    if start_ns > header["start_ns"]:
        notes.append(
            f"the newest part was asked for: the first {(start_ns - header['start_ns']) / 1e9:.1f} s "
            f"({dropped_bytes} bytes of events) were given up to stay within --max-bytes"
        )
    probes = [ProbeStatus(**p) for p in (end.get("probes") or header.get("probes", []))]
    values = header["node"]
    return Node(
        **values,
        clock=anchors,
        probes=probes,
        notes=notes,
        stop_reason=stop_reason,
        start_ns=start_ns,
        end_ns=end.get("end_ns") or spool.last_ns,
        facts={**header.get("facts", {}), **end.get("facts", {})},
    )


def _write_connections(
    writer: BundleWriter,
    spool: SpoolReader,
    node: Node,
    arrays: dict[str, Array],
    data: convert_data.DataConverter,
    header: dict[str, Any],
    end: dict[str, Any],
) -> list[dict[str, Any]]:
    """The tables about connections; returns the rows of `connection`."""
    connections = convert_connections.once(arrays["connection_event"])
    by_id = connections[np.argsort(connections["socket_id"], kind="stable")]
    lists = {o["when"]: o["sockets"] for o in spool.objects("sockets")}
    packets = arrays["packet_event"]
    packet_ids = convert_connections.packet_connection_ids(packets, connections)
    known = convert_connections.Evidence(
        owners=arrays["owner_event"],
        states=arrays["state_event"],
        packets=packets,
        packet_ids=packet_ids,
        listed_start=lists.get("start", []),
        listed_end=lists.get("end", []),
        ephemeral_low=header.get("facts", {}).get("ephemeral_port_low", 32768),
        datagrams=data.datagram_connections,
    )
    rows, index = convert_connections.connection_rows(node.name, connections, known)
    writer.write_rows("connection", rows)

    reasons = header.get("facts", {})
    state = convert_tcp.state_table(node.name, arrays["state_event"], by_id)
    packet = convert_tcp.packet_table(
        node.name, packets, packet_ids,
        {int(k): v for k, v in reasons.get("drop_reasons", {}).items()},
        {int(k): v for k, v in reasons.get("reset_reasons", {}).items()},
        {int(k): v for k, v in end.get("symbols", {}).items()},
    )  # fmt: skip
    writer.write("tcp_event", _sorted([state, packet], "tcp_event"))

    samples = [convert_tcp.sample_table(node.name, arrays["tcp_sample_event"])]
    listed = []
    for when in ("start", "end"):
        for one in lists.get(when, []):
            connection_id = index.get(convert_connections.key_of(one))
            if connection_id is not None and one.get("sample"):
                listed.append(
                    {
                        "node": node.name,
                        "ts_ns": one["ts_ns"],
                        "connection_id": connection_id,
                        "reason": when,
                        **one["sample"],
                    }
                )
    samples.append(_table_of("tcp_sample", listed))
    writer.write("tcp_sample", _sorted(samples, "tcp_sample"))

    open_sockets = {index.get(convert_connections.key_of(one)): one for one in lists.get("end", [])}
    locals_ = {
        (o["netns_id"], o["local_ip"], o["local_port"]): o
        for o in lists.get("end", [])
        if o["protocol"] == convert_connections.UDP
    }
    totals = []
    for row in rows:
        counts = data.datagram_totals.get(row["connection_id"])
        if row["transport"] != "udp" or counts is None:
            continue
        # An unconnected socket is one line in the kernel's list, but a connection per peer here.
        listed_end = open_sockets.get(row["connection_id"]) or locals_.get(
            (row["netns_id"], row["local_ip"], row["local_port"])
        )
        names = ("sent_count", "received_count", "sent_bytes", "received_bytes")
        totals.append(
            {
                "node": node.name,
                "ts_ns": node.end_ns,
                "connection_id": row["connection_id"],
                "reason": "end" if listed_end else "close",
                "drop_count": listed_end["drop_count"] if listed_end else 0,
                **dict(zip(names, counts, strict=True)),
            }
        )
    writer.write_rows("udp_sample", totals)
    return rows


def _tls_evidence(
    spool: SpoolReader, layouts: dict[str, Layout], end: dict[str, Any]
) -> tuple[convert_tls.Evidence | None, convert_tls.Ties | None]:
    """Nothing where no library was attached to; where plaintext was seen, a first pass over the spool and its ties."""
    if "tls_event" not in layouts or not any(True for _ in spool.objects("tls_targets")):
        return None, None
    evidence = convert_tls.Evidence()
    if end.get("facts", {}).get("tls_seen") is False:
        return evidence, None
    for window in windows(spool, layouts):
        evidence.feed(window, layouts["data_event"])
    return evidence, convert_tls.Ties(evidence)


def _write_tls(
    writer: BundleWriter,
    spool: SpoolReader,
    node: Node,
    evidence: convert_tls.Evidence,
    ties: convert_tls.Ties | None,
    connections: list[dict[str, Any]],
) -> None:
    """uprobe_target, and tls_stream with the sessions of which bytes were read."""
    files = [row for o in spool.objects("tls_targets") for row in o["rows"]]
    listed = [row for o in spool.objects("tls_processes") for row in o["rows"]]
    sessions = ties.sessions if ties is not None else []
    tied = {s.connection_id for s in sessions if s.connection_id is not None}
    files += convert_tls.unread_rows(listed, connections, evidence.looks, tied)
    writer.write_rows("uprobe_target", [{"node": node.name, **row} for row in files])
    # Which connection a session without ties uses is not known: with --port it may be one that is not wanted.
    only_tied = bool(node.policy.get("ports"))
    sessions = [s for s in sessions if (s.sent_bytes or s.received_bytes) and (s.connection_id or not only_tied)]
    writer.write_rows("tls_stream", [s.row(node.name) for s in sessions])


def _table_of(name: str, rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    from kubetape.bundle.schema import arrow_schema

    schema = arrow_schema(TABLES[name])
    plain = [pa.string() if pa.types.is_dictionary(f.type) else f.type for f in schema]
    return pa.table({f.name: pa.array([r.get(f.name) for r in rows], t) for f, t in zip(schema, plain, strict=True)})


def _sorted(tables: list[Any], name: str) -> Any:
    import pyarrow as pa

    from kubetape.bundle.schema import arrow_schema
    from kubetape.bundle.writer import conform

    schema = arrow_schema(TABLES[name])
    whole = pa.concat_tables([conform(t, schema, name) for t in tables]).unify_dictionaries().combine_chunks()
    order = np.argsort(whole.column("ts_ns").to_numpy(), kind="stable")
    return whole.take(pa.array(order))


def _write_rows(writer: BundleWriter, spool: SpoolReader, node: str, given: frozenset[str]) -> None:
    """Tables whose rows went through the spool as JSON: loss, cgroup, and in a recovery the Kubernetes objects."""
    cgroups = {c["cgroup_id"]: c for o in spool.objects("cgroups") for c in o["cgroups"]}
    rows: dict[str, list[dict[str, Any]]] = {
        "loss": [],
        "cgroup": [{"node": node, **c} for c in cgroups.values()],
    }
    for one in spool.objects("rows"):
        if one["table"] in given:
            continue  # the caller has newer ones
        has_node = "node" in TABLES[one["table"]].column_names
        rows.setdefault(one["table"], []).extend({"node": node, **r} if has_node else r for r in one["rows"])
    for name, found in rows.items():
        writer.write_rows(name, found)


def _count_probes(
    node: Node, counts: dict[str, int], data: convert_data.DataConverter, busy: int, damaged: int, spool: SpoolReader
) -> None:
    totals: dict[str, int] = {}
    for name, count in counts.items():
        owner = _PROBE_OF.get(name, name)  # those of the user's own bear the table's name
        totals[owner] = totals.get(owner, 0) + count
    for probe in node.probes:
        probe.event_count = totals.get(probe.probe, probe.event_count)
        if probe.probe == "socket_data":
            probe.truncated_count = data.cut_count
        elif probe.probe == "tls":
            probe.truncated_count = data.tls_cut_count
    if data.fault_count:
        node.notes.append(
            f"the payload of {data.fault_count} calls could not be read from the processes' memory; "
            "their lengths are recorded"
        )
    if data.hidden_bytes:
        node.notes.append(f"{data.hidden_bytes} bytes moved by splice or the like: recorded as lengths without payload")
    if busy:
        node.notes.append(f"{busy} events were unfinished when they were taken from the ring and are lost")
    if damaged:
        node.notes.append(f"{damaged} bytes of the spool were not readable as events and are lost")
    node.facts["spool_bytes"] = spool.size
