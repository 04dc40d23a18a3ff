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
    """An execution of a statement nobody was seen preparing.

    size: of its body on the wire. names, columns: of its result; None where the reply does not tell (MariaDB leaves
    out definitions that the client knows).
    """

    row: Request
    command: int
    body: bytes
    size: int
    statement_id: int
    names: tuple[bytes, ...] | None
    columns: int | None
    capabilities: int | None


@dataclass(slots=True)
class Server:
    """What is known of one server.

    learned: (parameters, names of result columns) -> texts, each with its ids; kinds: text -> types bound.
    """

    learned: dict[tuple[int, tuple[bytes, ...]], dict[str, set[int]]] = field(default_factory=dict)
    learned_count: int = 0
    kinds: dict[str, list[int]] = field(default_factory=dict)
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
        if isinstance(server, Server):
            types: dict[tuple[int, int], Statement] = {}
            for unknown in server.unknown:
                statement = types.setdefault(
                    (unknown.row.connection_id, unknown.statement_id), Statement(None, None, 0)
                )
                _resolve_one(unknown, server, statement)
            server.unknown.clear()


def _resolve_one(unknown: Unknown, server: Server, statement: Statement) -> None:
    row = unknown.row
    if statement.parameters is None and unknown.command != BULK_EXECUTE:
        statement.parameters = guess_count(unknown.body, unknown.size)
    inferred = [row.inferred] if row.inferred else []
    found = _find(unknown, server, statement)
    if found is not None:
        text, statement.parameters = found
        set_statement(row, text)
        inferred += ["statement", "resource"]
        if statement.kinds is None and (kinds := server.kinds.get(text)) is not None and _fits(unknown, kinds):
            statement.kinds = kinds
    if statement.parameters:
        show_values(row, unknown.command, unknown.body, statement, statement.parameters, unknown.capabilities)
        if row.parameters is not None:
            inferred.append("parameters")
    row.inferred = ",".join(inferred) or None


def _find(unknown: Unknown, server: Server, statement: Statement) -> tuple[str, int] | None:
    """(text, parameters) of the one statement that can be it; of several the one others gave the same number."""
    if unknown.columns is None:
        return None
    texts: dict[tuple[str, int], set[int]] = {}
    for (count, names), known in server.learned.items():
        if statement.parameters not in (None, count) or len(names) != unknown.columns:
            continue
        if unknown.names is not None and names != unknown.names:
            continue
        if statement.parameters is None and not _size_fits(unknown, count):
            continue
        for text, ids in known.items():
            texts[text, count] = ids
    if len(texts) == 1:
        return next(iter(texts))
    same_id = [text for text, ids in texts.items() if unknown.statement_id in ids]
    return same_id[0] if len(same_id) == 1 else None


def _size_fits(unknown: Unknown, count: int) -> bool:
    """Whether an execution with `count` parameters can have this size."""
    if unknown.command == BULK_EXECUTE:
        return count > 0
    if not count:
        return unknown.size == 9
    flag = 9 + (count + 7) // 8
    return unknown.size > flag and len(unknown.body) > flag and unknown.body[flag] in (0, 1)


def _fits(unknown: Unknown, kinds: list[int]) -> bool:
    """Whether values of these types fill the bytes exactly."""
    binding = read_binding(unknown.body, len(kinds), unknown.capabilities)
    if binding is None or binding.kinds is not None or len(unknown.body) != unknown.size:
        return False
    values, end = read_values(unknown.body, binding.start, binding.nulls, kinds)
    return len(values) == len(kinds) and end == unknown.size
