"""Round-trip times: from a segment to the acknowledgement of exactly its end.

Karn's rule (RFC 6298 section 3): nothing is measured where an acknowledgement covers bytes that came more than
once or out of order. Samples whose two packets lie in different windows are not taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kubetape.capture.pcap.events import SampleLog

if TYPE_CHECKING:
    from kubetape.capture.pcap.tcp import Directions

# Per direction and window (8 MiB of capture): above this every k-th sample is kept, which leaves quantiles as they are.
MAX_SAMPLES = 256


def round_trips(d: Directions, samples: SampleLog, key_shift: int) -> None:
    """Measure one window; `key_shift`: bits of a position relative to its direction's base."""
    if not len(d.packet):
        return
    other = d.direction ^ 1
    partner = np.minimum(np.searchsorted(d.direction, other), len(d.direction) - 1)
    has_partner = d.direction[partner] == other
    limit = (1 << key_shift) - 1
    key_base = np.arange(len(d.direction), dtype=np.int64) << key_shift
    carries = (d.end > d.reached) & (d.position >= d.reached)
    data = np.nonzero(carries)[0]
    data_key = key_base[d.group[data]] + np.clip(d.end[data] - d.base[d.group[data]], 0, limit)
    # Acknowledgements that bring something new, in the key space of the data they acknowledge.
    news = np.nonzero((d.acks > d.acked_before) & has_partner[d.group])[0]
    of = partner[d.group[news]]
    relative = d.acks[news] - d.base[of]
    inside = (relative > 0) & (relative < limit)
    news, of, relative = news[inside], of[inside], relative[inside]
    key = key_base[of] + relative
    index = np.searchsorted(data_key, key)
    exact = np.zeros(len(key), bool)
    within = index < len(data_key)
    exact[within] = data_key[index[within]] == key[within]
    again = np.nonzero((d.position < d.reached) & (d.end > d.position))[0]
    if len(again):
        again_key = np.sort(key_base[d.group[again]] + np.clip(d.position[again] - d.base[d.group[again]], 0, limit))
        low = key_base[of] + np.clip(d.acked_before[news] - d.base[of], 0, limit)
        exact &= np.searchsorted(again_key, key) == np.searchsorted(again_key, low)
    news, of, sent = news[exact], of[exact], data[index[exact]]
    rtt_ns = d.ts_ns[news] - d.ts_ns[sent]
    positive = rtt_ns > 0
    news, of, rtt_ns = news[positive], of[positive], rtt_ns[positive]
    if len(news) > MAX_SAMPLES:
        keep = _thinned(of)
        news, of, rtt_ns = news[keep], of[keep], rtt_ns[keep]
    order = np.argsort(d.packet[news])
    news, of, rtt_ns = news[order], of[order], rtt_ns[order]
    acknowledged = d.direction[of]
    samples.add_many(d.ts_ns[news], acknowledged >> 1, acknowledged & 1, rtt_ns)


def _thinned(of: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Every k-th entry of each run of equal values, k so that at most MAX_SAMPLES remain of each run."""
    starts = np.nonzero(np.append(True, of[1:] != of[:-1]))[0]
    length = np.diff(np.append(starts, len(of)))
    rank = np.arange(len(of)) - np.repeat(starts, length)
    step = -(-length // MAX_SAMPLES)
    kept: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = rank % np.repeat(step, length) == 0
    return kept
