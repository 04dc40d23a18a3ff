"""The TLS handshake of a connection as one row: both sides' messages up to the encryption, in order of time."""

from __future__ import annotations

from typing import Any, Final

from kubetape.analyze.protocols.common.text import read_text
from kubetape.analyze.protocols.contract import (
    CLIENT,
    INVALID,
    SERVER,
    Connection,
    Decoder,
    Parsed,
    Request,
    Side,
)
from kubetape.analyze.protocols.tls.certificate import read_certificate
from kubetape.analyze.protocols.tls.ciphers import cipher_name
from kubetape.analyze.protocols.tls.hello import (
    ClientHello,
    ServerHello,
    read_client_hello,
    read_server_hello,
    read_ssl2_hello,
)
from kubetape.analyze.protocols.tls.parse import find_record, read_record
from kubetape.analyze.protocols.tls.types import (
    ALERT,
    ALERTS,
    APPLICATION_DATA,
    CERTIFICATE,
    CERTIFICATE_REQUEST,
    CHANGE_CIPHER_SPEC,
    CLIENT_HELLO,
    FATAL,
    FOREIGN,
    HANDSHAKE,
    HANDSHAKE_TYPES,
    HELLO_RETRY_REQUEST,
    PROTOCOL_ALERTS,
    SERVER_HELLO,
    SSL2,
    Record,
    version_name,
)
from kubetape.analyze.streams import Span

MAX_MESSAGE_BYTES: Final = 1 << 18  # chains of certificates beyond 256 KiB are refused by all stacks
MAX_FOREIGN_CHARS: Final = 128  # of an answer that is not TLS: the first words tell what it is
# Encrypted in TLS 1.3 an alert (2 bytes) has one byte of type and 16 of authentication more.
_SEALED_ALERT_BYTES: Final = 19


class TlsDecoder(Decoder):
    """Reads handshake messages until both sides encrypt; what follows is opaque."""

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        super().__init__(connection, sink)
        self._buffers = [bytearray(), bytearray()]  # handshake bytes of messages not yet whole
        self._sealed = [False, False]  # ChangeCipherSpec was sent: what follows cannot be read
        self._client: ClientHello | None = None
        self._server: ServerHello | None = None
        self._spans: list[Span | None] = [None, None]
        self._certificates: list[dict[str, object] | None] = [None, None]
        self._certificate_asked = False
        self._alert: tuple[int, int, Side] | None = None
        self._sealed_alert: Side | None = None
        self._warning: tuple[int, Side] | None = None
        self._foreign: bytes | None = None
        self._done = False
        self._retried = False

    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        parsed = read_record(side, data, offset)
        if parsed is INVALID and self._is_unanswered(side):
            return len(data) - offset, Record(FOREIGN, 0, data, offset, len(data), 0)
        return parsed

    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        found = find_record(data, offset)
        if found < 0 and self._is_unanswered(side) and data[offset : offset + 16].isascii():
            return offset
        return found

    def _is_unanswered(self, side: Side) -> bool:
        """Whether the server's first words after a ClientHello are awaited here."""
        return side == SERVER and self._client is not None and self._spans[SERVER] is None

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        self._flush(side)

    # ---- records ---------------------------------------------------------------------------------------------

    def on_frame(self, side: Side, frame: Any, span: Span) -> None:
        record: Record = frame
        if not self._done:
            self._grow(side, record, span)
        if record.kind == FOREIGN:
            self._foreign = record.data[record.start : record.end].partition(b"\n")[0]
        elif record.kind == SSL2:
            self._on_ssl2(side, record)
        elif record.kind == CHANGE_CIPHER_SPEC:
            # In TLS 1.3 it means nothing (RFC 8446, appendix D.4): what follows shows itself.
            self._sealed[side] = self._sealed[side] or not self._is_13()
        elif record.kind == ALERT:
            self._on_alert(side, record)
        elif record.kind == HANDSHAKE:
            self._on_handshake(side, record)
        elif record.kind == APPLICATION_DATA:
            self._on_sealed(side, record)

    def _is_13(self) -> bool:
        return self._server is not None and (self._server.version >= 0x0304)

    def _grow(self, side: Side, record: Record, span: Span) -> None:
        """The request is what the client says before the server's hello; the answer all the server says."""
        if record.kind in (APPLICATION_DATA, ALERT) and side == CLIENT:
            return
        own = self._spans[side]
        if own is None:
            if record.kind != APPLICATION_DATA:
                self._spans[side] = span.copy()
        elif side == SERVER or self._server is None or self._server.retry:
            own.extend(span)

    def _on_ssl2(self, side: Side, record: Record) -> None:
        if side == CLIENT:
            self._client = self._client or read_ssl2_hello(record.data[record.start : record.end])
        else:
            self._server = ServerHello(version=2)
            self._finish_handshake()

    def _on_alert(self, side: Side, record: Record) -> None:
        if record.length != 2 or self._sealed[side]:
            if not self._done:
                self._sealed_alert = side
            return
        if record.end - record.start < 2:
            return
        level, description = record.data[record.start], record.data[record.start + 1]
        if level == FATAL:
            self._alert = self._alert or (level, description, side)
        elif description:
            self._warning = self._warning or (description, side)

    def _on_sealed(self, side: Side, record: Record) -> None:
        """Application data: in TLS 1.3 the server's handshake too, and the client's Finished."""
        if self._server is None:
            if self._client is None:
                self._finish_handshake()  # mid-stream: the handshake is over
            return  # early data (RFC 8446, section 4.2.10)
        if side == CLIENT:
            if self._is_13() and record.length <= _SEALED_ALERT_BYTES:
                self._sealed_alert = CLIENT
            else:
                self._finish_handshake()
        elif not self._is_13():
            self._finish_handshake()

    def _on_handshake(self, side: Side, record: Record) -> None:
        if self._sealed[side]:
            # Finished, encrypted. With the other side's the handshake is complete.
            if self._sealed[CLIENT] and self._sealed[SERVER]:
                self._finish_handshake()
            return
        buffer = self._buffers[side]
        buffer += record.data[record.start : record.end]
        place = 0
        while len(buffer) - place >= 4:
            length = int.from_bytes(buffer[place + 1 : place + 4], "big")
            if buffer[place] not in HANDSHAKE_TYPES or length > MAX_MESSAGE_BYTES:
                place = len(buffer)
                break
            if place + 4 + length > len(buffer):
                break
            self._on_message(side, buffer[place], bytes(buffer[place + 4 : place + 4 + length]))
            place += 4 + length
        del buffer[:place]
        if record.missing:
            self._flush(side)

    def _flush(self, side: Side) -> None:
        """A message whose rest was not captured still has a beginning."""
        buffer = self._buffers[side]
        if len(buffer) > 4 and buffer[0] in HANDSHAKE_TYPES:
            self._on_message(side, buffer[0], bytes(buffer[4:]))
        buffer.clear()

    def _on_message(self, side: Side, kind: int, body: bytes) -> None:
        if kind == CLIENT_HELLO and side == CLIENT:
            if self._client is None or self._retried:
                first = self._client
                self._client = read_client_hello(body)
                if first is not None and self._client.server_name is None:
                    self._client.server_name = first.server_name
        elif kind == SERVER_HELLO and side == SERVER:
            hello = read_server_hello(body)
            self._retried = self._retried or hello.retry
            self._server = hello
        elif kind == HELLO_RETRY_REQUEST and side == SERVER:
            self._retried = True
        elif kind == CERTIFICATE and self._certificates[side] is None:
            # certificate_list: a length of three bytes each for the list and its first certificate, the subject's own.
            length = int.from_bytes(body[3:6], "big")
            certificate = read_certificate(body[6 : 6 + length])
            if certificate is not None:
                self._certificates[side] = certificate.as_dict()
        elif kind == CERTIFICATE_REQUEST and side == SERVER:
            self._certificate_asked = True

    def _finish_handshake(self) -> None:
        self._done = True
        self.switch("opaque")

    # ---- the row -----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        self._flush(CLIENT)
        self._flush(SERVER)
        if self._client is None and self._server is None and self._alert is None:
            return  # mid-stream: nothing but encrypted bytes
        request, response = self._spans
        if response is None and (request is None or self._client is None):
            return
        client, server = self._client, self._server
        if client is None:
            request = None  # later messages of the client are not what the answer answers
        attributes: dict[str, Any] = {}
        row = Request(
            operation="handshake",
            resource=client.server_name if client is not None else None,
            attributes=attributes,
        )
        if client is not None:
            self._tell_client(client, attributes)
        if server is not None:
            self._tell_server(server, attributes)
            row.statement = " ".join(x for x in (server.alpn, version_name(server.version)) if x)
        for side, key in ((SERVER, "certificate"), (CLIENT, "client_certificate")):
            if (certificate := self._certificates[side]) is not None:
                attributes[key] = certificate
        if self._certificate_asked:
            attributes["client_certificate_asked"] = True
        self._tell_end(row)
        self.emit(row, request, response)

    @staticmethod
    def _tell_client(client: ClientHello, attributes: dict[str, Any]) -> None:
        offered = client.versions[0] if client.versions else client.version
        attributes["version_offered"] = version_name(offered)
        if client.alpn:
            attributes["alpn_offered"] = client.alpn
        if client.ja3 is not None:
            attributes["ja3"] = client.ja3
        if client.early_data:
            attributes["early_data"] = True
        if client.encrypted_hello:
            attributes["encrypted_client_hello"] = True

    def _tell_server(self, server: ServerHello, attributes: dict[str, Any]) -> None:
        attributes["version"] = version_name(server.version)
        if server.cipher:
            attributes["cipher"] = cipher_name(server.cipher)
        if server.alpn is not None:
            attributes["alpn"] = server.alpn
        if self._retried:
            attributes["retried"] = True
        if self._is_13():
            resumed = server.pre_shared_key
        else:
            # RFC 5246, section 7.3: the same session id again, and no certificate.
            same = self._client is not None and bool(server.session_id) and server.session_id == self._client.session_id
            resumed = same and self._certificates[SERVER] is None
        attributes["resumed"] = resumed

    def _tell_end(self, row: Request) -> None:
        if self._alert is not None or (self._warning is not None and not self._done):
            description, side = (self._alert[1], self._alert[2]) if self._alert else self._warning or (0, CLIENT)
            row.status = ALERTS.get(description, str(description))
            row.is_error = True
            by = "client" if side == CLIENT else "server"
            row.error_message = f"alert {row.status} from the {by}"
            if description in PROTOCOL_ALERTS:
                row.error_kind = "protocol"
            elif description in (80, 90):
                row.error_kind = by
            else:
                # Who raises an alert refuses what the other has shown.
                row.error_kind = "server" if side == CLIENT else "client"
        elif self._sealed_alert is not None and not self._done:
            row.is_error = True
            row.error_kind = "server" if self._sealed_alert == CLIENT else "client"
            by = "client" if self._sealed_alert == CLIENT else "server"
            row.error_message = f"encrypted alert from the {by} before the handshake was complete"
        elif self._foreign is not None:
            row.is_error, row.error_kind = True, "protocol"
            row.error_message = f"the server does not speak TLS: {read_text(self._foreign, MAX_FOREIGN_CHARS).strip()}"
        elif self._done and self._server is not None:
            row.status = "OK"
