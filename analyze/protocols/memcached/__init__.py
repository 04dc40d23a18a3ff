"""memcached: text, meta and binary commands, over TCP and UDP: one row per command."""

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.memcached.detect import detect
from kubetape.analyze.protocols.memcached.stitch import MemcachedDecoder

PROTOCOL = Protocol(
    name="memcached",
    detect=detect,
    decoder=MemcachedDecoder,
    ports=frozenset({11211}),
    transports=frozenset({"tcp", "udp"}),
)
