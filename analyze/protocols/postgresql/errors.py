"""Whose fault an SQLSTATE is (PostgreSQL 17 manual, appendix A)."""

from __future__ import annotations

# query_canceled is mostly statement_timeout; lock_not_available is lock_timeout or NOWAIT.
_TIMEOUTS = frozenset({"57014", "55P03", "25P03", "25P04", "57P05"})
# Classes that say that the statement, its data, its rights or the order of calls are at fault.
_CLIENT = (
    "02",
    "0A",
    "0L",
    "0P",
    "20",
    "21",
    "22",
    "23",
    "24",
    "25",
    "26",
    "27",
    "28",
    "2B",
    "34",
    "3B",
    "3D",
    "3F",
    "42",
    "44",
)
_CLIENT_TOO = frozenset({"08P01", "P0001", "P0002", "P0003", "P0004"})


def error_kind(state: str | None) -> str:
    """'client', 'server' or 'timeout'."""
    if state is None:
        return "server"
    if state in _TIMEOUTS:
        return "timeout"
    return "client" if state.startswith(_CLIENT) or state in _CLIENT_TOO else "server"
