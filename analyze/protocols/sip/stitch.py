"""SIP messages to rows."""

from __future__ import annotations

from typing import Any, Final

from kubetape.analyze.protocols.common.trace import CARRIERS, read_trace
from kubetape.analyze.protocols.contract import CLIENT, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.sip.parse import find_message, parse_message
from kubetape.analyze.protocols.sip.types import Message
from kubetape.analyze.streams import Span

# A proxy may have this many calls open on one connection; beyond it the oldest are given up.
MAX_TRANSACTIONS: Final = 1 << 14
MAX_PROVISIONAL: Final = 16  # provisional replies listed per row

_Key = tuple[Side, str, int, str, str]


class _Transaction:
    __slots__ = ("done", "repeats", "replies", "request", "row")

    def __init__(self, row: Request, request: Span | None) -> None:
        self.row, self.request = row, request
        self.done = False
        self.replies: list[int] = []
        self.repeats = 0


class SipDecoder(Decoder):
    """Key: who asked, Call-ID, CSeq number and method, and the branch of the top Via (RFC 3261, 17.1.3 and 17.2.3).

    Either end may ask. Repeated requests and replies belong to the row of the first; an ACK has no reply.
    """

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._transactions: dict[_Key, _Transaction] = {}

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return parse_message(data, offset, self.connection.datagrams)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return find_message(data, offset)

    def on_frame(self, side: Side, frame: Message | None, span: Span) -> None:
        if frame is None:
            return
        if frame.status:
            self._on_reply(side, frame, span)
        else:
            self._on_request(side, frame, span)

    def _on_request(self, side: Side, frame: Message, span: Span) -> None:
        key = (side, frame.call_id, frame.cseq, frame.method, frame.branch)
        known = self._transactions.get(key)
        if known is not None and known.request is not None:
            known.repeats += 1
            self._note(known, "retransmit_count", known.repeats)
            return
        row = _row(frame, frame.method)
        row.resource = frame.uri
        if side != CLIENT:
            self._attributes(row)["sent_by"] = "server"
        transaction = _Transaction(row, span)
        self._remember(key, transaction)
        if frame.method == "ACK":
            # Section 17: nothing answers an ACK.
            row.outcome = "one_way"
            self._end(transaction, None)

    def _on_reply(self, side: Side, frame: Message, span: Span) -> None:
        asker: Side = 1 if side == 0 else 0
        key = (asker, frame.call_id, frame.cseq, frame.cseq_method, frame.branch)
        transaction = self._transactions.get(key)
        if transaction is None:
            transaction = _Transaction(_row(frame, frame.cseq_method), None)
            if asker != CLIENT:
                self._attributes(transaction.row)["sent_by"] = "server"
            self._remember(key, transaction)
        if frame.status < 200:
            if len(transaction.replies) < MAX_PROVISIONAL:
                transaction.replies.append(frame.status)
                self._note(transaction, "provisional", transaction.replies)
            if transaction.request is None and transaction.row.response is None:
                transaction.row.response = span
            return
        if transaction.done:
            self._note(transaction, "repeated_replies", 1 + self._noted(transaction, "repeated_replies"))
            return
        row = transaction.row
        row.status = str(frame.status)
        if frame.status >= 400:
            row.is_error = True
            row.error_kind = error_kind(frame.status)
            row.error_message = frame.headers.get("warning") or frame.reason or None
        agent = frame.headers.get("server") or frame.headers.get("user-agent")
        if agent:
            self._note(transaction, "server_agent", agent)
        self._end(transaction, span)

    def finish(self) -> None:
        for transaction in self._transactions.values():
            if not transaction.done:
                self._end(transaction, transaction.row.response)
        self._transactions.clear()

    def _end(self, transaction: _Transaction, response: Span | None) -> None:
        transaction.done = True
        self.emit(transaction.row, transaction.request, response)

    def _remember(self, key: _Key, transaction: _Transaction) -> None:
        """Kept also when answered: repetitions come for half a minute and more (timers B, F, H)."""
        if len(self._transactions) >= MAX_TRANSACTIONS:
            oldest = self._transactions.pop(next(iter(self._transactions)))
            if not oldest.done:
                self._end(oldest, oldest.row.response)
        self._transactions[key] = transaction

    @staticmethod
    def _attributes(row: Request) -> dict[str, Any]:
        if row.attributes is None:
            row.attributes = {}
        return row.attributes

    def _note(self, transaction: _Transaction, name: str, value: Any) -> None:
        self._attributes(transaction.row)[name] = value

    def _noted(self, transaction: _Transaction, name: str) -> int:
        return int(self._attributes(transaction.row).get(name, 0))


def error_kind(status: int) -> str:
    """RFC 3261, 21.4 to 21.6: 4xx is the caller's, 5xx the server's fault; 6xx: the callee refuses everywhere."""
    if status in (408, 504):
        return "timeout"
    return "server" if 500 <= status < 600 else "client"


def _row(frame: Message, operation: str) -> Request:
    headers = frame.headers
    attributes: dict[str, Any] = {"call_id": frame.call_id, "cseq": frame.cseq}
    for name in ("from", "to", "user-agent", "content-type"):
        if name in headers:
            attributes[name.replace("-", "_")] = headers[name]
    row = Request(operation=operation or None, attributes=attributes)
    carriers = {name: value for name, value in headers.items() if name in CARRIERS}
    if carriers and (trace := read_trace(carriers)) is not None:
        row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
    return row
