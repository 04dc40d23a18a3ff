"""Trace context in comments of statements, in each protocol that carries SQL."""

from __future__ import annotations

import pytest

from tests.unit.analyze.protocols import test_clickhouse, test_mysql, test_postgresql, test_tds
from tests.unit.analyze.protocols.wire import Piece, decode

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SQLCOMMENTER = f"SELECT 1 /*traceparent='00-{TRACE}-{SPAN}-01',application='shop'*/"
AT_THE_HEAD = f"/* traceparent: 00-{TRACE}-{SPAN}-01 */ SELECT 1"
BEHIND_DASHES = f"SELECT 1 -- b3={TRACE}-{SPAN}-1"


def dialogue(protocol: str, text: str) -> list[Piece]:
    if protocol == "mysql":
        return [*test_mysql.HELLO, ("c", test_mysql.command(3, text.encode())), ("s", test_mysql.result(b"1"))]
    if protocol == "postgresql":
        answer = (
            test_postgresql.COLUMN + test_postgresql.ROW + test_postgresql.done(b"SELECT 1") + test_postgresql.READY
        )
        return [*test_postgresql.LOGIN, ("c", test_postgresql.query(text.encode())), ("s", answer)]
    if protocol == "clickhouse":
        return [*test_clickhouse.START, ("c", test_clickhouse.query(text)), ("s", test_clickhouse.ANSWER)]
    return [*test_tds.HELLO, ("c", test_tds.batch(text)), ("s", test_tds.packet(4, test_tds.done(1)))]


@pytest.mark.parametrize("protocol", ["mysql", "postgresql", "tds", "clickhouse"])
@pytest.mark.parametrize("text", [SQLCOMMENTER, AT_THE_HEAD, BEHIND_DASHES])
def test_comments_carry_the_trace(protocol: str, text: str) -> None:
    row = decode(dialogue(protocol, text)).rows[-1]
    assert (row.protocol, row.trace_id, row.span_id) == (protocol, TRACE, SPAN)
