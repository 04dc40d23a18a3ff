"""Redis: RESP2 and RESP3, pipelines, subscriptions, what is no error and what is."""

from __future__ import annotations

import pytest

from tests.unit.analyze.protocols.wire import Piece, brief, decode


def command(*words: str) -> bytes:
    raw = [w.encode() for w in words]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in raw)


def test_a_pipeline_is_answered_in_order() -> None:
    asked = command("SET", "user:17", "x") + command("GET", "user:17") + command("LPUSH", "user:17", "y")
    wrong = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
    decoded = decode([("c", asked), ("s", b"+OK\r\n$1\r\nx\r\n" + wrong)])
    assert decoded.protocol == "redis"
    assert brief(decoded.rows, "operation", "resource", "statement", "status", "error_kind") == [
        ("SET", "user:{id}", "SET user:17 x", "OK", None),
        ("GET", "user:{id}", "GET user:17", "OK", None),
        ("LPUSH", "user:{id}", "LPUSH user:17 y", "WRONGTYPE", "client"),
    ]


def test_transactions_and_what_fails_inside() -> None:
    asked = command("MULTI") + command("INCR", "a") + command("EXEC")
    decoded = decode([("c", asked), ("s", b"+OK\r\n+QUEUED\r\n*1\r\n-ERR value is not an integer\r\n")])
    assert brief(decoded.rows, "operation", "status") == [("MULTI", "OK"), ("INCR", "OK"), ("EXEC", "OK")]
    assert decoded.rows[-1].attributes == {"inner_errors": 1}


@pytest.mark.parametrize("mark", [b"*", b">"])
def test_published_messages_belong_to_no_command(mark: bytes) -> None:
    confirmed = mark + b"3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n"
    pushed = mark + b"3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n"
    decoded = decode([("c", command("SUBSCRIBE", "news")), ("s", confirmed), ("s", pushed + pushed)])
    assert brief(decoded.rows, "operation", "resource", "outcome") == [
        ("SUBSCRIBE", "news", "complete"),
        ("push", "news", "one_way"),
        ("push", "news", "one_way"),
    ]


def test_passwords_are_masked() -> None:
    asked = command("AUTH", "app", "secret") + command("HELLO", "3", "AUTH", "app", "secret")
    decoded = decode([("c", asked), ("s", b"+OK\r\n%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n")])
    assert [r.statement for r in decoded.rows] == ["AUTH app ***", "HELLO 3 AUTH app ***"]


def test_an_answer_of_many_values_that_was_cut_is_one_answer() -> None:
    field = b"$10\r\ncustomer:1\r\n$50\r\n" + b"x" * 50 + b"\r\n"
    first = b"*4000\r\n" + field * 500
    pieces: list[Piece] = [("c", command("HGETALL", "basket")), ("s", first, 4096)]
    pieces += [("s", field * 500, 4096)] * 3
    pieces += [("c", command("PING")), ("s", b"+PONG\r\n")]
    decoded = decode(pieces)
    assert brief(decoded.rows, "operation", "outcome") == [("HGETALL", "truncated"), ("PING", "complete")]
    answer = decoded.rows[0].response
    assert answer is not None
    # Its last field is in what was not captured.
    assert (answer.first_ns, answer.last_ns) == (2000, 5000)
    assert answer.size >= len(first) + 2 * len(field) * 500 + 4000


def test_a_big_value_that_was_cut_keeps_its_row_and_those_behind_it() -> None:
    big = b"$100000\r\n" + b"v" * 100_000 + b"\r\n"
    pieces: list[Piece] = [("c", command("GET", "big")), ("s", big, 500), ("c", command("PING")), ("s", b"+PONG\r\n")]
    decoded = decode(pieces)
    assert brief(decoded.rows, "operation", "status") == [("GET", "OK"), ("PING", "OK")]
    assert decoded.rows[0].response is not None
    assert decoded.rows[0].response.size == len(big)


def test_lost_replies_do_not_shift_those_that_follow() -> None:
    pieces: list[Piece] = [("c", command("PING")), ("s", b"+PONG\r\n")]
    pieces += [("c", command("GET", "a")), ("s", b"$1\r\n1\r\n", 0), ("c", command("GET", "b")), ("s", b"$1\r\n2\r\n")]
    outcomes = brief(decode(pieces).rows, "statement", "outcome")
    assert outcomes[1:] == [("GET a", "no_response"), ("GET b", "complete")]


def test_lines_typed_by_hand() -> None:
    decoded = decode(
        [("c", b"PING\r\n"), ("s", b"+PONG\r\n"), ("c", b"NONSENSE 1\r\n"), ("s", b"-ERR unknown command\r\n")]
    )
    assert brief(decoded.rows, "operation", "status") == [("PING", "OK"), ("NONSENSE", "ERR")]
