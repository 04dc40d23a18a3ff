"""`record --probe FILE`: a question of the user's own, its answers counted against what was done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.bundle.reader import Bundle
from tests.live.recording import RECORD, SLOWER, record, rows
from tests.live.test_stops import started

pytestmark = pytest.mark.live
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "probes"
STARTS = EXAMPLES / "program_start.c"

# A program without a file, as miners like it: copied into memory and run from there.
HIDDEN = """
import os
copy = os.memfd_create("x")
os.write(copy, open("/bin/true", "rb").read())
if os.fork() == 0: os.execve(copy, ["kworker/0:1"], {})
os.wait()
"""


def test_each_program_that_starts_and_each_file_that_does_not_open(tmp_path: Path) -> None:
    script = 'for i in $(seq 30); do /bin/true; done; for i in 1 2 3 4; do cat /no/such/file; done; exec "$0" -c "$1"'
    record(
        tmp_path / "x.ktape", "--probe", str(STARTS), "--probe", str(EXAMPLES / "open_failed.c"),
        "--", "/bin/sh", "-c", script, sys.executable, HIDDEN,
    )  # fmt: skip
    bundle = Bundle(tmp_path / "x.ktape")
    assert bundle.verify() == []
    starts = rows(bundle, "program_start")
    shell = next(r["pid"] for r in starts if r["program"] == "/bin/sh")
    children = [r for r in starts if r["parent_pid"] == shell]
    assert [r["program"] for r in children].count("/bin/true") == 30
    assert all(r["parent_command"] == "sh" and r["links"] >= 1 for r in children if r["program"] == "/bin/true")
    assert [r["links"] for r in children if "/fd/" in r["program"]] == [0]
    # The project's own probe counts the same.
    events = rows(bundle, "process_event", kind="exec", parent_pid=shell)
    assert len(events) == len(children)

    failed = [r for r in rows(bundle, "open_failed") if r["path"] == "/no/such/file"]
    assert [(r["command"], r["error"]) for r in failed] == [("cat", 2)] * 4

    probes = {p.probe: p for p in bundle.manifest.nodes[0].probes}
    assert (probes["program_start"].status, probes["program_start"].event_count) == ("attached", len(starts))
    answer = Analysis(tmp_path / "x.ktape").query(
        "SELECT count(*) AS n FROM program_start JOIN process USING (node, pid) WHERE program = '/bin/true'"
    )
    assert answer.to_pylist() == [{"n": 30}]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("row.uid =", "row.user =", ":{line}:"),
        ("sched_process_exec", "no_such_tracepoint", "no tracepoint no_such_tracepoint"),
        ("row.uid =", "row.uid = *(u32 *)(ctx[9] + 4);\n\trow.uid =", "does not attach"),
        ('name = "program_start"', 'name = "request"', "taken"),
    ],
)
def test_a_wrong_file_ends_in_one_line_that_says_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = STARTS.read_text()
    line = text.splitlines().index(next(t for t in text.splitlines() if "row.uid =" in t)) + 1
    bad = tmp_path / "bad.c"
    bad.write_text(text.replace(old, new))
    done = subprocess.run(
        [*RECORD, "-o", f"{tmp_path}/x.ktape", "--duration", "1", "--probe", str(bad)],
        capture_output=True, text=True, timeout=60 * SLOWER,
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert str(bad) in done.stderr
    assert message.format(line=line) in done.stderr
    assert list(tmp_path.iterdir()) == [bad]


def test_a_killed_recorder_leaves_its_rows_too(tmp_path: Path) -> None:
    process = started(tmp_path / "x.ktape", "--probe", str(STARTS))
    for _ in range(5):
        subprocess.run(["/bin/true"], check=True)
    subprocess.run(["sleep", str(0.5 * SLOWER)], check=True)
    process.kill()
    process.communicate()
    recover = [sys.executable, "-m", "kubetape", "recover", f"{tmp_path}/x.ktape.spool", "-o", f"{tmp_path}/r.ktape"]
    subprocess.run(recover, check=True, capture_output=True)
    found = rows(Bundle(tmp_path / "r.ktape"), "program_start", program="/bin/true")
    assert len(found) == 5
