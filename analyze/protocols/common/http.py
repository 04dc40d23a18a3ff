"""What HTTP/1.x, HTTP/2 and FastCGI rows have in common: the columns from method, target, status and headers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kubetape.analyze.normalise.route import collapse_routes, route_template
from kubetape.analyze.protocols.common.body import decode_body
from kubetape.analyze.protocols.common.text import cut_text, read_text
from kubetape.analyze.protocols.common.trace import read_trace
from kubetape.analyze.protocols.contract import Request

MAX_ERROR_CHARS = 256  # of the body of a failed response: enough for the message at its head

_OF_REQUEST = (
    ("host", "host"),
    ("user-agent", "user_agent"),
    ("content-type", "request_content_type"),
    ("content-encoding", "request_content_encoding"),
    ("x-forwarded-for", "x_forwarded_for"),
    ("x-real-ip", "x_real_ip"),
    ("soapaction", "soap_action"),
    ("upgrade", "upgrade"),
)
_OF_RESPONSE = (
    ("content-type", "content_type"),
    ("content-encoding", "content_encoding"),
    ("server", "server"),
    ("location", "location"),
    ("retry-after", "retry_after"),
    ("via", "via"),
)


def http_row(
    method: str | None,
    target: str | None,
    status: str | None,
    asked: Mapping[str, str],
    answered: Mapping[str, str],
) -> Request:
    """A row with the columns that PROTOCOLS.md gives HTTP; asked, answered: headers, names in lower case."""
    attributes: dict[str, Any] = {}
    for name, key in _OF_REQUEST:
        if name in asked:
            attributes[key] = asked[name]
    for name, key in _OF_RESPONSE:
        if name in answered:
            attributes[key] = answered[name]
    row = Request(
        operation=method,
        resource=route_template(target) if target is not None else None,
        statement=cut_text(target) if target is not None else None,
        status=status,
        attributes=attributes,
    )
    if status is not None and status >= "400":
        row.is_error = True
        row.error_kind = "client" if status < "500" else "server"
    trace = (read_trace(asked) if asked else None) or (read_trace(answered) if answered else None)
    if trace is not None:
        row.trace_id, row.span_id, row.parent_span_id = trace.trace_id, trace.span_id, trace.parent_span_id
        attributes["trace_carrier"] = trace.carrier
    return row


def describe_error(reason: str, headers: Mapping[str, str], body: bytes) -> str | None:
    """The reason phrase and, of a text body, the message in it."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    text = ""
    if body and (kind.endswith(("json", "xml")) or kind in ("text/plain", "")):
        if headers.get("transfer-encoding", "").lower().endswith("chunked"):
            body = body.partition(b"\n")[2]
        plain = decode_body(body, headers.get("content-encoding", ""))
        text = _message(plain, kind) if plain else ""
    return ": ".join(part for part in (reason, text) if part) or None


def _message(body: bytes, kind: str) -> str:
    if kind.endswith("json"):
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and isinstance(value.get("error"), dict):
            value = value["error"]
        for key in ("message", "error_description", "detail", "error", "msg", "title"):
            if isinstance(value, dict) and isinstance(found := value.get(key), str) and found:
                return cut_text(found, MAX_ERROR_CHARS)
    if b"\0" in body[:MAX_ERROR_CHARS]:
        return ""
    return " ".join(read_text(body, MAX_ERROR_CHARS).split())


def resolve_routes(rows: Iterable[Request]) -> None:
    """Shorten the routes of each host in which one place has very many values (see collapse_routes)."""
    hosts: dict[str, dict[str, list[Request]]] = {}
    for row in rows:
        if row.resource and row.resource[0] == "/":
            host = str((row.attributes or {}).get("host") or "")
            hosts.setdefault(host, {}).setdefault(row.resource, []).append(row)
    for routes in hosts.values():
        for old, new in collapse_routes(routes).items():
            for row in routes[old]:
                row.resource = new
