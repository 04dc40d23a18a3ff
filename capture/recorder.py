"""Record this node: attach, drain into the spool until something ends it, convert.

The order matters: probes are attached first and the state of the world (sockets, processes) is listed after, so
that nothing falls between. Everything that must survive a kill goes through the spool.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

from kubetape.bundle.manifest import Manifest, ProbeStatus
from kubetape.bundle.writer import BundleWriter
from kubetape.capture import host, load, sockets, tls
from kubetape.capture.btf import Btf
from kubetape.capture.cgroup_watch import CgroupWatch
from kubetape.capture.columns import address_text
from kubetape.capture.control import Control
from kubetape.capture.convert import convert
from kubetape.capture.convert_sched import read_threads
from kubetape.capture.kubernetes.snapshot import Session, SnapshotOptions
from kubetape.capture.layouts import layouts
from kubetape.capture.ring import Ring, complete_prefix
from kubetape.capture.samplers.files import host_root
from kubetape.capture.scope import Scope
from kubetape.capture.spool import VERSION, SpoolFullError, SpoolReader, SpoolWriter, remove
from kubetape.capture.stacks import Spaces
from kubetape.capture.syscalls import syscall_names
from kubetape.capture.user_probe import UserProbe
from kubetape.errors import CaptureError, KubetapeError

if TYPE_CHECKING:
    from kubetape.capture.samplers import Samplers

DRAIN_SECONDS = 0.05
ANCHOR_SECONDS = 5.0
TLS_LOOK_SECONDS = 0.25  # a process that lives shorter is read only where its library or program was seen before
_CAP_SYS_ADMIN, _CAP_BPF, _CAP_PERFMON = 21, 39, 38


@dataclass
class Options:
    """One recording. Sizes in bytes; None for no limit. command: run it, and end with it."""

    output: str
    duration_s: float | None = None
    pids: tuple[int, ...] = ()
    ports: tuple[int, ...] = ()
    namespaces: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    payload: str = "headers"
    payload_bytes: int = 4096
    max_bytes: int | None = None
    max_memory: int | None = None
    stack_hz: int = 0  # CPU stack samples per second and CPU; 0: none
    sched: str = "io"  # scheduler slices of: 'io' processes that use sockets, 'all', 'none'
    max_cpu: float | None = None  # of one CPU, for recorder and programs together: 0.05
    ring: bool = False  # when max_bytes is used up, give up the oldest part instead of ending
    spool_folder: str | None = None
    objects_folder: str | None = None
    kubernetes: bool = True
    arguments: bool = True
    tls: bool = True  # plaintext at TLS libraries
    user_probes: tuple[UserProbe, ...] = ()  # of --probe
    command: tuple[str, ...] = ()
    node_name: str | None = None
    mechanisms: tuple[str, ...] | None = None  # kinds of mechanism allowed, for tests
    direct: bool = True


@dataclass
class Result:
    manifest: Manifest
    output: str
    command_status: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def check_privileges() -> None:
    """Raises CaptureError, one line, where this process may not load BPF programs."""
    try:
        with open("/proc/self/status") as file:
            effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))
    except (OSError, StopIteration) as error:
        raise CaptureError(f"cannot read this process's capabilities: {error}") from error
    admin = effective >> _CAP_SYS_ADMIN & 1
    if not admin and not (effective >> _CAP_BPF & 1 and effective >> _CAP_PERFMON & 1):
        raise CaptureError(
            "recording needs root, or the capabilities BPF, PERFMON, NET_ADMIN and SYS_PTRACE: run it with sudo"
        )


def kernel_types() -> Btf | None:
    """The kernel's BTF, or None where it has none."""
    try:
        return Btf.of_kernel()
    except CaptureError:
        return None


class Recorder:
    """One run. `run` returns when the bundle is written; it raises KubetapeError, and then a spool may be left."""

    def __init__(self, options: Options) -> None:
        self.options = options
        folder = options.spool_folder or os.path.dirname(os.path.abspath(options.output))
        self.spool_path = os.path.join(folder, os.path.basename(options.output) + ".spool")
        self._stop = ""
        self._lost_before: list[list[int]] = []
        self._spaces = Spaces()
        self._notes: list[str] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._command_status: int | None = None
        self._samplers: Samplers | None = None
        self._cgroups_made: dict[str, int] = {}
        self._end: dict[str, Any] = {}
        self._session: Session | None = None
        self._tls: tls.Targets | None = None
        self._objects: dict[str, list[dict[str, Any]]] = {}

    def run(self) -> Result:
        options = self.options
        check_privileges()
        folder = os.path.dirname(os.path.abspath(options.output))
        if not os.access(folder, os.W_OK):
            raise CaptureError(f"cannot write into {folder}: choose another place with -o")
        types = kernel_types()
        scope = Scope(options)
        settings = self._settings(scope)
        spool = SpoolWriter(self.spool_path, options.max_bytes, options.ring)
        handlers = self._catch_signals()
        loaded: load.Loaded | None = None
        try:
            with load.Compiling(settings, types) as compiling:
                # While it compiles.
                self._objects = self._take_snapshot()
                if scope.by_pod:
                    scope.set_pods(self._objects.get("k8s_pod", []))
                loaded = load.attach(compiling, options.mechanisms, scope.apply)
            self._start_tls(loaded)
            self._record(spool, loaded, scope, types)
        except BaseException:
            if spool.size == 0:
                remove(self.spool_path)
            raise
        finally:
            if loaded is not None:
                loaded.close()
            spool.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        result = self._convert()
        if self._child is not None:
            result.command_status = self._child.wait()
        return result

    def _settings(self, scope: Scope) -> load.Settings:
        options = self.options
        settings = load.Settings(
            payload=options.payload,
            payload_bytes=options.payload_bytes,
            ports=options.ports,
            filter_pids=bool(options.pids),
            filter_cgroups=scope.by_pod,
            filter_netns=scope.by_pod,
            arguments=options.arguments,
            cgroups=host.CgroupIds().hierarchy,
            control=options.ring or options.max_cpu is not None,
            direct=options.direct,
            sched=options.sched,
            stack_hz=options.stack_hz,
            user=options.user_probes,
            tls=options.tls,
        )
        if options.max_memory is not None:
            while settings.ring_bytes > max(1 << 20, options.max_memory // 4):
                settings.ring_bytes //= 2
        if options.ring and options.max_bytes is not None:
            # One drain takes a whole ring at most, and has to fit beside what is to be kept.
            while settings.ring_bytes > max(1 << 18, options.max_bytes // 4):
                settings.ring_bytes //= 2
        return settings

    def _start_tls(self, loaded: load.Loaded) -> None:
        found = [a for a in loaded.attachments if a.probe == "tls"]
        if found:
            self._tls = tls.start(found[0].mechanism, [a.program for a in found])
            loaded.attachments.insert(0, self._tls)  # detached first: the others are closed when nothing runs them

    def _take_snapshot(self) -> dict[str, list[dict[str, Any]]]:
        """The Kubernetes objects as they are now; `_session` goes on watching."""
        options = self.options
        node = host.node_values(options.node_name)["name"]
        self._session = Session(
            SnapshotOptions(
                node=node,
                use_api=options.kubernetes and options.objects_folder is None,
                from_dir=options.objects_folder,
                runtime_root=host_root() or "/",
            )
        )
        rows = self._session.end(again=False).rows
        self._session.watch()
        return rows

    # ---- recording ------------------------------------------------------------------------------------

    def _record(self, spool: SpoolWriter, loaded: load.Loaded, scope: Scope, types: Btf | None) -> None:
        start_ns = time.monotonic_ns()
        base_cpu = time.process_time_ns()
        ring = Ring(loaded.module.map_fd("events"), loaded.settings.ring_bytes)
        cgroups = host.CgroupIds()
        cgroup_watch = CgroupWatch(cgroups.mount).start()
        full = ""
        control = Control(loaded, self.options.max_cpu) if loaded.settings.control else None
        spool.on_segment = lambda: self._begin_segment(spool, cgroups, control)
        try:
            self._header(spool, loaded, types, start_ns, cgroups)
            spool.json("anchor", anchor=dataclasses.asdict(host.clock_anchor()))
            if loaded.settings.wants("sched_slice"):
                spool.json("syscalls", names=syscall_names(loaded.module.syscalls))
            for name, rows in self._objects.items():
                spool.json("rows", table=name, rows=rows)
            self._start_samplers(loaded)
            self._child = self._start_command()
            self._drain(spool, ring)
            self._tell_tls(spool)
            self._world(spool, cgroups, scope, "start")
            full = self._loop(spool, ring, loaded, scope, cgroups, self._child, start_ns, base_cpu, control)
        except SpoolFullError as problem:
            full = str(problem)
        end_ns = time.monotonic_ns()
        loaded.detach()
        self._look_at_spaces(loaded, spool)
        if not full:
            try:
                self._drain(spool, ring, everything=True)
            except SpoolFullError as problem:
                full = str(problem)
        if full:
            self._stop = "disk_budget"
            left = ring.backlog
            what = (
                "the budget given by --max-bytes was used up" if full == "disk_budget" else "the spool's disk was full"
            )
            self._notes.append(f"{what}: the recording stopped there; {left} bytes of events in memory are lost")
        if self._samplers is not None:
            self._samplers.stop()
        self._cgroups_made = cgroup_watch.stop()
        self._notes += [cgroup_watch.note] if cgroup_watch.note else []
        snapshot_facts: dict[str, Any] = {}
        if self._session is not None:
            last = self._session.end()
            self._objects = last.rows
            self._notes += last.notes
            snapshot_facts = last.facts
        loaded.read_costs()
        if control is not None:
            self._notes += control.close()
        self._end = self._end_values(loaded, start_ns, end_ns, base_cpu, spool.total_bytes)
        self._end["facts"]["kubernetes"] = snapshot_facts
        spool.budget_bytes = None
        try:
            self._loss(spool, loaded)
            spool.json("anchor", anchor=dataclasses.asdict(host.clock_anchor()))
            self._world(spool, cgroups, scope, "end")
            if loaded.settings.wants("sched_slice"):
                spool.json("sched_threads", threads=read_threads(loaded.module))
            if self._tls is not None:
                spool.json("tls_processes", rows=self._tls.others())
            spool.json("end", **self._end)
        except SpoolFullError:
            self._notes.append("no room for the state of the node at the end of the recording")
            self._end["notes"] = self._notes
        ring.close()

    def _header(
        self, spool: SpoolWriter, loaded: load.Loaded, types: Btf | None, start_ns: int, cgroups: host.CgroupIds
    ) -> None:
        options = self.options
        facts: dict[str, Any] = {
            "user_probes": [user.to_json() for user in loaded.settings.user],
            "header_source": loaded.header_source,
            "cgroup_hierarchy": cgroups.hierarchy,
            "ephemeral_port_low": _ephemeral_low(),
        }
        if types is not None:
            facts["drop_reasons"] = {
                k: v.removeprefix("SKB_DROP_REASON_") for k, v in types.enum_values("skb_drop_reason").items()
            }
            facts["reset_reasons"] = {
                k: v.removeprefix("SK_RST_REASON_") for k, v in types.enum_values("sk_rst_reason").items()
            }
        spool.json(
            "header",
            version=VERSION,
            start_ns=start_ns,
            layouts=[layout.to_json() for layout in layouts().values()]
            + [user.layout().to_json() for user in loaded.settings.user],
            node={
                **host.node_values(options.node_name),
                "command_line": sys.argv,
                "policy": {
                    "payload": options.payload,
                    "payload_bytes": options.payload_bytes,
                    "arguments": options.arguments,
                    "sched": options.sched,
                    "stack_hz": options.stack_hz,
                    "tls": options.tls,
                    "pids": options.pids,
                    "ports": options.ports,
                    "namespaces": options.namespaces,
                    "pods": options.pods,
                },
                "budgets": {
                    "duration_s": options.duration_s,
                    "max_bytes": options.max_bytes,
                    "max_memory": options.max_memory,
                    "max_cpu": options.max_cpu,
                    "ring": options.ring,
                    "ring_bytes": loaded.settings.ring_bytes,
                },
            },
            facts=facts,
            probes=[dataclasses.asdict(s) for s in loaded.statuses],
        )

    def _begin_segment(self, spool: SpoolWriter, cgroups: host.CgroupIds, control: Control | None) -> None:
        """What makes the part of the spool that begins now readable by itself: processes now, sockets when used."""
        processes = host.process_rows(cgroups, False, arguments=self.options.arguments)
        spool.segment_json("processes", when="segment", processes=processes)
        if control is not None:
            control.next_generation()

    def _look_at_spaces(self, loaded: load.Loaded, spool: SpoolWriter) -> None:
        """What stack samples need of the processes at the end."""
        if loaded.settings.wants("stack_sample"):
            with contextlib.suppress(SpoolFullError):
                self._spaces.look(loaded.module, spool)
            self._spaces.finish()

    def _start_samplers(self, loaded: load.Loaded) -> None:
        try:
            from kubetape.capture import samplers
        except ImportError as error:
            self._notes.append(f"no samplers: {error}")
            return
        name = host.node_values(self.options.node_name)["name"]
        self._samplers = samplers.start(name)

    def _end_command(self, leave: bool) -> None:
        """Where the user's time limit or signal ended the recording, the command ends too; a budget lets it go on."""
        if self._child is None:
            return
        if self._child.poll() is None and not leave:
            self._child.terminate()
            try:
                self._child.wait(5)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._command_status = self._child.poll()

    def _start_command(self) -> subprocess.Popen[bytes] | None:
        if not self.options.command:
            return None
        try:
            return subprocess.Popen(self.options.command)
        except OSError as error:
            raise CaptureError(f"cannot run {self.options.command[0]}: {error.strerror}") from error

    def _loop(
        self,
        spool: SpoolWriter,
        ring: Ring,
        loaded: load.Loaded,
        scope: Scope,
        cgroups: host.CgroupIds,
        child: subprocess.Popen[bytes] | None,
        start_ns: int,
        base_cpu: int,
        control: Control | None,
    ) -> str:
        options = self.options
        begin = time.monotonic()
        next_second, next_anchor, next_look = begin + 1, begin + ANCHOR_SECONDS, begin + TLS_LOOK_SECONDS
        ended_at = 0.0
        while not self._stop:
            self._drain(spool, ring)
            if loaded.settings.wants("stack_sample"):
                self._spaces.look(loaded.module, spool)
            now = time.monotonic()
            if now >= next_second:
                next_second += 1
                self._heartbeat(spool, ring, loaded, base_cpu)
                scope.refresh()
                if control is not None:
                    control.adjust()
                if (
                    options.max_memory is not None
                    and _resident_bytes() + loaded.settings.ring_bytes > options.max_memory
                ):
                    self._stop = "memory_budget"
            if self._tls is not None and now >= next_look:
                next_look = now + TLS_LOOK_SECONDS
                self._tls.turn()
                self._tell_tls(spool)
            if now >= next_anchor:
                next_anchor += ANCHOR_SECONDS
                spool.json("anchor", anchor=dataclasses.asdict(host.clock_anchor()))
            if options.duration_s is not None and now - begin >= options.duration_s:
                self._stop = self._stop or "duration"
            if child is not None and child.poll() is not None:
                # What it set off in others may still be under way.
                ended_at = ended_at or now
                if now - ended_at > 2 * DRAIN_SECONDS:
                    self._stop = self._stop or "command"
            if not self._stop:
                time.sleep(DRAIN_SECONDS)
        return ""

    def _tell_tls(self, spool: SpoolWriter) -> None:
        rows = self._tls.take_news() if self._tls is not None else []
        if rows:
            spool.json("tls_targets", rows=rows)

    def _drain(self, spool: SpoolWriter, ring: Ring, everything: bool = False) -> None:
        with ring.settled(everything) as data:
            if not data:
                return
            try:
                spool.events(data)
                ring.advance(len(data))
            except SpoolFullError:
                with data[: complete_prefix(data, spool.room())] as part:
                    if part:
                        spool.events(part)
                        ring.advance(len(part))
                raise

    def _heartbeat(self, spool: SpoolWriter, ring: Ring, loaded: load.Loaded, base_cpu: int) -> None:
        lost = self._loss(spool, loaded)
        row = {
            "ts_ns": time.monotonic_ns(),
            "events_count": 0,
            "lost_count": lost,
            "spool_bytes": spool.total_bytes,
            "backlog_bytes": ring.backlog,
            "cpu_ns": time.process_time_ns() - base_cpu,
        }
        spool.json("rows", table="heartbeat", rows=[row])

    def _loss(self, spool: SpoolWriter, loaded: load.Loaded) -> int:
        """Spool what was lost since the call before; returns all that was lost so far."""
        values = load.counters(loaded)
        before = self._lost_before or [[0] * len(v) for v in values]
        self._lost_before = values
        registry = loaded.settings.registry
        names = {p.counter: p.name for p in reversed(registry) if p.counter is not None}
        rows = []
        total = 0
        now = time.monotonic_ns()
        for number, name in names.items():
            assert number is not None
            for what, reason in ((0, "ring_full"), (2, "map_full"), (3, "thinned")):
                row, old = values[number * 4 + what], before[number * 4 + what]
                total += sum(row) if reason != "thinned" else 0
                for cpu, (count, earlier) in enumerate(zip(row, old, strict=True)):
                    if count > earlier:
                        size = values[number * 4 + 1][cpu] - before[number * 4 + 1][cpu] if what == 0 else None
                        rows.append(
                            {
                                "ts_ns": now,
                                "probe": name,
                                "cpu": cpu,
                                "reason": reason,
                                "lost_count": count - earlier,
                                "lost_bytes": size,
                            }
                        )
        if rows:
            spool.json("rows", table="loss", rows=rows)
        return total

    def _world(self, spool: SpoolWriter, cgroups: host.CgroupIds, scope: Scope, when: str) -> None:
        """The sockets, processes and cgroups of this moment."""
        owners = sockets.owners() if when == "start" else {}
        listed, problems = sockets.listing()
        now = time.monotonic_ns()
        rows = []
        for one in listed:
            pid = owners.get(one.inode)
            cgroup_id = cgroups.of_process(pid)[0] if pid else None
            rows.append(
                {
                    "ts_ns": now,
                    "netns_id": one.netns_id,
                    "protocol": one.protocol,
                    "state": one.state,
                    "local_ip": address_text(one.local_ip),
                    "local_port": one.local_port,
                    "remote_ip": address_text(one.remote_ip),
                    "remote_port": one.remote_port,
                    "inode": one.inode,
                    "pid": pid,
                    "cgroup_id": cgroup_id,
                    "drop_count": one.drop_count,
                    "in_scope": scope.contains(pid, cgroup_id, one),
                    "sample": sockets.sample_row(one) if one.info and one.state == 1 else None,
                }
            )
        spool.json("sockets", when=when, sockets=rows)
        if problems:
            spool.json("note", notes=problems)
        processes = host.process_rows(cgroups, when == "start", arguments=self.options.arguments)
        spool.json("processes", when=when, processes=processes)
        spool.json("cgroups", when=when, cgroups=cgroups.rows(self._cgroups_made))

    def _end_values(
        self, loaded: load.Loaded, start_ns: int, end_ns: int, base_cpu: int, spool_bytes: int
    ) -> dict[str, Any]:
        values = load.counters(loaded)
        numbers = {p.name: p.counter for p in loaded.settings.registry}
        first: set[int] = set()
        for status in loaded.statuses:
            number = numbers[status.probe]
            if number is not None and number not in first and status.status == "attached":
                first.add(number)
                status.lost_count = sum(values[number * 4]) + sum(values[number * 4 + 2])
        return {
            "end_ns": end_ns,
            "stop_reason": self._stop,
            "notes": self._notes,
            "probes": [dataclasses.asdict(s) for s in self._statuses(loaded)],
            "facts": {
                "recorder_cpu_ns": time.process_time_ns() - base_cpu,
                "spool_bytes": spool_bytes,
                "command_status": self._command_status,
                "tls_seen": self._tls is not None and any(loaded.module.table("tls_seen")[0]),
            },
        }

    def _statuses(self, loaded: load.Loaded) -> list[ProbeStatus]:
        found = list(loaded.statuses)
        if self._samplers is not None:
            found.append(self._samplers.status())
        return found

    # ---- end ------------------------------------------------------------------------------------------

    def _catch_signals(self) -> dict[int, Any]:
        def stop(number: int, frame: FrameType | None) -> None:
            self._stop = self._stop or "interrupt"

        return {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}

    def _convert(self) -> Result:
        spool = SpoolReader(self.spool_path)
        try:
            manifest = convert(
                spool, self.options.output, self._extra_tables, self._end, frozenset(self._objects), self._spaces
            )
        except KubetapeError as error:
            raise type(error)(f"{error}; what was recorded is kept: kubetape recover {self.spool_path} -o F") from error
        finally:
            spool.close()
            self._spaces.close()
        remove(self.spool_path)
        return Result(manifest, self.options.output, self._command_status)

    def _extra_tables(self, writer: BundleWriter) -> None:
        if self._samplers is not None:
            for name, table in self._samplers.tables().items():
                writer.write(name, table)
        for name, rows in self._objects.items():
            writer.write_rows(name, rows)


def _ephemeral_low() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            return int(file.read().split()[0])
    except OSError:
        return 32768


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
