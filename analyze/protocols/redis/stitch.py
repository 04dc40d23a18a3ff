"""Redis commands with their replies: by order; messages of subscriptions and pushes belong to no command."""

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
from kubetape.analyze.protocols.redis.parse import (
    Walk,
    command_at,
    find_command,
    find_reply,
    is_word,
    read_command,
    read_inline,
    read_value,
)
from kubetape.analyze.protocols.redis.statement import resource, statement
from kubetape.analyze.protocols.redis.turns import read_turns
from kubetape.analyze.protocols.redis.types import (
    BLANK,
    PUSHES,
    SUBSCRIBES,
    SUBSCRIPTION,
    UNSUBSCRIBES,
    Command,
    Snapshot,
    Value,
)
from kubetape.analyze.protocols.turns import Plain, Turns
from kubetape.analyze.streams import Span

# redis-cli --pipe and bulk loads send without waiting; more unanswered means that replies were not recorded.
MAX_PENDING = 200_000

ALL = 0  # as many replies as there are subscriptions of the kind when the server comes to it

_ERRORS = frozenset(b"-!")
_SERVER_ERRORS = frozenset(
    {
        "LOADING",
        "BUSY",
        "CLUSTERDOWN",
        "MASTERDOWN",
        "TRYAGAIN",
        "OOM",
        "MISCONF",
        "READONLY",
        "NOREPLICAS",
        "IOERR",
        "UNKILLABLE",
    }
)


class _Exchange:
    """A command that waits; replies: how many it still gets."""

    __slots__ = ("command", "replies", "response", "span")

    def __init__(self, command: Command, span: Span, replies: int) -> None:
        self.command, self.span, self.replies = command, span, replies
        self.response: Span | None = None


class RedisDecoder(Decoder):
    """Pairs by order; after lost replies a reply belongs to what was sent last before it, if that is one command."""

    READS_TURNS = True

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._waiting: deque[_Exchange] = deque()
        self._walk = Walk()
        self._value_span: Span | None = None
        # A reply that was cut while nothing else was asked: what follows belongs to it until the next command.
        self._cut: tuple[_Exchange, Value] | None = None
        self._subscriptions = {b"": 0, b"P": 0, b"S": 0}  # by kind: channels, patterns, shard channels
        self._silent = self._skip = False  # CLIENT REPLY OFF, SKIP
        self._monitor = False
        self._lost = False
        self._replica = 0  # 1: a snapshot comes; 2: in it; 3: commands of the master
        self._snapshot_mark: bytes | None = None
        self._snapshot_left = 0

    # ---- bytes ---------------------------------------------------------------------------------------------

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        if side == CLIENT:
            return self._parse_command(data, offset)
        if self._replica:
            return self._parse_replication(data, offset)
        if data[offset] in b"\r\n" and self._walk.value is None:
            return 1, BLANK  # a master that prepares a snapshot keeps the connection alive
        got = read_value(data, offset, self._walk)
        if got is None:
            return INVALID
        if got is False:
            return CUT
        assert isinstance(got, tuple)
        return got[0] - offset, got[1]

    def _parse_command(self, data: bytes, offset: int) -> Parsed:
        if data[offset] == 0x2A:
            got = read_command(data, offset)
            if got is None:
                return INVALID
            if not isinstance(got, tuple):
                return CUT
            if not got[1].arguments:
                return got[0] - offset, BLANK
            return (got[0] - offset, got[1]) if is_word(got[1].arguments[0]) else INVALID
        line = read_inline(data, offset)
        if line is None:
            return INVALID
        if not isinstance(line, tuple):
            return CUT
        end, words = line
        if not words:
            return end - offset, BLANK
        return (end - offset, Command(words[0].upper(), words, True)) if is_word(words[0]) else INVALID

    def _parse_replication(self, data: bytes, offset: int) -> Parsed:
        """What a master sends: newlines, the snapshot, then the commands that change its data."""
        if self._replica == 1:
            if data[offset] in b"\r\n":
                return 1, BLANK
            if data[offset] != 0x24:
                self._replica = 3
                return self._parse_replication(data, offset)
            stop = data.find(b"\r\n", offset, offset + 64)
            if stop < 0:
                return CUT
            head = data[offset + 1 : stop]
            if head.startswith(b"EOF:"):
                mark = head[4:]
                end = data.find(mark, stop + 2)
                if end < 0:
                    self._replica, self._snapshot_mark = 2, mark
                    return len(data) - offset, Snapshot(False)
                self._replica = 3
                return end + len(mark) - offset, Snapshot(True)
            if not head.isdigit():
                return INVALID
            self._replica = 3
            return stop + 2 + int(head) - offset, Snapshot(True)
        if self._replica == 2:
            end = data.find(self._snapshot_mark or b"", offset)
            if end < 0:
                return len(data) - offset, Snapshot(False)
            self._replica = 3
            return end + len(self._snapshot_mark or b"") - offset, Snapshot(True)
        if data[offset] in b"\r\n":
            return 1, BLANK
        return self._parse_command(data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        if side == CLIENT or self._replica == 3:
            if isinstance(self._parse_command(data, offset), tuple) and data[offset] != 0x2A:
                # In the middle of a connection lines are believed where something begins, and their word is known.
                believed = self.connection.from_start or (offset == 0 and command_at(data, 0))
                return offset if believed else find_command(data, offset)
            return find_command(data, offset)
        if self._replica:
            return offset
        self._end_value()
        return find_reply(data, offset)

    # ---- many turns at once ---------------------------------------------------------------------------------

    def at_rest(self) -> bool:
        return not (
            self._waiting
            or self._walk.value is not None
            or self._value_span is not None
            or self._cut is not None
            or self._silent
            or self._skip
            or self._monitor
            or self._lost
            or self._replica
            or any(self._subscriptions.values())
        )

    def read_turns(self, turns: Turns) -> Plain | None:
        return read_turns(turns, self._answer)

    # ---- frames ----------------------------------------------------------------------------------------------

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        if side == SERVER:
            self._lost = True
            if self._cut is not None and self._cut[0].response is not None:
                self._cut[0].response.end = max(self._cut[0].response.end, position + size_bytes)
        else:
            self._end_cut()

    def on_frame(self, side: Side, frame: Any, span: Span) -> None:
        if side == CLIENT:
            if frame is not BLANK:
                self._on_command(frame, span)
        elif frame.__class__ is Value:
            self._on_value(frame, span)
        elif frame.__class__ is Command:
            self._emit_push(frame.name.decode("ascii", "replace"), resource(frame), statement(frame), span)
        elif frame.__class__ is Snapshot:
            self._emit_push("snapshot", None, None, span)

    def _on_command(self, command: Command, span: Span) -> None:
        self._end_cut()
        name, arguments = command.name, command.arguments
        replies = 1
        if name in SUBSCRIPTION:
            replies = max(1, len(arguments) - 1)
            if name in UNSUBSCRIBES and len(arguments) == 1:
                replies = ALL
        elif name == b"CLIENT" and len(arguments) > 2 and arguments[1].upper() == b"REPLY":
            mode = arguments[2].upper()
            if mode == b"ON":
                self._silent = self._skip = False
            else:
                self._silent = mode == b"OFF" or self._silent
                self._skip = mode == b"SKIP" and not self._silent
                self._emit(_Exchange(command, span, 0), None, "one_way")
                return
        elif name == b"REPLCONF" and len(arguments) > 1 and arguments[1].upper() == b"ACK":
            self._emit(_Exchange(command, span, 0), None, "one_way")
            return
        if self._silent or self._skip:
            self._skip = False
            self._emit(_Exchange(command, span, 0), None, "one_way")
            return
        self._waiting.append(_Exchange(command, span, replies))
        if len(self._waiting) > MAX_PENDING:
            self._emit(self._waiting.popleft(), None)

    def _on_value(self, value: Value, span: Span) -> None:
        if self._value_span is not None:
            self._value_span.extend(span)
            span = self._value_span
        if not value.done:
            self._value_span = span
            return
        self._value_span = None
        if self._cut is not None and not self._is_push(value):
            self._go_on(span)
            return
        if self._lost:
            self._lost = False
            for lost in unanswerable(self._waiting, span.first_ns):
                self._emit(lost, None)
        if self._is_push(value):
            self._on_push(value, span)
            return
        if not self._waiting:
            self._emit(None, value, None, span)
            return
        exchange = self._waiting[0]
        if exchange.replies == ALL:
            exchange.replies = max(1, self._subscriptions[_kind(exchange.command)])
        exchange.replies -= 1
        if exchange.response is None:
            exchange.response = span
        else:
            exchange.response.extend(span)
        if exchange.replies > 0 and value.kind not in _ERRORS:
            self._count_subscriptions(exchange.command)
            return
        self._waiting.popleft()
        self._follow(exchange.command, value)
        self._emit(exchange, value)

    def _count_subscriptions(self, command: Command) -> None:
        if command.name in SUBSCRIBES:
            self._subscriptions[_kind(command)] += 1
        elif command.name in UNSUBSCRIBES:
            self._subscriptions[_kind(command)] = max(0, self._subscriptions[_kind(command)] - 1)

    def _follow(self, command: Command, value: Value) -> None:
        """What a command changes for the bytes that follow."""
        name = command.name
        self._count_subscriptions(command)
        if value.kind in _ERRORS:
            return
        if name == b"MONITOR":
            self._monitor = True
        elif name == b"RESET":
            self._monitor = False
            self._subscriptions = dict.fromkeys(self._subscriptions, 0)
        elif name == b"PSYNC" and value.kind == 0x2B:
            self._replica = 1 if value.text.startswith(b"FULLRESYNC") else 3

    def _is_push(self, value: Value) -> bool:
        kind = value.kind
        if kind == 0x3E:
            # Confirmations of subscriptions are pushes in RESP3, and the only reply to the command.
            confirms = value.first is not None and value.first.upper() in SUBSCRIPTION
            return not (confirms and self._waiting and self._waiting[0].command.name in SUBSCRIPTION)
        if kind == 0x2A and value.first in PUSHES and value.count == (4 if value.first == b"pmessage" else 3):
            return any(self._subscriptions.values()) or not self._waiting
        return self._monitor and kind == 0x2B and value.text[:1].isdigit() and b" [" in value.text[:40]

    def _on_push(self, value: Value, span: Span) -> None:
        if value.kind == 0x2B:
            self._emit_push("push", "monitor", read_text(value.text, 1024), span)
            return
        words = [w for w in (value.first, value.second) if w is not None]
        channel = key_pattern(read_name(value.second)) if value.second is not None else None
        self._emit_push("push", channel, read_text(b" ".join(words), 1024), span)

    def _emit_push(self, operation: str, about: str | None, text: str | None, span: Span) -> None:
        self.emit(Request(operation=operation, resource=about, statement=text, outcome="one_way"), None, span)

    def _end_value(self) -> None:
        """The open reply does not go on: it is written with what was seen."""
        value, span = self._walk.value, self._value_span
        self._walk.reset()
        self._value_span = None
        if value is None or span is None:
            return
        if self._cut is not None:
            self._go_on(span)
        elif self._waiting and not self._is_push(value):
            exchange = self._waiting.popleft()
            exchange.response = span.copy()
            if self._waiting or exchange.replies > 1:
                self._emit(exchange, value, "truncated")
            else:
                self._cut = exchange, value

    def _go_on(self, span: Span) -> None:
        """More of the reply that was cut."""
        assert self._cut is not None
        response = self._cut[0].response
        assert response is not None
        response.extend(span)

    def _end_cut(self) -> None:
        if self._cut is not None:
            exchange, value = self._cut
            self._cut, self._lost = None, False
            self._emit(exchange, value, "truncated")

    def finish(self) -> None:
        self._end_value()
        self._end_cut()
        for exchange in self._waiting:
            self._emit(exchange, None)
        self._waiting.clear()

    # ---- rows ------------------------------------------------------------------------------------------------

    def _emit(
        self, exchange: _Exchange | None, value: Value | None, outcome: str | None = None, span: Span | None = None
    ) -> None:
        row = Request(outcome=outcome)
        if exchange is not None:
            command = exchange.command
            row.operation = command.name.decode("ascii")
            row.resource, row.statement = resource(command), statement(command)
            span = exchange.response
        if value is not None:
            self._answer(row, value)
        self.emit(row, exchange.span if exchange is not None else None, span)

    def _answer(self, row: Request, value: Value) -> None:
        kind = value.kind
        if kind in _ERRORS:
            text = read_text(value.text, 512)
            row.status = text.partition(" ")[0] or "ERR"
            row.is_error, row.error_message = True, text
            row.error_kind = "server" if row.status in _SERVER_ERRORS else "client"
            return
        row.status = "OK" if value.done else None
        if kind == 0x5F or (kind in b"$*" and value.count < 0):
            row.attributes = {"nil": True}
        elif value.errors:
            row.attributes = {"inner_errors": value.errors}


def _kind(command: Command) -> bytes:
    """b"P" of PSUBSCRIBE, b"S" of SSUBSCRIBE, b"" of SUBSCRIBE, and of their opposites."""
    name = command.name.removesuffix(b"UNSUBSCRIBE").removesuffix(b"SUBSCRIBE")
    return name if name in (b"P", b"S") else b""
