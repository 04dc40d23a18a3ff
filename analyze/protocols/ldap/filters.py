"""Search filters as text (RFC 4515) from their encoding (RFC 4511, section 4.5.1.7)."""

from __future__ import annotations

from kubetape.analyze.protocols.common.text import MAX_STATEMENT_CHARS
from kubetape.analyze.protocols.ldap.ber import elements

MAX_DEPTH = 64  # people nest to a handful; the rest is an attack on the stack

_JOIN = {0xA0: "&", 0xA1: "|", 0xA2: "!"}
_COMPARE = {0xA3: "=", 0xA5: ">=", 0xA6: "<=", 0xA8: "~="}


def filter_text(data: bytes, start: int, end: int) -> str:
    """The filter in data[start:end]; cut at MAX_STATEMENT_CHARS, with "…" for what is cut or unreadable."""
    parts: list[str] = []
    _append(parts, data, start, end, 0, [MAX_STATEMENT_CHARS])
    return "".join(parts)


def _append(parts: list[str], data: bytes, start: int, end: int, depth: int, room: list[int]) -> None:
    for tag, low, high in elements(data, start, end):
        if room[0] <= 0 or depth > MAX_DEPTH:
            parts.append("…")
            return
        if tag in _JOIN:
            parts.append("(" + _JOIN[tag])
            room[0] -= 3
            _append(parts, data, low, high, depth + 1, room)
            parts.append(")")
            continue
        text = f"({_item(tag, data, low, high)})"
        room[0] -= len(text)
        parts.append(text)


def _item(tag: int, data: bytes, low: int, high: int) -> str:
    if tag == 0x87:
        return escape(data[low:high]) + "=*"
    inner = list(elements(data, low, high))[:64]
    if tag in _COMPARE and len(inner) == 2:
        return escape(data[inner[0][1] : inner[0][2]]) + _COMPARE[tag] + escape(data[inner[1][1] : inner[1][2]])
    if tag == 0xA4 and len(inner) == 2:
        return escape(data[inner[0][1] : inner[0][2]]) + "=" + _substrings(data, inner[1][1], inner[1][2])
    if tag == 0xA9:
        return _extensible(data, inner)
    return "…"


def _substrings(data: bytes, low: int, high: int) -> str:
    text = ""
    last = 0
    for tag, start, end in elements(data, low, high):
        # initial [0], any [1], final [2]
        text += ("" if tag == 0x80 else "*") + escape(data[start:end])
        last = tag
        if len(text) > MAX_STATEMENT_CHARS:
            return text + "…"
    return text if last == 0x82 else text + "*"


def _extensible(data: bytes, inner: list[tuple[int, int, int]]) -> str:
    """MatchingRuleAssertion: rule [1], type [2], value [3], dnAttributes [4]."""
    found = {tag: data[start:end] for tag, start, end in inner}
    dn = ":dn" if found.get(0x84, b"\0") != b"\0" else ""
    rule = ":" + escape(found[0x81]) if 0x81 in found else ""
    return f"{escape(found.get(0x82, b''))}{dn}{rule}:={escape(found.get(0x83, b''))}"


def escape(raw: bytes) -> str:
    """A value of an assertion, RFC 4515 section 3: `*`, `(`, `)`, `\\`, NUL and what is no text as \\xx."""
    raw = raw[:MAX_STATEMENT_CHARS]
    if raw.isalnum():
        return raw.decode("ascii")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(chr(b) if 0x20 <= b < 0x7F and b not in b"*()\\" else f"\\{b:02x}" for b in raw)
    if text.isprintable() and not any(c in text for c in "*()\\"):
        return text
    return "".join(
        c if c.isprintable() and c not in "*()\\" else "".join(f"\\{b:02x}" for b in c.encode()) for c in text
    )
