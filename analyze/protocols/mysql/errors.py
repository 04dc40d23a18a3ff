"""Whose fault an error of MySQL or MariaDB is (MySQL 8.0 Error Message Reference, MariaDB error codes)."""

from __future__ import annotations

# The statement ran longer, or waited longer for a lock, than somebody allowed.
_TIMEOUTS = frozenset({1205, 1969, 3024, 4031, 2013})
# Errors of the caller among those whose SQLSTATE (HY000) does not tell.
_CLIENT = frozenset(
    {
        1045,
        1044,
        1130,
        1142,
        1143,
        1243,
        1210,
        1231,
        1235,
        1290,
        1364,
        1366,
        1411,
        1418,
        1524,
        1525,
        1788,
        1826,
        3140,
        3819,
        3636,
        4025,
    }
)
# Classes of SQLSTATE that say that the statement, its data or its rights are at fault.
_CLIENT_STATES = (
    "02",
    "07",
    "0A",
    "21",
    "22",
    "23",
    "24",
    "25",
    "26",
    "28",
    "2D",
    "34",
    "35",
    "3D",
    "3F",
    "42",
    "44",
    "70",
)


def error_kind(code: int | None, state: str | None) -> str:
    """'client', 'server' or 'timeout'."""
    if code in _TIMEOUTS:
        return "timeout"
    if code in _CLIENT:
        return "client"
    if state and state.startswith(_CLIENT_STATES) and not (state == "70100" or (state == "42000" and code == 1203)):
        return "client"
    return "server"
