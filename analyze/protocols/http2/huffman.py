"""The Huffman code of HPACK (RFC 7541, appendix B), decoded four bits at a time.

The code is canonical: codes of one length follow each other in the order of their symbols, so that the lengths
alone give it. The table of transitions is built at the first use.
"""

from __future__ import annotations

from functools import cache
from typing import Final

# The length in bits of the code of each byte, and of EOS (256).
_LENGTHS: Final = tuple(
    int(length)
    for length in """
    13 23 28 28 28 28 28 28 28 24 30 28 28 30 28 28 28 28 28 28 28 28 30 28 28 28 28 28 28 28 28 28
    6 10 10 12 13 6 8 11 10 10 8 11 8 6 6 6 5 5 5 6 6 6 6 6 6 6 7 8 15 6 12 10
    13 6 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 8 7 8 13 19 13 14 6
    15 5 6 5 6 5 6 6 6 5 7 7 6 6 6 5 6 7 6 5 5 6 7 7 7 7 7 15 11 14 13 28
    20 22 20 20 22 22 22 23 22 23 23 23 23 23 24 23 24 24 22 23 24 23 23 23 23 21 22 23 22 23 23 24
    22 21 20 22 22 23 23 21 23 22 22 24 21 22 23 23 21 21 22 21 23 22 23 23 20 22 22 22 23 22 22 23
    26 26 20 19 22 23 22 25 26 26 26 27 27 26 24 25 19 21 26 27 27 26 27 24 21 21 26 26 28 27 27 27
    20 24 20 21 22 21 21 23 22 22 25 25 24 24 26 23 26 27 26 26 27 27 27 27 27 28 27 27 27 27 27 26
    30
""".split()  # noqa: SIM905 - a table of numbers reads better than a list of strings
)
_EOS: Final = 256
MAX_REMEMBERED = 8192

_remembered: dict[bytes, bytes | None] = {}


def decode(raw: bytes) -> bytes | None:
    """The string of a Huffman-coded one; None: no such code (EOS inside, or more than 7 bits of padding)."""
    try:
        return _remembered[raw]
    except KeyError:
        result = _decode(raw)
        if len(_remembered) >= MAX_REMEMBERED:
            _remembered.clear()
        _remembered[raw] = result
        return result


def _decode(raw: bytes) -> bytes | None:
    transitions, accepting = _machine()
    out = bytearray()
    state = 0
    for byte in raw:
        step = transitions[state << 4 | byte >> 4]
        if step is None:
            return None
        state = step[0]
        if step[1] >= 0:
            out.append(step[1])
        step = transitions[state << 4 | byte & 15]
        if step is None:
            return None
        state = step[0]
        if step[1] >= 0:
            out.append(step[1])
    return bytes(out) if accepting[state] else None


@cache
def _machine() -> tuple[list[tuple[int, int] | None], list[bool]]:
    """(next state, symbol or -1) for state * 16 + four bits; whether a string may end in a state.

    States are the inner nodes of the code's tree; no code is shorter than five bits, so four bits end at most one.
    """
    children: list[list[int]] = [[0, 0]]  # > 0: an inner node, < 0: -1 - symbol
    code = previous = 0
    for symbol in sorted(range(257), key=lambda s: (_LENGTHS[s], s)):
        length = _LENGTHS[symbol]
        code <<= length - previous
        previous = length
        node = 0
        for bit in range(length - 1, 0, -1):
            branch = code >> bit & 1
            if not children[node][branch]:
                children.append([0, 0])
                children[node][branch] = len(children) - 1
            node = children[node][branch]
        children[node][code & 1] = -1 - symbol
        code += 1
    # Padding is the beginning of EOS, all ones, shorter than a byte (RFC 7541, section 5.2).
    accepting = [False] * len(children)
    node = 0
    for _ in range(8):
        accepting[node] = True
        node = children[node][1]
    transitions: list[tuple[int, int] | None] = []
    for start in range(len(children)):
        for bits in range(16):
            node, symbol, valid = start, -1, True
            for bit in (3, 2, 1, 0):
                node = children[node][bits >> bit & 1]
                if node < 0:
                    symbol, node = -1 - node, 0
                    valid = valid and symbol != _EOS
            transitions.append((node, symbol) if valid else None)
    return transitions, accepting
