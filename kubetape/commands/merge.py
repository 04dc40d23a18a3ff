"""kubetape merge: several bundles into one."""

from __future__ import annotations

import click


@click.command(
    "merge", help="Several bundles into one: node kept on every row, clocks aligned by the traffic between them."
)
@click.argument("bundles", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", type=click.Path(), required=True, help="The bundle to write.")
def command(bundles: tuple[str, ...], output: str) -> int:
    from kubetape.capture.merge import merge

    manifest = merge(list(bundles), output)
    rows = sum(entry.rows for entry in manifest.tables.values())
    click.echo(f"{output}: {len(manifest.nodes)} nodes, {rows} rows")
    for node in manifest.nodes:
        alignment = node.facts.get("clock_alignment")
        if alignment:
            click.echo(next(note for note in reversed(node.notes) if note.startswith(f"{node.name}: ")))
    return 0
