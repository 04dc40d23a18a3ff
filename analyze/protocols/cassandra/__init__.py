"""The CQL native protocol of Cassandra and ScyllaDB, versions 1 to 5."""

from __future__ import annotations

from kubetape.analyze.protocols.cassandra.parse import detect
from kubetape.analyze.protocols.cassandra.stitch import CassandraDecoder, resolve
from kubetape.analyze.protocols.contract import Protocol

PROTOCOL = Protocol(
    name="cassandra",
    detect=detect,
    decoder=CassandraDecoder,
    ports=frozenset({9042, 9142}),
    resolve=resolve,
)
