"""Protocol x protocol: what one speaks is never taken for another, not even where the other is all that is asked.

Real conversations of each protocol of the corpus, shown to every other protocol alone, on that protocol's own port.
`python -m tests.corpus.test_misnamed` prints the table of names given, rows: what was spoken; columns: the name.
"""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kubetape.analyze.protocols import registry
from kubetape.analyze.protocols.engine import Endpoints, decode_connection
from kubetape.analyze.streams import ConnectionStreams, StreamIndex
from kubetape.bundle.reader import Bundle
from kubetape.capture.pcap import import_pcap
from kubetape.errors import KubetapeError
from tests.conftest import CORPUS

pytestmark = pytest.mark.corpus
CAPTURES = 20  # of each folder of the corpus
CONNECTIONS = 6  # of each capture
# One grammar, several names.
FAMILIES = ({"dns", "mdns", "llmnr"}, {"http2", "grpc"}, {"http1", "websocket"})


def conversations(folder: Path) -> Iterator[tuple[list[str], ConnectionStreams]]:
    """(protocols found with all to choose from, streams) of connections that speak a known one.

    Several where a connection changes: TLS behind PostgreSQL's question for it, HTTP/2 behind an upgrade.
    """
    captures = sorted(p for p in folder.iterdir() if p.suffix in (".pcap", ".pcapng", ".cap"))
    for path in captures[:: max(1, len(captures) // CAPTURES)][:CAPTURES]:
        with tempfile.TemporaryDirectory() as place:
            bundle = Path(place) / "x.ktape"
            try:
                import_pcap([str(path)], str(bundle))
            except KubetapeError:
                continue
            table = Bundle(bundle)
            kinds = {c["connection_id"]: c["transport"] for c in table.table("connection").to_pylist()}
            datagrams = np.array([i for i, kind in kinds.items() if kind == "udp"], np.int64)
            for number, streams in enumerate(StreamIndex(table.table("socket_data"), datagrams)):
                if number >= CONNECTIONS:
                    break
                ends = Endpoints("10.0.0.1", 40000, "10.0.0.2", 9, True)
                found = decode_connection(streams, ends, True, True, registry(), {})
                if found.protocol is not None:
                    yield found.protocols, streams


def misnamed() -> tuple[collections.Counter[tuple[str, str]], collections.Counter[str]]:
    """Counts of (spoken, name given), and of conversations tried by what they speak."""
    wrong: collections.Counter[tuple[str, str]] = collections.Counter()
    tried: collections.Counter[str] = collections.Counter()
    for folder in sorted(p for p in CORPUS.iterdir() if p.is_dir()):
        for protocols, streams in conversations(folder):
            spoken = protocols[0]
            tried[spoken] += 1
            for name, protocol in registry().items():
                if name in protocols or any({name, spoken} <= family for family in FAMILIES):
                    continue
                if ("udp" if streams.datagrams else "tcp") not in protocol.transports:
                    continue
                port = min(protocol.ports, default=4444)
                ends = Endpoints("10.0.0.1", 40000, "10.0.0.2", port, True)
                if decode_connection(streams, ends, True, True, {name: protocol}, {}).protocol is not None:
                    wrong[spoken, name] += 1
    return wrong, tried


def test_nothing_is_taken_for_something_else(corpus: Path) -> None:
    wrong, tried = misnamed()
    assert sum(tried.values()) > 100
    assert len(tried) > 20
    assert dict(wrong) == {}


def main() -> None:
    wrong, tried = misnamed()
    for spoken, count in sorted(tried.items()):
        names = {name: n for (what, name), n in wrong.items() if what == spoken}
        print(f"{spoken:<12} {count:>4} conversations  misnamed: {names or 0}")


if __name__ == "__main__":
    main()
