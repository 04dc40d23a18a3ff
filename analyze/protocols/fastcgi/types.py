"""Records of FastCGI (specification 1.0, section 3.3)."""

from __future__ import annotations

from typing import Final

BEGIN_REQUEST: Final = 1
ABORT_REQUEST: Final = 2
END_REQUEST: Final = 3
PARAMS: Final = 4
STDIN: Final = 5
STDOUT: Final = 6
STDERR: Final = 7
DATA: Final = 8
GET_VALUES: Final = 9
GET_VALUES_RESULT: Final = 10
UNKNOWN_TYPE: Final = 11

FROM_CLIENT: Final = frozenset({BEGIN_REQUEST, ABORT_REQUEST, PARAMS, STDIN, DATA, GET_VALUES})
FROM_SERVER: Final = frozenset({END_REQUEST, STDOUT, STDERR, GET_VALUES_RESULT, UNKNOWN_TYPE})
ROLES: Final = {1: "responder", 2: "authorizer", 3: "filter"}
# Section 5.5: why an application did not take a request.
PROTOCOL_STATUSES: Final = {0: "REQUEST_COMPLETE", 1: "CANT_MPX_CONN", 2: "OVERLOADED", 3: "UNKNOWN_ROLE"}


class Record:
    """One record. data[start:end] is its content as far as captured; length: of the content as declared."""

    __slots__ = ("data", "end", "kind", "length", "request_id", "start")

    def __init__(self, kind: int, request_id: int, length: int, data: bytes, start: int, end: int) -> None:
        self.kind, self.request_id, self.length = kind, request_id, length
        self.data, self.start, self.end = data, start, end

    @property
    def content(self) -> bytes:
        return self.data[self.start : self.end]
