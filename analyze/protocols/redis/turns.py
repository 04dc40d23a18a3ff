"""Commands and replies of a dialogue many at once: see analyze/protocols/turns.py.

Strategy: equal commands are looked at once (Arrow's dictionary). Distinct ones of one shape (the same name and
lengths of arguments, hence the same bytes but for the arguments) are checked together, and their texts are columns
of a matrix. Keys that differ in their digits only have one pattern: it is found for the key with zeros.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from kubetape.analyze.normalise.key import key_pattern
from kubetape.analyze.protocols.common.text import read_name
from kubetape.analyze.protocols.contract import Request
from kubetape.analyze.protocols.redis.parse import (
    MAX_ARGUMENT_BYTES,
    MAX_ARGUMENTS,
    Walk,
    is_word,
    read_command,
    read_value,
)
from kubetape.analyze.protocols.redis.statement import MASKED, MAX_STATEMENT_CHARS, resource, statement
from kubetape.analyze.protocols.redis.types import KEY_AT, NO_KEY, SUBSCRIPTION, WITH_NUMKEYS, Command, Value
from kubetape.analyze.protocols.turns import (
    Bools,
    Int64Array,
    Octets,
    Plain,
    Turns,
    bytes_column,
    combine,
    distinct,
    is_text,
    octets_of,
    prefix_length,
)

# These change how later bytes are read, or hide a part of their text.
_SPECIAL = SUBSCRIPTION | MASKED | {b"CLIENT", b"MONITOR", b"PSYNC", b"QUIT", b"REPLCONF", b"RESET", b"SYNC"}
_KEY_ELSEWHERE = WITH_NUMKEYS | {b"XREAD", b"XREADGROUP"}
MAX_SHAPES = 8  # of commands of one length; others are read one by one
_DIGIT = re.compile(r"\d")
_PUSH, _ATTRIBUTE, _BULK = 0x3E, 0x7C, 0x24


def read_turns(turns: Turns, answer: Callable[[Request, Value], None]) -> Plain | None:
    """answer: fills a row from a reply."""
    import pyarrow as pa

    column = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(turns), [None, pa.py_buffer(turns.asks), pa.py_buffer(turns.client)]
    )
    encoded = column.dictionary_encode()
    code = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    commands = _Commands(encoded.dictionary)
    reply_code, replies = _read_replies(turns)
    good = commands.good[code] & (reply_code >= 0)
    count = prefix_length(good)
    if not count:
        return None
    code, reply_code = code[:count], reply_code[:count]
    first, template = combine([commands.kind[code], reply_code])
    templates = []
    for operation_code, reply in zip(commands.kind[code[first]].tolist(), reply_code[first].tolist(), strict=True):
        operation, about = commands.kinds[operation_code]
        row = Request(operation=operation, resource=about)
        answer(row, replies[reply])
        templates.append(row)
    return Plain(templates, template, {"statement": commands.statements().take(pa.array(code))})


class _Commands:
    """Distinct commands. good: read; kind: index into kinds, pairs of operation and resource."""

    def __init__(self, column: Any) -> None:
        self.octets, self.bounds = octets_of(column)
        self.data = self.octets.tobytes()
        count = len(column)
        self.good: Bools = np.zeros(count, bool)
        self.kind: Int64Array = np.zeros(count, np.int64)
        self.kinds: list[tuple[str, str | None]] = []
        self._known: dict[tuple[str, str | None], int] = {}
        self._texts: list[Any] = []  # arrays of statements
        self._text_of: Int64Array = np.zeros(count, np.int64)  # index into the texts behind each other
        self._text_count = 0
        sizes = np.diff(self.bounds)
        order = np.argsort(sizes, kind="stable")
        borders = np.flatnonzero(np.diff(sizes[order])) + 1
        for same_size in np.split(order, borders):
            self._same_size(same_size)

    def statements(self) -> Any:
        import pyarrow as pa

        return pa.concat_arrays(self._texts).take(pa.array(self._text_of))

    def _same_size(self, left: Int64Array) -> None:
        """Read commands of one size."""
        for _ in range(MAX_SHAPES):
            if not len(left):
                return
            command, arguments = self._command(int(left[0]))
            if command is None:
                left = left[1:]
                continue
            left = self._one_shape(left, command, arguments)
        for number in left.tolist():
            command, _ = self._command(number)
            if command is not None:
                self._single(number, command)

    def _command(self, number: int) -> tuple[Command | None, list[tuple[int, int]]]:
        """The command and where its arguments lie; None where it is none that may be read here."""
        start, end = int(self.bounds[number]), int(self.bounds[number + 1])
        data = self.data[start:end]
        got = read_command(data, 0) if data[:1] == b"*" else None
        if not isinstance(got, tuple) or got[0] != len(data):
            return None, []
        command = got[1]
        arguments = command.arguments
        if not command.whole or not arguments or not is_word(arguments[0]) or command.name in _SPECIAL:
            return None, []
        if len(arguments) == MAX_ARGUMENTS:
            return command, []
        places, at = [], data.index(b"\n") + 1
        for _ in arguments:
            line = data.index(b"\n", at)
            at, size = line + 1, int(data[at + 1 : line - 1])
            places.append((at, size))
            at += size + 2
        return command, places

    def _one_shape(self, candidates: Int64Array, command: Command, places: list[tuple[int, int]]) -> Int64Array:
        """Read those of the shape of `command`, the first of `candidates`; the others."""
        name = command.name
        width = sum(min(size, MAX_ARGUMENT_BYTES) + 1 for _, size in places) - 1
        if not places or name in _KEY_ELSEWHERE or width > MAX_STATEMENT_CHARS:
            self._single(int(candidates[0]), command)
            return candidates[1:]
        first = int(candidates[0])
        start = self.bounds[candidates]
        fixed = np.ones(int(self.bounds[first + 1] - self.bounds[first]), bool)
        for at, size in places[1:]:
            fixed[at : at + size] = False
        offsets = np.flatnonzero(fixed)
        same = (self.octets[start[:, None] + offsets] == self.octets[start[0] + offsets]).all(axis=1)
        mine = candidates[same]
        start = start[same]
        columns = np.concatenate(
            [np.append(np.arange(at, at + min(size, MAX_ARGUMENT_BYTES)), at + size) for at, size in places]
        )[:-1]
        text = self.octets[start[:, None] + columns]
        blanks = np.cumsum([min(size, MAX_ARGUMENT_BYTES) + 1 for _, size in places])[:-1] - 1
        text[:, blanks] = 32
        shown = is_text(text).all(axis=1)
        if not shown.all():
            for number in mine[~shown].tolist():
                odd, _ = self._command(number)
                if odd is not None:
                    self._single(number, odd)
            mine, start, text = mine[shown], start[shown], text[shown]
        if not len(mine):
            return candidates[~same]
        self._add_texts(mine, _strings(text))
        operation = name.decode("ascii")
        key = None if len(places) < 2 or name in NO_KEY else KEY_AT.get(name, 1)
        if key is None or key >= len(places):
            self.kind[mine] = self._kind(operation, None)
        else:
            at, size = places[key]
            keys = self.octets[start[:, None] + np.arange(at, at + min(size, MAX_ARGUMENT_BYTES))]
            patterns, which = _patterns(keys)
            self.kind[mine] = np.array([self._kind(operation, pattern) for pattern in patterns], np.int64)[which]
        self.good[mine] = True
        return candidates[~same]

    def _single(self, number: int, command: Command) -> None:
        import pyarrow as pa

        self._add_texts(np.array([number]), pa.array([statement(command)], pa.string()))
        self.kind[number] = self._kind(command.name.decode("ascii"), resource(command))
        self.good[number] = True

    def _add_texts(self, numbers: Int64Array, texts: Any) -> None:
        self._texts.append(texts)
        self._text_of[numbers] = self._text_count + np.arange(len(numbers))
        self._text_count += len(numbers)

    def _kind(self, operation: str, about: str | None) -> int:
        number = self._known.setdefault((operation, about), len(self.kinds))
        if number == len(self.kinds):
            self.kinds.append((operation, about))
        return number


def _strings(text: Octets) -> Any:
    """A matrix of ASCII, one text a row, as an Arrow array."""
    import pyarrow as pa

    count, width = text.shape
    offsets = np.arange(count + 1, dtype=np.int64) * width
    whole = pa.LargeStringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text)))
    return whole.cast(pa.string())


def _patterns(keys: Octets) -> tuple[list[str | None], Int64Array]:
    """Patterns, and for each key (a row of printable bytes) which of them is its."""
    digits = (keys - np.uint8(48)) < np.uint8(10)
    alike, which = distinct(_strings(np.where(digits, np.uint8(48), keys)))
    patterns: list[str | None] = [key_pattern(read_name(key.encode())) for key in alike]
    # Digits that stay are the key's own (`v2`): such keys are looked at one by one.
    for number, pattern in enumerate(patterns.copy()):
        if pattern is not None and _DIGIT.search(pattern):
            mine = np.flatnonzero(which == number)
            own, own_which = distinct(_strings(keys[mine]))
            which[mine] = len(patterns) + own_which
            patterns += [key_pattern(read_name(key.encode())) for key in own]
    return patterns, which


def _read_replies(turns: Turns) -> tuple[Int64Array, list[Value]]:
    """For each turn the index of its reply in the list of values that make different rows; -1: not one reply."""
    octets, starts, ends = turns.server_octets, turns.answers[:-1], turns.answers[1:]
    code = np.full(len(starts), -1, np.int64)
    bulk = Value(_BULK, b"")
    values = [bulk]
    code[_bulk_strings(octets, starts, ends)] = 0
    rest = np.flatnonzero(code < 0)
    if len(rest):
        texts, which = distinct(bytes_column(turns.server, starts[rest], ends[rest]))
        codes = np.empty(len(texts), np.int64)
        for number, data in enumerate(texts):
            value = _one_value(data)
            codes[number] = len(values) if value is not None else -1
            if value is not None:
                values.append(value)
        code[rest] = codes[which]
    return code, values


def _one_value(data: bytes) -> Value | None:
    if not data or data[0] in b"\r\n":
        return None
    got = read_value(data, 0, Walk())
    if not isinstance(got, tuple) or got[0] != len(data) or not got[1].done or got[1].kind in (_PUSH, _ATTRIBUTE):
        return None
    return got[1]


def _bulk_strings(octets: Octets, starts: Int64Array, ends: Int64Array) -> Int64Array:
    """Indices of those that are exactly one bulk string: `$`, its length in decimal digits, CR LF, bytes, CR LF."""
    mine = np.flatnonzero((octets[np.minimum(starts, len(octets) - 1)] == _BULK) & (ends - starts >= 6))
    if not len(mine):
        return mine
    place, end = starts[mine] + 1, ends[mine]
    length = np.zeros(len(mine), np.int64)
    open_ = np.ones(len(mine), bool)
    for _ in range(11):
        byte = octets[place]
        open_ &= (byte >= 48) & (byte <= 57) & (place < end - 1)
        if not open_.any():
            break
        length = np.where(open_, length * 10 + byte - 48, length)
        place = place + open_
    place = np.minimum(place, end - 4)
    fits = (octets[place] == 13) & (octets[place + 1] == 10) & (place > starts[mine] + 1)
    fits &= place + 4 + length == end
    fits &= (octets[end - 2] == 13) & (octets[end - 1] == 10)
    return mine[fits]
