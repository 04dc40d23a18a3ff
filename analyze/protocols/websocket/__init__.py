"""WebSocket (RFC 6455): one row per message, after the upgrade, whose row is http1."""

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.websocket.parse import detect
from kubetape.analyze.protocols.websocket.stitch import WebSocketDecoder

PROTOCOL = Protocol(name="websocket", detect=detect, decoder=WebSocketDecoder)
