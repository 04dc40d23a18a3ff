"""Frames of ZMTP 3.0 and 3.1 (ZeroMQ RFC 23 and 37)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GREETING_BYTES: Final = 64
SIGNATURE_BYTES: Final = 10


@dataclass(frozen=True, slots=True)
class Greeting:
    """What each side says first. as_server: of the PLAIN and CURVE mechanisms."""

    version: str
    mechanism: str
    as_server: bool


@dataclass(frozen=True, slots=True)
class Command:
    """name: READY, SUBSCRIBE, ...; body: what follows the name, as far as captured."""

    name: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a message: its first captured bytes; more: another part follows; size_bytes: as declared."""

    body: bytes
    more: bool
    size_bytes: int
