"""RocketMQ's remoting protocol."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.rocketmq.detect import PORTS, detect
from kubetape.analyze.protocols.rocketmq.stitch import RocketmqDecoder

PROTOCOL = Protocol(name="rocketmq", detect=detect, decoder=RocketmqDecoder, ports=PORTS)
