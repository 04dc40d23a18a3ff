"""Oracle's Transparent Network Substrate, as far as it can be read without its specification."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.tns.parse import PORTS, detect
from kubetape.analyze.protocols.tns.stitch import TnsDecoder

PROTOCOL = Protocol(name="tns", detect=detect, decoder=TnsDecoder, ports=PORTS)
