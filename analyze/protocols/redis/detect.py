"""Whether bytes are Redis's: commands as arrays or known words, and replies in RESP."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Sample
from kubetape.analyze.protocols.redis.parse import Walk, command_at, find_command, read_value

_TYPES_OF_OTHERS = frozenset(b"+-")  # POP3 and NATS answer +OK and -ERR, too


def _replies(data: bytes) -> int:
    """How many replies stand at the beginning of data; 0: something else does."""
    pos, count = 0, 0
    while pos < len(data) and count < 4:
        got = read_value(data, pos, Walk())
        if got is False and count:
            break
        if not isinstance(got, tuple):
            return count if count and len(data) >= 4096 else 0
        pos, count = got[0], count + 1
    return count


def detect(sample: Sample) -> float:
    if sample.datagrams:
        return 0.0
    asked = [d for d in (sample.client, *sample.client_runs) if d]
    answered = [d for d in (sample.server, *sample.server_runs) if d]
    commands = [d for d in asked if command_at(d, 0)]
    replies = [d for d in answered if _replies(d)]
    arrays = [d for d in commands if d[0] == 0x2A]
    if commands and replies:
        if not arrays and all(d[0] in _TYPES_OF_OTHERS for d in replies):
            # PING answered by +PONG is Redis; other words with +OK may be another protocol of lines.
            if any(d.startswith((b"+PONG", b"-ERR unknown command", b"-NOAUTH", b"-WRONGTYPE")) for d in replies):
                return 0.85
            return 0.5 if len(commands) == len(asked) else 0.3
        share = (len(commands) / len(asked) + len(replies) / len(answered)) / 2
        return 0.6 + 0.35 * share
    if arrays and not answered:
        return 0.75
    if not asked and replies and any(d[0] not in _TYPES_OF_OTHERS for d in replies):
        return 0.6 if len(replies) == len(answered) and any(d[0] in b"*$>" for d in replies) else 0.4
    if asked and not commands and replies and any(find_command(d, 0) >= 0 for d in asked):
        return 0.7
    return 0.0
