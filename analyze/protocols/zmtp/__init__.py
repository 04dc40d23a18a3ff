"""ZeroMQ's wire protocol, ZMTP 3."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.zmtp.parse import PORTS, detect
from kubetape.analyze.protocols.zmtp.stitch import ZmtpDecoder

PROTOCOL = Protocol(name="zmtp", detect=detect, decoder=ZmtpDecoder, ports=PORTS)
