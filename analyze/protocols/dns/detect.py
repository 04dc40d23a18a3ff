"""Whether a connection speaks DNS."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Sample
from kubetape.analyze.protocols.dns.parse import HEADER_BYTES, find_segment, is_netbios, is_plausible, parse_message
from kubetape.analyze.protocols.dns.types import OPCODES, Message

PORTS = frozenset({53, 5353, 5355})


def detect(sample: Sample) -> float:
    """Messages in which every number is known and every byte used; the one who asks is the client."""
    if sample.datagrams:
        client = _datagrams([sample.client, *sample.client_runs])
        server = _datagrams([sample.server, *sample.server_runs])
    else:
        client = _segments([sample.client, *sample.client_runs], sample.from_start)
        server = _segments([sample.server, *sample.server_runs], sample.from_start)
    if not client and not server:
        return _by_port(sample)
    if client and server:
        asked = {m.id for m in client if not m.is_response}
        answered = {m.id for m in server if m.is_response}
        if asked & answered:
            return 0.97
        if asked and answered:
            return 0.9
        return 0.85 if not client[0].is_response else 0.6
    if client:
        other = sample.server
        score = 0.55 if client[0].is_response else 0.8
    else:
        other = sample.client
        score = 0.8 if server[0].is_response else 0.55
    # The other direction speaks too, and not DNS.
    return score if not other else score - 0.25


def _datagrams(heads: list[bytes]) -> list[Message]:
    messages = []
    for head in heads:
        message = parse_message(head, 0, len(head), len(head)) if head else None
        if message is not None and is_plausible(message, True):
            messages.append(message)
    return messages


def _segments(heads: list[bytes], from_start: bool) -> list[Message]:
    messages = []
    for head in heads:
        start = 0 if from_start else find_segment(head, 0)
        end = start + 2 + int.from_bytes(head[start : start + 2], "big")
        # In the middle of some stream only whole messages tell; at its beginning the question does.
        if start < 0 or end < start + 2 + HEADER_BYTES or (end > len(head) and not from_start):
            continue
        message = parse_message(head, start + 2, end, min(end, len(head)))
        if message is not None and is_plausible(message, end <= len(head)):
            messages.append(message)
    return messages


def _by_port(sample: Sample) -> float:
    """Damaged messages, told by a port of DNS and a header that fits."""
    if not sample.datagrams or sample.server_port not in PORTS:
        return 0.0
    for head, response in ((sample.client, False), (sample.server, True)):
        message = parse_message(head, 0, len(head), len(head)) if head else None
        if message is None or message.is_response != response:
            continue
        if not any(message.counts) and len(head) > HEADER_BYTES:
            continue
        netbios = any(is_netbios(q) for q in message.questions)
        # Resolvers ask one thing at once; so damage below the header is still told from other datagrams.
        if message.opcode in OPCODES and not netbios and message.counts[0] <= 1 and max(message.counts[1:]) < 64:
            return 0.5
    return 0.0
