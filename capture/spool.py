"""The spool: what a recording writes while it runs, readable by itself after a kill -9.

    frame = magic u32 "ktsp", kind u32, size u64, ts_ns u64 (CLOCK_MONOTONIC), then `size` bytes, padded to 8

kind 1: one JSON object, its key "what" says which (`header` is the first frame of a spool and carries the
events' binary layouts). kind 2: a range of the ring buffer as it stood there, records with their 8-byte
headers; it begins and ends at a record. Little-endian. A frame cut off at the end of the file is left out.

A recording that keeps the newest (`ring`) puts its ranges into files of their own beside the spool, `SPOOL.1`,
`SPOOL.2`, ..., each an eighth of the budget, and removes the oldest where the next would not fit. The spool itself
keeps the state of the world; a segment begins with what is needed to read it without those before it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kubetape.errors import CaptureError

MAGIC = int.from_bytes(b"ktsp", "little")
JSON, EVENTS = 1, 2
_HEAD = struct.Struct("<IIQQ")
VERSION = 1


class SpoolFullError(Exception):
    """The disk or the budget has no room for the frame; what was written before is whole."""


SEGMENTS = 8  # of a ring: what is thrown away at a time is an eighth of the budget


def segment_path(path: str, number: int) -> str:
    return f"{path}.{number}"


def segment_numbers(path: str) -> list[int]:
    """The numbers of the files that belong to the spool `path`, ascending."""
    folder, name = os.path.split(os.path.abspath(path))
    with contextlib.suppress(OSError):
        ends = [f.removeprefix(name + ".") for f in os.listdir(folder) if f.startswith(name + ".")]
        return sorted(int(end) for end in ends if end.isdigit())
    return []


def remove(path: str) -> None:
    """The spool and all that belongs to it."""
    for number in segment_numbers(path):
        os.unlink(segment_path(path, number))
    os.unlink(path)


@dataclass
class _Segment:
    number: int
    size: int = 0
    begin_ns: int = 0  # what happened later can be read without the segments before


class SpoolWriter:
    """Appends frames to a new file, mode 0600. Raises CaptureError where it cannot be made.

    ring: with a budget, make room for what is new by giving up the oldest; dropped_bytes counts what was given up.
    on_segment: called when a new segment is open and empty.
    """

    def __init__(self, path: str, budget_bytes: int | None = None, ring: bool = False) -> None:
        self.path, self.budget_bytes, self.size = path, budget_bytes, 0
        self.ring = ring and budget_bytes is not None
        self.dropped_bytes = 0
        self.on_segment: Callable[[], None] | None = None
        if segment_numbers(path):
            raise self._left_behind()
        self._fd = self._create(path)
        self._segments: list[_Segment] = []  # newest last; its descriptor:
        self._segment_fd = -1

    def _left_behind(self) -> CaptureError:
        path = self.path
        return CaptureError(
            f"{path} is there already, left by a recorder that was killed: make a bundle of it with "
            f"'kubetape recover {path} -o F', or remove it"
        )

    def _create(self, path: str) -> int:
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError as error:
            raise self._left_behind() from error
        except OSError as error:
            raise CaptureError(f"cannot write the spool {path}: {error.strerror}") from error

    @property
    def total_bytes(self) -> int:
        """On disk now."""
        return self.size + sum(segment.size for segment in self._segments)

    def json(self, what: str, **values: Any) -> None:
        data = json.dumps({"what": what, **values}, separators=(",", ":")).encode()
        self.size += self._frame(self._fd, self.size, JSON, memoryview(data))

    def events(self, data: memoryview) -> None:
        """One range of the ring. Raises SpoolFullError, and then nothing of it was written."""
        needed = len(data) + _HEAD.size
        if self.ring:
            self._ring_events(data)
            return
        if self.budget_bytes is not None and self.size + needed > self.budget_bytes:
            raise SpoolFullError("disk_budget")
        self.size += self._frame(self._fd, self.size, EVENTS, data)

    def _ring_events(self, data: memoryview) -> None:
        assert self.budget_bytes is not None
        needed = len(data) + _HEAD.size + 8
        if not self._segments or self._segments[-1].size + needed > self.budget_bytes // SEGMENTS:
            self._next_segment()
        while len(self._segments) > 1 and self.total_bytes + needed > self.budget_bytes:
            self._drop_oldest()
        if self.total_bytes + needed > self.budget_bytes:
            raise SpoolFullError("disk_budget")
        while True:
            newest = self._segments[-1]
            try:
                newest.size += self._frame(self._segment_fd, newest.size, EVENTS, data)
                return
            except SpoolFullError:
                if len(self._segments) < 2:
                    raise
                self._drop_oldest()  # the disk is smaller than the budget

    def segment_json(self, what: str, **values: Any) -> None:
        """A JSON frame that goes when its segment goes."""
        data = json.dumps({"what": what, **values}, separators=(",", ":")).encode()
        newest = self._segments[-1]
        newest.size += self._frame(self._segment_fd, newest.size, JSON, memoryview(data))

    def _next_segment(self) -> None:
        number = self._segments[-1].number + 1 if self._segments else 1
        if self._segment_fd >= 0:
            os.close(self._segment_fd)
        self._segment_fd = self._create(segment_path(self.path, number))
        self._segments.append(_Segment(number))
        if self.on_segment is not None:
            self.on_segment()
        self._segments[-1].begin_ns = time.monotonic_ns()

    def _drop_oldest(self) -> None:
        gone = self._segments.pop(0)
        os.unlink(segment_path(self.path, gone.number))
        self.dropped_bytes += gone.size
        self.json("dropped", until_ns=self._segments[0].begin_ns, bytes=self.dropped_bytes)

    def room(self) -> int:
        """Bytes of events that still fit, some kept back for the last words."""
        disk = os.fstatvfs(self._fd)
        free = disk.f_bavail * disk.f_frsize - (256 << 10)
        if self.budget_bytes is not None:
            free = min(free, self.budget_bytes - self.total_bytes - _HEAD.size)
        return max(0, free)

    def _frame(self, fd: int, position: int, kind: int, data: memoryview) -> int:
        """Append at `position`, the file's end; returns the bytes written, all or, where it raises, none."""
        head = _HEAD.pack(MAGIC, kind, len(data), time.monotonic_ns())
        padding = b"\0" * (-len(data) % 8)
        total = len(head) + len(data) + len(padding)
        try:
            written = os.writev(fd, [head, data, padding])
            while written < total:  # a signal, or a disk about to be full: the next write says which
                rest = (head + bytes(data) + padding)[written:]
                written += os.write(fd, rest)
        except OSError as error:
            os.ftruncate(fd, position)
            os.lseek(fd, position, os.SEEK_SET)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise SpoolFullError("disk_full") from error
            raise CaptureError(f"cannot write the spool {self.path}: {error.strerror}") from error
        return total

    def close(self) -> None:
        os.close(self._fd)
        if self._segment_fd >= 0:
            os.close(self._segment_fd)


@dataclass(frozen=True)
class Frame:
    kind: int
    ts_ns: int
    offset: int  # of the frame's data in the file
    size: int
    file: int = 0  # 0: the spool itself, then its segments


class SpoolReader:
    """The frames of a spool and of its segments, from memory maps. Raises CaptureError where it is none."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files = [_map(path)]
        self.files += [_map(segment_path(path, n)) for n in segment_numbers(path) if _size(segment_path(path, n))]
        self.frames: list[Frame] = []
        self.cut_bytes = 0
        for number in range(len(self.files)):
            self._scan(number)
        if not self.frames or self.frames[0].kind != JSON:
            raise CaptureError(f"{path} is not a spool of kubetape")
        self.header = self.object(self.frames[0])
        if self.header.get("what") != "header" or self.header.get("version") != VERSION:
            raise CaptureError(f"{path} is not a spool this version of kubetape reads")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(len(data) for data in self.files)

    @property
    def last_ns(self) -> int:
        """Time of the newest frame."""
        return max(frame.ts_ns for frame in self.frames)

    def _scan(self, number: int) -> None:
        data = self.files[number]
        position, end = 0, len(data)
        while position + _HEAD.size <= end:
            magic, kind, size, ts_ns = _HEAD.unpack_from(data, position)
            if magic != MAGIC or position + _HEAD.size + size > end:
                break
            self.frames.append(Frame(kind, ts_ns, position + _HEAD.size, size, number))
            position += _HEAD.size + size + (-size % 8)
        self.cut_bytes += max(0, end - position)

    def object(self, frame: Frame) -> dict[str, Any]:
        try:
            value = json.loads(self.files[frame.file][frame.offset : frame.offset + frame.size])
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
        for data in self.files:
            # Arrays of the last window may still look into it; they close it when they go.
            with contextlib.suppress(BufferError):
                data.close()


def _map(path: str) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise CaptureError(f"cannot read the spool {path}: {error}") from error


def _size(path: str) -> int:
    return os.stat(path).st_size
