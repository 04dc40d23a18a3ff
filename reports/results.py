"""The analyzer's tables as files: Parquet for tools, JSON for scripts."""

from __future__ import annotations

import json
import os

import pyarrow.parquet as pq

from kubetape.analyze.analysis import Analysis
from kubetape.analyze.tables import DERIVED_TABLES

# Small enough to be read whole by a script; the rest is for Parquet.
JSON_TABLES = ("finding", "service_summary", "endpoint_summary", "edge", "sql_digest", "network_summary", "dns_summary")


def write_results(analysis: Analysis, folder: str) -> list[str]:
    """Write every derived table into `folder`; the names of the files written."""
    os.makedirs(folder, exist_ok=True)
    written = []
    for name in sorted({*DERIVED_TABLES, "finding"}):
        table = analysis.query(f"SELECT * FROM {name}")
        pq.write_table(table, os.path.join(folder, f"{name}.parquet"), compression="zstd")
        written.append(f"{name}.parquet")
        if name in JSON_TABLES:
            with open(os.path.join(folder, f"{name}.json"), "w", encoding="utf8") as out:
                json.dump(table.to_pylist(), out, indent=1, ensure_ascii=False)
            written.append(f"{name}.json")
    return written
