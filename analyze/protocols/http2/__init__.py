"""HTTP/2 (RFC 9113) without encryption, and gRPC in it: one row per stream."""

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.http2.parse import detect
from kubetape.analyze.protocols.http2.stitch import Http2Decoder, resolve

PROTOCOL = Protocol(
    name="http2",
    detect=detect,
    decoder=Http2Decoder,
    ports=frozenset({50051, 50052, 2379, 2380, 20880, 8082}),
    resolve=resolve,
)
