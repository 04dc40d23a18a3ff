"""ZMTP frames to rows."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from kubetape.analyze.protocols.common.text import read_name
from kubetape.analyze.protocols.contract import SERVER, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.zmtp.parse import (
    chain_fits,
    find_frame,
    is_signature,
    parse_frame,
    parse_greeting,
    read_properties,
)
from kubetape.analyze.protocols.zmtp.types import Command, Greeting, Part
from kubetape.analyze.streams import Span

MAX_OPEN: Final = 1 << 12  # REQ sockets have one open request, DEALER as many as the high-water mark: 1000

_REPLIES: Final = {"WELCOME": "HELLO", "PONG": "PING", "READY": "INITIATE"}
# Socket types that answer each message (ZeroMQ RFC 28).
_ANSWERED: Final = frozenset({"REQ", "DEALER"})
# The one type that talks to it (ZeroMQ RFC 28, RFC 29), where there is one but for the X variants.
_PEERS: Final = {"SUB": "PUB", "XSUB": "PUB", "PUB": "SUB", "XPUB": "SUB", "PUSH": "PULL", "PULL": "PUSH", "REP": "REQ"}
_SUBSCRIBES: Final = {0: "CANCEL", 1: "SUBSCRIBE"}


class ZmtpDecoder(Decoder):
    """Key: order. The greetings and READY of both sides are one row; messages of REQ sockets have their reply."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._greeted: list[Greeting | None] = [None, None]
        self._socket = ["", ""]
        self._parts: list[tuple[list[Part], Span] | None] = [None, None]
        self._open: dict[str, deque[tuple[Request, Span, Side]]] = {}

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        if self._greeted[side] is None and is_signature(data, offset):
            return parse_greeting(data, offset)
        return parse_frame(data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        if is_signature(data, offset):
            return offset
        # Message parts have no mark of their own: only at the first captured byte a chain of them is believed.
        return offset if offset == 0 and chain_fits(data) else find_frame(data, offset)

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        """What is paired by order only is not paired over lost bytes."""
        self._parts[side] = None
        self._give_up()

    def on_frame(self, side: Side, frame: Greeting | Command | Part, span: Span) -> None:
        if isinstance(frame, Greeting):
            self._greeted[side] = frame
        elif isinstance(frame, Command):
            self._on_command(side, frame, span)
        else:
            self._on_part(side, frame, span)

    def _on_command(self, side: Side, frame: Command, span: Span) -> None:
        name = frame.name
        if name == "READY":
            self._socket[side] = read_properties(frame.body).get("Socket-Type", self._socket[side])
        elif name == "INITIATE":
            self._socket[side] = read_properties(frame.body).get("Socket-Type", "")
        if name == "ERROR":
            self._on_error(side, frame, span)
            return
        asked = _REPLIES.get(name)
        if asked and self._answer(asked, side, span):
            return
        if name == "READY" and self._answer("READY", side, span):
            return
        row = Request(operation=name)
        if name in ("READY", "INITIATE"):
            row.resource = self._socket[side] or None
            greeting = self._greeted[side]
            row.attributes = {"version": greeting.version, "mechanism": greeting.mechanism} if greeting else None
        elif name in ("SUBSCRIBE", "CANCEL"):
            row.resource = read_name(frame.body)
        if side == SERVER:
            row.attributes = {**(row.attributes or {}), "sent_by": "server"}
        if name in ("READY", "INITIATE", "HELLO", "PING"):
            self._ask(name, row, span, side)
        else:
            row.outcome = "one_way"
            self.emit(row, span, None)

    def _on_error(self, side: Side, frame: Command, span: Span) -> None:
        """ERROR answers whatever of the handshake is open (RFC 37 section 3.4)."""
        reason = read_name(frame.body[1 : 1 + frame.body[0]]) if frame.body else ""
        waiting = next((q for name, q in self._open.items() if name != "message" and q and q[0][2] != side), None)
        row, request, _ = waiting.popleft() if waiting else (Request(operation="ERROR"), None, side)
        row.status, row.is_error, row.error_kind = "ERROR", True, "client" if side == SERVER else "server"
        row.error_message = reason or None
        self.emit(row, request, span)

    def _on_part(self, side: Side, frame: Part, span: Span) -> None:
        waiting = self._parts[side]
        if waiting is None:
            waiting = self._parts[side] = ([], span.copy())
        else:
            waiting[1].extend(span)
        if len(waiting[0]) < MAX_OPEN:
            waiting[0].append(frame)
        if not frame.more:
            self._parts[side] = None
            self._on_message(side, *waiting)

    def _type(self, side: Side) -> str:
        """The socket type of `side`; where its READY was before the recording, what the peer's allows."""
        return self._socket[side] or _PEERS.get(self._socket[1 - side], "")

    def _on_message(self, side: Side, parts: list[Part], span: Span) -> None:
        if self._answer("message", side, span):
            return
        # ZMTP 3.0 subscribes by a message that begins with 1, or 0 to cancel.
        body = parts[0].body
        subscriber = self._type(side) in ("SUB", "XSUB")
        if subscriber and body and body[0] in _SUBSCRIBES:
            row = Request(operation=_SUBSCRIBES[body[0]], resource=read_name(body[1:]))
        else:
            row = Request(operation="message", resource=_topic(parts, self._type(side)))
            row.attributes = {"part_count": len(parts), "socket_type": self._type(side) or None}
        if side == SERVER:
            row.attributes = {**(row.attributes or {}), "sent_by": "server"}
        if row.operation == "message" and self._type(side) in _ANSWERED:
            self._ask("message", row, span, side)
            return
        row.outcome = "one_way"
        self.emit(row, span, None)

    def _ask(self, name: str, row: Request, span: Span, side: Side) -> None:
        waiting = self._open.setdefault(name, deque())
        if len(waiting) >= MAX_OPEN:
            old, request, _ = waiting.popleft()
            self.emit(old, request, None)
        waiting.append((row, span, side))

    def _answer(self, name: str, side: Side, span: Span) -> bool:
        waiting = self._open.get(name)
        if not waiting or waiting[0][2] == side:
            return False
        row, request, _ = waiting.popleft()
        row.status = "OK"
        if name == "READY" and self._socket[side]:
            row.attributes = {**(row.attributes or {}), "peer_socket_type": self._socket[side]}
        self.emit(row, request, span)
        return True

    def _give_up(self) -> None:
        for waiting in self._open.values():
            for row, span, _ in waiting:
                self.emit(row, span, None)
            waiting.clear()

    def finish(self) -> None:
        self._give_up()


def _topic(parts: list[Part], socket_type: str) -> str | None:
    """The first part of what a PUB socket sends begins with the topic; others have no such thing."""
    body: Any = parts[0].body
    if socket_type not in ("PUB", "XPUB") or not body:
        return None
    name = read_name(body if len(parts) > 1 else body.split(b" ", 1)[0])
    return name if name.isprintable() else None
