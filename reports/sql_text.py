"""A statement as a person would write it: one clause a line."""

from __future__ import annotations

import logging

DIALECTS = {"mysql": "mysql", "postgresql": "postgres", "tds": "tsql", "clickhouse": "clickhouse", "tns": "oracle"}
MAX_STATEMENT_CHARS = 20_000  # a longer one (a bulk INSERT) is shown as it came


def pretty(statement: str, protocol: str) -> str:
    """`statement` formatted by sqlglot in the dialect of `protocol`; as it came where sqlglot cannot read it."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    # It warns of every construct it does not know; the text as it came is the answer then.
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    if len(statement) > MAX_STATEMENT_CHARS:
        return statement
    try:
        parsed = sqlglot.parse(statement, read=DIALECTS.get(protocol))
        texts = [tree.sql(dialect=DIALECTS.get(protocol), pretty=True) for tree in parsed if tree is not None]
    except (SqlglotError, RecursionError):
        return statement
    return ";\n".join(texts) or statement
