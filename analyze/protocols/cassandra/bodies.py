"""What the bodies of CQL envelopes say (section 4 of the specifications)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from kubetape.analyze.protocols.cassandra.types import (
    BATCH,
    BATCH_KINDS,
    CONSISTENCY,
    CUSTOM_PAYLOAD,
    EXECUTE,
    PREPARE,
    QUERY,
    REGISTER,
    STARTUP,
    TRACED,
    WARNED,
    Envelope,
)
from kubetape.analyze.protocols.common.reader import Reader
from kubetape.analyze.protocols.common.text import read_name, read_text

MAX_BATCH_STATEMENTS: Final = 32  # listed per row; a batch may have 65535
MAX_TYPE_DEPTH: Final = 16


@dataclass(slots=True)
class Asked:
    """A request. parts: of an EXECUTE or BATCH, CQL texts and ids of prepared statements in order."""

    statement: str | None = None
    parts: list[str | bytes] = field(default_factory=list)
    keyspace: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    carriers: dict[str, str] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Told:
    """A reply. kind: of a RESULT ('rows', 'prepared', ...); code: of an ERROR."""

    kind: str | None = None
    code: int | None = None
    message: str | None = None
    rows: int | None = None
    table: str | None = None
    keyspace: str | None = None
    prepared_id: bytes | None = None
    event: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


def _string(reader: Reader) -> str:
    return read_name(reader.vector(2))


def _bytes_size(reader: Reader) -> int:
    """Skip [bytes], whose length may be negative for null; returns its size."""
    size = reader.number(4)
    if size >> 31:
        return 0
    reader.take(size)
    return size


def read_request(envelope: Envelope) -> Asked:
    """The body of a request; fields that are cut or compressed beyond reading stay empty."""
    asked = Asked()
    if not envelope.readable:
        asked.detail["unreadable"] = True
        return asked
    reader = Reader(envelope.body)
    if envelope.flags & CUSTOM_PAYLOAD:
        for _ in range(min(reader.number(2), 64)):
            name = _string(reader).lower()
            size = reader.number(4)
            value = b"" if size >> 31 else reader.take(size)
            if len(value) <= 1024:
                asked.carriers[name] = read_name(value)
    opcode, version = envelope.opcode, envelope.version
    if opcode in (QUERY, PREPARE):
        asked.statement = _PASSWORD.sub(r"\1'…'", read_text(reader.vector(4)))
        if opcode == QUERY and version > 1:
            _parameters(reader, version, asked)
        elif opcode == PREPARE and version == 5 and reader.number(4) & 1:
            asked.keyspace = _string(reader)
    elif opcode == EXECUTE:
        asked.parts.append(reader.vector(2))
        if version == 5:
            reader.vector(2)  # id of the result's metadata
        if version > 1:
            _parameters(reader, version, asked)
    elif opcode == BATCH:
        _batch(reader, version, asked)
    elif opcode == STARTUP:
        for _ in range(min(reader.number(2), 16)):
            name = _string(reader)
            asked.options[name] = _string(reader)
    elif opcode == REGISTER:
        asked.detail["events"] = [_string(reader) for _ in range(min(reader.number(2), 16))]
    return asked


def _parameters(reader: Reader, version: int, asked: Asked) -> None:
    """<query_parameters>: consistency, flags, and what the flags announce, in this order."""
    if reader.left() < 3:
        return
    consistency = reader.number(2)
    asked.detail["consistency"] = CONSISTENCY.get(consistency, str(consistency))
    flags = reader.number(4 if version == 5 else 1)
    if flags & 0x01:
        count = reader.number(2)
        asked.detail["values"] = count
        for _ in range(count):
            if reader.short:
                return
            if flags & 0x40:
                reader.vector(2)
            _bytes_size(reader)
    if flags & 0x04:
        asked.detail["page_size"] = reader.number(4)
    if flags & 0x08:
        asked.detail["next_page"] = True
        _bytes_size(reader)
    if flags & 0x10 and not reader.short:
        serial = reader.number(2)
        asked.detail["serial_consistency"] = CONSISTENCY.get(serial, str(serial))
    if flags & 0x20:
        reader.take(8)
    if version == 5 and flags & 0x80:
        asked.keyspace = _string(reader) or None


def _batch(reader: Reader, version: int, asked: Asked) -> None:
    kind, count = reader.number(1), reader.number(2)
    asked.detail["batch"] = BATCH_KINDS.get(kind, str(kind))
    asked.detail["statements"] = count
    for number in range(count):
        if reader.short:
            return
        prepared = reader.number(1)
        part: str | bytes = reader.vector(2) if prepared else read_text(reader.vector(4))
        if number < MAX_BATCH_STATEMENTS:
            asked.parts.append(part)
        for _ in range(reader.number(2)):
            if reader.short:
                return
            _bytes_size(reader)
    if reader.left() >= 2:
        consistency = reader.number(2)
        asked.detail["consistency"] = CONSISTENCY.get(consistency, str(consistency))
    if version == 5 and reader.left() >= 4 and reader.number(4) & 0x80:
        asked.keyspace = _string(reader) or None


# ---- replies -----------------------------------------------------------------------------------------------------


def read_reply(envelope: Envelope) -> Told:
    """The body of a reply, likewise."""
    told = Told()
    if not envelope.readable:
        told.detail["unreadable"] = True
        return told
    reader = Reader(envelope.body)
    flags, opcode = envelope.flags, envelope.opcode
    if flags & TRACED:
        told.detail["tracing_id"] = reader.take(16).hex()
    if flags & WARNED:
        told.detail["warnings"] = [_string(reader) for _ in range(min(reader.number(2), 16))]
    if flags & CUSTOM_PAYLOAD:
        for _ in range(min(reader.number(2), 64)):
            reader.vector(2)
            _bytes_size(reader)
    if opcode == 0x00:
        if reader.left() >= 4:
            told.code = reader.number(4)
            told.message = read_text(reader.vector(2))
    elif opcode == 0x08:
        _result(reader, envelope.version, told)
    elif opcode == 0x03:
        told.detail["authenticator"] = _string(reader)
    elif opcode == 0x0C:
        told.event = _string(reader)
        told.detail["change"] = _string(reader)
        if told.event == "SCHEMA_CHANGE":
            target = _string(reader) if envelope.version > 2 else ""
            names = [_string(reader)]
            if target != "KEYSPACE" and reader.left():
                names.append(_string(reader))
            told.table = ".".join(name for name in names if name)
    return told


def _result(reader: Reader, version: int, told: Told) -> None:
    kind = reader.number(4)
    told.kind = {1: "void", 2: "rows", 3: "set_keyspace", 4: "prepared", 5: "schema_change"}.get(kind)
    if kind == 2:
        _rows(reader, version, told)
    elif kind == 3:
        told.keyspace = _string(reader)
    elif kind == 4:
        told.prepared_id = reader.vector(2)
        if version == 5:
            reader.vector(2)
        flags, columns = reader.number(4), reader.number(4)
        if version > 3:
            for _ in range(min(reader.number(4), 1024)):
                reader.take(2)
        _table(reader, flags, columns, told)
        if told.table is None:
            # A statement without bind markers: the table stands in the metadata of its result.
            flags, columns = reader.number(4), reader.number(4)
            if flags & 2:
                _bytes_size(reader)
            if not flags & 4:
                _table(reader, flags, columns, told)
    elif kind == 5:
        told.detail["change"] = _string(reader)
        target = _string(reader)
        if version > 2:
            names = [_string(reader)]
            if target != "KEYSPACE" and reader.left():
                names.append(_string(reader))
            told.table = ".".join(name for name in names if name)


def _table(reader: Reader, flags: int, columns: int, told: Told) -> None:
    """keyspace.table of a <metadata>, common to all columns or that of the first; leaves the reader behind it."""
    if flags & 1:
        told.table = f"{_string(reader)}.{_string(reader)}"
    elif columns and reader.left() > 4:
        place = reader.place
        told.table = f"{_string(reader)}.{_string(reader)}"
        reader.place = place
    if reader.short:
        told.table = None


def _rows(reader: Reader, version: int, told: Told) -> None:
    flags, columns = reader.number(4), reader.number(4)
    if flags & 2:
        told.detail["more_pages"] = True
        _bytes_size(reader)
    if version == 5 and flags & 8:
        reader.vector(2)
    if not flags & 4:
        _table(reader, flags, columns, told)
        for _ in range(columns):
            if reader.short:
                return
            if not flags & 1:
                reader.vector(2)
                reader.vector(2)
            reader.vector(2)
            _skip_type(reader, 0)
    if reader.left() >= 4:
        told.rows = reader.number(4)


def _skip_type(reader: Reader, depth: int) -> None:
    """[option]: an id, and what follows it for custom types and those made of others."""
    kind = reader.number(2)
    if depth > MAX_TYPE_DEPTH or reader.short:
        reader.short = True
        return
    if kind == 0x0000:
        reader.vector(2)
    elif kind in (0x0020, 0x0022):
        _skip_type(reader, depth + 1)
    elif kind == 0x0021:
        _skip_type(reader, depth + 1)
        _skip_type(reader, depth + 1)
    elif kind == 0x0030:
        reader.vector(2)
        reader.vector(2)
        for _ in range(reader.number(2)):
            if reader.short:
                return
            reader.vector(2)
            _skip_type(reader, depth + 1)
    elif kind == 0x0031:
        for _ in range(reader.number(2)):
            if reader.short:
                return
            _skip_type(reader, depth + 1)


# ---- CQL ---------------------------------------------------------------------------------------------------------

_IDENTIFIER: Final = r'("(?:[^"]|""){1,48}"|[A-Za-z]\w{0,63})'
_TABLE: Final = re.compile(
    r"\b(?:FROM|INTO|UPDATE|TRUNCATE(?:\s+(?:TABLE|COLUMNFAMILY))?"
    r"|(?:CREATE|ALTER|DROP)\s+(?:TABLE|COLUMNFAMILY|TYPE|MATERIALIZED\s+VIEW)(?:\s+IF\s+(?:NOT\s+)?EXISTS)?"
    r"|INDEX(?:\s+IF\s+NOT\s+EXISTS)?(?:\s+\w{1,64})?\s+ON)\s+" + _IDENTIFIER + r"(?:\s*\.\s*" + _IDENTIFIER + ")?",
    re.IGNORECASE,
)
# CREATE ROLE ... WITH PASSWORD = '...'; CREATE USER ... WITH PASSWORD '...'.
_PASSWORD: Final = re.compile(r"(\bPASSWORD\s{0,8}=?\s{0,8})'(?:[^']|''){0,1024}'", re.IGNORECASE)
_KEYSPACE: Final = re.compile(
    r"\b(?:USE|(?:CREATE|ALTER|DROP)\s+(?:KEYSPACE|SCHEMA)(?:\s+IF\s+(?:NOT\s+)?EXISTS)?)\s+" + _IDENTIFIER,
    re.IGNORECASE,
)


def _name(text: str) -> str:
    """An identifier as the server knows it: quoted ones as they are, others in lower case."""
    return text[1:-1].replace('""', '"') if text.startswith('"') else text.lower()


def table_of(cql: str, keyspace: str | None) -> str | None:
    """keyspace.table that a statement names (of a batch, the first); the table alone where no keyspace is known."""
    found = _TABLE.search(cql)
    if found is not None:
        if found[2]:
            return f"{_name(found[1])}.{_name(found[2])}"
        return f"{keyspace}.{_name(found[1])}" if keyspace else _name(found[1])
    found = _KEYSPACE.search(cql)
    return _name(found[1]) if found else None


def used_keyspace(cql: str) -> str | None:
    """The keyspace of a USE statement."""
    text = cql.lstrip()
    if text[:4].upper() != "USE ":
        return None
    found = _KEYSPACE.match(text)
    return _name(found[1]) if found else None
