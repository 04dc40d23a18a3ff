"""The spool as a ring: the newest stays, within the budget, and says what went."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubetape.capture.control import WHOLE, next_share
from kubetape.capture.spool import SpoolFullError, SpoolReader, SpoolWriter, remove, segment_numbers
from kubetape.errors import CaptureError

BUDGET = 64 << 10


def filled(path: str, ring: bool, count: int) -> SpoolWriter:
    """A spool with `count` ranges of 1,000 bytes, each filled with its number; segments begin with a marker."""
    writer = SpoolWriter(path, BUDGET, ring)
    writer.on_segment = lambda: writer.segment_json("processes", when="segment")
    writer.json("header", version=1)
    for number in range(count):
        writer.events(memoryview(bytes([number]) * 1000))
        assert sum(os.stat(f).st_size for f in Path(path).parent.iterdir()) <= BUDGET
    return writer


def numbers(reader: SpoolReader) -> list[int]:
    return [reader.files[f.file][f.offset] for f in reader.event_frames()]


def test_a_ring_keeps_the_newest(tmp_path: Path) -> None:
    path = str(tmp_path / "x.spool")
    writer = filled(path, ring=True, count=200)
    writer.close()
    reader = SpoolReader(path)

    kept = numbers(reader)
    assert kept == list(range(kept[0], 200))
    assert BUDGET // 1024 * 3 // 4 < len(kept) < BUDGET // 1024
    *_, dropped = reader.objects("dropped")
    assert dropped["bytes"] == writer.dropped_bytes > 100_000
    first = reader.event_frames()[0]
    assert dropped["until_ns"] <= first.ts_ns
    assert len(list(reader.objects("processes"))) == len(reader.files) - 1
    remove(path)
    assert os.listdir(tmp_path) == []


def test_without_a_ring_the_oldest_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "x.spool")
    with pytest.raises(SpoolFullError, match="disk_budget"):
        filled(path, ring=False, count=200)
    kept = numbers(SpoolReader(path))
    assert kept == list(range(len(kept)))
    assert len(kept) > 50


def test_segments_left_by_another_recorder_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.spool.3").write_bytes(b"precious")
    with pytest.raises(CaptureError, match="kubetape recover"):
        SpoolWriter(str(tmp_path / "x.spool"), BUDGET, ring=True)
    assert segment_numbers(str(tmp_path / "x.spool")) == [3]


@pytest.mark.parametrize("load", [0.5, 1.2, 3.0, 40.0])
def test_the_share_settles_below_the_cpu_budget(load: float) -> None:
    """load: what recording everything would use, in budgets."""
    share = WHOLE
    for _ in range(100):
        share = next_share(share, load * share / WHOLE)
    assert load * share / WHOLE <= 1 or share == 1
    assert load * share / WHOLE > 0.6 or share == WHOLE or load > WHOLE / 4
