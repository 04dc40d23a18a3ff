"""Prepared statements: what a connection knows of them, and what others teach about those it does not.

A pool prepares its statements once, often before the recording began. Their text is then taken from another
connection to the same server that prepared a statement with as many parameters and the same result columns,
if there is exactly one such text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kubetape.analyze.normalise.sql import digest
from kubetape.analyze.protocols.contract import Request
from kubetape.analyze.protocols.mysql.parse import guess_count, read_binding, read_bulk, read_values, values_json
from kubetape.analyze.protocols.mysql.types import BULK_EXECUTE

MAX_LEARNED = 10_000  # statements of one server; ORMs that never reuse one are no pool
MAX_UNKNOWN = 200_000  # executions of one server whose bytes are kept for later


class Statement:
    """A prepared statement of a connection. kinds: types of the last binding; long_data: parameters sent apart."""

    __slots__ = ("columns", "kinds", "long_data", "parameters", "text")

    def __init__(self, text: str | None, parameters: int | None, columns: int) -> None:
        self.text, self.parameters, self.columns = text, parameters, columns
        self.kinds: list[int] | None = None
        self.long_data: set[int] = set()


@dataclass(slots=True)
class Unknown:
    """An execution of a statement nobody was seen preparing; size: of its body on the wire."""

    row: Request
    command: int
    body: bytes
    size: int
    statement_id: int
    names: tuple[bytes, ...] | None
    capabilities: int | None


@dataclass(slots=True)
class Server:
    """What is known of one server. learned: (parameters, names of result columns) -> texts, each with its ids."""

    learned: dict[tuple[int, tuple[bytes, ...]], dict[str, set[int]]] = field(default_factory=dict)
    learned_count: int = 0
    unknown: list[Unknown] = field(default_factory=list)

    def learn(self, text: str, parameters: int, names: tuple[bytes, ...], statement_id: int) -> None:
        texts = self.learned.setdefault((parameters, names), {})
        if text not in texts:
            if self.learned_count >= MAX_LEARNED:
                return
            self.learned_count += 1
        texts.setdefault(text, set()).add(statement_id)


def set_statement(row: Request, text: str) -> None:
    row.statement = text
    row.resource = digest(text, "mysql")[1]


def show_values(
    row: Request, command: int, body: bytes, statement: Statement, count: int, capabilities: int | None
) -> None:
    """Fill `parameters` from an execution of a statement with `count` parameters."""
    if command == BULK_EXECUTE:
        bulk = read_bulk(body, count)
        if bulk is not None:
            row.parameters = values_json(bulk[0])
            row.attributes = {**(row.attributes or {}), "bulk_count": bulk[1]}
        return
    binding = read_binding(body, count, capabilities)
    if binding is None or not binding.count:
        return
    kinds = binding.kinds if binding.kinds is not None else statement.kinds
    if kinds is None or len(kinds) < binding.count:
        return
    statement.kinds = kinds
    values, _ = read_values(body, binding.start, binding.nulls, kinds[: binding.count], frozenset(statement.long_data))
    statement.long_data.clear()
    row.parameters = values_json(values)


def resolve(rows: list[Request], shared: dict[Any, Any]) -> None:
    """Text and values of executions whose PREPARE is on another connection, or before the recording."""
    for server in shared.values():
        if not isinstance(server, Server):
            continue
        by_names: dict[tuple[bytes, ...], dict[int, dict[str, set[int]]]] = {}
        for (count, names), texts in server.learned.items():
            by_names.setdefault(names, {})[count] = texts
        types: dict[tuple[int, int], Statement] = {}
        for unknown in server.unknown:
            _resolve_one(unknown, by_names, types)
        server.unknown.clear()


def _resolve_one(
    unknown: Unknown,
    by_names: dict[tuple[bytes, ...], dict[int, dict[str, set[int]]]],
    types: dict[tuple[int, int], Statement],
) -> None:
    row = unknown.row
    key = (row.connection_id, unknown.statement_id)
    statement = types.get(key)
    if statement is None:
        statement = types[key] = Statement(None, None, 0)
    count = statement.parameters
    if count is None and unknown.command != BULK_EXECUTE:
        count = statement.parameters = guess_count(unknown.body, unknown.size)
    counts = by_names.get(unknown.names, {}) if unknown.names is not None else {}
    if count is not None:
        texts = counts.get(count, {})
    elif len(counts) == 1:
        # Types were sent before the recording: all statements with these columns agree on the number.
        ((known_count, texts),) = counts.items()
        if unknown.command == BULK_EXECUTE:
            count = known_count
    else:
        texts = {text: ids for part in counts.values() for text, ids in part.items()}
    text = _only(texts, unknown.statement_id)
    inferred = []
    if text is not None:
        set_statement(row, text)
        inferred += ["statement", "resource"]
    if count:
        show_values(row, unknown.command, unknown.body, statement, count, unknown.capabilities)
        if row.parameters is not None:
            inferred.append("parameters")
    if inferred:
        row.inferred = ",".join([*([row.inferred] if row.inferred else []), *inferred])


def _only(texts: dict[str, set[int]], statement_id: int) -> str | None:
    """The one text that fits; of several, the one that other connections gave this very number."""
    if len(texts) == 1:
        return next(iter(texts))
    same_id = [text for text, ids in texts.items() if statement_id in ids]
    return same_id[0] if len(same_id) == 1 and len(texts) > 1 else None
