"""Kernel structs printed as C have this kernel's layout, and every program compiles with them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from kubetape.capture import btf, compilation, load
from kubetape.capture.btf import Btf
from kubetape.capture.headers import KERNEL_TYPES, Printer
from kubetape.capture.layouts import Layout, layouts
from kubetape.errors import CaptureError


def small_btf() -> bytes:
    """struct s { int a : 3; <hole> char b; struct { long c; } ; int d[2]; }, size 40, written by hand."""
    strings = b"\0int\0char\0long\0s\0a\0b\0c\0d\0"

    def name(text: str) -> int:
        return strings.index(b"\0" + text.encode() + b"\0") + 1

    def head(label: str, kind: int, size: int, count: int = 0, flag: int = 0) -> bytes:
        return struct.pack("<III", name(label) if label else 0, kind << 24 | count | flag << 31, size)

    types = head("int", btf.INT, 4) + struct.pack("<I", 1 << 24 | 32)  # 1
    types += head("char", btf.INT, 1) + struct.pack("<I", 1 << 24 | 8)  # 2
    types += head("long", btf.INT, 8) + struct.pack("<I", 1 << 24 | 64)  # 3
    types += head("", btf.ARRAY, 0) + struct.pack("<III", 1, 1, 2)  # 4
    types += head("", btf.STRUCT, 8, 1) + struct.pack("<III", name("c"), 3, 0)  # 5
    members = [("a", 1, 3 << 24), ("b", 2, 16), ("", 5, 128), ("d", 4, 192)]
    types += head("s", btf.STRUCT, 40, 4, 1) + b"".join(
        struct.pack("<III", name(n) if n else 0, t, offset) for n, t, offset in members
    )
    return struct.pack("<HBBIIIII", btf.MAGIC, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


def test_holes_and_bit_fields_are_kept() -> None:
    printer = Printer(Btf(small_btf()))
    assert printer.define("s", "absent") == ["absent"]
    text = " ".join(printer.text().split())
    assert "int a : 3; unsigned char : 5; unsigned char __pad0[1]; signed char b;" in text
    assert "long long c;" in text
    assert "int d[2]; unsigned char __pad" in text


@pytest.mark.parametrize("data", [b"", b"\x9f\xeb" + bytes(10), bytes(100)])
def test_what_is_not_btf_is_refused(data: bytes) -> None:
    with pytest.raises(CaptureError):
        Btf(data)


@pytest.fixture(scope="module")
def types() -> Btf:
    return Btf.of_kernel()


@pytest.fixture(scope="module")
def tree(types: Btf) -> Iterator[Btf]:
    with compilation.header_tree(types):
        yield types


@pytest.mark.live
def test_every_struct_is_laid_out_as_the_kernel_does(tree: Btf) -> None:
    printer = Printer(tree)
    printer.define(*KERNEL_TYPES)
    checks = []
    for type_id in printer.definitions():
        name, kind, _, _, size = tree.head(type_id)
        keyword = "struct" if kind == btf.STRUCT else "union"
        checks.append(f'_Static_assert(sizeof({keyword} {name}) == {size}, "size of {name}");')
        for member in tree.members(type_id):
            if member.name and not member.bit_width:
                place = f"__builtin_offsetof({keyword} {name}, {member.name})"
                checks.append(f'_Static_assert({place} == {member.bit_offset // 8}, "{name}.{member.name}");')
    assert len(checks) > 2000
    compilation.compiled("#include <kubetape_types.h>\n" + "\n".join(checks) + "\nint f(u64 *ctx) { return 0; }\n")


@pytest.mark.live
def test_events_are_laid_out_as_the_converter_reads_them(tree: Btf) -> None:
    checks = []
    for layout in layouts().values():
        checks.append(f'_Static_assert(sizeof(struct {layout.name}) == {layout.dtype.itemsize}, "{layout.name}");')
        for field, (_, offset, *_) in (layout.dtype.fields or {}).items():
            place = f"__builtin_offsetof(struct {layout.name}, {field})"
            checks.append(f'_Static_assert({place} == {offset}, "{layout.name}.{field}");')
    module = load.source(load.Settings(ring_bytes=1 << 20), tree) + "\n".join(checks)
    compilation.compiled(module)


@pytest.mark.live
@pytest.mark.parametrize("direct", [True, False])
def test_all_ways_of_all_programs_compile(tree: Btf, direct: bool) -> None:
    settings = load.Settings(
        ring_bytes=1 << 20, direct=direct, ports=(80, 443), filter_pids=True, filter_cgroups=True, filter_netns=True
    )
    module = compilation.compiled(load.source(settings, tree))
    names = ["socket_send", "fexit_receive"] if direct else ["kprobe_send", "kretprobe_receive", "tcp_destroy"]
    assert all(len(module.instructions(name)) >= 16 for name in names)


def test_layouts_survive_the_spool() -> None:
    for layout in layouts().values():
        again = Layout.from_json(layout.to_json())
        assert again == layout
