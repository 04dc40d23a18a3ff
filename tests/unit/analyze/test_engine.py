"""The loop of all protocols, with a protocol small enough to see through: one length byte, that many letters."""

from __future__ import annotations

import numpy as np

from kubetape.analyze.protocols.contract import CUT, INVALID, SERVER, Decoder, Parsed, Protocol, Request, Sample, Side
from kubetape.analyze.protocols.engine import Decoded, Endpoints, decode_connection
from kubetape.analyze.streams import ConnectionStreams, Run, Span, Stream


class Letters(Decoder):
    """Key: order. Frames: a length byte, then letters; '!' as a letter switches to the protocol 'other'."""

    def __init__(self, connection: object, sink: list[Request]) -> None:
        super().__init__(connection, sink)  # type: ignore[arg-type]
        self.open: list[tuple[str, Span]] = []
        self.gaps: list[tuple[int, int]] = []

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        size = data[offset]
        if not 1 <= size <= 20:
            return INVALID
        if offset + 1 >= len(data):
            return CUT
        text = data[offset + 1 : offset + 1 + size]
        return (1 + size, text.decode()) if (text.isascii() and text.isalpha()) or text == b"!" else INVALID

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        for place in range(offset, len(data)):
            if isinstance(self.parse(side, data, place), tuple):
                return place
        return -1

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        self.gaps.append((position, size_bytes))

    def on_frame(self, side: Side, frame: str, span: Span) -> None:
        if frame == "!":
            self.switch("other")
        elif side == SERVER:
            text, request = self.open.pop(0) if self.open else (None, None)
            self.emit(Request(operation=text, status=frame), request, span)
        else:
            self.open.append((frame, span))

    def finish(self) -> None:
        for text, span in self.open:
            self.emit(Request(operation=text), span, None)


LETTERS = Protocol("letters", lambda s: 0.9 if s.client[1:2].isalpha() else 0.0, Letters)
OTHER = Protocol("other", lambda s: 0.0, Letters)
REGISTRY = {"letters": LETTERS, "other": OTHER}


def stream(*chunks: tuple[int, int, bytes]) -> Stream:
    """A stream from (position, ns, bytes); None bytes at a position are gaps."""
    runs: list[Run] = []
    for position, _, data in chunks:
        if runs and runs[-1].end == position:
            runs[-1].data += data
        else:
            runs.append(Run(position, data))
    sizes = np.array([len(d) for _, _, d in chunks], np.int64)
    zeros = np.zeros(len(chunks), np.int32)
    times = np.array([t for _, t, _ in chunks], np.int64)
    return Stream(runs, np.array([p for p, _, _ in chunks], np.int64), sizes, sizes, times, zeros, zeros)


def decode(client: Stream, server: Stream, from_start: bool = True) -> Decoded:
    streams = ConnectionStreams(7, "wire", False, client, server)
    ends = Endpoints("1.1.1.1", 1000, "2.2.2.2", 80, True)
    return decode_connection(streams, ends, True, from_start, REGISTRY, {})


def brief(decoded: Decoded) -> list[tuple[str | None, str | None]]:
    return [(r.operation, r.status) for r in decoded.rows]


def test_requests_and_responses_in_order_of_time() -> None:
    decoded = decode(stream((0, 10, b"\x01a"), (2, 30, b"\x01b")), stream((0, 20, b"\x01x"), (2, 40, b"\x01y")))
    assert brief(decoded) == [("a", "x"), ("b", "y")]
    row = decoded.rows[0]
    assert row.request
    assert row.response
    assert (row.request.first_ns, row.response.last_ns, row.response.size) == (10, 20, 2)


def test_a_frame_over_several_chunks_ends_with_its_last_byte() -> None:
    decoded = decode(stream((0, 10, b"\x03a"), (2, 15, b"bc")), stream((0, 20, b"\x01x")))
    row = decoded.rows[0]
    assert row.operation == "abc"
    assert row.request
    assert (row.request.first_ns, row.request.last_ns) == (10, 15)


def test_a_declared_length_carries_over_a_gap() -> None:
    # Four of six letters are missing; the frame keeps the stream in step.
    decoded = decode(stream((0, 10, b"\x06ab"), (7, 30, b"\x01b")), stream((0, 20, b"\x01x"), (2, 40, b"\x01y")))
    assert brief(decoded) == [("ab", "x"), ("b", "y")]
    row = decoded.rows[0]
    assert row.request
    assert row.request.lost_bytes == 4


def test_after_a_gap_in_unknown_territory_the_next_boundary_is_sought() -> None:
    decoded = decode(stream((0, 10, b"\x01a"), (50, 30, b"zz\x02bc")), stream((0, 20, b"\x01x"), (2, 40, b"\x01y")))
    assert brief(decoded) == [("a", "x"), ("bc", "y")]
    assert decoded.unread_bytes == 2


def test_garbage_between_frames_is_counted_not_decoded() -> None:
    decoded = decode(stream((0, 10, b"\x01a\xff\xff\x01b")), stream((0, 20, b"\x01x"), (2, 40, b"\x01y")))
    assert brief(decoded) == [("a", "x"), ("b", "y")]
    assert decoded.unread_bytes == 2


def test_a_start_in_the_middle_of_a_frame() -> None:
    decoded = decode(stream((0, 10, b"qq\x01a")), stream((0, 20, b"\x01x")), from_start=False)
    assert decoded.protocol is None or brief(decoded) == [("a", "x")]


def test_no_bytes_of_one_direction() -> None:
    decoded = decode(stream((0, 10, b"\x01a")), stream())
    assert brief(decoded) == [("a", None)]


def test_unknown_bytes_belong_to_no_protocol() -> None:
    decoded = decode(stream((0, 10, b"\x00\x00\x00")), stream((0, 20, b"\x00")))
    assert decoded.protocol is None
    assert decoded.unread_bytes == 4


def test_a_switch_hands_the_rest_to_the_other_protocol() -> None:
    decoded = decode(stream((0, 10, b"\x01a\x01!\x01b")), stream((0, 20, b"\x01x"), (2, 40, b"\x01y")))
    assert decoded.protocols == ["letters", "other"]
    assert [(r.protocol, r.operation, r.status) for r in decoded.rows][:2] == [
        ("letters", "a", None),
        ("other", "b", "x"),
    ]


def test_detection_is_told_when_it_sees_the_roles_swapped() -> None:
    seen: list[bytes] = []

    def detect(sample: Sample) -> float:
        seen.append(sample.client)
        return 0.9 if sample.client == b"\x01a" else 0.0

    streams = ConnectionStreams(7, "wire", False, stream((0, 20, b"\x01x")), stream((0, 10, b"\x01a")))
    ends = Endpoints("1.1.1.1", 80, "2.2.2.2", 1000, False)
    registry = {"letters": Protocol("letters", detect, Letters)}
    decoded = decode_connection(streams, ends, True, True, registry, {})
    assert decoded.swapped
    assert brief(decoded) == [("a", "x")]
    assert sorted(seen) == [b"\x01a", b"\x01x"]


def test_behind_a_boundary_the_other_direction_may_come_first() -> None:
    # The server's rest of an old message was seen before the request, its frame behind it after the request.
    server = stream((0, 10, b"\x00\x00"), (2, 30, b"\x01x"))
    assert brief(decode(stream((0, 20, b"\x01a")), server, from_start=False)) == [("a", "x")]
