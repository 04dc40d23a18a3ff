"""Dialogues read many turns at once give the rows that the decoders give one by one: on captures, cut and thinned."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kubetape.analyze.protocols import engine, registry, turns
from kubetape.analyze.requests import decode_all
from kubetape.analyze.streams import StreamIndex
from kubetape.bundle.reader import Bundle
from kubetape.capture.pcap import import_pcap
from kubetape.errors import KubetapeError
from tests.conftest import CORPUS

pytestmark = pytest.mark.corpus
PROTOCOLS = ("redis", "mysql", "http1")
FOLDERS = ("redis", "mysql", "http")
MAX_ROWS = 5_000  # of socket_data


def recordings(folder: Path) -> Iterator[tuple[str, Any, Any]]:
    """(name, connection, socket_data) of the captures that hold such traffic."""
    for path in sorted(p for name in FOLDERS for p in (CORPUS / name).iterdir() if "pcap" in p.suffix):
        bundle = folder / "x.ktape"
        try:
            import_pcap([str(path)], str(bundle))
        except KubetapeError:
            continue
        opened = Bundle(bundle)
        data = opened.table("socket_data", list(StreamIndex.COLUMNS))
        if 0 < data.num_rows <= MAX_ROWS:
            yield path.name, opened.table("connection"), data


def variants(name: str, data: Any) -> Iterator[tuple[str, Any]]:
    """The rows as they are, from somewhere in the middle on, and without one in 30."""
    chance = random.Random(name)
    yield name, data
    yield f"{name}, cut", data.slice(chance.randrange(data.num_rows))
    kept = [i for i in range(data.num_rows) if chance.random() > 1 / 30]
    yield f"{name}, thinned", data.take(pa.array(kept, pa.int64()))


def test_same_rows_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = engine._read_turns

    def counted(*arguments: Any) -> tuple[int, bool]:
        result = original(*arguments)
        read.append(result[0])
        return result

    monkeypatch.setattr(engine, "_read_turns", counted)
    # Every stretch counts here, however short.
    for module in (turns, engine):
        monkeypatch.setattr(module, "MIN_TURNS", 1)
    monkeypatch.setattr(engine, "FEW_TURNS", 0)
    decoders = [registry()[name].decoder for name in PROTOCOLS]
    for name, connections, whole in recordings(tmp_path):
        for what, data in variants(name, whole):
            for decoder in decoders:
                monkeypatch.setattr(decoder, "READS_TURNS", True)
            many = decode_all(connections, data)
            for decoder in decoders:
                monkeypatch.setattr(decoder, "READS_TURNS", False)
            single = decode_all(connections, data)
            for column in single.request.column_names:
                assert many.request[column].to_pylist() == single.request[column].to_pylist(), (what, column)
            assert many.coverage.equals(single.coverage), what
    assert sum(read) > 500, "too few turns were read at once for this to say anything"
