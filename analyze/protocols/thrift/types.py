"""Frames of Apache Thrift."""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """One message. kind: CALL, REPLY, EXCEPTION, ONEWAY; service: of a multiplexed call; encoding: binary, compact, ...

    failure: (class number or NULL, text) of an exception, the application's or one declared by the method.
    """

    kind: int
    method: str
    service: str | None
    sequence_id: int
    encoding: str
    transport: str
    failure: tuple[int | None, str | None] | None
    headers: dict[str, str]


CALL, REPLY, EXCEPTION, ONEWAY = 1, 2, 3, 4

# TApplicationException.type: what a caller does wrong; the others are the server's.
CLIENT_FAULTS = frozenset((1, 2, 3, 4, 7, 8, 9, 10))
APPLICATION_EXCEPTIONS = {
    0: "UNKNOWN",
    1: "UNKNOWN_METHOD",
    2: "INVALID_MESSAGE_TYPE",
    3: "WRONG_METHOD_NAME",
    4: "BAD_SEQUENCE_ID",
    5: "MISSING_RESULT",
    6: "INTERNAL_ERROR",
    7: "PROTOCOL_ERROR",
    8: "INVALID_TRANSFORM",
    9: "INVALID_PROTOCOL",
    10: "UNSUPPORTED_CLIENT_TYPE",
}
