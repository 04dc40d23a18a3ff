"""Cgroups that come and go while a recording runs: init containers, jobs, containers that crash at once.

The tree as it stands at the start and at the end does not have them. A runtime makes a container's folder with
mkdir, which inotify reports for cgroup file systems too, so a thread that sleeps until then needs no time and
misses only a folder that is gone before the thread has run once.

Source: inotify(7); kernel fs/namei.c (vfs_mkdir calls fsnotify_mkdir whatever the file system).
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading

IN_CREATE = 0x00000100
IN_IGNORED = 0x00008000
IN_ISDIR = 0x40000000
IN_ONLYDIR = 0x01000000
# struct inotify_event without the name: watch descriptor, mask, cookie, length of the name.
_EVENT = struct.Struct("iIII")
READ_BYTES = 1 << 16


class CgroupWatch:
    """The folders below `mount` made since the start, as path below it -> inode (the cgroup's id)."""

    def __init__(self, mount: str) -> None:
        self.made: dict[str, int] = {}
        self.note = ""
        self._mount = mount
        self._folders: dict[int, str] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC) if mount else -1
        self._stop_read, self._stop_write = os.pipe()
        self._thread: threading.Thread | None = None

    def start(self) -> CgroupWatch:
        """Watch every folder there is now, and from now on those that are made."""
        if self._fd < 0:
            if self._mount:
                self.note = "no inotify: containers that began and ended in the recording are known by address only"
            return self
        self._watch("", new=False)
        self._thread = threading.Thread(target=self._run, name="kubetape-cgroups", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> dict[str, int]:
        """End the thread; what was made. Calling it again does nothing."""
        if self._thread is not None:
            os.write(self._stop_write, b"x")
            self._thread.join()
            self._thread = None
        for fd in (self._fd, self._stop_read, self._stop_write):
            if fd >= 0:
                os.close(fd)
        self._fd = self._stop_read = self._stop_write = -1
        return self.made

    def _watch(self, path: str, new: bool) -> None:
        """Watch a folder, then look into it: what was made in between is found, what comes after is reported."""
        folder = self._mount + path
        if new:
            try:
                self.made[path] = os.stat(folder).st_ino
            except OSError:
                return  # gone already
        watch = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), IN_CREATE | IN_ONLYDIR)
        if watch < 0:
            if os.path.isdir(folder) and not self.note:
                reason = os.strerror(ctypes.get_errno())
                self.note = f"cgroups made below {folder} and others were not watched for ({reason})"
            return
        self._folders[watch] = path
        try:
            with os.scandir(folder) as entries:
                names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError:
            return
        for name in names:
            if f"{path}/{name}" not in self.made:
                self._watch(f"{path}/{name}", new)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._stop_read], [], [])
            if self._fd in ready:
                self._take(os.read(self._fd, READ_BYTES))
            elif self._stop_read in ready:
                return

    def _take(self, data: bytes) -> None:
        place = 0
        while place < len(data):
            watch, mask, _, size = _EVENT.unpack_from(data, place)
            name = os.fsdecode(data[place + _EVENT.size : place + _EVENT.size + size].rstrip(b"\0"))
            place += _EVENT.size + size
            if mask & IN_IGNORED:
                self._folders.pop(watch, None)
            elif mask & IN_CREATE and mask & IN_ISDIR and watch in self._folders:
                path = f"{self._folders[watch]}/{name}"
                if path not in self.made:
                    self._watch(path, new=True)
