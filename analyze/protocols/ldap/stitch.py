"""LDAP messages to rows."""

from __future__ import annotations

from typing import Any, Final

from kubetape.analyze.protocols.common.spans import ScatteredSpan
from kubetape.analyze.protocols.contract import (
    CLIENT,
    INVALID,
    Connection,
    Decoder,
    Parsed,
    Request,
    Side,
)
from kubetape.analyze.protocols.ldap.parse import find_message, oid_name, parse_message, parse_wrapped
from kubetape.analyze.protocols.ldap.types import (
    ABANDON,
    BIND,
    BIND_REPLY,
    ENTRY,
    EXTENDED,
    EXTENDED_REPLY,
    INTERMEDIATE,
    NO_ERRORS,
    REFERENCE,
    REPLIES,
    REQUESTS,
    RESULTS,
    SEARCH,
    SERVER_FAULTS,
    START_TLS,
    SUCCESS,
    UNBIND,
    Message,
    Sealed,
)
from kubetape.analyze.streams import Span

MAX_PENDING: Final = 1 << 14  # operations open at once on a connection; beyond it the oldest are given up


class _Operation:
    __slots__ = ("entries", "op", "reply", "request", "row")

    def __init__(self, op: int, row: Request, request: Span | None) -> None:
        self.op, self.row, self.request = op, row, request
        self.reply: Span | None = None
        self.entries = 0


class LdapDecoder(Decoder):
    """Key: the message id (RFC 4511, section 4.1.1.1). A search's entries and references belong to its row."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._open: dict[int, _Operation] = {}
        self._mechanism: str | None = None
        # Whether a security layer may be in use: not before a SASL bind succeeded, if the beginning was seen.
        self._may_be_wrapped = not connection.from_start and not connection.datagrams

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        if data[offset] == 0x30:
            return parse_message(side, data, offset)
        if data[offset] == 0 and self._may_be_wrapped:
            return parse_wrapped(side, data, offset)
        return INVALID

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_message(side, data, offset)

    def on_frame(self, side: Side, frame: Message | list[Message] | Sealed, span: Span) -> None:
        if frame.__class__ is list:
            for message in frame:
                self._on_message(side, message, span)
        elif frame.__class__ is Sealed:
            # What a sealing layer carries stays unread until the connection ends.
            self.switch("opaque")
        else:
            self._on_message(side, frame, span)  # type: ignore[arg-type]

    def _on_message(self, side: Side, message: Message, span: Span) -> None:
        if side == CLIENT:
            self._on_request(message, span)
        else:
            self._on_reply(message, span)

    def _on_request(self, message: Message, span: Span) -> None:
        op, detail = message.op, message.detail
        row = Request(operation=REQUESTS.get(op), resource=detail.pop("dn", None))
        row.statement = detail.pop("filter", None)
        row.stream_id = message.message_id
        if op == EXTENDED and "oid" in detail:
            row.resource = oid_name(detail["oid"])
        elif op == BIND:
            self._mechanism = detail.get("mechanism")
        if message.controls:
            detail["controls"] = message.controls
        row.attributes = detail or None
        if op in (UNBIND, ABANDON):
            # Sections 4.3 and 4.11: neither has a reply.
            row.outcome = "one_way"
            self.emit(row, span, None)
            if op == ABANDON and (target := self._open.get(detail.get("abandoned_id", 0))) is not None:
                _note(target.row, "abandoned", True)
            return
        before = self._open.pop(message.message_id, None)
        if before is not None:
            self._give_up(before)
        elif len(self._open) >= MAX_PENDING:
            self._give_up(self._open.pop(next(iter(self._open))))
        self._open[message.message_id] = _Operation(op, row, span)

    def _on_reply(self, message: Message, span: Span) -> None:
        op = message.op
        if message.message_id == 0 and op == EXTENDED_REPLY:
            self._on_notice(message, span)
            return
        operation = self._open.get(message.message_id)
        if operation is None:
            asked = REPLIES.get(op, 0)
            row = Request(operation=REQUESTS.get(asked), stream_id=message.message_id)
            operation = self._open[message.message_id] = _Operation(asked, row, None)
        if operation.reply is None:
            operation.reply = ScatteredSpan(span)
        else:
            operation.reply.extend(span)
        if op == ENTRY:
            operation.entries += 1
        elif op == REFERENCE:
            row = operation.row
            _note(row, "reference_count", 1 + ((row.attributes or {}).get("reference_count", 0)))
        elif op == INTERMEDIATE:
            pass
        elif op:
            del self._open[message.message_id]
            self._end(operation, message)

    def _on_notice(self, message: Message, span: Span) -> None:
        """Unsolicited notification (section 4.4): the server is about to hang up."""
        oid = message.detail.get("oid", "")
        row = Request(operation="extendedResp", resource=oid_name(oid) or None, outcome="one_way")
        _tell_result(row, message.detail)
        self.emit(row, None, span)

    def _end(self, operation: _Operation, message: Message) -> None:
        row, result = operation.row, message.detail.get("result")
        _tell_result(row, message.detail)
        if operation.op == SEARCH:
            row.rows_sent = operation.entries
        if message.controls:
            _note(row, "response_controls", message.controls)
        self.emit(row, operation.request, operation.reply)
        if result != SUCCESS:
            return
        if message.op == BIND_REPLY and (self._mechanism or operation.request is None):
            self._may_be_wrapped = True
        if operation.op == EXTENDED and (row.attributes or {}).get("oid") == START_TLS:
            self.switch("tls")

    def _give_up(self, operation: _Operation) -> None:
        if operation.op == SEARCH:
            operation.row.rows_sent = operation.entries
        if operation.request is None:
            self.emit(operation.row, None, operation.reply)
        else:
            self.emit(operation.row, operation.request, None)

    def finish(self) -> None:
        for operation in self._open.values():
            self._give_up(operation)
        self._open.clear()


def _note(row: Request, name: str, value: Any) -> None:
    if row.attributes is None:
        row.attributes = {}
    row.attributes[name] = value


def _tell_result(row: Request, detail: dict[str, Any]) -> None:
    result = detail.get("result")
    if result is None:
        return
    row.status = str(result)
    _note(row, "result", RESULTS.get(result, str(result)))
    for name in ("matched_dn", "referrals"):
        if detail.get(name):
            _note(row, name, detail[name])
    if result not in NO_ERRORS:
        row.is_error = True
        row.error_kind = "timeout" if result == 3 else "server" if result in SERVER_FAULTS else "client"
        row.error_message = detail.get("message") or RESULTS.get(result)
