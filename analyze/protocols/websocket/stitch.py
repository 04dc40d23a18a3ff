"""WebSocket messages: nothing is paired, each message is a row (RFC 6455); frames of one message come in order."""

from __future__ import annotations

from typing import Any

from kubetape.analyze.protocols.common.text import read_name
from kubetape.analyze.protocols.contract import CLIENT, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.websocket.parse import find_frame, read_frame
from kubetape.analyze.protocols.websocket.types import CLOSE, CONTINUATION, NAMES, Frame
from kubetape.analyze.streams import Span

# Close codes of RFC 6455, section 7.4, that end a connection as intended.
NORMAL_CLOSE = frozenset({1000, 1001, 1005})
# ... that blame the peer: protocol error, data it must not send, policy, size, missing extension.
BLAMED_ON_PEER = frozenset({1002, 1003, 1007, 1008, 1009, 1010})


class WebSocketDecoder(Decoder):
    """Puts fragments together, per direction; control frames may come between them."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        target = connection.carry.get("target")
        self._target = None if target is None else read_name(str(target).encode())
        self._open: list[tuple[Frame, Span, int] | None] = [None, None]

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return read_frame(data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_frame(data, offset, side)

    def on_frame(self, side: Side, frame: Any, span: Span) -> None:
        if frame.opcode == CONTINUATION:
            message = self._open[side]
            if message is None:
                return  # its first frame was lost: the kind of message is not known
            first, whole, count = message
            whole.extend(span)
            first.length += frame.length
            if frame.final:
                self._open[side] = None
                self._emit(side, first, whole, count + 1)
            else:
                self._open[side] = first, whole, count + 1
        elif frame.final:
            self._emit(side, frame, span, 1)
        else:
            self._close(side)
            self._open[side] = frame, span, 1

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        self._close(side)

    def finish(self) -> None:
        self._close(0)
        self._close(1)

    def _close(self, side: Side) -> None:
        """A message whose end was not seen."""
        if (message := self._open[side]) is not None:
            self._open[side] = None
            self._emit(side, *message, outcome="truncated")

    def _emit(self, side: Side, frame: Frame, span: Span, frames: int, outcome: str = "one_way") -> None:
        attributes: dict[str, Any] = {"sender": "client" if side == CLIENT else "server", "payload_bytes": frame.length}
        if frames > 1:
            attributes["frames"] = frames
        if frame.compressed:
            attributes["compressed"] = True
        row = Request(operation=NAMES[frame.opcode], resource=self._target, outcome=outcome, attributes=attributes)
        if frame.opcode == CLOSE and frame.code is not None:
            row.status = str(frame.code)
            row.error_message = frame.reason or None
            if frame.code not in NORMAL_CLOSE:
                row.is_error = True
                by_client = (side == CLIENT) != (frame.code in BLAMED_ON_PEER)
                row.error_kind = "client" if by_client else "server"
        self.emit(row, span if side == CLIENT else None, None if side == CLIENT else span)
