"""How a duration reads, in findings, reports and comparisons: three digits and a unit."""

from __future__ import annotations

# The same in SQL, for the texts of rules.
AS_MS_MACRO = """
CREATE MACRO as_ms(ns) AS
    CASE WHEN ns >= 1000000000 THEN format('{:.3g} s', ns / 1e9) ELSE format('{:.3g} ms', ns / 1e6) END
"""


def duration(value_ns: int | None) -> str:
    """Nanoseconds for people; a dash where there are none."""
    if value_ns is None:
        return "–"
    if value_ns >= 1_000_000_000:
        return f"{value_ns / 1e9:.3g} s"
    return f"{value_ns / 1e6:.3g} ms" if value_ns >= 100_000 else f"{value_ns / 1e3:.3g} µs"
