"""MongoDB messages from bytes (the wire protocol of the MongoDB manual): OP_MSG, OP_COMPRESSED, and all before them."""

from __future__ import annotations

import re
import zlib
from struct import Struct
from typing import Any, Final

import pyarrow as pa

from kubetape.analyze.protocols.common.text import MAX_STATEMENT_CHARS, cut_text, read_text
from kubetape.analyze.protocols.contract import CLIENT, CUT, INVALID, Parsed, Sample, Side
from kubetape.analyze.protocols.mongodb.bson import count_elements, document_size, document_text, elements, scalar
from kubetape.analyze.protocols.mongodb.types import (
    CHECKSUM,
    COMMAND,
    COMMAND_REPLY,
    COMPRESSED,
    COMPRESSORS,
    GET_MORE,
    INSERT,
    KILL_CURSORS,
    LEGACY_WRITES,
    MORE_TO_COME,
    MSG,
    NOISE_KEYS,
    ON_COLLECTION,
    QUERY,
    REPLY,
    REPLY_OPS,
    REQUEST_OPS,
    SECRET_COMMANDS,
    SECRET_KEYS,
    UPDATE,
    Answer,
    Command,
)

MAX_MESSAGE_BYTES: Final = 48_000_000 + (1 << 16)  # maxMessageSizeBytes of hello
MAX_INFLATED_BYTES: Final = MAX_MESSAGE_BYTES
_HEADER: Final = Struct("<iiii")
_INFLATE_FOR_FIELDS: Final = 1 << 20  # zlib: what rows need stands at the beginning

_I: Final = Struct("<i")
_OPCODE: Final = re.compile(rb"[\xd1-\xd7\xda-\xdd]\x07\0\0|\x01\0\0\0")
_NAMESPACE: Final = re.compile(rb"[^\0.]{1,128}\.[^\0]{1,256}\0")


def parse_message(side: Side, data: bytes, offset: int) -> Parsed:
    """(size, Command) of the client, (size, Answer) of the server."""
    if len(data) - offset < 16:
        return CUT
    size, request_id, response_to, opcode = _HEADER.unpack_from(data, offset)
    if not 16 < size <= MAX_MESSAGE_BYTES or opcode not in (REQUEST_OPS if side == CLIENT else REPLY_OPS):
        return INVALID
    end = min(offset + size, len(data))
    start = offset + 16
    compressor: str | None = None
    if opcode == COMPRESSED:
        if end < start + 9:
            return CUT
        opcode, _, kind = *_unpack_two(data, start), data[start + 8]
        compressor = COMPRESSORS.get(kind, str(kind))
        inflated = inflate(data, start, end, offset + size == end)
        data, start, end = inflated, 0, len(inflated)
        if opcode not in (REQUEST_OPS if side == CLIENT else REPLY_OPS):
            return INVALID
    frame: Command | Answer
    if side == CLIENT:
        frame = _command(opcode, request_id, data, start, end)
    else:
        frame = _answer(opcode, request_id, response_to, data, start, end)
    if compressor is not None:
        frame.detail["compressor"] = compressor
    return size, frame


def _unpack_two(data: bytes, offset: int) -> tuple[int, int]:
    return int(_I.unpack_from(data, offset)[0]), int(_I.unpack_from(data, offset + 4)[0])


def inflate(data: bytes, start: int, end: int, whole: bool) -> bytes:
    """The message inside an OP_COMPRESSED whose fields begin at data[start]; b"" where it cannot be had.

    Only zlib can be read from a beginning alone.
    """
    size, kind = int(_I.unpack_from(data, start + 4)[0]), data[start + 8]
    body = data[start + 9 : end]
    if not 0 <= size <= MAX_INFLATED_BYTES:
        return b""
    if kind == 0:
        return body
    try:
        if kind == 2:
            return zlib.decompressobj().decompress(body, min(size or 1, _INFLATE_FOR_FIELDS))
        if kind in (1, 3) and whole:
            return bytes(pa.Codec(COMPRESSORS[kind]).decompress(body, size, asbytes=True))
    except (zlib.error, pa.ArrowException, OSError, ValueError, MemoryError):
        return b""
    return b""


# ---- requests ----------------------------------------------------------------------------------------------------


def _command(opcode: int, request_id: int, data: bytes, start: int, end: int) -> Command:
    if opcode == MSG:
        return _message(request_id, data, start, end)
    if opcode == QUERY:
        return _query(request_id, data, start, end)
    if opcode == COMMAND:
        return _old_command(request_id, data, start, end)
    detail: dict[str, Any] = {"legacy": True}
    if opcode == KILL_CURSORS:
        count = int(_I.unpack_from(data, start + 4)[0]) if start + 8 <= end else 0
        return Command(request_id, "killCursors", None, None, True, {}, {**detail, "cursors": count})
    name, after = _cstring(data, start + 4, end)
    if opcode == GET_MORE:
        return Command(request_id, "getMore", name, None, False, {}, detail)
    statement: str | None = None
    if opcode == INSERT:
        detail["documents"] = _count_documents(data, after, end)
        statement = document_text(data, after, end) if document_size(data, after) else None
    else:
        place = after + 4  # flags
        if document_size(data, place):
            statement = document_text(data, place, end)
            place += document_size(data, place)
            if opcode == UPDATE and document_size(data, place):
                statement = cut_text(f"{statement}, {document_text(data, place, end)}")
    return Command(request_id, LEGACY_WRITES[opcode], name, statement, True, {}, detail)


def _message(request_id: int, data: bytes, start: int, end: int) -> Command:
    """OP_MSG: flags, then sections: 0, the command; 1, a sequence of documents that stands for an array in it."""
    flags = int(_I.unpack_from(data, start)[0]) & 0xFFFFFFFF if start + 4 <= end else 0
    body = -1
    sequences: list[tuple[str, int, int]] = []
    for kind, name, low, high in _sections(data, start + 4, end - (4 if flags & CHECKSUM else 0)):
        if kind == 0:
            body = low
        else:
            sequences.append((name, low, high))
    detail: dict[str, Any] = {}
    if flags & 1 << 16:
        detail["exhaust_allowed"] = True
    if body < 0:
        return Command(request_id, None, None, None, bool(flags & MORE_TO_COME), {}, detail)
    command, resource, statement, comment = _read_command(data, body, end, None, detail)
    for identifier, low, high in sequences:
        detail["documents"] = detail.get("documents", 0) + _count_documents(data, low, high)
        if statement is not None:
            statement = cut_text(f'{statement[:-1]}, "{identifier}": [{_documents_text(data, low, high)}]}}')
    return Command(request_id, command, resource, statement, bool(flags & MORE_TO_COME), comment, detail)


def _documents_text(data: bytes, offset: int, end: int) -> str:
    """The documents of a sequence, as many as a statement has room for."""
    texts: list[str] = []
    room = MAX_STATEMENT_CHARS
    while offset < end and (size := document_size(data, offset)) and room > 0:
        texts.append(document_text(data, offset, end))
        room -= len(texts[-1])
        offset += size
    return ", ".join(texts)


def _sections(data: bytes, offset: int, end: int) -> list[tuple[int, str, int, int]]:
    """(kind, identifier, start, end) of the sections; at most as many as commands have sequences."""
    found: list[tuple[int, str, int, int]] = []
    while offset + 5 <= end and len(found) < 16:
        kind = data[offset]
        size = int(_I.unpack_from(data, offset + 1)[0])
        if size < 5 or kind > 1:
            break
        stop = min(offset + 1 + size, end)
        if kind == 0:
            found.append((0, "", offset + 1, stop))
        else:
            name, low = _cstring(data, offset + 5, stop)
            found.append((1, name, low, stop))
        offset += 1 + size
    return found


def _query(request_id: int, data: bytes, start: int, end: int) -> Command:
    """OP_QUERY: flags, namespace, skip, limit, document; on `db.$cmd` the document is a command."""
    space, after = _cstring(data, start + 4, end)
    body = after + 8
    detail: dict[str, Any] = {"legacy": True}
    if space.endswith(".$cmd"):
        name, resource, statement, comment = _read_command(data, body, end, space[:-5], detail)
        return Command(request_id, name, resource, statement, False, comment, detail)
    statement = document_text(data, body, end) if document_size(data, body) else None
    comment = {}
    for element in elements(data, body, end):
        if element[1] == b"$comment":
            comment = _comment(data, element, end)
    return Command(request_id, "query", space or None, statement, False, comment, detail)


def _old_command(request_id: int, data: bytes, start: int, end: int) -> Command:
    """OP_COMMAND of 3.2 to 4.0: database, command, metadata, arguments."""
    database, after = _cstring(data, start, end)
    _, body = _cstring(data, after, end)
    detail: dict[str, Any] = {"legacy": True}
    # The metadata comes first, the arguments, whose first key is the command, behind it.
    metadata = document_size(data, body)
    if metadata and body + metadata < end and next(elements(data, body, end), None) is None:
        body += metadata
    name, resource, statement, comment = _read_command(data, body, end, database, detail)
    return Command(request_id, name, resource, statement, False, comment, detail)


def _read_command(
    data: bytes, offset: int, end: int, database: str | None, detail: dict[str, Any]
) -> tuple[str | None, str | None, str | None, dict[str, str]]:
    """(command, database.collection, text, trace carriers) of a command document."""
    name: str | None = None
    collection: str | None = None
    comment: dict[str, str] = {}
    for element in elements(data, offset, end):
        kind, key, start, _ = element
        if name is None:
            if key in (b"$query", b"query") and kind == 3:
                # A command wrapped to carry a read preference beside it.
                return _read_command(data, start, end, database, detail)
            name = key.decode("utf-8", "backslashreplace")
            if name in ON_COLLECTION and kind in (2, 14):
                collection = scalar(data, element)
        elif key == b"$db":
            database = scalar(data, element) or database
        elif key == b"collection" and name == "getMore":
            collection = scalar(data, element)
        elif key == b"comment" or key == b"$comment":
            comment = _comment(data, element, end)
        elif key == b"documents" and kind == 4:
            detail["documents"] = count_elements(data, start, end)
        elif key in _NOTED:
            value = scalar(data, element)
            if value is not None:
                detail[_NOTED[key]] = value
    if name is None:
        return None, database, None, comment
    if collection:
        resource = f"{database}.{collection}" if database else collection
    else:
        resource = database or ""
    hidden = SECRET_KEYS if name in SECRET_COMMANDS else frozenset()
    return name, resource or None, document_text(data, offset, end, hidden, NOISE_KEYS), comment


_NOTED: Final = {
    b"maxTimeMS": "max_time_ms",
    b"maxAwaitTimeMS": "max_await_ms",
    b"txnNumber": "txn_number",
    b"startTransaction": "start_transaction",
    b"mechanism": "mechanism",
}


def _comment(data: bytes, element: tuple[int, bytes, int, int], end: int) -> dict[str, str]:
    """What a comment carries: a document of headers, or a string."""
    kind, _, start, _ = element
    if kind == 3:
        fields: dict[str, str] = {}
        for inner in elements(data, start, end):
            value = scalar(data, inner)
            if isinstance(value, str) and len(fields) < 32:
                fields[inner[1].decode("utf-8", "backslashreplace").lower()] = value
        return fields
    value = scalar(data, element)
    return {"": value} if isinstance(value, str) else {}


def _cstring(data: bytes, offset: int, end: int) -> tuple[str, int]:
    stop = data.find(b"\0", offset, end)
    if stop < 0:
        return read_text(data[offset:end], 512), end
    return read_text(data[offset:stop], 512), stop + 1


def _count_documents(data: bytes, offset: int, end: int) -> int:
    count = 0
    while offset < end and (size := document_size(data, offset)):
        count += 1
        offset += size
    return count


# ---- replies -----------------------------------------------------------------------------------------------------


def _answer(opcode: int, request_id: int, response_to: int, data: bytes, start: int, end: int) -> Answer:
    more = False
    rows: int | None = None
    if opcode == MSG:
        flags = int(_I.unpack_from(data, start)[0]) if start + 4 <= end else 0
        more = bool(flags & MORE_TO_COME)
        body = next((low for kind, _, low, _ in _sections(data, start + 4, end) if kind == 0), end)
    elif opcode == REPLY:
        flags = int(_I.unpack_from(data, start)[0]) if start + 4 <= end else 0
        rows = int(_I.unpack_from(data, start + 16)[0]) if start + 20 <= end else None
        body = start + 20
        if flags & 1:
            return Answer(request_id, response_to, False, 43, "CursorNotFound", rows, None, False, {"legacy": True})
        answer = _read_answer(request_id, response_to, data, body, end, False)
        if flags & 2:
            answer.detail["query_failure"] = True
            return answer._replace(ok=False, rows=rows)
        # Documents of a query have no `ok` of their own; an `ok` in one of them is data.
        return answer._replace(ok=True if answer.ok is None else answer.ok, rows=rows)
    else:
        body = start
    return _read_answer(request_id, response_to, data, body, end, more)


def _read_answer(request_id: int, response_to: int, data: bytes, body: int, end: int, more: bool) -> Answer:
    ok: bool | None = None
    code: int | None = None
    message: str | None = None
    rows: int | None = None
    affected: int | None = None
    detail: dict[str, Any] = {}
    for element in elements(data, body, end):
        kind, key, start, _ = element
        if key == b"ok":
            value = scalar(data, element)
            ok = bool(value) if value is not None else None
        elif key == b"code":
            code = _number(scalar(data, element))
        elif key in (b"errmsg", b"$err"):
            message = read_text(str(scalar(data, element) or "").encode())
        elif key == b"err" and kind == 2:
            detail["last_error"] = read_text(str(scalar(data, element) or "").encode())
        elif key == b"codeName":
            detail["code_name"] = scalar(data, element)
        elif key == b"n":
            affected = _number(scalar(data, element))
        elif key == b"nModified":
            detail["modified"] = scalar(data, element)
        elif key == b"cursor" and kind == 3:
            rows = _read_cursor(data, start, end, detail)
        elif key == b"writeErrors" and kind == 4:
            detail["write_errors"] = _first_write_error(data, start, end)
        elif key == b"writeConcernError" and kind == 3:
            detail["write_concern_error"] = _error_of(data, start, end)
        elif key == b"values" and kind == 4:
            rows = count_elements(data, start, end)
    return Answer(request_id, response_to, ok, code, message, rows, affected, more, detail)


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and value == value and abs(value) < 1 << 62 else None


def _read_cursor(data: bytes, offset: int, end: int, detail: dict[str, Any]) -> int | None:
    rows: int | None = None
    for element in elements(data, offset, end):
        kind, key, start, _ = element
        if key in (b"firstBatch", b"nextBatch") and kind == 4:
            rows = count_elements(data, start, end)
        elif key == b"id" and (cursor := scalar(data, element)):
            detail["cursor_id"] = cursor
        elif key == b"ns" and kind == 2:
            detail["namespace"] = scalar(data, element)
    return rows


def _first_write_error(data: bytes, offset: int, end: int) -> tuple[int | None, str | None]:
    for kind, _, start, _ in elements(data, offset, end):
        if kind == 3:
            return _error_of(data, start, end)
    return None, None


def _error_of(data: bytes, offset: int, end: int) -> tuple[int | None, str | None]:
    code: int | None = None
    message: str | None = None
    for element in elements(data, offset, end):
        if element[1] == b"code":
            code = _number(scalar(data, element))
        elif element[1] == b"errmsg":
            message = read_text(str(scalar(data, element) or "").encode())
    return code, message


# ---- boundaries and detection ------------------------------------------------------------------------------------


def find_message(side: Side, data: bytes, offset: int) -> int:
    """Where a message of `side` begins, and another behind it if its bytes are there; -1."""
    found = _OPCODE.search(data, offset + 12)
    while found is not None:
        place = found.start() - 12
        if fits(side, data, place):
            following = place + int(_I.unpack_from(data, place)[0])
            if following + 24 > len(data) or fits(side, data, following):
                return place
        found = _OPCODE.search(data, found.start() + 1)
    return -1


def fits(side: Side, data: bytes, offset: int) -> bool:
    """Whether the fields at data[offset] agree with each other as those of a message do."""
    if offset < 0 or len(data) - offset < 25:
        return False
    size: int
    response_to: int
    opcode: int
    size, _, response_to, opcode = _HEADER.unpack_from(data, offset)
    start = offset + 16
    if not 16 < size <= MAX_MESSAGE_BYTES:
        return False
    if opcode == COMPRESSED:
        inner, inflated = _unpack_two(data, start)
        ops = REQUEST_OPS if side == CLIENT else REPLY_OPS
        return inner in ops and 0 < inflated <= MAX_MESSAGE_BYTES and data[start + 8] <= 3
    if opcode == MSG:
        flags = int(_I.unpack_from(data, start)[0])
        section = int(_I.unpack_from(data, start + 5)[0])
        if flags & 0xFFFC or data[start + 4] > 1 or not 5 <= section <= size - 21:
            return False
        # A server only answers; a client never does.
        return (response_to != 0) if side != CLIENT else response_to in (0, -1)
    if side == CLIENT:
        if opcode == QUERY:
            named = _NAMESPACE.match(data, start + 4)
            if named is None or int(_I.unpack_from(data, start)[0]) >> 8 or named.end() + 12 > len(data):
                return False
            return 5 <= document_size(data, named.end() + 8) <= offset + size - named.end() - 8
        if opcode == KILL_CURSORS:
            return size > 24 and (size - 24) % 8 == 0 and int(_I.unpack_from(data, start + 4)[0]) == (size - 24) // 8
        return opcode in REQUEST_OPS and opcode != COMMAND and _NAMESPACE.match(data, start + 4) is not None
    if opcode == REPLY and len(data) - offset >= 36 and size >= 36:
        flags, count = int(_I.unpack_from(data, start)[0]), int(_I.unpack_from(data, start + 16)[0])
        if flags >> 4 or count < 0 or response_to == 0:
            return False
        if size == 36 or len(data) - offset < 40:
            return count == 0
        return count > 0 and 5 <= int(_I.unpack_from(data, start + 20)[0]) <= size - 36
    return opcode == COMMAND_REPLY and 5 <= int(_I.unpack_from(data, start)[0]) <= size - 16


def detect(sample: Sample) -> float:
    """Messages whose lengths agree, questions from the client, answers from the server."""
    asked = _seen(CLIENT, sample.client, sample.client_runs)
    answered = _seen(1, sample.server, sample.server_runs)
    if asked < 0 or answered < 0:
        return 0.0
    if asked and answered:
        return 0.97 if asked + answered == 4 else 0.85
    return {2: 0.8, 1: 0.55}.get(asked + answered, 0.0)


def _seen(side: Side, first: bytes, runs: list[bytes]) -> int:
    """2: begins with a message; 1: one further on; 0: nothing there; -1: others' bytes."""
    if not first:
        return 0
    if fits(side, first, 0):
        return 2
    if any(fits(side, run, 0) for run in runs) or find_message(side, first, 1) >= 0:
        return 1
    return -1
