"""A probe of the user's own: its header becomes a struct, a record and a table; what is wrong with it is one line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from kubetape.capture.user_probe import MAX_PROBES, from_json, read, table
from kubetape.errors import CaptureError

EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "examples" / "probes").glob("*.c"))
GOOD = """/* kubetape-probe
name = "thing"
what = "one thing"
cost = "things are missing"
ladder = [["tracing:seen@sched_process_exec"], ["kprobe:seen@do_thing"]]

[columns]
small = "u8 a small number"
big = "s64 a number"
is_new = "bool whether it is new"
place = "ip where"
label = "text5 what"
*/
int seen(u64 *ctx) { return 0; }
"""


def written(folder: Path, text: str) -> str:
    path = folder / "thing.c"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_the_examples_are_good(path: Path) -> None:
    assert read(str(path)).name == path.stem


def test_rows_are_what_the_columns_say(tmp_path: Path) -> None:
    probe = read(written(tmp_path, GOOD))
    events = np.zeros(2, probe.layout().dtype)
    events["ts_ns"], events["small"], events["big"], events["is_new"] = (5, 6), (1, 2), (-3, 1 << 40), (0, 1)
    events["place"][:, 10:12] = 255
    events["place"][:, 12:] = [10, 0, 0, 7]
    events["label"] = [b"one\0x", b"two"]
    _, what, columns = from_json(probe.to_json())
    rows = table("n", events, what, columns)
    assert rows.to_pylist() == [
        {"node": "n", "ts_ns": 5, "small": 1, "big": -3, "is_new": False, "place": "10.0.0.7", "label": "one"},
        {"node": "n", "ts_ns": 6, "small": 2, "big": 1 << 40, "is_new": True, "place": "10.0.0.7", "label": "two"},
    ]
    assert rows.schema.field("big").metadata == {b"doc": b"a number"}


def test_the_record_has_the_c_compilers_layout(tmp_path: Path) -> None:
    """As gcc lays out the struct that the probe's source has."""
    probe = read(written(tmp_path, GOOD))
    struct = probe.source().partition("static")[0]
    fields = probe.layout().dtype.fields
    assert fields is not None
    checks = "".join(
        f'_Static_assert(__builtin_offsetof(struct thing, {name}) == {fields[name][1]}, "{name}");\n' for name in fields
    )
    types = "typedef unsigned char u8; typedef unsigned long long u64; typedef long long s64;\n"
    size = f'_Static_assert(sizeof(struct thing) == {probe.layout().dtype.itemsize}, "size");\n'
    done = subprocess.run(
        ["gcc", "-xc", "-fsyntax-only", "-"], input=types + struct + checks + size, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "thing"', 'name = "socket_data"', "taken"),
        ('name = "thing"', 'name = "mine"\nwhat_ever = 1', "unknown key 'what_ever'"),
        ('name = "thing"', 'name = "Thing"', "small letters"),
        ('name = "thing"', 'name = "derived"', "taken"),
        ('cost = "things are missing"\n', "", "needs cost"),
        ('"u8 a', '"int a', "type 'int'"),
        ('"s64 a number"', '"s64"', "say what it is"),
        ("text5", "text999", "text999"),
        ("small =", "node =", "not a name a column can have"),
        ("tracing:seen@", "uprobe:seen@", "KIND"),
        ("tracing:seen@", "tracing:unseen@", "no function 'int unseen(...)'"),
        ("[columns]", "[columns", "no TOML"),
        ("/* kubetape-probe", "/* some other comment", "begins with the comment"),
        ("int seen", '#include "sched.c"\nint seen', "#include"),
        ('"text5 what"', '"text256 a"\nmore = "text256 b"', "at most"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(CaptureError) as problem:
        read(path, reserved={"derived"})
    assert message in str(problem.value)
    assert str(problem.value).startswith(path)
    assert "\n" not in str(problem.value)


def test_no_more_than_there_are_counters_for(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="at most"):
        read(written(tmp_path, GOOD), MAX_PROBES)
