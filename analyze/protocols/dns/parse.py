"""DNS messages from bytes (RFC 1035, section 4): a header, questions, records; over TCP behind two bytes of length."""

from __future__ import annotations

import re
from struct import Struct
from typing import Final

from kubetape.analyze.protocols.contract import CUT, INVALID, Parsed
from kubetape.analyze.protocols.dns.records import read_data, read_name, read_options, skip_name
from kubetape.analyze.protocols.dns.types import (
    CLASSES,
    OPCODES,
    OPT,
    SOA,
    TYPES,
    Message,
    Question,
    Record,
    class_name,
)

HEADER_BYTES: Final = 12
MAX_QUESTIONS: Final = 32  # mDNS asks several at once; more is not asked but made up
MAX_RECORDS: Final = 64  # kept of one section; a zone transfer is not copied into a row

_HEADER: Final = Struct(">6H")
_FIXED: Final = Struct(">HHIH")
_TWO: Final = Struct(">HH")
# Length, id, then flags with a known opcode, no more than 16 questions and no more records than fit into 64 KiB, but
# something of either: where to look closer.
_NEXT: Final = re.compile(
    rb"(?=[\x00-\xff]{4}[\x00-\x0f\x10-\x17\x20-\x37\x80-\x97\xa0-\xb7][\x00-\xff](?!\x00{6})\x00[\x00-\x10]"
    rb"(?:[\x00-\x1f][\x00-\xff]){2}[\x00-\x1f])"
)


def parse_message(data: bytes, start: int, end: int, available: int) -> Message | None:
    """The message at data[start:end], of which the bytes up to `available` were captured; None: no header fits."""
    if available - start < HEADER_BYTES:
        return None
    message_id, flags, *counts = _HEADER.unpack_from(data, start)
    message = Message(message_id, flags, (counts[0], counts[1], counts[2], counts[3]))
    if message.opcode not in OPCODES:
        return message
    place = start + HEADER_BYTES
    for _ in range(min(counts[0], MAX_QUESTIONS)):
        found = read_name(data, place, start, available)
        if found is None:
            message.damaged = True
            found = "", skip_name(data, place, available)
        if found[1] < 0 or found[1] + 4 > available:
            message.damaged = True
            return message
        message.questions.append(Question(found[0], *_TWO.unpack_from(data, found[1])))
        place = found[1] + 4
    if counts[0] > MAX_QUESTIONS:
        return message
    for section, count in enumerate(counts[1:]):
        kept = (message.answers, message.authority, message.additional)[section]
        for _ in range(count):
            place = _parse_record(message, data, place, start, available, section, kept)
            if place < 0:
                return message
    message.whole = place == end and not message.damaged
    return message


def _parse_record(
    message: Message, data: bytes, place: int, start: int, end: int, section: int, kept: list[Record]
) -> int:
    """The offset behind the record at `place`; -1: it does not fit."""
    name_end = skip_name(data, place, end)
    if name_end < 0 or name_end + 10 > end:
        return -1
    kind, klass, ttl, size = _FIXED.unpack_from(data, name_end)
    value = name_end + 10
    if value + size > end:
        return -1
    if kind == OPT and section == 2:
        message.rcode = message.rcode & 15 | ttl >> 24 << 4
        message.edns = {"udp_size": klass, "version": ttl >> 16 & 255, "do": bool(ttl & 0x8000)}
        message.edns.update(read_options(data, value, value + size))
        return value + size
    if section == 0:
        message.first_answer_type = message.first_answer_type or kind
        message.last_answer_type = kind
        message.soa_count += kind == SOA
    if len(kept) < MAX_RECORDS:
        found = read_name(data, place, start, end)
        if found is None:
            return -1
        kept.append(Record(found[0], kind, klass, ttl, read_data(data, kind, value, size, start, end)))
    return value + size


def is_plausible(message: Message, complete: bool) -> bool:
    """Whether bytes that gave this message were meant as one: every number known, every byte used.

    complete: all bytes of it were there; otherwise what is there must fit as far as it goes.
    """
    if message.opcode not in OPCODES or not (message.questions or message.answers or message.authority):
        return False
    if not message.whole and (complete or not message.questions or len(message.questions) != message.counts[0]):
        return False
    if not all(_is_known(q.kind, q.klass) and not is_netbios(q) for q in message.questions):
        return False
    return all(_is_known(r.kind, r.klass) for r in (*message.answers, *message.authority, *message.additional))


def _is_known(kind: int, klass: int) -> bool:
    # The top bit of a class means something else in multicast DNS (RFC 6762, sections 5.4 and 10.2).
    return klass & 0x7FFF in CLASSES and (kind in TYPES or kind >= 0xFF00)


def is_netbios(question: Question) -> bool:
    """RFC 1001, section 14.1: a first label of 32 letters A to P, types NB and NBSTAT."""
    label = question.name.partition(".")[0]
    return len(label) == 32 and question.kind in (32, 33) and not label.strip("ABCDEFGHIJKLMNOP")


def parse_datagram(data: bytes, offset: int) -> Parsed:
    """A datagram is one message, whatever its sections claim."""
    message = parse_message(data, offset, len(data), len(data))
    return INVALID if message is None else (len(data) - offset, message)


def parse_segment(data: bytes, offset: int) -> Parsed:
    """A message of a TCP stream (RFC 1035, section 4.2.2)."""
    here = len(data) - offset
    if here < 2:
        return CUT
    size = data[offset] << 8 | data[offset + 1]
    if size < HEADER_BYTES:
        return INVALID
    start = offset + 2
    if here < 2 + HEADER_BYTES:
        return CUT
    end = start + size
    message = parse_message(data, start, end, min(end, len(data)))
    if message is None or message.opcode not in OPCODES:
        return INVALID
    if message.counts[0] and not message.questions and end <= len(data):
        return INVALID
    return size + 2, message


def find_segment(data: bytes, offset: int) -> int:
    """Where a plausible message stands, and behind it another or the end of the bytes; -1."""
    for found in _NEXT.finditer(data, offset):
        place = found.start()
        behind = _plausible_segment(data, place)
        if behind >= len(data) or (behind > 0 and _plausible_segment(data, behind) > 0):
            return place
    return -1


def _plausible_segment(data: bytes, offset: int) -> int:
    """The offset behind the message there, if it is plausible; -1."""
    size = int.from_bytes(data[offset : offset + 2], "big")
    start = offset + 2
    if size < HEADER_BYTES or len(data) - start < HEADER_BYTES:
        return -1
    end = start + size
    message = parse_message(data, start, end, min(end, len(data)))
    if message is None or not is_plausible(message, end <= len(data)):
        return -1
    return end


def class_text(klass: int) -> str | None:
    """The class where it is worth saying (not IN)."""
    klass &= 0x7FFF
    return None if klass == 1 else class_name(klass)
