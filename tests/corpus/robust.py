"""Damaged captures against whole ones: beginnings cut off, packets dropped, by the corpus's own judge.

`python -m tests.corpus.robust --cut 10 --drop 1 [--only mysql] [--seed 1] [--show 40]` prints a line per protocol:
requests to compare, share found again, share fully equal.

The judge compares, of a capture with dropped packets, the connections that lost none. `survivors` is stricter:
it compares, on the connections that were hit, the requests whose bytes all survived.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from kubetape.analyze.analysis import Analysis
from kubetape.analyze.requests import decode_all
from kubetape.bundle.reader import Bundle
from kubetape.capture.pcap import import_pcap
from kubetape.errors import KubetapeError
from tests.conftest import CORPUS

Counts = dict[str, collections.Counter[str]]


def _judge() -> Any:
    """The judge's module that damages captures, running kubetape in this process."""
    if str(CORPUS) not in sys.path:
        sys.path.insert(0, str(CORPUS))
    import judge_run  # type: ignore[import-not-found]

    def found(capture: str, kubetape: str = "", timeout: float = 0) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "x.ktape"
            try:
                import_pcap([capture], str(bundle))
            except KubetapeError as error:
                return judge_run.Run([], "refused", str(error))
            rows = Analysis(bundle).query(judge_run.SQL).to_pylist()
            return judge_run.Run([judge_run.found_row(row) for row in rows])

    judge_run.found = found
    return judge_run


def captures(only: str = "", every: int = 1) -> list[Any]:
    """Each `every`-th capture of the corpus whose name contains `only`."""
    chosen: list[Any] = _judge().captures(str(CORPUS), only)[::every]
    return chosen


def damaged(chosen: list[Any], cut: int, drop: float, seed: int) -> tuple[dict[str, Counts], list[dict[str, Any]]]:
    """({'cut' | 'drop': {protocol: counts}}, differences). Counts: requests, found, same, extra."""
    judge = _judge()
    args = argparse.Namespace(cut=cut, drop=drop, seed=seed, kubetape="", timeout=0)
    tables: dict[str, Counts] = {mode: collections.defaultdict(collections.Counter) for mode in ("cut", "drop")}
    differences: list[dict[str, Any]] = []
    for capture in chosen:
        result = judge.robust_one(capture, args)
        assert not result["problems"], result["problems"]
        folder = capture.name.split("/")[0]
        for mode, counts in tables.items():
            counts[folder].update(result[mode])
        differences += result["differences"]
    return tables, differences


def survivors(chosen: list[Any], share: float, seed: int) -> tuple[Counts, list[str]]:
    """Pieces of streams lost at random; of the requests whose bytes all survived, how many are the same.

    Counts: requests, same, hit (connections that lost a piece between others), silent (those of them that do
    not say so). Also the requests that differ, as text.
    """
    table: Counts = collections.defaultdict(collections.Counter)
    differences: list[str] = []
    chance = random.Random(seed)
    for capture in chosen:
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "x.ktape"
            import_pcap([capture.path], str(bundle))
            opened = Bundle(bundle)
            connections, data = opened.table("connection"), opened.table("socket_data")
        facts = {row["connection_id"]: row for row in connections.to_pylist()}
        lost = np.array([chance.random() < share for _ in range(len(data))], bool)
        if len(data) > 3 and not lost.any():
            lost[chance.randrange(1, len(data) - 1)] = True
        whole, rest = decode_all(connections, data), decode_all(connections, data.filter(~lost))
        gone = collections.defaultdict(list)
        places = data.select(["connection_id", "ts_ns", "position", "size_bytes"])
        for row in places.filter(lost).to_pylist():
            gone[row["connection_id"]].append((row["ts_ns"], row["position"], row["size_bytes"]))
        folder_name = capture.name.split("/")[0]
        again = collections.Counter(_key(row) for row in rest.request.to_pylist())
        for row in whole.request.to_pylist():
            if row["connection_id"] not in gone or _touched(row, gone[row["connection_id"]]):
                continue
            table[folder_name]["requests"] += 1
            key = _key(row)
            if again[key]:
                again[key] -= 1
                table[folder_name]["same"] += 1
            else:
                differences.append(f"{capture.name}: {key}")
        before = {row["connection_id"]: row for row in whole.coverage.to_pylist()}
        after = {row["connection_id"]: row for row in rest.coverage.to_pylist()}
        for number, row in after.items():
            # Of datagrams, and of streams that began before the capture, nobody knows what came first and last.
            known = (
                facts[number]["sent_from_position"] is not None and facts[number]["received_from_position"] is not None
            )
            ends_same = row["total_bytes"] == before[number]["total_bytes"]
            if number in gone and (known or ends_same) and row["seen_bytes"] < before[number]["seen_bytes"]:
                table[folder_name]["hit"] += 1
                table[folder_name]["silent"] += row["lost_bytes"] == 0
    return table, differences


def _touched(row: dict[str, Any], gone: list[tuple[int, int, int]]) -> bool:
    """Whether lost bytes lie in the request or its response, whichever direction either was."""
    for start, size in (
        (row["request_position"], row["request_bytes"]),
        (row["response_position"], row["response_bytes"]),
    ):
        # Datagrams have no positions: theirs is 0, and they are known by their times.
        if start == 0:
            times = {row["start_ns"], row["response_start_ns"], row["end_ns"]}
            if any(ts in times for ts, at, _ in gone if at == 0):
                return True
        elif start is not None and any(at < start + size and start < at + length for _, at, length in gone):
            return True
    return False


COMPARED = (
    "connection_id", "protocol", "operation", "resource", "statement", "status", "outcome", "start_ns", "end_ns",
)  # fmt: skip


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in COMPARED)


def _print(title: str, table: Counts) -> None:
    total: collections.Counter[str] = collections.Counter()
    print(title)
    for counts in table.values():
        total.update(counts)
    for folder, counts in [*sorted(table.items()), ("all", total)]:
        if not counts["requests"] and not counts["extra"]:
            continue
        of = max(1, counts["requests"])
        line = f"  {folder:<12} {counts['requests']:>6} requests  same {counts['same'] / of:.4f}"
        line += "".join(f"  {name} {counts[name]}" for name in ("found", "extra", "hit", "silent") if counts[name])
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--cut", type=int, default=0)
    parser.add_argument("--drop", type=float, default=0)
    parser.add_argument("--lose", type=float, default=0, help="share of the pieces, see survivors")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0)
    args = parser.parse_args()
    chosen = captures(args.only, args.every)
    if args.cut or args.drop:
        tables, differences = damaged(chosen, args.cut, args.drop, args.seed)
        for mode, table in tables.items():
            _print(mode, table)
        for row in differences[: args.show]:
            print(row["kind"], row["mode"], row["packets"], row["file"], row["row"])
    if args.lose:
        table, missing = survivors(chosen, args.lose, args.seed)
        _print("lost pieces", table)
        for text in missing[: args.show]:
            print(text[:400])


if __name__ == "__main__":
    main()
