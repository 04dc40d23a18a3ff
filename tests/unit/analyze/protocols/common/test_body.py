"""Content codings."""

from __future__ import annotations

import gzip
import zlib

import pyarrow as pa
import pytest

from kubetape.analyze.protocols.common.body import MAX_DECODED_BYTES, decode_body

TEXT = b"it is what it is, " * 50
RAW = zlib.compressobj(wbits=-15)
CODED = {
    "": TEXT,
    "gzip": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
    "zstd": pa.compress(TEXT, "zstd", asbytes=True),
    "br": pa.compress(TEXT, "brotli", asbytes=True),
}


@pytest.mark.parametrize("coding", CODED)
def test_whole_cut_and_broken(coding: str) -> None:
    assert decode_body(CODED[coding], coding) == TEXT
    part = decode_body(CODED[coding][:-2], coding)
    assert part is None or TEXT.startswith(part)
    assert decode_body(b"no such thing" if coding else b"", coding) in (None, b"")


def test_deflate_without_its_header() -> None:
    assert decode_body(RAW.compress(TEXT) + RAW.flush(), "deflate") == TEXT


@pytest.mark.parametrize("coding", ["gzip", "zstd", "br"])
def test_a_bomb_stays_small(coding: str) -> None:
    zeros = bytes(1 << 24)
    codec = {"zstd": "zstd", "br": "brotli"}.get(coding)
    bomb = gzip.compress(zeros) if codec is None else pa.compress(zeros, codec, asbytes=True)
    assert len(decode_body(bomb, coding) or b"") <= MAX_DECODED_BYTES


def test_unknown_coding() -> None:
    assert decode_body(b"x", "compress") is None
