"""Bytes as text for the columns of `request`: never an exception, never a control character, never too long."""

from __future__ import annotations

import re

MAX_STATEMENT_CHARS = 4096  # enough for the statements people write; generated ones are recognised by their head
MAX_NAME_CHARS = 512  # of names that protocols bound only by 32 bits

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def _escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def cut_text(text: str, limit: int = MAX_STATEMENT_CHARS) -> str:
    """At most `limit` characters; the last of a longer text is "…"."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def read_text(raw: bytes, limit: int = MAX_STATEMENT_CHARS) -> str:
    """UTF-8 bytes as text of at most `limit` characters; what cannot be printed is escaped (\\xff)."""
    if len(raw) > limit * 4:
        raw = raw[: limit * 4]  # UTF-8 has at most 4 bytes for a character
    text = raw.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = _CONTROL.sub(_escape, text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def read_name(raw: bytes) -> str:
    """A name (key, topic, user): as `read_text` with the limit of names."""
    return read_text(raw, MAX_NAME_CHARS)
