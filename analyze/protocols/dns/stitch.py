"""DNS messages to rows."""

from __future__ import annotations

from typing import Any, Final

from kubetape.analyze.protocols.contract import CLIENT, SERVER, Connection, Decoder, Parsed, Request, Side
from kubetape.analyze.protocols.dns import types as t
from kubetape.analyze.protocols.dns.parse import class_text, find_segment, parse_datagram, parse_segment
from kubetape.analyze.protocols.dns.types import Message, Question, Record
from kubetape.analyze.streams import Span

# A resolver may have this many questions open on one pair of ports; beyond it the oldest are given up.
MAX_OPEN: Final = 1 << 14
MDNS_GROUPS: Final = frozenset({"224.0.0.251", "ff02::fb"})  # RFC 6762, section 3
LLMNR_GROUPS: Final = frozenset({"224.0.0.252", "ff02::1:3"})  # RFC 4795, section 2

# Codes that say the server could not, rather than that the question was wrong.
_SERVER_FAULTS: Final = frozenset({2})

_Key = tuple[Side, int, int, str, int]


class _Open:
    """A question without its answer; of a zone transfer, with the part of it seen so far."""

    __slots__ = ("messages", "records", "request", "response", "retransmits", "row", "soa_count")

    def __init__(self, row: Request, request: Span) -> None:
        self.row, self.request = row, request
        self.response: Span | None = None
        self.retransmits = self.soa_count = self.records = self.messages = 0


class DnsDecoder(Decoder):
    """Key: who asked, message id, opcode, name and type (RFC 5452, section 3); of answers without question, the id."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._open: dict[_Key, _Open] = {}
        self._latest: dict[tuple[Side, int], _Key] = {}  # of (asker, id): for answers without a question
        ips = {connection.client_ip, connection.server_ip}
        ports = {connection.client_port, connection.server_port}
        self._variant = "mdns" if 5353 in ports else "llmnr" if 5355 in ports or ips & LLMNR_GROUPS else None
        self._multicast = bool(ips & (MDNS_GROUPS | LLMNR_GROUPS))

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        return parse_datagram(data, offset) if self.connection.datagrams else parse_segment(data, offset)

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        return offset if self.connection.datagrams else find_segment(data, offset)

    def on_frame(self, side: Side, frame: Message, span: Span) -> None:
        if frame.is_response:
            self._on_answer(SERVER if side == CLIENT else CLIENT, frame, span)
        else:
            self._on_question(side, frame, span)

    def _on_question(self, side: Side, frame: Message, span: Span) -> None:
        asked: set[tuple[str, int]] = set()
        questions: list[Question | None] = list(frame.questions) or [None]
        for question in questions:
            key = _key(side, frame, question)
            if key[3:] in asked:
                continue  # the same question twice in one message is asked once
            asked.add(key[3:])
            known = self._open.get(key)
            if known is not None and known.response is None and not self._multicast:
                known.retransmits += 1
                _attributes(known.row)["retransmit_count"] = known.retransmits
                continue
            row = self._row(frame, question)
            if frame.counts[0] > 1:
                _attributes(row)["questions"] = frame.counts[0]
            if side != CLIENT:
                _attributes(row)["sent_by"] = "server"
            if self._multicast:
                # Whoever answers does so on another pair of addresses, or to the group.
                row.outcome = "one_way"
                self.emit(row, span, None)
                continue
            self._remember(key, _Open(row, span))

    def _on_answer(self, asker: Side, frame: Message, span: Span) -> None:
        questions: list[Question | None] = list(frame.questions) or [None]
        for question in questions:
            key = _key(asker, frame, question)
            known = self._open.get(key)
            if known is None and (question is None or frame.opcode == t.IQUERY):
                # The question of an inverse query is in the answer (RFC 1035, section 6.4).
                key = self._latest.get(key[:2], key)
                known = self._open.get(key)
            if known is None:
                row = self._row(frame, question or _first_name(frame))
                _answer(row, frame)
                if asker != CLIENT and not self._multicast:
                    _attributes(row)["sent_by"] = "server"
                self.emit(row, None, span)
                continue
            if self._goes_on(key, known, frame, span):
                continue
            del self._open[key]
            _answer(known.row, frame)
            if known.messages > 1:
                _attributes(known.row)["messages"] = known.messages
                known.row.rows_sent = known.records
            self.emit(known.row, known.request, known.response or span)

    def _goes_on(self, key: _Key, known: _Open, frame: Message, span: Span) -> bool:
        """Whether this is a part of a zone transfer but its last (RFC 5936, section 2.2; RFC 1995, section 4)."""
        transfer = key[4]
        if transfer not in (t.AXFR, t.IXFR) or frame.rcode or self.connection.datagrams:
            return False
        if known.response is None:
            known.response = span.copy()
            if frame.first_answer_type != t.SOA:
                return False
        else:
            known.response.extend(span)
        known.soa_count += frame.soa_count
        known.records += frame.counts[1]
        known.messages += 1
        if transfer == t.IXFR and known.records == 1:
            return False  # one SOA alone: nothing is new
        # It ends with the SOA it began with; the differences of an IXFR begin with two more each.
        ends = frame.last_answer_type == t.SOA and known.soa_count >= 2
        return not (ends and (transfer == t.AXFR or known.soa_count % 2 == 0))

    def finish(self) -> None:
        for known in self._open.values():
            self._give_up(known)
        self._open.clear()

    def _give_up(self, known: _Open) -> None:
        if known.response is not None:
            # A transfer whose end was not seen.
            known.row.status, known.row.outcome = "NOERROR", "truncated"
        self.emit(known.row, known.request, known.response)

    def _remember(self, key: _Key, known: _Open) -> None:
        old = self._open.pop(key, None)
        if old is None and len(self._open) >= MAX_OPEN:
            old = self._open.pop(next(iter(self._open)))
        if old is not None:
            self._give_up(old)
        if len(self._latest) >= MAX_OPEN:
            self._latest.clear()
        self._open[key] = known
        self._latest[key[:2]] = key

    def _row(self, frame: Message, question: Question | None) -> Request:
        row = Request(attributes={"id": frame.id})
        opcode = frame.opcode
        if opcode:
            row.operation = t.OPCODES.get(opcode) or f"OPCODE{opcode}"
        elif question is not None:
            row.operation = t.type_name(question.kind)
        if frame.damaged:
            _attributes(row)["malformed"] = True
        if question is not None:
            row.resource = question.name.lower() if question.name or not frame.damaged else None
            klass = class_text(question.klass)
            if klass:
                _attributes(row)["class"] = klass
        if self._variant:
            _attributes(row)["variant"] = self._variant
        flags = [name for bit, name in t.FLAGS if frame.flags & bit]
        if flags:
            _attributes(row)["flags"] = flags
        if frame.edns is not None:
            _attributes(row)["edns"] = frame.edns
        if opcode == t.UPDATE:
            _attributes(row)["updates"] = [_record(r) for r in frame.authority]
        return row


def _key(side: Side, frame: Message, question: Question | None) -> _Key:
    if question is None:
        return side, frame.id, frame.opcode, "", -1
    return side, frame.id, frame.opcode, question.name.lower(), question.kind


def _first_name(frame: Message) -> Question | None:
    """What an answer without question is about: its first record (multicast DNS leaves questions out)."""
    record = next(iter(frame.answers or frame.authority), None)
    return None if record is None else Question(record.name, record.kind, record.klass)


def _attributes(row: Request) -> dict[str, Any]:
    if row.attributes is None:
        row.attributes = {}
    return row.attributes


def _answer(row: Request, frame: Message) -> None:
    """What the answer says: status, records, and of names the addresses they lead to."""
    row.status = t.rcode_name(frame.rcode)
    edns = frame.edns or {}
    if frame.rcode:
        row.is_error = True
        row.error_kind = "server" if frame.rcode in _SERVER_FAULTS else "client"
        row.error_message = str(edns.get("extended_error_text") or "") or None
    attributes = _attributes(row)
    flags = [name for bit, name in t.FLAGS if frame.flags & bit]
    if flags:
        attributes["flags"] = flags
    if edns:
        attributes["edns"] = edns
    answers = frame.answers
    if answers:
        attributes["answers"] = [_record(r) for r in answers]
        attributes["ttl"] = min(r.ttl for r in answers)
        addresses = [r.data for r in answers if r.kind in (t.A, t.AAAA) and r.data]
        if addresses:
            attributes["addresses"] = addresses
        aliases = _aliases(row.resource or "", answers)
        if aliases:
            attributes["cnames"] = aliases
    row.rows_sent = frame.counts[1] or None
    if frame.authority and frame.opcode != t.UPDATE:
        attributes["authority"] = [_record(r) for r in frame.authority]
    others = [r for r in frame.additional if r.kind in (t.A, t.AAAA) and r.data]
    if others:
        attributes["additional"] = [_record(r) for r in others]
    signed = next((r for r in frame.additional if r.kind == t.TSIG), None)
    if signed is not None:
        attributes["tsig"] = signed.name


def _record(record: Record) -> dict[str, Any]:
    return {
        "name": record.name.lower(),
        "type": t.type_name(record.kind),
        "ttl": record.ttl,
        "data": record.data,
    }


def _aliases(name: str, answers: list[Record]) -> list[str]:
    """The chain of CNAMEs from `name` on, in its order; it ends where a name comes twice."""
    targets = {r.name.lower(): r.data.lower() for r in answers if r.kind == t.CNAME and r.data}
    chain: list[str] = []
    while name in targets and len(chain) < len(targets):
        name = targets[name]
        chain.append(name)
    return chain
