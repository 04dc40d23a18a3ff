"""ZooKeeper packets to rows."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from kubetape.analyze.protocols.common.text import read_text
from kubetape.analyze.protocols.contract import CLIENT, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.zookeeper.parse import (
    find_packet,
    multi_error,
    parse_packet,
    parse_text,
    parse_word,
    read_event,
    read_string,
)
from kubetape.analyze.protocols.zookeeper.types import (
    CONNECT,
    CREATES,
    ERRORS,
    EVENTS,
    MULTI,
    MULTI_READ,
    NOTIFICATION_XID,
    OPERATIONS,
    PING_XID,
    SERVER_FAULTS,
    SESSION_EXPIRED,
    STATES,
    TIMEOUTS,
    WORD,
    WORDS,
    Call,
    Reply,
    Text,
)
from kubetape.analyze.streams import Span

MAX_PENDING: Final = 1 << 14  # a client may have this many calls under way; the oldest are given up


class _Pending:
    __slots__ = ("op", "reply", "request", "row")

    def __init__(self, op: int, row: Request, request: Span) -> None:
        self.op, self.row, self.request = op, row, request
        self.reply: Span | None = None


class ZooKeeperDecoder(Decoder):
    """Key: the xid, and order among equal ones (pings); a session's first packets have none and pair by being first."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._pending: dict[int, deque[_Pending]] = {}
        self._count = 0
        self._connect: _Pending | None = None
        self._word: _Pending | None = None

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        if side == CLIENT:
            # Of a word sent alone there are only 4 bytes.
            if len(data) - offset < 8 and data[offset : offset + 4] in WORDS:
                return parse_word(data, offset)
        elif self._word is not None:
            return parse_text(data, offset)
        return parse_packet(side, data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        if side != CLIENT and self._word is not None:
            return offset
        return find_packet(side, data, offset)

    def on_frame(self, side: Side, frame: Call | Reply | Text, span: Span) -> None:
        if isinstance(frame, Call):
            self._on_call(frame, span)
        elif isinstance(frame, Reply):
            self._on_reply(frame, span)
        elif self._word is not None:
            self._on_text(self._word, frame, span)

    def _on_call(self, call: Call, span: Span) -> None:
        row = Request(operation=OPERATIONS.get(call.op), resource=call.path, attributes=call.detail or None)
        pending = _Pending(call.op, row, span)
        if call.op == WORD:
            row.operation = call.detail.pop("word")
            row.attributes = None
            if self._word is None:
                self._word = pending
            else:
                self.emit(row, span, None)
        elif call.op == CONNECT:
            if self._connect is not None:
                self.emit(self._connect.row, self._connect.request, None)
            self._connect = pending
        else:
            row.stream_id = call.xid
            if self._count >= MAX_PENDING:
                self._give_up_oldest()
            self._pending.setdefault(call.xid, deque()).append(pending)
            self._count += 1

    def _on_reply(self, reply: Reply, span: Span) -> None:
        if reply.connect is not None:
            self._on_connected(reply, span)
            return
        if reply.xid == NOTIFICATION_XID:
            kind, state, path = read_event(reply.body)
            event = {"event": EVENTS.get(kind, str(kind)), "state": STATES.get(state, str(state))}
            row = Request(operation="notification", resource=path, outcome="one_way", attributes=event)
            self.emit(row, None, span)
            return
        queue = self._pending.get(reply.xid)
        if not queue:
            row = Request(operation="ping" if reply.xid == PING_XID else None, stream_id=reply.xid)
            _tell(row, reply.error)
            self.emit(row, None, span)
            return
        pending = queue.popleft()
        self._count -= 1
        if not queue:
            del self._pending[reply.xid]
        row, error = pending.row, reply.error
        if pending.op in (MULTI, MULTI_READ) and not error:
            error = multi_error(reply.body)
        if reply.zxid > 0:
            _note(row, "zxid", reply.zxid)
        if not reply.error and reply.body:
            _note_body(row, pending.op, reply.body)
        _tell(row, error)
        self.emit(row, pending.request, span)

    def _on_connected(self, reply: Reply, span: Span) -> None:
        pending, self._connect = self._connect, None
        row = pending.row if pending else Request(operation="connect")
        facts = reply.connect or {}
        for name, value in facts.items():
            _note(row, name, value)
        # ZooKeeperServer.finishSessionInit: a timeout of 0 says that the session is gone.
        _tell(row, 0 if facts.get("timeout_ms") else SESSION_EXPIRED)
        self.emit(row, pending.request if pending else None, span)

    def _on_text(self, word: _Pending, text: Text, span: Span) -> None:
        if word.reply is None:
            word.reply = span.copy()
            _note(word.row, "answer", read_text(text.start, 128).strip())
        else:
            word.reply.extend(span)

    def _give_up_oldest(self) -> None:
        xid = next(iter(self._pending))
        queue = self._pending[xid]
        pending = queue.popleft()
        if not queue:
            del self._pending[xid]
        self._count -= 1
        self.emit(pending.row, pending.request, None)

    def finish(self) -> None:
        if self._word is not None:
            if self._word.reply is not None:
                self._word.row.status = "0"
            self.emit(self._word.row, self._word.request, self._word.reply)
            self._word = None
        if self._connect is not None:
            self.emit(self._connect.row, self._connect.request, None)
        for queue in self._pending.values():
            for pending in queue:
                self.emit(pending.row, pending.request, None)
        self._pending.clear()


def _note(row: Request, name: str, value: Any) -> None:
    if row.attributes is None:
        row.attributes = {}
    row.attributes[name] = value


def _note_body(row: Request, op: int, body: bytes) -> None:
    if op in CREATES:
        created = read_text(read_string(body, 0, len(body))[0])
        if created != row.resource:
            _note(row, "created", created)
    elif op in (8, 12) and len(body) >= 4:
        _note(row, "children_count", int.from_bytes(body[:4], "big", signed=True))
    elif op == 4 and len(body) >= 4:
        _note(row, "data_bytes", max(0, int.from_bytes(body[:4], "big", signed=True)))


def _tell(row: Request, error: int) -> None:
    row.status = str(error)
    if error:
        row.is_error = True
        row.error_kind = "timeout" if error in TIMEOUTS else "server" if error in SERVER_FAULTS else "client"
        row.error_message = ERRORS.get(error)
