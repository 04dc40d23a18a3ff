"""Trace context: one case per carrier, in the form its own documentation shows."""

from __future__ import annotations

import base64
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubetape.analyze.protocols.common.trace import CARRIERS, read_sql_comment_trace, read_trace

TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "05e3ac9a4f6e3b90"
W3C = f"00-{TRACE}-{SPAN}-01"
B64_TRACE, B64_SEGMENT = (base64.b64encode(x).decode() for x in (b"trace.1.2", b"segment.3"))
GRPC_BIN = base64.b64encode(b"\0\0" + bytes.fromhex(TRACE) + b"\1" + bytes.fromhex(SPAN) + b"\2\1").decode()
LIGHTSTEP = base64.b64encode(
    b"\x12\x14" + b"\x09" + pack("<Q", 0xABC) + b"\x11" + pack("<Q", 0xDEF) + b"\x18\x01"
).decode()


@pytest.mark.parametrize(
    ("carriers", "expected"),
    [
        ({"traceparent": W3C}, (TRACE, SPAN, None)),
        ({"elastic-apm-traceparent": W3C}, (TRACE, SPAN, None)),
        ({"traceresponse": W3C}, (TRACE, SPAN, None)),
        ({"b3": f"{TRACE}-{SPAN}-1-{PARENT}"}, (TRACE, SPAN, PARENT)),
        (
            {"x-b3-traceid": SPAN, "x-b3-spanid": PARENT, "x-b3-parentspanid": SPAN},
            ("0" * 16 + SPAN, PARENT, SPAN),
        ),
        ({"uber-trace-id": f"{TRACE}:{SPAN}:0:1"}, (TRACE, SPAN, None)),
        ({"uber-trace-id": "abc%3Adef%3A1%3A1"}, ("abc".rjust(32, "0"), "def".rjust(16, "0"), "1".rjust(16, "0"))),
        ({"sw8": f"1-{B64_TRACE}-{B64_SEGMENT}-7-c2Vydg==-aW4=-L2E=-aG9zdA=="}, ("trace.1.2", "segment.3-7", None)),
        ({"sw6": f"1-{B64_TRACE}-{B64_SEGMENT}-7-3-5-I2E=-I2I=-I2M="}, ("trace.1.2", "segment.3-7", None)),
        (
            {"sw3": "1.2343.234234|1|1|1|#1.1.1.1:80|#/portal/|1.2343.234231|trace.9"},
            ("trace.9", "1.2343.234234-1", None),
        ),
        ({"x-datadog-trace-id": "255", "x-datadog-parent-id": "16"}, ("ff".rjust(32, "0"), "10".rjust(16, "0"), None)),
        (
            {"x-datadog-trace-id": "255", "x-datadog-tags": "_dd.p.dm=-1,_dd.p.tid=640cfd8d00000000"},
            ("640cfd8d00000000" + "ff".rjust(16, "0"), None, None),
        ),
        (
            {"x-amzn-trace-id": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"},
            ("5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8", None),
        ),
        ({"x-cloud-trace-context": f"{TRACE}/16;o=1"}, (TRACE, "10".rjust(16, "0"), None)),
        ({"grpc-trace-bin": GRPC_BIN}, (TRACE, SPAN, None)),
        ({"x-ot-span-context": LIGHTSTEP}, ("abc".rjust(32, "0"), "def".rjust(16, "0"), None)),
        ({"x-ot-span-context": f"{SPAN};{PARENT};{SPAN};cs"}, ("0" * 16 + SPAN, PARENT, SPAN)),
        (
            {"rpc_trace_context.sofatraceid": "0a0fe8ec15", "rpc_trace_context.sofarpcid": "0.1.2"},
            ("0a0fe8ec15", "0.1.2", "0.1"),
        ),
        ({"new_rpc_trace_context": "tcid=0a0fe8ec15&spid=0.1&pspid=0"}, ("0a0fe8ec15", "0.1", "0")),
        ({"x-tingyun": "c=1|abc;x=4e0a;n=1"}, ("4e0a", None, None)),
        ({"cloudwise": "cw-1"}, ("cw-1", None, None)),
        ({"apm-transactionid": "t-1"}, ("t-1", None, None)),
        ({"x-request-id": "r-1", "traceparent": W3C}, (TRACE, SPAN, None)),
        ({"x-request-id": "r-1", "traceparent": "00-broken"}, ("r-1", None, None)),
        ({"stgw-request-id": "r-2"}, ("r-2", None, None)),
    ],
)
def test_each_carrier(carriers: dict[str, str], expected: tuple[str, str | None, str | None]) -> None:
    found = read_trace(carriers)
    assert found is not None
    assert found[:3] == expected
    assert found.carrier in carriers


@pytest.mark.parametrize(
    "carriers",
    [
        {"traceparent": f"ff-{TRACE}-{SPAN}-01"},
        {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
        {"b3": "0"},
        {"x-datadog-trace-id": "0"},
        {"x-request-id": "two words"},
        {"x-request-id": "x" * 5000},
        {"x-cloud-trace-context": "short/1"},
        {},
    ],
)
def test_what_is_no_trace(carriers: dict[str, str]) -> None:
    assert read_trace(carriers) is None


@pytest.mark.parametrize(
    "sql",
    [
        f"select 1 /*db_driver='x',traceparent='{W3C}'*/",
        f"/* traceparent: {W3C} */ select 1",
        f"select 1 -- traceparent={W3C}",
        f"select 1\n# traceparent={W3C}\n",
        f"select '--', 2 /* unrelated */ /*traceparent=%22x%22*/ /*traceparent='{W3C.replace('-', '%2D')}'*/",
    ],
)
def test_in_comments_of_statements(sql: str) -> None:
    found = read_sql_comment_trace(sql)
    assert found is not None
    assert found[:2] == (TRACE, SPAN)


def test_no_trace_outside_of_comments() -> None:
    assert read_sql_comment_trace(f"select 'traceparent={W3C}'") is None


@given(name=st.sampled_from(sorted(CARRIERS)), value=st.text(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_value(name: str, value: str) -> None:
    read_trace({name: value})
    read_sql_comment_trace(f"select 1 /* {name}={value} */ -- {name}:'{value}'")
