"""Pulsar's binary protocol."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.pulsar.detect import PORTS, detect
from kubetape.analyze.protocols.pulsar.stitch import PulsarDecoder

PROTOCOL = Protocol(name="pulsar", detect=detect, decoder=PulsarDecoder, ports=PORTS)
