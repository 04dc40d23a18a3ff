"""Requests and responses of a dialogue many at once: see analyze/protocols/turns.py.

Strategy: a request is its line and the rest, a response its head and a body of declared length. Equal rests and equal
heads are read once, by the code for single ones; what differs from turn to turn is the target, whose route is found
once for all targets that differ in digits only. Anything but bodies of declared length ends the stretch, as do
failed responses, whose message stands in their body, and upgrades.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from kubetape.analyze.normalise.route import route_template
from kubetape.analyze.protocols.common.http import describe_error, http_row
from kubetape.analyze.protocols.common.text import MAX_STATEMENT_CHARS
from kubetape.analyze.protocols.http1.parse import METHODS, SAMPLE_BYTES, frame_body, read_head
from kubetape.analyze.protocols.http1.types import LENGTH, NO_BODY, Head
from kubetape.analyze.protocols.turns import (
    Int64Array,
    Octets,
    Plain,
    Turns,
    any_in,
    bytes_column,
    combine,
    distinct,
    is_text,
    octets_of,
    prefix_length,
)

_METHODS = METHODS - {b"CONNECT"}
MAX_DISTINCT_SHARE = 0.5  # of heads in a stretch: where more are different, reading them once is no gain
MIN_HEADS = 64  # as many may always be different
_DIGIT = re.compile(r"\d")


def read_turns(turns: Turns) -> Plain | None:
    import pyarrow as pa

    requests = _Requests(turns)
    count = len(requests.code)
    if not count:
        return None
    answered = _Responses(turns, count)
    count = len(answered.code)
    code, head_code = requests.code[:count], answered.code
    pairs, pair_code = combine([code, head_code])
    fits = np.zeros(len(pairs), bool)
    size = answered.sizes
    for number, index in enumerate(pairs.tolist()):
        asked, answer = requests.heads[code[index]], answered.heads[head_code[index]]
        assert asked is not None
        fits[number] = answer is not None and _has_length(answer, asked.method)
    lengths = np.array([head.length if head is not None else 0 for head in answered.heads], np.int64)
    methods = np.array([head is not None and head.method == "HEAD" for head in requests.heads], bool)
    body = np.where(methods[code], 0, lengths[head_code])
    count = prefix_length(fits[pair_code] & (size[:count] == body))
    if not count:
        return None
    code, head_code = code[:count], head_code[:count]
    routes, route_code = requests.routes(count)
    first, template = combine([code, head_code, route_code])
    if len(first) > MIN_HEADS and len(first) > count * MAX_DISTINCT_SHARE:
        return None
    templates = []
    for index in first.tolist():
        asked, answer = requests.heads[code[index]], answered.heads[head_code[index]]
        assert asked is not None
        assert answer is not None
        row = http_row(asked.method, None, str(answer.status), asked.headers, answer.headers)
        row.resource = routes[route_code[index]]
        if row.is_error:
            row.error_message = describe_error(answer.reason, answer.headers, answer.sample)
        templates.append(row)
    return Plain(templates, template, {"statement": requests.targets.slice(0, count).cast(pa.string())})


def _has_length(answer: Head, method: str | None) -> bool:
    """Whether the response to this method is its head and as many bytes as it says."""
    plain = Head(None, None, answer.status, answer.reason)
    plain.headers = answer.headers
    frame_body(plain, method)
    answer.length = plain.length if plain.body == LENGTH else answer.length
    return plain.body in (LENGTH, NO_BODY)


class _Requests:
    """The first turns that ask `METHOD target HTTP/1.x` and a whole body.

    code: for each the index of its head in `heads`, whose targets are not theirs; targets: an Arrow column.
    """

    def __init__(self, turns: Turns) -> None:
        self.code: Int64Array = np.zeros(0, np.int64)
        starts, ends = turns.asks[:-1], turns.asks[1:]
        octets = turns.client_octets[starts[0] : ends[-1]]
        line_ends = _first_of(np.flatnonzero(octets == 10) + starts[0], starts, ends)
        count = prefix_length(line_ends > starts + 14)
        blanks = np.flatnonzero(octets == 32) + starts[0]
        # The target lies between the first blank and the last of the line.
        low = np.searchsorted(blanks, starts[:count])
        high = np.searchsorted(blanks, line_ends[:count])
        count = prefix_length(high - low == 2)
        if not count:
            return
        starts, ends, line_ends, low = starts[:count], ends[:count], line_ends[:count], low[:count]
        begin, stop = blanks[low] + 1, blanks[low + 1]
        self.targets = bytes_column(turns.client, begin, stop)
        self.octets, self.bounds = octets_of(self.targets)
        good = ~any_in(~is_text(self.octets), self.bounds)
        good &= (stop - begin <= MAX_STATEMENT_CHARS) & (stop > begin) & (self.octets[self.bounds[:-1]] == 47)
        # Everything but the target: the same bytes say the same.
        methods, method_code = distinct(bytes_column(turns.client, starts, begin))
        rests, rest_code = distinct(bytes_column(turns.client, stop, ends))
        pairs, code = combine([method_code, rest_code])
        if len(pairs) > MIN_HEADS and len(pairs) > count * MAX_DISTINCT_SHARE:
            return
        self.heads: list[Head | None] = [
            _request(methods[method_code[index]], rests[rest_code[index]]) for index in pairs.tolist()
        ]
        read = np.array([head is not None for head in self.heads], bool)
        self.code = code[: prefix_length(good & read[code])]

    def routes(self, count: int) -> tuple[list[str], Int64Array]:
        """Distinct routes, and for each of the first turns its own."""
        bounds = self.bounds[: count + 1]
        octets = self.octets[: bounds[-1]]
        alike, which = distinct(_alike(octets, bounds))
        known: dict[str, int] = {}
        names = [route_template(target.decode("ascii")) for target in alike]
        codes = np.array([known.setdefault(name, len(known)) for name in names], np.int64)
        result = codes[which]
        # Digits that stay in a route are the target's own (`/v2`): such targets are looked at one by one.
        own = np.array([_DIGIT.search(name) is not None for name in names], bool)
        mine = np.flatnonzero(own[which])
        if len(mine):
            import pyarrow as pa

            targets, target_code = distinct(self.targets.take(pa.array(mine)))
            single = [known.setdefault(route_template(t.decode("ascii")), len(known)) for t in targets]
            result[mine] = np.array(single, np.int64)[target_code]
        return list(known), result


def _request(start: bytes, rest: bytes) -> Head | None:
    """The head of a request without its target; None where it is not whole, or more than a head and its body."""
    if start[:-1] not in _METHODS or rest[:11] not in (b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"):
        return None
    data = start + b"/" + rest
    found = read_head(data, 0, True, True)
    if found is None:
        return None
    head, place = found
    frame_body(head, None)
    if head.cut or head.body not in (LENGTH, NO_BODY) or "expect" in head.headers or "upgrade" in head.headers:
        return None
    return head if place + head.length == len(data) else None


class _Responses:
    """Responses of the first turns. code: index of the head in `heads`; sizes: bytes behind the head.

    Of failed ones the beginning of the body, where the message stands, counts as a part of the head.
    """

    def __init__(self, turns: Turns, count: int) -> None:
        find, data = turns.server.find, turns.server
        starts, ends = turns.answers[:count].tolist(), turns.answers[1 : count + 1].tolist()
        behind = np.array(
            [find(b"\r\n\r\n", start, end) + 4 for start, end in zip(starts, ends, strict=True)], np.int64
        )
        count = prefix_length(behind >= 4)
        behind = behind[:count]
        begins, ends_ = turns.answers[:count], turns.answers[1 : count + 1]
        status = turns.server_octets[np.minimum(begins + 9, behind - 1)]
        failed = (status == 52) | (status == 53)  # 4xx and 5xx, where the version has its usual form
        upto = np.where(failed, np.minimum(ends_, behind + SAMPLE_BYTES), behind)
        texts, code = distinct(bytes_column(data, begins, upto))
        if len(texts) > MIN_HEADS and len(texts) > count * MAX_DISTINCT_SHARE:
            texts, code = [], code[:0]
        self.heads: list[Head | None] = [_response(text) for text in texts]
        self.code: Int64Array = code
        self.sizes = ends_ - behind


def _response(data: bytes) -> Head | None:
    """The head of a final response, behind it the sample of its body if it failed; None where it is none."""
    found = read_head(data, 0, False, True)
    if found is None or data[:1] != b"H":
        return None
    head, place = found
    if head.cut or not 200 <= head.status < 600 or (place != len(data) and head.status < 400):
        return None
    if head.status >= 400 and data[9:10] not in (b"4", b"5"):
        return None  # blanks before the status
    head.sample = data[place:]
    return head


def _first_of(places: Int64Array, starts: Int64Array, ends: Int64Array) -> Int64Array:
    """The first of `places` in each range; -1: none is."""
    if not len(places):
        return np.full(len(starts), -1, np.int64)
    index = np.searchsorted(places, starts)
    found = places[np.minimum(index, len(places) - 1)]
    return np.where((index < len(places)) & (found < ends), found, -1)


def _alike(octets: Octets, bounds: Int64Array) -> Any:
    """Targets with digits made equal, as far as `route_template` does not look at their values.

    It does for dates of eight digits, for the first digit of a ULID (0 to 7) and for `0x`.
    """
    import pyarrow as pa

    digit = np.zeros(len(octets) + 2, bool)
    digit[1:-1] = (octets - np.uint8(48)) < np.uint8(10)
    change = np.flatnonzero(digit[1:] != digit[:-1])
    first, stop = change[0::2], change[1::2]
    text = np.where(digit[1:-1], np.where(octets >= 56, np.uint8(57), np.uint8(49)), octets)
    for begin in first[(stop - first == 8)].tolist():
        text[begin : begin + 8] = octets[begin : begin + 8]
    prefix = np.flatnonzero((octets[:-1] == 48) & (octets[1:] == 120))
    text[prefix] = 48
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(np.ascontiguousarray(bounds)), pa.py_buffer(text)]
    )
