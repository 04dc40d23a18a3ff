"""TLS records (RFC 8446, section 5.1; SSL 2.0 where a client still says hello in it) and names of their values."""

from __future__ import annotations

from typing import Final

CHANGE_CIPHER_SPEC: Final = 20
ALERT: Final = 21
HANDSHAKE: Final = 22
APPLICATION_DATA: Final = 23
HEARTBEAT: Final = 24
SSL2: Final = 2  # not a TLS content type: a record of SSL 2.0
FOREIGN: Final = -1  # no record: what a server says that does not speak TLS

HELLO_REQUEST: Final = 0
CLIENT_HELLO: Final = 1
SERVER_HELLO: Final = 2
NEW_SESSION_TICKET: Final = 4
HELLO_RETRY_REQUEST: Final = 6  # drafts of TLS 1.3 only
CERTIFICATE: Final = 11
SERVER_HELLO_DONE: Final = 14
CERTIFICATE_REQUEST: Final = 13
FINISHED: Final = 20
HANDSHAKE_TYPES: Final = frozenset({0, 1, 2, 3, 4, 5, 6, 8, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24, 25, 67})

# RFC 8446, section 6, and the older ones of RFC 5246 and SSL 3.0.
ALERTS: Final = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    21: "decryption_failed",
    22: "record_overflow",
    30: "decompression_failure",
    40: "handshake_failure",
    41: "no_certificate",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    60: "export_restriction",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
    111: "certificate_unobtainable",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    114: "bad_certificate_hash_value",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
    121: "ech_required",
}
FATAL: Final = 2
# Faults in the protocol itself, of whichever side.
PROTOCOL_ALERTS: Final = frozenset({10, 20, 21, 22, 30, 47, 50, 51, 109, 110})


def version_name(number: int) -> str:
    """`TLS 1.2` for 0x0303; drafts of TLS 1.3 are told with their number."""
    if number == 2:
        return "SSL 2.0"
    if number == 0x0300:
        return "SSL 3.0"
    if 0x0301 <= number <= 0x0304:
        return f"TLS 1.{number - 0x0301}"
    if number >> 8 in (0x7F, 0x7E, 0xFB):
        return f"TLS 1.3 (draft {number & 255})" if number >> 8 == 0x7F else f"TLS 1.3 (0x{number:04x})"
    return f"0x{number:04x}"


class Record:
    """One record. data[start:end] is its payload as far as captured; missing: bytes of it that were not."""

    __slots__ = ("data", "end", "kind", "missing", "start", "version")

    def __init__(self, kind: int, version: int, data: bytes, start: int, end: int, missing: int) -> None:
        self.kind, self.version, self.data = kind, version, data
        self.start, self.end, self.missing = start, end, missing

    @property
    def length(self) -> int:
        """Of the payload, as declared."""
        return self.end - self.start + self.missing
