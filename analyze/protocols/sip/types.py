"""Frames of SIP."""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """One SIP message (RFC 3261, section 7).

    method: of a request, "" for a response; uri: request URI; status: of a response, 0 for a request; branch: of the
    top Via; cseq: number and method of the CSeq header; headers: the interesting ones, lower-case names.
    """

    method: str
    uri: str
    status: int
    reason: str
    call_id: str
    cseq: int
    cseq_method: str
    branch: str
    headers: dict[str, str]
