"""Findings: what is wrong and where, by rules that are data.

A rule is two files in `rules/`: NAME.sql, a query whose rows are findings, and NAME.md, the page that
`kubetape explain NAME` prints. The query's header:

    -- First comment line: what the rule finds.
    -- Inputs: tables it reads.
    -- Kind: root, cause, consequence or notice.
    -- Effect: failure, timeout, slowness or work. Optional; see below. Rows may have a column of their own for it.
    -- Rollup: yes. Optional; several findings on edges are one about the nodes or zones between which they are
    --   (levels.py), or about the end that they share.

and its columns: severity, scope_kind, scope, title, summary, evidence (a query that shows the rows), confidence
(0 to 1), impact_ns (time it cost, for ranking), first_ns, last_ns, entities (names it is about); of a root also
explains: names of pods, workloads, edges ("a -> b"), statement digests or nodes whose troubles follow from it, and,
where it may itself only follow from what a workload does, yields_to: that workload; of a cause also about: further
names that a root may explain, and, of one on an edge, aside: true where nothing that its caller serves waits for that
edge, so that none of it fails because of it; of one with a rollup links: pairs of pods ('namespace/name') between
which the trouble was seen, and what: the trouble, as a title ends.

Effect, of a cause: failure is what a server may only pass on from those it calls; timeout is a failure that slowness
can bring about; work is what a program does whatever happens to it. Of a root: slowness explains no failures and no
work, only timeouts and what is slow. Without an effect everything is possible.

One trouble shows in many rules, and the reader wants the smallest cause that explains it. So a cause whose scope a
root explains becomes a notice that points to the root, and a consequence points to what explains the servers it
reaches: a replica is slow because it is throttled, and the gateway because of that replica.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from kubetape.analyze.findings import levels
from kubetape.errors import KubetapeError

SEVERITIES = ("critical", "warning", "notice", "info")
FAILURES = ("failure", "timeout")
# What costs less than this share of the time that calls take is not what makes them slow.
LEAST_SHARE = 0.05
# A slow call is passed on to one behind it that takes at least this share of its time.
MOST_OF_IT = 0.3
KINDS = ("root", "cause", "consequence", "notice")

SCHEMA = pa.schema(
    [
        ("rule", pa.string()),
        ("severity", pa.string()),
        ("rank", pa.int64()),
        ("scope_kind", pa.string()),
        ("scope", pa.string()),
        ("title", pa.string()),
        ("summary", pa.string()),
        ("evidence", pa.string()),
        ("confidence", pa.float64()),
        ("impact_ns", pa.int64()),
        ("first_ns", pa.int64()),
        ("last_ns", pa.int64()),
        ("loss_could_change_it", pa.bool_()),
        ("caused_by", pa.string()),
        ("entities", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class Rule:
    """name; summary: its first line; inputs: tables read; kind: one of KINDS; query; page: Markdown; effect, rollup: as
    in the header."""

    name: str
    summary: str
    inputs: tuple[str, ...]
    kind: str
    query: str
    page: str
    effect: str = ""
    rollup: bool = False


def read_rules(folder: Traversable) -> dict[str, Rule]:
    """Every rule of a folder by name. Raises ValueError for an incomplete header, OSError for a missing page."""
    rules = {}
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".sql"):
            name = entry.name[:-4]
            page = folder.joinpath(f"{name}.md").read_text("utf8")
            rules[name] = parse_rule(name, entry.read_text("utf8"), page)
    return rules


def user_rules(folder: str) -> dict[str, Rule]:
    """Rules that a user keeps in a folder of their own, beside ours or in place of those of the same name.

    Raises KubetapeError, one line.
    """
    try:
        return read_rules(Path(folder))
    except (OSError, ValueError) as error:
        raise KubetapeError(f"rules of {folder}: {error}") from error


def parse_rule(name: str, text: str, page: str) -> Rule:
    """A rule from its two files. Raises ValueError where the header lacks a part."""
    header = dict(re.findall(r"^-- (Inputs|Kind|Effect|Rollup): (.*)$", text, re.M))
    first = re.match(r"-- (.*)", text)
    if first is None or header.get("Kind") not in KINDS or "Inputs" not in header:
        raise ValueError(f"rule {name}: its header needs a first line, 'Inputs:' and 'Kind:'")
    inputs = tuple(word.strip() for word in header["Inputs"].split(","))
    return Rule(
        name, first[1], inputs, header["Kind"], text, page, header.get("Effect", ""), header.get("Rollup") == "yes"
    )


RULES = read_rules(files("kubetape.analyze").joinpath("findings").joinpath("rules"))


def explain(name: str) -> str:
    """The page of a rule. Raises KubetapeError for a name that is none."""
    if name not in RULES:
        raise KubetapeError(f"no rule {name!r}; rules: {', '.join(RULES)}")
    return RULES[name].page


def find(database: duckdb.DuckDBPyConnection, rules: Iterable[Rule], loss_ratio: float) -> Any:
    """All findings as pyarrow.Table of SCHEMA, ranked; the tables the rules read must be there.

    loss_ratio: share of the recording's bytes that were lost; findings that rest on rates say if it could change them.
    """
    found: list[dict[str, Any]] = []
    for rule in rules:
        try:
            rows = database.sql(_typed(rule.query)).to_arrow_table().to_pylist()
        except duckdb.Error as error:
            raise KubetapeError(f"rule {rule.name}: {str(error).splitlines()[0]}") from error
        mine = [{"rule": rule.name, "kind": rule.kind, "effect": rule.effect, **row} for row in rows]
        if any(f.get("links") for f in mine):
            mine = levels.roll_up(mine, levels.read_links(database))
        found += _roll_up(mine) if rule.rollup else mine
    # Connections, not calls: who cannot be reached gets no request.
    edges = database.execute("SELECT DISTINCT client_name, server_name FROM connection_health").fetchall()
    callees: dict[str, set[str]] = {}
    aside = {(f["entities"][0], f["entities"][-1]) for f in found if f.get("aside")}
    for client, server in set(edges) - aside:
        callees.setdefault(client, set()).add(server)
    _yield(found)
    _point_to_roots(found)
    _pass_on(found, callees)
    _point_to_causes(found, callees)
    found.sort(
        key=lambda f: (
            SEVERITIES.index(f["severity"]),
            f["kind"] == "notice",
            -(f["impact_ns"] or 0) * (f["confidence"] or 0),
            f["rule"],
            f["scope"] or "",
        )
    )
    for rank, finding in enumerate(found, 1):
        finding["rank"] = rank
        finding["loss_could_change_it"] = loss_ratio > 0.01 and (finding["confidence"] or 0) < 0.9
    return pa.Table.from_pylist([{name: f.get(name) for name in SCHEMA.names} for f in found], schema=SCHEMA)


def _typed(query: str) -> str:
    """A rule's query with the types of SCHEMA, whatever its arithmetic made of them."""
    return (
        f"SELECT * REPLACE (confidence::DOUBLE AS confidence, impact_ns::BIGINT AS impact_ns, "
        f"first_ns::BIGINT AS first_ns, last_ns::BIGINT AS last_ns) FROM (\n{query}\n)"
    )


def _follows(finding: dict[str, Any], cause: dict[str, Any]) -> None:
    finding["severity"], finding["caused_by"] = "notice", cause["title"]


def _may_explain(root: dict[str, Any], finding: dict[str, Any]) -> bool:
    """By their effects: what only makes slow makes nobody answer with an error, and nobody ask more."""
    return not (root["effect"] == "slowness" and finding["effect"] in ("failure", "work"))


def _worst(findings: list[dict[str, Any]]) -> dict[str, Any]:
    return min(findings, key=lambda f: (SEVERITIES.index(f["severity"]), -(f["impact_ns"] or 0)))


def _is_loud(finding: dict[str, Any]) -> bool:
    return finding["severity"] in ("critical", "warning")


def _place(finding: dict[str, Any]) -> str:
    """The workload a finding is about; of an edge the one that is called."""
    names: list[str] = finding["entities"]
    return names[-1] if finding["scope_kind"] == "edge" else names[0]


def _reached(names: Iterable[str], callees: dict[str, set[str]]) -> set[str]:
    """Everything called from `names`, directly or not."""
    reached: set[str] = set()
    todo = list(names)
    while todo:
        for name in callees.get(todo.pop(), ()):
            if name not in reached:
                reached.add(name)
                todo.append(name)
    return reached


def _roll_up(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Findings on edges that share an end are one about that end: a lossy node is not forty lossy links."""
    rest = sorted(found, key=lambda f: (SEVERITIES.index(f["severity"]), -(f["impact_ns"] or 0)))
    result: list[dict[str, Any]] = []
    while rest:
        counts = Counter(name for f in rest for name in set(f["entities"]))
        shared, count = max(counts.items(), key=lambda item: (item[1], item[0]))
        if count < 2:
            return [*result, *rest]
        group = [f for f in rest if shared in f["entities"]]
        rest = [f for f in rest if shared not in f["entities"]]
        first = levels.merged(group)
        first["title"] += f" (and {count - 1} more link{'s' if count > 2 else ''} of {shared})"
        first["summary"] += "".join(f" {f['title']}." for f in group[1:6])
        first["scope_kind"], first["scope"] = "workload", shared
        first["entities"] = [shared, *dict.fromkeys(n for f in group for n in f["entities"] if n != shared)]
        result.append(first)
    return result


def _yield(found: list[dict[str, Any]]) -> None:
    """A root that only shows how hard a workload works follows from what is wrong with that workload's work."""
    for finding in found:
        names = set(finding.get("yields_to") or [])
        mine = [f for f in found if f["kind"] == "cause" and _is_loud(f) and _place(f) in names]
        if mine:
            _follows(finding, _worst(mine))


def _pass_on(found: list[dict[str, Any]], callees: dict[str, set[str]]) -> None:
    """Who fails because those it calls fail is not the cause; the one farthest down the calls is."""
    for finding in found:
        if finding["kind"] != "cause" or finding["effect"] not in FAILURES or not _is_loud(finding):
            continue
        below = _reached([_place(finding)], callees) - {_place(finding)}
        mine = [
            f for f in found
            if _is_loud(f) and (f["kind"] == "root" or f["effect"] in FAILURES) and _may_explain(f, finding)
            and _place(f) in below
        ]  # fmt: skip
        deepest = [f for f in mine if not any(_place(o) in _reached([_place(f)], callees) - {_place(f)} for o in mine)]
        if deepest or mine:
            _follows(finding, _worst(deepest or mine))


def _point_to_roots(found: list[dict[str, Any]]) -> None:
    """A cause whose scope, or what it names in particular, is explained by a root is a notice that names the root."""
    roots = [f for f in found if f["kind"] == "root" and _is_loud(f)]
    for finding in found:
        if finding["kind"] == "cause":
            about = {finding["scope"], *finding["entities"][1 if finding["scope_kind"] == "pod" else 0 :]}
            about |= set(finding.get("about") or [])
            mine = [r for r in roots if about & set(r["explains"] or []) and _may_explain(r, finding)]
            if mine:
                _follows(finding, _worst(mine))


def _point_to_causes(found: list[dict[str, Any]], callees: dict[str, set[str]]) -> None:
    """A consequence is a notice that names the worst cause at its server or behind it, else at its caller."""
    causes = [f for f in found if f["kind"] in ("root", "cause") and _is_loud(f)]
    at = {id(c): _at(c).union(*(_at(f) for f in found if f.get("caused_by") == c["title"])) for c in causes}
    for finding in found:
        if finding["kind"] == "consequence":
            server = _place(finding)
            behind = {server, finding["scope"], *_reached([server], callees)}
            for places in (behind, {*finding["entities"], *_reached(finding["entities"], callees)}):
                mine = [c for c in causes if at[id(c)] & places and _weighs(c, finding)]
                if mine:
                    _follows(finding, _worst(mine))
                    break
    _point_downwards([f for f in found if f["kind"] == "consequence" and _is_loud(f)], callees)


def _point_downwards(slow: list[dict[str, Any]], callees: dict[str, set[str]]) -> None:
    """Of slow calls that nothing explains those farthest down are where the time goes; the others wait for them."""
    followed = []
    for finding in slow:
        behind = _reached([_place(finding)], callees) - {_place(finding)}
        mine = [
            f for f in slow
            if _place(f) in behind and (f["impact_ns"] or 0) >= MOST_OF_IT * (finding["impact_ns"] or 0)
        ]  # fmt: skip
        deepest = [f for f in mine if not any(_place(o) in _reached([_place(f)], callees) - {_place(f)} for o in mine)]
        if deepest:
            followed.append((finding, _worst(deepest)))
    for finding, cause in followed:
        _follows(finding, cause)


def _weighs(cause: dict[str, Any], finding: dict[str, Any]) -> bool:
    """Where all a cause does is to take time, its time has to count among that of what it is to explain."""
    return cause["effect"] != "slowness" or (cause["impact_ns"] or 0) >= LEAST_SHARE * (finding["impact_ns"] or 0)


def _at(cause: dict[str, Any]) -> set[str]:
    """Where a cause is. One between two workloads is at that edge and at its caller: it shows in what he serves."""
    names = cause["entities"][:1] if cause["scope_kind"] == "edge" else cause["entities"]
    if cause.get("aside"):
        names = []
    return {cause["scope"], *names, *(cause.get("explains") or [])}
