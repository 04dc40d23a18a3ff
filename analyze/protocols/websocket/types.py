"""Frames of the WebSocket protocol (RFC 6455, section 5.2)."""

from __future__ import annotations

from typing import Final

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
NAMES: Final = {TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}


class Frame:
    """final: the last frame of its message. compressed: RSV1, permessage-deflate (RFC 7692). length: of the payload.

    code, reason: of a close frame, else None.
    """

    __slots__ = ("code", "compressed", "final", "length", "opcode", "reason")

    def __init__(self, opcode: int, final: bool, compressed: bool, length: int) -> None:
        self.opcode, self.final, self.compressed, self.length = opcode, final, compressed, length
        self.code: int | None = None
        self.reason: str | None = None
