"""kubetape explain: the page of a finding's rule."""

from __future__ import annotations

import click


@click.command(
    "explain", help="The page of a finding's rule: what it shows, why it matters, how to confirm it by hand."
)
@click.argument("rule", required=False)
@click.option(
    "--thresholds", is_flag=True, help="The thresholds that `analyze --thresholds` may change, with their values."
)
def command(rule: str | None, thresholds: bool) -> int:
    from kubetape.analyze.findings import RULES, explain
    from kubetape.analyze.tables import parameters

    if thresholds:
        for name, value in parameters().items():
            click.echo(f"{name} = {value:g}")
    elif rule is None:
        for name, entry in RULES.items():
            click.echo(f"{name:<24} {entry.summary}")
    else:
        click.echo(explain(rule), nl=False)
    return 0
