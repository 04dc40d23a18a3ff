"""MySQL's frames and numbers (MySQL Internals: client/server protocol; MariaDB knowledge base: the same)."""

from __future__ import annotations

from dataclasses import dataclass, field

# Capability flags (include/mysql_com.h).
PROTOCOL_41 = 1 << 9
CONNECT_WITH_DB = 1 << 3
COMPRESS = 1 << 5
SSL = 1 << 11
SECURE_CONNECTION = 1 << 15
PLUGIN_AUTH = 1 << 19
CONNECT_ATTRS = 1 << 20
PLUGIN_AUTH_LENENC = 1 << 21
SESSION_TRACK = 1 << 23
DEPRECATE_EOF = 1 << 24
OPTIONAL_METADATA = 1 << 25
ZSTD = 1 << 26
QUERY_ATTRIBUTES = 1 << 27
# MariaDB's own, in the last four bytes of the filler, where CLIENT_MYSQL (bit 0) is not set.
CLIENT_MYSQL = 1
MARIADB_CACHE_METADATA = 1 << 36

# Status flags.
MORE_RESULTS = 0x0008
NO_GOOD_INDEX = 0x0010
NO_INDEX = 0x0020
CURSOR_EXISTS = 0x0040
SESSION_STATE_CHANGED = 0x4000

LOGIN = -1
QUIT = 0x01
INIT_DB = 0x02
QUERY = 0x03
FIELD_LIST = 0x04
CREATE_DB = 0x05
DROP_DB = 0x06
STATISTICS = 0x09
PROCESS_KILL = 0x0C
CHANGE_USER = 0x11
BINLOG_DUMP = 0x12
TABLE_DUMP = 0x13
STMT_PREPARE = 0x16
STMT_EXECUTE = 0x17
STMT_SEND_LONG_DATA = 0x18
STMT_CLOSE = 0x19
STMT_RESET = 0x1A
SET_OPTION = 0x1B
STMT_FETCH = 0x1C
BINLOG_DUMP_GTID = 0x1E
BULK_EXECUTE = 0xFA

NAMES: dict[int, str] = {
    LOGIN: "LOGIN",
    0x00: "COM_SLEEP",
    QUIT: "COM_QUIT",
    INIT_DB: "COM_INIT_DB",
    QUERY: "COM_QUERY",
    FIELD_LIST: "COM_FIELD_LIST",
    CREATE_DB: "COM_CREATE_DB",
    DROP_DB: "COM_DROP_DB",
    0x07: "COM_REFRESH",
    0x08: "COM_SHUTDOWN",
    STATISTICS: "COM_STATISTICS",
    0x0A: "COM_PROCESS_INFO",
    0x0B: "COM_CONNECT",
    PROCESS_KILL: "COM_PROCESS_KILL",
    0x0D: "COM_DEBUG",
    0x0E: "COM_PING",
    0x0F: "COM_TIME",
    0x10: "COM_DELAYED_INSERT",
    CHANGE_USER: "COM_CHANGE_USER",
    BINLOG_DUMP: "COM_BINLOG_DUMP",
    TABLE_DUMP: "COM_TABLE_DUMP",
    0x14: "COM_CONNECT_OUT",
    0x15: "COM_REGISTER_SLAVE",
    STMT_PREPARE: "COM_STMT_PREPARE",
    STMT_EXECUTE: "COM_STMT_EXECUTE",
    STMT_SEND_LONG_DATA: "COM_STMT_SEND_LONG_DATA",
    STMT_CLOSE: "COM_STMT_CLOSE",
    STMT_RESET: "COM_STMT_RESET",
    SET_OPTION: "COM_SET_OPTION",
    STMT_FETCH: "COM_STMT_FETCH",
    0x1D: "COM_DAEMON",
    BINLOG_DUMP_GTID: "COM_BINLOG_DUMP_GTID",
    0x1F: "COM_RESET_CONNECTION",
    0x20: "COM_CLONE",
    0x21: "COM_SUBSCRIBE_GROUP_REPLICATION_STREAM",
    BULK_EXECUTE: "COM_STMT_BULK_EXECUTE",
    0xFB: "COM_SLAVE_WORKER",
    0xFC: "COM_SLAVE_IO",
    0xFD: "COM_SLAVE_SQL",
    0xFE: "COM_MULTI",
}
# The server says nothing to these.
UNANSWERED = frozenset({QUIT, STMT_SEND_LONG_DATA, STMT_CLOSE})
# Body lengths (command byte included) that a command can have, where the protocol fixes them.
LENGTHS: dict[int, tuple[int, ...]] = {
    0x00: (1,),
    QUIT: (1,),
    0x07: (2,),
    0x08: (1, 2),
    STATISTICS: (1,),
    0x0A: (1,),
    PROCESS_KILL: (5,),
    0x0D: (1,),
    0x0E: (1,),
    STMT_CLOSE: (5,),
    STMT_RESET: (5,),
    SET_OPTION: (3,),
    STMT_FETCH: (9,),
    0x1D: (1,),
    0x1F: (1,),
}


@dataclass(slots=True)
class Greeting:
    """The server's first packet. capabilities: lower 32 bits MySQL's, upper MariaDB's."""

    version: str
    thread_id: int
    capabilities: int
    plugin: str


@dataclass(slots=True)
class Login:
    """The client's answer to the greeting; tls: it only asks for TLS and has no names yet."""

    user: str | None
    schema: str | None
    capabilities: int
    plugin: str | None = None
    tls: bool = False
    attributes: dict[str, str] = field(default_factory=dict)


class Command:
    """A packet with a command; body: what follows the command byte (cut to what columns need)."""

    __slots__ = ("body", "code", "size")

    def __init__(self, code: int, body: bytes, size: int) -> None:
        self.code, self.body, self.size = code, body, size


class ClientPart:
    """Packets of the client that belong to the exchange under way: passwords, the file of LOCAL INFILE."""

    __slots__ = ("count", "size")

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size


class Reply:
    """What is known of one reply; filled packet by packet, over one or several frames.

    kind: 'ok', 'error', 'rows', 'prepared', 'text', 'events'; None as long as nothing was understood.
    done: its last packet was read; broken: it ends without one. rows_missing: a gap lies among the rows;
    tail_missing: what the payload policy cut includes the end.
    """

    __slots__ = (
        "affected",
        "broken",
        "cached_metadata",
        "columns",
        "done",
        "error_code",
        "flags",
        "infile",
        "info",
        "insert_id",
        "kind",
        "message",
        "parameters",
        "progress",
        "result_count",
        "rows",
        "rows_missing",
        "schema",
        "sql_state",
        "statement_id",
        "tail_missing",
        "warnings",
    )

    def __init__(self) -> None:
        self.kind: str | None = None
        self.done = self.broken = False
        self.tail_missing = self.rows_missing = False
        self.error_code: int | None = None
        self.sql_state: str | None = None
        self.message: str | None = None
        self.rows = self.affected = self.insert_id = self.flags = self.warnings = 0
        self.columns = self.parameters = self.result_count = 0
        self.statement_id: int | None = None
        self.info: str | None = None
        self.schema: str | None = None
        self.infile: str | None = None
        self.progress = 0
        self.cached_metadata = False
