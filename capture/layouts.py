"""The events' binary layouts, read from bpf/events.h, so that they are written down once."""

from __future__ import annotations

import importlib.resources
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

_WIDTH = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
_STRUCT = re.compile(r"/\* event (EVENT_\w+):(?:(?!\*/).)*\*/\s*struct (\w+) \{(.*?)\n\};", re.S)
_MEMBER = re.compile(r"^\s*(u8|u16|u32|u64) (\w+)(?:\[(\d+)\])?;", re.M)
_DEFINE = re.compile(r"^#define (\w+) (\d+)\b", re.M)


@dataclass(frozen=True)
class Layout:
    """One event: number (its `kind` byte), name (of the C struct), numpy type of its fixed part."""

    number: int
    name: str
    dtype: np.dtype[Any]

    def to_json(self) -> dict[str, Any]:
        fields = []
        for name in self.dtype.names or ():
            kind, offset = self.dtype.fields[name][:2]  # type: ignore[index]
            base, shape = (kind.subdtype[0], list(kind.shape)) if kind.subdtype else (kind, [])
            fields.append([name, base.str, offset, shape])
        return {"number": self.number, "name": self.name, "size": self.dtype.itemsize, "fields": fields}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Layout:
        dtype = np.dtype(
            {
                "names": [f[0] for f in data["fields"]],
                "formats": [(f[1], tuple(f[3])) if f[3] else f[1] for f in data["fields"]],
                "offsets": [f[2] for f in data["fields"]],
                "itemsize": data["size"],
            }
        )
        return Layout(data["number"], data["name"], dtype)


def bpf_source(name: str) -> str:
    """The text of a file of bpf/."""
    return (importlib.resources.files("kubetape") / "bpf" / name).read_text()


@cache
def defines() -> dict[str, int]:
    """The numeric #defines of events.h and calls.h."""
    return {name: int(value) for f in ("events.h", "calls.h") for name, value in _DEFINE.findall(bpf_source(f))}


@cache
def layouts() -> dict[str, Layout]:
    """Name of the C struct -> its layout."""
    found = {}
    for kind, name, body in _STRUCT.findall(bpf_source("events.h")):
        found[name] = Layout(defines()[kind], name, _dtype(body))
    return found


@cache
def struct_of(file: str, name: str) -> np.dtype[Any]:
    """The numpy type of a struct of plain members in a file of bpf/."""
    found = re.search(rf"^struct {name} \{{(.*?)\n\}};", bpf_source(file), re.S | re.M)
    if found is None:
        raise KeyError(f"{file} has no struct {name}")
    return _dtype(found[1])


def _dtype(body: str) -> np.dtype[Any]:
    """Members as C lays them out."""
    offset, align = 0, 1
    names, formats, offsets = [], [], []
    for type_name, member, count in _MEMBER.findall(body):
        width = _WIDTH[type_name]
        offset = -(-offset // width) * width
        names.append(member)
        formats.append((f"<u{width}", (int(count),)) if count else f"<u{width}")
        offsets.append(offset)
        offset += width * int(count or 1)
        align = max(align, width)
    size = -(-offset // align) * align
    spec = {"names": names, "formats": formats, "offsets": offsets, "itemsize": size}
    return np.dtype(spec)  # type: ignore[call-overload]
