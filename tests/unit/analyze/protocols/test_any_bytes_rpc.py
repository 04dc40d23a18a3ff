"""Decoders on arbitrary and on damaged bytes: no exception, and rows that tell what was not seen."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.analyze.protocols.samples_rpc import SAMPLES
from tests.unit.analyze.protocols.wire import feed_anything, outcome

OUTCOMES = {"complete", "no_response", "no_request", "truncated", "one_way", "cancelled"}
FAST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("name", sorted(SAMPLES))
@given(client=st.binary(max_size=300), server=st.binary(max_size=300), datagrams=st.booleans())
@FAST
def test_random_bytes(name: str, client: bytes, server: bytes, datagrams: bool) -> None:
    for row in feed_anything(name, client, server, datagrams=datagrams):
        assert outcome(row) in OUTCOMES


@pytest.mark.parametrize("name", sorted(SAMPLES))
@given(data=st.data())
@FAST
def test_damaged_bytes(name: str, data: st.DataObject) -> None:
    sides = []
    for whole in SAMPLES[name]:
        damaged = bytearray(whole)
        for place, value in data.draw(
            st.lists(st.tuples(st.integers(0, max(0, len(whole) - 1)), st.integers(0, 255)), max_size=6)
        ):
            if damaged:
                damaged[place] = value
        start = data.draw(st.integers(0, 12))
        sides.append(bytes(damaged[start : data.draw(st.integers(start, len(whole)))]))
    for row in feed_anything(name, sides[0], sides[1]):
        assert outcome(row) in OUTCOMES


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_whole_bytes_give_rows(name: str) -> None:
    assert feed_anything(name, *SAMPLES[name])
