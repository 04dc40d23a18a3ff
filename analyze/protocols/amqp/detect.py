"""Whether a connection speaks AMQP 0-9-1."""

from __future__ import annotations

from kubetape.analyze.protocols.amqp.parse import chains, find_frame, method_id, parse_frame
from kubetape.analyze.protocols.amqp.types import METHOD, METHODS
from kubetape.analyze.protocols.contract import Sample

PORTS = frozenset({5672, 5673})
HEARTBEAT_FRAME = b"\x08\0\0\0\0\0\0\xce"
MAX_FRAMES = 64  # of one place


def detect(sample: Sample) -> float:
    """The protocol header, or frames with end marks and known methods; who sends which methods tells the roles."""
    client = _senders([sample.client, *sample.client_runs])
    server = _senders([sample.server, *sample.server_runs])
    if client is None and server is None:
        return 0.0
    wrong = (client or "").count("s") + (server or "").count("c")
    right = (client or "").count("c") + (server or "").count("s")
    if wrong > right:
        return 0.4
    if sample.client.startswith(b"AMQP") and client is not None:
        return 0.97
    if client is None or server is None:
        # One direction alone; the other must not speak something else.
        spoken = sample.server if server is None else sample.client
        return 0.45 if len(spoken) >= 8 and not spoken.startswith((b"AMQP", HEARTBEAT_FRAME)) else 0.85
    return 0.97 if right else 0.9


def _senders(heads: list[bytes]) -> str | None:
    """Of the methods seen, who may send them; None: no frames."""
    senders = ""
    seen = False
    for head in heads:
        place = 0
        if head.startswith(b"AMQP") and isinstance(parse_frame(head, 0), tuple):
            senders, seen = senders + "c", True
        elif not chains(head, 0):
            place = find_frame(head, 0)
        for _ in range(MAX_FRAMES):
            if not 0 <= place < len(head):
                break
            parsed = parse_frame(head, place)
            if not isinstance(parsed, tuple):
                break
            seen = True
            frame = parsed[1]
            if frame.kind == METHOD and (method := METHODS.get(method_id(head, frame.start))) is not None:
                senders += method.sender
            place += parsed[0]
    return senders if seen else None
