"""What a report shows, as plain data: rows of the analyzer's tables, chosen and ordered, nothing computed anew."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from kubetape.analyze.analysis import Analysis
from kubetape.reports.flame import Flame, flames
from kubetape.reports.sql_text import pretty
from kubetape.reports.waterfall import Waterfall, slowest

TOP_ROWS = 25  # of each table; the whole is in the results beside the report
SERIES = 6  # lines in a chart that a reader can tell apart

Row = dict[str, Any]


@dataclass
class ReportData:
    """Everything the page and the pictures need. Times in ns; `seconds` is the length of the recording."""

    bundle: str
    nodes: list[Row]
    seconds: float
    started: str
    findings: list[Row]
    coverage: Row
    protocols: list[Row]
    probes: list[Row]
    notes: list[str]
    services: list[Row]
    edges: list[Row]
    statements: list[Row]
    network: list[Row]
    dns: list[Row]
    pods: list[Row]
    time_split: list[Row] = field(default_factory=list)
    waterfalls: list[Waterfall] = field(default_factory=list)
    flames: list[Flame] = field(default_factory=list)
    node_health: list[Row] = field(default_factory=list)
    pod_health: list[Row] = field(default_factory=list)
    disks: list[Row] = field(default_factory=list)
    transactions: list[Row] = field(default_factory=list)
    timeline: list[Row] = field(default_factory=list)

    @property
    def is_healthy(self) -> bool:
        return not any(f["severity"] in ("critical", "warning") for f in self.findings)


def collect(analysis: Analysis) -> ReportData:
    """Query everything a report shows."""

    def rows(query: str) -> list[Row]:
        result: list[Row] = analysis.query(query).to_pylist()
        return result

    nodes = rows("SELECT * FROM manifest_node ORDER BY node")
    coverage = rows(
        "SELECT count(*) AS connections, coalesce(sum(request_count), 0)::BIGINT AS requests, "
        "coalesce(sum(total_bytes), 0)::BIGINT AS total_bytes, coalesce(sum(seen_bytes), 0)::BIGINT AS seen_bytes, "
        "coalesce(sum(lost_bytes), 0)::BIGINT AS lost_bytes, "
        "coalesce(sum(truncated_bytes), 0)::BIGINT AS truncated_bytes, "
        "coalesce(sum(encrypted_bytes), 0)::BIGINT AS encrypted_bytes, "
        "coalesce(sum(undecoded_bytes), 0)::BIGINT AS undecoded_bytes FROM coverage"
    )[0]
    started = rows("SELECT strftime(make_timestamp_ns(min(start_ns)), '%Y-%m-%d %H:%M:%S UTC') AS t FROM manifest_node")
    findings = rows("SELECT * FROM finding ORDER BY rank")
    for finding in findings:
        finding["about"] = analysis.rules[finding["rule"]].page
        # A consequence stands below its cause, so that the first screen holds the causes.
        finding["window"] = _window(finding, min((n["start_ns"] for n in nodes), default=0))
        finding["consequences"] = [f for f in findings if f["caused_by"] == finding["title"]]
    statements = _with_pretty(rows(f"SELECT * FROM sql_digest ORDER BY total_ns DESC LIMIT {TOP_ROWS}"))
    by_digest = {row["digest"]: row["pretty"] for row in statements}
    for finding in findings:
        finding["statement"] = by_digest.get(finding["scope"]) if finding["scope_kind"] == "statement" else None
    return ReportData(
        bundle=os.path.basename(analysis.bundle.path),
        nodes=nodes,
        seconds=max((n["duration_ns"] for n in nodes), default=0) / 1e9,
        started=started[0]["t"] or "",
        findings=findings,
        coverage=coverage,
        protocols=rows(
            "SELECT coalesce(protocol, 'unknown') AS protocol, count(*) AS connections, "
            "sum(request_count)::BIGINT AS requests, "
            "sum(seen_bytes)::BIGINT AS seen_bytes, sum(undecoded_bytes)::BIGINT AS undecoded_bytes, "
            "sum(lost_bytes)::BIGINT AS lost_bytes FROM coverage GROUP BY ALL ORDER BY seen_bytes DESC"
        ),
        probes=rows("SELECT * FROM probe ORDER BY node, probe"),
        notes=[f"{n['node']}: {note}" for n in nodes for note in n["notes"] or []],
        services=rows(
            "SELECT * FROM service_summary WHERE dimension = 'workload' "
            f"ORDER BY request_count DESC, name, protocol LIMIT {TOP_ROWS}"
        ),
        edges=rows(f"SELECT * FROM edge ORDER BY total_ns DESC, client, server LIMIT {TOP_ROWS * 4}"),
        statements=statements,
        network=rows(
            "SELECT * FROM network_summary WHERE dimension = 'edge' "
            f"ORDER BY retransmit_count DESC, rtt_p95_ns DESC NULLS LAST, name LIMIT {TOP_ROWS}"
        ),
        dns=rows(f"SELECT * FROM dns_summary ORDER BY query_count DESC, client, name LIMIT {TOP_ROWS}"),
        pods=rows(
            "SELECT * FROM service_summary WHERE dimension = 'pod' "
            f"ORDER BY p50_ns DESC NULLS LAST, name LIMIT {TOP_ROWS}"
        ),
        time_split=rows(
            "SELECT server, count(*) AS request_count, avg(total_ns) AS total_ns, avg(network_ns) AS network_ns, "
            "avg(coalesce(proxy_ns, 0)) AS proxy_ns, "
            "avg(downstream_ns) AS downstream_ns, avg(own_ns) AS own_ns, mode(slowest_callee) AS callee "
            "FROM request_time_split WHERE server_ns IS NOT NULL GROUP BY server "
            f"ORDER BY count(*) * avg(total_ns) DESC, server LIMIT {TOP_ROWS}"
        ),
        waterfalls=slowest(rows),
        flames=flames(rows),
        node_health=rows("SELECT * FROM node_health WHERE cpu_busy_ratio IS NOT NULL OR is_ready IS NOT NULL"),
        disks=rows(f"SELECT * FROM disk_summary LIMIT {TOP_ROWS}"),
        pod_health=rows(
            "SELECT * FROM pod_health WHERE cpu_cores IS NOT NULL OR request_count > 0 OR NOT coalesce(is_ready, true) "
            "ORDER BY coalesce(is_ready, true), coalesce(throttled_ratio, 0) DESC, coalesce(cpu_cores, 0) DESC, "
            f"namespace, pod LIMIT {TOP_ROWS * 2}"
        ),
        transactions=rows(
            "SELECT client, server, protocol, count(*) AS transaction_count, "
            "count(*) FILTER (ending = 'rollback') AS rollbacks, "
            "quantile_disc(duration_ns, 0.5) AS p50_ns, quantile_disc(duration_ns, 0.95) AS p95_ns, "
            "max(duration_ns) AS max_ns, sum(idle_ns) / nullif(sum(duration_ns), 0) AS idle_ratio, "
            "avg(statement_count) AS statements FROM transaction GROUP BY ALL "
            "ORDER BY sum(duration_ns) DESC, client, server"
        ),
        timeline=_timeline(rows),
    )


def _timeline(rows: Any) -> list[Row]:
    """Per second and server: requests, errors, p50 and p95; the busiest servers only."""
    result: list[Row] = rows(
        "WITH _top AS (SELECT server_name FROM logical_request WHERE outcome <> 'no_request' "
        f"GROUP BY server_name ORDER BY count(*) DESC, server_name LIMIT {SERIES}) "
        "SELECT server_name AS server, (start_ns - (SELECT min(start_ns) FROM manifest_node)) // 1000000000 AS second, "
        "count(*) AS requests, count(*) FILTER (is_error AND error_kind IS DISTINCT FROM 'client') AS errors, "
        "quantile_disc(latency_ns, 0.5) AS p50_ns, quantile_disc(latency_ns, 0.95) AS p95_ns "
        "FROM logical_request WHERE outcome <> 'no_request' AND server_name IN (SELECT server_name FROM _top) "
        "GROUP BY ALL ORDER BY server, second"
    )
    return result


def _with_pretty(statements: list[Row]) -> list[Row]:
    for row in statements:
        row["pretty"] = pretty(row["example"] or row["statement_pattern"], row["protocol"])
    return statements


def _window(finding: Row, begin_ns: int) -> str:
    """When it was seen, in seconds of the recording; empty where the finding has no times."""
    first, last = finding["first_ns"], finding["last_ns"]
    if first is None:
        return ""
    # What began before the recording was there from its start.
    seconds = [max(0.0, (at - begin_ns) / 1e9) for at in (first, first if last is None else last)]
    return f"seen from {seconds[0]:.1f} s to {seconds[1]:.1f} s"
