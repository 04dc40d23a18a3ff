"""kubetape sql: ask a bundle with SQL."""

from __future__ import annotations

import csv
import json
import sys
from typing import Any

import click

MAX_CELL_WIDTH = 80  # characters of a cell in the table format; json and csv give it whole


@click.command("sql", help="Ask a bundle with SQL (DuckDB). Without a query: the tables there are.")
@click.argument("bundle", type=click.Path())
@click.argument("query", required=False)
@click.option("--format", "output", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
def command(bundle: str, query: str | None, output: str) -> int:
    from kubetape.analyze.analysis import Analysis

    analysis = Analysis(bundle)
    if query is None:
        for name in analysis.table_names():
            click.echo(name)
        return 0
    result = analysis.query(query)
    if output == "json":
        sys.stdout.write(json.dumps(result.to_pylist(), default=_plain, ensure_ascii=False) + "\n")
    elif output == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(result.column_names)
        writer.writerows(zip(*(c.to_pylist() for c in result.columns), strict=True))
    else:
        _print_table(result)
    return 0


def _plain(value: Any) -> Any:
    """What JSON has no form for: bytes as text with escapes, times and decimals as text."""
    return value.decode("utf8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _print_table(result: Any) -> None:
    cells = [[_cell(v) for v in column.to_pylist()] for column in result.columns]
    widths = [
        max([len(name), *(len(c) for c in column)]) for name, column in zip(result.column_names, cells, strict=True)
    ]
    click.echo("  ".join(n.ljust(w) for n, w in zip(result.column_names, widths, strict=True)).rstrip())
    click.echo("  ".join("-" * w for w in widths))
    for row in zip(*cells, strict=True):
        click.echo("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    text = "" if value is None else _plain(value) if isinstance(value, bytes) else str(value)
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= MAX_CELL_WIDTH else text[: MAX_CELL_WIDTH - 1] + "…"
