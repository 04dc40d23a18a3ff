"""Attach programs to functions of files, in every process that maps them.

A uprobe is a breakpoint at an offset of a file: processes that map the file later get it as well, those that never do
pay nothing. Links (6.6+) take all offsets of a program in a file at once, and detach in a fraction of the time of perf
events, each of which waits for all CPUs in turn. Both are descriptors of this process and end with it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence

from kubetape.capture import compilation, program
from kubetape.capture.maps import bpf

_PMU = "/sys/bus/event_source/devices/uprobe"
_TYPE_KPROBE = 2
_LINK_CREATE, _ATTACH_UPROBE_MULTI, _AT_RETURN = 28, 48, 1


def load_program(module: compilation.Module, kind: str, function: str, probe: str) -> program.Attachment:
    """A program for uprobes, attached to nothing yet. Raises OSError where the kernel has no such uprobes.

    kind: 'uprobe_multi' or 'uprobe' (perf events).
    """
    if not os.path.exists(f"{_PMU}/type"):
        raise OSError(errno.ENOENT, "this kernel has no uprobes")
    code = module.instructions(function)
    way = _ATTACH_UPROBE_MULTI if kind == "uprobe_multi" else 0
    try:
        descriptor = program.load_program(function, _TYPE_KPROBE, code, way)
    except OSError:
        descriptor = program.load_program(function, _TYPE_KPROBE, code, way, log=True)
    if kind == "uprobe_multi" and not _has_links(descriptor):
        os.close(descriptor)
        raise OSError(errno.EOPNOTSUPP, "uprobe links need kernel 6.6")
    return program.Attachment(probe, kind, descriptor, [descriptor])


def _has_links(descriptor: int) -> bool:
    """A link to a place that cannot be: kernels with uprobe links say so, others know no such link."""
    try:
        os.close(attach_link(descriptor, "/", [0], False))
    except OSError as error:
        return error.errno == errno.EBADF
    return True


def attach_link(descriptor: int, path: str, offsets: Sequence[int], at_return: bool) -> int:
    """A link that runs the program at all these offsets of the file. Raises OSError."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    places = ctypes.create_string_buffer(struct.pack(f"<{len(offsets)}Q", *offsets))
    attributes = struct.pack(
        "<IIIIQQQQIII",
        descriptor, 0, _ATTACH_UPROBE_MULTI, 0,
        ctypes.addressof(name), ctypes.addressof(places), 0, 0,
        len(offsets), _AT_RETURN * at_return, 0,
    )  # fmt: skip
    return bpf(_LINK_CREATE, attributes + bytes(4))


def attach_event(descriptor: int, path: str, offset: int, at_return: bool) -> int:
    """A perf event that runs the program at `offset` of the file. Raises OSError."""
    with open(f"{_PMU}/type") as file:
        kind = int(file.read())
    name = ctypes.create_string_buffer(os.fsencode(path))
    return program.attach_event(descriptor, kind, int(at_return), ctypes.addressof(name), offset)
