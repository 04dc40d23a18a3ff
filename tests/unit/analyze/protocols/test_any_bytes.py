"""What holds for every decoder of the registry: any bytes, no exception; random bytes, no name."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubetape.analyze.protocols import registry
from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.engine import Decoded, Endpoints, decode_connection
from kubetape.analyze.requests import decode_all
from kubetape.analyze.streams import ConnectionStreams, Run, Stream
from kubetape.bundle.reader import Bundle
from kubetape.capture.pcap import import_pcap

ENDS = Endpoints("10.0.0.1", 40000, "10.0.0.2", 9999, True)


def stream(chunks: list[bytes], gap_bytes: int, datagrams: bool, offset_ns: int) -> Stream:
    """Chunks in a row; gap_bytes are missing between every two of them."""
    sizes = np.array([len(c) for c in chunks], np.int64)
    positions = np.cumsum(sizes + gap_bytes) - sizes - gap_bytes
    runs = [Run(int(p), c) for p, c in zip(positions, chunks, strict=True) if c]
    if not gap_bytes and not datagrams and runs:
        runs = [Run(0, b"".join(chunks))]
    times = np.arange(len(chunks), dtype=np.int64) * 1000 + offset_ns
    zeros = np.zeros(len(chunks), np.int32)
    return Stream(runs, positions, sizes, sizes, times, zeros, zeros)


def forced(protocol: Protocol, client: list[bytes], server: list[bytes], gap_bytes: int, from_start: bool) -> Decoded:
    """Decode as `protocol`, whatever the bytes look like."""
    datagrams = "tcp" not in protocol.transports
    streams = ConnectionStreams(
        1, "wire", datagrams, stream(client, gap_bytes, datagrams, 0), stream(server, gap_bytes, datagrams, 500)
    )
    only = {protocol.name: dataclasses.replace(protocol, detect=lambda sample: 1.0)}
    decoded = decode_connection(streams, ENDS, True, from_start, only, {})
    if protocol.resolve is not None:
        protocol.resolve([row for row in decoded.rows if row.protocol == protocol.name], {})
    return decoded


@pytest.mark.parametrize("name", registry())
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    client=st.lists(st.binary(max_size=200), max_size=4),
    server=st.lists(st.binary(max_size=200), max_size=4),
    gap_bytes=st.sampled_from([0, 0, 1, 50]),
    from_start=st.booleans(),
)
def test_no_bytes_raise(name: str, client: list[bytes], server: list[bytes], gap_bytes: int, from_start: bool) -> None:
    forced(registry()[name], client, server, gap_bytes, from_start)


def test_random_bytes_have_no_name() -> None:
    chance = random.Random(7)
    for _ in range(150):
        client, server = ([chance.randbytes(chance.randrange(1, 600)) for _ in range(3)] for _ in range(2))
        for datagrams in (False, True):
            streams = ConnectionStreams(
                1, "wire", datagrams, stream(client, 0, datagrams, 0), stream(server, 0, datagrams, 500)
            )
            ends = dataclasses.replace(ENDS, server_port=chance.choice(PORTS))
            decoded = decode_connection(streams, ends, True, False, registry(), {})
            assert decoded.protocol is None, (decoded.protocol, client, server)


SMTP = (
    [b"EHLO me.test\r\n", b"DATA\r\n", b"Subject: hi\r\n\r\nGET /this HTTP/1.1\r\n.\r\n", b"QUIT\r\n"],
    [b"220 mail.test ESMTP\r\n", b"250-mail.test\r\n250 PIPELINING\r\n", b"354 go on\r\n", b"221 Bye\r\n"],
)
IRC = (
    [b"NICK me\r\nUSER me 0 * :Me\r\n", b"PING :x\r\n", b"JOIN #c\r\n"],
    [b":irc.test 001 me :Welcome\r\n", b"PONG :x\r\n"],
)
LINES = ([b"hello there\n", b"set the table\n", b"get it\n"], [b"OK so far\n", b"one two three\n"])
NUMBERS = ([bytes([0, 0, 0, 1]) * 8, bytes(64)], [bytes([1, 0, 0, 0]) * 8, bytes(range(64))])
PORTS = sorted({port for protocol in registry().values() for port in protocol.ports})


@pytest.mark.parametrize("spoken", [SMTP, IRC, LINES, NUMBERS], ids=["smtp", "irc", "lines", "numbers"])
@pytest.mark.parametrize("from_start", [True, False])
def test_other_protocols_have_no_name_on_any_port(spoken: tuple[list[bytes], list[bytes]], from_start: bool) -> None:
    streams = ConnectionStreams(1, "wire", False, stream(spoken[0], 0, False, 0), stream(spoken[1], 0, False, 500))
    for port in PORTS:
        ends = Endpoints("10.0.0.1", 40000, "10.0.0.2", port, True)
        decoded = decode_connection(streams, ends, True, from_start, registry(), {})
        assert decoded.protocol is None, (decoded.protocol, port)


@pytest.mark.corpus
@pytest.mark.parametrize("seed", range(3))
def test_damaged_captures_raise_nothing(corpus: Path, tmp_path: Path, seed: int) -> None:
    """Real conversations with bytes changed, dropped and cut: decoded or not, never an exception."""
    chance = random.Random(seed)
    for folder in sorted(p for p in corpus.iterdir() if p.is_dir()):
        captures = sorted(p for p in folder.iterdir() if p.suffix in (".pcap", ".pcapng", ".cap"))
        for path in chance.sample(captures, min(2, len(captures))):
            import_pcap([str(path)], str(tmp_path / "x.ktape"))
            bundle = Bundle(tmp_path / "x.ktape")
            data = bundle.table("socket_data")
            payloads = [_damaged(p or b"", chance) for p in data.column("payload").to_pylist()]
            place = data.schema.get_field_index("payload")
            data = data.set_column(place, data.schema.field(place), pa.array(payloads, pa.large_binary()))
            decode_all(bundle.table("connection"), data)


def _damaged(payload: bytes, chance: random.Random) -> bytes:
    kind = chance.randrange(8)
    if kind == 0 and payload:
        place = chance.randrange(len(payload))
        return payload[:place] + bytes([chance.randrange(256)]) + payload[place + 1 :]
    if kind == 1:
        return payload[: chance.randrange(len(payload) + 1)]
    if kind == 2:
        return b""
    return payload
