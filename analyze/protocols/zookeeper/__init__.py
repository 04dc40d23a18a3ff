"""ZooKeeper's client protocol, and its four-letter words."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.zookeeper.parse import detect
from kubetape.analyze.protocols.zookeeper.stitch import ZooKeeperDecoder

PROTOCOL = Protocol(name="zookeeper", detect=detect, decoder=ZooKeeperDecoder, ports=frozenset({2181}))
