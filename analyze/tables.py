"""The registry of derived tables: every `analyze/sql/*.sql` with the header it begins with.

    -- One row: what one row is.
    -- Inputs: tables it reads, comma separated.
    -- Columns:
    --   name TYPE: doc with the unit. NULL when ...
    --   name TYPE: ...
    SELECT ...

The header is checked against the real columns by tests/unit/analyze/test_tables.py, and docs/tables.md is made of it.
A query may use DuckDB variables for thresholds: `getvariable('slow_call_ms')`, defined in parameters().
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files

from kubetape.errors import KubetapeError

_COLUMN = re.compile(r"--   (\w+) ([A-Z0-9\[\]]+): (.*)")


@dataclass(frozen=True)
class DerivedColumn:
    name: str
    type: str
    doc: str


@dataclass(frozen=True)
class DerivedTable:
    """name; doc: what one row is; inputs: names of tables read; columns as documented; body: the SELECT."""

    name: str
    doc: str
    inputs: tuple[str, ...]
    columns: tuple[DerivedColumn, ...]
    body: str


def parse_table(name: str, text: str) -> DerivedTable:
    """A derived table from its file. Raises ValueError where the header lacks a part."""
    doc, inputs, columns, part = "", "", [], ""
    body: list[str] = []
    for line in text.splitlines():
        if body or not line.startswith("--"):
            body.append(line)
        elif line.startswith("-- One row:"):
            doc, part = line.removeprefix("-- One row:").strip(), "doc"
        elif line.startswith("-- Inputs:"):
            inputs, part = line.removeprefix("-- Inputs:").strip(), "inputs"
        elif line.startswith("-- Columns:"):
            part = "columns"
        elif found := _COLUMN.fullmatch(line):
            columns.append([found[1], found[2], found[3]])
        elif part == "columns" and columns:
            columns[-1][2] += " " + line.removeprefix("--").strip()
        elif part == "doc":
            doc += " " + line.removeprefix("--").strip()
        elif part == "inputs":
            inputs += " " + line.removeprefix("--").strip()
    if not doc or not inputs or not columns:
        raise ValueError(f"{name}.sql: its header needs 'One row:', 'Inputs:' and 'Columns:'")
    names = tuple(word.strip() for word in inputs.split(",") if word.strip() not in ("", "none"))
    return DerivedTable(name, doc, names, tuple(DerivedColumn(*c) for c in columns), "\n".join(body))


def _load() -> dict[str, DerivedTable]:
    folder = files("kubetape.analyze").joinpath("sql")
    texts = {entry.name: entry.read_text("utf8") for entry in folder.iterdir() if entry.name.endswith(".sql")}
    return {name[:-4]: parse_table(name[:-4], text) for name, text in sorted(texts.items())}


DERIVED_TABLES = _load()


def parameters() -> dict[str, float]:
    """Thresholds of the derived tables by variable name; the unit is the end of the name."""
    return {
        "slow_call_ms": 500.0,
        "slow_sql_ms": 100.0,
        "heavy_sql_ms": 20.0,
        "slow_dns_ms": 100.0,
        "slow_cache_ms": 20.0,
        "lossy_link_ratio": 0.01,
        "lossy_link_min_retransmits": 10.0,
        "slow_replica_factor": 2.0,
        "slow_replica_ms": 10.0,
        "error_ratio": 0.01,
        "idle_transaction_ms": 100.0,
        "n_plus_one_calls": 8.0,
        "nxdomain_rps": 20.0,
        "slow_network_ms": 5.0,
        "surge_rps": 100.0,
        "retry_ms": 1000.0,
        "retry_factor": 3.0,
        "pool_wait_ms": 20.0,
        "slow_disk_ms": 20.0,
        "clock_skew_ms": 10.0,
        "client_error_ratio": 0.5,
        "unread_kib": 64.0,
        "unread_ms": 20.0,
        "process_lock_ms": 20.0,
        "time_share_ms": 50.0,
        "connect_ms": 5.0,
    }


def read_parameters(path: str) -> dict[str, float]:
    """Thresholds from a TOML file of `name = number`. Raises KubetapeError, one line."""
    try:
        with open(path, "rb") as file:
            given = tomllib.load(file)
    except OSError as error:
        raise KubetapeError(f"cannot read {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise KubetapeError(f"{path} is no TOML of `name = number`: {error}") from error
    known = parameters()
    for name, value in given.items():
        if name not in known:
            raise KubetapeError(f"{path}: no threshold is called {name!r}; there are: {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise KubetapeError(f"{path}: {name} has to be a number")
    return {name: float(value) for name, value in given.items()}
