"""Frames of LDAP: a message is kept as offsets into the bytes it came in; what a row needs is read once."""

from __future__ import annotations

from typing import Any, NamedTuple


class Message(NamedTuple):
    """One LDAPMessage (RFC 4511, section 4.1.1).

    op: the tag of the operation (bindRequest 0x60, ...); detail: what it says, see parse.py; 0 and {} where the bytes
    end before it. controls: their OIDs.
    """

    message_id: int
    op: int
    detail: dict[str, Any]
    controls: list[str]


class Sealed(NamedTuple):
    """A message wrapped by a SASL security layer that encrypts (RFC 4513, section 5.2.1.5)."""

    size: int


# RFC 4511, appendix B: the tag of the operation -> its name there.
REQUESTS: dict[int, str] = {
    0x60: "bindRequest",
    0x42: "unbindRequest",
    0x63: "searchRequest",
    0x66: "modifyRequest",
    0x68: "addRequest",
    0x4A: "delRequest",
    0x6C: "modDNRequest",
    0x6E: "compareRequest",
    0x50: "abandonRequest",
    0x77: "extendedReq",
}
# The tag of a reply -> the tag of the request it answers; intermediateResponse may answer any.
REPLIES: dict[int, int] = {
    0x61: 0x60,
    0x64: 0x63,
    0x65: 0x63,
    0x73: 0x63,
    0x67: 0x66,
    0x69: 0x68,
    0x6B: 0x4A,
    0x6D: 0x6C,
    0x6F: 0x6E,
    0x78: 0x77,
    0x79: 0,
}
BIND, UNBIND, SEARCH, MODIFY, ADD, DELETE, MODIFY_DN, COMPARE, ABANDON, EXTENDED = REQUESTS
BIND_REPLY, ENTRY, DONE, REFERENCE, EXTENDED_REPLY, INTERMEDIATE = 0x61, 0x64, 0x65, 0x73, 0x78, 0x79

SUCCESS, SASL_IN_PROGRESS = 0, 14
START_TLS = "1.3.6.1.4.1.1466.20037"

OID_NAMES: dict[str, str] = {
    START_TLS: "StartTLS",
    "1.3.6.1.4.1.1466.20036": "NoticeOfDisconnection",
    "1.3.6.1.4.1.4203.1.11.1": "PasswordModify",
    "1.3.6.1.4.1.4203.1.11.3": "WhoAmI",
    "1.3.6.1.1.8": "Cancel",
    "1.3.6.1.1.21.1": "StartTransaction",
    "1.3.6.1.1.21.3": "EndTransaction",
    "1.3.6.1.4.1.1466.101.119.1": "DynamicRefresh",
    "1.2.840.113556.1.4.1781": "FastBind",
}

# RFC 4511, appendix A.
RESULTS: dict[int, str] = {
    0: "success",
    1: "operationsError",
    2: "protocolError",
    3: "timeLimitExceeded",
    4: "sizeLimitExceeded",
    5: "compareFalse",
    6: "compareTrue",
    7: "authMethodNotSupported",
    8: "strongerAuthRequired",
    10: "referral",
    11: "adminLimitExceeded",
    12: "unavailableCriticalExtension",
    13: "confidentialityRequired",
    14: "saslBindInProgress",
    16: "noSuchAttribute",
    17: "undefinedAttributeType",
    18: "inappropriateMatching",
    19: "constraintViolation",
    20: "attributeOrValueExists",
    21: "invalidAttributeSyntax",
    32: "noSuchObject",
    33: "aliasProblem",
    34: "invalidDNSyntax",
    36: "aliasDereferencingProblem",
    48: "inappropriateAuthentication",
    49: "invalidCredentials",
    50: "insufficientAccessRights",
    51: "busy",
    52: "unavailable",
    53: "unwillingToPerform",
    54: "loopDetect",
    64: "namingViolation",
    65: "objectClassViolation",
    66: "notAllowedOnNonLeaf",
    67: "notAllowedOnRDN",
    68: "entryAlreadyExists",
    69: "objectClassModsProhibited",
    71: "affectsMultipleDSAs",
    80: "other",
    118: "canceled",
    119: "noSuchOperation",
    120: "tooLate",
    121: "cannotCancel",
    122: "assertionFailed",
    4096: "e-syncRefreshRequired",
}
NO_ERRORS = frozenset((0, 5, 6, 10, 14, 118))
SERVER_FAULTS = frozenset((51, 52, 53, 54, 80))
