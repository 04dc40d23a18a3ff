"""Every fault by itself, recorded under load and analyzed blind: at which rank does the report name it?"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.lab.demo import SETTLE_S, kubetape, record
from tests.lab.faults import FAULTS, Answer, Fault
from tests.lab.loads import Load
from tests.lab.shop import Shop

Row = dict[str, Any]


@dataclass
class Result:
    """faults: names, joined by `+` (none: a healthy shop); ranks: of each fault's right finding, None where none is.

    shown: the findings that stand by themselves in the report, in order: those that follow from another do not.
    """

    faults: str
    ranks: list[int | None]
    shown: list[Row]

    @property
    def loud(self) -> list[Row]:
        """Those above notice."""
        return [f for f in self.shown if f["severity"] in ("critical", "warning")]

    @property
    def first(self) -> str:
        """What the report begins with."""
        if not self.shown:
            return "nothing"
        return ("" if self.loud else "notice: ") + str(self.shown[0]["title"])

    @property
    def is_right(self) -> bool:
        """A fault alone is the first finding, of several each is in the first three, and a healthy shop has none."""
        if not self.ranks:
            return not self.loud
        limit = 1 if len(self.ranks) == 1 else 3
        return all(rank is not None and rank <= limit for rank in self.ranks)


def singles() -> list[tuple[Fault, ...]]:
    """Each fault by itself."""
    return [(fault,) for fault in FAULTS.values()]


def run(faults: Sequence[Fault], duration_s: float, rate: float, folder: Path) -> Result:
    """Start a shop, switch the faults on, record, analyze; prints one line."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "+".join(fault.name for fault in faults) or "healthy"
    bundle = folder / f"{name}.ktape"
    bundle.unlink(missing_ok=True)
    with Shop(rate=rate) as shop:
        answers = [fault.answer(shop) for fault in faults]
        for fault in faults:
            shop.apply(fault)
        time.sleep(SETTLE_S)
        record(shop, bundle, duration_s)
    keep(bundle, name, answers)
    return judge_again(bundle)


def run_healthy(load: Load, folder: Path) -> Result:
    """Record a shop without a fault under one load; prints one line."""
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / f"healthy-{load.name}.ktape"
    bundle.unlink(missing_ok=True)
    with Shop(rate=load.rate, workers=load.workers, uses=load.uses) as shop:
        load.prepare(shop)
        time.sleep(SETTLE_S)
        record(shop, bundle, load.duration_s)
    keep(bundle, f"healthy: {load.name}", [])
    return judge_again(bundle)


def keep(bundle: Path, name: str, answers: Sequence[Answer]) -> None:
    """Write the right answers beside the bundle."""
    answers_file(bundle).write_text(json.dumps({"name": name, "answers": [asdict(answer) for answer in answers]}))


def answers_file(bundle: Path) -> Path:
    return bundle.with_name(f"{bundle.name}.answers.json")


def judge_again(bundle: Path) -> Result:
    """Analyze a bundle whose right answers were kept; prints one line."""
    kept = json.loads(answers_file(bundle).read_text())
    answers = [Answer(tuple(a["rules"]), tuple(a["words"])) for a in kept["answers"]]
    result = judge(kept["name"], answers, findings(bundle))
    report(result)
    return result


def report(result: Result) -> None:
    verdict = "right" if result.is_right else "WRONG"
    print(f"{verdict}  {result.faults:<24} {result.ranks}  {result.first[:110]}", flush=True)


def findings(bundle: Path) -> list[Row]:
    rows: list[Row] = json.loads(
        kubetape("sql", str(bundle), "SELECT * FROM finding ORDER BY rank", "--format", "json")
    )
    return rows


def judge(name: str, answers: Sequence[Answer], found: Sequence[Row]) -> Result:
    """Ranks among the findings that the report shows by themselves."""
    shown = [f for f in found if f["caused_by"] is None]
    ranks = [next((n for n, f in enumerate(shown, 1) if answer.is_given_by(f)), None) for answer in answers]
    return Result(name, ranks, shown)


def table(results: Sequence[Result]) -> str:
    """Markdown: fault, right or wrong, rank of the right finding, first finding; and how many were right."""
    lines = ["| fault | | rank | findings above notice | first finding |", "|---|---|---|---|---|"]
    for result in results:
        ranks = ", ".join("none" if rank is None else str(rank) for rank in result.ranks) or "-"
        first = result.first.replace("|", "\\|")
        verdict = "right" if result.is_right else "wrong"
        lines.append(f"| {result.faults} | {verdict} | {ranks} | {len(result.loud)} | {first} |")
    right = sum(result.is_right for result in results)
    among = sum(all(rank is not None and rank <= 3 for rank in result.ranks) for result in results)
    lines.append(f"\n{right} of {len(results)} right; every fault in the first three in {among} of {len(results)}.")
    return "\n".join(lines) + "\n"
