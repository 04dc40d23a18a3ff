"""Packets of ClickHouse's native protocol (src/Core/Protocol.h and ProtocolDefines.h of the server's source)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# What clients send.
C_HELLO, C_QUERY, C_DATA, C_CANCEL, C_PING, C_TABLES_STATUS, C_KEEP_ALIVE, C_SCALAR = range(8)
C_IGNORED_PARTS, C_READ_TASK = 8, 9
# What servers send.
S_HELLO, S_DATA, S_EXCEPTION, S_PROGRESS, S_PONG, S_END, S_PROFILE, S_TOTALS, S_EXTREMES = range(9)
S_TABLES_STATUS, S_LOG, S_COLUMNS, S_PARTS, S_READ_TASK, S_EVENTS = range(9, 15)
S_TIMEZONE: Final = 17

BLOCKS: Final = frozenset({S_DATA, S_TOTALS, S_EXTREMES, S_LOG, S_EVENTS})

# Revisions from which on a field is there.
R_BLOCK_INFO: Final = 51_903
R_CLIENT_INFO: Final = 54_032
R_TIMEZONE: Final = 54_058
R_QUOTA_KEY: Final = 54_060
R_DISPLAY_NAME: Final = 54_372
R_PATCH: Final = 54_401
R_WRITTEN: Final = 54_420
R_TEXT_SETTINGS: Final = 54_429
R_SECRET: Final = 54_441
R_TELEMETRY: Final = 54_442
R_FORWARDED: Final = 54_443
R_REFERER: Final = 54_447
R_DEPTH: Final = 54_448
R_START_TIME: Final = 54_449
R_PARALLEL: Final = 54_453
R_CUSTOM_SERIALIZATION: Final = 54_454
R_ADDENDUM: Final = 54_458
R_PARAMETERS: Final = 54_459
R_ELAPSED: Final = 54_460
R_PASSWORD_RULES: Final = 54_461
R_NONCE: Final = 54_462
R_TOTAL_BYTES: Final = 54_463
R_AGGREGATION: Final = 54_469
R_CHUNKS: Final = 54_470
R_PARALLEL_VERSION: Final = 54_471
R_ROLES: Final = 54_472
R_SERVER_SETTINGS: Final = 54_474
R_LINE_NUMBERS: Final = 54_475
R_TOKEN: Final = 54_476
R_PLAN_VERSION: Final = 54_477


@dataclass(frozen=True, slots=True)
class Hello:
    """A client's: user and database; a server's: its name only."""

    name: str
    version: str
    revision: int
    database: str = ""
    user: str = ""


class Addendum:
    """What a client adds to its hello once it knows the server's revision."""


ADDENDUM: Final = Addendum()


@dataclass(frozen=True, slots=True)
class Query:
    """text: the statement as far as captured. trace: trace and span id of the client info, in hexadecimal."""

    query_id: str
    text: bytes
    compressed: bool
    revision: int
    client: str
    user: str
    trace: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Block:
    """A block of rows. kind: its packet; whole: it could be walked to its end. rows: None if not readable."""

    kind: int
    rows: int | None
    columns: int | None
    whole: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception of the server; message without the stack trace."""

    code: int
    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    """rows, size_bytes: read so far, since the last packet of this kind; written_rows: likewise."""

    rows: int
    size_bytes: int
    written_rows: int


@dataclass(frozen=True, slots=True)
class Simple:
    """A packet of which only the kind counts; rows: of a profile, rows of the result."""

    kind: int
    rows: int | None = None
