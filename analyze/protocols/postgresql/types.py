"""PostgreSQL's messages, protocol 3 (PostgreSQL 17 manual, chapter 53 "Frontend/Backend Protocol")."""

from __future__ import annotations

from typing import NamedTuple

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102
STARTUP_MAJOR = 3

# Frontend.
BIND, CLOSE, COPY_FAIL, DESCRIBE, EXECUTE = b"BCfDE"
FLUSH, FUNCTION_CALL, PARSE, PASSWORD, QUERY, SYNC, TERMINATE = b"HFPpQSX"
# Both.
COPY_DATA, COPY_DONE = b"dc"
# Backend.
AUTHENTICATION, KEY_DATA, BIND_COMPLETE, CLOSE_COMPLETE, COMMAND_COMPLETE = b"RK23C"
COPY_IN, COPY_OUT, COPY_BOTH, DATA_ROW, EMPTY_QUERY, ERROR, FUNCTION_RESULT = b"GHWDIEV"
NEGOTIATE, NO_DATA, NOTICE, NOTIFICATION, PARAMETER_TYPES, PARAMETER_STATUS = b"vnNAtS"
PARSE_COMPLETE, PORTAL_SUSPENDED, READY, ROW_DESCRIPTION = b"1sZT"
# Our own: the packets without a type byte, and the one-byte answers to SSLRequest and GSSENCRequest.
STARTUP, SSL, GSS, CANCEL, ANSWER = 1, 2, 3, 4, 5

CLIENT_TYPES = frozenset(b"BCfDEHFPpQSXdc")
SERVER_TYPES = frozenset(b"RK23CGHWDIEVvnNAtS1sZTdc")

OPERATIONS: dict[int, str] = {
    QUERY: "Query",
    EXECUTE: "Execute",
    PARSE: "Parse",
    DESCRIBE: "Describe",
    FUNCTION_CALL: "FunctionCall",
    STARTUP: "Startup",
    SSL: "SSLRequest",
    GSS: "GSSENCRequest",
    CANCEL: "CancelRequest",
}


class Message(NamedTuple):
    """One message; of rows and COPY data a run of them.

    body: what follows the length, cut to what columns need; start, end: place relative to the frame's
    beginning; messages: how many the run has; size: bytes of their bodies.
    """

    kind: int
    body: bytes
    start: int
    end: int
    messages: int = 1
    size: int = 0
