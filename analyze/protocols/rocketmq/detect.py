"""Whether a connection speaks RocketMQ's remoting protocol."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Sample
from kubetape.analyze.protocols.rocketmq.parse import find_command, is_command, parse_command
from kubetape.analyze.protocols.rocketmq.types import RESPONSE_FLAG, Command

PORTS = frozenset({9876, 10909, 10911})


def detect(sample: Sample) -> float:
    """Commands with whole headers on both sides; requests are the client's, at least the first."""
    client = _first([sample.client, *sample.client_runs], sample.from_start)
    server = _first([sample.server, *sample.server_runs], sample.from_start)
    if client is None and server is None:
        return 0.0
    if client is not None and server is not None:
        asks = not client.flag & RESPONSE_FLAG or bool(server.flag & RESPONSE_FLAG)
        return 0.97 if asks else 0.9
    alone = client or server
    assert alone is not None
    if (sample.client and client is None) or (sample.server and server is None):
        return 0.4
    right = bool(alone.flag & RESPONSE_FLAG) == (alone is server)
    return 0.85 if right else 0.7


def _first(heads: list[bytes], from_start: bool) -> Command | None:
    for number, head in enumerate(heads):
        place = 0 if is_command(head, 0) else -1 if from_start and number == 0 else find_command(head, 0)
        if place >= 0:
            parsed = parse_command(head, place)
            if isinstance(parsed, tuple):
                command: Command = parsed[1]
                return command
    return None
