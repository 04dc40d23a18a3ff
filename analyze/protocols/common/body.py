"""Bodies with a content coding (RFC 9110, section 8.4.1), decoded only where a column needs them, within limits."""

from __future__ import annotations

import zlib

MAX_DECODED_BYTES = 1 << 16  # a message is read from it, not the document; stops decompression bombs


def decode_body(body: bytes, coding: str) -> bytes | None:
    """The beginning of a body without its coding, of a cut body what can be had; None: cannot be decoded.

    coding: the value of Content-Encoding; of several codings only one that is alone can be undone here.
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return body[:MAX_DECODED_BYTES]
    if name in ("gzip", "x-gzip", "deflate"):
        # RFC 9110 means the zlib format by "deflate"; some servers send the bare stream.
        modes = (31,) if "gzip" in name else (15, -15)
        for bits in modes:
            try:
                return zlib.decompressobj(bits).decompress(body, MAX_DECODED_BYTES)
            except zlib.error:
                continue
        return None
    if name in ("br", "zstd"):
        return _stream(body, "brotli" if name == "br" else "zstd")
    return None


def _stream(body: bytes, codec: str) -> bytes | None:
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.BufferReader(body), codec) as stream:
            return bytes(stream.read(MAX_DECODED_BYTES))
    except (pa.ArrowException, OSError, ValueError):
        return None
