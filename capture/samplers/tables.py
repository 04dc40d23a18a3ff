"""Rows kept small while a recording runs: a few thousand as tuples, the rest as Arrow."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from kubetape.bundle.schema import TABLES, arrow_schema

Row = dict[str, Any]

# A row takes some 700 bytes as Python objects and 60 in Arrow.
_PENDING_MAX = 4096


class RowBuffer:
    """The rows of one table of the bundle, in the order they were added."""

    def __init__(self, name: str) -> None:
        self._schema = arrow_schema(TABLES[name])
        self._names = TABLES[name].column_names
        self._pending: list[tuple[Any, ...]] = []
        self._done: list[Any] = []
        self.row_count = 0

    def add(self, row: Row) -> None:
        """Missing columns are NULL; columns the table does not have are an error."""
        values = tuple([row.pop(name, None) for name in self._names])
        if row:
            raise ValueError(f"no column {', '.join(row)}")
        self._pending.append(values)
        self.row_count += 1
        if len(self._pending) >= _PENDING_MAX:
            self._pack()

    def _pack(self) -> None:
        columns = []
        for field, values in zip(self._schema, zip(*self._pending, strict=True), strict=True):
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            column = pa.array(values, type=kind)
            columns.append(column.dictionary_encode() if pa.types.is_dictionary(field.type) else column)
        self._done.append(pa.table(columns, schema=self._schema))
        self._pending = []

    def table(self) -> Any:
        """Everything added so far as a pyarrow.Table with the bundle's schema."""
        if self._pending:
            self._pack()
        if not self._done:
            return self._schema.empty_table()
        return pa.concat_tables(self._done).unify_dictionaries()
