"""Prepared statements and portals: what a connection knows, and what others teach about those it does not.

An execution of a statement parsed before the recording takes the text of the only statement of the same
server that has as many parameters, as many result columns and the same command tag; of several, the one that
other connections know under the same name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kubetape.analyze.normalise.sql import digest
from kubetape.analyze.protocols.contract import Request

MAX_LEARNED = 10_000
MAX_UNKNOWN = 200_000


class Statement:
    """A parsed statement: its text, and the types of its parameters (given, or described by the server)."""

    __slots__ = ("name", "text", "types")

    def __init__(self, name: str, text: str | None, types: list[int]) -> None:
        self.name, self.text, self.types = name, text, types


class Portal:
    """A bound statement. formats, values: of its parameters."""

    __slots__ = ("formats", "statement", "values")

    def __init__(self, statement: Statement, formats: list[int], values: list[bytes | None]) -> None:
        self.statement, self.formats, self.values = statement, formats, values


# (parameters, result columns, command tag) of an execution; columns 0: no rows were sent, so not known.
Shape = tuple[int, int, str]


@dataclass(slots=True)
class Server:
    """What is known of one server: shapes and names of each text, and executions without text."""

    learned: dict[str, tuple[set[Shape], set[str]]] = field(default_factory=dict)
    unknown: list[tuple[Request, Shape, str]] = field(default_factory=list)

    def learn(self, text: str, shape: Shape, name: str) -> None:
        known = self.learned.get(text)
        if known is None:
            if len(self.learned) >= MAX_LEARNED:
                return
            known = self.learned[text] = (set(), set())
        known[0].add(shape)
        if name:
            known[1].add(name)


def resolve(rows: list[Request], shared: dict[Any, Any]) -> None:
    """Text of executions whose Parse is on another connection."""
    for server in shared.values():
        if not isinstance(server, Server):
            continue
        found: dict[tuple[Shape, str], str | None] = {}
        for row, shape, name in server.unknown:
            if (shape, name) not in found:
                found[shape, name] = _find(server, shape, name)
            text = found[shape, name]
            if text is not None:
                row.statement, row.resource = text, digest(text, "postgresql")[1]
                row.inferred = "statement,resource"
        server.unknown.clear()


def _find(server: Server, shape: Shape, name: str) -> str | None:
    fitting = [
        (text, names) for text, (shapes, names) in server.learned.items() if any(_alike(shape, s) for s in shapes)
    ]
    if len(fitting) == 1:
        return fitting[0][0]
    named = [text for text, names in fitting if name and name in names]
    return named[0] if len(named) == 1 else None


def _alike(one: Shape, other: Shape) -> bool:
    return one[0] == other[0] and one[2] == other[2] and (one[1] == other[1] or not one[1] or not other[1])
