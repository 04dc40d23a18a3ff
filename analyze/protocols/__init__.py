"""The registry of protocols. A new protocol is a folder, one name here, and its tests."""

from __future__ import annotations

import importlib
from functools import cache

from kubetape.analyze.protocols.contract import Protocol

# Folders below analyze/protocols, each with a `PROTOCOL`. Keep this list sorted, one line each.
FOLDERS: tuple[str, ...] = (
    "amqp",
    "cassandra",
    "clickhouse",
    "dns",
    "dubbo",
    "fastcgi",
    "http1",
    "http2",
    "kafka",
    "ldap",
    "memcached",
    "mongodb",
    "mqtt",
    "mysql",
    "nats",
    "openwire",
    "postgresql",
    "pulsar",
    "redis",
    "rocketmq",
    "sip",
    "tds",
    "thrift",
    "tls",
    "tns",
    "websocket",
    "zmtp",
    "zookeeper",
)


@cache
def registry() -> dict[str, Protocol]:
    """Name -> Protocol, in the order of FOLDERS."""
    protocols = (importlib.import_module(f"kubetape.analyze.protocols.{name}").PROTOCOL for name in FOLDERS)
    return {protocol.name: protocol for protocol in protocols}
