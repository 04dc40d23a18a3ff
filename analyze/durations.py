"""How a duration reads, in findings, reports and comparisons: three digits and a unit."""

from __future__ import annotations

# For rules, in SQL: the same for their texts, and no more than so many characters of what others wrote; and a time of a
# node's monotonic clock as nanoseconds since 1970.
MACROS = """
CREATE MACRO as_ms(ns) AS
    CASE WHEN ns >= 1000000000 THEN format('{:.3g} s', ns / 1e9) ELSE format('{:.3g} ms', ns / 1e6) END;
CREATE MACRO shortened(words, most) AS
    CASE WHEN length(words) > most THEN rtrim(left(words, most)) || '…' ELSE words END;
CREATE MACRO realtime_ns(node_name, monotonic_ns) AS
    -- Columns of its own names, or a `node` given would be taken for that of the manifest.
    monotonic_ns + (SELECT _offset_ns FROM (SELECT node AS _node, clock_offset_ns AS _offset_ns FROM manifest_node)
        WHERE _node = node_name);
"""


def duration(value_ns: int | None) -> str:
    """Nanoseconds for people; a dash where there are none."""
    if value_ns is None:
        return "–"
    if value_ns >= 1_000_000_000:
        return f"{value_ns / 1e9:.3g} s"
    return f"{value_ns / 1e6:.3g} ms" if value_ns >= 100_000 else f"{value_ns / 1e3:.3g} µs"
