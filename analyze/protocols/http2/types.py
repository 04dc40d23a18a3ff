"""Frames of HTTP/2 (RFC 9113, section 6)."""

from __future__ import annotations

from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9
ALTSVC: Final = 10
ORIGIN: Final = 12
PRIORITY_UPDATE: Final = 16
CONNECTION_PREFACE: Final = -1  # not a frame, but it begins the client's stream

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

# RFC 9113, section 7.
ERROR_CODES: Final = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)


def error_name(code: int) -> str:
    """The name of an error code, or its number where it has none."""
    return ERROR_CODES[code] if code < len(ERROR_CODES) else f"0x{code:x}"


class Frame:
    """One frame. data[start:end] is its payload as far as captured, without padding where that was captured.

    missing: bytes of the payload that were not captured.
    """

    __slots__ = ("data", "end", "flags", "kind", "missing", "start", "stream_id")

    def __init__(self, kind: int, flags: int, stream_id: int, data: bytes, start: int, end: int, missing: int) -> None:
        self.kind, self.flags, self.stream_id = kind, flags, stream_id
        self.data, self.start, self.end, self.missing = data, start, end, missing

    @property
    def whole(self) -> bool:
        """Whether all of the payload was captured."""
        return not self.missing

    @property
    def payload(self) -> bytes:
        return self.data[self.start : self.end]
