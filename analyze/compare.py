"""Two bundles, one verdict: what became slower, what fails more often, what is new and slow.

Entities are endpoints (server, protocol, operation, resource) and SQL digests. For each: a rank test
(Mann-Whitney U, two-sided) on latency and Fisher's exact test on errors, and a minimum effect: with thousands of
requests everything is significant, and only what a user would feel is a regression.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kubetape.analyze.analysis import Analysis
from kubetape.analyze.durations import duration

Verdict = Literal["regression", "improvement", "same", "inconclusive"]
EXIT_STATUS: dict[str, int] = {"same": 0, "improvement": 0, "regression": 1, "inconclusive": 3}


@dataclass(frozen=True)
class Limits:
    """What counts as a difference.

    min_samples: requests on each side below which nothing is said. alpha: probability of a chance difference that is
    accepted; it is divided by the number of entities (Bonferroni). min_ratio: factor between the medians, and
    likewise between the 95th percentiles. min_ms: and milliseconds between them. min_superiority:
    probability that a request of the slower side is slower than one of the faster (0.5: no difference).
    min_error_points: difference of error ratios. min_tail_ratio, min_tail_ms: as min_ratio and min_ms, for the 95th
    percentile alone: a tail wanders more from run to run than a median does.
    """

    min_samples: int = 20
    alpha: float = 0.01
    min_ratio: float = 1.5
    min_ms: float = 2.0
    min_superiority: float = 0.65
    min_error_points: float = 0.02
    min_tail_ratio: float = 3.0
    min_tail_ms: float = 20.0


@dataclass
class Side:
    """Numbers of one entity in one bundle; times in ns, None where nothing was answered."""

    count: int = 0
    rps: float = 0.0
    error_ratio: float = 0.0
    p50_ns: int | None = None
    p90_ns: int | None = None
    p95_ns: int | None = None
    p99_ns: int | None = None


@dataclass
class Difference:
    """One entity compared. reasons: what was found, in words. p_value, superiority: of the latency test."""

    kind: str  # 'endpoint' or 'sql'
    server: str
    protocol: str
    operation: str | None
    name: str
    base: Side
    candidate: Side
    verdict: Verdict = "same"
    reasons: list[str] = field(default_factory=list)
    p_value: float | None = None
    superiority: float | None = None


@dataclass
class Comparison:
    """The verdict over all, and every entity: regressions first, then by requests."""

    verdict: Verdict
    base: str
    candidate: str
    differences: list[Difference]
    notes: list[str]
    limits: Limits

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS[self.verdict]


@dataclass
class _Samples:
    latency_ns: npt.NDArray[np.int64]
    errors: int
    count: int


Key = tuple[str, str, str, str | None, str]

_ENDPOINTS = """
SELECT 'endpoint' AS kind, server_name, protocol, operation, coalesce(resource, '') AS name,
    coalesce(server_latency_ns, latency_ns) AS own_ns, is_error AND error_kind IS DISTINCT FROM 'client' AS failed
FROM logical_request
WHERE outcome NOT IN ('no_request', 'one_way')
    AND protocol NOT IN ('mysql', 'postgresql', 'tds', 'clickhouse', 'cassandra', 'tns', 'websocket')
UNION ALL
SELECT 'sql', server_name, protocol, NULL, resource, coalesce(server_latency_ns, latency_ns),
    is_error AND error_kind IS DISTINCT FROM 'client'
FROM logical_request
WHERE outcome <> 'no_request' AND protocol IN ('mysql', 'postgresql', 'tds', 'clickhouse', 'cassandra', 'tns')
    AND resource IS NOT NULL AND operation NOT IN ('LOGIN', 'Startup', 'COM_STMT_PREPARE', 'COM_STMT_CLOSE', 'PREPARE')
"""


def compare(base_path: str, candidate_path: str, limits: Limits | None = None) -> Comparison:
    """Compare two bundles. Raises BundleError where one cannot be read."""
    limits = limits or Limits()
    base, base_seconds, base_notes = _read(base_path)
    candidate, candidate_seconds, candidate_notes = _read(candidate_path)
    keys = sorted({*base, *candidate}, key=lambda k: tuple(str(part) for part in k))
    alpha = limits.alpha / max(1, len(keys))
    differences = [
        _difference(key, base.get(key), candidate.get(key), base_seconds, candidate_seconds, limits, alpha)
        for key in keys
    ]
    order = {"regression": 0, "improvement": 1, "same": 2, "inconclusive": 3}
    differences.sort(
        key=lambda d: (order[d.verdict], -_lost_ns(d), -(d.base.count + d.candidate.count), d.server, d.name)
    )
    notes = [f"base: {n}" for n in base_notes] + [f"candidate: {n}" for n in candidate_notes]
    return Comparison(_verdict(differences), base_path, candidate_path, differences, notes, limits)


def _verdict(differences: list[Difference]) -> Verdict:
    verdicts = {d.verdict for d in differences}
    if "regression" in verdicts:
        return "regression"
    if "improvement" in verdicts:
        return "improvement"
    return "same" if "same" in verdicts else "inconclusive"


def _lost_ns(difference: Difference) -> int:
    """Time the candidate spends more on the entity: what to look at first."""
    return difference.candidate.count * ((difference.candidate.p50_ns or 0) - (difference.base.p50_ns or 0))


def _read(path: str) -> tuple[dict[Key, _Samples], float, list[str]]:
    analysis = Analysis(path)
    table = analysis.query(_ENDPOINTS)
    seconds = (
        max((n.end_ns - n.start_ns) / 1e9 for n in analysis.bundle.manifest.nodes)
        if analysis.bundle.manifest.nodes
        else 0.0
    )
    notes = [
        f"{probe.probe} lost {probe.lost_count} events on {node.name}"
        for node in analysis.bundle.manifest.nodes
        for probe in node.probes
        if probe.lost_count
    ]
    return dict(_group(table)), seconds, notes


def _group(table: Any) -> Iterator[tuple[Key, _Samples]]:
    rows: dict[Key, list[tuple[int | None, bool]]] = {}
    columns = [
        table.column(n).to_pylist()
        for n in ("kind", "server_name", "protocol", "operation", "name", "own_ns", "failed")
    ]
    for kind, server, protocol, operation, name, own_ns, failed in zip(*columns, strict=True):
        rows.setdefault((kind, server, protocol, operation, name), []).append((own_ns, bool(failed)))
    for key, values in rows.items():
        latency = np.array([v for v, _ in values if v is not None], np.int64)
        yield key, _Samples(latency, sum(failed for _, failed in values), len(values))


def _side(samples: _Samples | None, seconds: float) -> Side:
    if samples is None:
        return Side()
    side = Side(samples.count, samples.count / seconds if seconds else 0.0, samples.errors / samples.count)
    if len(samples.latency_ns):
        levels = np.quantile(samples.latency_ns, [0.5, 0.9, 0.95, 0.99], method="inverted_cdf")
        side.p50_ns, side.p90_ns, side.p95_ns, side.p99_ns = (int(v) for v in levels)
    return side


def _difference(
    key: Key,
    base: _Samples | None,
    candidate: _Samples | None,
    base_seconds: float,
    candidate_seconds: float,
    limits: Limits,
    alpha: float,
) -> Difference:
    kind, server, protocol, operation, name = key
    result = Difference(
        kind, server, protocol, operation, name, _side(base, base_seconds), _side(candidate, candidate_seconds)
    )
    if base is None or candidate is None:
        _one_sided(result, limits)
    elif min(base.count, candidate.count) < limits.min_samples:
        result.verdict = "inconclusive"
        result.reasons.append(f"fewer than {limits.min_samples} requests on one side")
    else:
        _test_latency(result, base, candidate, limits, alpha)
        _test_tail(result, base, candidate, limits, alpha)
        _test_errors(result, base, candidate, limits, alpha)
    return result


def _one_sided(result: Difference, limits: Limits) -> None:
    """Only one bundle has it. A new one that is slow by the absolute threshold is what a deploy added."""
    from kubetape.analyze.tables import parameters

    result.verdict = "inconclusive"
    slow_ns = parameters()["slow_sql_ms" if result.kind == "sql" else "slow_call_ms"] * 1e6
    side = result.candidate
    if not side.count:
        result.reasons.append("not in the candidate")
        return
    result.reasons.append("new in the candidate")
    if side.count >= limits.min_samples and (side.p50_ns or 0) >= slow_ns:
        result.verdict = "regression"
        result.reasons.append(f"and slow: p50 {duration(side.p50_ns)}")
    elif side.count >= limits.min_samples and side.error_ratio >= 0.5:
        result.verdict = "regression"
        result.reasons.append(f"and failing: {side.error_ratio:.0%}")


def _test_latency(result: Difference, base: _Samples, candidate: _Samples, limits: Limits, alpha: float) -> None:
    """Mann-Whitney U on latencies; superiority, U / (n m): how often a request of the candidate is the slower."""
    if min(len(base.latency_ns), len(candidate.latency_ns)) < limits.min_samples:
        return
    from scipy import stats

    test = stats.mannwhitneyu(candidate.latency_ns, base.latency_ns, alternative="two-sided")
    result.p_value = float(test.pvalue)
    result.superiority = float(test.statistic) / (len(base.latency_ns) * len(candidate.latency_ns))
    if result.p_value >= alpha:
        return
    for word, sign, superiority in (("regression", 1, result.superiority), ("improvement", -1, 1 - result.superiority)):
        if superiority < limits.min_superiority:
            continue
        for level in ("p50", "p95"):
            old, new = getattr(result.base, f"{level}_ns"), getattr(result.candidate, f"{level}_ns")
            slower, faster = (new, old) if sign > 0 else (old, new)
            if slower >= limits.min_ratio * faster and slower - faster >= limits.min_ms * 1e6:
                result.verdict = "regression" if word == "regression" else "improvement"
                result.reasons.append(f"{level} {duration(old)} -> {duration(new)}")


def _test_tail(result: Difference, base: _Samples, candidate: _Samples, limits: Limits, alpha: float) -> None:
    """One replica of three went slow: the median hardly moves. Fisher's test on requests above the base's p95."""
    old, new = result.base.p95_ns, result.candidate.p95_ns
    if result.verdict != "same" or old is None or new is None:
        return
    if new < limits.min_tail_ratio * old or new - old < limits.min_tail_ms * 1e6:
        return
    from scipy import stats

    above = [int((side.latency_ns > old).sum()) for side in (candidate, base)]
    totals = [len(candidate.latency_ns), len(base.latency_ns)]
    table = [[n, total - n] for n, total in zip(above, totals, strict=True)]
    if float(stats.fisher_exact(table, alternative="greater").pvalue) < alpha:
        result.verdict = "regression"
        share = above[0] / totals[0]
        result.reasons.append(
            f"p95 {duration(old)} -> {duration(new)}; {share:.0%} of requests are slower than 95 % were before"
        )


def _test_errors(result: Difference, base: _Samples, candidate: _Samples, limits: Limits, alpha: float) -> None:
    points = result.candidate.error_ratio - result.base.error_ratio
    if abs(points) < limits.min_error_points:
        return
    from scipy import stats

    table = [[candidate.errors, candidate.count - candidate.errors], [base.errors, base.count - base.errors]]
    if float(stats.fisher_exact(table).pvalue) >= alpha:
        return
    result.reasons.append(f"errors {result.base.error_ratio:.1%} -> {result.candidate.error_ratio:.1%}")
    if points > 0:
        result.verdict = "regression"
    elif result.verdict == "same":
        result.verdict = "improvement"


def to_dict(comparison: Comparison) -> dict[str, Any]:
    """Plain data for JSON."""
    import dataclasses

    return dataclasses.asdict(comparison) | {"exit_status": comparison.exit_status}


def to_markdown(comparison: Comparison) -> str:
    """A comment for a merge request: the verdict, what changed, and a table of the rest."""
    lines = [f"## kubetape: {comparison.verdict}", ""]
    changed = [d for d in comparison.differences if d.verdict in ("regression", "improvement")]
    for d in changed:
        lines.append(f"- **{d.verdict}** {_what(d)}: {'; '.join(d.reasons)}")
    if changed:
        lines.append("")
    lines += [
        "| verdict | what | requests | p50 | p95 | p99 | errors |",
        "|---|---|---|---|---|---|---|",
    ]
    for d in comparison.differences[:50]:
        b, c = d.base, d.candidate
        lines.append(
            f"| {d.verdict} | {_what(d)} | {b.count} -> {c.count} | {duration(b.p50_ns)} -> {duration(c.p50_ns)} "
            f"| {duration(b.p95_ns)} -> {duration(c.p95_ns)} | {duration(b.p99_ns)} -> {duration(c.p99_ns)} "
            f"| {b.error_ratio:.1%} -> {c.error_ratio:.1%} |"
        )
    if len(comparison.differences) > 50:
        lines.append(f"\n{len(comparison.differences) - 50} more, see the JSON.")
    lines += ["", *(f"- {note}" for note in comparison.notes)]
    return "\n".join(lines).rstrip() + "\n"


def to_junit(comparison: Comparison) -> str:
    """JUnit XML: one test case for each entity; a regression fails, an inconclusive one is skipped."""
    from xml.sax.saxutils import escape, quoteattr

    cases = []
    for d in comparison.differences:
        inner = ""
        if d.verdict == "regression":
            inner = f"<failure message={quoteattr('; '.join(d.reasons))}>{escape(_what(d))}</failure>"
        elif d.verdict == "inconclusive":
            inner = f"<skipped message={quoteattr('; '.join(d.reasons))}/>"
        name = f"classname={quoteattr(d.kind + '.' + d.server)} name={quoteattr(_what(d))}"
        cases.append(f"  <testcase {name}>{inner}</testcase>")
    failed = sum(d.verdict == "regression" for d in comparison.differences)
    skipped = sum(d.verdict == "inconclusive" for d in comparison.differences)
    head = f'<testsuite name="kubetape compare" tests="{len(cases)}" failures="{failed}" skipped="{skipped}">'
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + head + "\n" + "\n".join(cases) + "\n</testsuite>\n"


def _what(d: Difference) -> str:
    text = " ".join(p for p in (d.operation, d.name) if p)
    text = " ".join(text.split())
    text = text if len(text) <= 160 else text[:159] + "…"
    return f"{d.server} {d.protocol} `{text.replace('|', chr(92) + '|')}`"
