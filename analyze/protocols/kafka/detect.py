"""Whether a connection speaks Kafka."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Sample
from kubetape.analyze.protocols.kafka.parse import (
    find_request,
    find_response,
    is_request,
    parse_request,
    parse_response,
)
from kubetape.analyze.protocols.kafka.types import RequestFrame

PORTS = frozenset({9092, 9093, 9094, 19092, 29092})
MAX_FRAMES = 64  # of one place, looked at for correlation ids


def detect(sample: Sample) -> float:
    """Requests that fit the layout of a known API, and responses with their correlation ids."""
    asked: set[int] = set()
    named = False
    for head in (sample.client, *sample.client_runs):
        frames = _requests(head, sample.from_start and head is sample.client)
        asked.update(frame.correlation_id for frame in frames)
        named = named or any(frame.client_id for frame in frames)
    if not asked:
        return 0.0
    if not sample.server:
        # Clients name themselves; a producer that wants no acknowledgement gets no answer either.
        return 0.75 if named else 0.55
    heads = (sample.server, *sample.server_runs)
    if any(_answers(head, asked) for head in heads):
        return 0.97 if named else 0.93
    return 0.3


def _requests(head: bytes, at_start: bool) -> list[RequestFrame]:
    place = 0
    if not is_request(head, 0, may_be_cut=at_start):
        place = -1 if at_start else find_request(head, 0, may_be_cut=False)
    frames: list[RequestFrame] = []
    while 0 <= place < len(head) and len(frames) < MAX_FRAMES:
        parsed = parse_request(head, place)
        if not isinstance(parsed, tuple) or not is_request(head, place):
            break
        frames.append(parsed[1])
        place += parsed[0]
    return frames


def _answers(head: bytes, asked: set[int]) -> bool:
    """Whether one of the first frames, one after the other, answers a known correlation id."""
    place = 0
    for _ in range(MAX_FRAMES):
        parsed = parse_response(head, place)
        if not isinstance(parsed, tuple):
            break
        if parsed[1].correlation_id in asked:
            return True
        place += parsed[0]
    return find_response(head, 0, asked.__contains__) >= 0
