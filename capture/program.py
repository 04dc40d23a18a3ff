"""Compile the programs of bpf/ with bcc, load and attach them.

bcc compiles and makes the maps. Loading and attaching go through bpf(2) directly: bcc cannot load typed raw
tracepoints (tp_btf), which read kernel structs in place, at a fraction of the price of bpf_probe_read_kernel.
Every attachment is a file descriptor of this process: when it dies, however it dies, nothing stays behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import struct
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from kubetape.capture import headers
from kubetape.capture.btf import TYPEDEF, Btf
from kubetape.capture.samplers.cgroups import find_hierarchies
from kubetape.errors import CaptureError

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _RAW_TRACEPOINT_OPEN, _OBJ_GET_INFO, _LINK_CREATE, _ENABLE_STATS = 5, 17, 15, 28, 32
_TYPE_TRACEPOINT, _TYPE_RAW_TRACEPOINT, _TYPE_TRACING = 5, 17, 26
_ATTACH_TRACE_RAW_TP = 23
_LOG_BYTES = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _libc.syscall(_SYSCALL[platform.machine()], command, buffer, len(attributes))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def load_program(
    name: str, kind: int, instructions: bytes, attach_kind: int = 0, btf_id: int = 0, log: bool = False
) -> int:
    """BPF_PROG_LOAD; the program's file descriptor. Raises OSError; with `log` the message ends with the verifier's."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_ = ctypes.create_string_buffer(b"GPL")
    text = ctypes.create_string_buffer(_LOG_BYTES if log else 1)
    attributes = bytearray(148)
    struct.pack_into(
        "<IIQQ", attributes, 0, kind, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(license_)
    )
    if log:
        struct.pack_into("<IIQ", attributes, 24, 1, _LOG_BYTES, ctypes.addressof(text))
    struct.pack_into("<16s", attributes, 48, name.encode()[:15])
    struct.pack_into("<I", attributes, 68, attach_kind)
    struct.pack_into("<I", attributes, 108, btf_id)
    # Older kernels refuse trailing bytes they do not know only where they are not zero.
    try:
        return _bpf(_PROG_LOAD, bytes(attributes))
    except OSError as error:
        if log:
            lines = text.value.decode(errors="replace").strip().splitlines()
            said = [line for line in lines if not line.startswith("processed")] or ["no word from the verifier"]
            problem = OSError(error.errno, f"{error.strerror}: {said[-1]}")
            problem.add_note("\n".join(lines[-40:]))
            raise problem from error
        raise


def open_raw_tracepoint(program: int, name: str | None) -> int:
    """Attach; the link's file descriptor. name is None for programs loaded with a BTF id."""
    label = ctypes.create_string_buffer(name.encode()) if name else None
    attributes = struct.pack("<QII", ctypes.addressof(label) if label else 0, program, 0)
    return _bpf(_RAW_TRACEPOINT_OPEN, attributes)


def enable_statistics() -> int:
    """Have the kernel count the run time of all programs while the descriptor is open (5.8+). Raises OSError."""
    return _bpf(_ENABLE_STATS, struct.pack("<I", 0))


@dataclass
class Attachment:
    """One program attached: probe it serves, mechanism as the manifest shows it, descriptors to close."""

    probe: str
    mechanism: str
    program: int
    descriptors: list[int] = field(default_factory=list)
    final: tuple[int, int] = (0, 0)

    def detach(self) -> None:
        self.final = self.statistics()
        while self.descriptors:
            os.close(self.descriptors.pop())

    def statistics(self) -> tuple[int, int]:
        """(runs, nanoseconds in them), after `detach` those up to it; zeros unless kernel.bpf_stats_enabled."""
        if not self.descriptors:
            return self.final
        info = ctypes.create_string_buffer(256)
        try:
            _bpf(_OBJ_GET_INFO, struct.pack("<IIQ", self.program, len(info), ctypes.addressof(info)))
        except OSError:
            return 0, 0
        run_ns, runs = struct.unpack_from("<QQ", info.raw, 192)
        return runs, run_ns


def import_bcc() -> Any:
    """The bcc module. Raises CaptureError where the distribution's package is missing or does not work."""
    try:
        import bcc
    except ImportError as error:
        raise CaptureError(
            f"recording needs the distribution's bcc package ({error}): install python3-bpfcc (Debian, Ubuntu) or "
            "python3-bcc (Fedora), and use a Python that sees it"
        ) from error
    if not hasattr(bcc, "BPF"):
        raise CaptureError(
            "the installed 'bcc' is not the BPF Compiler Collection: remove it (pip uninstall bcc) and "
            "install python3-bpfcc"
        )
    return bcc


@contextlib.contextmanager
def header_tree(types: Btf | None, more: Collection[str] = ()) -> Iterator[str]:
    """A folder for BCC_KERNEL_SOURCE, removed afterwards; real kernel headers where there is no BTF.

    more: names of further structs. Yields how the headers came about, for the manifest. Raises CaptureError where there
    is neither.
    """
    if types is None:
        folder = f"/lib/modules/{os.uname().release}/build"
        if not os.path.isdir(folder) and not os.path.exists("/sys/kernel/kheaders.tar.xz"):
            raise CaptureError(
                "this kernel offers neither BTF (/sys/kernel/btf/vmlinux) nor headers: install the package with the "
                f"headers of kernel {os.uname().release}, or use a kernel built with CONFIG_DEBUG_INFO_BTF"
            )
        yield "kernel headers"
        return
    before = os.environ.get("BCC_KERNEL_SOURCE")
    with tempfile.TemporaryDirectory(prefix="kubetape-headers-") as folder:
        os.environ["BCC_KERNEL_SOURCE"] = headers.write_tree(folder, types, more)
        try:
            yield "BTF"
        finally:
            if before is None:
                del os.environ["BCC_KERNEL_SOURCE"]
            else:
                os.environ["BCC_KERNEL_SOURCE"] = before


class Module:
    """One compiled translation unit: its functions' instructions and its maps' descriptors."""

    def __init__(self, text: str, flags: list[str]) -> None:
        bcc = import_bcc()
        with _captured_stderr() as messages:
            try:
                self.bpf = bcc.BPF(text=text.encode(), cflags=[*flags, "-Wno-unused-function", "-Wno-macro-redefined"])
            except Exception as error:  # bcc raises plain Exception
                detail = [line for line in messages() if "error" in line] or [str(error)]
                raise CaptureError(f"the probes do not compile for this kernel: {detail[0]}") from error

    def instructions(self, function: str) -> bytes:
        return bytes(self.bpf.dump_func(function.encode()))

    def map_fd(self, name: str) -> int:
        return _table_fd(self.bpf, name)

    def table(self, name: str) -> Any:
        return self.bpf[name.encode()]


def _table_fd(bpf: Any, name: str) -> int:
    from bcc.libbcc import lib

    fd = int(lib.bpf_table_fd(bpf.module, name.encode()))
    if fd < 0:
        raise CaptureError(f"the map {name} was not made")
    return fd


@contextlib.contextmanager
def _captured_stderr() -> Iterator[Any]:
    """clang inside bcc writes to descriptor 2; keep it from the user's terminal and return it as lines."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as store:
        saved = os.dup(2)
        os.dup2(store.fileno(), 2)

        def lines() -> list[str]:
            store.seek(0)
            return store.read().decode(errors="replace").splitlines()

        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def attach_tp_btf(module: Module, types: Btf, function: str, tracepoint: str, probe: str) -> Attachment:
    """Attach as typed raw tracepoint. Raises OSError."""
    btf_id = types.find(f"btf_trace_{tracepoint}", TYPEDEF)
    if btf_id is None:
        raise OSError(errno.ENOENT, f"this kernel has no tracepoint {tracepoint}")
    code = module.instructions(function)
    program = _load(function, _TYPE_TRACING, code, _ATTACH_TRACE_RAW_TP, btf_id)
    try:
        link = open_raw_tracepoint(program, None)
    except OSError:
        os.close(program)
        raise
    return Attachment(probe, f"tp_btf:{tracepoint}", program, [link, program])


def attach_raw_tracepoint(module: Module, function: str, tracepoint: str, probe: str) -> Attachment:
    """Attach as plain raw tracepoint. Raises OSError."""
    program = _load(function, _TYPE_RAW_TRACEPOINT, module.instructions(function), 0, 0)
    try:
        link = open_raw_tracepoint(program, tracepoint)
    except OSError:
        os.close(program)
        raise
    return Attachment(probe, f"raw_tracepoint:{tracepoint}", program, [link, program])


def _load(name: str, kind: int, code: bytes, attach_kind: int, btf_id: int) -> int:
    try:
        return load_program(name, kind, code, attach_kind, btf_id)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EINVAL, errno.E2BIG, errno.EFAULT):
            return load_program(name, kind, code, attach_kind, btf_id, log=True)
        raise


_ATTACH_TRACE_FEXIT = 25
_TYPE_CGROUP_SOCK_ADDR = 18
_CGROUP_HOOKS = {"UDP4_RECVMSG": 19, "UDP6_RECVMSG": 20}  # enum bpf_attach_type


def attach_fexit(module: Module, btf_id: int | None, function: str, kernel_function: str, probe: str) -> Attachment:
    """Attach at the end of a kernel function, with its arguments and result. Raises OSError."""
    if btf_id is None:
        raise OSError(errno.ENOENT, f"this kernel has no function {kernel_function}")
    program = _load(function, _TYPE_TRACING, module.instructions(function), _ATTACH_TRACE_FEXIT, btf_id)
    try:
        link = open_raw_tracepoint(program, None)
    except OSError:
        os.close(program)
        raise
    return Attachment(probe, f"fexit:{kernel_function}", program, [link, program])


@dataclass
class _KprobeAttachment(Attachment):
    module: Module | None = None
    kernel_function: str = ""

    def detach(self) -> None:
        if self.module is not None:
            name = self.kernel_function.encode()
            if self.mechanism.startswith("kretprobe"):
                self.module.bpf.detach_kretprobe(event=name)
            else:
                self.module.bpf.detach_kprobe(event=name)
            self.module = None


def attach_kprobe(module: Module, kind: str, function: str, kernel_function: str, probe: str) -> Attachment:
    """Attach through bcc, as perf event. Raises OSError."""
    try:
        # bcc kills the process's standard error with its own messages; the reason is in the exception.
        with _captured_stderr():
            if kind == "kretprobe":
                module.bpf.attach_kretprobe(event=kernel_function.encode(), fn_name=function.encode())
            else:
                module.bpf.attach_kprobe(event=kernel_function.encode(), fn_name=function.encode())
    except Exception as error:  # bcc raises plain Exception
        raise OSError(errno.EOPNOTSUPP, f"{kind} refused: {str(error).splitlines()[0]}") from error
    descriptor = int(module.bpf.funcs[function.encode()].fd)
    return _KprobeAttachment(probe, f"{kind}:{kernel_function}", descriptor, [], (0, 0), module, kernel_function)


_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_TYPE_PERF_EVENT, _PERF_TYPE_SOFTWARE, _COUNT_CPU_CLOCK = 7, 1, 0
_SAMPLE_BY_FREQUENCY = 1 << 10  # attr.freq
_IOC_ENABLE, _IOC_SET_BPF = 0x2400, 0x40042408


def attach_timer(module: Module, function: str, clock: str, hertz: int, probe: str) -> Attachment:
    """Run a program `hertz` times a second of CPU time on every CPU that is online. Raises OSError."""
    program = _load(function, _TYPE_PERF_EVENT, module.instructions(function), 0, 0)
    descriptors = [program]
    attributes = bytearray(112)
    struct.pack_into("<IIQQ", attributes, 0, _PERF_TYPE_SOFTWARE, len(attributes), _COUNT_CPU_CLOCK, hertz)
    struct.pack_into("<Q", attributes, 40, _SAMPLE_BY_FREQUENCY)
    buffer = ctypes.create_string_buffer(bytes(attributes), len(attributes))
    try:
        for cpu in online_cpus():
            event = _libc.syscall(_PERF_EVENT_OPEN[platform.machine()], buffer, -1, cpu, -1, 8)  # 8: close on exec
            if event < 0:
                number = ctypes.get_errno()
                raise OSError(number, f"perf event on CPU {cpu}: {os.strerror(number)}")
            descriptors.insert(0, int(event))
            fcntl.ioctl(event, _IOC_SET_BPF, program)
            fcntl.ioctl(event, _IOC_ENABLE, 0)
    except OSError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return Attachment(probe, f"perf:{clock}@{hertz}Hz", program, descriptors)


def online_cpus() -> list[int]:
    """Numbers of the CPUs in use."""
    with open("/sys/devices/system/cpu/online") as file:
        parts = [part.split("-") for part in file.read().strip().split(",")]
    return [cpu for part in parts for cpu in range(int(part[0]), int(part[-1]) + 1)]


def attach_cgroup(module: Module, function: str, hook: str, probe: str) -> Attachment:
    """Attach to the root of the cgroup v2 tree, through a link that goes with this process. Raises OSError."""
    mount = find_hierarchies().unified
    if mount is None:
        raise OSError(errno.ENOENT, "no cgroup v2 tree is mounted")
    kind = _CGROUP_HOOKS[hook]
    program = _load(function, _TYPE_CGROUP_SOCK_ADDR, module.instructions(function), kind, 0)
    try:
        folder = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            link = _bpf(_LINK_CREATE, struct.pack("<IIII", program, folder, kind, 0))
        finally:
            os.close(folder)
    except OSError:
        os.close(program)
        raise
    return Attachment(probe, f"cgroup:{hook}", program, [link, program])
