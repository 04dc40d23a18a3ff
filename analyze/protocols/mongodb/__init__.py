"""The MongoDB wire protocol."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.mongodb.parse import detect
from kubetape.analyze.protocols.mongodb.stitch import MongoDecoder

PROTOCOL = Protocol(name="mongodb", detect=detect, decoder=MongoDecoder, ports=frozenset({27017, 27018, 27019}))
