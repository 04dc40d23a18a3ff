"""FastCGI 1.0: one row per request id from BEGIN_REQUEST to END_REQUEST."""

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.fastcgi.parse import detect
from kubetape.analyze.protocols.fastcgi.stitch import FastCgiDecoder, resolve

PROTOCOL = Protocol(name="fastcgi", detect=detect, decoder=FastCgiDecoder, ports=frozenset({9000}), resolve=resolve)
