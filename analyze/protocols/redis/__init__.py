"""Redis and its relatives (Valkey, KeyDB, Dragonfly): one row per command, and per pushed message."""

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.redis.detect import detect
from kubetape.analyze.protocols.redis.stitch import RedisDecoder

PROTOCOL = Protocol(
    name="redis",
    detect=detect,
    decoder=RedisDecoder,
    ports=frozenset({6379, 6380, 26379, 16379}),
)
