"""Whether bytes are MySQL's: a greeting and its answer, or commands and replies in the middle of a connection."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Sample
from kubetape.analyze.protocols.mysql.compressed import compressed_at
from kubetape.analyze.protocols.mysql.parse import U32, command_at, read_greeting, read_login
from kubetape.analyze.protocols.mysql.reply import reply_at
from kubetape.analyze.protocols.mysql.types import PLUGIN_AUTH, PROTOCOL_41

PORTS = frozenset({3306, 3307, 4000, 6033})  # MySQL, a second one, TiDB, ProxySQL
_WITH_TEXT = (0x03, 0x16)


def greeting_at(data: bytes, pos: int = 0) -> bool:
    if len(data) < pos + 20 or data[pos + 3] != 0:
        return False
    length = U32(data, pos)[0] & 0xFFFFFF
    return 15 <= length <= 512 and read_greeting(data, pos + 4, min(len(data), pos + 4 + length)) is not None


def login_at(data: bytes, pos: int = 0) -> bool:
    """Also behind TLS, where the packet's number is 2."""
    if len(data) < pos + 12 or data[pos + 3] not in (1, 2):
        return False
    length = U32(data, pos)[0] & 0xFFFFFF
    if not 12 <= length <= 65536:
        return False
    login = read_login(data, pos + 4, min(len(data), pos + 4 + length))
    return login is not None and bool(login.capabilities & PROTOCOL_41 or (length < 128 and data[pos + 3] == 1))


def refusal_at(data: bytes) -> bool:
    """An error instead of a greeting: too many connections, host not allowed."""
    if len(data) < 9 or data[3] != 0 or data[4] != 0xFF:
        return False
    length = U32(data, 0)[0] & 0xFFFFFF
    code = data[5] | data[6] << 8
    text = data[7 : 4 + length]
    return (
        length <= 512
        and len(data) >= 4 + length
        and 1000 <= code < 5000
        and len(text) > 10
        and text.isascii()
        and text.decode().isprintable()
    )


def detect(sample: Sample) -> float:
    if sample.datagrams:
        return 0.0
    if greeting_at(sample.server):
        if not sample.client:
            return 0.9
        if login_at(sample.client):
            return 0.97
        # Lost bytes may hold the login.
        return 0.9 if command_at(sample.client, 0) and _exact(sample.client) else 0.3
    if login_at(sample.client):
        if sample.client[3] == 2 or not sample.server:
            strong = bool(U32(sample.client, 4)[0] & PLUGIN_AUTH)
            return 0.9 if sample.server[3:4] == b"\x02" or sample.server[3:4] == b"\x03" else 0.7 if strong else 0.5
        if sample.server[3:5] in (b"\x02\x00", b"\x02\xff", b"\x02\xfe", b"\x02\x01"):
            return 0.9
    if refusal_at(sample.server) and not sample.client:
        return 0.8
    return _amid(sample)


def _amid(sample: Sample) -> float:
    """Places in the middle: commands on one side, replies on the other."""
    asked = [data for data in (sample.client, *sample.client_runs) if len(data) >= 5]
    answered = [data for data in (sample.server, *sample.server_runs) if len(data) >= 5]
    if not asked and not answered:
        return 0.0
    commands = [data for data in asked if command_at(data, 0) and _exact(data)]
    replies = [data for data in answered if reply_at(data, 0)]
    texts = sum(data[4] in _WITH_TEXT and len(data) > 8 for data in commands)
    if commands and replies:
        share = (len(commands) / len(asked) + min(1.0, 2 * len(replies) / len(answered))) / 2
        return 0.6 + 0.35 * share if texts or len(commands) + len(replies) > 2 or share > 0.9 else 0.5
    if commands and len(commands) == len(asked) and not replies and not texts and len(answered) <= len(asked):
        # A lone COM_QUIT or COM_PING is five bytes that others send too: here the port must help.
        return 0.5 if sample.server_port in PORTS and any(len(data) == 5 for data in commands) else 0.0
    if commands and not answered and texts:
        return 0.6 if len(commands) == len(asked) else 0.5
    if replies and not asked and any(_long_reply(data) for data in replies):
        return 0.6
    packed = sum(compressed_at(data, 0, False) for data in asked)
    unpacked = sum(compressed_at(data, 0, True) for data in answered)
    if packed and unpacked:
        return 0.9
    return 0.55 if packed + unpacked > 1 else 0.0


def _exact(data: bytes) -> bool:
    """Whether the packet ends with the captured piece, or another command follows, or the sample cut it."""
    end = 4 + (U32(data, 0)[0] & 0xFFFFFF)
    return end == len(data) or end > len(data) >= 1024 or (end < len(data) and command_at(data, end))


def _long_reply(data: bytes) -> bool:
    """A reply that random bytes hardly are: an error with its state, or a result with column definitions."""
    return (data[4] == 0xFF and data[7:8] == b"#") or b"\x03def" in data[8:24]
