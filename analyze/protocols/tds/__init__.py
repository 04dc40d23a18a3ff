"""Tabular Data Stream: SQL Server, Sybase ASE."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.tds.parse import PORTS, detect
from kubetape.analyze.protocols.tds.stitch import TdsDecoder

PROTOCOL = Protocol(name="tds", detect=detect, decoder=TdsDecoder, ports=PORTS)
