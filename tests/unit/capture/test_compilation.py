"""What the compiler's process hands over: texts compiled side by side share the maps that both have."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubetape.capture import compilation, program
from kubetape.capture.recorder import kernel_types
from kubetape.errors import CaptureError

HEAD = "#include <kubetape_types.h>\nBPF_HASH(numbers, u32, u64, 64);\nBPF_PERCPU_ARRAY(counts, u32, 2);\n"
FIRST = HEAD + "int first(u64 *ctx) { u32 key = 1; u64 value = 7; numbers.update(&key, &value); return 0; }\n"
SECOND = (
    HEAD + "BPF_ARRAY(own, u32, 3);\nint second(u64 *ctx) { u32 key = 0; u64 *v = numbers.lookup(&key); return !v; }\n"
)


@pytest.fixture(scope="module")
def module() -> Iterator[compilation.Module]:
    types = kernel_types()
    assert types is not None
    with compilation.header_tree(types):
        made = compilation.Module([compilation.Compilation(text) for text in (FIRST, SECOND)])
    yield made
    made.close()


def descriptors(code: bytes) -> set[int]:
    """Of the maps in the instructions (BPF_LD_IMM64 with BPF_PSEUDO_MAP_FD)."""
    rows = [code[at : at + 8] for at in range(0, len(code), 8)]
    return {int.from_bytes(row[4:8], "little") for row in rows if row[0] == 0x18 and row[1] >> 4 == 1}


@pytest.mark.live
def test_a_map_of_two_texts_is_one(module: compilation.Module) -> None:
    assert descriptors(module.instructions("first")) == {module.map_fd("numbers")}
    assert descriptors(module.instructions("second")) == {module.map_fd("numbers")}
    assert module.table("own").entry_count == 3


@pytest.mark.live
def test_programs_with_its_maps_are_accepted(module: compilation.Module) -> None:
    types = kernel_types()
    assert types is not None
    module.table("numbers")[1] = 5
    attachment = program.attach_tp_btf(module, types, "first", "sched_process_exec", "test")
    subprocess.run(["true"], check=True)
    attachment.detach()
    assert module.table("numbers")[1] == (7).to_bytes(8, "little")


@pytest.mark.live
def test_values_of_a_map(module: compilation.Module) -> None:
    table = module.table("numbers")
    for key, _ in list(table.items()):
        del table[key]
    table[3], table[4] = 30, 40
    table[4] = 41
    assert {int.from_bytes(k, "little"): int.from_bytes(v, "little") for k, v in table.items()} == {3: 30, 4: 41}
    del table[3]
    with pytest.raises(KeyError):
        table[3]
    with pytest.raises(KeyError):
        del table[3]


@pytest.mark.live
def test_values_of_all_cpus(module: compilation.Module) -> None:
    assert set(module.table("counts").per_cpu(1)) == {0}


@pytest.mark.live
def test_a_text_that_does_not_compile() -> None:
    types = kernel_types()
    with compilation.header_tree(types), pytest.raises(CaptureError, match=r"do not compile.*error.*nonsense"):
        compilation.compiled("int f(void *ctx) { return nonsense; }\n")


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("raise ImportError('no libbcc.so.0')\n", r"needs the distribution's bcc package \(no libbcc.so.0\): install"),
        ("name = 'another project'\n", "is not the BPF Compiler Collection: remove it"),
        ("raise SystemExit(3)\n", "the compiler of the probes ended without a result: no word"),
    ],
)
def test_a_bcc_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, message: str) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text(package)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(CaptureError, match=message):
        compilation.compiled("")
