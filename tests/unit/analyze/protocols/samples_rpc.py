"""What the client and what the server said, per protocol: seeds for damage."""

from __future__ import annotations

from collections.abc import Sequence

from tests.unit.analyze.protocols import (
    test_cassandra,
    test_dubbo,
    test_ldap,
    test_mongodb,
    test_sip,
    test_thrift,
    test_zookeeper,
)
from tests.unit.analyze.protocols.wire import Piece


def _sides(dialogue: Sequence[Piece]) -> tuple[bytes, bytes]:
    return b"".join(p[1] for p in dialogue if p[0] == "c"), b"".join(p[1] for p in dialogue if p[0] == "s")


SAMPLES: dict[str, tuple[bytes, bytes]] = {
    "cassandra": _sides(test_cassandra.DIALOGUE),
    "dubbo": _sides(test_dubbo.DIALOGUE),
    "ldap": _sides(test_ldap.DIALOGUE),
    "mongodb": _sides(test_mongodb.DIALOGUE),
    "sip": _sides(test_sip.CALL),
    "thrift": _sides(test_thrift.DIALOGUE),
    "zookeeper": _sides(test_zookeeper.DIALOGUE),
}
