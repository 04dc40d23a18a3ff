"""Beginnings cut off, packets dropped, pieces lost: what is left of the requests is the same.

Every seventh capture, so that the check takes seconds; `python -m tests.corpus.robust` asks all of them.
"""

from __future__ import annotations

import collections
from pathlib import Path

import pytest

from tests.corpus.robust import Counts, captures, damaged, survivors

pytestmark = pytest.mark.corpus
EVERY = 7
# What only the lost beginning said is not known afterwards: the target of a WebSocket, the topic of a Pulsar producer.
UNKNOWABLE = ("websocket", "pulsar")


def total(table: Counts) -> collections.Counter[str]:
    return sum((counts for folder, counts in table.items() if folder not in UNKNOWABLE), collections.Counter())


def test_beginnings_cut_off_and_packets_dropped(corpus: Path) -> None:
    tables, differences = damaged(captures(every=EVERY), cut=2, drop=1, seed=5)
    cut, drop = total(tables["cut"]), total(tables["drop"])
    assert cut["requests"] > 100
    assert cut["same"] >= 0.95 * cut["requests"], [d for d in differences if d["kind"] == "lost"][:20]
    assert drop["requests"] > 30
    assert drop["same"] == drop["requests"]


def test_pieces_lost_in_the_middle(corpus: Path) -> None:
    table, differences = survivors(captures(every=EVERY), 0.01, seed=5)
    counts = total(table)
    assert counts["hit"] > 10
    assert counts["silent"] == 0
    assert counts["same"] >= 0.9 * counts["requests"], differences[:20]
