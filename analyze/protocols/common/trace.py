"""Trace context as it travels in headers, message properties and SQL comments.

Every carrier becomes the same words: `trace_id` in lower-case hexadecimal of 32 digits wherever the carrier's
own id is a number of 64 or 128 bits (64-bit ids are padded on the left, as OpenTelemetry does, so that the
same trace is found whatever the carrier), else the id as sent; `span_id` the span of the sender of the
message in 16 digits; `parent_span_id` that span's parent, where the carrier has it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import unquote


class TraceContext(NamedTuple):
    """trace_id, span_id, parent_span_id: see the module; carrier: the name of the header read."""

    trace_id: str
    span_id: str | None
    parent_span_id: str | None
    carrier: str


MAX_VALUE_CHARS = 1024  # longer values are no ids: baggage, attacks
MAX_SQL_CHARS = 1 << 16  # comments are put at the beginning or the end; beyond, the statement is data
MAX_SQL_COMMENTS = 16

_HEX = re.compile(r"[0-9a-f]+\Z")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?\Z")
_PRINTABLE = re.compile(r"[!-~]+\Z")

_Found = tuple[str, str | None, str | None]
_Carriers = Mapping[str, str]


def _hex_id(text: str | None, digits: int) -> str | None:
    """A hexadecimal id padded to `digits`; None for no id, all zeros or too long."""
    if not text:
        return None
    text = text.strip().lower()
    if len(text) > digits or not _HEX.match(text) or not text.strip("0"):
        return None
    return text.rjust(digits, "0")


def _decimal_id(text: str | None) -> str | None:
    """An unsigned 64-bit decimal number as 16 hexadecimal digits."""
    if not text or len(text := text.strip()) > 20 or not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return f"{number:016x}" if 0 < number < 1 << 64 else None


def _base64(text: str) -> bytes | None:
    """Base64 in either alphabet, padded or not."""
    text = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _traceparent(value: str, _: _Carriers) -> _Found | None:
    """W3C Trace Context, section 3.2: version-traceid-parentid-flags."""
    match = _TRACEPARENT.match(value.strip().lower())
    if match is None or match[1] == "ff" or not match[2].strip("0") or not match[3].strip("0"):
        return None
    return match[2], match[3], None


def _b3_single(value: str, _: _Carriers) -> _Found | None:
    """openzipkin/b3-propagation: traceid-spanid[-sampled[-parentspanid]]; one letter: no ids."""
    parts = value.strip().split("-")
    if len(parts) < 2:
        return None
    trace_id, span_id = _hex_id(parts[0], 32), _hex_id(parts[1], 16)
    if trace_id is None or span_id is None:
        return None
    return trace_id, span_id, _hex_id(parts[3], 16) if len(parts) > 3 else None


def _b3_multi(value: str, carriers: _Carriers) -> _Found | None:
    trace_id = _hex_id(value, 32)
    if trace_id is None:
        return None
    parent = _hex_id(carriers.get("x-b3-parentspanid"), 16)
    return trace_id, _hex_id(carriers.get("x-b3-spanid"), 16), parent


def _uber(value: str, _: _Carriers) -> _Found | None:
    """Jaeger: {trace-id}:{span-id}:{parent-span-id}:{flags}, leading zeros left out, perhaps URL-encoded."""
    parts = unquote(value).strip().split(":")
    if len(parts) != 4:
        return None
    trace_id, span_id = _hex_id(parts[0], 32), _hex_id(parts[1], 16)
    return None if trace_id is None else (trace_id, span_id, _hex_id(parts[2], 16))


def _skywalking8(value: str, _: _Carriers) -> _Found | None:
    """SkyWalking v3: sample-trace-segment-span-service-instance-endpoint-address, most parts in base64.

    The sender's span is its segment and the number in it; sw6 (v2) has the same first four fields.
    """
    parts = value.strip().split("-")
    if len(parts) < 4 or not parts[3].isdigit():
        return None
    trace, segment = _base64(parts[1]), _base64(parts[2])
    if not trace or not segment:
        return None
    return _plain(trace), f"{_plain(segment)}-{parts[3]}", None


def _skywalking3(value: str, _: _Carriers) -> _Found | None:
    """SkyWalking header v1: segment|span|parent instance|entry instance|peer|entry op|parent op|trace."""
    parts = value.strip().split("|")
    if len(parts) < 8 or not parts[7] or not parts[1].lstrip("-").isdigit():
        return None
    return parts[7], f"{parts[0]}-{parts[1]}", None


def _plain(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _datadog(value: str, carriers: _Carriers) -> _Found | None:
    """64-bit decimal ids; the upper half of a 128-bit trace id is in x-datadog-tags as _dd.p.tid."""
    low = _decimal_id(value)
    if low is None:
        return None
    high = re.search(r"_dd\.p\.tid=([0-9a-f]{16})", carriers.get("x-datadog-tags", "")[:MAX_VALUE_CHARS])
    return (high[1] if high else "0" * 16) + low, _decimal_id(carriers.get("x-datadog-parent-id")), None


def _amazon(value: str, _: _Carriers) -> _Found | None:
    """X-Ray: Root=1-{8 hex}-{24 hex};Parent={16 hex};Sampled=1; load balancers add Self=, alike."""
    fields = dict(part.strip().partition("=")[::2] for part in value.split(";"))
    root = fields.get("Root") or fields.get("Self") or ""
    parts = root.split("-")
    if len(parts) != 3 or len(parts[1]) != 8 or len(parts[2]) != 24:
        return None
    trace_id = _hex_id(parts[1] + parts[2], 32)
    return None if trace_id is None else (trace_id, _hex_id(fields.get("Parent"), 16), None)


def _google(value: str, _c: _Carriers) -> _Found | None:
    """Google Cloud: TRACE_ID/SPAN_ID;o=OPTIONS with a decimal span id."""
    trace, _, rest = value.strip().partition("/")
    trace_id = _hex_id(trace, 32)
    if trace_id is None or len(trace) != 32:
        return None
    return trace_id, _decimal_id(rest.partition(";")[0]), None


def _grpc_trace_bin(value: str, _: _Carriers) -> _Found | None:
    """OpenCensus binary format: version 0; field 0: 16 bytes of trace id, field 1: 8 bytes of span id."""
    raw = _base64(value)
    if raw is None or len(raw) < 18 or raw[0] != 0 or raw[1] != 0:
        return None
    span_id = raw[19:27].hex() if len(raw) >= 27 and raw[18] == 1 else None
    trace_id = _hex_id(raw[2:18].hex(), 32)
    return None if trace_id is None else (trace_id, _hex_id(span_id, 16), None)


def _ot_span_context(value: str, _: _Carriers) -> _Found | None:
    """LightStep's BinaryCarrier in base64 (fixed64 ids in field 2), or the older trace;span;parent;flags."""
    if ";" in value:
        parts = value.strip().split(";")
        trace_id = _hex_id(parts[0], 32)
        parent = _hex_id(parts[2], 16) if len(parts) > 2 else None
        return None if trace_id is None else (trace_id, _hex_id(parts[1], 16), parent)
    raw = _base64(value)
    start = raw.find(b"\x09") if raw else -1
    # field 2 (length-delimited) { 1: fixed64 trace id (tag 0x09), 2: fixed64 span id (tag 0x11) }
    if raw is None or raw[:1] != b"\x12" or start < 2 or len(raw) < start + 18 or raw[start + 9] != 0x11:
        return None
    trace_id = _hex_id(f"{int.from_bytes(raw[start + 1 : start + 9], 'little'):x}", 32)
    span_id = _hex_id(f"{int.from_bytes(raw[start + 10 : start + 18], 'little'):x}", 16)
    return None if trace_id is None else (trace_id, span_id, None)


def _ot_tracer(value: str, carriers: _Carriers) -> _Found | None:
    trace_id = _hex_id(value, 32)
    return None if trace_id is None else (trace_id, _hex_id(carriers.get("ot-tracer-spanid"), 16), None)


def _sofa(value: str, carriers: _Carriers) -> _Found | None:
    """SOFATracer: an opaque trace id, and dotted rpc ids as span ids (0.1.2 is a child of 0.1)."""
    span_id = carriers.get("rpc_trace_context.sofarpcid") or carriers.get("sofa-rpcid") or None
    parent = span_id.rpartition(".")[0] if span_id else None
    return (value.strip(), span_id, parent or None) if _PRINTABLE.match(value.strip()) else None


def _sofa_new(value: str, _: _Carriers) -> _Found | None:
    """new_rpc_trace_context: tcid=<trace>&spid=<span>&pspid=..."""
    fields = dict(part.partition("=")[::2] for part in value.split("&"))
    trace_id = fields.get("tcid") or fields.get("sofaTraceId")
    if not trace_id:
        return None
    return trace_id, fields.get("spid") or None, fields.get("pspid") or None


def _tingyun(value: str, _: _Carriers) -> _Found | None:
    """Tingyun: c=...;x=<transaction id>;..."""
    fields = dict(part.strip().partition("=")[::2] for part in value.split(";"))
    found = fields.get("x") or fields.get("t")
    return (found, None, None) if found and _PRINTABLE.match(found) else None


def _opaque(value: str, _: _Carriers) -> _Found | None:
    """An id without structure."""
    value = value.strip()
    return (value, None, None) if value and _PRINTABLE.match(value) else None


_READERS: dict[str, Callable[[str, _Carriers], _Found | None]] = {
    # In order of trust: carriers of a trace with spans first, ids of single requests last.
    "traceparent": _traceparent,
    "elastic-apm-traceparent": _traceparent,
    # What a server answers (W3C Trace Context level 2): the same form.
    "traceresponse": _traceparent,
    "b3": _b3_single,
    "x-b3-traceid": _b3_multi,
    "uber-trace-id": _uber,
    "sw8": _skywalking8,
    "sw6": _skywalking8,
    "sw3": _skywalking3,
    "x-datadog-trace-id": _datadog,
    "grpc-trace-bin": _grpc_trace_bin,
    "x-cloud-trace-context": _google,
    "x-amzn-trace-id": _amazon,
    "x-ot-span-context": _ot_span_context,
    "ot-tracer-traceid": _ot_tracer,
    "rpc_trace_context.sofatraceid": _sofa,
    "sofa-traceid": _sofa,
    "new_rpc_trace_context": _sofa_new,
    "x-tingyun": _tingyun,
    "cloudwise": _opaque,
    "apm-transactionid": _opaque,
    "x-trace-id": _opaque,
    "x-request-id": _opaque,
    "x-correlation-id": _opaque,
    "x-amzn-requestid": _opaque,
    "x-amz-request-id": _opaque,
    "x-ms-request-id": _opaque,
    "x-bfe-log-id": _opaque,
    "stgw-request-id": _opaque,
    "x-blb-request-id": _opaque,
}

# Headers that `read_trace` looks at: a decoder needs to keep only these.
CARRIERS: frozenset[str] = frozenset(_READERS) | {
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-datadog-parent-id",
    "x-datadog-tags",
    "ot-tracer-spanid",
    "rpc_trace_context.sofarpcid",
    "sofa-rpcid",
}


def read_trace(carriers: Mapping[str, str]) -> TraceContext | None:
    """The trace context in headers (names in lower case, binary values in base64); None: none is valid."""
    if _READERS.keys().isdisjoint(carriers):
        return None
    for name, reader in _READERS.items():
        value = carriers.get(name)
        if value and len(value) <= MAX_VALUE_CHARS and (found := reader(value, carriers)) is not None:
            return TraceContext(*found, name)
    return None


_PAIR = re.compile(
    r"([A-Za-z0-9_.%\-]{1,64})\s{0,8}[:=]\s{0,8}"
    r"(?:'([^']{0,1024})'|\"([^\"]{0,1024})\"|([^\s,'\"]{1,1024}))"
)


def read_sql_comment_trace(sql: str) -> TraceContext | None:
    """The trace context in a statement's comments: sqlcommenter (`/*traceparent='00-..'*/`), `k: v`, `k=v`.

    Comments are `/* */`, `-- ` and `#`; values may be URL-encoded, quoted or bare.
    """
    for comment in _comments(sql[:MAX_SQL_CHARS]):
        found = [
            (name, unquote(single or double or bare))
            for key, single, double, bare in _PAIR.findall(comment[: 4 * MAX_VALUE_CHARS])
            if (name := unquote(key).lower()) in CARRIERS
        ]
        # Of a name given twice (a string that looked like a comment) either may be the real one.
        for pairs in (dict(found), dict(reversed(found))):
            if pairs and (trace := read_trace(pairs)) is not None:
                return trace
    return None


def _comments(sql: str) -> list[str]:
    comments: list[str] = []
    place = 0
    while len(comments) < MAX_SQL_COMMENTS and (start := _COMMENT.search(sql, place)) is not None:
        closing = "*/" if start[0] == "/*" else "\n"
        end = sql.find(closing, start.end())
        if end < 0:
            end = len(sql)
        comments.append(sql[start.end() : end])
        place = end + len(closing)
    return comments


_COMMENT = re.compile(r"/\*|--|#")
