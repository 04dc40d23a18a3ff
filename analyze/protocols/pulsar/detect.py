"""Whether a connection speaks Pulsar."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Sample
from kubetape.analyze.protocols.pulsar import types as t
from kubetape.analyze.protocols.pulsar.parse import find_frame, is_frame, parse_frame

PORTS = frozenset({6650})
MAX_FRAMES = 32  # of one place
_SERVERS = frozenset(k for k, kind in t.KINDS.items() if kind.answers and k not in (t.PONG, t.AUTH_RESPONSE)) | {
    t.MESSAGE
}
_CLIENTS = frozenset({t.CONNECT, t.SUBSCRIBE, t.PRODUCER, t.SEND, t.ACK, t.FLOW, 21, 23})


def detect(sample: Sample) -> float:
    """Frames whose two sizes, command type and command field agree, on both sides."""
    client = _kinds([sample.client, *sample.client_runs], sample.from_start)
    server = _kinds([sample.server, *sample.server_runs], sample.from_start)
    if not client and not server:
        return 0.0
    if client & _SERVERS or server & _CLIENTS:
        return 0.3
    if client and server:
        return 0.97
    if (sample.client and not client) or (sample.server and not server):
        return 0.4
    return 0.85


def _kinds(heads: list[bytes], from_start: bool) -> set[int]:
    kinds: set[int] = set()
    for number, head in enumerate(heads):
        place = 0 if is_frame(head, 0) else -1 if from_start and number == 0 else find_frame(head, 0)
        for _ in range(MAX_FRAMES):
            if not 0 <= place < len(head):
                break
            parsed = parse_frame(head, place)
            if not isinstance(parsed, tuple):
                break
            kinds.add(parsed[1].kind)
            place += parsed[0]
    return kinds
