"""memcached commands with their replies: by order (text), by opaque and order (binary, meta), by request id (UDP)."""

from __future__ import annotations

from collections import deque
from typing import Any

from kubetape.analyze.normalise.key import key_pattern
from kubetape.analyze.protocols.common.bursts import unanswerable
from kubetape.analyze.protocols.common.text import read_name, read_text
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
from kubetape.analyze.protocols.memcached.parse import (
    UDP_HEADER,
    UDP_HEADER_BYTES,
    Walk,
    binary_at,
    find,
    read_binary_command,
    read_binary_reply,
    read_text_command,
    read_text_reply,
    read_unknown_command,
)
from kubetape.analyze.protocols.memcached.types import Command, Reply
from kubetape.analyze.streams import Span

# Clients stream sets with noreply or multi-gets; more unanswered means that replies were not recorded.
MAX_PENDING = 100_000
MAX_STATEMENT_CHARS = 1024

_CLIENT_ERRORS = frozenset({"ERROR", "CLIENT_ERROR", "BADCLASS", "UNSAFE", "SAME"})
_CLIENT_CODES = frozenset({0x03, 0x04, 0x06, 0x07, 0x08, 0x20, 0x81, 0x83})
# What it means when nothing comes back to a quiet command: (text or meta, binary).
_SILENCE = {"mg": "EN", "get": "KEY_NOT_FOUND", "gat": "KEY_NOT_FOUND"}


class _Exchange:
    """A command that waits."""

    __slots__ = ("command", "first", "parts", "response", "span")

    def __init__(self, command: Command, span: Span) -> None:
        self.command, self.span = command, span
        self.response: Span | None = None
        self.first: Reply | None = None  # of several parts
        self.parts = 0


class MemcachedDecoder(Decoder):
    """A queue per connection; a reply that names its command by opaque passes over quiet ones before it."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._waiting: deque[_Exchange] = deque()
        self._walk = Walk()
        self._reply_span: Span | None = None
        self._lost = False
        self._by_number: dict[int, _Exchange] = {}  # UDP: request id

    # ---- bytes ---------------------------------------------------------------------------------------------

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        if self.connection.datagrams:
            return self._parse_datagram(side, data)
        if side == CLIENT:
            got: Any = (
                read_binary_command(data, offset) if binary_at(data, offset, 0x80) else read_text_command(data, offset)
            )
        elif binary_at(data, offset, 0x81):
            got = read_binary_reply(data, offset)
        else:
            got = read_text_reply(data, offset, self._walk)
        if got is None and side == CLIENT:
            got = read_unknown_command(data, offset)
        if got is None:
            return INVALID if not (data[offset] in b"\x80\x81" and len(data) - offset < 24) else CUT
        if got is False:
            return CUT
        return got[0] - offset, got[1]

    def _parse_datagram(self, side: Side, data: bytes) -> Parsed:
        if len(data) <= UDP_HEADER_BYTES:
            return INVALID
        number, sequence, total, _ = UDP_HEADER(data)
        at = UDP_HEADER_BYTES
        if side == CLIENT:
            got: Any = read_binary_command(data, at) if binary_at(data, at, 0x80) else read_text_command(data, at)
            if not isinstance(got, tuple):
                return INVALID
            got[1].number = number
            return len(data), got[1]
        if sequence:
            reply = Reply("")
        elif binary_at(data, at, 0x81):
            reply = read_binary_reply(data, at)[1]
        else:
            got = read_text_reply(data, at, Walk())
            if not isinstance(got, tuple):
                return INVALID
            reply = got[1]
        reply.number, reply.parts = number, total
        return len(data), reply

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        found = find(data, offset, side == CLIENT)
        if side == SERVER:
            self._end_list()
        return found

    # ---- frames ----------------------------------------------------------------------------------------------

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        if side == SERVER:
            self._lost = True

    def on_frame(self, side: Side, frame: Any, span: Span) -> None:
        if side == CLIENT:
            self._on_command(frame, span)
        elif self.connection.datagrams:
            self._on_datagram(frame, span)
        else:
            self._on_reply(frame, span)

    def _on_command(self, command: Command, span: Span) -> None:
        exchange = _Exchange(command, span)
        if command.silent:
            self._emit(exchange, None, "one_way")
            return
        if self.connection.datagrams:
            before = self._by_number.pop(command.number, None)
            if before is not None:
                self._emit(before, None)
            self._by_number[command.number] = exchange
            if len(self._by_number) > MAX_PENDING:
                self._emit(self._by_number.pop(next(iter(self._by_number))), None)
            return
        self._waiting.append(exchange)
        if len(self._waiting) > MAX_PENDING:
            self._emit(self._waiting.popleft(), None)

    def _on_datagram(self, reply: Reply, span: Span) -> None:
        exchange = self._by_number.get(reply.number)
        if exchange is None:
            if reply.word:
                self._emit(None, reply, None, span)
            return
        exchange.parts += 1
        _respond(exchange, span)
        if reply.word:
            exchange.first = reply
        if exchange.parts >= reply.parts:
            del self._by_number[reply.number]
            answer = exchange.first or reply
            answer.done = True
            self._emit(exchange, answer)

    def _on_reply(self, reply: Reply, span: Span) -> None:
        if self._reply_span is not None:
            self._reply_span.extend(span)
            span = self._reply_span
        if not reply.done and reply.opcode < 0:
            self._reply_span = span
            return
        self._reply_span = None
        if self._lost:
            self._lost = False
            if reply.opcode < 0:
                for lost in unanswerable(self._waiting, span.first_ns):
                    self._emit(lost, None)
        exchange = self._answered(reply)
        if exchange is None:
            if reply.done:
                self._emit(None, reply, None, span)
            return
        _respond(exchange, span)
        if exchange.first is not None:
            reply.values += exchange.first.values
        if not reply.done:
            exchange.first = reply
            return
        self._waiting.popleft()
        self._emit(exchange, reply)

    def _answered(self, reply: Reply) -> _Exchange | None:
        """The command at the head of the queue that this reply answers; quiet ones before it were not answered."""
        waiting = self._waiting
        if reply.opcode >= 0:
            place = next(
                (n for n, e in enumerate(waiting) if e.command.mark == reply.mark and e.command.opcode == reply.opcode),
                -1,
            )
            if place < 0:
                return None
            for _ in range(place):
                self._pass_over(waiting.popleft())
            return waiting[0]
        while waiting and waiting[0].command.quiet and not _fits(waiting[0].command, reply):
            self._pass_over(waiting.popleft())
        if not waiting or not _answers(waiting[0].command, reply):
            return None  # of a command before the recording began, or one that was lost
        return waiting[0]

    def _pass_over(self, exchange: _Exchange) -> None:
        """A later command was answered before this one."""
        if exchange.command.quiet and exchange.response is None:
            self._emit(exchange, None, "one_way")
        else:
            self._emit(exchange, None)

    def _end_list(self) -> None:
        """A list that does not go on behind a gap."""
        reply, span = self._walk.reply, self._reply_span
        self._walk.reply, self._reply_span = None, None
        if reply is not None and span is not None and self._waiting:
            exchange = self._waiting.popleft()
            exchange.response = span
            self._emit(exchange, reply, "truncated")

    def finish(self) -> None:
        self._end_list()
        for exchange in (*self._waiting, *self._by_number.values()):
            # Nothing that came later shows that the server had reached a quiet command.
            self._emit(exchange, None, "one_way" if exchange.command.quiet else None, sure=False)
        self._waiting.clear()
        self._by_number.clear()

    # ---- rows ------------------------------------------------------------------------------------------------

    def _emit(
        self,
        exchange: _Exchange | None,
        reply: Reply | None,
        outcome: str | None = None,
        span: Span | None = None,
        sure: bool = True,
    ) -> None:
        row = Request(outcome=outcome)
        if exchange is not None:
            command = exchange.command
            span = exchange.response
            row.operation = command.name
            if command.keys:
                row.resource = key_pattern(read_name(command.keys[0]))
            row.statement = read_text(command.line, MAX_STATEMENT_CHARS)
            if len(command.keys) > 1:
                row.attributes = {"key_count": len(command.keys)}
            if command.quiet:
                row.attributes = {**(row.attributes or {}), "quiet": True}
                if reply is None and sure:
                    default = "NO_ERROR" if command.opcode >= 0 else "HD"
                    row.status, row.inferred = _SILENCE.get(command.name, default), "status"
        if reply is not None:
            self._answer(row, reply)
        self.emit(row, exchange.span if exchange is not None else None, span)

    def _answer(self, row: Request, reply: Reply) -> None:
        row.status = reply.word or None
        if not reply.done:
            row.status = reply.word if reply.values else None
        if reply.values:
            row.rows_sent = reply.values
        elif reply.word == "END" or (row.operation in ("get", "gets", "gat", "gats", "mg") and reply.word != "OK"):
            row.rows_sent = 0
        if reply.opcode >= 0:
            if reply.code and reply.code not in (0x01, 0x02, 0x05, 0x09, 0x21):
                row.is_error = True
                row.error_kind = "client" if reply.code in _CLIENT_CODES else "server"
                row.error_message = reply.message
        elif reply.word in _CLIENT_ERRORS or reply.word == "SERVER_ERROR":
            row.is_error = True
            row.error_kind = "server" if reply.word == "SERVER_ERROR" else "client"
            row.error_message = reply.message


_STORAGE = frozenset(("set", "add", "replace", "append", "prepend", "cas"))
_RETRIEVAL = frozenset(("get", "gets", "gat", "gats"))
# Which commands of the text protocol each word can answer (protocol.txt); words not here answer several kinds.
_WORDS: dict[str, frozenset[str]] = {
    "STORED": _STORAGE,
    "NOT_STORED": _STORAGE,
    "EXISTS": _STORAGE,
    "DELETED": frozenset(("delete",)),
    "TOUCHED": frozenset(("touch",)),
    "VALUE": _RETRIEVAL,
}


def _answers(command: Command, reply: Reply) -> bool:
    """Whether the word of a text reply can answer the command at all."""
    commands = _WORDS.get(reply.word)
    return commands is None or command.name in commands


def _fits(command: Command, reply: Reply) -> bool:
    """Whether a reply of the meta protocol can belong to a quiet command."""
    if reply.word == "MN":
        return False
    if reply.mark is not None or (command.mark is not None and reply.word in ("HD", "VA")):
        return command.mark == reply.mark  # flags are returned where they were given
    if command.name == "mg":
        return reply.word not in ("EN", "NS", "EX", "NF")
    # "ma" that creates its item says so in quiet mode, too (proto_text.c).
    return reply.word != "VA" and (reply.word != "HD" or command.name == "ma")


def _respond(exchange: _Exchange, span: Span) -> None:
    if exchange.response is None:
        exchange.response = span
    else:
        exchange.response.extend(span)
