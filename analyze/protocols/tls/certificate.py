"""The few fields of an X.509 certificate that help in a ticket (RFC 5280), read from DER that may be cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from kubetape.analyze.protocols.common.text import read_name

MAX_NAMES: Final = 50  # of the subject's alternative names; CDN certificates have hundreds
MAX_ATTRIBUTES: Final = 32  # of a distinguished name

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_OID: Final = 0x06
_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_OCTETS: Final = 0x04
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_BMP_STRING: Final = 0x1E
_SUBJECT_ALTERNATIVE_NAME: Final = bytes.fromhex("551d11")
_ATTRIBUTES: Final = {
    bytes.fromhex("550403"): "CN",
    bytes.fromhex("550406"): "C",
    bytes.fromhex("550407"): "L",
    bytes.fromhex("550408"): "ST",
    bytes.fromhex("55040a"): "O",
    bytes.fromhex("55040b"): "OU",
    bytes.fromhex("0992268993f22c640119"): "DC",
    bytes.fromhex("2a864886f70d010901"): "emailAddress",
}


@dataclass(slots=True)
class Certificate:
    """subject, issuer: `CN=..., O=...` in the certificate's order; times as `2026-01-31T12:00:00Z`; names: SAN."""

    subject: str = ""
    issuer: str = ""
    not_before: str = ""
    not_after: str = ""
    names: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """For the attributes of a row; fields that were not captured are left out."""
        pairs = {
            "subject": self.subject,
            "issuer": self.issuer,
            "not_before": self.not_before,
            "not_after": self.not_after,
            "names": self.names,
        }
        return {key: value for key, value in pairs.items() if value}


_Element = tuple[int, int, int]  # tag, first byte of the content, end of the content


def _element(der: bytes, place: int, end: int) -> _Element | None:
    """The element at `place`; its end is cut to `end`. None: no element of definite length begins there."""
    if place + 2 > end:
        return None
    tag, length, place = der[place], der[place + 1], place + 2
    if length == 0x80 or length > 0x84:
        return None
    if length > 0x80:
        size = length - 0x80
        if place + size > end:
            return None
        length = int.from_bytes(der[place : place + size], "big")
        place += size
    return tag, place, min(place + length, end)


def _children(der: bytes, start: int, end: int, limit: int) -> list[_Element]:
    found: list[_Element] = []
    while start < end and len(found) < limit:
        element = _element(der, start, end)
        if element is None:
            break
        found.append(element)
        start = element[2]
    return found


def read_certificate(der: bytes) -> Certificate | None:
    """The certificate in `der`, as far as it goes; None: it does not begin like one."""
    outer = _element(der, 0, len(der))
    if outer is None or outer[0] != _SEQUENCE:
        return None
    body = _element(der, outer[1], outer[2])
    if body is None or body[0] != _SEQUENCE:
        return None
    parts = _children(der, body[1], body[2], 16)
    if parts and parts[0][0] == _VERSION:
        parts = parts[1:]
    # serial number, signature, issuer, validity, subject, public key, extensions
    certificate = Certificate()
    if len(parts) > 2:
        certificate.issuer = _name(der, parts[2])
    if len(parts) > 3:
        times = [_time(der, part) for part in _children(der, parts[3][1], parts[3][2], 2)]
        certificate.not_before, certificate.not_after = (*times, "", "")[:2]
    if len(parts) > 4:
        certificate.subject = _name(der, parts[4])
    for part in parts[6:]:
        if part[0] == _EXTENSIONS:
            certificate.names = _alternative_names(der, part)
    return certificate


def _name(der: bytes, element: _Element) -> str:
    texts = []
    for group in _children(der, element[1], element[2], MAX_ATTRIBUTES):
        for attribute in _children(der, group[1], group[2], MAX_ATTRIBUTES) if group[0] == _SET else ():
            pair = _children(der, attribute[1], attribute[2], 2)
            if len(pair) == 2 and pair[0][0] == _OID:
                label = _ATTRIBUTES.get(der[pair[0][1] : pair[0][2]])
                raw = der[pair[1][1] : pair[1][2]]
                if pair[1][0] == _BMP_STRING:
                    raw = raw.decode("utf-16-be", "replace").encode()
                if label is not None:
                    texts.append(f"{label}={read_name(raw)}")
    return ", ".join(texts)


def _time(der: bytes, element: _Element) -> str:
    text = der[element[1] : element[2]].decode("latin-1")
    if element[0] == _UTC_TIME:
        # RFC 5280, section 4.1.2.5.1: 50 and above is the last century.
        text = ("19" if text[:2] >= "50" else "20") + text
    elif element[0] != _GENERALIZED_TIME:
        return ""
    if len(text) < 13 or not text[:12].isdigit():
        return ""
    seconds = text[12:14] if text[12:14].isdigit() else "00"
    zone = "Z" if text.endswith("Z") else ""
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}T{text[8:10]}:{text[10:12]}:{seconds}{zone}"


def _alternative_names(der: bytes, element: _Element) -> list[str]:
    names: list[str] = []
    for sequence in _children(der, element[1], element[2], 1):
        for extension in _children(der, sequence[1], sequence[2], 64):
            parts = _children(der, extension[1], extension[2], 3)
            if not parts or der[parts[0][1] : parts[0][2]] != _SUBJECT_ALTERNATIVE_NAME:
                continue
            if parts[-1][0] == _OCTETS:
                for inner in _children(der, parts[-1][1], parts[-1][2], 1):
                    names += _general_names(der, inner)
    return names


def _general_names(der: bytes, element: _Element) -> list[str]:
    names: list[str] = []
    for tag, start, end in _children(der, element[1], element[2], MAX_NAMES):
        raw = der[start:end]
        if tag in (0x81, 0x82, 0x86):  # e-mail, DNS name, URI
            names.append(read_name(raw))
        elif tag == 0x87 and len(raw) in (4, 16):
            names.append(str(ip_address(raw)))
    return names
