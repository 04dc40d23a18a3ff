"""Texts of Redis commands: what is shown, what is masked, and the key acted on."""

from __future__ import annotations

from kubetape.analyze.normalise.key import key_pattern
from kubetape.analyze.protocols.common.text import cut_text, read_name, read_text
from kubetape.analyze.protocols.redis.types import KEY_AT, NO_KEY, WITH_NUMKEYS, Command

MAX_STATEMENT_CHARS = 1024
MASK = b"***"
_SECRET_SETTINGS = frozenset({b"REQUIREPASS", b"MASTERAUTH", b"MASTERUSER", b"TLS-KEY-FILE-PASS"})


def statement(command: Command) -> str:
    """The command and its arguments, blank between them, passwords masked."""
    arguments = command.arguments
    if command.name in MASKED:
        arguments = _mask(command.name, list(arguments))
    text = read_text(b" ".join(arguments), MAX_STATEMENT_CHARS)
    return text if command.whole else cut_text(text + "…", MAX_STATEMENT_CHARS)


MASKED = frozenset({b"AUTH", b"HELLO", b"CONFIG", b"ACL", b"MIGRATE", b"SENTINEL"})


def _mask(name: bytes, words: list[bytes]) -> list[bytes]:
    upper = [w.upper() for w in words]
    if name == b"AUTH":
        words[-1:] = [MASK] if len(words) > 1 else words[-1:]
    elif name in (b"HELLO", b"MIGRATE"):
        for place, word in enumerate(upper):
            skip = 2 if word == b"AUTH2" or (word == b"AUTH" and name == b"HELLO") else 1
            if word in (b"AUTH", b"AUTH2") and place + skip < len(words):
                words[place + skip] = MASK
    elif name == b"ACL" and upper[1:2] == [b"SETUSER"]:
        for place in range(3, len(words)):
            if words[place][:1] in (b">", b"<", b"#", b"!"):
                words[place] = words[place][:1] + MASK
    else:
        for place, word in enumerate(upper[:-1]):
            if word in _SECRET_SETTINGS or word == b"AUTH-PASS":
                words[place + 1] = MASK
    return words


def resource(command: Command) -> str | None:
    """The pattern of the first key (or channel); None for commands without one."""
    name, arguments = command.name, command.arguments
    if len(arguments) < 2 or name in NO_KEY:
        return None
    place = 1
    if name in KEY_AT:
        place = KEY_AT[name]
    elif name in WITH_NUMKEYS:
        if len(arguments) < 4 or arguments[2] == b"0":
            return None
        place = 3
    elif name in (b"XREAD", b"XREADGROUP"):
        upper = [a.upper() for a in arguments]
        if b"STREAMS" not in upper:
            return None
        place = upper.index(b"STREAMS") + 1
    return key_pattern(read_name(arguments[place])) if place < len(arguments) else None
