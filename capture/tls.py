"""Which programs and libraries do TLS here, and uprobes on them: OpenSSL, BoringSSL, GnuTLS, Go's crypto/tls.

A file is looked at once, whichever process or container maps it: a uprobe belongs to the file, and every process that
maps it, now or later, has it. Libraries that the dynamic loader of a root (the node's, each container's) knows are
taken before any process needs them, so that a program which lives for milliseconds is read as well; where no process
maps them, no breakpoint exists and nothing is paid. Programs with TLS inside (Go, static OpenSSL) and libraries from
elsewhere are found when a process has them mapped.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from kubetape.capture import gobinary, uprobe
from kubetape.capture.elf import Elf, ElfError
from kubetape.capture.probes import TLS_PROGRAMS
from kubetape.capture.program import Attachment

# (function of the library, program at its entry, whether `tls_return` stands at its return)
_OPENSSL = (
    ("SSL_read", "openssl_read", True),
    ("SSL_write", "openssl_write", True),
    ("SSL_read_ex", "openssl_read_ex", True),
    ("SSL_write_ex", "openssl_write_ex", True),
    ("SSL_do_handshake", "tls_handshake", True),
    ("SSL_free", "tls_free", False),
    ("SSL_clear", "tls_free", False),
)
_GNUTLS = (
    ("gnutls_record_recv", "gnutls_receive", True),
    ("gnutls_record_send", "gnutls_send", True),
    ("gnutls_handshake", "tls_handshake", True),
    ("gnutls_deinit", "tls_free", False),
)
_GO = (
    ("crypto/tls.(*Conn).Read", "go_read", True),
    ("crypto/tls.(*Conn).Write", "go_write", True),
    ("crypto/tls.(*Conn).Close", "go_close", False),
)
_BORINGSSL_MARK = "SSL_CTX_set_grease_enabled"

# Libraries looked into when a process has them mapped: by name, since looking into all would take seconds.
_NAMES = rb"lib(?:ssl|gnutls|node|boringssl|conscrypt|netty_tcnative)|cygrpc|_ssl\."
_MAPPED = re.compile(
    rb"^([0-9a-f]+-[0-9a-f]+) \S+ \S+ \S+ \d+ +(/[^\n]*/(?:" + _NAMES + rb")[^/\n]*)$",
    re.M,
)
_JAVA = re.compile(rb"/libjvm\.so\n")
_CACHED = re.compile(rb"(/[\x21-\x7e]+/lib(?:ssl|gnutls)\.so[.\d]*)\0")
_LOOSE = re.compile(r"lib(?:ssl|gnutls)\.so[.\d]*")
_RUSTLS = b"rustls"
_GONE = ("unknown", "the program was gone before it could be looked at")

# Seconds after a process was first seen at which its mappings are read (again): programs load libraries late.
_AGES = (0.0, 0.5, 2.0, 8.0)
_AGAIN_SECONDS = 30.0
_BUDGET_SECONDS = 0.05  # of one turn; the rest waits for the next
_MAX_FILES = 1000
_MAX_SEARCH = 256 << 20


@dataclass
class _Process:
    first: float
    looks: int = 0
    due: float = 0.0
    path: str = ""
    inode: int = 0
    java: bool = False
    read: bool = False  # its program or a library of it has probes


@dataclass
class _File:
    """A row of uprobe_target without its process, and that process."""

    path: str
    inode: int
    library: str
    status: str
    reason: str | None
    count: int
    pid: int

    def row(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "inode": self.inode,
            "library": self.library,
            "pid": self.pid,
            "status": self.status,
            "reason": self.reason,
            "symbol_count": self.count,
        }


@dataclass
class Targets(Attachment):
    """All uprobes of a recording. `scan` at its start, `turn` while it runs; `detach` removes them."""

    programs: dict[str, int] = field(default_factory=dict)
    events: list[int] = field(default_factory=list)
    files: dict[tuple[int, int], _File | None] = field(default_factory=dict)
    news: list[_File] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._processes: dict[int, _Process] = {}
        self._roots: set[tuple[int, int, int]] = set()
        self._gone: dict[int, _Process] = {}

    # ---- finding --------------------------------------------------------------------------------------

    def scan(self) -> None:
        """Everything that runs now."""
        now = time.monotonic()
        for pid in _pids():
            self._look_at_process(pid, now)

    def turn(self) -> None:
        """New processes, and a few of the known ones again."""
        now = time.monotonic()
        alive = set(_pids())
        for pid in self._processes.keys() - alive:
            gone = self._processes.pop(pid)
            if gone.path:
                self._gone[pid] = gone
        for pid in sorted(alive - self._processes.keys()):
            self._look_at_process(pid, now)
        for pid, process in list(self._processes.items()):
            if process.due <= now:
                self._look_at_process(pid, now)
                if time.monotonic() - now > _BUDGET_SECONDS:
                    break

    def _look_at_process(self, pid: int, now: float) -> None:
        process = self._processes.setdefault(pid, _Process(now))
        process.looks += 1
        age = _AGES[process.looks] if process.looks < len(_AGES) else None
        process.due = process.first + age if age is not None else now + _AGAIN_SECONDS
        if pid == os.getpid():
            process.due = float("inf")
            return
        try:
            process.path = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            process.due = float("inf")  # a kernel thread, or gone
            return
        with contextlib.suppress(OSError):
            process.inode = os.stat(f"/proc/{pid}/exe").st_ino
            self._look_at_root(pid)
        process.read |= self._look_at_file(f"/proc/{pid}/exe", process.path, pid)
        try:
            with open(f"/proc/{pid}/maps", "rb") as file:
                maps = file.read()
        except OSError:
            return
        process.java = process.java or _JAVA.search(maps) is not None
        for place, raw in set(_MAPPED.findall(maps)):
            path = os.fsdecode(raw)
            process.read |= self._look_at_file(_reachable(pid, place.decode(), path), path, pid)

    def _look_at_root(self, pid: int) -> None:
        """The libraries that the loader of this process's root would find."""
        root = f"/proc/{pid}/root"
        found = os.stat(root)
        key = (os.stat(f"/proc/{pid}/ns/mnt").st_ino, found.st_dev, found.st_ino)
        if key in self._roots:
            return
        self._roots.add(key)
        for path in _loader_libraries(root):
            self._look_at_file(root + path, path, pid)

    # ---- attaching ------------------------------------------------------------------------------------

    def _look_at_file(self, path: str, shown: str, pid: int) -> bool:
        """Attach to a file not seen before; whether it has probes."""
        try:
            found = os.stat(path)
            key = (found.st_dev, found.st_ino)
            if key in self.files:
                known = self.files[key]
                return known is not None and known.status == "attached"
            self.files[key] = None
            with Elf(path) as elf:
                target = self._attach_file(elf, path, shown, found.st_ino, pid)
        except (OSError, ElfError):
            return False
        if target is None:
            return False
        self.files[key] = target
        self.news.append(target)
        return target.status == "attached"

    def _attach_file(self, elf: Elf, path: str, shown: str, inode: int, pid: int) -> _File | None:
        try:
            library, wanted = _points(elf)
        except ElfError as error:
            return _File(shown, inode, "go", "no_symbols", str(error), 0, pid)
        if not wanted:
            if re.match(r"lib(ssl|gnutls)\.", os.path.basename(shown)):
                name = "gnutls" if "gnutls" in shown else "openssl"
                return _File(shown, inode, name, "no_symbols", "its functions have no names", 0, pid)
            return None
        if sum(1 for file in self.files.values() if file is not None) >= _MAX_FILES:
            return _File(shown, inode, library, "unsupported", f"more than {_MAX_FILES} files", 0, pid)
        attached: list[int] = []
        try:
            for (program, at_return), offsets in _grouped(wanted).items():
                descriptor = self.programs[program]
                if self.mechanism == "uprobe_multi":
                    attached.append(uprobe.attach_link(descriptor, path, offsets, at_return))
                else:
                    attached += [uprobe.attach_event(descriptor, path, offset, at_return) for offset in offsets]
        except OSError as error:
            for event in attached:
                os.close(event)
            return _File(shown, inode, library, "not_readable", f"the kernel says: {error.strerror}", 0, pid)
        self.events += attached
        return _File(shown, inode, library, "attached", None, len(wanted), pid)

    # ---- what is told ---------------------------------------------------------------------------------

    def take_news(self) -> list[dict[str, Any]]:
        """Rows of uprobe_target found since the call before."""
        rows = [file.row() for file in self.news]
        self.news.clear()
        return rows

    def others(self) -> list[dict[str, Any]]:
        """The processes in whose program or libraries nothing was found, and what is known of why.

        Whether they speak TLS at all is known when their bytes are looked at.
        """
        rows = []
        reasons: dict[int, tuple[str, str]] = {}
        for pid, process in [*self._processes.items(), *self._gone.items()]:
            if not process.path or process.read:
                continue
            if process.java:
                library, reason = "java", "Java's own TLS: its code is compiled while it runs and has no fixed place"
            else:
                if process.inode not in reasons and (why := _why_not(pid)) is not None:
                    reasons[process.inode] = why
                library, reason = reasons.get(process.inode, _GONE)
            rows.append(
                {
                    "path": process.path, "inode": process.inode, "library": library, "pid": pid,
                    "status": "unsupported", "reason": reason, "symbol_count": 0,
                }
            )  # fmt: skip
        return rows

    def statistics(self) -> tuple[int, int]:
        return 0, 0

    def detach(self) -> None:
        """Each waits for all CPUs to be done with it: side by side, they wait once."""
        if self.events:
            with ThreadPoolExecutor(min(64, len(self.events))) as pool:
                list(pool.map(os.close, self.events))
            self.events.clear()


def _grouped(points: list[tuple[str, int, bool]]) -> dict[tuple[str, bool], list[int]]:
    """(program, at the return) -> its offsets; those at returns first, so that no call is entered but never left."""
    grouped: dict[tuple[str, bool], list[int]] = {}
    for program, offset, at_return in points:
        grouped.setdefault((program, at_return), []).append(offset)
    return dict(sorted(grouped.items(), key=lambda item: not item[0][0].endswith("_return")))


def start(mechanism: str, programs: list[int]) -> Targets:
    """Attach to all that is there. programs: descriptors in the order of TLS_PROGRAMS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    targets = Targets("tls", mechanism, -1, programs=dict(zip(TLS_PROGRAMS, programs, strict=True)))
    targets.scan()
    return targets


def _points(elf: Elf) -> tuple[str, list[tuple[str, int, bool]]]:
    """The library, and (program, offset, at the return) for each probe it wants; nothing where it does no TLS."""
    if gobinary.is_go(elf):
        found = gobinary.functions(elf, tuple(name for name, _, _ in _GO))
        points = []
        for name, program, returns in _GO:
            if name in found:
                if returns:
                    points += [("go_return", offset, False) for offset in found[name].returns]
                points.append((program, found[name].entry, False))
        return "go", points
    named = elf.functions([name for name, _, _ in _OPENSSL + _GNUTLS])
    if "SSL_read" in named or "SSL_write" in named:
        boring = "SSL_read_ex" not in named and elf.functions([_BORINGSSL_MARK])
        return ("boringssl" if boring else "openssl"), _c_points(_OPENSSL, named)
    if "gnutls_record_recv" in named:
        return "gnutls", _c_points(_GNUTLS, named)
    return "unknown", []


def _c_points(wanted: tuple[tuple[str, str, bool], ...], named: dict[str, int]) -> list[tuple[str, int, bool]]:
    points = []
    for name, program, returns in wanted:
        if name in named:
            if returns:
                points.append(("tls_return", named[name], True))
            points.append((program, named[name], False))
    return points


def _pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def _loader_libraries(root: str) -> list[str]:
    """Paths below `root` of TLS libraries in the loader's cache; where there is none (musl), in its usual folders."""
    try:
        with open(f"{root}/etc/ld.so.cache", "rb") as file:
            return sorted({os.fsdecode(path) for path in _CACHED.findall(file.read())})
    except OSError:
        pass
    paths = []
    for folder in ("/lib", "/usr/lib", "/usr/local/lib"):
        with contextlib.suppress(OSError):
            paths += [f"{folder}/{name}" for name in os.listdir(root + folder) if _LOOSE.fullmatch(name)]
    return sorted(paths)


def _reachable(pid: int, place: str, path: str) -> str:
    """A path of a mapped file from here: by the mapping itself where that is allowed, which holds for deleted files and
    every mount; else below the process's root, or as it is."""
    for there in (f"/proc/{pid}/map_files/{place}", f"/proc/{pid}/root{path}"):
        if os.path.exists(there):
            return there
    return path


def _why_not(pid: int) -> tuple[str, str] | None:
    """(library, reason) for a program without any function known; None where it cannot be looked at any more."""
    path = f"/proc/{pid}/exe"
    try:
        with Elf(path) as elf:
            if gobinary.is_go(elf):
                return "go", "the program has no crypto/tls, or one of a layout not known"
            if len(elf.data) <= _MAX_SEARCH and elf.data.find(_RUSTLS) >= 0:
                return "rustls", "rustls is compiled into the program; its functions have no fixed names"
    except (OSError, ElfError):
        return None
    return "unknown", "a TLS library not known, or one linked in without its names"
