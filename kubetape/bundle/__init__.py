"""The bundle (`.ktape`): the only thing the recorder and the analyzer both know."""

from kubetape.bundle.manifest import ClockAnchor, Manifest, Node, ProbeStatus, TableEntry
from kubetape.bundle.schema import TABLES, Column, Table, arrow_schema

__all__ = [
    "TABLES",
    "ClockAnchor",
    "Column",
    "Manifest",
    "Node",
    "ProbeStatus",
    "Table",
    "TableEntry",
    "arrow_schema",
]
