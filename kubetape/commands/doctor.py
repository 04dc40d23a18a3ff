"""kubetape doctor: what this node can record, and why not."""

from __future__ import annotations

import dataclasses
import json

import click


@click.command("doctor", help="What this node can record, by which mechanism, and what is missing without it.")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
def command(as_json: bool) -> int:
    from kubetape.capture.doctor import examine

    report = examine()
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), indent=1))
        return 0
    click.echo(f"kernel {report.kernel}, {report.architecture}; types from {report.header_source}; {report.bcc}")
    click.echo(f"compiled and attached in {report.load_seconds:.1f} s")
    for probe in report.probes:
        if probe.status == "attached":
            click.echo(f"  {probe.probe:<12} yes  {probe.mechanism}")
        else:
            click.echo(f"  {probe.probe:<12} no   {probe.reason}")
            click.echo(f"  {'':<12}      without it: {probe.cost}")
    for fact in report.facts:
        click.echo(f"  {fact}")
    return 0
