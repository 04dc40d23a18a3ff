"""TLS: handshakes of Python's own TLS stack (OpenSSL), kept record by record."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from kubetape.analyze.protocols.tls.certificate import read_certificate
from tests.unit.analyze.protocols.wire import Piece, brief, decode

PEM = Path(__file__).parents[3] / "data" / "tls" / "server.pem"
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def contexts(version: ssl.TLSVersion, alpn: list[str]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    server.load_cert_chain(PEM)
    for context in (client, server):
        context.minimum_version = context.maximum_version = version
        if alpn:
            context.set_alpn_protocols(alpn)
    return client, server


class Ends:
    """A client and a server joined by memory; pieces: what each sent."""

    def __init__(self, client: ssl.SSLContext, server: ssl.SSLContext, session: Any = None) -> None:
        self.inputs = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.outputs = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ends = (
            client.wrap_bio(self.inputs[0], self.outputs[0], server_hostname="api.shop.test", session=session),
            server.wrap_bio(self.inputs[1], self.outputs[1], server_side=True),
        )
        self.pieces: list[Piece] = []
        self.failed = False
        for _ in range(6):
            for place in (0, 1):
                self._step(place)

    def _step(self, place: int) -> None:
        try:
            self.ends[place].do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.failed = True
        self.move(place)

    def move(self, place: int) -> None:
        if self.outputs[place].pending:
            data = self.outputs[place].read()
            self.pieces.append(("cs"[place], data))
            self.inputs[1 - place].write(data)

    def say(self, place: int, words: bytes) -> None:
        self.ends[place].write(words)
        self.move(place)
        assert self.ends[1 - place].read() == words


def handshake(version: ssl.TLSVersion, alpn: list[str] | None = None) -> Ends:
    ends = Ends(*contexts(version, alpn or []))
    assert not ends.failed
    ends.say(0, b"question")
    ends.say(1, b"answer")
    return ends


@pytest.mark.parametrize(("version", "name"), [(V12, "h2 TLS 1.2"), (V13, "TLS 1.3")])
def test_one_row_per_handshake(version: ssl.TLSVersion, name: str) -> None:
    """TLS 1.3 encrypts which application protocol was chosen."""
    decoded = decode(handshake(version, ["h2", "http/1.1"]).pieces)
    assert decoded.protocol == "tls"
    assert brief(decoded.rows, "operation", "resource", "statement", "status", "outcome") == [
        ("handshake", "api.shop.test", name, "OK", "complete")
    ]
    assert decoded.unread_bytes == 0
    assert decoded.opaque_bytes > 0
    attributes = decoded.rows[0].attributes or {}
    assert attributes["alpn_offered"] == ["h2", "http/1.1"]
    assert attributes["cipher"].startswith("TLS_")
    assert attributes["resumed"] is False


def test_certificate_of_the_server() -> None:
    attributes = decode(handshake(V12).pieces).rows[0].attributes or {}
    certificate = attributes["certificate"]
    assert certificate["subject"] == certificate["issuer"] == "O=Kubetape tests, CN=shop.test"
    assert certificate["names"] == ["shop.test", "*.shop.test", "10.0.0.2"]
    assert certificate["not_before"].startswith("20")
    assert certificate["not_before"] < certificate["not_after"]


def test_certificate_cut_anywhere() -> None:
    der = ssl.PEM_cert_to_DER_cert(PEM.read_text()[PEM.read_text().index("-----BEGIN CERT") :])
    whole = read_certificate(der)
    assert whole is not None
    for size in range(len(der)):
        part = read_certificate(der[:size])
        if part is not None and part.issuer and len(part.issuer) == len(whole.issuer):
            assert part.issuer == whole.issuer


@pytest.mark.parametrize("version", [V12, V13])
def test_resumed_session(version: ssl.TLSVersion) -> None:
    client, server = contexts(version, [])
    first = Ends(client, server)
    first.say(0, b"a")
    first.say(1, b"b")
    second = Ends(client, server, first.ends[0].session)
    second.say(0, b"again")
    assert second.ends[0].session_reused
    assert (decode(second.pieces).rows[0].attributes or {})["resumed"] is True


def test_alert_tells_who_refused() -> None:
    client, _ = contexts(V12, [])
    _, server = contexts(V13, [])
    ends = Ends(client, server)
    assert ends.failed
    row = decode(ends.pieces).rows[0]
    assert (row.status, row.is_error, row.error_kind) == ("protocol_version", True, "client")
    assert row.error_message == "alert protocol_version from the server"


@pytest.mark.parametrize("version", [V12, V13])
def test_client_that_does_not_trust(version: ssl.TLSVersion) -> None:
    client, server = contexts(version, [])
    client.verify_mode = ssl.CERT_REQUIRED
    row = decode(Ends(client, server).pieces).rows[0]
    assert (row.status, row.is_error, row.error_kind) == ("unknown_ca", True, "server")


def test_encrypted_alert_shows_by_its_size() -> None:
    hellos = handshake(V13).pieces[:2]
    alert = b"\x17\x03\x03\x00\x13" + bytes(range(19))
    row = decode([*hellos, ("c", alert)]).rows[0]
    assert (row.status, row.is_error, row.error_kind) == (None, True, "server")
    assert row.error_message == "encrypted alert from the client before the handshake was complete"


def test_plain_text_answer() -> None:
    hello = handshake(V13).pieces[0]
    row = decode([hello, ("s", b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 999)]).rows[0]
    assert (row.protocol, row.error_kind) == ("tls", "protocol")
    assert row.error_message == "the server does not speak TLS: HTTP/1.1 400 Bad Request"


def test_unanswered_hello() -> None:
    assert brief(decode([handshake(V13).pieces[0]]).rows, "resource", "outcome") == [("api.shop.test", "no_response")]


def test_start_in_the_middle_is_encrypted_only() -> None:
    ends = handshake(V13)
    later: list[Piece] = [("c", ends.pieces[-2][1]), ("s", ends.pieces[-1][1])] * 3
    decoded = decode(later, from_start=False)
    assert (decoded.protocol, decoded.rows, decoded.unread_bytes) == ("tls", [], 0)
    assert decoded.opaque_bytes > 0


def test_payload_limit_keeps_names() -> None:
    cut: list[Piece] = [(side, data, min(len(data), 500)) for side, data, *_ in handshake(V12).pieces]
    row = decode(cut).rows[0]
    assert (row.resource, row.status) == ("api.shop.test", "OK")
    assert (row.attributes or {})["certificate"]["subject"] == "O=Kubetape tests, CN=shop.test"


def test_lost_hello() -> None:
    pieces = handshake(V12).pieces
    rows = decode([(*pieces[0][:2], 0), *pieces[1:]], from_start=False).rows
    assert brief(rows, "resource", "statement", "outcome") == [(None, "TLS 1.2", "no_request")]


def test_hello_of_ssl_2() -> None:
    hello = b"\x01\x03\x01\x00\x06\x00\x00\x00\x10" + b"\x00\x00\x2f\x01\x00\x80" + bytes(range(16))
    alert = b"\x15\x03\x01\x00\x02\x02\x28"
    row = decode([("c", b"\x80" + bytes([len(hello)]) + hello), ("s", alert)]).rows[0]
    assert (row.protocol, row.status) == ("tls", "handshake_failure")
    assert (row.attributes or {})["version_offered"] == "TLS 1.0"


def test_redis_on_port_443() -> None:
    assert decode([("c", b"*1\r\n$4\r\nPING\r\n"), ("s", b"+PONG\r\n")], server_port=443).protocol != "tls"
