"""Frames of HTTP/1.x (RFC 9112): a head with as much of its body as one declaration covers, and the rest of bodies."""

from __future__ import annotations

from typing import Final

# How the body of a message is framed (RFC 9112, section 6.3).
NO_BODY: Final = 0
LENGTH: Final = 1
CHUNKED: Final = 2
UNTIL_CLOSE: Final = 3
UNKNOWN: Final = 4  # the head was cut: nobody knows


class Head:
    """The head of a request or a response.

    method, target: of a request, None in a response. status, reason: of a response. headers: those the
    analysis uses, names in lower case. complete: the frame covers the whole message. cut: the head's end was
    not captured. sample: the beginning of the body of a failed response, for its message.
    """

    __slots__ = (
        "body",
        "complete",
        "cut",
        "headers",
        "length",
        "method",
        "minor_version",
        "reason",
        "sample",
        "status",
        "target",
    )

    def __init__(self, method: str | None, target: str | None, status: int, reason: str) -> None:
        self.method, self.target, self.status, self.reason = method, target, status, reason
        self.headers: dict[str, str] = {}
        self.body = NO_BODY
        self.length = 0
        self.minor_version = 1
        self.complete = True
        self.cut = False
        self.sample = b""


class BodyPart:
    """A further part of the body of the message that is open in this direction; last: the message ends with it."""

    __slots__ = ("last",)

    def __init__(self, last: bool) -> None:
        self.last = last


LAST_PART: Final = BodyPart(True)
MORE_PART: Final = BodyPart(False)
