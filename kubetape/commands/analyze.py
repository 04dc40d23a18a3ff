"""kubetape analyze: rebuild what happened and write the report."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

import click


@click.command("analyze", help="Rebuild what happened; write report.html, PNGs and results as Parquet and JSON.")
@click.argument("bundles", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", type=click.Path(), required=True, help="Folder to write into.")
@click.option("--rules", type=click.Path(), help="Folder of rules of your own (NAME.sql, NAME.md).")
@click.option(
    "--thresholds", type=click.Path(), help="TOML file of `name = number`; names: kubetape explain --thresholds."
)
def command(bundles: tuple[str, ...], output: str, rules: str | None, thresholds: str | None) -> int:
    from kubetape.analyze.analysis import Analysis
    from kubetape.analyze.findings import user_rules
    from kubetape.analyze.tables import read_parameters
    from kubetape.errors import KubetapeError
    from kubetape.reports.charts import write_charts
    from kubetape.reports.data import collect
    from kubetape.reports.html import render
    from kubetape.reports.results import write_results

    extra, limits = user_rules(rules) if rules else None, read_parameters(thresholds) if thresholds else None
    with _one_of(bundles, output) as bundle:
        analysis = Analysis(bundle, extra, limits)
        try:
            os.makedirs(output, exist_ok=True)
            write_results(analysis, os.path.join(output, "results"))
            data = collect(analysis)
            charts = write_charts(data, output)
            page = os.path.join(output, "report.html")
            with open(page, "w", encoding="utf8") as out:
                out.write(render(data, charts))
        except OSError as error:
            raise KubetapeError(f"cannot write into {output}: {error.strerror or error}") from error
        for finding in data.findings[:3]:
            click.echo(f"{finding['severity']}: {finding['title']}")
        if not data.findings:
            click.echo("no findings")
        click.echo(f"report: {page}")
        return 0


@contextlib.contextmanager
def _one_of(bundles: tuple[str, ...], output: str) -> Iterator[str]:
    """The bundle given, or those given as one, which is gone afterwards."""
    if len(bundles) == 1:
        yield bundles[0]
        return
    from kubetape.capture.merge import merge
    from kubetape.errors import KubetapeError

    try:
        os.makedirs(output, exist_ok=True)
    except OSError as error:
        raise KubetapeError(f"cannot write into {output}: {error.strerror or error}") from error
    with tempfile.TemporaryDirectory(dir=output, prefix=".merge-") as folder:
        merged = os.path.join(folder, "merged.ktape")
        merge(list(bundles), merged)
        yield merged
