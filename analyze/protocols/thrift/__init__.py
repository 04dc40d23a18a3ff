"""Apache Thrift: binary and compact encodings; bare, framed and header transports."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.thrift.parse import detect
from kubetape.analyze.protocols.thrift.stitch import ThriftDecoder

PROTOCOL = Protocol(name="thrift", detect=detect, decoder=ThriftDecoder, ports=frozenset({9090, 9160}))
