"""kubetape info: what a bundle holds."""

from __future__ import annotations

import dataclasses
import json

import click


@click.command("info", help="What a bundle holds, and what it does not.")
@click.argument("bundle", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="The manifest as JSON.")
def command(bundle: str, as_json: bool) -> int:
    from kubetape.bundle.reader import Bundle

    opened = Bundle(bundle)
    manifest = opened.manifest
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(manifest), indent=1, sort_keys=True))
        return 0
    for node in manifest.nodes:
        seconds = (node.end_ns - node.start_ns) / 1e9
        click.echo(f"node {node.name}  {node.source}  {seconds:.1f} s, ended by {node.stop_reason or 'unknown'}")
        click.echo(
            f"  {node.distribution or 'unknown system'}, kernel {node.kernel or 'unknown'}, {node.cpu_count} CPUs"
        )
        for probe in node.probes:
            counts = (
                f"{probe.event_count} events, {probe.lost_count} lost" if probe.status == "attached" else probe.reason
            )
            click.echo(f"  {probe.probe:<16} {probe.status:<12} {probe.mechanism:<40} {counts}")
        for note in node.notes:
            click.echo(f"  note: {note}")
    for name, entry in sorted(manifest.tables.items()):
        click.echo(f"{name:<20} {entry.rows:>10} rows {entry.bytes:>12} bytes")
    return 0
