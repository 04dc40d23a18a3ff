"""kubetape record: record this node into a bundle."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from kubetape.capture.user_probe import UserProbe

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Size(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes: 500M, 2GiB, 4096."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", str(value).lower())
        if match is None:
            self.fail(f"{value!r} is not a size; write 500M, 2G", param, ctx)
        return int(float(match[1]) * _UNITS[match[2]])


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A time: 30, 60s, 5m."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)", str(value).lower())
        if match is None or float(match[1]) <= 0:
            self.fail(f"{value!r} is not a duration; write 30s, 5m", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


class Share(click.ParamType):  # type: ignore[type-arg]
    """A share of one CPU: 5%, 0.05."""

    name = "share"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", str(value))
        share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
        if not 0 < share <= 1024:
            self.fail(f"{value!r} is not a share of a CPU; write 5%", param, ctx)
        return share


def _user_probes(paths: tuple[str, ...]) -> tuple[UserProbe, ...]:
    """Those of --probe. Their tables must not hide one of the analyzer's, which is why both halves meet here."""
    if not paths:
        return ()
    from kubetape.analyze.tables import DERIVED_TABLES
    from kubetape.capture import user_probe

    taken = {*DERIVED_TABLES, "finding", "manifest_node", "probe"}
    found: list[UserProbe] = []
    for path in paths:
        found.append(user_probe.read(path, len(found), taken | {p.name for p in found}))
    return tuple(found)


@click.command("record", help="Record this node into a bundle, until --duration, Ctrl-C, the end of CMD, or a budget.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The bundle to write.")
@click.option("--duration", type=Duration(), help="How long (30s, 5m). Default: 60s; with CMD, as long as it runs.")
@click.option(
    "--namespace", "namespaces", multiple=True, help="Only pods of this Kubernetes namespace. May be repeated."
)
@click.option("--pod", "pods", multiple=True, help="Only this pod (NAME or NAMESPACE/NAME). May be repeated.")
@click.option("--pid", "pids", multiple=True, type=click.IntRange(1), help="Only this process and its children.")
@click.option("--port", "ports", multiple=True, type=click.IntRange(1, 65535), help="Only connections with this port.")
@click.option(
    "--payload",
    type=click.Choice(["none", "headers", "full"]),
    default="headers",
    show_default=True,
    help="Bytes to keep: none; the first ones of each call, few in bulk transfers; or those of every call.",
)
@click.option("--payload-bytes", type=Size(), help="At most so many per call. Default: 4096; with full 64K.")
@click.option(
    "--sched",
    type=click.Choice(["io", "all", "none"]),
    default="io",
    show_default=True,
    help="Running, waiting and sleeping of threads: of processes that use sockets; of all; of none.",
)
@click.option(
    "--tls/--no-tls",
    default=True,
    show_default=True,
    help="Read what processes hand to their TLS libraries (OpenSSL, GnuTLS, Go), in clear.",
)
@click.option(
    "--stacks/--no-stacks", default=True, show_default=True, help="Which functions use the CPU: samples of all CPUs."
)
@click.option(
    "--stack-hz", type=click.IntRange(1, 1000), default=99, show_default=True, help="Samples per second and CPU."
)
@click.option(
    "--probe",
    "probe_files",
    multiple=True,
    type=click.Path(),
    help="A probe of your own, see docs/probes.md: its rows become a table. May be repeated.",
)
@click.option("--max-bytes", type=Size(), help="Stop when the spool reaches this size.")
@click.option("--ring", is_flag=True, help="With --max-bytes: do not stop there, but give up the oldest part.")
@click.option(
    "--max-cpu",
    type=Share(),
    help="Of one CPU (5%), for recorder and probes together: above it, fewer connections are recorded.",
)
@click.option("--max-memory", type=Size(), help="Stop when the recorder reaches this size.")
@click.option(
    "--spool", type=click.Path(file_okay=False, exists=True), help="Folder of the spool. Default: beside the bundle."
)
@click.option(
    "--from-dir",
    type=click.Path(file_okay=False, exists=True),
    help="Kubernetes objects from files of `kubectl get -o json`.",
)
@click.option("--no-kubernetes", is_flag=True, help="Do not ask the Kubernetes API.")
@click.option("--no-arguments", is_flag=True, help="Do not record command lines.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@click.argument("cmd", nargs=-1, type=click.UNPROCESSED)
def command(
    output: str,
    duration: float | None,
    namespaces: tuple[str, ...],
    pods: tuple[str, ...],
    pids: tuple[int, ...],
    ports: tuple[int, ...],
    payload: str,
    payload_bytes: int | None,
    sched: str,
    stacks: bool,
    stack_hz: int,
    probe_files: tuple[str, ...],
    tls: bool,
    max_bytes: int | None,
    ring: bool,
    max_cpu: float | None,
    max_memory: int | None,
    spool: str | None,
    from_dir: str | None,
    no_kubernetes: bool,
    no_arguments: bool,
    as_json: bool,
    cmd: tuple[str, ...],
) -> int:
    from kubetape.capture.recorder import Options, Recorder

    limit = payload_bytes if payload_bytes is not None else (65536 if payload == "full" else 4096)
    if not 1 <= limit <= 65536:
        raise click.BadParameter("from 1 to 64K", param_hint="--payload-bytes")
    if ring and (max_bytes is None or max_bytes < 1 << 20):
        raise click.BadParameter("needs --max-bytes of 1M or more", param_hint="--ring")
    options = Options(
        output=output,
        duration_s=duration if duration is not None or cmd else 60.0,
        pids=pids,
        ports=ports,
        namespaces=namespaces,
        pods=pods,
        payload=payload,
        payload_bytes=limit,
        sched=sched,
        stack_hz=stack_hz if stacks else 0,
        user_probes=_user_probes(probe_files),
        tls=tls,
        max_bytes=max_bytes,
        max_memory=max_memory,
        max_cpu=max_cpu,
        ring=ring,
        spool_folder=spool,
        objects_folder=from_dir,
        kubernetes=not no_kubernetes,
        arguments=not no_arguments,
        command=cmd,
    )
    result = Recorder(options).run()
    node = result.manifest.nodes[0]
    tables = result.manifest.tables
    if as_json:
        summary = {
            "output": output,
            "stop_reason": node.stop_reason,
            "duration_ns": node.end_ns - node.start_ns,
            "lost_count": sum(p.lost_count for p in node.probes),
            "command_status": result.command_status,
            "rows": {name: entry.rows for name, entry in sorted(tables.items())},
            "notes": node.notes,
        }
        click.echo(json.dumps(summary, indent=1))
        return 0
    seconds = (node.end_ns - node.start_ns) / 1e9
    lost = sum(p.lost_count for p in node.probes)
    click.echo(
        f"{output}: {seconds:.1f} s, ended by {node.stop_reason}; {tables['connection'].rows} connections, "
        f"{tables['socket_data'].rows} reads and writes, {lost} events lost"
    )
    for probe in node.probes:
        if probe.status not in ("attached", "off"):
            click.echo(f"  without {probe.probe}: {probe.cost} ({probe.reason})")
    for note in node.notes:
        click.echo(f"  note: {note}")
    if result.command_status:
        click.echo(f"  {cmd[0]} ended with status {result.command_status}")
    return 0
