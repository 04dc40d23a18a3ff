"""kubetape import: a bundle from captures of other tools."""

from __future__ import annotations

import json

import click


@click.group("import", help="Make a bundle from captures of other tools.")
def command() -> None:
    pass


@command.command("pcap")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="The bundle to write (.ktape).")
@click.option("--node", help="Name of the node in the bundle; default: the first file's name.")
@click.option("--json", "as_json", is_flag=True, help="What was found, as JSON.")
def pcap(files: tuple[str, ...], output: str, node: str | None, as_json: bool) -> int:
    """A bundle from tcpdump or Wireshark captures (pcap, pcapng; gzip is fine).

    Several files are merged in the order of their times. Needs no privileges.
    """
    import dataclasses

    from kubetape.capture.pcap import import_pcap

    found = import_pcap(files, output, node)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=1, sort_keys=True))
        return 0
    click.echo(
        f"{output}: {found.packet_count} packets, {found.tcp_count} TCP connections, "
        f"{found.udp_count} UDP conversations"
    )
    for note in found.notes:
        click.echo(f"note: {note}")
    return 0
