"""The server's packets of one reply, from its first to its last, without looking into rows.

Strategy: a reply is walked packet by packet over all captured bytes at once; the walker remembers where it
stopped, so that a reply cut by a gap, or spread over compressed packets, goes on. Whether EOF packets separate
its parts is told by the bytes (an EOF packet has exactly five, the OK packet that replaces it at least
seven), not by the capabilities, which a start mid-stream does not know.
"""

from __future__ import annotations

from kubetape.analyze.protocols.common.text import read_name, read_text
from kubetape.analyze.protocols.mysql.parse import U16, U32, read_bytes, read_length
from kubetape.analyze.protocols.mysql.types import (
    BINLOG_DUMP,
    BINLOG_DUMP_GTID,
    CHANGE_USER,
    CURSOR_EXISTS,
    FIELD_LIST,
    LOGIN,
    MARIADB_CACHE_METADATA,
    MORE_RESULTS,
    OPTIONAL_METADATA,
    SESSION_STATE_CHANGED,
    STATISTICS,
    STMT_FETCH,
    STMT_PREPARE,
    TABLE_DUMP,
    Reply,
)

MAX_MESSAGE_CHARS = 512
MAX_COLUMNS = 4096  # MySQL's own limit of a table and of a result
ANY = -1

# States.
_START, _DEFS, _AFTER_DEFS, _ROWS, _PARAMS, _AFTER_PARAMS, _COLUMNS, _AFTER_COLUMNS, _FIELDS, _EVENTS, _AUTH = range(11)
_SHAPES = {
    FIELD_LIST: _FIELDS,
    STMT_FETCH: _ROWS,
    BINLOG_DUMP: _EVENTS,
    BINLOG_DUMP_GTID: _EVENTS,
    TABLE_DUMP: _EVENTS,
    0x21: _EVENTS,
    LOGIN: _AUTH,
    CHANGE_USER: _AUTH,
}


class ReplyWalker:
    """Walks the packets of one reply after the other. capabilities: as agreed, None: not known."""

    def __init__(self) -> None:
        self.capabilities: int | None = None
        self.reply: Reply | None = None
        self.command = 0
        self.sequence = ANY
        self.numbered = True  # inside the compressed protocol the numbers jump (sql-common/net_serv.cc, net_flush)
        self.want_names = False
        self.names: list[bytes] = []
        self._state = _START
        self._left = 0
        self._joined = False  # the last packet was of the largest size: the next one continues it

    def begin(self, command: int, sequence: int) -> Reply:
        """A reply to `command` begins; sequence: the number its first packet must have, or ANY."""
        self.reply = Reply()
        self.command, self.sequence = command, sequence if self.numbered else ANY
        self._state = _SHAPES.get(command, _START)
        self._left, self._joined, self.names = 0, False, []
        return self.reply

    def resume_rows(self, sequence: int) -> None:
        """Go on behind a gap, at a packet that ends rows."""
        self.sequence, self._state, self._joined = sequence if self.numbered else ANY, _ROWS, False
        if self.reply is not None:
            self.reply.rows_missing = True

    def walk(self, data: bytes, pos: int) -> int:
        """Read packets from data[pos] on; the position behind the last one read.

        That may lie past the end of `data` where a packet's body is missing. `reply.done`: the reply is
        complete; `reply.broken`: what follows does not belong to it.
        """
        reply = self.reply
        assert reply is not None
        end = len(data)
        while pos + 5 <= end:
            header = U32(data, pos)[0]
            length = header & 0xFFFFFF
            if self.sequence != ANY and header >> 24 != self.sequence:
                if not self._optional_end(reply):
                    reply.broken = True
                return pos
            first = data[pos + 4]
            if self._state == _ROWS and not self._joined:
                pos = self._rows(reply, data, pos, end)
                if reply.done or reply.broken or pos + 5 > end:
                    return pos
                continue
            number = header >> 24 if self.numbered else ANY
            self.sequence = number + 1 & 255 if self.numbered else ANY
            next_pos = pos + 4 + length
            if self._joined:
                self._joined = length == 0xFFFFFF
                pos = next_pos
                continue
            self._joined = length == 0xFFFFFF
            if not length and self._state != _EVENTS:
                reply.broken = True
                return pos
            kept = self._step(reply, data, pos + 4, min(next_pos, end), length, first)
            if reply.broken:
                return pos
            if kept:
                pos = next_pos
            else:
                self.sequence = number  # the packet belongs to the next state
                self._joined = False
                if self._optional_end(reply):
                    return pos
                continue
            if reply.done or self._pauses(reply):
                return pos
        # A reply that may end here (EOF packets that may or may not follow) ends with the captured run.
        if pos == end and self._state in (_AFTER_COLUMNS, _AFTER_PARAMS) and not self._left:
            self._optional_end(reply)
        return pos

    def _pauses(self, reply: Reply) -> bool:
        """Whether the client must speak before the reply goes on."""
        if self._state == _AUTH or (reply.infile is not None and not reply.done and self._state == _START):
            self.sequence = ANY
            return True
        return False

    def _optional_end(self, reply: Reply) -> bool:
        """At the place of an EOF packet that is not there: go to the next state; True: that is the end."""
        if self._state == _AFTER_PARAMS and reply.columns:
            self._state, self._left = _COLUMNS, reply.columns
            return False
        if self._state in (_AFTER_PARAMS, _AFTER_COLUMNS):
            reply.done = True
            return True
        return False

    def _rows(self, reply: Reply, data: bytes, pos: int, end: int) -> int:
        """Rows up to the packet that ends them: the hot loop."""
        sequence = self.sequence
        unpack = U32
        rows = reply.rows
        while pos + 5 <= end:
            header = unpack(data, pos)[0]
            if header >> 24 != sequence and sequence != ANY and self.numbered:
                reply.broken = True
                break
            length = header & 0xFFFFFF
            first = data[pos + 4]
            sequence = (header >> 24) + 1 & 255
            if first >= 0xFE and length < 0xFFFFFF and length:
                if first == 0xFF:
                    if self._error(reply, data, pos + 4, min(pos + 4 + length, end)):
                        pos += 4 + length
                        continue  # a progress report
                elif not self._end_of_rows(reply, data, pos + 4, min(pos + 4 + length, end), length):
                    reply.broken = True
                    break
                pos += 4 + length
                break
            pos += 4 + length
            rows += 1
            while length == 0xFFFFFF and pos + 4 <= end:  # a row of 16 MiB and more continues in the next packets
                header = unpack(data, pos)[0]
                length = header & 0xFFFFFF
                sequence = (header >> 24) + 1 & 255
                pos += 4 + length
        self.sequence, reply.rows = sequence if self.numbered else ANY, rows
        return pos

    def _end_of_rows(self, reply: Reply, data: bytes, pos: int, stop: int, length: int) -> bool:
        """EOF packet, or the OK packet with its header; True unless it is neither."""
        if length == 5 or length == 1:
            if stop - pos >= 5:
                reply.warnings, flags = U16(data, pos + 1)[0], U16(data, pos + 3)[0]
            else:
                flags = 0
        else:
            read = self._ok(reply, data, pos, stop, in_rows=True)
            if read is None:
                return False
            flags = read
        reply.kind = reply.kind or "rows"  # of COM_STMT_FETCH
        reply.flags |= flags
        reply.result_count += 1
        self._after_result(reply, flags)
        return True

    def _after_result(self, reply: Reply, flags: int) -> None:
        if flags & MORE_RESULTS:
            self._state = _START
        else:
            reply.done = True

    def _step(self, reply: Reply, data: bytes, pos: int, stop: int, length: int, first: int) -> bool:
        """One packet outside of rows; False: it belongs to the next state."""
        state = self._state
        if state == _START:
            return self._start(reply, data, pos, stop, length, first)
        if state in (_DEFS, _PARAMS, _COLUMNS):
            if first == 0xFF:
                self._error(reply, data, pos, stop)
                return True
            if self.want_names and state != _PARAMS:
                self._column_name(data, pos, stop)
            self._left -= 1
            if not self._left:
                self._state = state + 1
            return True
        if state == _AFTER_DEFS:
            return self._after_defs(reply, data, pos, stop, length, first)
        if state in (_AFTER_PARAMS, _AFTER_COLUMNS):
            if first == 0xFE and length < 9:
                if not self._optional_end(reply):
                    self._left = reply.columns
                return True
            return False
        if state == _FIELDS:
            if first == 0xFF:
                self._error(reply, data, pos, stop)
            elif first == 0xFE and length < 0xFFFF and length != 0xFFFFFF:
                reply.kind, reply.done = "rows", True
            else:
                reply.rows += 1
            return True
        if state == _AUTH:
            return self._auth(reply, data, pos, stop, length, first)
        return self._event(reply, data, pos, stop, length, first)

    def _start(self, reply: Reply, data: bytes, pos: int, stop: int, length: int, first: int) -> bool:
        if self.command == STATISTICS and first != 0xFF:
            reply.kind, reply.done = "text", True
            reply.info = read_text(data[pos:stop], MAX_MESSAGE_CHARS)
            return True
        if first == 0:
            if self.command == STMT_PREPARE and length >= 12:
                return self._prepared(reply, data, pos, stop)
            if self._has_flag_first(length):
                return self._header(reply, data, pos + 1, stop, 1)
            flags = self._ok(reply, data, pos, stop)
            if flags is None:
                reply.broken = True
                return False
            reply.kind = reply.kind or "ok"
            reply.flags |= flags
            reply.result_count += 1
            self._after_result(reply, flags)
            return True
        if first == 0xFF:
            self._error(reply, data, pos, stop)
            return True
        if first == 0xFE and length in (1, 5):
            # COM_SET_OPTION, COM_DEBUG and COM_SHUTDOWN are answered by an EOF packet.
            reply.kind, reply.done = "ok", True
            if stop - pos >= 5:
                reply.warnings, reply.flags = U16(data, pos + 1)[0], reply.flags | U16(data, pos + 3)[0]
            return True
        if first == 0xFE and length >= 7:
            flags = self._ok(reply, data, pos, stop)
            if flags is None:
                reply.broken = True
                return False
            reply.kind, reply.done = reply.kind or "ok", True
            reply.flags |= flags
            return True
        if first == 0xFB:
            reply.infile = read_name(data[pos + 1 : stop])
            return True
        if length == 2 and first == 1 and self._has_flag_first(length):
            return self._header(reply, data, pos + 1, stop, 1)
        return self._header(reply, data, pos, stop, length)

    def _has_flag_first(self, length: int) -> bool:
        """Whether a result begins with MySQL's resultset_metadata flag."""
        return bool(length <= 4 and self.capabilities is not None and self.capabilities & OPTIONAL_METADATA)

    def _header(self, reply: Reply, data: bytes, pos: int, stop: int, length: int) -> bool:
        """The number of columns; MariaDB may add whether their definitions follow."""
        count = read_length(data, pos, stop)
        if count is None or not 0 < count[0] <= MAX_COLUMNS or length > 10:
            reply.broken = True
            return False
        reply.kind, reply.columns = "rows", count[0]
        with_flag = count[1] + 1 == stop
        without = with_flag and data[count[1]] == 0
        if without and (self.capabilities is None or self.capabilities & MARIADB_CACHE_METADATA):
            reply.cached_metadata = True
            self._state = _AFTER_DEFS
        else:
            self._state, self._left = _DEFS, count[0]
        return True

    def _after_defs(self, reply: Reply, data: bytes, pos: int, stop: int, length: int, first: int) -> bool:
        if first != 0xFE or length != 5:
            self._state = _ROWS
            return False
        flags = U16(data, pos + 3)[0] if stop - pos >= 5 else 0
        self._state = _ROWS
        if flags & CURSOR_EXISTS:
            # No rows now: COM_STMT_FETCH asks for them.
            reply.flags |= flags
            reply.result_count += 1
            reply.done = True
        return True

    def _prepared(self, reply: Reply, data: bytes, pos: int, stop: int) -> bool:
        if stop - pos < 9:
            reply.broken = True
            return False
        reply.kind, reply.statement_id = "prepared", U32(data, pos + 1)[0]
        reply.columns, reply.parameters = U16(data, pos + 5)[0], U16(data, pos + 7)[0]
        if stop - pos >= 12:
            reply.warnings = U16(data, pos + 10)[0]
        without = stop - pos >= 13 and data[pos + 12] == 0
        if without or (not reply.columns and not reply.parameters):
            reply.done = True
        elif reply.parameters:
            self._state, self._left = _PARAMS, reply.parameters
        else:
            self._state, self._left = _COLUMNS, reply.columns
        return True

    def _auth(self, reply: Reply, data: bytes, pos: int, stop: int, length: int, first: int) -> bool:
        if first == 0:
            flags = self._ok(reply, data, pos, stop)
            reply.kind, reply.done = "ok", True
            reply.flags |= flags or 0
        elif first == 0xFF:
            self._error(reply, data, pos, stop)
        elif first == 0xFE:
            name = data[pos + 1 : stop].partition(b"\0")[0]
            reply.info = read_name(name) or "mysql_old_password"
        elif first != 1:
            reply.broken = True
            return False
        return True

    def _event(self, reply: Reply, data: bytes, pos: int, stop: int, length: int, first: int) -> bool:
        reply.kind = reply.kind or "events"
        if first == 0xFF:
            self._error(reply, data, pos, stop)
        elif first == 0xFE and length < 9:
            reply.done = True
        else:
            reply.rows += 1
        return True

    def _error(self, reply: Reply, data: bytes, pos: int, stop: int) -> bool:
        """An ERR packet; True: it is MariaDB's progress report, which ends nothing."""
        code = U16(data, pos + 1)[0] if stop - pos >= 3 else None
        if code == 0xFFFF:
            reply.progress += 1
            return True
        reply.kind, reply.error_code, reply.done = "error", code, True
        at = pos + 3
        if data[at : at + 1] == b"#":
            reply.sql_state = data[at + 1 : min(at + 6, stop)].decode("ascii", "replace")
            at += 6
        reply.message = read_text(data[at:stop], MAX_MESSAGE_CHARS)
        return False

    def _ok(self, reply: Reply, data: bytes, pos: int, stop: int, in_rows: bool = False) -> int | None:
        """An OK packet: its status flags; None where it is none."""
        affected = read_length(data, pos + 1, stop)
        insert_id = affected and read_length(data, affected[1], stop)
        if not affected or not insert_id:
            return None if stop - pos > 2 else 0
        if not in_rows:
            reply.affected += affected[0]
            reply.insert_id = insert_id[0] or reply.insert_id
        at = insert_id[1]
        if stop - at < 2:
            return 0
        flags: int = U16(data, at)[0]
        if stop - at >= 4:
            reply.warnings = U16(data, at + 2)[0]
            if stop - at > 4:
                self._info(reply, data, at + 4, stop, flags)
        return flags

    def _info(self, reply: Reply, data: bytes, pos: int, stop: int, flags: int) -> None:
        """The message ("Rows matched: 1 ...") and changes of the session's state."""
        # Specified as the rest of the packet without CLIENT_SESSION_TRACK; servers write its length all the same.
        text = read_bytes(data, pos, stop)
        if text is None or not (flags & SESSION_STATE_CHANGED or text[1] == stop):
            reply.info = read_text(data[pos:stop], MAX_MESSAGE_CHARS) or None
            return
        reply.info = read_text(text[0], MAX_MESSAGE_CHARS) or None
        changes = read_bytes(data, text[1], stop)
        if changes is None:
            return
        raw, at = changes[0], 0
        while at < len(raw):
            kind = raw[at]
            item = read_bytes(raw, at + 1, len(raw))
            if item is None:
                return
            if kind == 1 and (schema := read_bytes(item[0], 0, len(item[0]))) is not None:
                reply.schema = read_name(schema[0])
            at = item[1]

    def _column_name(self, data: bytes, pos: int, stop: int) -> None:
        """Protocol::ColumnDefinition41: catalog, schema, table, org_table, name, org_name."""
        parts: list[bytes] = []
        for _ in range(6):
            got = read_bytes(data, pos, stop)
            if got is None:
                return
            parts.append(got[0])
            pos = got[1]
        self.names.append(parts[2] + b"." + parts[4])


# ---- boundaries --------------------------------------------------------------------------------------------


def packet_is_definition(data: bytes, pos: int, sequence: int) -> bool | None:
    """Whether a column definition stands at data[pos]; None: the captured bytes end before it can be told."""
    if pos + 8 > len(data):
        return None
    header = U32(data, pos)[0]
    return header >> 24 == sequence & 255 and data[pos + 4 : pos + 8] == b"\x03def"


def reply_at(data: bytes, pos: int) -> bool:
    """Whether a reply plausibly begins at data[pos]: a packet with number 1 whose content is known from itself."""
    end = len(data)
    if pos + 5 > end or data[pos + 3] != 1:
        return False
    length, first = U32(data, pos)[0] & 0xFFFFFF, data[pos + 4]
    body, after = pos + 4, pos + 4 + length
    if not length:
        return False
    if first == 0x55:
        return data[body : body + 8] == b"Uptime: "  # of COM_STATISTICS
    if first == 0xFF:
        return 3 <= length <= 1024 and _error_at(data, body, min(after, end))
    if first == 0xFE:
        return length in (1, 5) and _next_at(data, after)
    if first == 0:
        if length < 7 or length > 4096 or after > end + 4096:
            return False
        if length == 12 and data[body + 9 : body + 10] == b"\0" and packet_is_definition(data, after, 2):
            return True
        return _ok_at(data, body, min(after, end), after) and _next_at(data, after)
    if first == 3 and data[body : body + 4] == b"\x03def":
        return True
    count = read_length(data, body, min(after, end))
    if count is None or not 0 < count[0] <= MAX_COLUMNS or not count[1] <= after <= count[1] + 1:
        return False
    if length == 2 and first < 0xFB and data[body + 1 : body + 2] == b"\0" and after + 9 <= end:
        # MariaDB: the client knows the definitions; EOF or a binary row follows.
        return data[after + 3] == 2 and (data[after + 4] == 0 or data[after : after + 5] == b"\5\0\0\2\xfe")
    return packet_is_definition(data, after, 2) is not False


def _error_at(data: bytes, pos: int, stop: int) -> bool:
    code = U16(data, pos + 1)[0] if stop - pos >= 3 else 0
    if not 1000 <= code < 20000:
        return False
    text = data[pos + 3 : min(stop, pos + 64)]
    return all(c >= 32 or c in b"\t\r\n" for c in text)


def _ok_at(data: bytes, pos: int, stop: int, after: int) -> bool:
    affected = read_length(data, pos + 1, stop)
    insert_id = affected and read_length(data, affected[1], stop)
    if not insert_id or stop - insert_id[1] < 4:
        return False
    if insert_id[1] + 4 == after:
        return True
    flags = U16(data, insert_id[1])[0]
    text = read_length(data, insert_id[1] + 4, stop)
    return bool(flags & SESSION_STATE_CHANGED) or (
        text is not None and all(c >= 32 for c in data[insert_id[1] + 5 : min(stop, insert_id[1] + 37)])
    )


def _next_at(data: bytes, pos: int) -> bool:
    """Whether data ends at pos, or a packet follows that begins a reply or continues with number 2."""
    if pos + 4 > len(data):
        return True
    return data[pos + 3] in (0, 1, 2) and (U32(data, pos)[0] & 0xFFFFFF) > 0


def ending_at(data: bytes, pos: int) -> bool:
    """Whether data[pos] is the packet that ends rows: EOF or its OK form, with nothing or a new reply behind it."""
    end = len(data)
    if pos + 9 > end or data[pos + 4] != 0xFE:
        return False
    length = U32(data, pos)[0] & 0xFFFFFF
    if length != 5 and not 7 <= length <= 512:
        return False
    after = pos + 4 + length
    if length != 5 and not _ok_at(data, pos + 4, min(after, end), after):
        return False
    return after == end or (after + 4 <= end and data[after + 3] == 1 and reply_at(data, after))
