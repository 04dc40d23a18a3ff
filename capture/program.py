"""Load the programs of bpf/ and attach them.

bcc compiles and makes the maps (compilation.py). Loading and attaching go through bpf(2) directly: bcc cannot load
typed raw tracepoints (tp_btf), which read kernel structs in place, at a fraction of the price of
bpf_probe_read_kernel. Every map and attachment is a file descriptor of this process: when it dies, however it dies,
nothing stays behind.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from dataclasses import dataclass, field

from kubetape.capture.btf import TYPEDEF, Btf
from kubetape.capture.compilation import Module
from kubetape.capture.maps import bpf
from kubetape.capture.samplers.cgroups import find_hierarchies

_PROG_LOAD, _RAW_TRACEPOINT_OPEN, _OBJ_GET_INFO, _LINK_CREATE, _ENABLE_STATS = 5, 17, 15, 28, 32
_TYPE_TRACEPOINT, _TYPE_RAW_TRACEPOINT, _TYPE_TRACING = 5, 17, 26
_ATTACH_TRACE_RAW_TP = 23
_LOG_BYTES = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


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
        return bpf(_PROG_LOAD, bytes(attributes))
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
    return bpf(_RAW_TRACEPOINT_OPEN, attributes)


def enable_statistics() -> int:
    """Have the kernel count the run time of all programs while the descriptor is open (5.8+). Raises OSError."""
    return bpf(_ENABLE_STATS, struct.pack("<I", 0))


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
            bpf(_OBJ_GET_INFO, struct.pack("<IIQ", self.program, len(info), ctypes.addressof(info)))
        except OSError:
            return 0, 0
        run_ns, runs = struct.unpack_from("<QQ", info.raw, 192)
        return runs, run_ns


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


_TYPE_KPROBE = 2
_KPROBE_PMU = "/sys/bus/event_source/devices/kprobe/type"


def attach_kprobe(module: Module, kind: str, function: str, kernel_function: str, probe: str) -> Attachment:
    """Attach at the beginning ('kprobe') or the end ('kretprobe') of a kernel function, as perf event. Raises OSError.

    Source: perf_event_open(2), config1 and config2 of the dynamic PMU kprobe (4.17+).
    """
    try:
        with open(_KPROBE_PMU) as file:
            pmu = int(file.read())
    except OSError as error:
        raise OSError(errno.EOPNOTSUPP, "this kernel has no kprobes") from error
    program = _load(function, _TYPE_KPROBE, module.instructions(function), 0, 0)
    name = ctypes.create_string_buffer(kernel_function.encode())
    try:
        event = attach_event(program, pmu, int(kind == "kretprobe"), ctypes.addressof(name), 0)
    except OSError as error:
        os.close(program)
        raise OSError(error.errno, f"{kind} refused: {error.strerror}") from error
    return Attachment(probe, f"{kind}:{kernel_function}", program, [event, program])


def attach_event(program: int, pmu: int, config: int, place: int, offset: int) -> int:
    """A perf event of a dynamic PMU that runs the program. place: address of the name as C string. Raises OSError."""
    attributes = bytearray(_PERF_ATTRIBUTES)
    # type, size, config (bit 0: at the return), sample_period; config1, config2
    struct.pack_into("<IIQQ", attributes, 0, pmu, _PERF_ATTRIBUTES, config, 1)
    struct.pack_into("<QQ", attributes, 56, place, offset)
    event = perf_event(bytes(attributes), 0)
    try:
        fcntl.ioctl(event, _IOC_SET_BPF, program)
        fcntl.ioctl(event, _IOC_ENABLE, 0)
    except OSError:
        os.close(event)
        raise
    return event


def perf_event(attributes: bytes, cpu: int) -> int:
    """perf_event_open(2) for all processes on a CPU, closed on exec. Raises OSError."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    event = _libc.syscall(_PERF_EVENT_OPEN[platform.machine()], buffer, -1, cpu, -1, 8)
    if event < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(event)


_PERF_ATTRIBUTES = 112
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_TYPE_PERF_EVENT, _PERF_TYPE_SOFTWARE, _COUNT_CPU_CLOCK = 7, 1, 0
_SAMPLE_BY_FREQUENCY = 1 << 10  # attr.freq
_IOC_ENABLE, _IOC_SET_BPF = 0x2400, 0x40042408


def attach_timer(module: Module, function: str, clock: str, hertz: int, probe: str) -> Attachment:
    """Run a program `hertz` times a second of CPU time on every CPU that is online. Raises OSError."""
    program = _load(function, _TYPE_PERF_EVENT, module.instructions(function), 0, 0)
    descriptors = [program]
    attributes = bytearray(_PERF_ATTRIBUTES)
    struct.pack_into("<IIQQ", attributes, 0, _PERF_TYPE_SOFTWARE, len(attributes), _COUNT_CPU_CLOCK, hertz)
    struct.pack_into("<Q", attributes, 40, _SAMPLE_BY_FREQUENCY)
    try:
        for cpu in online_cpus():
            event = perf_event(bytes(attributes), cpu)
            descriptors.insert(0, event)
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
            link = bpf(_LINK_CREATE, struct.pack("<IIII", program, folder, kind, 0))
        finally:
            os.close(folder)
    except OSError:
        os.close(program)
        raise
    return Attachment(probe, f"cgroup:{hook}", program, [link, program])
