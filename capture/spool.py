"""The spool: what a recording writes while it runs, readable by itself after a kill -9.

    frame = magic u32 "ktsp", kind u32, size u64, ts_ns u64 (CLOCK_MONOTONIC), then `size` bytes, padded to 8

kind 1: one JSON object, its key "what" says which (`header` is the first frame of a spool and carries the
events' binary layouts). kind 2: a range of the ring buffer as it stood there, records with their 8-byte
headers; it begins and ends at a record. Little-endian. A frame cut off at the end of the file is left out.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubetape.errors import CaptureError

MAGIC = int.from_bytes(b"ktsp", "little")
JSON, EVENTS = 1, 2
_HEAD = struct.Struct("<IIQQ")
VERSION = 1


class SpoolFullError(Exception):
    """The disk or the budget has no room for the frame; what was written before is whole."""


class SpoolWriter:
    """Appends frames to a new file, mode 0600. Raises CaptureError where it cannot be made."""

    def __init__(self, path: str, budget_bytes: int | None = None) -> None:
        self.path, self.budget_bytes, self.size = path, budget_bytes, 0
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError as error:
            raise CaptureError(
                f"{path} is there already, left by a recorder that was killed: make a bundle of it with "
                f"'kubetape recover {path} -o F', or remove it"
            ) from error
        except OSError as error:
            raise CaptureError(f"cannot write the spool {path}: {error.strerror}") from error

    def json(self, what: str, **values: Any) -> None:
        data = json.dumps({"what": what, **values}, separators=(",", ":")).encode()
        self._frame(JSON, memoryview(data))

    def events(self, data: memoryview) -> None:
        """One range of the ring. Raises SpoolFullError, and then nothing of it was written."""
        if self.budget_bytes is not None and self.size + len(data) + _HEAD.size > self.budget_bytes:
            raise SpoolFullError("disk_budget")
        self._frame(EVENTS, data)

    def room(self) -> int:
        """Bytes of events that still fit, some kept back for the last words."""
        disk = os.fstatvfs(self._fd)
        free = disk.f_bavail * disk.f_frsize - (256 << 10)
        if self.budget_bytes is not None:
            free = min(free, self.budget_bytes - self.size - _HEAD.size)
        return max(0, free)

    def _frame(self, kind: int, data: memoryview) -> None:
        head = _HEAD.pack(MAGIC, kind, len(data), time.monotonic_ns())
        padding = b"\0" * (-len(data) % 8)
        total = len(head) + len(data) + len(padding)
        try:
            written = os.writev(self._fd, [head, data, padding])
            while written < total:  # a signal, or a disk about to be full: the next write says which
                rest = (head + bytes(data) + padding)[written:]
                written += os.write(self._fd, rest)
        except OSError as error:
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise SpoolFullError("disk_full") from error
            raise CaptureError(f"cannot write the spool {self.path}: {error.strerror}") from error
        self.size += total

    def close(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True)
class Frame:
    kind: int
    ts_ns: int
    offset: int  # of the frame's data in the file
    size: int


class SpoolReader:
    """The frames of a spool, from a memory map. Raises CaptureError where it is none."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise CaptureError(f"cannot read the spool {path}: {error}") from error
        self.frames: list[Frame] = []
        self.cut_bytes = 0
        self._scan()
        if not self.frames or self.frames[0].kind != JSON:
            raise CaptureError(f"{path} is not a spool of kubetape")
        self.header = self.object(self.frames[0])
        if self.header.get("what") != "header" or self.header.get("version") != VERSION:
            raise CaptureError(f"{path} is not a spool this version of kubetape reads")

    def _scan(self) -> None:
        position, end = 0, len(self.data)
        while position + _HEAD.size <= end:
            magic, kind, size, ts_ns = _HEAD.unpack_from(self.data, position)
            if magic != MAGIC or position + _HEAD.size + size > end:
                break
            self.frames.append(Frame(kind, ts_ns, position + _HEAD.size, size))
            position += _HEAD.size + size + (-size % 8)
        self.cut_bytes = max(0, end - position)

    def object(self, frame: Frame) -> dict[str, Any]:
        try:
            value = json.loads(self.data[frame.offset : frame.offset + frame.size])
        except ValueError as error:
            raise CaptureError(f"{self.path} is damaged at byte {frame.offset}: {error}") from error
        return value if isinstance(value, dict) else {}

    def objects(self, what: str) -> Iterator[dict[str, Any]]:
        for frame in self.frames:
            if frame.kind == JSON:
                value = self.object(frame)
                if value.get("what") == what:
                    yield value

    def event_frames(self) -> list[Frame]:
        return [f for f in self.frames if f.kind == EVENTS and f.size]

    def close(self) -> None:
        try:
            self.data.close()
        except BufferError:  # arrays of the last window still look into it; they close it when they go
            return
