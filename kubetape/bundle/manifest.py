"""manifest.json of a bundle: who recorded what, with which probes, and what was lost.

Plain dataclasses; unknown keys of newer writers are ignored on reading and kept in `extra`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import kubetape
from kubetape.bundle.schema import FORMAT_NAME, FORMAT_VERSION
from kubetape.errors import BundleError


@dataclass
class ClockAnchor:
    """One reading of both clocks. error_ns: half the time the reading took, the bound of its error."""

    monotonic_ns: int
    realtime_ns: int
    error_ns: int = 0


@dataclass
class ProbeStatus:
    """What became of one probe.

    status: 'attached', 'failed', 'unavailable', 'off'; mechanism: 'raw_tracepoint:sock_send_length',
    'kprobe:...', 'uprobe', 'proc', ...; reason: why not, or what is missing; cost: what its absence costs the user.
    """

    probe: str
    mechanism: str = ""
    status: str = "attached"
    reason: str = ""
    cost: str = ""
    event_count: int = 0
    lost_count: int = 0
    truncated_count: int = 0
    run_count: int | None = None
    run_ns: int | None = None


@dataclass
class Node:
    """One recorded node. clock: anchors in time order, at least one; times of `start_ns`, `end_ns` are monotonic."""

    name: str
    kernel: str = ""
    distribution: str = ""
    architecture: str = ""
    cpu_count: int = 0
    memory_bytes: int = 0
    boot_id: str = ""
    clock: list[ClockAnchor] = field(default_factory=list)
    command_line: list[str] = field(default_factory=list)
    source: str = "recorder"  # 'recorder', 'pcap', 'snapshot'
    policy: dict[str, Any] = field(default_factory=dict)
    budgets: dict[str, Any] = field(default_factory=dict)
    start_ns: int = 0
    end_ns: int = 0
    stop_reason: str = (
        ""  # 'duration', 'interrupt', 'command', 'disk_budget', 'memory_budget', 'end_of_file', 'recovered'
    )
    probes: list[ProbeStatus] = field(default_factory=list)
    notes: list[str] = field(
        default_factory=list
    )  # what a reader must know: "no Kubernetes API: ...", "io_uring used by ..."
    facts: dict[str, Any] = field(default_factory=dict)  # cost figures, header source, capture files, alignment


@dataclass
class TableEntry:
    """rows and bytes of one table's Parquet member, and the SHA-256 of those bytes."""

    rows: int
    bytes: int
    sha256: str


@dataclass
class Manifest:
    format: str = FORMAT_NAME
    format_version: int = FORMAT_VERSION
    tool_version: str = kubetape.__version__
    nodes: list[Node] = field(default_factory=list)
    tables: dict[str, TableEntry] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str | bytes) -> Manifest:
        """Raises BundleError where the text is not a manifest this version can read."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise BundleError(f"its manifest is not JSON ({error})") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT_NAME:
            raise BundleError(f"its manifest does not say it is a {FORMAT_NAME}")
        version = data.get("format_version")
        if not isinstance(version, int) or version < 1 or version > FORMAT_VERSION:
            raise BundleError(
                f"it has format version {version}, this kubetape {kubetape.__version__} reads 1 to {FORMAT_VERSION}; "
                "use the version that wrote it, or a newer one"
            )
        try:
            manifest: Manifest = _build(Manifest, data)
        except (TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"its manifest is damaged ({error})") from error
        return manifest


_NESTED: dict[tuple[type, str], type] = {
    (Manifest, "nodes"): Node,
    (Node, "clock"): ClockAnchor,
    (Node, "probes"): ProbeStatus,
    (Manifest, "tables"): TableEntry,
}


def _build(cls: Any, data: dict[str, Any]) -> Any:
    known = {f.name for f in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            continue
        inner = _NESTED.get((cls, key))
        if inner is not None and isinstance(value, list):
            value = [_build(inner, v) for v in value]
        elif inner is not None and isinstance(value, dict):
            value = {k: _build(inner, v) for k, v in value.items()}
        values[key] = value
    return cls(**values)
