"""OpenWire, the protocol of ActiveMQ's own clients."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.openwire.parse import PORTS, detect
from kubetape.analyze.protocols.openwire.stitch import OpenwireDecoder

PROTOCOL = Protocol(name="openwire", detect=detect, decoder=OpenwireDecoder, ports=PORTS)
