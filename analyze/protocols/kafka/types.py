"""Frames of Kafka."""

from __future__ import annotations

from typing import NamedTuple


class RequestFrame(NamedTuple):
    """A request: the header's fields; data, body, end: where its body is in the run of bytes (it may end earlier)."""

    key: int
    version: int
    correlation_id: int
    client_id: str | None
    data: bytes
    body: int
    end: int


class ResponseFrame(NamedTuple):
    """A response; its layout is known only from the request that it answers. body: behind the correlation id."""

    correlation_id: int
    data: bytes
    body: int
    end: int


class Token(NamedTuple):
    """A SASL token without Kafka's headers, sent after a handshake of version 0. Its bytes are secret."""

    size: int
