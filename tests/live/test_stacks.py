"""Programs whose hot functions are known: the samples name them, however the program was built and however it ends."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.bundle.reader import Bundle
from tests.live.recording import SLOWER, record
from tests.live.test_stops import started

pytestmark = pytest.mark.live

# 4/5 of the time in one function, 1/5 in another, both called from a third, for the seconds given of CPU time.
C = """
#include <stdlib.h>
#include <time.h>
volatile unsigned long sink;
__attribute__((noinline)) void hot_part(void) { for (int i = 0; i < 800000; i++) sink += i; }
__attribute__((noinline)) void cool_part(void) { for (int i = 0; i < 200000; i++) sink += i; }
__attribute__((noinline)) void both_parts(void) { hot_part(); cool_part(); sink++; }
int main(int count, char **words) {
    clock_t end = clock() + atof(words[1]) * CLOCKS_PER_SEC;
    while (clock() < end) both_parts();
}
"""
NODE = """
function hotPart(n) { let s = 0; for (let i = 0; i < n; i++) s = (s * 31 + i) % 1000003; return s }
const end = Date.now() + 1000 * process.argv[2]; let sum = 0
while (Date.now() < end) sum += hotPart(300000)
if (sum == 42) console.log(sum)
"""
GO = """
package main
import ("os"; "strconv"; "time")
//go:noinline
func hotPart(n int) int { s := 0; for i := 0; i < n; i++ { s = (s*31 + i) % 1000003 }; return s }
func main() {
    seconds, _ := strconv.ParseFloat(os.Args[1], 64)
    end, sum := time.Now().Add(time.Duration(seconds * 1e9)), 0
    for time.Now().Before(end) { sum += hotPart(1000000) }
    if sum == 42 { println(sum) }
}
"""
PYTHON = """
import sys, time
def hot_part(n):
    return sum(i * i % 7 for i in range(n))
end = time.thread_time() + float(sys.argv[1])
while time.thread_time() < end: hot_part(10000)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    (folder / "parts.c").write_text(C)
    # An optimising gcc gives functions that call no others no frame: their callers would be missing.
    build = ["gcc", "-O0", "-fno-omit-frame-pointer", "-o"]
    subprocess.run([*build, folder / "parts", folder / "parts.c"], check=True)
    shutil.copy(folder / "parts", folder / "stripped")
    subprocess.run(["strip", folder / "stripped"], check=True)
    return folder


def functions(path: Path, command: str) -> dict[str, dict[str, Any]]:
    """Of one program: name -> the row of hot_function."""
    rows = Analysis(path).query(f"SELECT * FROM hot_function WHERE command = '{command}'").to_pylist()
    return {row["function"]: row for row in rows}


def test_a_c_program_and_what_each_function_used(tmp_path: Path, program: Path) -> None:
    record(tmp_path / "x.ktape", "--", str(program / "parts"), "2")
    found = functions(tmp_path / "x.ktape", "parts")

    assert found["hot_part"]["self_ratio"] > 0.5
    assert found["hot_part"]["self_ns"] > 1.5 * found["cool_part"]["self_ns"]
    assert found["both_parts"]["total_ratio"] > 0.95
    assert found["main"]["total_ratio"] > 0.95
    assert found["hot_part"]["module"] == str(program / "parts")
    # 99 samples of each second of CPU time; the process had 2 s of it.
    assert sum(row["self_ns"] for row in found.values()) == pytest.approx(2e9, rel=0.1)
    stacks = Analysis(tmp_path / "x.ktape").query("SELECT folded FROM sampled_stack WHERE command = 'parts'")
    assert any(f.endswith("main;both_parts;hot_part") for f in stacks.column("folded").to_pylist())


def test_a_stripped_program_has_one_name_for_each_function(tmp_path: Path, program: Path) -> None:
    symbols = subprocess.run(["nm", program / "parts"], capture_output=True, text=True, check=True).stdout
    begins = {line.split()[2]: int(line.split()[0], 16) for line in symbols.splitlines() if " T " in line}
    # In an emulated machine the loader takes longer than it should beside one second.
    record(tmp_path / "x.ktape", "--", str(program / "stripped"), "1" if SLOWER == 1 else "4")
    found = functions(tmp_path / "x.ktape", "stripped")

    hot = found[f"[stripped+{begins['hot_part']:#x}]"]
    assert hot["self_ratio"] > 0.5
    assert found[f"[stripped+{begins['main']:#x}]"]["total_ratio"] > 0.95


def test_code_compiled_by_node_after_the_program_ended(tmp_path: Path) -> None:
    (tmp_path / "hot.js").write_text(NODE)
    # It ends well before the recording does: what it wrote about its code is read nevertheless.
    script = f"cd {tmp_path}; node --perf-basic-prof hot.js 1.5; sleep 1"
    record(tmp_path / "x.ktape", "--", "/bin/sh", "-c", script)
    for process in Bundle(tmp_path / "x.ktape").table("process").to_pylist():
        if process["command"] == "node":
            Path(f"/tmp/perf-{process['pid']}.map").unlink(missing_ok=True)
    found = functions(tmp_path / "x.ktape", "node")
    hot = {name: row for name, row in found.items() if "hotPart" in name}
    assert sum(row["self_ratio"] for row in hot.values()) > 0.5, list(found)[:9]


@pytest.mark.skipif(not shutil.which("go") and os.environ.get("CI") != "true", reason="no Go compiler")
def test_a_stripped_go_program(tmp_path: Path) -> None:
    (tmp_path / "hot.go").write_text(GO)
    environment = os.environ | {"GOCACHE": str(tmp_path / "cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
    build = ["go", "build", "-ldflags", "-s -w", "-o", f"{tmp_path}/gopher", f"{tmp_path}/hot.go"]
    subprocess.run(build, check=True, env=environment)
    record(tmp_path / "x.ktape", "--", f"{tmp_path}/gopher", "1.5")
    found = functions(tmp_path / "x.ktape", "gopher")
    assert found["main.hotPart"]["self_ratio"] > 0.7
    assert found["runtime.main"]["total_ratio"] > 0.7


def test_python_before_3_12_shows_its_interpreter(tmp_path: Path) -> None:
    """Without a map of its code (-X perf, from 3.12) a Python function is the interpreter's loop, and said to be so."""
    record(tmp_path / "x.ktape", "--", "/usr/bin/python3", "-c", PYTHON, "1")
    found = functions(tmp_path / "x.ktape", "python3")
    assert found["_PyEval_EvalFrameDefault"]["self_ratio"] > 0.2


def test_only_what_is_in_scope_and_how_often_is_asked_for(tmp_path: Path, program: Path) -> None:
    inside, outside = (subprocess.Popen([program / "parts", str(20 * SLOWER)]) for _ in range(2))
    try:
        record(tmp_path / "x.ktape", "--pid", str(inside.pid), "--stack-hz", "49", "--duration", "2")
        record(tmp_path / "n.ktape", "--no-stacks", "--duration", "1")
    finally:
        for one in (inside, outside):
            one.kill()
            one.wait()
    samples = Bundle(tmp_path / "x.ktape").table("stack_sample")
    assert set(samples.column("pid").to_pylist()) == {inside.pid}
    assert set(samples.column("weight_ns").to_pylist()) == {1_000_000_000 // 49}
    times = samples.column("ts_ns").to_pylist()
    apart = sorted(b - a for a, b in itertools.pairwise(times))
    assert apart[len(apart) // 2] == pytest.approx(1e9 / 49, rel=0.1)  # it had a CPU for itself most of the time
    assert Bundle(tmp_path / "n.ktape").row_count("stack_sample") == 0


def test_a_recorder_that_was_killed_leaves_names_too(tmp_path: Path, program: Path) -> None:
    process = started(tmp_path / "x.ktape", "--", str(program / "parts"), "1.5")
    time.sleep(SLOWER)
    process.kill()
    process.communicate()
    command = [sys.executable, "-m", "kubetape", "recover", f"{tmp_path}/x.ktape.spool", "-o", f"{tmp_path}/r.ktape"]
    subprocess.run(command, check=True, capture_output=True)
    assert functions(tmp_path / "r.ktape", "parts")["hot_part"]["self_count"] > 10
