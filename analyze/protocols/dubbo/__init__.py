"""Dubbo 2: RPC over the default `dubbo://` protocol."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.dubbo.parse import detect
from kubetape.analyze.protocols.dubbo.stitch import DubboDecoder

PROTOCOL = Protocol(name="dubbo", detect=detect, decoder=DubboDecoder, ports=frozenset({20880, 20881}))
