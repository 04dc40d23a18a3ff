"""Compile all programs as one module for this kernel, and attach the probes of the registry."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from kubetape.bundle.manifest import ProbeStatus
from kubetape.capture import compilation, program, uprobe
from kubetape.capture.btf import FUNC, Btf
from kubetape.capture.headers import kernel_version
from kubetape.capture.layouts import bpf_source
from kubetape.capture.probes import PROBES, Probe, Target, choose
from kubetape.capture.user_probe import UserProbe
from kubetape.errors import CaptureError

_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.M)
_STRUCT = re.compile(r"\bstruct (\w+)")


@dataclass
class Settings:
    """What is compiled into the programs. ports: empty for all; filter_*: whether the scope maps are consulted."""

    ring_bytes: int = 64 << 20
    payload: str = "headers"
    payload_bytes: int = 4096
    ports: tuple[int, ...] = ()
    filter_pids: bool = False
    filter_cgroups: bool = False
    filter_netns: bool = False
    arguments: bool = True
    cgroups: str = "v2"  # the hierarchy that names containers: 'v2', or a controller's of version 1
    control: bool = False  # the recorder turns something while it runs: --ring, --max-cpu
    direct: bool = True
    stack_hz: int = 0  # CPU samples per second and CPU; 0: none
    sched: str = "io"  # whose threads sched.c tells of: 'io', 'all', 'none'
    tls: bool = True
    probes: tuple[str, ...] = tuple(p.name for p in PROBES)
    user: tuple[UserProbe, ...] = ()  # of --probe

    @property
    def registry(self) -> tuple[Probe, ...]:
        """All probes in the order of attachment."""
        return (*PROBES, *(u.probe for u in self.user))

    def wants(self, probe: str) -> bool:
        if (probe == "sched_slice" and self.sched == "none") or (probe == "tls" and not self.tls):
            return False
        if probe == "stack_sample" and not self.stack_hz:
            return False
        return probe in self.probes or any(u.name == probe for u in self.user)


# Takes a compiler as long as all other probes together.
_LARGEST = "socket_data"


def sources(settings: Settings, types: Btf | None) -> list[str]:
    """The C texts of all probes: one, or two to be compiled side by side where there are CPUs for it."""
    wanted = [probe.name for probe in settings.registry if settings.wants(probe.name)]
    rest = [name for name in wanted if name != _LARGEST]
    if len(os.sched_getaffinity(0)) < 2 or _LARGEST not in wanted or not rest:
        return [source(settings, types)]
    # Of maps in both the first text's are taken: the other's ring would be made for nothing.
    small = dataclasses.replace(settings, ring_bytes=os.sysconf("SC_PAGE_SIZE"))
    return [source(settings, types, (_LARGEST,)), source(small, types, rest)]


def source(settings: Settings, types: Btf | None, only: Collection[str] | None = None) -> str:
    """The C text of the probes wanted; only: of those among these."""
    buffer_bytes = 256
    while buffer_bytes < settings.payload_bytes:
        buffer_bytes *= 2
    values: dict[str, Any] = {
        "KT_DIRECT": int(settings.direct),
        "KT_RING_PAGES": settings.ring_bytes // os.sysconf("SC_PAGE_SIZE"),
        "KT_CPUS": max(os.sysconf("SC_NPROCESSORS_CONF"), 1),
        "KT_SELF_PID": os.getpid(),
        "KT_PAYLOAD_MAX": buffer_bytes,
        "KT_PAYLOAD_BYTES": settings.payload_bytes,
        "KT_PAYLOAD_NONE": int(settings.payload == "none"),
        "KT_PAYLOAD_HEADERS": int(settings.payload == "headers"),
        "KT_FILTER_PIDS": int(settings.filter_pids),
        "KT_FILTER_CGROUPS": int(settings.filter_cgroups),
        "KT_FILTER_NETNS": int(settings.filter_netns),
        "KT_CONTROL": int(settings.control),
        "KT_TLS": int(settings.wants("tls")),
        "KT_ARGUMENTS": int(settings.arguments),
        "KT_SCHED_IO": int(settings.sched == "io"),
        # x86-64 and arm64 without KASAN; x86 with FRED and old 32-bit kernels pad the top, which these do not.
        "KT_STACK_BYTES": 16384,
        "KT_STACK_PADDING": 0,
    }
    lines = [f"#define {name} {value}" for name, value in values.items()]
    if settings.ports:
        test = " || ".join(f"(p) == {port}" for port in settings.ports)
        lines.append(f"#define KT_PORT_FILTER(p) ({test})")
    lines += _kernel_defines(types) + _cgroup_defines(settings.cgroups, types)
    included: set[str] = set()

    def expand(name: str) -> str:
        if name in included:
            return ""
        included.add(name)
        text = bpf_source(name).replace("#pragma once", "")
        return _INCLUDE.sub(lambda match: expand(match[1]), text)

    for probe in PROBES:
        if settings.wants(probe.name) and (only is None or probe.name in only):
            lines += [expand(name) for name in probe.sources]
    users = [user for user in settings.user if only is None or user.name in only]
    if users:
        lines += [expand(name) for user in users for name in ("common.h", *user.includes())]
        lines += [_WANTED_HERE, *(user.source() for user in users)]
    return "\n".join(lines) + "\n"


# For probes of the user's own: may they tell of the process that is running?
_WANTED_HERE = """
static __always_inline int wanted_here(void)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
#if KT_FILTER_PIDS || KT_FILTER_CGROUPS
	return process_in_scope(pid);
#else
	return pid != KT_SELF_PID;
#endif
}"""


def _kernel_defines(types: Btf | None) -> list[str]:
    """What differs between kernels, read from BTF; by version where there is none."""
    version = kernel_version()
    if types is None:
        arguments = {
            "kfree_skb": 3 if version >= (5, 17, 0) else 2,
            "tcp_send_reset": 3 if version >= (6, 10, 0) else 2,
        }
        if version >= (6, 11, 0):
            arguments["kfree_skb"] = 4
        oom_task = version >= (6, 8, 0)
        bit_fields = version < (5, 6, 0)
        consumed = 1
    else:
        arguments = {n: types.parameter_count(f"btf_trace_{n}") or 0 for n in ("kfree_skb", "tcp_send_reset")}
        oom_task = (types.parameter_count("btf_trace_mark_victim") or 1) > 1
        bit_fields = not types.has_member("sock", "sk_protocol") or types.has_member("sock", "__sk_flags_offset")
        consumed = 1
    lines = [f"#define KT_OOM_TASK {int(oom_task)}", *_switch_defines(types), *_block_defines(types)]
    if bit_fields:
        lines.append("#define KUBETAPE_SK_BITFIELDS 1")
    if arguments["kfree_skb"] >= 3:
        unspecified = consumed
        if types is not None:
            for value, name in types.enum_values("skb_drop_reason").items():
                if name.endswith("NOT_SPECIFIED"):
                    unspecified = value
        lines += ["#define KT_DROP_REASON 1", f"#define KT_DROP_REASON_MIN {unspecified}"]
    if arguments["kfree_skb"] >= 4:
        lines.append("#define KT_DROP_SOCKET 1")
    if arguments["tcp_send_reset"] >= 3:
        lines.append("#define KT_RESET_REASON 1")
    return lines


def _cgroup_defines(hierarchy: str, types: Btf | None) -> list[str]:
    """Where a thread's cgroup in a hierarchy of version 1 is found; nothing where it is the unified one, or not known.

    Source: kernel include/linux/cgroup-defs.h, css_set.subsys by enum cgroup_subsys_id; linux/kernfs.h,
    kernfs_node.id (5.5+).
    """
    if types is None or hierarchy == "v2":
        return []
    numbers = {name: value for value, name in types.enum_values("cgroup_subsys_id").items()}
    number = numbers.get(f"{hierarchy}_cgrp_id")
    places = [
        types.offset_of(*member)
        for member in (
            ("css_set", "subsys"), ("cgroup_subsys_state", "cgroup"), ("cgroup", "kn"), ("kernfs_node", "id"),
        )
    ]  # fmt: skip
    if number is None or None in places or kernel_version() < (5, 5, 0):
        return []
    places[0] = (places[0] or 0) + 8 * number
    names = ("KT_CGROUP_CSS", "KT_CGROUP_OF_CSS", "KT_CGROUP_NODE", "KT_CGROUP_NODE_ID")
    return [f"#define {name} {place}" for name, place in zip(names, places, strict=True)]


def _block_defines(types: Btf | None) -> list[str]:
    """Arguments of block_rq_issue (a queue before the request up to 5.10), and where a request's disk is (5.17)."""
    if types is None:
        return ["#define KT_BLOCK_QUEUE 1"] * (kernel_version() < (5, 11, 0))
    lines = ["#define KT_BLOCK_QUEUE 1"] * ((types.parameter_count("btf_trace_block_rq_issue") or 0) > 1)
    disk = types.offset_of("request_queue", "disk")
    if not types.has_member("request", "rq_disk") and disk is not None:
        lines.append(f"#define KT_QUEUE_DISK {disk}")
    return lines


def _switch_defines(types: Btf | None) -> list[str]:
    """Where sched_switch says which state a thread left the CPU in: an argument (5.18+), or the thread's member."""
    if types is None:
        argument, renamed = kernel_version() >= (5, 18, 0), kernel_version() >= (5, 14, 0)
    else:
        argument = (types.parameter_count("btf_trace_sched_switch") or 0) > 3
        renamed = types.has_member("task_struct", "__state")
    lines = [f"#define KT_SWITCH_STATE {int(argument)}"] + ["#define KT_TASK_STATE_NEW 1"] * renamed
    # Only where the kernel was built with CONFIG_SCHED_INFO.
    if (
        types is not None
        and types.has_member("task_struct", "sched_info")
        and types.has_member("sched_info", "run_delay")
    ):
        lines.append("#define KT_RUN_DELAY 1")
    return lines


@dataclass
class Loaded:
    """The programs in the kernel. Closing, or the death of this process, removes all of them."""

    module: compilation.Module
    settings: Settings
    statuses: list[ProbeStatus] = field(default_factory=list)
    attachments: list[program.Attachment] = field(default_factory=list)
    header_source: str = ""

    def detach(self) -> None:
        """Nothing runs any more; the maps stay readable until `close`."""
        for attachment in self.attachments:
            attachment.detach()

    def close(self) -> None:
        self.detach()
        self.module.close()

    def read_costs(self) -> None:
        """Put run counts and times (kernel.bpf_stats_enabled) into the statuses."""
        for status in self.statuses:
            pairs = [a.statistics() for a in self.attachments if a.probe == status.probe]
            if any(runs for runs, _ in pairs):
                status.run_count = sum(runs for runs, _ in pairs)
                status.run_ns = sum(ns for _, ns in pairs)


class Compiling:
    """The programs on their way through the compiler, while the recorder does something else. A context manager."""

    def __init__(self, settings: Settings, types: Btf | None) -> None:
        """Start; settings.direct becomes False where this kernel has no typed access. Raises CaptureError."""
        if types is None or kernel_version() < (5, 5, 0):
            settings.direct = False
        self.settings, self.types = settings, types
        self._stack = contextlib.ExitStack()
        self._running: list[compilation.Compilation] = []
        structs = {name for user in settings.user for name in _STRUCT.findall(user.text)}
        self.header_source = self._stack.enter_context(compilation.header_tree(types, structs))
        self.begin()

    def begin(self) -> None:
        """Compile for the settings as they are now."""
        flags = ["-Werror=implicit-function-declaration"] if self.settings.user else []
        for text in sources(self.settings, self.types):
            self._running.append(compilation.Compilation(text, flags))
            self._stack.callback(self._running[-1].stop)

    def module(self) -> compilation.Module:
        """Wait for the result. Raises CaptureError, one line; of a user's probe it names the file and line."""
        running, self._running = self._running, []
        try:
            return compilation.Module(running)
        except CaptureError as error:
            # The compiler names the user's file itself.
            for user in self.settings.user:
                if f"{user.path}:" in str(error):
                    raise CaptureError(str(error)[str(error).index(f"{user.path}:") :]) from error
            raise

    def __enter__(self) -> Compiling:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def load(
    settings: Settings,
    types: Btf | None,
    allowed: tuple[str, ...] | None = None,
    prepare: Callable[[compilation.Module], None] | None = None,
) -> Loaded:
    """Compile and attach, see attach. Raises CaptureError."""
    with Compiling(settings, types) as compiling:
        return attach(compiling, allowed, prepare)


def attach(
    compiling: Compiling,
    allowed: tuple[str, ...] | None = None,
    prepare: Callable[[compilation.Module], None] | None = None,
) -> Loaded:
    """Attach what is being compiled. Where typed tracepoints are refused, the plain mode is compiled and tried.

    allowed: kinds of mechanism ('tracing', 'raw', 'fexit', 'kprobe', 'kretprobe') that may be used; None: all.
    prepare: called with the compiled module before anything is attached, to fill its maps.
    Raises CaptureError where nothing compiles or not a single probe attaches.
    """
    settings = compiling.settings
    loaded = _attach_module(compiling, allowed, prepare)
    if settings.direct and not any(s.status == "attached" for s in loaded.statuses):
        loaded.close()
        settings.direct = False
        compiling.begin()
        loaded = _attach_module(compiling, allowed, prepare)
    loaded.header_source = compiling.header_source
    for user in settings.user:
        status = next(s for s in loaded.statuses if s.probe == user.name)
        if status.status != "attached":
            loaded.close()
            raise CaptureError(f"{user.path}: the probe {user.name} does not attach: {status.reason}")
    if not any(s.status == "attached" for s in loaded.statuses):
        reasons = {s.reason for s in loaded.statuses}
        raise CaptureError(f"this kernel accepts none of the probes: {sorted(reasons)[0]}")
    return loaded


def _attach_module(
    compiling: Compiling, allowed: tuple[str, ...] | None, prepare: Callable[[compilation.Module], None] | None
) -> Loaded:
    settings, types, module = compiling.settings, compiling.types, compiling.module()
    if prepare is not None:
        prepare(module)
    loaded = Loaded(module, settings)
    for probe in settings.registry:
        if not settings.wants(probe.name):
            loaded.statuses.append(ProbeStatus(probe.name, status="off", cost=probe.cost))
            continue
        loaded.statuses.append(_attach_probe(loaded, probe, types, allowed))
    return loaded


def _attach_probe(loaded: Loaded, probe: Probe, types: Btf | None, allowed: tuple[str, ...] | None) -> ProbeStatus:
    rung: list[program.Attachment] = []

    def put(target: Target) -> str:
        if target.kind == "perf":
            hertz = loaded.settings.stack_hz
            attachment = program.attach_timer(loaded.module, target.function, target.name, hertz, probe.name)
        else:
            # The project's kprobes are for kernels without typed access; a user's may be the only way to an answer.
            own = target.kind in ("kprobe", "kretprobe") and any(u.probe is probe for u in loaded.settings.user)
            attachment = attach_target(loaded.module, types, target, probe.name, loaded.settings.direct and not own)
        rung.append(attachment)
        return attachment.mechanism

    def detach() -> None:
        while rung:
            rung.pop().detach()

    choice = choose(probe, put, detach, allowed)
    loaded.attachments += rung
    return choice.status


def attach_target(
    module: compilation.Module, types: Btf | None, target: Target, probe: str, direct: bool
) -> program.Attachment:
    """Raises OSError where the kernel has no such hook or refuses the program."""
    if target.kind == "tracing":
        if direct and types is not None:
            return program.attach_tp_btf(module, types, target.function, target.name, probe)
        return program.attach_raw_tracepoint(module, target.function, target.name, probe)
    if target.kind == "plain" and direct:
        return program.Attachment(probe, "", -1)
    if target.kind in ("raw", "plain"):
        return program.attach_raw_tracepoint(module, target.function, target.name, probe)
    if target.kind == "cgroup":
        return program.attach_cgroup(module, target.function, target.name, probe)
    if target.kind in ("uprobe", "uprobe_multi"):
        return uprobe.load_program(module, target.kind, target.function, probe)
    if target.kind == "fexit":
        if not direct or types is None:
            raise OSError(95, "fexit needs typed access to the kernel's structs")
        btf_id = types.find(target.name, FUNC)
        return program.attach_fexit(module, btf_id, target.function, target.name, probe)
    if direct:
        raise OSError(95, "kprobes are used in the plain mode only")
    return program.attach_kprobe(module, target.kind, target.function, target.name, probe)


def counters(loaded: Loaded) -> list[list[int]]:
    """Loss counters: [probe * 4 + what][cpu]."""
    table = loaded.module.table("counters")
    return [table.per_cpu(number) for number in range(table.entry_count)]
