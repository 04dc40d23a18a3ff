"""One bundle opened for questions: raw tables as views, derived tables made when a query first needs them.

Derived tables are one file each in `analyze/sql/`, named as the table. Its header says what one row is, what it
reads and every column; `tables.py` reads it. `request` and `coverage` start as Arrow tables from
`requests.py`, under the names `_request` and `_coverage`.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

import duckdb
import pyarrow as pa

from kubetape.analyze.durations import MACROS
from kubetape.analyze.findings import RULES, Rule, find
from kubetape.analyze.tables import DERIVED_TABLES, DerivedTable, parameters
from kubetape.bundle import TABLES
from kubetape.bundle.reader import Bundle
from kubetape.bundle.realtime import realtime
from kubetape.errors import QueryError

_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_COUNT = re.compile(r"\(\s*\*\s*\)")
_EVERYTHING = re.compile(r"\*|\b(payload|columns|summarize|describe|show|pivot|unpivot)\b", re.IGNORECASE)
_SELECT = re.compile(r"\bselect\b", re.IGNORECASE)


def _reads_all_columns(text: str) -> bool:
    """Whether a statement may look at the payload: it names it, or all columns, or leaves SELECT out."""
    return _EVERYTHING.search(_COUNT.sub("", text)) is not None or _SELECT.search(text) is None


def _use_one_pool() -> None:
    """Arrow's memory from jemalloc where the build has it: big columns that come and go cost it fewer page faults and
    a quarter less of peak memory than the default pool (MySQL capture of `make bench`: 611 MB instead of 787)."""
    with contextlib.suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())


class Analysis:
    """A bundle with its derived tables in an in-memory DuckDB.

    `query` answers SQL over raw and derived tables (names: DESIGN of the bundle and docs/tables.md).
    Not safe for use from several threads.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rules: dict[str, Rule] | None = None,
        thresholds: dict[str, float] | None = None,
    ) -> None:
        """rules: further ones, or other ones of the same name. thresholds: in place of those of tables.parameters."""
        self.bundle = Bundle(path)
        _use_one_pool()
        self.database = duckdb.connect(":memory:")
        # Times in results are UTC on every machine, and the bundle is the only input: no files, no extensions.
        self.database.execute("SET TimeZone = 'UTC'")
        self.database.execute("SET enable_external_access = false")
        self._made: set[str] = set()
        self._making: list[str] = []
        self._with_payload = False  # whether `socket_data` is registered with its payload
        self._registered: list[Any] = []  # DuckDB reads registered Arrow tables in place; keep them alive
        self.rules = RULES | (rules or {})
        for name, value in (parameters() | (thresholds or {})).items():
            self.database.execute(f"SET VARIABLE {name} = {value!r}")
        self.register("manifest_node", self._manifest_nodes())
        self.database.execute(MACROS)
        self.register("probe", self._probes())
        self._made |= {"manifest_node", "probe"}

    def register(self, name: str, table: Any) -> None:
        """Make an Arrow table visible under `name`."""
        self._registered.append(table)
        self.database.register(name, table)
        self._made.add(name)

    def table_names(self) -> list[str]:
        return sorted({*TABLES, *self.bundle.table_names, *DERIVED_TABLES, "finding", "manifest_node", "probe"})

    def query(self, text: str) -> Any:
        """The result of one SQL statement as pyarrow.Table. Raises QueryError with DuckDB's reason in one line."""
        for word in dict.fromkeys(_WORD.findall(text)):
            self.need(word.lower(), _reads_all_columns(text))
        try:
            return self.database.sql(text).to_arrow_table()
        except (duckdb.Error, RuntimeError) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "unknown error")
            raise QueryError(f"the query was refused: {reason}") from error

    def need(self, name: str, with_payload: bool = True) -> None:
        """Make the table `name` and all it reads, if it is one of ours and not there yet.

        with_payload: of `socket_data`, which is most of a bundle; without it where nothing that was asked looks at it.
        """
        if name == "socket_data" and (name not in self._made or not self._with_payload):
            self._need_socket_data(with_payload)
            return
        if name in self._made:
            return
        if name in self._making:
            raise RuntimeError(f"derived tables depend on each other: {' -> '.join([*self._making, name])}")
        if name in ("_request", "_coverage"):
            self._decode()
        elif name == "finding":
            self._find()
        elif name in DERIVED_TABLES:
            self._making.append(name)
            table = DERIVED_TABLES[name]
            for other in table.inputs:
                self.need(other, "payload" in table.body)
            self._create(table)
            self._making.pop()
        elif name in TABLES or name in self.bundle.table_names:
            self.register(name, self.bundle.table(name))
        else:
            return
        self._made.add(name)

    def _need_socket_data(self, with_payload: bool) -> None:
        if "socket_data" in self._made and not with_payload:
            return
        names = TABLES["socket_data"].column_names
        wanted = None if with_payload else [name for name in names if name != "payload"]
        self._with_payload = with_payload
        self.register("socket_data", self.bundle.table("socket_data", wanted))

    def _create(self, table: DerivedTable) -> None:
        self.database.execute(f"CREATE TABLE {table.name} AS\n{table.body}")

    def _decode(self) -> None:
        from kubetape.analyze.requests import decode_all
        from kubetape.analyze.streams import StreamIndex

        connections = self.bundle.table("connection")
        data = self.bundle.table("socket_data", list(StreamIndex.COLUMNS))
        decoded = decode_all(connections, data)
        self.register("_request", self._to_realtime(decoded.request))
        self.register("_coverage", decoded.coverage)

    def _find(self) -> None:
        for name in ("connection_health", "coverage", *(name for rule in self.rules.values() for name in rule.inputs)):
            self.need(name)
        lost, total = self.database.execute("SELECT sum(lost_bytes), sum(total_bytes) FROM coverage").fetchall()[0]
        self.register("finding", find(self.database, self.rules.values(), (lost or 0) / (total or 1)))

    def _to_realtime(self, request: Any) -> Any:
        """The time columns of `request` from each node's monotonic clock to nanoseconds since 1970."""
        codes = request.column("node").combine_chunks()
        names, indices = codes.dictionary.to_pylist(), codes.indices.to_numpy(zero_copy_only=False)
        for column in ("start_ns", "request_end_ns", "response_start_ns", "end_ns"):
            values = request.column(column)
            known = values.is_valid().to_numpy()
            times = values.fill_null(0).to_numpy().copy()
            for code, name in enumerate(names):
                mine = (indices == code) & known
                times[mine] = self.realtime(name, times[mine])
            place = request.schema.get_field_index(column)
            request = request.set_column(place, request.schema.field(place), pa.array(times, mask=~known))
        return request

    def realtime(self, node: str, monotonic_ns: Any) -> Any:
        """int64 array of CLOCK_MONOTONIC of `node` as nanoseconds since 1970, between the manifest's clock anchors."""
        anchors = next((n.clock for n in self.bundle.manifest.nodes if n.name == node), [])
        return realtime(anchors, monotonic_ns)

    def _manifest_nodes(self) -> Any:
        rows = []
        for node in self.bundle.manifest.nodes:
            first = node.clock[0] if node.clock else None
            offset = first.realtime_ns - first.monotonic_ns if first else 0
            aligned = node.facts.get("clock_alignment", {})
            rows.append(
                {
                    "node": node.name,
                    "source": node.source,
                    "kernel": node.kernel,
                    "distribution": node.distribution,
                    "cpu_count": node.cpu_count,
                    "memory_bytes": node.memory_bytes,
                    "start_ns": node.start_ns + offset,
                    "end_ns": node.end_ns + offset,
                    "duration_ns": node.end_ns - node.start_ns,
                    "clock_offset_ns": offset,
                    "clock_reference": aligned.get("reference"),
                    "clock_taken_ns": aligned.get("offset_ns"),
                    "clock_error_ns": aligned.get("error_ns"),
                    "stop_reason": node.stop_reason,
                    "notes": node.notes,
                }
            )
        schema = pa.schema(
            [(k, pa.string()) for k in ("node", "source", "kernel", "distribution")]
            + [
                (k, pa.int64())
                for k in ("cpu_count", "memory_bytes", "start_ns", "end_ns", "duration_ns", "clock_offset_ns")
            ]
            + [("clock_reference", pa.string()), ("clock_taken_ns", pa.int64()), ("clock_error_ns", pa.int64())]
            + [("stop_reason", pa.string()), ("notes", pa.list_(pa.string()))]
        )
        return pa.Table.from_pylist(rows, schema=schema)

    def _probes(self) -> Any:
        texts, counts = (
            ("probe", "mechanism", "status", "reason", "cost"),
            ("event_count", "lost_count", "truncated_count"),
        )
        rows = [
            {"node": node.name, **{k: getattr(p, k) for k in (*texts, *counts)}}
            for node in self.bundle.manifest.nodes
            for p in node.probes
        ]
        schema = pa.schema([(k, pa.string()) for k in ("node", *texts)] + [(k, pa.int64()) for k in counts])
        return pa.Table.from_pylist(rows, schema=schema)
