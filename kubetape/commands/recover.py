"""kubetape recover: a bundle from the spool of a recorder that was killed."""

from __future__ import annotations

import click


@click.command("recover", help="A bundle from the spool of a recorder that was killed. The spool stays.")
@click.argument("spool", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The bundle to write.")
def command(spool: str, output: str) -> int:
    from kubetape.capture.convert import convert
    from kubetape.capture.spool import SpoolReader

    reader = SpoolReader(spool)
    try:
        manifest = convert(reader, output)
    finally:
        reader.close()
    tables = manifest.tables
    click.echo(f"{output}: {tables['connection'].rows} connections, {tables['socket_data'].rows} reads and writes")
    for note in manifest.nodes[0].notes:
        click.echo(f"  note: {note}")
    return 0
