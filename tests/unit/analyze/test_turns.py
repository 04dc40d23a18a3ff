"""Where turns begin and end, and texts that look alike but are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kubetape.analyze.normalise.route import route_template
from kubetape.analyze.normalise.sql import digest
from kubetape.analyze.protocols import engine, registry, turns
from kubetape.analyze.protocols.contract import Request
from kubetape.analyze.protocols.http1.turns import _alike
from kubetape.analyze.protocols.mysql.turns import _skeletons
from kubetape.analyze.protocols.turns import find_turns
from tests.unit.analyze.protocols.wire import Piece, decode, streams_of

OK = b"\x07\x00\x00\x01\x00\x01\x00\x02\x00\x00\x00"
ERROR = b"\x17\x00\x00\x01\xff\x28\x04#42000not good, no no"


@pytest.fixture(autouse=True)
def _every_stretch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (turns, engine):
        monkeypatch.setattr(module, "MIN_TURNS", 1)
    monkeypatch.setattr(engine, "FEW_TURNS", 0)


def borders(pieces: list[Piece], limit: int = 100) -> tuple[list[int], list[int]] | None:
    streams = streams_of(pieces)
    client, server = streams.send, streams.receive
    found = find_turns(client, client.runs[0], 0, server, server.runs[0], 0, limit)
    return None if found is None else (found.asks.tolist(), found.answers.tolist())


def test_a_turn_is_all_the_client_says_and_all_the_server_says() -> None:
    pieces: list[Piece] = [("c", b"ab"), ("c", b"c"), ("s", b"12"), ("s", b"3"), ("c", b"d"), ("s", b"4567")]
    assert borders(pieces) == ([0, 3, 4], [0, 3, 7])


def test_the_last_turn_is_a_border_where_it_may_go_on() -> None:
    pieces: list[Piece] = [("c", b"a"), ("s", b"1"), ("c", b"b"), ("s", b"2"), ("c", b"c"), ("s", b"3")]
    assert borders(pieces, limit=3) == ([0, 1, 2, 3], [0, 1, 2, 3])
    assert borders(pieces, limit=2) is None or borders(pieces, limit=2) == ([0, 1], [0, 1])


def test_what_is_not_answered_is_no_turn() -> None:
    pieces: list[Piece] = [("c", b"a"), ("s", b"1"), ("c", b"b"), ("s", b"2"), ("c", b"c")]
    assert borders(pieces) == ([0, 1, 2], [0, 1, 2])


def test_a_server_that_speaks_first_is_no_dialogue() -> None:
    assert borders([("s", b"0"), ("c", b"a"), ("s", b"1"), ("c", b"b"), ("s", b"2")]) is None


def query(text: str) -> bytes:
    body = b"\x03" + text.encode()
    return len(body).to_bytes(3, "little") + b"\0" + body


def both_ways(pieces: list[Piece], name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Request], list[Request]]:
    decoder = registry()[name].decoder
    many = decode(pieces, only=name, from_start=False).rows
    monkeypatch.setattr(decoder, "READS_TURNS", False)
    return many, decode(pieces, only=name, from_start=False).rows


def shown(rows: list[Request]) -> list[tuple[Any, ...]]:
    return [
        (
            r.operation,
            r.resource,
            r.statement,
            r.status,
            r.rows_affected,
            r.trace_id,
            r.attributes,
            str(r.request),
            str(r.response),
        )
        for r in rows
    ]


def test_queries_of_all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"SELECT a FROM t{n % 3} WHERE id = {n} AND b = 'x{n}' LIMIT {n}, 5" for n in range(40)]
    texts[7] = "SELECT `2` FROM `t 12` WHERE id = 7"
    texts[8] = "SELECT `2` FROM `t 13` WHERE id = 8"
    texts[20] = "SELECT 1 /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/"
    texts[21] = "SELECT 0x1F, 1e5, .5, 1.25, -3, t.1a, @1"
    texts[30] = "SELECT 'ü', 4"
    pieces: list[Piece] = []
    for n, text in enumerate(texts):
        pieces += [("c", query(text)), ("s", ERROR if n == 13 else OK)]
    many, single = both_ways(pieces, "mysql", monkeypatch)
    assert shown(many) == shown(single)
    assert len(many) == 40


def test_commands_of_all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(*words: bytes) -> bytes:
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)

    pieces: list[Piece] = []
    for n in range(60):
        key = b"user:v2:%d:cart" % (n % 7) if n % 3 else b"session:%08x" % (n * 7919)
        asked = command(b"GET", key) if n % 2 else command(b"SET", key, b"v\xff" if n == 10 else b"value %d" % n)
        reply = b"$-1\r\n" if n % 11 == 1 else b"$3\r\nabc\r\n" if n % 2 else b"-OOM no\r\n" if n == 20 else b"+OK\r\n"
        pieces += [("c", asked), ("s", reply)]
    pieces += [("c", command(b"SUBSCRIBE", b"news")), ("s", b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")]
    pieces += [("c", command(b"LRANGE", b"l", b"0", b"1")), ("s", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n")]
    many, single = both_ways(pieces, "redis", monkeypatch)
    assert shown(many) == shown(single)
    assert len(many) == 62


def test_http_requests_of_all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[Piece] = []
    for n in range(40):
        target = (f"/v2/users/{n}", f"/files/2024010{n % 10}", f"/a/{n:08x}/b?q={n}", f"/static/0x{n + 16:x}.png")[
            n % 4
        ]
        method = "HEAD" if n % 9 == 4 else "GET"
        pieces.append(("c", f"{method} {target} HTTP/1.1\r\nHost: shop\r\nX-Part: {n % 2}\r\n\r\n".encode()))
        body = b"" if method == "HEAD" else b"x" * (n % 3)
        status = "404 Not Found" if n % 13 == 5 else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {n % 3}\r\nContent-Type: text/plain\r\n\r\n"
        pieces.append(("s", head.encode() + body))
    many, single = both_ways(pieces, "http1", monkeypatch)
    assert shown(many) == shown(single)
    assert [r.error_message for r in many] == [r.error_message for r in single]
    assert len(many) == 40


def column(texts: list[str]) -> tuple[Any, Any]:
    raw = [text.encode() for text in texts]
    bounds = np.append(0, np.cumsum([len(r) for r in raw])).astype(np.int64)
    return np.frombuffer(b"".join(raw), np.uint8), bounds


def test_statements_with_one_skeleton_have_one_pattern() -> None:
    chance = np.random.default_rng(1)
    pieces = [*"0123456789", *"  ,=()'`\"-+.*/#@$xeET_", "id", " in ", "/*", "*/", "0x", "--"]
    texts = ["".join(chance.choice(pieces, chance.integers(1, 12))) for _ in range(20_000)]
    skeletons = _skeletons(*column(texts)).to_pylist()
    patterns: dict[bytes, set[str]] = {}
    for text, skeleton in zip(texts, skeletons, strict=True):
        patterns.setdefault(skeleton, set()).add(digest(text, "mysql")[1])
    assert len(patterns) < len(texts)
    assert all(len(found) == 1 for found in patterns.values())


def test_targets_made_alike_have_one_route() -> None:
    chance = np.random.default_rng(2)
    pieces = [*"0123456789", *"//--..:_%", "v", "0x", "ab", "cdef", "2024", "0131", "item", "T", ".png"]
    targets = ["/" + "".join(chance.choice(pieces, chance.integers(1, 14))) for _ in range(20_000)]
    routes: dict[bytes, set[str]] = {}
    for target, alike in zip(targets, _alike(*column(targets)).to_pylist(), strict=True):
        route = route_template(target)
        if not any(c.isdigit() for c in route):
            routes.setdefault(alike, set()).add(route)
    assert len(routes) < len(targets)
    assert all(len(found) == 1 for found in routes.values())
