"""NATS: the client protocol, with headers."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.nats.detect import PORTS, detect
from kubetape.analyze.protocols.nats.stitch import NatsDecoder

PROTOCOL = Protocol(name="nats", detect=detect, decoder=NatsDecoder, ports=PORTS)
