"""Names for addresses, against what nm says of a program built here; hostile files and processes that are gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kubetape.capture.convert_stacks import _distinct
from kubetape.capture.elf import ElfError
from kubetape.capture.stacks import Space, Spaces, read_mappings
from kubetape.capture.symbols import ElfNames, JitNames, Symboliser, demangle

C = """
int first(int a) { return a * 3; }
int second(int a) { return first(a) + 1; }
int main(void) { return second(1); }
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elf")
    (folder / "small.c").write_text(C)
    subprocess.run(["gcc", "-O0", "-o", folder / "small", folder / "small.c"], check=True)
    subprocess.run(["strip", "-o", folder / "stripped", folder / "small"], check=True)
    return folder


def functions(path: Path) -> dict[str, tuple[int, int]]:
    """By nm: name -> (address, size)."""
    lines = subprocess.run(["nm", "-S", path], capture_output=True, text=True, check=True).stdout.splitlines()
    parts = [line.split() for line in lines]
    return {p[3]: (int(p[0], 16), int(p[1], 16)) for p in parts if len(p) == 4 and p[2] in "tT"}


def test_every_byte_of_a_function_has_its_name(program: Path) -> None:
    names = ElfNames(str(program / "small"))
    for name in ("first", "second", "main"):
        begin, size = functions(program / "small")[name]
        assert {names.name(begin + i) for i in range(size)} == {name}
        assert names.name(begin + size) != name


def test_without_names_an_address_stands_for_its_function(program: Path) -> None:
    names = ElfNames(str(program / "stripped"))
    for begin, size in (functions(program / "small")[name] for name in ("first", "second", "main")):
        assert names.name(begin) is None
        assert {names.begin(begin + i) for i in range(size)} == {begin}


def test_cut_and_foreign_files_are_refused_and_nothing_else(program: Path, tmp_path: Path) -> None:
    whole = (program / "small").read_bytes()
    rng = np.random.default_rng(7)
    for i in range(200):
        data = bytearray(whole[: int(rng.integers(1, len(whole)))] if i % 2 else whole)
        for at in rng.integers(0, min(len(data), 4096), 8):
            data[at] = int(rng.integers(0, 256))
        (tmp_path / "bad").write_bytes(data)
        try:
            names = ElfNames(str(tmp_path / "bad"))
        except (ElfError, OSError, ValueError):
            continue
        names.name(0x1139)


def test_a_compilers_map() -> None:
    names = JitNames("1000 20 old\n1020 10 other one\nnonsense\n1000 10 JS:*new /a.js:1:2\nzz 1 x\n")
    assert names.name(0x1008) == "JS:*new /a.js:1:2"
    assert names.name(0x1018) is None
    assert names.name(0x102F) == "other one"
    assert (names.name(0xFFF), names.name(0x1030)) == (None, None)


def test_names_as_in_the_source() -> None:
    assert demangle("main") == "main"
    assert demangle("_ZN3foo3barEi") == "foo::bar(int)"
    assert demangle("_ZN4core3fmt5write17h0123456789abcdefE") == "core::fmt::write"


def test_a_process_that_is_gone_or_sets_a_trap(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    spaces = Spaces()
    space = spaces._space(child.pid, 0)
    time.sleep(0.2)
    space.mappings = [read_mappings(child.pid)]
    trap = Path(f"/tmp/perf-{child.pid}.map")
    os.mkfifo(trap)  # opening it for reading would wait for a writer
    try:
        child.kill()
        child.wait()
        spaces.spaces.append(space)
        spaces._last[child.pid] = space
        spaces.finish()
        assert space.jit == ""
        start, end, _, _, path = next(m for m in space.mappings[0] if "libc" in m[4])
        found = [Symboliser(spaces).user(space, a, False) for a in range(start, end, (end - start) // 50)]
        assert {n.module for n in found} == {path}
        assert any(n.basis == "elf" for n in found)
        assert Symboliser(spaces).user(space, 1, True).symbol == "[unknown]"
        assert Symboliser(spaces).user(None, start, True).symbol == "[unknown]"
        assert Symboliser(spaces).user(Space(1, 0, 1, 0), start, True).symbol == "[unknown]"
    finally:
        trap.unlink()
        spaces.close()


def test_equal_stacks_are_one_and_others_are_not() -> None:
    stacks = [[1, 2, 3], [1, 2], [3, 2, 1], [1, 2, 3], [], [1, 2]]
    values = np.array([v for s in stacks for v in s])
    counts = np.array([len(s) for s in stacks])
    owner = np.repeat(np.arange(len(stacks)), counts)
    depth = np.concatenate([np.arange(len(s)) for s in stacks]).astype(np.int64)
    numbers, first = _distinct(values, counts, owner, depth)
    assert numbers.tolist() == [1, 2, 3, 1, 4, 2]
    assert sorted(first.tolist()) == [0, 1, 2, 4]
