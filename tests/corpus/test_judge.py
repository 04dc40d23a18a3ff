"""Every capture of the corpus against its truth, by the corpus's own judge, in this process.

FLOORS is what was reached, protocol by protocol: a change may raise a floor, none may fall below it.
`python -m tests.corpus.test_judge` prints the table and every difference.
"""

from __future__ import annotations

import collections
import functools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.capture.pcap import import_pcap
from kubetape.errors import KubetapeError
from tests.conftest import CORPUS

# The whole corpus takes a minute; a machine busy with other tests needs several.
pytestmark = [pytest.mark.corpus, pytest.mark.timeout(1800)]
FLOORS_FILE = Path(__file__).parent / "floors.json"


@functools.cache
def judged() -> dict[str, Any]:
    """The judge's counts per protocol, its differences, misnamed connections, and captures not read."""
    sys.path.insert(0, str(CORPUS))
    import judge  # type: ignore[import-not-found]
    import judge_run  # type: ignore[import-not-found]
    import judge_truth  # type: ignore[import-not-found]

    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    result: dict[str, Any] = {"table": table, "differences": [], "misnamed": [], "refused": []}
    with tempfile.TemporaryDirectory() as folder:
        for capture in judge_run.captures(str(CORPUS), ""):
            want = judge_truth.expected(json.loads(Path(capture.truth).read_text("utf8")), capture.protocols)
            bundle = Path(folder) / "x.ktape"
            try:
                import_pcap([capture.path], str(bundle))
            except KubetapeError as error:
                result["refused"].append((capture.name, str(error)))
                continue
            rows = [judge_run.found_row(row) for row in Analysis(bundle).query(judge_run.SQL).to_pylist()]
            one = judge.compare(want, rows)
            for protocol, counts in one["table"].items():
                table[protocol].update(counts)
            for kind in ("differences", "misnamed"):
                result[kind] += [{**row, "file": capture.name} for row in one[kind]]
    return result


def share(counts: collections.Counter[str]) -> float:
    """Exact rows among the hard rows and those soft ones that were found (as the judge counts)."""
    of = counts["hard"] + counts["soft_found"]
    return counts["exact"] / of if of else 1.0


def test_every_capture_is_read(corpus: Path) -> None:
    assert judged()["refused"] == []


def test_no_protocol_falls_below_what_it_reached(corpus: Path) -> None:
    floors: dict[str, dict[str, float]] = json.loads(FLOORS_FILE.read_text("utf8"))
    table = judged()["table"]
    fallen = {
        protocol: (round(share(table[protocol]), 4), table[protocol]["invented"], floor)
        for protocol, floor in floors.items()
        if share(table[protocol]) < floor["exact_share"] or table[protocol]["invented"] > floor["invented"]
    }
    assert fallen == {}


def test_no_connection_gets_a_wrong_name(corpus: Path) -> None:
    assert judged()["misnamed"] == []


def main() -> None:
    """Print the table and all differences; with `--floors` write what was reached as the new floors."""
    result = judged()
    total: collections.Counter[str] = collections.Counter()
    for protocol, counts in sorted(result["table"].items()):
        total.update(counts)
        print(f"{protocol:<12} {counts['hard']:>6} hard  {share(counts):.4f} exact  {counts['invented']:>4} invented")
    print(f"{'all':<12} {total['hard']:>6} hard  {share(total):.4f} exact  {total['invented']:>4} invented")
    for row in result["misnamed"] + result["refused"]:
        print("misnamed or refused:", row)
    if "--floors" in sys.argv:
        floors = {
            protocol: {"exact_share": int(share(counts) * 10_000) / 10_000, "invented": counts["invented"]}
            for protocol, counts in sorted(result["table"].items())
            if counts["hard"]
        }
        FLOORS_FILE.write_text(json.dumps(floors, indent=1) + "\n", "utf8")
    else:
        for row in result["differences"]:
            print(json.dumps(row)[:400])


if __name__ == "__main__":
    main()
