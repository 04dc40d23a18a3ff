"""Kafka: the binary protocol of brokers and clients, all APIs by name."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.kafka.detect import PORTS, detect
from kubetape.analyze.protocols.kafka.stitch import KafkaDecoder, resolve

PROTOCOL = Protocol(name="kafka", detect=detect, decoder=KafkaDecoder, ports=PORTS, resolve=resolve)
