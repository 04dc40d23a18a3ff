"""Read a bundle. It may come from a stranger: everything is checked before it is used.

Members are stored uncompressed, so a table is read from a memory map of the file, without unpacking.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kubetape.bundle.manifest import Manifest
from kubetape.bundle.schema import TABLES, arrow_schema
from kubetape.bundle.writer import MANIFEST_NAME
from kubetape.errors import BundleError

MAX_MANIFEST_BYTES = 64 << 20  # a manifest of 10,000 nodes stays far below


@dataclass(frozen=True)
class _Member:
    offset: int
    size: int


class Bundle:
    """An open bundle: `manifest`, and its tables as pyarrow.Table.

    Raises BundleError from the constructor where the file is not a bundle or cannot be trusted, and from
    `table` where a table is damaged or lacks a column.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            self._map = pa.memory_map(self.path, "r")
        except FileNotFoundError as error:
            raise BundleError(f"no file {self.path}") from error
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise BundleError(f"cannot read {self.path}: {why}") from error
        self._members = self._read_members()
        self.manifest = self._read_manifest()
        for name, entry in self.manifest.tables.items():
            member = self._members.get(f"{name}.parquet")
            if member is None:
                raise self._error(f"table {name} of its manifest is missing")
            if member.size != entry.bytes:
                raise self._error(f"table {name} has {member.size} bytes, its manifest says {entry.bytes}")

    def _error(self, what: str) -> BundleError:
        return BundleError(f"{self.path} is not a usable bundle: {what}")

    def _read_members(self) -> dict[str, _Member]:
        if self._map.size() == 0:
            raise self._error("the file is empty")
        try:
            with zipfile.ZipFile(self.path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            self._map.seek(0)
            begins = self._map.read(4) == b"PK\x03\x04"
            raise self._error(
                "it was cut off while being copied; copy it again" if begins else "not a ZIP file"
            ) from error
        members: dict[str, _Member] = {}
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED:
                raise self._error(f"member {entry.filename} is compressed; members are stored as they are")
            self._map.seek(entry.header_offset)
            header = self._map.read(30)
            if len(header) < 30 or header[:4] != b"PK\x03\x04":
                raise self._error(f"member {entry.filename} has no header where the directory says")
            names_bytes = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            offset = entry.header_offset + 30 + names_bytes
            if offset + entry.file_size > self._map.size():
                raise self._error(f"member {entry.filename} reaches past the end of the file")
            members[entry.filename] = _Member(offset, entry.file_size)
        return members

    def _read_manifest(self) -> Manifest:
        member = self._members.get(MANIFEST_NAME)
        if member is None:
            raise self._error(f"it has no {MANIFEST_NAME}")
        if member.size > MAX_MANIFEST_BYTES:
            raise self._error(f"its manifest has {member.size} bytes, more than {MAX_MANIFEST_BYTES}")
        try:
            return Manifest.from_json(self._slice(member).to_pybytes())
        except BundleError as error:
            raise self._error(str(error)) from error

    def _slice(self, member: _Member) -> Any:
        self._map.seek(member.offset)
        return self._map.read_buffer(member.size)

    @property
    def table_names(self) -> list[str]:
        """Tables the bundle holds, those unknown to this version (of user probes) included."""
        return sorted(self.manifest.tables)

    def row_count(self, name: str) -> int:
        entry = self.manifest.tables.get(name)
        return entry.rows if entry else 0

    def table(self, name: str, columns: list[str] | None = None) -> Any:
        """The table as pyarrow.Table; empty with the right columns where the bundle has none of it.

        A column that came with a later version and may be NULL is filled with NULL; any other missing
        column, or one of another type, raises BundleError.
        """
        known = TABLES.get(name)
        schema = arrow_schema(known) if known else None
        if name not in self.manifest.tables:
            if schema is None:
                raise self._error(f"it has no table {name}")
            empty = schema.empty_table()
            return empty.select(columns) if columns else empty
        try:
            buffer = pa.BufferReader(self._slice(self._members[f"{name}.parquet"]))
            file = pq.ParquetFile(buffer)
            present = file.schema_arrow.names
            wanted = columns or (schema.names if schema else present)
            data = file.read(columns=[c for c in wanted if c in present], use_threads=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._error(f"table {name} is damaged ({str(error).splitlines()[0]})") from error
        if data.num_rows != self.manifest.tables[name].rows:
            raise self._error(
                f"table {name} has {data.num_rows} rows, its manifest says {self.manifest.tables[name].rows}"
            )
        if schema is None:
            return data
        result = {}
        for column in wanted:
            field = schema.field(column)
            if column in present:
                values = data.column(column)
                if values.type != field.type:
                    try:
                        values = values.cast(field.type)
                    except pa.ArrowException as error:
                        raise self._error(f"table {name}, column {column}: {values.type}, not {field.type}") from error
            elif field.nullable:
                values = pa.nulls(data.num_rows, field.type)
            else:
                raise self._error(f"table {name} lacks the column {column}")
            if values.null_count and not field.nullable:
                raise self._error(f"table {name}, column {column}: NULL in {values.null_count} rows")
            result[column] = values
        return pa.table(result)

    def verify(self) -> list[str]:
        """Every byte against the manifest; what does not hold, one line each."""
        problems = []
        for name, entry in sorted(self.manifest.tables.items()):
            digest = hashlib.sha256(memoryview(self._slice(self._members[f"{name}.parquet"]))).hexdigest()
            if digest != entry.sha256:
                problems.append(f"table {name}: its bytes are not those written (SHA-256 differs)")
                continue
            try:
                self.table(name)
            except BundleError as error:
                problems.append(str(error))
        listed = {f"{name}.parquet" for name in self.manifest.tables} | {MANIFEST_NAME}
        problems += [f"{name}: not in the manifest" for name in sorted(set(self._members) - listed)]
        return problems
