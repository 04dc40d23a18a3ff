"""PostgreSQL requests: replies answer messages in their order; ReadyForQuery ends what Sync or a query began."""

from __future__ import annotations

from collections import deque
from typing import Any

from kubetape.analyze.normalise.sql import digest
from kubetape.analyze.protocols.common.text import read_name, read_text
from kubetape.analyze.protocols.common.trace import read_sql_comment_trace
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
from kubetape.analyze.protocols.postgresql.errors import error_kind
from kubetape.analyze.protocols.postgresql.parse import (
    I16,
    I32,
    find_message,
    read_bind,
    read_error,
    read_messages,
    read_parse,
    read_startup,
    read_tag,
    startup_at,
)
from kubetape.analyze.protocols.postgresql.prepared import MAX_UNKNOWN, Portal, Server, Statement
from kubetape.analyze.protocols.postgresql.types import (
    ANSWER,
    AUTHENTICATION,
    BIND,
    BIND_COMPLETE,
    CANCEL,
    CLIENT_TYPES,
    CLOSE,
    CLOSE_COMPLETE,
    COMMAND_COMPLETE,
    COPY_BOTH,
    COPY_DATA,
    COPY_DONE,
    COPY_FAIL,
    COPY_IN,
    COPY_OUT,
    DATA_ROW,
    DESCRIBE,
    EMPTY_QUERY,
    ERROR,
    EXECUTE,
    FLUSH,
    FUNCTION_CALL,
    FUNCTION_RESULT,
    GSS,
    NO_DATA,
    NOTICE,
    NOTIFICATION,
    OPERATIONS,
    PARAMETER_STATUS,
    PARAMETER_TYPES,
    PARSE,
    PARSE_COMPLETE,
    PASSWORD,
    PORTAL_SUSPENDED,
    QUERY,
    READY,
    ROW_DESCRIPTION,
    SERVER_TYPES,
    SSL,
    STARTUP,
    SYNC,
    Message,
)
from kubetape.analyze.protocols.postgresql.values import values_json
from kubetape.analyze.streams import Span

# Pipelines of this length exist (libpq sends without limit); more means that one direction was not recorded.
MAX_PENDING = 20_000
MAX_NAMED = 16_384  # statements and portals of a connection

_CLIENT_STOPS = frozenset({SYNC, FLUSH, QUERY, FUNCTION_CALL, COPY_DONE, COPY_FAIL, PASSWORD})
# A reply that the client must answer, or that ends what was asked.
_SERVER_STOPS = frozenset({READY, COPY_IN, COPY_BOTH})
_SINGLE_STOPS = SERVER_TYPES - {DATA_ROW, COPY_DATA}
_METHODS = {2: "KerberosV5", 3: "password", 5: "md5", 7: "GSSAPI", 9: "SSPI", 10: "SASL"}
_WITH_ROWS = frozenset({"SELECT", "FETCH", "SHOW", "EXPLAIN", "MOVE"})
_CHANGES = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE"})


class _Operation:
    """What becomes one row: a query, or the messages around an Execute.

    kind: of the row, as in OPERATIONS; 0: not known yet (a Bind alone is no row).
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "columns",
        "commands",
        "error",
        "info",
        "kind",
        "name",
        "notices",
        "portal",
        "request",
        "response",
        "result_rows",
        "rows",
        "status",
        "tags",
        "text",
    )

    def __init__(self, kind: int, request: Span) -> None:
        self.kind, self.request = kind, request
        self.response: Span | None = None
        self.text: str | None = None
        self.name: str | None = None
        self.portal: Portal | None = None
        self.status: str | None = None
        self.error: dict[str, str] | None = None
        self.rows: int | None = None
        self.result_rows = self.columns = self.commands = 0
        self.tags: list[tuple[str, int | None]] = []
        self.notices: list[str] = []
        self.bytes_in = self.bytes_out = 0
        self.info: dict[str, Any] = {}


class _Item:
    """A message that waits for its reply."""

    __slots__ = ("detail", "first_ns", "kind", "operation")

    def __init__(self, kind: int, operation: _Operation | None, first_ns: int, detail: Any = None) -> None:
        self.kind, self.operation, self.first_ns, self.detail = kind, operation, first_ns, detail


# The item that each reply belongs to.
_ANSWERS = {
    PARSE_COMPLETE: (PARSE,),
    BIND_COMPLETE: (BIND,),
    CLOSE_COMPLETE: (CLOSE,),
    PARAMETER_TYPES: (DESCRIBE,),
    NO_DATA: (DESCRIBE,),
    ROW_DESCRIPTION: (DESCRIBE, QUERY),
    DATA_ROW: (EXECUTE, QUERY),
    COMMAND_COMPLETE: (EXECUTE, QUERY),
    EMPTY_QUERY: (EXECUTE, QUERY),
    PORTAL_SUSPENDED: (EXECUTE,),
    COPY_IN: (EXECUTE, QUERY),
    COPY_OUT: (EXECUTE, QUERY),
    COPY_BOTH: (EXECUTE, QUERY),
    COPY_DATA: (EXECUTE, QUERY),
    COPY_DONE: (EXECUTE, QUERY),
    FUNCTION_RESULT: (FUNCTION_CALL,),
    AUTHENTICATION: (STARTUP,),
}
_ENDED_BY_READY = frozenset({SYNC, QUERY, FUNCTION_CALL, STARTUP})


class PostgresqlDecoder(Decoder):
    """A queue of messages; what the server sends completes the first that it can belong to."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._items: deque[_Item] = deque()
        self._open: _Operation | None = None  # Parse, Bind, Describe whose Execute may still come
        self._statements: dict[str, Statement] = {}
        self._portals: dict[str, Portal] = {}
        self._failed = False  # the server skips what comes before Sync
        self._lost = False
        self._typed = False  # messages with type bytes were seen
        self._replication: _Operation | None = None
        key = (connection.server_ip, connection.server_port)
        self._server: Server = connection.shared.setdefault(key, Server())

    # ---- bytes ---------------------------------------------------------------------------------------------

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        if side == CLIENT:
            return self._parse_client(data, offset)
        if self._items and self._items[0].kind in (SSL, GSS):
            kind = data[offset]
            if kind in b"SNG" and (kind != 0x53 or data[offset + 1 : offset + 2] != b"\0"):
                return 1, [Message(ANSWER, data[offset : offset + 1], 0, 1)]
        whole = self._whole_reply()
        messages = read_messages(data, offset, False, _SERVER_STOPS if whole else _SINGLE_STOPS, True)
        return self._result(messages, data, offset, SERVER_TYPES)

    def _whole_reply(self) -> bool:
        """Whether all up to the next ReadyForQuery was asked before the reply began, so that it is read at once."""
        items = self._items
        if not items:
            return False
        if items[0].kind == QUERY:
            return True
        return any(item.kind == SYNC for item in items)

    def _parse_client(self, data: bytes, offset: int) -> Parsed:
        if data[offset] == 0:
            begun = startup_at(data, offset)
            if begun is None:
                return CUT if offset + 8 > len(data) else INVALID
            kind, size = begun
            return size, [Message(kind, data[offset + 8 : offset + size], 0, size, 1, size)]
        messages = read_messages(data, offset, True, _CLIENT_STOPS, True)
        return self._result(messages, data, offset, CLIENT_TYPES)

    def _result(self, messages: list[Message], data: bytes, offset: int, types: frozenset[int]) -> Parsed:
        if messages:
            return messages[-1].end, messages
        return CUT if offset + 5 > len(data) and data[offset] in types else INVALID

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        if side == CLIENT and not self._typed and startup_at(data, offset) is not None:
            return offset
        if side == SERVER and self._items and self._items[0].kind in (SSL, GSS) and data[offset] in b"SNG":
            return offset
        return find_message(data, offset, side == CLIENT)

    # ---- frames ----------------------------------------------------------------------------------------------

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        if side == SERVER:
            self._lost = True

    def on_frame(self, side: Side, frame: Any, span: Span) -> None:
        messages: list[Message] = frame
        stream = self.connection.streams[side]
        start = span.start
        if side == CLIENT:
            shared = len(messages) == 1 or sum(m.kind == EXECUTE for m in messages) <= 1
            for message in messages:
                self._on_client(message, span if shared else stream.span(start + message.start, start + message.end))
            return
        if self._lost:
            self._lost = False
            self._realign(span.first_ns)
        shared = len(messages) == 1 or self._single_operation()
        for message in messages:
            self._on_server(message, span if shared else stream.span(start + message.start, start + message.end))
            if self.switch_to is not None:
                return

    def _single_operation(self) -> bool:
        """Whether all replies up to the next ReadyForQuery belong to one row."""
        count = 0
        for item in self._items:
            if item.kind in (SYNC, QUERY):
                return count <= 1
            count += item.kind == EXECUTE
        return count <= 1

    def _realign(self, time_ns: int) -> None:
        """After lost replies: what comes at time_ns belongs to the last group that was begun before."""
        items = list(self._items)
        last = -1
        for place, item in enumerate(items[:-1]):
            if item.kind in _ENDED_BY_READY and items[place + 1].first_ns <= time_ns:
                last = place
        for _ in range(last + 1):
            self._give_up(self._items.popleft())

    # ---- the client's messages -------------------------------------------------------------------------------

    def _on_client(self, message: Message, span: Span) -> None:
        kind = message.kind
        if kind < 6:
            self._on_startup(kind, message, span)
            return
        self._typed = True
        if kind in (PARSE, BIND, DESCRIBE, EXECUTE, CLOSE):
            self._on_extended(kind, message, span)
        elif kind == QUERY:
            self._end_open()
            operation = _Operation(QUERY, span)
            operation.text = read_query(message.body)
            self._add(_Item(QUERY, operation, span.first_ns))
        elif kind == SYNC:
            self._end_open()
            self._failed = False
            self._add(_Item(SYNC, None, span.first_ns))
        elif kind == FUNCTION_CALL:
            self._end_open()
            operation = _Operation(FUNCTION_CALL, span)
            if len(message.body) >= 4:
                operation.info["function_oid"] = I32(message.body, 0)[0]
            self._add(_Item(FUNCTION_CALL, operation, span.first_ns))
        elif kind in (COPY_DATA, COPY_DONE, COPY_FAIL, PASSWORD):
            head = self._replication or next((i.operation for i in self._items if i.operation is not None), None)
            if head is not None:
                _extend(head.request, span)
                if kind == COPY_DATA:
                    head.bytes_in += message.size

    def _on_startup(self, kind: int, message: Message, span: Span) -> None:
        if kind == STARTUP and self._items and self._items[0].kind in (SSL, GSS):
            self._give_up(self._items.popleft())  # going on without encryption: the refusal was lost
        operation = _Operation(kind, span)
        if kind == STARTUP:
            given = read_startup(message.body)
            user = given.get("user")
            if user is not None:
                operation.text = f"{user}@{given.get('database') or user}"
            operation.info.update({k: v for k, v in given.items() if k in ("application_name", "replication")})
        elif kind == CANCEL:
            if len(message.body) >= 4:
                operation.info["process_id"] = I32(message.body, 0)[0]
            self._emit(operation, "one_way")
            return
        self._add(_Item(kind, operation, span.first_ns))

    def _on_extended(self, kind: int, message: Message, span: Span) -> None:
        body = message.body
        operation: _Operation | None = None
        if kind == CLOSE:
            if not self._failed:
                self._add(_Item(CLOSE, None, span.first_ns))
            return
        if kind == PARSE:
            name, text, types = read_parse(body)
            if self._open is not None and self._open.kind == PARSE:
                self._end_open()
            operation = self._opened(PARSE, span)
            statement = Statement(name, text, types)
            operation.text, operation.name = text, name
            if len(self._statements) < MAX_NAMED or name in self._statements:
                self._statements[name] = statement
            detail: Any = statement
        elif kind == BIND:
            bound = read_bind(body)
            portal_name, statement_name = (bound[0], bound[1]) if bound is not None else ("", "")
            if self._open is not None and self._open.kind == PARSE and self._open.name != statement_name:
                self._end_open()
            operation = self._opened(0, span)
            found = self._statements.get(statement_name) or Statement(statement_name, None, [])
            portal = Portal(found, bound[2] if bound else [], bound[3] if bound else [])
            if len(self._portals) < MAX_NAMED or portal_name in self._portals:
                self._portals[portal_name] = portal
            operation.portal, operation.text, operation.name = portal, found.text, found.name
            detail = portal
        elif kind == DESCRIBE:
            name = read_name(body[1:].partition(b"\0")[0])
            described = self._statements.get(name) if body[:1] == b"S" else None
            operation = self._opened(DESCRIBE, span)
            if operation.kind == DESCRIBE and operation.portal is None and described is not None:
                operation.text, operation.name = described.text, name
            detail = described
        else:
            portal = self._portals.get(read_name(body.partition(b"\0")[0])) or Portal(Statement("", None, []), [], [])
            operation = self._opened(EXECUTE, span)
            operation.kind, operation.portal = EXECUTE, portal
            operation.text, operation.name = portal.statement.text, portal.statement.name
            self._open = None
            detail = None
        if self._failed:
            if kind == EXECUTE:
                operation.info["skipped"] = True
                self._emit(operation, "no_response")
            return
        self._add(_Item(kind, operation, span.first_ns, detail))

    def _opened(self, kind: int, span: Span) -> _Operation:
        """The operation that this message belongs to."""
        if self._open is None:
            self._open = _Operation(kind, span.copy())
        else:
            _extend(self._open.request, span)
        return self._open

    def _end_open(self) -> None:
        """No Execute belongs to the messages so far; the row is written when their replies have come."""
        operation, self._open = self._open, None
        if operation is not None and operation.kind in (PARSE, DESCRIBE):
            for item in reversed(self._items):
                if item.operation is operation:
                    # The last of its messages completes it.
                    item.detail = (item.detail, operation)
                    return
            self._emit(operation, None)

    def _add(self, item: _Item) -> None:
        self._items.append(item)
        if len(self._items) > MAX_PENDING:
            self._give_up(self._items.popleft())

    # ---- the server's messages -------------------------------------------------------------------------------

    def _on_server(self, message: Message, span: Span) -> None:
        kind = message.kind
        if kind == ANSWER:
            self._on_answer(message, span)
            return
        self._typed = True
        if kind == READY:
            self._on_ready(message, span)
        elif kind == ERROR:
            self._on_error(message, span)
        elif kind == NOTIFICATION:
            self._on_notification(message, span)
        elif kind == NOTICE:
            head = self._head_operation()
            if head is not None and len(head.notices) < 8:
                head.notices.append(read_error(message.body).get("M", ""))
        elif kind == PARAMETER_STATUS:
            name, _, value = message.body.rstrip(b"\0").partition(b"\0")
            head = self._head_operation()
            if head is not None and head.kind == STARTUP and name == b"server_version":
                head.info["server_version"] = read_name(value)
        elif kind in _ANSWERS:
            self._on_reply(kind, message, span)

    def _head_operation(self) -> _Operation | None:
        return self._items[0].operation if self._items else None

    def _on_reply(self, kind: int, message: Message, span: Span) -> None:
        wanted = _ANSWERS[kind]
        items = self._items
        if self._replication is not None and kind in (COPY_DATA, COPY_DONE):
            self._respond(self._replication, span)
            self._replication.bytes_out += message.size
            return
        if not any(item.kind in wanted for item in items):
            if kind in (COMMAND_COMPLETE, EMPTY_QUERY):
                row = _Operation(0, span)
                self._complete(row, kind, message)
                self._emit_orphan(row, span)
            return
        while items[0].kind not in wanted:
            self._give_up(items.popleft())
        item = items[0]
        operation = item.operation
        if operation is None:
            items.popleft()
            return
        self._respond(operation, span)
        if kind in (COMMAND_COMPLETE, EMPTY_QUERY, PORTAL_SUSPENDED, DATA_ROW) or item.kind in (EXECUTE, QUERY):
            self._result_part(item, operation, kind, message)
        elif kind == AUTHENTICATION:
            self._on_authentication(operation, message)
        elif kind == PARAMETER_TYPES:
            statement = item.detail[0] if isinstance(item.detail, tuple) else item.detail
            if isinstance(statement, Statement) and len(message.body) >= 2:
                count = min(I16(message.body, 0)[0] & 0xFFFF, (len(message.body) - 2) // 4)
                statement.types = [I32(message.body, 2 + 4 * n)[0] for n in range(count)]
        elif kind == FUNCTION_RESULT:
            operation.status = "OK"
        else:
            self._done(items.popleft())

    def _result_part(self, item: _Item, operation: _Operation, kind: int, message: Message) -> None:
        """A message of the result of an Execute or a query."""
        if kind == DATA_ROW:
            operation.result_rows += message.messages
            operation.rows = (operation.rows or 0) + message.messages
            if len(message.body) >= 2:
                operation.columns = I16(message.body, 0)[0]
        elif kind == ROW_DESCRIPTION:
            operation.rows = operation.rows or 0
            if len(message.body) >= 2:
                operation.columns = I16(message.body, 0)[0]
        elif kind == COPY_DATA:
            operation.bytes_out += message.size
        elif kind == COPY_BOTH:
            self._replication = operation
        elif kind in (COMMAND_COMPLETE, EMPTY_QUERY, PORTAL_SUSPENDED):
            self._complete(operation, kind, message)
            if item.kind == EXECUTE:
                self._items.popleft()
                self._learn(operation)
                self._emit(operation, None)

    def _complete(self, operation: _Operation, kind: int, message: Message) -> None:
        operation.status = "OK"
        operation.commands += 1
        if kind == COMMAND_COMPLETE:
            operation.tags.append(read_tag(message.body))
        elif kind == PORTAL_SUSPENDED:
            operation.info["suspended"] = True

    def _on_authentication(self, operation: _Operation, message: Message) -> None:
        code = I32(message.body, 0)[0] if len(message.body) >= 4 else -1
        if code == 0:
            operation.status = "OK"
        elif code == 10:
            operation.info["auth_method"] = read_name(message.body[4:].partition(b"\0")[0])
        elif code in _METHODS:
            operation.info["auth_method"] = _METHODS[code]

    def _on_answer(self, message: Message, span: Span) -> None:
        """One byte after SSLRequest or GSSENCRequest: S or G accepts, N refuses."""
        item = self._items.popleft()
        operation = item.operation
        assert operation is not None
        self._respond(operation, span)
        letter = message.body.decode("ascii")
        operation.status, operation.info["answer"] = "OK", letter
        self._emit(operation, None)
        if letter == "S":
            self.switch("tls")
        elif letter == "G":
            self.switch("opaque")

    def _on_error(self, message: Message, span: Span) -> None:
        fields = read_error(message.body)
        items = self._items
        while items and items[0].kind == SYNC:
            items.popleft()
        if not items:
            row = _Operation(0, span)
            row.error = fields
            self._emit_orphan(row, span)
            return
        head = items[0]
        operation = head.operation
        if self._replication is operation:
            self._replication = None
        if operation is not None:
            self._respond(operation, span)
            operation.error = fields
        if head.kind in (QUERY, FUNCTION_CALL):
            return  # ReadyForQuery follows
        if head.kind in (STARTUP, SSL, GSS):
            items.popleft()
            if operation is not None:
                self._emit(operation, None)
            return
        self._skip_to_sync(operation)

    def _skip_to_sync(self, failed: _Operation | None) -> None:
        """After an error in the extended protocol the server reads on to Sync and answers nothing."""
        items = self._items
        rest: dict[int, _Operation] = {}
        while items and items[0].kind not in (SYNC, QUERY):
            operation = items.popleft().operation
            if operation is not None:
                rest[id(operation)] = operation
        self._failed = not items
        if failed is not None and failed is not self._open:
            self._emit(failed, None)
        elif failed is not None and self._failed:
            # Its Execute has not been sent yet: the row is that of what failed.
            self._open = None
            failed.kind = failed.kind or EXECUTE
            self._emit(failed, None)
        for operation in rest.values():
            if operation is not failed and operation is not self._open and operation.kind == EXECUTE:
                operation.info["skipped"] = True
                self._emit(operation, "no_response")

    def _on_ready(self, message: Message, span: Span) -> None:
        items = self._items
        if not any(item.kind in _ENDED_BY_READY for item in items):
            return
        while items[0].kind not in _ENDED_BY_READY:
            self._give_up(items.popleft())
        item = items.popleft()
        operation = item.operation
        if operation is None:
            return
        self._respond(operation, span)
        if operation.status is None and operation.error is None:
            operation.status = "OK"
        if message.body[:1] in (b"T", b"E"):
            operation.info["transaction"] = "open" if message.body[:1] == b"T" else "failed"
        if self._replication is operation:
            self._replication = None
        self._emit(operation, None)

    def _on_notification(self, message: Message, span: Span) -> None:
        channel, _, payload = message.body[4:].partition(b"\0")
        row = Request(
            operation="NotificationResponse",
            resource=read_name(channel),
            statement=read_query(payload),
            outcome="one_way",
        )
        self.emit(row, None, span)

    def _respond(self, operation: _Operation, span: Span) -> None:
        if operation.response is None:
            operation.response = span.copy()
        else:
            _extend(operation.response, span)

    def _done(self, item: _Item) -> None:
        """A message before an Execute was answered; the last one of an operation without Execute completes it."""
        if isinstance(item.detail, tuple):
            operation = item.detail[1]
            operation.status = "OK"
            self._emit(operation, None)

    def _give_up(self, item: _Item) -> None:
        """The reply to a message was not seen."""
        operation = item.operation
        if operation is None:
            return
        if item.kind in (EXECUTE, QUERY, FUNCTION_CALL, STARTUP, SSL, GSS) or isinstance(item.detail, tuple):
            self._emit(operation, "truncated" if operation.response is not None else None)

    def finish(self) -> None:
        self._end_open()
        for item in self._items:
            self._give_up(item)
        self._items.clear()

    # ---- rows ------------------------------------------------------------------------------------------------

    def _learn(self, operation: _Operation) -> None:
        portal = operation.portal
        if portal is not None and operation.text is not None and operation.tags:
            shape = (len(portal.values), operation.columns, operation.tags[-1][0])
            self._server.learn(operation.text, shape, operation.name or "")

    def _emit_orphan(self, operation: _Operation, span: Span) -> None:
        row = Request()
        self._fill(row, operation)
        self.emit(row, None, span)

    def _emit(self, operation: _Operation, outcome: str | None) -> None:
        row = Request(operation=OPERATIONS.get(operation.kind), outcome=outcome)
        text = operation.text
        if text is not None:
            if operation.kind == STARTUP:
                row.resource = text
            else:
                row.statement, row.resource = text, digest(text, "postgresql")[1]
                trace = read_sql_comment_trace(text) if "/*" in text or "--" in text else None
                if trace is not None:
                    row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
        portal = operation.portal
        if portal is not None and operation.kind == EXECUTE:
            if portal.values:
                row.parameters = values_json(portal.formats, portal.values, portal.statement.types)
            if text is None and operation.tags and len(self._server.unknown) < MAX_UNKNOWN:
                shape = (len(portal.values), operation.columns, operation.tags[-1][0])
                self._server.unknown.append((row, shape, operation.name or ""))
        self._fill(row, operation)
        self.emit(row, operation.request, operation.response)

    def _fill(self, row: Request, operation: _Operation) -> None:
        """Status, counts and attributes from what the server said."""
        attributes: dict[str, Any] = dict(operation.info)
        if operation.error is not None:
            code = operation.error.get("C")
            row.status, row.is_error = code, True
            row.error_kind = error_kind(code)
            row.error_message = operation.error.get("M")
            attributes.update(
                {word: operation.error[letter] for letter, word in _FIELDS.items() if letter in operation.error}
            )
        else:
            row.status = operation.status
        self._count(row, operation)
        if operation.name and operation.kind in (EXECUTE, PARSE, DESCRIBE):
            attributes["statement_name"] = operation.name
        if operation.commands > 1:
            attributes["command_count"] = operation.commands
        if operation.notices:
            attributes["notices"] = operation.notices
        if operation.bytes_in:
            attributes["copy_in_bytes"] = operation.bytes_in
        if operation.bytes_out:
            attributes["copy_out_bytes"] = operation.bytes_out
        row.attributes = attributes or None

    def _count(self, row: Request, operation: _Operation) -> None:
        sent, changed = operation.rows, None
        for tag, count in operation.tags:
            if count is None:
                continue
            if tag in _CHANGES:
                changed = (changed or 0) + count
            elif tag == "COPY":
                if operation.bytes_in:
                    changed = (changed or 0) + count
                else:
                    sent = (sent or 0) + count
            elif tag in _WITH_ROWS and not operation.result_rows:
                sent = sent or count
        row.rows_sent, row.rows_affected = sent, changed


_FIELDS = {"S": "severity", "D": "detail", "H": "hint", "n": "constraint", "t": "table", "s": "schema"}


def read_query(body: bytes) -> str:
    """The zero-ended text of Query."""
    return read_text(body.partition(b"\0")[0])


def _extend(span: Span, other: Span) -> None:
    """Grow `span` by one that is the same, overlaps or follows it."""
    if other.end > span.end:
        span.extend(other)
