"""kubetape compare: two bundles, one verdict, an exit status."""

from __future__ import annotations

import json
import os

import click


@click.command("compare", help="Compare two bundles. Exit status: 0 no regression, 1 regression, 3 cannot tell.")
@click.argument("base", type=click.Path())
@click.argument("candidate", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="Folder for compare.md, compare.json and compare.xml.")
@click.option("--markdown", type=click.Path(), help="Write the Markdown here.")
@click.option("--json", "json_file", type=click.Path(), help="Write the JSON here ('-': standard output).")
@click.option("--junit", type=click.Path(), help="Write JUnit XML here.")
@click.option(
    "--min-samples", type=click.IntRange(1), default=20, show_default=True, help="Requests needed on each side."
)
@click.option("--min-ratio", type=float, default=1.5, show_default=True, help="Smallest factor that counts.")
@click.option("--min-ms", type=float, default=2.0, show_default=True, help="Smallest difference that counts, ms.")
def command(
    base: str,
    candidate: str,
    output: str | None,
    markdown: str | None,
    json_file: str | None,
    junit: str | None,
    min_samples: int,
    min_ratio: float,
    min_ms: float,
) -> int:
    from kubetape.analyze.compare import Limits, compare, to_dict, to_junit, to_markdown
    from kubetape.errors import KubetapeError

    result = compare(base, candidate, Limits(min_samples=min_samples, min_ratio=min_ratio, min_ms=min_ms))
    texts = {
        "md": to_markdown(result),
        "json": json.dumps(to_dict(result), indent=1) + "\n",
        "xml": to_junit(result),
    }
    files = {"md": markdown, "json": json_file, "xml": junit}
    try:
        for kind, path in files.items():
            if path and path != "-":
                with open(path, "w", encoding="utf8") as out:
                    out.write(texts[kind])
        if output:
            os.makedirs(output, exist_ok=True)
            for kind, text in texts.items():
                with open(os.path.join(output, f"compare.{kind}"), "w", encoding="utf8") as out:
                    out.write(text)
    except OSError as error:
        raise KubetapeError(f"cannot write {error.filename}: {error.strerror}") from error
    click.echo(texts["json"] if json_file == "-" else texts["md"], nl=False)
    return result.exit_status
