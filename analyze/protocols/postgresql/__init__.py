"""PostgreSQL: one row per simple query, per Execute, and per connection request."""

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.postgresql.detect import detect
from kubetape.analyze.protocols.postgresql.prepared import resolve
from kubetape.analyze.protocols.postgresql.stitch import PostgresqlDecoder

PROTOCOL = Protocol(
    name="postgresql",
    detect=detect,
    decoder=PostgresqlDecoder,
    ports=frozenset({5432, 5433, 6432, 26257}),
    resolve=resolve,
)
