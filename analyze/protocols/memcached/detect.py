"""Whether bytes are memcached's."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Sample
from kubetape.analyze.protocols.memcached.parse import (
    UDP_HEADER,
    UDP_HEADER_BYTES,
    Walk,
    binary_at,
    read_text_command,
    read_text_reply,
)

PORTS = frozenset({11211})
# Words that other protocols of lines use, too.
_COMMON = frozenset({"quit", "version", "stats", "verbosity", "watch", "shutdown"})
_COMMON_REPLIES = frozenset({"OK", "ERROR", "END", "EN", "ME", "EX", "SAME"})


def detect(sample: Sample) -> float:
    start = UDP_HEADER_BYTES if sample.datagrams else 0
    asked = [d for d in (sample.client, *sample.client_runs) if len(d) > start]
    answered = [d for d in (sample.server, *sample.server_runs) if len(d) > start]
    if start and not all(_frame_fits(d) for d in (*asked, *answered)):
        return 0.0
    commands = [_command(d, start) for d in asked]
    replies = [_reply(d, start) for d in answered]
    good, known = sum(c > 0 for c in commands), sum(r > 0 for r in replies)
    if good and known:
        share = (good / len(asked) + known / len(answered)) / 2
        return (0.6 + 0.35 * share) if max(commands) > 1 or max(replies) > 1 else 0.5
    if good and not answered:
        if good == len(asked) and sample.server_port in PORTS and not sample.from_start:
            return 0.55  # the `quit` at the end of a connection
        return 0.6 if max(commands) > 1 and good == len(asked) else 0.3
    if known and not asked:
        return 0.6 if max(replies) > 1 and known == len(answered) else 0.3
    return 0.0


def _frame_fits(data: bytes) -> bool:
    """doc/protocol.txt, "UDP protocol": sequence number below the number of datagrams, reserved zero."""
    _, sequence, total, reserved = UDP_HEADER(data)
    return bool(sequence < total and not reserved)


def _command(data: bytes, pos: int) -> int:
    """2: certainly a command, 1: it may be one, 0: none."""
    if binary_at(data, pos, 0x80):
        return 2
    got = read_text_command(data, pos)
    if not isinstance(got, tuple) or any(c < 32 for c in got[1].line):
        return 0
    return 1 if got[1].name in _COMMON or len(got[1].name) == 2 else 2


def _reply(data: bytes, pos: int) -> int:
    if binary_at(data, pos, 0x81):
        return 2
    got = read_text_reply(data, pos, Walk())
    if not isinstance(got, tuple):
        return 0
    if got[1].word == "OK" and got[1].message:
        return 0  # nothing follows it; other servers say "OK ready"
    return 1 if got[1].word in _COMMON_REPLIES else 2
