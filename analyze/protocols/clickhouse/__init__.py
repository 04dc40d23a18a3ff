"""ClickHouse's native protocol (TCP port 9000)."""

from __future__ import annotations

from kubetape.analyze.protocols.clickhouse.parse import PORTS, detect
from kubetape.analyze.protocols.clickhouse.stitch import ClickHouseDecoder
from kubetape.analyze.protocols.contract import Protocol

PROTOCOL = Protocol(name="clickhouse", detect=detect, decoder=ClickHouseDecoder, ports=PORTS)
