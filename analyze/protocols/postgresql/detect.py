"""Whether bytes are PostgreSQL's: the startup, or chains of typed messages with contents that add up."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Sample
from kubetape.analyze.protocols.postgresql.parse import (
    chain_at,
    client_message_at,
    server_message_at,
    startup_at,
)
from kubetape.analyze.protocols.postgresql.types import GSS, SSL, STARTUP


def detect(sample: Sample) -> float:
    if sample.datagrams:
        return 0.0
    begun = startup_at(sample.client, 0)
    if begun is not None:
        kind, _ = begun
        if not sample.server:
            return 0.85
        if kind in (SSL, GSS):
            if sample.server[:1] in (b"S", b"N", b"G", b"E"):
                return 0.97
            after = startup_at(sample.client, 8)  # behind a refusal that was lost
            return 0.9 if after is not None and after[0] == STARTUP and server_message_at(sample.server, 0) else 0.2
        # A refusal of encryption may stand before: the question for it was before the recording.
        start = int(sample.server[:1] == b"N" and sample.server[1:2] in (b"R", b"E", b"v"))
        first = sample.server[start : start + 1]
        return 0.97 if first in (b"R", b"E", b"v", b"N") and server_message_at(sample.server, start) else 0.3
    asked = [d for d in (sample.client, *sample.client_runs) if len(d) >= 5]
    answered = [d for d in (sample.server, *sample.server_runs) if len(d) >= 5]
    commands = sum(chain_at(d, 0, True, client_message_at(d, 0)) for d in asked)
    replies = sum(chain_at(d, 0, False, server_message_at(d, 0)) for d in answered)
    if commands and replies:
        share = (commands / len(asked) + min(1.0, 2 * replies / len(answered))) / 2
        return 0.6 + 0.35 * share
    if replies and not asked:
        return 0.7 if replies == len(answered) else 0.5
    if commands and not answered:
        return 0.6 if commands == len(asked) else 0.5
    return 0.0
