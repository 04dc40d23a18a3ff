"""pt-query-digest on the same MySQL traffic: the same digests, as often, for as long."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab.shop import Shop

pytestmark = [pytest.mark.live, pytest.mark.lab]
KUBETAPE = [sys.executable, "-m", "kubetape"]
SECONDS = 8
# Left out: administration commands, and `set names utf8mb4`, in which pt-query-digest takes 8 and 4 for values.
STATEMENTS = ("select", "insert", "update", "delete", "begin", "commit")


def captured(folder: Path) -> tuple[Path, str]:
    """A capture of the shop's database, connections seen from their beginning; its address."""
    pcap = folder / "mysql.pcap"
    with Shop(rate=0) as shop:
        pod = shop.one("mysql")
        capture = pod.spawn(
            shop.tree, ["tcpdump", "-i", "eth0", "-s", "0", "-U", "-w", str(pcap), "port", "3306"], folder / "log"
        )
        time.sleep(1)
        shop.rate = 60
        load = shop.one("load")
        load.start(shop.tree, shop.command(load), shop.folder)
        time.sleep(SECONDS)
        capture.send_signal(signal.SIGINT)
        capture.wait()
        return pcap, pod.ip


def theirs(pcap: Path, ip: str, folder: Path) -> dict[str, tuple[int, float]]:
    """(count, seconds in sum) by fingerprint."""
    text = folder / "mysql.txt"
    with text.open("wb") as out:
        subprocess.run(
            ["tcpdump", "-r", str(pcap), "-s", "65535", "-x", "-nn", "-q", "-tttt"],
            stdout=out, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    done = subprocess.run(
        ["pt-query-digest", "--type", "tcpdump", "--watch-server", f"{ip}:3306", "--limit", "100%", "--output", "json",
         "--no-version-check", str(text)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    classes: list[dict[str, Any]] = json.loads(done.stdout[done.stdout.index("{") :])["classes"]
    return {c["fingerprint"]: (c["query_count"], float(c["metrics"]["Query_time"]["sum"])) for c in classes}


def ours(pcap: Path, folder: Path) -> dict[str, tuple[int, float]]:
    bundle = folder / "mysql.ktape"
    subprocess.run([*KUBETAPE, "import", "pcap", str(pcap), "-o", str(bundle)], check=True, capture_output=True)
    # pt-query-digest's time ends with the first packet of the answer.
    query = (
        "SELECT resource, count(*) AS n, sum(ttfb_ns) / 1e9 AS s FROM request WHERE protocol = 'mysql' "
        "AND operation = 'COM_QUERY' AND outcome <> 'no_response' GROUP BY resource"
    )
    done = subprocess.run([*KUBETAPE, "sql", str(bundle), query, "--format", "json"], check=True, capture_output=True)
    return {row["resource"]: (row["n"], float(row["s"])) for row in json.loads(done.stdout)}


def test_digests_counts_and_times_agree(tmp_path: Path) -> None:
    pcap, ip = captured(tmp_path)
    mine = {k: v for k, v in ours(pcap, tmp_path).items() if k.startswith(STATEMENTS)}
    other = {k: v for k, v in theirs(pcap, ip, tmp_path).items() if k.startswith(STATEMENTS)}
    assert len(other) >= 5
    assert mine.keys() == other.keys()
    assert {k: n for k, (n, _) in mine.items()} == {k: n for k, (n, _) in other.items()}
    total, theirs_total = sum(s for _, s in mine.values()), sum(s for _, s in other.values())
    assert total == pytest.approx(theirs_total, rel=0.01)
