"""AMQP 0-9-1, as RabbitMQ and its clients speak it."""

from __future__ import annotations

from kubetape.analyze.protocols.amqp.detect import PORTS, detect
from kubetape.analyze.protocols.amqp.stitch import AmqpDecoder
from kubetape.analyze.protocols.contract import Protocol

PROTOCOL = Protocol(name="amqp", detect=detect, decoder=AmqpDecoder, ports=PORTS)
