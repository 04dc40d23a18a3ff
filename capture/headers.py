"""The C headers that bcc wants, made from the running kernel's BTF: no header package is needed.

bcc includes a handful of kernel headers and takes everything else from what the program names. A private
folder of stubs serves those includes (BCC_KERNEL_SOURCE), and `kubetape_types.h` in it holds the kernel's
own structs, laid out as this kernel lays them out. Structs that are only pointed at are declared, not
defined, so the result stays at some thousand lines. No `preserve_access_index`: bcc relocates nothing,
and the offsets are this kernel's own.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Collection

from kubetape.capture import btf as b
from kubetape.capture.btf import Btf
from kubetape.errors import CaptureError

_INTEGERS = {
    (1, False): "unsigned char",
    (1, True): "signed char",
    (2, False): "unsigned short",
    (2, True): "short",
    (4, False): "unsigned int",
    (4, True): "int",
    (8, False): "unsigned long long",
    (8, True): "long long",
    (16, False): "unsigned __int128",
    (16, True): "__int128",
}


class Printer:
    """Prints structs of a BTF as C definitions with identical layout."""

    def __init__(self, types: Btf) -> None:
        self._btf = types
        self._layouts: dict[int, tuple[int, int, bool]] = {}
        self._done: set[int] = set()
        self._declared: set[str] = set()
        self._lines: list[str] = []
        self._pads = 0  # names of paddings are unique, since anonymous structs share their parent's names

    def define(self, *names: str) -> list[str]:
        """Define these structs and all they hold by value; names this kernel lacks are returned."""
        missing = []
        for name in names:
            type_id = self._btf.find(name, b.STRUCT, b.UNION)
            if type_id is None:
                missing.append(name)
            else:
                self._define(type_id)
        return missing

    def text(self) -> str:
        forward = [f"{kind};" for kind in sorted(self._declared)]
        return "\n".join(forward + self._lines) + "\n"

    def definitions(self) -> list[int]:
        """Type ids of everything defined by name."""
        return sorted(self._done)

    def _define(self, type_id: int) -> None:
        if type_id in self._done:
            return
        self._done.add(type_id)
        name, kind, _, _, _ = self._btf.head(type_id)
        body = self._body(type_id)
        keyword = "struct" if kind == b.STRUCT else "union"
        self._lines.append(f"{keyword} {name} {body};")

    def layout(self, type_id: int) -> tuple[int, int, bool]:
        """(size in bytes, alignment as printed here, printed packed) of a type."""
        type_id = self._btf.strip(type_id)
        known = self._layouts.get(type_id)
        if known is not None:
            return known
        _, kind, _, _, size = self._btf.head(type_id) if type_id else ("", 0, 0, False, 0)
        result = (size, max(1, min(size, 16)), False)
        if kind == b.PTR:
            result = (8, 8, False)
        elif kind == b.ARRAY:
            element, count = self._btf.array(type_id)
            element_size, align, _ = self.layout(element)
            result = (element_size * count, align, False)
        elif kind in (b.STRUCT, b.UNION):
            align, packed = 1, False
            for member in self._btf.members(type_id):
                member_align = self.layout(member.type_id)[1]
                align = max(align, member_align)
                packed |= not member.bit_width and member.bit_offset % (8 * member_align) != 0
            packed |= size % align != 0
            result = (size, 1 if packed else align, packed)
        self._layouts[type_id] = result
        return result

    def _body(self, type_id: int) -> str:
        _, kind, _, _, size = self._btf.head(type_id)
        _, _, packed = self.layout(type_id)
        lines = ["{"]
        cursor = 0  # bits

        def pad(target: int) -> None:
            nonlocal cursor
            if cursor % 8 and target > cursor:
                width = min(8 - cursor % 8, target - cursor)
                lines.append(f"unsigned char : {width};")
                cursor += width
            if (target - cursor) // 8 > 0:
                lines.append(f"unsigned char __pad{self._pads}[{(target - cursor) // 8}];")
                cursor += (target - cursor) // 8 * 8
            if target > cursor:
                lines.append(f"unsigned char : {target - cursor};")
                cursor = target
            self._pads += 1

        for member in self._btf.members(type_id):
            member_size, align, _ = self.layout(member.type_id)
            if kind == b.STRUCT:
                natural = cursor
                if member.bit_width:
                    unit = 8 * member_size
                    if not packed and cursor % unit + member.bit_width > unit:
                        natural = -(-cursor // unit) * unit
                else:
                    unit = 8 if packed else 8 * align
                    natural = -(-cursor // unit) * unit
                if natural != member.bit_offset:
                    pad(member.bit_offset)
            lines.append(self._declare(member.type_id, member.name, member.bit_width) + ";")
            cursor = member.bit_offset + (member.bit_width or 8 * member_size)
        if kind == b.STRUCT:
            natural_end = 8 if packed else 8 * self.layout(type_id)[1]
            if -(-cursor // natural_end) * natural_end < 8 * size:
                pad(8 * size)
        lines.append("}")
        return "\n".join(lines) + (" __attribute__((packed))" if packed else "")

    def _declare(self, type_id: int, name: str, bit_width: int = 0) -> str:
        dimensions = ""
        type_id = self._btf.strip(type_id)
        while self._btf.kind(type_id) == b.ARRAY:
            type_id, count = self._btf.array(type_id)
            type_id = self._btf.strip(type_id)
            dimensions += f"[{count}]"
        suffix = f" : {bit_width}" if bit_width else ""
        return f"{self._spell(type_id)} {name}{dimensions}{suffix}"

    def _spell(self, type_id: int) -> str:
        label, kind, _, signed, size = self._btf.head(type_id) if type_id else ("", 0, 0, False, 0)
        if kind == b.PTR:
            target = self._btf.strip(size)
            target_name, target_kind, *_ = self._btf.head(target) if target else ("", 0)
            if target_kind in (b.STRUCT, b.UNION, b.FWD) and target_name:
                union = target_kind == b.UNION or (target_kind == b.FWD and self._btf.head(target)[3])
                spelled = f"{'union' if union else 'struct'} {target_name}"
                self._declared.add(spelled)
                return spelled + " *"
            if target_kind == b.INT:
                return self._spell(target) + " *"
            return "void *"
        if kind in (b.STRUCT, b.UNION):
            keyword = "struct" if kind == b.STRUCT else "union"
            if not label:
                return f"{keyword} {self._body(type_id)}"
            self._define(type_id)
            return f"{keyword} {label}"
        if kind == b.INT:
            encoding = self._btf.integer_encoding(type_id)
            return "_Bool" if encoding & 4 else _INTEGERS[size, bool(encoding & 1)]
        if kind in (b.ENUM, b.ENUM64):
            return _INTEGERS[size, signed]
        raise CaptureError(f"BTF type {label or type_id} of kind {kind} cannot be printed as C")


_TYPES = """
#ifndef KUBETAPE_STUB_TYPES_H
#define KUBETAPE_STUB_TYPES_H
typedef signed char __s8; typedef unsigned char __u8; typedef short __s16; typedef unsigned short __u16;
typedef int __s32; typedef unsigned int __u32; typedef long long __s64; typedef unsigned long long __u64;
typedef __s8 s8; typedef __u8 u8; typedef __s16 s16; typedef __u16 u16;
typedef __s32 s32; typedef __u32 u32; typedef __s64 s64; typedef __u64 u64;
typedef __u16 __le16; typedef __u16 __be16; typedef __u32 __le32; typedef __u32 __be32;
typedef __u64 __le64; typedef __u64 __be64; typedef __u16 __sum16; typedef __u32 __wsum;
typedef unsigned long size_t; typedef long ssize_t; typedef int pid_t; typedef unsigned long uintptr_t;
typedef _Bool bool; typedef __u32 dev_t; typedef __u64 sector_t;
#define true 1
#define false 0
#ifndef NULL
#define NULL ((void *)0)
#endif
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#define __user
#define __bitwise
#endif
"""

_PT_REGS = {
    "x86": "di si dx cx r8 r9 ax sp ip bp",
    "arm64": "regs[0] regs[1] regs[2] regs[3] regs[4] regs[5] regs[0] sp pc regs[29]",
}


def _ptrace(arch: str) -> str:
    names = _PT_REGS[arch].split()
    keys = ["PARM1", "PARM2", "PARM3", "PARM4", "PARM5", "PARM6", "RC", "SP", "IP", "FP"]
    lines = [f"#define PT_REGS_{key}(x) ((x)->{name})" for key, name in zip(keys, names, strict=True)]
    return "#pragma once\n#include <linux/types.h>\n#include <kubetape_types.h>\n" + "\n".join(lines) + "\n"


def architecture() -> str:
    """The kernel's name of this machine's architecture. Raises CaptureError for those not supported."""
    known = {"x86_64": "x86", "aarch64": "arm64"}
    machine = platform.machine()
    if machine not in known:
        raise CaptureError(f"recording on {machine} is not supported, only on {' and '.join(sorted(known))}")
    return known[machine]


def kernel_version(release: str | None = None) -> tuple[int, int, int]:
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release or os.uname().release)
    if match is None:
        return (0, 0, 0)
    return (int(match[1]), int(match[2]), int(match[3] or 0))


# What the programs in bpf/ read. Everything these hold by value comes along.
KERNEL_TYPES = (
    "sock",
    "inet_sock",
    "inet_connection_sock",
    "tcp_sock",
    "sk_buff",
    "net",
    "request_sock",
    "inet_request_sock",
    "tcp_request_sock",
    "task_struct",
    "pt_regs",
    "user_pt_regs",
    "user_msghdr",
    "mmsghdr",
    "iovec",
    "iphdr",
    "ipv6hdr",
    "tcphdr",
    "udphdr",
    "linux_binprm",
    "mm_struct",
    "nsproxy",
    "signal_struct",
    "request",
    "gendisk",
    "block_device",
    "file",
    "socket",
    "net_device",
    "fdtable",
    "files_struct",
    "bio",
)


def write_tree(folder: str, types: Btf, more: Collection[str] = ()) -> str:
    """Write the include tree below `folder`; returns the folder to name in BCC_KERNEL_SOURCE.

    more: further structs that a program may read; those this kernel does not know are left out.
    """
    arch = architecture()
    printer = Printer(types)
    missing = printer.define(*KERNEL_TYPES)
    printer.define(*sorted(set(more) - set(KERNEL_TYPES)))
    major, minor, patch = kernel_version()
    code = (major << 16) + (minor << 8) + min(patch, 255)
    own = "#pragma once\n#include <linux/types.h>\n" + printer.text()
    own += "".join(f"#define KUBETAPE_NO_STRUCT_{name}\n" for name in missing)
    files = {
        "include/linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
        "include/linux/types.h": _TYPES,
        "include/linux/bpf_common.h": "",
        "include/linux/bpf.h": "",  # bcc brings its own
        "include/uapi/linux/bpf.h": "",
        "include/linux/version.h": f"#define LINUX_VERSION_CODE {code}\n"
        "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n",
        "include/linux/log2.h": "#define roundup_pow_of_two(n) (1UL << (64 - __builtin_clzl((n) - 1)))\n",
        "include/linux/ptrace.h": _ptrace(arch),
        "include/uapi/linux/ptrace.h": "#include <linux/ptrace.h>\n",
        "include/uapi/linux/if_packet.h": "",
        f"arch/{arch}/include/asm/page.h": f"#define PAGE_SIZE {os.sysconf('SC_PAGE_SIZE')}\n",
        "include/kubetape_types.h": own,
    }
    for name, text in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
    return folder
