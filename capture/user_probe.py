"""Probes of the user's own (`record --probe FILE`): one C file that begins with a comment saying what it is, in TOML.

    /* kubetape-probe
    name = "program_start"
    what = "one program that was started"
    cost = "which programs were started is missing"
    ladder = [["tracing:started@sched_process_exec"]]

    [columns]
    pid = "u32 process"
    command = "text16 name of the program"
    */
    int started(u64 *ctx) { struct program_start row = {}; ...; return submit_program_start(&row); }

One file, since a question is passed on as one file; the columns stand there once, and the C struct, the ring's record
and the table's schema are made of them. docs/probes.md is the user's page.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from kubetape.bundle.schema import TABLES
from kubetape.capture import columns
from kubetape.capture.layouts import Layout
from kubetape.capture.probes import PROBES, Probe, Target
from kubetape.capture.records import Array
from kubetape.errors import CaptureError

FIRST_COUNTER, FIRST_EVENT, MAX_PROBES = 9, 200, 7  # common.h: PROBES; events.h uses small numbers
MAX_ROW_BYTES = 400  # a row is made on the stack of the program, which has 512
MAX_FILE_BYTES = 1 << 20
KINDS = ("tracing", "raw", "fexit", "kprobe", "kretprobe")
_HEADER = re.compile(r"\s*/\*\s*kubetape-probe\s*\n(.*?)\*/", re.S)
_NAME = re.compile(r"[a-z][a-z0-9_]{1,40}")
_TARGET = re.compile(r"(\w+):(\w+)@(\w+)")
_TYPE = re.compile(r"(u8|u16|u32|u64|s8|s16|s32|s64|bool|ip|text(\d{1,3}))")
_INCLUDE = re.compile(r'^[ \t]*#include "([\w.]+)"[ \t]*$', re.M)
_INCLUDES = ("common.h", "calls.h", "sockets.h")
_TAKEN = ("ts_ns", "kind", "reserved", "node")


@dataclass(frozen=True)
class UserColumn:
    name: str
    type: str
    doc: str

    @property
    def numpy(self) -> tuple[str, tuple[int, ...]] | str:
        if self.type == "ip":
            return "<u1", (16,)
        if self.type.startswith("text"):
            return f"S{self.type[4:]}"
        return "<u1" if self.type == "bool" else f"<{'i' if self.type[0] == 's' else 'u'}{int(self.type[1:]) // 8}"

    @property
    def c(self) -> str:
        if self.type == "ip":
            return f"u8 {self.name}[16];"
        if self.type.startswith("text"):
            return f"char {self.name}[{self.type[4:]}];"
        return f"{'u8' if self.type == 'bool' else self.type} {self.name};"

    @property
    def align(self) -> int:
        return int(self.type[1:]) // 8 if self.type[1:].isdigit() else 1

    @property
    def arrow(self) -> Any:
        if self.type == "ip" or self.type.startswith("text"):
            return pa.string()
        return pa.bool_() if self.type == "bool" else pa.int64()


@dataclass(frozen=True)
class UserProbe:
    """what: what one row is. number: of its events; text: the C source as the user wrote it."""

    path: str
    what: str
    columns: tuple[UserColumn, ...]
    probe: Probe
    number: int
    text: str

    @property
    def name(self) -> str:
        return self.probe.name

    def layout(self) -> Layout:
        """The record in the ring: time, kind, then the columns with the C compiler's alignment."""
        names, formats, offsets = ["ts_ns", "kind"], ["<u8", "u1"], [0, 8]
        offset = 9
        for column in self.columns:
            offset = -(-offset // column.align) * column.align
            names.append(column.name)
            formats.append(column.numpy)  # type: ignore[arg-type]
            offsets.append(offset)
            offset += np.dtype(column.numpy).itemsize
        spec = {"names": names, "formats": formats, "offsets": offsets, "itemsize": -(-offset // 8) * 8}
        return Layout(self.number, self.name, np.dtype(spec))  # type: ignore[call-overload]

    def includes(self) -> list[str]:
        return _INCLUDE.findall(self.text)

    def source(self) -> str:
        """C: the row's struct, the function that submits it, and the user's text under its own line numbers."""
        members = "".join(f"\t{column.c}\n" for column in self.columns)
        shown = self.path.replace("\\", "\\\\").replace('"', '\\"')
        return (
            f"struct {self.name} {{\n\tu64 ts_ns;\n\tu8 kind;\n{members}}} __attribute__((aligned(8)));\n"
            f"static __always_inline int submit_{self.name}(struct {self.name} *row)\n{{\n"
            f"\trow->ts_ns = bpf_ktime_get_ns();\n\trow->kind = {self.number};\n"
            f"\temit({self.probe.counter}, row, sizeof(*row));\n\treturn 0;\n}}\n"
            f'#line 1 "{shown}"\n{_INCLUDE.sub("", self.text)}\n'
        )

    def to_json(self) -> dict[str, Any]:
        """For the spool and the manifest."""
        return {
            "name": self.name,
            "what": self.what,
            "file": self.path,
            "sha256": hashlib.sha256(self.text.encode()).hexdigest(),
            "columns": [[c.name, c.type, c.doc] for c in self.columns],
        }


def read(path: str, index: int = 0, reserved: Collection[str] = ()) -> UserProbe:
    """The probe in a file. reserved: further names its table must not have. Raises CaptureError, one line."""
    if index >= MAX_PROBES:
        raise CaptureError(f"{path}: at most {MAX_PROBES} probes of one's own at a time")
    try:
        with open(path, encoding="utf8") as file:
            text = file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise CaptureError(f"cannot read the probe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CaptureError(f"{path} is no text: {error.reason} at byte {error.start}") from error
    header = _HEADER.match(text)
    if header is None:
        raise CaptureError(f"{path}: a probe begins with the comment '/* kubetape-probe', see docs/probes.md")
    try:
        values = tomllib.loads(header[1])
    except tomllib.TOMLDecodeError as error:
        raise CaptureError(f"{path}: its header is no TOML: {error}") from error
    try:
        return _probe(path, text, values, index, reserved)
    except ValueError as error:
        raise CaptureError(f"{path}: {error}") from error


def _probe(path: str, text: str, values: dict[str, Any], index: int, reserved: Collection[str]) -> UserProbe:
    name = _text(values, "name")
    if not _NAME.fullmatch(name):
        raise ValueError(f"name {name!r}: a table's name has small letters, digits and underscores")
    if name in TABLES or name in reserved or name in {p.name for p in PROBES}:
        raise ValueError(f"the name {name!r} is taken by a table or a probe of kubetape: choose another")
    for include in _INCLUDE.findall(text):
        if include not in _INCLUDES:
            raise ValueError(f'#include "{include}": there are {", ".join(_INCLUDES)}')
    if unknown := set(values) - {"name", "what", "cost", "ladder", "columns"}:
        raise ValueError(f"its header has an unknown key {sorted(unknown)[0]!r}")
    probe = Probe(name, (), _ladder(values, text), _text(values, "cost"), FIRST_COUNTER + index)
    found = UserProbe(path, _text(values, "what"), _columns(values), probe, FIRST_EVENT + index, text)
    size = found.layout().dtype.itemsize
    if size > MAX_ROW_BYTES:
        raise ValueError(f"a row of {size} bytes; at most {MAX_ROW_BYTES} fit")
    return found


def _text(values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'its header needs {key} = "..."')
    return value


def _ladder(values: dict[str, Any], text: str) -> tuple[tuple[Target, ...], ...]:
    rungs = values.get("ladder")
    if not isinstance(rungs, list) or not rungs or not all(isinstance(rung, list) and rung for rung in rungs):
        raise ValueError('its header needs ladder = [["tracing:FUNCTION@TRACEPOINT"]]: rungs, best first')
    return tuple(tuple(_target(target, text) for target in rung) for rung in rungs)


def _target(given: Any, text: str) -> Target:
    match = _TARGET.fullmatch(str(given))
    if match is None or match[1] not in KINDS:
        raise ValueError(f"target {str(given)!r}: write KIND:FUNCTION@NAME, with KIND one of {', '.join(KINDS)}")
    if not re.search(rf"^\s*int\s+{match[2]}\s*\(", text, re.M):
        raise ValueError(f"target {given!r}: the file has no function 'int {match[2]}(...)'")
    return Target(match[1], match[2], match[3])


def _columns(values: dict[str, Any]) -> tuple[UserColumn, ...]:
    given = values.get("columns")
    if not isinstance(given, dict) or not given:
        raise ValueError('its header needs a part [columns] with lines NAME = "TYPE what it is"')
    found = []
    for name, line in given.items():
        kind, _, doc = str(line).partition(" ")
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise ValueError(f"column {name!r}: not a name a column can have")
        match = _TYPE.fullmatch(kind)
        if match is None or (match[2] and not 1 <= int(match[2]) <= 256):
            raise ValueError(
                f"column {name!r}: type {kind!r} is none of u8 to u64, s8 to s64, bool, ip, text1 to text256"
            )
        if not doc.strip():
            raise ValueError(f"column {name!r}: say what it is, after its type")
        found.append(UserColumn(name, kind, doc.strip()))
    return tuple(found)


def from_json(data: dict[str, Any]) -> tuple[str, str, tuple[UserColumn, ...]]:
    """(name, what, columns) of what a spool says about a probe."""
    return data["name"], data["what"], tuple(UserColumn(*c) for c in data["columns"])


def schema(what: str, user_columns: tuple[UserColumn, ...]) -> Any:
    """The table's schema; what one row is and what columns mean travel with it."""
    fields = [
        pa.field("node", pa.dictionary(pa.int32(), pa.string()), False, {"doc": "name of the node"}),
        pa.field("ts_ns", pa.int64(), False, {"doc": "when, CLOCK_MONOTONIC of the node, ns"}),
        *(pa.field(c.name, c.arrow, False, {"doc": c.doc}) for c in user_columns),
    ]
    return pa.schema(fields, {"doc": what})


def table(node: str, events: Array, what: str, user_columns: tuple[UserColumn, ...]) -> Any:
    """The rows of one probe, in order of time."""
    values: dict[str, Any] = {"node": columns.constant(node, len(events)), "ts_ns": columns.integers(events["ts_ns"])}
    for column in user_columns:
        raw = events[column.name]
        if column.type == "ip":
            values[column.name] = columns.addresses(raw)
        elif column.type.startswith("text"):
            unique, inverse = np.unique(raw, return_inverse=True)
            texts = [u.split(b"\0", 1)[0].decode(errors="replace") for u in unique.tolist()]
            values[column.name] = pa.array(texts, pa.string()).take(pa.array(inverse.reshape(-1)))
        elif column.type == "bool":
            values[column.name] = pa.array(raw != 0)
        else:
            # Arrow has no unsigned columns here: the upper half of u64 shows as negative.
            values[column.name] = pa.array(raw.astype(np.int64))
    return pa.table(values, schema=schema(what, user_columns))
