"""ClientHello and ServerHello (RFC 8446, section 4.1; RFC 5246, section 7.4.1; SSL 2.0)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from kubetape.analyze.protocols.common.reader import Reader
from kubetape.analyze.protocols.common.text import read_name

MAX_EXTENSIONS: Final = 64
MAX_PROTOCOLS: Final = 16

_SERVER_NAME: Final = 0
_GROUPS: Final = 10
_POINT_FORMATS: Final = 11
_ALPN: Final = 16
_PRE_SHARED_KEY: Final = 41
_EARLY_DATA: Final = 42
_SUPPORTED_VERSIONS: Final = 43
_ECH: Final = 0xFE0D
_NPN: Final = 13172
# RFC 8446, section 4.1.3: a ServerHello with this random is a HelloRetryRequest.
_RETRY_RANDOM: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


@dataclass(slots=True)
class ClientHello:
    """What the client offers. versions: highest first, GREASE left out; ja3: the MD5 of Salesforce's fingerprint."""

    version: int = 0
    session_id: bytes = b""
    server_name: str | None = None
    alpn: list[str] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    early_data: bool = False
    encrypted_hello: bool = False
    ja3: str | None = None


@dataclass(slots=True)
class ServerHello:
    """What the server chose. retry: it asks for another ClientHello."""

    version: int = 0
    session_id: bytes = b""
    cipher: int = 0
    alpn: str | None = None
    pre_shared_key: bool = False
    retry: bool = False


def _is_grease(number: int) -> bool:
    """RFC 8701: 0x0a0a, 0x1a1a, ... are sent to be ignored."""
    return number & 0x0F0F == 0x0A0A and number >> 8 == number & 255


def _numbers(raw: bytes) -> list[int]:
    return [n for n in (int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw) - 1, 2)) if not _is_grease(n)]


def _extensions(reader: Reader) -> list[tuple[int, bytes]]:
    if reader.left() < 2:
        return []
    reader.number(2)
    found: list[tuple[int, bytes]] = []
    while reader.left() >= 4 and len(found) < MAX_EXTENSIONS:
        kind = reader.number(2)
        found.append((kind, reader.vector(2)))
    return found


def _protocols(raw: bytes) -> list[str]:
    reader = Reader(raw)
    reader.number(2)
    names: list[str] = []
    while reader.left() and len(names) < MAX_PROTOCOLS:
        name = reader.vector(1)
        if not (len(name) == 2 and _is_grease(int.from_bytes(name, "big"))):
            names.append(read_name(name))
    return names


def read_client_hello(body: bytes) -> ClientHello:
    """The ClientHello in the body of a handshake message, as far as it was captured."""
    reader = Reader(body)
    hello = ClientHello(version=reader.number(2))
    reader.take(32)
    hello.session_id = reader.vector(1)
    ciphers = _numbers(reader.vector(2))
    reader.vector(1)
    extensions = _extensions(reader)
    groups: list[int] = []
    formats = b""
    for kind, raw in extensions:
        if kind == _SERVER_NAME:
            inner = Reader(raw)
            inner.number(2)
            if inner.number(1) == 0 and (name := inner.vector(2)):
                hello.server_name = read_name(name)
        elif kind == _ALPN:
            hello.alpn = _protocols(raw)
        elif kind == _SUPPORTED_VERSIONS:
            hello.versions = sorted(_numbers(raw[1:]), reverse=True)
        elif kind == _GROUPS:
            groups = _numbers(raw[2:])
        elif kind == _POINT_FORMATS:
            formats = raw[1:]
        elif kind == _EARLY_DATA:
            hello.early_data = True
        elif kind == _ECH:
            hello.encrypted_hello = True
    if not reader.short:
        kinds = [kind for kind, _ in extensions if not _is_grease(kind)]
        hello.ja3 = _ja3(hello.version, ciphers, kinds, groups, formats)
    return hello


def _ja3(version: int, ciphers: list[int], kinds: list[int], groups: list[int], formats: bytes) -> str:
    lists = (ciphers, kinds, groups, formats)
    text = ",".join([str(version), *("-".join(map(str, numbers)) for numbers in lists)])
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def read_server_hello(body: bytes) -> ServerHello:
    """The ServerHello in the body of a handshake message."""
    reader = Reader(body)
    hello = ServerHello(version=reader.number(2))
    random = reader.take(32)
    # Drafts of TLS 1.3 before 22 had neither session id nor compression here.
    early_draft = hello.version >> 8 == 0x7F and hello.version & 255 < 22
    if not early_draft:
        hello.session_id = reader.vector(1)
    hello.cipher = reader.number(2)
    if not early_draft:
        reader.number(1)
    hello.retry = random == _RETRY_RANDOM
    for kind, raw in _extensions(reader):
        if kind == _ALPN:
            names = _protocols(raw)
            hello.alpn = names[0] if names else None
        elif kind == _SUPPORTED_VERSIONS and len(raw) == 2:
            hello.version = int.from_bytes(raw, "big")
        elif kind == _PRE_SHARED_KEY:
            hello.pre_shared_key = True
    return hello


def read_ssl2_hello(body: bytes) -> ClientHello:
    """A CLIENT-HELLO of SSL 2.0, perhaps asking for a newer version (RFC 5246, appendix E.2)."""
    reader = Reader(body)
    reader.number(1)
    return ClientHello(version=reader.number(2))
