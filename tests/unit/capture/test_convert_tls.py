"""Which connection a TLS session belongs to, from calls and times as a recording would have them."""

from __future__ import annotations

from typing import Any

import numpy as np

from kubetape.capture.convert_tls import Evidence, Session, Ties, _packed
from kubetape.capture.layouts import defines, layouts

SEND, RECEIVE = 0, 1


def events(name: str, rows: list[dict[str, Any]]) -> Any:
    made = np.zeros(len(rows), layouts()[name].dtype)
    for index, row in enumerate(rows):
        for member, value in row.items():
            made[index][member] = value
    return made


def call(begin: int, end: int, size: int = 100, way: int = RECEIVE, session: int = 1, **more: Any) -> dict[str, Any]:
    number = defines()["TLS_SSL_READ" if way == RECEIVE else "TLS_SSL_WRITE"]
    return {
        "enter_ns": begin, "ts_ns": end, "size_bytes": size, "direction": way, "session_id": session,
        "pid": 10, "tid": 11, "call": number, **more,
    }  # fmt: skip


def moved(at: int, socket: int, way: int = RECEIVE, size: int = 150, **more: Any) -> dict[str, Any]:
    return {"ts_ns": at, "socket_id": socket, "direction": way, "size_bytes": size, "tid": 11, **more}


def tie(
    calls: list[dict[str, Any]],
    sockets: list[dict[str, Any]],
    looks: set[int] | None = None,
    named: list[dict[str, Any]] | None = None,
    opened: list[dict[str, Any]] | None = None,
) -> Ties:
    position = 0
    for one in calls:
        if "position" not in one and one["call"]:
            one["position"] = position
            position += one["size_bytes"]
    data = events("data_event", sockets)
    evidence = Evidence(
        tls=[events("tls_event", calls)],
        sockets=[data],
        firsts=[_packed(data, "socket_id", "direction", "position")],
        named=[events("tls_socket_event", named or [])],
        opened=[events("connection_event", opened or [])],
        looks={s["socket_id"] for s in sockets} if looks is None else looks,
        seen={s["socket_id"] for s in sockets},
    )
    return Ties(evidence)


def only(ties: Ties) -> Session:
    assert len(ties.sessions) == 1
    return ties.sessions[0]


def test_a_socket_call_inside_the_librarys_call() -> None:
    found = only(tie([call(10, 20)], [moved(15, 7), moved(30, 8), moved(5, 9)]))
    assert (found.connection_id, found.basis, found.tied_count) == (7, "nested", 1)


def test_a_call_that_needed_no_socket_follows_the_others_of_its_session() -> None:
    ties = tie([call(10, 20), call(21, 22)], [moved(15, 7), moved(20, 7)])
    ids, _ = ties.lookup(events("tls_event", [call(21, 22)]))
    assert ids.tolist() == [7]
    assert only(ties).tied_count == 1


def test_other_threads_do_not_count() -> None:
    found = only(tie([call(10, 20)], [moved(15, 7, tid=12)]))
    assert (found.connection_id, found.basis) == (None, "none")
    assert found.reason == "no socket call seen near its calls"


def test_connections_without_tls_do_not_come_into_question() -> None:
    """A key log or a name asked for inside of a call."""
    found = only(tie([call(10, 20)], [moved(14, 7), moved(15, 8)], looks={7}))
    assert found.connection_id == 7


def test_bytes_moved_through_memory_belong_to_the_sockets_beside() -> None:
    calls = [call(10, 20), call(30, 40, way=SEND), call(60, 70)]
    found = only(tie(calls, [moved(5, 7), moved(45, 7, SEND), moved(50, 9), moved(55, 7), moved(80, 9)]))
    assert (found.connection_id, found.basis, found.tied_count) == (7, "thread", 3)


def test_no_guess_where_a_thread_served_many() -> None:
    calls = [call(10, 20), call(30, 40), call(50, 60)]
    found = only(tie(calls, [moved(5, 7), moved(25, 8), moved(45, 9)]))
    assert found.connection_id is None
    assert found.reason


def test_no_connection_carries_more_plaintext_than_bytes() -> None:
    assert only(tie([call(10, 20, size=1000)], [moved(5, 7, size=150)])).connection_id is None


def test_the_next_session_of_a_connection_counts_on() -> None:
    ties = tie(
        [call(10, 20, 100, position=0), call(30, 40, 50, session=2, position=0)],
        [moved(15, 7, position=5000), moved(35, 7, position=5150)],
    )
    ids, positions = ties.lookup(events("tls_event", [call(10, 20, position=0), call(30, 40, session=2, position=0)]))
    assert ids.tolist() == [7, 7]
    assert positions.tolist() == [5000, 5100]


def test_two_sessions_at_a_time_are_not_one_connection() -> None:
    ties = tie([call(10, 20), call(12, 40, session=2, tid=13)], [moved(15, 7), moved(30, 7, tid=13)])
    assert [s.connection_id for s in ties.sessions] == [7, None]


def test_what_the_kernel_encrypts_is_there_already() -> None:
    found = only(tie([call(10, 20)], [moved(15, 7, flags=defines()["DATA_ULP"])]))
    assert found.connection_id is None
    assert found.reason
    assert "kTLS" in found.reason


def test_the_socket_that_go_names() -> None:
    ends = {"local_port": 443, "remote_port": 50000, "netns_id": 3}
    named = [{"ts_ns": 9, "session_id": 1, "pid": 10, **ends}]
    opened = [{"ts_ns": at, "socket_id": socket, **ends} for at, socket in ((1, 6), (5, 7), (50, 8))]
    found = only(tie([call(10, 20)], [moved(15, 9, tid=12), moved(15, 7, tid=12)], {7}, named, opened))
    assert (found.connection_id, found.basis) == (7, "fd")
