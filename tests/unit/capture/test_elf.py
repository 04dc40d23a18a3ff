"""Places of functions in ELF files, compared with where the dynamic loader has put them."""

from __future__ import annotations

import ctypes
import random
from pathlib import Path

import pytest

from kubetape.capture import gobinary
from kubetape.capture.elf import Elf, ElfError

NAMES = ("getpid", "malloc", "strlen", "recvmsg")


def loaded_at(name: str) -> tuple[str, int]:
    """File and offset in it of a function of this process, as the loader resolved it."""
    address = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
    assert address
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, _, offset, _, _, *path = line.split(maxsplit=5)
        low, high = (int(part, 16) for part in place.split("-"))
        if low <= address < high:
            return path[0], address - low + int(offset, 16)
    raise AssertionError(name)


@pytest.mark.parametrize("name", ["getpid", "recvmsg", "socket"])
def test_offset_is_where_the_loader_found_it(name: str) -> None:
    path, offset = loaded_at(name)
    with Elf(path) as elf:
        assert elf.functions([name, "no_such_function"]) == {name: offset}


def test_what_is_only_used_is_not_defined(root: Path) -> None:
    with Elf("/proc/self/exe") as elf:
        assert "recvmsg" not in elf.functions(NAMES)


def test_files_that_are_none() -> None:
    for path in (__file__, "/dev/null", "/etc/passwd"):
        with pytest.raises((ElfError, OSError)):
            Elf(path)


def test_a_damaged_file_is_refused_or_read_but_never_more(tmp_path: Path) -> None:
    path, _ = loaded_at("getpid")
    whole = Path(path).read_bytes()
    dice = random.Random(7)
    for turn in range(150):
        data = bytearray(whole[: dice.choice((70, 5000, len(whole)))])
        for _ in range(20):  # headers stand at either end
            low = dice.choice((0, max(0, len(data) - 4000)))
            data[dice.randrange(low, min(low + 4000, len(data)))] = dice.randrange(256)
        damaged = tmp_path / f"{turn}"
        damaged.write_bytes(data)
        try:
            with Elf(str(damaged)) as elf:
                elf.functions(NAMES)
                if gobinary.is_go(elf):
                    gobinary.functions(elf, ("main.main",))
        except ElfError:
            pass
        damaged.unlink()
