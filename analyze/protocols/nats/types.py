"""Frames of NATS."""

from __future__ import annotations

from typing import Final, NamedTuple

CLIENT_VERBS: Final = frozenset({"CONNECT", "PUB", "HPUB", "SUB", "UNSUB"})
SERVER_VERBS: Final = frozenset({"INFO", "MSG", "HMSG", "+OK", "-ERR"})


class Command(NamedTuple):
    """verb in upper case; words: its arguments; headers: (start, end) of the header block in data, (0, 0) without."""

    verb: str
    words: list[str]
    text: str
    data: bytes
    headers: tuple[int, int]
    payload_bytes: int
