"""MQTT 3.1, 3.1.1 and 5.0."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.mqtt.detect import PORTS, detect
from kubetape.analyze.protocols.mqtt.stitch import MqttDecoder

PROTOCOL = Protocol(name="mqtt", detect=detect, decoder=MqttDecoder, ports=PORTS)
