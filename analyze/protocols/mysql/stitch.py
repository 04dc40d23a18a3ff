"""MySQL commands with their replies: by order on the connection; after lost bytes by time."""

from __future__ import annotations

from collections import deque
from typing import Any

from kubetape.analyze.normalise.sql import digest
from kubetape.analyze.protocols.common.text import read_name, read_text
from kubetape.analyze.protocols.common.trace import read_sql_comment_trace, read_trace
from kubetape.analyze.protocols.contract import (
    CLIENT,
    CUT,
    INVALID,
    SERVER,
    Connection,
    Decoder,
    Parsed,
    Request,
    Side,
)
from kubetape.analyze.protocols.mysql.compressed import HEADER_BYTES, compressed_at, plain, read_header
from kubetape.analyze.protocols.mysql.detect import greeting_at, login_at
from kubetape.analyze.protocols.mysql.errors import error_kind
from kubetape.analyze.protocols.mysql.parse import (
    MAX_BODY_BYTES,
    U16,
    U32,
    command_at,
    read_change_user,
    read_greeting,
    read_login,
    read_statement,
)
from kubetape.analyze.protocols.mysql.prepared import (
    MAX_UNKNOWN,
    Server,
    Statement,
    Unknown,
    set_statement,
    show_values,
)
from kubetape.analyze.protocols.mysql.reply import ANY, ReplyWalker, ending_at, packet_is_definition, reply_at
from kubetape.analyze.protocols.mysql.turns import read_turns
from kubetape.analyze.protocols.mysql.types import (
    BINLOG_DUMP,
    BULK_EXECUTE,
    CHANGE_USER,
    COMPRESS,
    CREATE_DB,
    DROP_DB,
    FIELD_LIST,
    INIT_DB,
    LENGTHS,
    LOGIN,
    NAMES,
    NO_GOOD_INDEX,
    NO_INDEX,
    OPTIONAL_METADATA,
    PROCESS_KILL,
    QUERY,
    QUERY_ATTRIBUTES,
    STMT_EXECUTE,
    STMT_FETCH,
    STMT_PREPARE,
    STMT_RESET,
    STMT_SEND_LONG_DATA,
    UNANSWERED,
    ZSTD,
    ClientPart,
    Command,
    Greeting,
    Login,
    Reply,
)
from kubetape.analyze.protocols.turns import Plain, Turns
from kubetape.analyze.streams import Span

# MariaDB clients may pipeline, a batch at a time; more unanswered means that one direction was not recorded.
MAX_PENDING = 1000
MAX_STATEMENTS = 16_384  # the usual max_prepared_stmt_count of a whole server
MAX_BOUNDARY_TRIES = 1024  # compressed packets tried in one run

_SHARED_TYPES: tuple[Any, ...] = (STMT_EXECUTE, BULK_EXECUTE, STMT_FETCH)


class _Exchange:
    """A command (or login) that waits for its reply."""

    __slots__ = ("body", "code", "login", "size", "span", "statement", "trailer")

    def __init__(self, code: int, body: bytes, size: int, span: Span) -> None:
        self.code, self.body, self.size, self.span = code, body, size, span
        self.login: Login | None = None
        self.statement: Statement | None = None
        self.trailer = 0  # bytes sent later within the exchange: passwords, files


class _Packed(list[Any]):
    """What one compressed packet completed: plain frames in order."""


class MysqlDecoder(Decoder):
    """Commands with replies, in order; commands that no reply answers are rows when they are seen."""

    READS_TURNS = True

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._pending: deque[_Exchange] = deque()
        self._walker = ReplyWalker()
        self._reply_span: Span | None = None
        self._greeting: Greeting | None = None
        self._commands_seen = False
        self._infile = False
        self._lost = False
        self._explained = 0  # server bytes before this position are known to belong to closed replies
        self._packed = not connection.from_start and self._looks_packed()
        self._walker.numbered = not self._packed
        self._rest: list[bytes] = [b"", b""]
        self._skip = [0, 0]
        self._torn = False  # a compressed packet of the open reply was not whole
        self._statements: dict[int, Statement] = {}
        self._run_index = [0, 0]
        key = (connection.server_ip, connection.server_port)
        self._server: Server = connection.shared.setdefault(key, Server())

    def _looks_packed(self) -> bool:
        """Whether the middle of this connection is the compressed protocol."""
        votes = 0
        for side in (CLIENT, SERVER):
            for run in self.connection.streams[side].runs[:4]:
                if side == CLIENT:
                    votes += compressed_at(run.data, 0, False) - 2 * command_at(run.data, 0)
                else:
                    votes += compressed_at(run.data, 0, True) - 2 * reply_at(run.data, 0)
        return votes > 0

    # ---- bytes ---------------------------------------------------------------------------------------------

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        if self._packed:
            return self._parse_packed(side, data, offset)
        return self._parse_plain(side, data, offset)

    def _parse_plain(self, side: Side, data: bytes, offset: int) -> Parsed:
        return self._parse_client(data, offset) if side == CLIENT else self._parse_server(data, offset)

    def _parse_client(self, data: bytes, offset: int) -> Parsed:
        end = len(data)
        if offset + 4 > end:
            return CUT
        header = U32(data, offset)[0]
        length = header & 0xFFFFFF
        if header >> 24:
            return self._parse_answer(data, offset, length)
        if not length:
            return INVALID
        if offset + 5 > end:
            return CUT
        code = data[offset + 4]
        fixed = LENGTHS.get(code)
        if code not in NAMES or (fixed is not None and length not in fixed):
            return INVALID
        start = offset + 5
        kept = length - 1 if length <= MAX_BODY_BYTES else MAX_BODY_BYTES
        size = 4 + length
        while length == 0xFFFFFF and offset + size + 4 <= end:
            length = U32(data, offset + size)[0] & 0xFFFFFF
            size += 4 + length
        return size, Command(code, data[start : start + kept], size - 5)

    def _parse_answer(self, data: bytes, offset: int, length: int) -> Parsed:
        """Client packets that are no command: login, passwords, the file of LOCAL INFILE."""
        end = len(data)
        if self._infile:
            return self._parse_file(data, offset)
        first = self._pending[0] if self._pending else None
        if first is not None and first.code in (LOGIN, CHANGE_USER):
            return 4 + length, ClientPart(1, length)
        if not self._commands_seen and length:
            login = read_login(data, offset + 4, min(end, offset + 4 + length))
            if login is not None and data[offset + 3] <= 2:
                return 4 + length, login
        return INVALID

    def _parse_file(self, data: bytes, offset: int) -> Parsed:
        """Packets of a file up to the empty one."""
        pos, count = offset, 0
        while pos + 4 <= len(data) and data[pos + 3]:
            length = U32(data, pos)[0] & 0xFFFFFF
            pos += 4 + length
            count += 1
            if not length:
                self._infile = False
                break
        return (pos - offset, ClientPart(count, pos - offset)) if pos > offset else INVALID

    def _parse_server(self, data: bytes, offset: int) -> Parsed:
        walker = self._walker
        reply = walker.reply
        if reply is None:
            if offset + 5 > len(data):
                return CUT
            number = data[offset + 3]
            pending = self._pending
            if self._lost and len(pending) > 1:
                self._drop_unanswered(self.connection.streams[SERVER].time_at(self._position(SERVER, data) + offset))
            if not pending:
                return self._parse_unasked(data, offset, number)
            command = pending[0].code
            if command == LOGIN and number == 1:
                self._emit(pending.popleft(), None, None)  # its answers begin with number 2: they are lost
                return self._parse_server(data, offset)
            if command in (LOGIN, CHANGE_USER):
                if not number and command == LOGIN:
                    return INVALID
                reply = walker.begin(command, ANY)
            else:
                if number != 1 and walker.numbered:
                    return INVALID
                walker.want_names = command == STMT_PREPARE or command in (STMT_EXECUTE, BULK_EXECUTE)
                reply = walker.begin(command, 1)
        pos = walker.walk(data, offset)
        if reply.done or reply.broken:
            walker.reply = None
            if pos == offset and not reply.done:
                return INVALID
            return pos - offset, reply
        if reply.infile is not None:
            self._infile = True
        return (pos - offset, reply) if pos > offset else CUT

    def _parse_unasked(self, data: bytes, offset: int, number: int) -> Parsed:
        """A packet that no command waits for: the greeting, a notice of the end, a reply to a lost command."""
        length = U32(data, offset)[0] & 0xFFFFFF
        if number == 0 and not self._packed:
            if greeting_at(data, offset):
                greeting = read_greeting(data, offset + 4, min(len(data), offset + 4 + length))
                if greeting is not None:
                    return 4 + length, greeting
            if data[offset + 4] != 0xFF or not 3 <= length <= 1024:
                return INVALID
            reply = self._walker.begin(QUERY, ANY)
        else:
            if not self._reply_at(data, offset):
                return INVALID
            command = QUERY
            if data[offset + 4] == 0 and length == 12 and packet_is_definition(data, offset + 16, 2):
                command = STMT_PREPARE
            elif data[offset + 4 : offset + 8] == b"\x03def":
                command = FIELD_LIST
            self._walker.want_names = False
            reply = self._walker.begin(command, number)
        pos = self._walker.walk(data, offset)
        if reply.done or reply.broken:
            self._walker.reply = None
            if not reply.done and pos == offset:
                return INVALID
        return (pos - offset, reply) if pos > offset else CUT

    def _reply_at(self, data: bytes, offset: int) -> bool:
        return reply_at(data, offset)

    def _parse_packed(self, side: Side, data: bytes, offset: int) -> Parsed:
        header = read_header(data, offset)
        if header is None:
            return CUT
        length, number, plain_length = header
        if not length:
            return INVALID
        size = HEADER_BYTES + length
        if side == SERVER and self._torn and number == 1:
            self._torn = False
            self._close_open(self._position(SERVER, data) + offset)
        inner = plain(data, offset, length, plain_length)
        if inner is None or len(inner) < (plain_length or length):
            self._torn = self._torn or side == SERVER
        if inner is None:
            self._rest[side], self._skip[side] = b"", 0
            return (size, _Packed()) if offset + size <= len(data) else INVALID
        skip = min(self._skip[side], len(inner))
        self._skip[side] -= skip
        buffer = self._rest[side] + inner[skip:]
        frames, pos = _Packed(), 0
        while pos < len(buffer):
            parsed = self._parse_plain(side, buffer, pos)
            if parsed.__class__ is not tuple:
                if parsed is INVALID:
                    pos = len(buffer)
                break
            part, frame = parsed
            if side == CLIENT and pos + part > len(buffer) and len(buffer) - pos < MAX_BODY_BYTES:
                break
            frames.append(frame)
            pos += part
        self._rest[side] = b"" if len(inner) < (plain_length or length) else buffer[pos:]
        if pos > len(buffer) and not self._torn:
            self._skip[side] = pos - len(buffer)
        return size, frames

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        if self._packed:
            return self._find_packed(side, data, offset)
        return self._find_command(data, offset) if side == CLIENT else self._find_reply(data, offset)

    def _find_packed(self, side: Side, data: bytes, offset: int) -> int:
        self._rest[side], self._skip[side] = b"", 0
        tries = 0
        for place in range(offset, len(data) - HEADER_BYTES):
            length = U32(data, place)[0] & 0xFFFFFF
            head = data[place + 4 : place + 9]
            if head[3:5] in (b"\x78\x9c", b"\x78\x01", b"\x78\x5e", b"\x78\xda", b"\x28\xb5") or (
                head[:3] == b"\0\0\0" and length < 1 << 16
            ):
                tries += 1
                if compressed_at(data, place, side == SERVER):
                    if side == SERVER:
                        self._close_open(None)
                    return place
                if tries > MAX_BOUNDARY_TRIES:
                    break
        return -1

    def _find_command(self, data: bytes, offset: int) -> int:
        if self._infile:
            return offset  # the rest of a file, until its empty packet
        if not self._commands_seen and login_at(data, offset):
            return offset
        place = data.find(b"\0", offset + 3)
        while place >= 0:
            at = place - 3
            if command_at(data, at):
                end = at + 4 + (U32(data, at)[0] & 0xFFFFFF)
                if end == len(data) or (end < len(data) and command_at(data, end)):
                    return at
                if end > len(data) and (at == 0 or data[at + 4] in (QUERY, STMT_PREPARE)):
                    return at
            place = data.find(b"\0", place + 1)
        return -1

    def _find_reply(self, data: bytes, offset: int) -> int:
        if not self._commands_seen and (greeting_at(data, offset) or self._login_reply_at(data, offset)):
            return offset
        at = self._next_reply(data, offset)
        if self._walker.reply is not None:
            stop = at if at >= 0 else len(data)
            ending = data.find(b"\xfe", offset + 4, stop)
            while ending >= 0:
                if ending_at(data, ending - 4):
                    self._walker.resume_rows(data[ending - 1])
                    return ending - 4
                ending = data.find(b"\xfe", ending + 1, stop)
            if at >= 0:
                self._close_open(self._position(SERVER, data) + at)
        return at

    def _login_reply_at(self, data: bytes, offset: int) -> bool:
        """Whether the answer to the login, which is numbered from 2, begins here."""
        if not self._pending or self._pending[0].code != LOGIN or offset + 7 > len(data):
            return False
        length = U32(data, offset)[0] & 0xFFFFFF
        return data[offset + 3] in (2, 3, 4) and 1 < length < 4096 and data[offset + 4] in (0, 1, 0xFE, 0xFF)

    def _next_reply(self, data: bytes, offset: int) -> int:
        place = data.find(b"\x01", offset + 3)
        while place >= 0:
            if reply_at(data, place - 3):
                return place - 3
            place = data.find(b"\x01", place + 1)
        return -1

    def _position(self, side: Side, data: bytes) -> int:
        """The stream position of data[0]."""
        runs = self.connection.streams[side].runs
        index = self._run_index[side]
        while index < len(runs) and runs[index].data is not data:
            index += 1
        if index >= len(runs):
            return 0
        self._run_index[side] = index
        return runs[index].position

    # ---- many turns at once ----------------------------------------------------------------------------------

    def at_rest(self) -> bool:
        return not (
            self._packed
            or self._pending
            or self._infile
            or self._lost
            or self._walker.reply is not None
            or self._reply_span is not None
        )

    def read_turns(self, turns: Turns) -> Plain | None:
        capabilities = self._walker.capabilities
        if capabilities is not None and capabilities & OPTIONAL_METADATA:
            return None
        # Without the login seen, a byte that no text begins with tells attributes apart.
        first = int(turns.asks[0]) + 5
        if capabilities is None:
            prefix = turns.client[first : first + 1] < b"\t"
        else:
            prefix = bool(capabilities & QUERY_ATTRIBUTES)
        plain = read_turns(turns, prefix, self._template, self._answer_template)
        if plain is not None:
            self._commands_seen = True
        return plain

    def _template(self, text: bytes) -> Request:
        row = Request(operation=NAMES[QUERY])
        self._describe_text(row, read_text(text), None, {})
        return row

    def _answer_template(self, row: Request, reply: Reply) -> None:
        attributes: dict[str, Any] = {}
        self._answer(row, reply, attributes)
        row.attributes = attributes or None

    # ---- frames ----------------------------------------------------------------------------------------------

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        if side == SERVER and position >= self._explained and self._is_lost(position):
            self._lost = True

    def _is_lost(self, position: int) -> bool:
        """Whether bytes were lost there; what the payload policy cut lies within one socket call."""
        for start, end, lost in self.connection.streams[SERVER].gaps:
            if start <= position < end:
                return lost
        # Captured, but not read: rows of the open reply whose packets could not be followed.
        return self._walker.reply is None

    def on_frame(self, side: Side, frame: Any, span: Span) -> None:
        if frame.__class__ is _Packed:
            for inner in frame:
                self._on_plain(side, inner, span.copy())
            return
        self._on_plain(side, frame, span)

    def _on_plain(self, side: Side, frame: Any, span: Span) -> None:
        kind = frame.__class__
        if kind is Command:
            self._on_command(frame, span)
        elif kind is Reply:
            self._on_reply(frame, span)
        elif kind is ClientPart:
            if self._pending:
                self._pending[0].span.extend(span)
                self._pending[0].trailer += frame.size
        elif kind is Login:
            self._on_login(frame, span)
        elif kind is Greeting:
            self._greeting = frame

    def _on_command(self, command: Command, span: Span) -> None:
        self._commands_seen = True
        self._infile = False
        exchange = _Exchange(command.code, command.body, command.size, span)
        code = command.code
        if 0x16 <= code <= 0x1C or code == BULK_EXECUTE:
            self._about_statement(exchange)
        if code in UNANSWERED:
            self._emit(exchange, None, None, "one_way")
            return
        self._pending.append(exchange)
        if len(self._pending) > MAX_PENDING:
            self._emit(self._pending.popleft(), None, None)

    def _about_statement(self, exchange: _Exchange) -> None:
        code, body = exchange.code, exchange.body
        if code == STMT_PREPARE or len(body) < 4:
            return
        number = U32(body, 0)[0]
        statement = exchange.statement = self._statements.get(number)
        if statement is None and number == 0xFFFFFFFF and self._pending and self._pending[-1].code == STMT_PREPARE:
            # MariaDB: execute what was prepared last, before its number is known.
            statement = exchange.statement = self._pending[-1].statement or Statement(None, None, 0)
            self._pending[-1].statement = statement
        if statement is None:
            if code not in (STMT_EXECUTE, BULK_EXECUTE, STMT_SEND_LONG_DATA):
                return
            statement = exchange.statement = self._remember(number, Statement(None, None, 0))
        if code == STMT_SEND_LONG_DATA and len(body) >= 6:
            statement.long_data.add(U16(body, 4)[0])
        elif code == STMT_RESET:
            statement.long_data.clear()

    def _remember(self, number: int, statement: Statement) -> Statement:
        """Also closed ones: numbers are not used again, and a late execution is an error about a known text."""
        self._statements[number] = statement
        if len(self._statements) > MAX_STATEMENTS:
            del self._statements[next(iter(self._statements))]
        return statement

    def _on_login(self, login: Login, span: Span) -> None:
        exchange = _Exchange(LOGIN, b"", 0, span)
        exchange.login = login
        if login.tls:
            self._emit(exchange, None, None, "one_way")
            self.switch("tls")
            return
        capabilities = login.capabilities
        if self._greeting is not None:
            capabilities &= self._greeting.capabilities
        self._walker.capabilities = capabilities
        self._pending.append(exchange)

    def _on_reply(self, reply: Reply, span: Span) -> None:
        if self._reply_span is None:
            self._reply_span = span
        else:
            self._reply_span.extend(span)
        if reply.done or reply.broken:
            self._close(reply)

    def _close(self, reply: Reply) -> None:
        span, self._reply_span = self._reply_span, None
        self._lost = False
        exchange = self._pending.popleft() if self._pending else None
        if exchange is not None:
            self._learn(exchange, reply)
        self._emit(exchange, reply, span)

    def _close_open(self, end: int | None) -> None:
        """The open reply has no end in the recording: it ends at latest at position `end`, where the next begins."""
        reply = self._walker.reply
        self._walker.reply = None
        if reply is None or self._reply_span is None:
            self._reply_span = None
            return
        if end is not None and not self._lost:
            self._explained = end
            self._reply_span = self.connection.streams[SERVER].span(self._reply_span.start, end)
            cut_only = not self._reply_span.lost_bytes
            reply.tail_missing = cut_only and reply.kind == "rows" and not reply.error_code
        self._close(reply)

    def _drop_unanswered(self, time_ns: int) -> None:
        """After lost replies: the reply seen at time_ns answers the last command before it."""
        self._lost = False
        while len(self._pending) > 1 and self._pending[1].span.first_ns <= time_ns:
            self._emit(self._pending.popleft(), None, None)

    def _learn(self, exchange: _Exchange, reply: Reply) -> None:
        """What a reply says about the connection: statements, compression."""
        if exchange.code == STMT_PREPARE and reply.statement_id is not None:
            text, _ = read_statement(exchange.body, 0)
            statement = exchange.statement or Statement(None, None, 0)
            statement.text, statement.parameters, statement.columns = text, reply.parameters, reply.columns
            exchange.statement = None
            self._remember(reply.statement_id, statement)
            if len(self._walker.names) == reply.columns:
                self._server.learn(text, reply.parameters, tuple(self._walker.names), reply.statement_id)
        elif exchange.code == LOGIN and reply.kind == "ok":
            capabilities = self._walker.capabilities or 0
            if capabilities & (COMPRESS | ZSTD) and self._greeting is not None:
                self._packed = True
                self._walker.numbered = False

    def finish(self) -> None:
        self._close_open(None)
        for exchange in self._pending:
            self._emit(exchange, None, None)
        self._pending.clear()

    # ---- rows ------------------------------------------------------------------------------------------------

    def _emit(
        self, exchange: _Exchange | None, reply: Reply | None, span: Span | None, outcome: str | None = None
    ) -> None:
        row = Request(outcome=outcome)
        attributes: dict[str, Any] = {}
        if exchange is not None:
            row.operation = NAMES[exchange.code]
            self._describe(row, exchange, reply, attributes)
        elif (
            reply is not None
            and reply.kind == "error"
            and not self._commands_seen
            and self._walker.capabilities is None
        ) and self.connection.from_start:
            row.operation = NAMES[LOGIN]  # refused before anything was asked
        if reply is not None:
            self._answer(row, reply, attributes)
            if not reply.done and outcome is None:
                row.outcome = "truncated" if exchange is not None else None
        if attributes:
            row.attributes = {**attributes, **(row.attributes or {})}
        self.emit(row, exchange.span if exchange is not None else None, span)

    def _is_refusal(self) -> bool:
        """Whether an error that nobody asked for stands where the greeting would: too many connections."""
        return self.connection.from_start and not self._commands_seen and self._walker.capabilities is None

    def _describe(self, row: Request, exchange: _Exchange, reply: Reply | None, attributes: dict[str, Any]) -> None:
        code, body = exchange.code, exchange.body
        if code in (QUERY, STMT_PREPARE):
            text, given = read_statement(body, self._walker.capabilities if code == QUERY else 0)
            self._describe_text(row, text, given, attributes)
        elif code in (LOGIN, CHANGE_USER):
            self._describe_login(row, exchange, attributes)
        elif code in (INIT_DB, CREATE_DB, DROP_DB):
            row.statement = row.resource = read_name(body)
        elif code == FIELD_LIST:
            table, _, wildcard = body.partition(b"\0")
            row.resource = read_name(table)
            row.statement = read_name(table + b" " + wildcard if wildcard else table)
        elif code == PROCESS_KILL:
            row.statement = str(U32(body, 0)[0]) if len(body) >= 4 else None
        elif code == BINLOG_DUMP and len(body) > 10:
            row.resource = read_name(body[10:])
        elif 0x16 <= code <= 0x1C or code == BULK_EXECUTE:
            self._describe_statement(row, exchange, reply, attributes)
        if exchange.trailer and code == QUERY:
            attributes["local_infile_bytes"] = exchange.trailer

    def _describe_text(self, row: Request, text: str, given: dict[str, Any] | None, attributes: dict[str, Any]) -> None:
        row.statement = text
        row.resource = digest(text, "mysql")[1]
        trace = read_sql_comment_trace(text) if "/*" in text or "--" in text or "#" in text else None
        if given:
            attributes["query_attributes"] = given
            trace = trace or read_trace({k.lower(): v for k, v in given.items() if isinstance(v, str)})
        if trace is not None:
            row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id

    def _describe_statement(
        self, row: Request, exchange: _Exchange, reply: Reply | None, attributes: dict[str, Any]
    ) -> None:
        code, body, statement = exchange.code, exchange.body, exchange.statement
        if len(body) < 4 or code == 0x1B:
            return
        attributes["statement_id"] = U32(body, 0)[0]
        if code == STMT_SEND_LONG_DATA:
            attributes["bytes"] = max(0, exchange.size - 6)
        if statement is None:
            return
        if statement.text is not None:
            set_statement(row, statement.text)
        if code not in (STMT_EXECUTE, BULK_EXECUTE):
            return
        if statement.parameters is not None:
            show_values(row, code, body, statement, statement.parameters, self._walker.capabilities)
            if statement.text is not None and statement.kinds is not None:
                self._server.kinds.setdefault(statement.text, statement.kinds)
            if code == STMT_EXECUTE and row.trace_id is None and row.statement and "/*" in row.statement:
                trace = read_sql_comment_trace(row.statement)
                if trace is not None:
                    row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
        elif len(self._server.unknown) < MAX_UNKNOWN and attributes["statement_id"] != 0xFFFFFFFF:
            names = columns = None
            if reply is not None and reply.kind in ("ok", "rows"):
                columns = reply.columns
                names = tuple(self._walker.names) if len(self._walker.names) == columns else None
            self._server.unknown.append(
                Unknown(
                    row,
                    code,
                    body,
                    exchange.size,
                    attributes["statement_id"],
                    names,
                    columns,
                    self._walker.capabilities,
                )
            )

    def _describe_login(self, row: Request, exchange: _Exchange, attributes: dict[str, Any]) -> None:
        login = exchange.login
        if login is None:
            user, schema = read_change_user(exchange.body, self._walker.capabilities or 0)
        else:
            user, schema = login.user, login.schema
            if login.tls:
                attributes["tls"] = True
            if login.plugin:
                attributes["auth_plugin"] = login.plugin
            if login.attributes:
                attributes["client"] = login.attributes
        if user is not None:
            row.resource = f"{user}@{schema or ''}"
        if self._greeting is not None and login is not None:
            attributes["server_version"] = self._greeting.version
            attributes["thread_id"] = self._greeting.thread_id
            if self._walker.capabilities is not None and not login.tls:
                if self._walker.capabilities & COMPRESS:
                    attributes["compression"] = "zlib"
                elif self._walker.capabilities & ZSTD:
                    attributes["compression"] = "zstd"

    def _answer(self, row: Request, reply: Reply, attributes: dict[str, Any]) -> None:
        if reply.kind == "error":
            row.status = str(reply.error_code) if reply.error_code is not None else None
            row.is_error = True
            row.error_kind = error_kind(reply.error_code, reply.sql_state)
            row.error_message = reply.message or None
            if reply.sql_state:
                attributes["sql_state"] = reply.sql_state
        elif reply.done and reply.kind is not None:
            row.status = "OK"
        elif reply.tail_missing:
            # The policy kept the beginning of each socket call: an error among rows would be rare.
            row.status, row.inferred = "OK", "status"
        if reply.kind == "rows" or reply.rows:
            row.rows_sent = reply.rows if reply.done and not reply.rows_missing else None
        if reply.kind == "ok" or reply.affected:
            row.rows_affected = reply.affected
        if reply.warnings:
            attributes["warnings"] = reply.warnings
        if reply.insert_id:
            attributes["insert_id"] = reply.insert_id
        if reply.info:
            attributes["info"] = reply.info
        if reply.result_count > 1:
            attributes["result_count"] = reply.result_count
        if reply.statement_id is not None:
            attributes["statement_id"] = reply.statement_id
            attributes["parameter_count"] = reply.parameters
            attributes["column_count"] = reply.columns
        if reply.flags & NO_INDEX:
            attributes["no_index_used"] = True
        if reply.flags & NO_GOOD_INDEX:
            attributes["no_good_index_used"] = True
        if reply.schema is not None:
            attributes["schema"] = reply.schema
        if reply.infile is not None:
            attributes["local_infile"] = reply.infile
        if reply.progress:
            attributes["progress_reports"] = reply.progress
