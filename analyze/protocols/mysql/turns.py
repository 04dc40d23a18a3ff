"""Queries and replies of a dialogue many at once: see analyze/protocols/turns.py.

Strategy: the packets of all replies are walked together, the first packets of all, then the second ones of those that
have one, and so on: a reply is a lane. A lane whose packets do anything but OK, or one result with definitions and
rows, ends the stretch. Statements that differ only in numbers have one pattern: it is made for one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kubetape.analyze.protocols.common.text import MAX_STATEMENT_CHARS
from kubetape.analyze.protocols.contract import Request
from kubetape.analyze.protocols.mysql.types import CURSOR_EXISTS, MORE_RESULTS, QUERY, Reply
from kubetape.analyze.protocols.turns import (
    Bools,
    Int64Array,
    Octets,
    Plain,
    Turns,
    any_in,
    bytes_column,
    combine,
    is_text,
    octets_of,
    prefix_length,
)

MAX_PACKETS = 4096  # of a reply that is read here
MAX_PREFIX_BYTES = 2  # before the text: no query attributes (MySQL 8.0.23: count 0, one set)
# Any of these makes a text one whose numbers may be part of names, or that carries a trace: read by itself.
_APART = np.zeros(256, bool)
_APART[[*b"`#"]] = True
_WORD = np.zeros(256, bool)
_WORD[[*range(48, 58), *range(65, 91), *range(97, 123), *b"_$@.\\'\""]] = True


def read_turns(
    turns: Turns, prefix: bool, describe: Callable[[bytes], Request], answer: Callable[[Request, Reply], None]
) -> Plain | None:
    """prefix: two bytes that say "no attributes" stand before each text. describe: the row of a statement's text;
    answer: fills a row from a reply."""
    asked = _commands(turns)
    count = prefix_length(asked)
    if not count:
        return None
    replies = _Replies(turns.server_octets, turns.answers[: count + 1])
    count = prefix_length(replies.good)
    if not count:
        return None
    starts = turns.asks[:count] + 5
    ends = turns.asks[1 : count + 1]
    if prefix:
        first, second = turns.client_octets[starts], turns.client_octets[np.minimum(starts + 1, ends - 1)]
        count = prefix_length((first == 0) & (second == 1) & (ends - starts > 2))
        if not count:
            return None
        starts, ends = starts[:count] + 2, ends[:count]
    texts = bytes_column(turns.client, starts, ends)
    octets, bounds = octets_of(texts)
    shown = ~any_in(~is_text(octets), bounds) & (np.diff(bounds) <= MAX_STATEMENT_CHARS)
    count = prefix_length(shown)
    if not count:
        return None
    return _rows(turns, texts.slice(0, count), octets[: bounds[count]], bounds[: count + 1], replies, describe, answer)


def _rows(
    turns: Turns,
    texts: Any,
    octets: Octets,
    bounds: Int64Array,
    replies: _Replies,
    describe: Callable[[bytes], Request],
    answer: Callable[[Request, Reply], None],
) -> Plain:
    import pyarrow as pa

    count = len(texts)
    skeletons = _skeletons(octets, bounds)
    encoded = skeletons.dictionary_encode()
    pattern = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    first, template = combine([pattern, replies.is_result[:count].astype(np.int64), replies.flags[:count]])
    templates = []
    for index in first.tolist():
        row = describe(texts[index].as_py())
        row.statement = None
        answer(row, replies.reply(index))
        templates.append(row)
    is_result = replies.is_result[:count]
    columns = {
        "statement": texts.cast(pa.string()),
        "rows_sent": pa.array(replies.rows[:count], mask=~is_result),
        "rows_affected": pa.array(replies.affected[:count], mask=is_result),
    }
    return Plain(templates, template, columns)


def _commands(turns: Turns) -> Bools:
    """Which turns ask exactly one COM_QUERY with a text."""
    octets, starts = turns.client_octets, turns.asks[:-1]
    sizes = np.diff(turns.asks)
    long_enough = sizes > 5
    starts = np.where(long_enough, starts, 0)
    if len(octets) < 6:
        return np.zeros(len(starts), bool)
    length = octets[starts] + octets[starts + 1].astype(np.int64) * 256 + octets[starts + 2].astype(np.int64) * 65536
    good: Bools = long_enough & (length + 4 == sizes) & (length < 0xFFFFFF)
    return good & (octets[starts + 3] == 0) & (octets[starts + 4] == QUERY)


class _Replies:
    """One reply for each turn. good: read; is_result: rows, else OK; rows, affected; flags: what makes rows differ.

    flags: status flags, warnings and the number of columns do not vary much: one number of them.
    """

    def __init__(self, octets: Octets, bounds: Int64Array) -> None:
        self.octets = octets
        self.starts, self.ends = bounds[:-1], bounds[1:]
        count = len(self.starts)
        self.good: Bools = np.zeros(count, bool)
        self.is_result: Bools = np.zeros(count, bool)
        self.rows = np.zeros(count, np.int64)
        self.affected = np.zeros(count, np.int64)
        self.flags = np.zeros(count, np.int64)
        # Any four bytes of the stream as a little-endian number, without a copy.
        self.words: Any = np.ndarray((max(0, len(octets) - 3),), "<u4", octets.data, strides=(1,))
        if len(octets) >= 8:
            self._first()

    def _first(self) -> None:
        """The first packets: OK, or the number of columns."""
        size = self.ends - self.starts
        lanes = np.flatnonzero(size >= 5)
        at = self.starts[lanes]
        header = self.words[at]
        length = header & 0xFFFFFF
        kind = self.octets[at + 4]
        numbered = header >> 24 == 1
        ok = numbered & (kind == 0) & (length == 7) & (size[lanes] == 11)
        self._ok(lanes[ok])
        # One byte that is a number of columns; 0xFB begins LOCAL INFILE, more are longer numbers and errors.
        # MariaDB adds 1 where definitions follow.
        follows = (length == 2) & (self.octets[np.minimum(at + 5, len(self.octets) - 1)] == 1)
        result = numbered & ((length == 1) | follows) & (kind > 0) & (kind < 0xFB)
        self._results(lanes[result], (at + 4 + length)[result], kind[result].astype(np.int64))

    def _ok(self, lanes: Int64Array) -> None:
        """00, affected rows, insert id, flags, warnings; numbers of one byte."""
        at = self.starts[lanes] + 4
        affected, insert_id = self.octets[at + 1], self.octets[at + 2]
        tail = self.words[at + 3]
        plain = (affected < 0xFB) & (insert_id == 0) & (tail & MORE_RESULTS == 0)
        lanes = lanes[plain]
        self.affected[lanes], self.flags[lanes], self.good[lanes] = affected[plain], tail[plain], True

    def _results(self, lanes: Int64Array, at: Int64Array, columns: Int64Array) -> None:
        """Definitions, perhaps EOF, rows, EOF or OK: packet by packet in all lanes. `at`: place in the stream."""
        if not len(lanes):
            return
        end = self.ends[lanes]
        left = columns.copy()  # definitions to come; -1: rows
        rows = np.zeros(len(lanes), np.int64)
        for step in range(2, MAX_PACKETS):
            inside = at + 5 <= end
            if not inside.all():
                lanes, at, end, left, rows = (x[inside] for x in (lanes, at, end, left, rows))
            if not len(lanes):
                return
            header = self.words[at]
            kind = self.octets[at + 4]
            length = (header & 0xFFFFFF).astype(np.int64)
            good = (header >> 24 == step & 255) & (length < 0xFFFFFF)
            in_rows = left < 0
            defining = left > 0
            closing = (kind >= 0xFE) & (length > 0)
            # An error among definitions or rows, and a definition of another form, are for the walker.
            good &= np.where(defining, (kind == 3) & (length > 0), kind != 0xFF)
            separator = ~in_rows & ~defining & (kind == 0xFE) & (length == 5)
            done = closing & ~defining & ~separator & good
            if done.any():
                self._close(lanes[done], at[done], length[done], end[done], rows[done])
            flags = np.zeros(len(lanes), np.int64)
            if separator.any():
                flags[separator] = self.words[np.minimum(at[separator] + 5, len(self.words) - 1)] >> 16
                good &= flags & CURSOR_EXISTS == 0
            rows = rows + (~defining & ~separator & ~closing)
            left = np.where(defining, left - 1, -1)
            at = at + 4 + length
            keep = good & ~done
            if not keep.all():
                lanes, at, end, left, rows = (x[keep] for x in (lanes, at, end, left, rows))

    def _close(self, lanes: Int64Array, at: Int64Array, length: Int64Array, end: Int64Array, rows: Int64Array) -> None:
        """The packets that end rows: EOF of five bytes, or OK of seven with numbers of one byte."""
        exact = at + 4 + length == end
        eof = exact & (length == 5)
        okay = exact & (length == 7)
        place = np.minimum(at + 5, len(self.words) - 1)
        tail = np.where(eof, self.words[place], self.words[np.minimum(at + 7, len(self.words) - 1)]).astype(np.int64)
        # EOF says warnings, then flags; OK flags, then warnings.
        tail = np.where(eof, (tail >> 16) | (tail & 0xFFFF) << 16, tail)
        okay &= (self.octets[at + 5] < 0xFB) & (self.octets[np.minimum(at + 6, len(self.octets) - 1)] < 0xFB)
        plain = (eof | okay) & (tail & MORE_RESULTS == 0)
        lanes = lanes[plain]
        self.rows[lanes], self.flags[lanes] = rows[plain], tail[plain]
        self.is_result[lanes] = self.good[lanes] = True

    def reply(self, index: int) -> Reply:
        """As the walker would have left it."""
        reply = Reply()
        reply.done, reply.result_count = True, 1
        flags = int(self.flags[index])
        reply.flags, reply.warnings = flags & 0xFFFF, flags >> 16
        if self.is_result[index]:
            reply.kind = "rows"
        else:
            reply.kind = "ok"
        return reply


def _skeletons(octets: Octets, bounds: Int64Array) -> Any:
    """Statements with each number as `1`: equal ones have one pattern. Texts that need a look of their own stay.

    A run of digits is a number here if neither a letter nor a sign that may belong to it touches it.
    """
    import pyarrow as pa

    starts_text = np.zeros(len(octets) + 1, bool)
    starts_text[bounds] = True
    digit = np.zeros(len(octets) + 2, bool)  # with a byte that is none before the first and behind the last
    digit[1:-1] = (octets - np.uint8(48)) < np.uint8(10)
    inner = digit[1:-1]
    first = np.flatnonzero(inner & (~digit[:-2] | starts_text[:-1]))
    last = np.flatnonzero(inner & (~digit[2:] | starts_text[1:]))
    word = _WORD[octets]
    touched = word[np.maximum(first - 1, 0)] & ~starts_text[first]
    touched |= word[np.minimum(last + 1, len(octets) - 1)] & ~starts_text[last + 1]
    apart = any_in(_APART[octets] | _comments(octets), bounds)
    if apart.any():
        touched |= np.repeat(apart, np.diff(bounds))[first]
    first, last = first[~touched], last[~touched]
    # Of a number its first byte stays, as 1.
    change = np.zeros(len(octets) + 1, np.int8)
    change[first + 1] += 1
    change[last + 1] -= 1
    kept = np.cumsum(change[:-1], dtype=np.int8) == 0
    text = octets.copy()
    text[first] = 49
    counts = np.append(0, np.cumsum(kept, dtype=np.int64))
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(counts[bounds]), pa.py_buffer(text[kept])]
    )


def _comments(octets: Octets) -> Bools:
    """Places where a comment begins: `/*` or `--`."""
    marks = np.zeros(len(octets), bool)
    slash = np.flatnonzero((octets[:-1] == 0x2F) & (octets[1:] == 0x2A))
    dash = np.flatnonzero((octets[:-1] == 0x2D) & (octets[1:] == 0x2D))
    marks[slash] = True
    marks[dash] = True
    return marks
