"""Kubernetes objects from a folder: `kubectl get KIND -A -o json > KIND.json`, or `kubectl cluster-info dump`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kubetape.capture.kubernetes.kinds import KIND_NAMES, KINDS
from kubetape.errors import ImportFileError

Json = dict[str, Any]

FILE_BYTES_MAX = 4 << 30
_API_VERSIONS = {kind.kind: kind.api_version for kind in KINDS}


def documents(text: str) -> Iterator[Any]:
    """JSON documents one after another, with other text (the dump's log lines) between them left out."""
    decoder = json.JSONDecoder()
    place = text.find("{")
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
        except ValueError:
            # Not JSON here: go on at the next line that begins with a brace.
            next_line = text.find("\n{", place)
            place = next_line + 1 if next_line >= 0 else -1
            continue
        yield value
        place = text.find("{", end)


def _objects(document: Any, list_kind: str = "") -> Iterator[Json]:
    if not isinstance(document, dict):
        return
    kind = str(document.get("kind") or "")
    items = document.get("items")
    if isinstance(items, list):
        inner = kind.removesuffix("List")
        for item in items:
            yield from _objects(item, inner)
    elif kind or list_kind:
        document.setdefault("kind", list_kind)
        document.setdefault("apiVersion", _API_VERSIONS.get(str(document["kind"]), ""))
        yield document


def read_folder(folder: str, add: Callable[[Json, int], None]) -> list[str]:
    """Every object to `add(object, observed_ns)`, observed when its file was written; returns notes.

    Kinds that own pods but are not known (Rollouts, ...) are recognised by being referred to. Secrets and
    ConfigMaps in the folder are not read into memory longer than it takes to see what they are. Raises
    ImportFileError where the folder holds no objects.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ImportFileError(f"no folder {folder}")
    notes = []
    known = 0
    custom: list[tuple[Json, int]] = []
    owner_kinds: set[str] = set()
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.suffix in (".json", ".txt", ".out", "")):
        if "logs" in path.name:
            continue  # cluster-info dump writes one logs.txt per pod
        if path.stat().st_size > FILE_BYTES_MAX:
            notes.append(f"{path.name}: larger than {FILE_BYTES_MAX >> 30} GiB, not read")
            continue
        found = 0
        observed_ns = path.stat().st_mtime_ns
        for document in documents(_text(path)):
            for obj in _objects(document):
                found += 1
                if obj["kind"] in KIND_NAMES:
                    known += 1
                    owner_kinds |= {o.get("kind") for o in (obj.get("metadata") or {}).get("ownerReferences") or []}
                    add(obj, observed_ns)
                elif obj["kind"] not in ("Secret", "ConfigMap"):
                    custom.append((obj, observed_ns))
        if not found and path.suffix == ".json":
            notes.append(f"{path.relative_to(root)}: no Kubernetes object in it")
    for obj, observed_ns in custom:
        if obj["kind"] in owner_kinds:
            add(obj, observed_ns)
    if not known:
        raise ImportFileError(
            f"{folder} holds no Kubernetes objects; fill it with "
            "`kubectl cluster-info dump -A --output-directory=DIR` or `kubectl get KIND -A -o json > DIR/KIND.json`"
        )
    return notes


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ImportFileError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
