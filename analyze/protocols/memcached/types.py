"""memcached's commands and replies (memcached doc/protocol.txt, doc/protocol-binary.xml, doc/protocol-udp.txt)."""

from __future__ import annotations

STORAGE = frozenset({b"set", b"add", b"replace", b"append", b"prepend", b"cas"})
RETRIEVAL = frozenset({b"get", b"gets", b"gat", b"gats"})
META = frozenset({b"mg", b"ms", b"md", b"ma", b"mn", b"me"})
OTHER = frozenset(
    b"""cache_memlimit decr delete extstore flush_all incr lru lru_crawler misbehave quit refresh_certs shutdown slabs
    stats touch verbosity version watch""".split()
)
WORDS = STORAGE | RETRIEVAL | META | OTHER
# The first argument is a key.
KEYED = STORAGE | RETRIEVAL | (META - {b"mn"}) | {b"delete", b"incr", b"decr", b"touch"}

# Operations of the binary protocol by number: (name of the text command, quiet).
OPCODES: dict[int, tuple[str, bool]] = {
    0x00: ("get", False),
    0x01: ("set", False),
    0x02: ("add", False),
    0x03: ("replace", False),
    0x04: ("delete", False),
    0x05: ("incr", False),
    0x06: ("decr", False),
    0x07: ("quit", False),
    0x08: ("flush_all", False),
    0x09: ("get", True),
    0x0A: ("noop", False),
    0x0B: ("version", False),
    0x0C: ("get", False),
    0x0D: ("get", True),
    0x0E: ("append", False),
    0x0F: ("prepend", False),
    0x10: ("stats", False),
    0x11: ("set", True),
    0x12: ("add", True),
    0x13: ("replace", True),
    0x14: ("delete", True),
    0x15: ("incr", True),
    0x16: ("decr", True),
    0x17: ("quit", True),
    0x18: ("flush_all", True),
    0x19: ("append", True),
    0x1A: ("prepend", True),
    0x1B: ("verbosity", False),
    0x1C: ("touch", False),
    0x1D: ("gat", False),
    0x1E: ("gat", True),
    0x20: ("sasl_list_mechs", False),
    0x21: ("sasl_auth", False),
    0x22: ("sasl_step", False),
    0x23: ("gat", False),
    0x24: ("gat", True),
}
STATUSES: dict[int, str] = {
    0x00: "NO_ERROR",
    0x01: "KEY_NOT_FOUND",
    0x02: "KEY_EXISTS",
    0x03: "VALUE_TOO_LARGE",
    0x04: "INVALID_ARGUMENTS",
    0x05: "ITEM_NOT_STORED",
    0x06: "NON_NUMERIC_VALUE",
    0x07: "WRONG_VBUCKET",
    0x08: "AUTHENTICATION_ERROR",
    0x09: "AUTHENTICATION_CONTINUE",
    0x20: "AUTHENTICATION_ERROR",
    0x21: "AUTHENTICATION_CONTINUE",
    0x81: "UNKNOWN_COMMAND",
    0x82: "OUT_OF_MEMORY",
    0x83: "NOT_SUPPORTED",
    0x84: "INTERNAL_ERROR",
    0x85: "BUSY",
    0x86: "TEMPORARY_FAILURE",
}


class Command:
    """A command in either protocol.

    name: of the text command; line: shown text; keys; silent: no reply comes (noreply), quiet: none comes unless
    there is news; mark: what a reply repeats (opaque, of meta commands also the key); number: of the UDP header.
    """

    __slots__ = ("keys", "line", "mark", "name", "number", "opcode", "quiet", "silent", "whole")

    def __init__(self, name: str, line: bytes, keys: list[bytes]) -> None:
        self.name, self.line, self.keys = name, line, keys
        self.silent = self.quiet = False
        self.whole = True
        self.mark: bytes | None = None
        self.opcode = -1
        self.number = -1


class Reply:
    """A reply, or a part of one.

    word: its first word (binary: status name); values: items sent; done: complete. mark, opcode: as of the command;
    number, parts: of the UDP header.
    """

    __slots__ = ("code", "done", "mark", "message", "number", "opcode", "parts", "values", "word")

    def __init__(self, word: str) -> None:
        self.word = word
        self.message: str | None = None
        self.values = 0
        self.done = True
        self.mark: bytes | None = None
        self.opcode = -1
        self.code = 0
        self.number = -1
        self.parts = 1
