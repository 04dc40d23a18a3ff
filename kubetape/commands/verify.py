"""kubetape verify: is the bundle what its writer wrote?"""

from __future__ import annotations

import click


@click.command("verify", help="Check every byte of a bundle against its manifest. Exit status 1: not intact.")
@click.argument("bundle", type=click.Path())
def command(bundle: str) -> int:
    from kubetape.bundle.reader import Bundle

    problems = Bundle(bundle).verify()
    for problem in problems:
        click.echo(problem)
    if not problems:
        click.echo("intact")
    return 1 if problems else 0
