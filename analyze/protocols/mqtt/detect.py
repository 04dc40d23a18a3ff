"""Whether a connection speaks MQTT."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Sample
from kubetape.analyze.protocols.mqtt import types as t
from kubetape.analyze.protocols.mqtt.parse import is_connect, parse_packet
from kubetape.analyze.protocols.mqtt.types import Packet

PORTS = frozenset({1883, 8883})
MAX_PACKETS = 64  # of one place
_CLIENTS = frozenset({t.CONNECT, t.SUBSCRIBE, t.UNSUBSCRIBE, t.PINGREQ})
_SERVERS = frozenset({t.CONNACK, t.SUBACK, t.UNSUBACK, t.PINGRESP})


def detect(sample: Sample) -> float:
    """A CONNECT, or chains of packets on both sides of which one asks and the other answers."""
    if is_connect(sample.client):
        return 0.97
    client = _packets(sample.client, sample.client_runs)
    server = _packets(sample.server, sample.server_runs)
    if client is None or server is None or not client + server:
        return 0.0
    asked, answered = {p.kind for p in client}, {p.kind for p in server}
    if asked & _SERVERS or answered & _CLIENTS:
        return 0.0
    at_home = sample.server_port in PORTS and not sample.from_start
    if any(t.ANSWERS.get(a) in asked for a in answered) or any(t.ANSWERS.get(a) in answered for a in asked):
        # PINGREQ and PINGRESP alone are four bytes: any program could have sent them.
        telling = sum(p.end - p.start for p in client + server)
        return 0.9 if telling >= 4 else 0.6
    if at_home and t.DISCONNECT in asked:
        return 0.55  # the end of a connection is a few bytes: here the port must help
    strong = [p for p in client + server if p.kind in (t.PUBLISH, t.SUBSCRIBE) and _names(p)]
    count = len(client) + len(server)
    return 0.7 if len(strong) >= 2 and count >= 2 else 0.55 if strong else 0.0


def _packets(first: bytes, later: list[bytes]) -> list[Packet] | None:
    """The packets of the places looked at; None: most places do not hold packets."""
    found: list[Packet] = []
    good = bad = 0
    for head in (first, *later):
        if not head:
            continue
        place, count = 0, len(found)
        while place < len(head) and len(found) - count < MAX_PACKETS:
            parsed = parse_packet(head, place)
            if not isinstance(parsed, tuple):
                break
            found.append(parsed[1])
            place += parsed[0]
        if place >= len(head) or len(found) - count >= 3:
            good += 1
        else:
            del found[count:]
            bad += 1
    return None if bad > good else found


def _names(packet: Packet) -> bool:
    """Whether the topic is printable text."""
    place = packet.start + (2 if packet.kind == t.SUBSCRIBE else 0)
    size = int.from_bytes(packet.data[place : place + 2], "big")
    topic = packet.data[place + 2 : place + 2 + size]
    try:
        return len(topic) >= 3 and topic.decode().isprintable()
    except UnicodeDecodeError:
        return False
