"""Write docs/bundle.md and docs/tables.md from the schema and the headers of the derived tables.

Usage: python -m tools.reference [--check]     --check: exit status 1 where a page is not what would be written
"""

from __future__ import annotations

import sys
from pathlib import Path

from kubetape.analyze.findings import RULES
from kubetape.analyze.tables import DERIVED_TABLES
from kubetape.bundle import TABLES

DOCS = Path(__file__).parent.parent / "docs"


def bundle_page() -> str:
    """Markdown: every raw table of a bundle."""
    lines = [
        "# The tables of a bundle",
        "",
        "Made by `python -m tools.reference` from `kubetape/bundle/schema.py`. Times `*_ns` of event tables are the",
        "node's monotonic clock; `manifest.json` holds the anchors to wall-clock time.",
    ]
    for table in TABLES.values():
        lines += [
            "",
            f"## {table.name}",
            "",
            f"One row: {table.doc}.",
            "",
            "| column | type | what | NULL when |",
            "|---|---|---|---|",
        ]
        lines += [f"| {c.name} | {c.type} | {_cell(c.doc)} | {_cell(c.null)} |" for c in table.columns]
    return "\n".join(lines) + "\n"


def tables_page() -> str:
    """Markdown: every derived table, and the rules."""
    lines = [
        "# The tables of an analysis",
        "",
        "Made by `python -m tools.reference` from the headers of `analyze/sql/*.sql`. Ask them with",
        '`kubetape sql BUNDLE "select ..."`. Durations are nanoseconds; times are nanoseconds since 1970.',
    ]
    for table in DERIVED_TABLES.values():
        lines += ["", f"## {table.name}", "", f"One row: {table.doc}", "", "| column | type | what |", "|---|---|---|"]
        lines += [f"| {c.name} | {c.type} | {_cell(c.doc)} |" for c in table.columns]
    lines += ["", "## finding", "", "One row: a rule and what it found. Rules (`kubetape explain RULE`):", ""]
    lines += [f"- `{rule.name}`: {rule.summary}" for rule in RULES.values()]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {"bundle.md": bundle_page, "tables.md": tables_page}


def main() -> int:
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if path.exists() and path.read_text("utf8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text, "utf8")
    if "--check" in sys.argv:
        for name in stale:
            print(f"docs/{name} is not current: run python -m tools.reference", file=sys.stderr)
        return 1 if stale else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
