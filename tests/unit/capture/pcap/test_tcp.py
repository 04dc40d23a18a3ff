"""TCP streams and what happens to them: every case a few packets, and the rows that must come of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.bundle.reader import Bundle
from tests.unit.capture.pcap.conversation import MS, START_NS, Conversation
from tests.unit.capture.pcap.craft import ACK, CLIENT, RST, SERVER, SYN, imported, pcap, rows, tcp


def data(bundle: Bundle) -> list[tuple[str, int, bytes]]:
    """(direction, position relative to the first ISN of its direction, payload)"""
    isn = {"send": 1000, "receive": 5000}
    return [
        (direction, position - isn[direction], payload)
        for direction, position, payload in rows(bundle, "socket_data", "direction", "position", "payload")
    ]


def events(bundle: Bundle) -> list[tuple[str, str | None, str | None]]:
    quiet = ("connect", "state")
    return [e for e in rows(bundle, "tcp_event", "kind", "detail", "direction") if e[0] not in quiet]


def test_a_whole_connection(tmp_path: Path) -> None:
    talk = Conversation()
    talk.handshake()
    talk.c(1, 1, b"GET")
    talk.s(1, 4, b"OK")
    talk.close(4, 3)
    bundle = imported(tmp_path, pcap(talk.records))
    assert data(bundle) == [("send", 1, b"GET"), ("receive", 1, b"OK")]
    assert rows(bundle, "socket_data", "ts_ns", "size_bytes", "source", "call") == [
        (START_NS + 3 * MS, 3, "wire", "packet"),
        (START_NS + 4 * MS, 2, "wire", "packet"),
    ]
    row = bundle.table("connection").to_pylist()[0]
    assert (row["local_ip"], row["local_port"], row["remote_ip"], row["remote_port"]) == (*CLIENT, *SERVER)
    assert (row["side"], row["side_basis"], row["close_reason"]) == ("wire", "packet", "fin")
    assert (row["start_ns"], row["end_ns"]) == (START_NS, START_NS + 6 * MS)
    assert row["existed_before"] is False
    assert rows(bundle, "tcp_event", "kind", "detail", "duration_ns") == [
        ("connect", "ok", MS),
        ("state", "SYN_SENT>ESTABLISHED", MS),
        ("state", "ESTABLISHED>CLOSE", 5 * MS),
    ]
    # Handshake both ways, request, reply with its FIN; the client's own FIN.
    assert rows(bundle, "tcp_sample", "direction", "srtt_ns") == [
        ("send", MS),
        ("receive", MS),
        ("send", MS),
        ("receive", MS),
        ("send", MS),
        ("receive", MS),
    ]
    assert bundle.verify() == []


def test_a_retransmitted_segment_counts_once(tmp_path: Path) -> None:
    talk = Conversation()
    talk.handshake()
    talk.c(1, 1, b"abcd")
    talk.wait(300)
    talk.c(1, 1, b"ABCD")
    talk.s(1, 5)
    bundle = imported(tmp_path, pcap(talk.records))
    assert data(bundle) == [("send", 1, b"abcd")]
    assert events(bundle) == [("retransmit", "timeout", "send")]
    # Karn: the acknowledgement of retransmitted data measures nothing.
    assert rows(bundle, "tcp_sample", "ts_ns") == [START_NS + MS, START_NS + 2 * MS]


def test_overlap_brings_only_its_new_bytes(tmp_path: Path) -> None:
    talk = Conversation()
    talk.handshake()
    talk.c(1, 1, b"abcd")
    talk.c(3, 1, b"CDef")
    bundle = imported(tmp_path, pcap(talk.records))
    assert data(bundle) == [("send", 1, b"abcd"), ("send", 5, b"ef")]
    assert events(bundle) == [("retransmit", "other", "send")]


def test_reordered_segments_keep_their_own_time(tmp_path: Path) -> None:
    talk = Conversation()
    talk.handshake()
    talk.c(4, 1, b"def")
    talk.c(1, 1, b"abc")
    bundle = imported(tmp_path, pcap(talk.records))
    assert data(bundle) == [("send", 4, b"def"), ("send", 1, b"abc")]
    assert events(bundle) == [("out_of_order", None, "send")]


def test_a_filled_hole_after_duplicate_acknowledgements_is_a_fast_retransmission(tmp_path: Path) -> None:
    talk = Conversation()
    talk.handshake()
    talk.c(1, 1, b"a")
    talk.s(1, 2)
    for at in (3, 4, 5):
        talk.c(at, 1, b"x")
        talk.s(1, 2)
    talk.c(2, 1, b"b")
    talk.s(1, 6)
    bundle = imported(tmp_path, pcap(talk.records))
    assert sorted(data(bundle))[1] == ("send", 2, b"b")
    assert events(bundle) == [*[("duplicate_ack", None, "receive")] * 3, ("retransmit", "fast", "send")]
    filled = rows(bundle, "socket_data", "payload", "retransmitted_bytes")
    assert filled[-1] == (b"b", 1)


def test_bytes_never_seen_are_lost_segments(tmp_path: Path) -> None:
    talk = Conversation()
    talk.handshake()
    talk.c(11, 1, b"later")
    talk.s(1, 30)
    bundle = imported(tmp_path, pcap(talk.records))
    assert rows(bundle, "tcp_event", "kind", "detail", "direction", "position", "size_bytes", "ts_ns")[2:] == [
        ("lost_segment", "acked", "send", 1001, 10, START_NS + 3 * MS),
        ("lost_segment", "acked", "send", 1016, 14, START_NS + 4 * MS),
    ]


def test_one_segment_may_fill_two_holes(tmp_path: Path) -> None:
    talk = Conversation()
    talk.handshake()
    talk.c(3, 1, b"c")
    talk.c(5, 1, b"e")
    talk.c(1, 1, b"abCdEf")
    bundle = imported(tmp_path, pcap(talk.records))
    assert data(bundle) == [
        ("send", 3, b"c"),
        ("send", 5, b"e"),
        ("send", 1, b"ab"),
        ("send", 4, b"d"),
        ("send", 6, b"f"),
    ]


def test_keep_alive_and_zero_window(tmp_path: Path) -> None:
    talk = Conversation()
    talk.handshake()
    talk.c(1, 1, b"abc")
    talk.s(1, 4, window=0)
    talk.s(1, 4, window=0)
    talk.c(3, 1)
    talk.s(1, 4)
    talk.c(3, 1)
    talk.s(1, 4)
    bundle = imported(tmp_path, pcap(talk.records))
    assert events(bundle) == [
        ("zero_window", None, "receive"),
        ("keep_alive", None, "send"),
        ("keep_alive", None, "send"),
    ]


def test_sequence_numbers_wrap(tmp_path: Path) -> None:
    talk = Conversation(client_isn=2**32 - 4)
    talk.handshake()
    talk.c(1, 1, b"abc")
    talk.c(4, 1, b"def")
    bundle = imported(tmp_path, pcap(talk.records))
    assert rows(bundle, "socket_data", "position") == [2**32 - 3, 2**32]
    assert events(bundle) == []


def test_a_wild_sequence_number_does_not_break_the_stream(tmp_path: Path) -> None:
    talk = Conversation()
    talk.handshake()
    talk.c(1, 1, b"abc")
    talk.c(1 << 30, 1, b"wild")
    talk.c(4, 1, b"def")
    talk.s(1, 7)
    talk.s(1, 1 << 30)
    talk.s(1, 7, b"ok")
    bundle = imported(tmp_path, pcap(talk.records))
    assert data(bundle) == [("send", 1, b"abc"), ("send", 4, b"def"), ("receive", 1, b"ok")]
    assert events(bundle) == []
    assert "1 TCP segments had sequence numbers far" in " ".join(bundle.manifest.nodes[0].notes)


def test_a_stream_that_really_jumps_goes_on_after_a_gap(tmp_path: Path) -> None:
    talk = Conversation()
    talk.handshake()
    talk.c(1, 1, b"abc")
    talk.c(-(1 << 30), 1, b"new")
    talk.c(-(1 << 30) + 3, 1, b"er")
    bundle = imported(tmp_path, pcap(talk.records))
    assert rows(bundle, "socket_data", "payload") == [b"abc", b"new", b"er"]
    assert [e[:2] for e in events(bundle)] == [("lost_segment", "skipped")]


def test_where_a_stream_began_and_ended_is_known_without_its_bytes(tmp_path: Path) -> None:
    """Lost between the capture's packets: the first request and the second reply."""
    talk = Conversation()
    talk.handshake()
    talk.s(4, 4, b"OK")
    talk.c(4, 6, b"GET 2")
    talk.c(9, 12, b"GET 3")
    talk.close(14, 12)
    bundle = imported(tmp_path, pcap(talk.records))
    bounds = rows(
        bundle,
        "connection",
        "sent_from_position",
        "sent_to_position",
        "received_from_position",
        "received_to_position",
    )
    assert bounds == [(1001, 1014, 5001, 5012)]
    assert Analysis(bundle.path).query("SELECT total_bytes, seen_bytes, lost_bytes FROM coverage").to_pylist() == [
        {"total_bytes": 24, "seen_bytes": 12, "lost_bytes": 12}
    ]


def test_a_connection_joined_in_the_middle(tmp_path: Path) -> None:
    records = [
        (START_NS, tcp(SERVER, CLIENT, 700, 900, ACK, b"reply")),
        (START_NS + MS, tcp(CLIENT, SERVER, 900, 705, ACK, b"more")),
        (START_NS + 2 * MS, tcp(SERVER, CLIENT, 690, 900, ACK, b"lost before")),
    ]
    bundle = imported(tmp_path, pcap(records))
    row = bundle.table("connection").to_pylist()[0]
    assert (row["local_ip"], row["side_basis"], row["existed_before"]) == (CLIENT[0], "port", True)
    assert (row["start_ns"], row["close_reason"]) == (None, "open")
    positions = rows(bundle, "socket_data", "position")
    assert [p & 0xFFFFFFFF for p in positions] == [700, 900]


@pytest.mark.parametrize("resets", ["server", "client"])
def test_resets(tmp_path: Path, resets: str) -> None:
    talk = Conversation()
    talk.handshake()
    if resets == "server":
        talk.s(1, 1, flags=RST | ACK)
    else:
        talk.c(1, 1, flags=RST)
    bundle = imported(tmp_path, pcap(talk.records))
    kind = "reset_received" if resets == "server" else "reset_sent"
    assert [e[0] for e in events(bundle)] == [kind]
    assert rows(bundle, "connection", "close_reason", "end_ns") == [(kind, START_NS + 3 * MS)]


def test_connection_refused(tmp_path: Path) -> None:
    talk = Conversation()
    talk.c(0, -5000, flags=SYN)
    talk.s(-5000, 1, flags=RST | ACK)
    bundle = imported(tmp_path, pcap(talk.records))
    assert ("connect", "refused", MS) in rows(bundle, "tcp_event", "kind", "detail", "duration_ns")
    assert rows(bundle, "connection", "close_reason") == ["reset_received"]


def test_connection_never_answered(tmp_path: Path) -> None:
    talk = Conversation()
    for wait_ms in (1000, 2000, 4000):
        talk.c(0, -5000, flags=SYN)
        talk.wait(wait_ms)
    bundle = imported(tmp_path, pcap(talk.records))
    assert events(bundle) == [("retransmit", "syn", "send")] * 2
    assert rows(bundle, "tcp_event", "kind", "detail", "duration_ns")[-1] == ("connect", "timeout", 3002 * MS)
    assert rows(bundle, "connection", "close_reason") == ["timeout"]


def test_an_answer_captured_before_its_question(tmp_path: Path) -> None:
    talk = Conversation()
    talk.s(0, 1, flags=SYN | ACK)
    talk.c(0, -5000, flags=SYN)
    talk.c(1, 1, b"abc")
    bundle = imported(tmp_path, pcap(talk.records))
    assert rows(bundle, "connection", "local_ip", "side_basis") == [(CLIENT[0], "packet")]
    assert data(bundle) == [("send", 1, b"abc")]
    assert events(bundle) == []


def test_same_ports_again(tmp_path: Path) -> None:
    first = Conversation()
    first.handshake()
    first.c(1, 1, b"one")
    first.close(4, 1)
    second = Conversation(client_isn=900_000, server_isn=70_000)
    second.now_ns = first.now_ns
    second.handshake()
    second.c(1, 1, b"two")
    third = Conversation(client_isn=12_345_678, server_isn=80_000)  # the second was never closed
    third.now_ns = second.now_ns
    third.handshake()
    third.c(1, 1, b"three")
    bundle = imported(tmp_path, pcap(first.records + second.records + third.records))
    assert rows(bundle, "socket_data", "connection_id", "payload") == [(1, b"one"), (2, b"two"), (3, b"three")]
    assert rows(bundle, "connection", "connection_id", "close_reason") == [(1, "fin"), (2, None), (3, "open")]


def test_snap_length_cuts_the_payload_and_not_the_size(tmp_path: Path) -> None:
    talk = Conversation()
    talk.handshake()
    talk.c(1, 1, b"0123456789")
    talk.c(11, 1, b"abc")
    bundle = imported(tmp_path, pcap(talk.records, snap=44))
    assert rows(bundle, "socket_data", "position", "size_bytes", "payload") == [
        (1001, 10, b"0123"),
        (1011, 3, b"abc"),
    ]
    assert events(bundle) == []


def test_state_lasts_over_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Conversation()
    talk.handshake()
    sent = 1
    for number in range(400):
        payload = bytes([number % 251]) * 700
        if number % 50 != 7:  # every fiftieth is lost
            talk.c(sent, 1, payload)
        sent += len(payload)
        if number % 50 == 20:
            talk.c(sent - 1400, 1, b"?" * 700)  # and one is sent twice
    whole = imported(tmp_path, pcap(talk.records))
    monkeypatch.setattr("kubetape.capture.pcap.file_input.WINDOW_BYTES", 5000)
    cut = imported(tmp_path, pcap(talk.records))
    for table in ("socket_data", "connection"):
        assert cut.table(table).to_pylist() == whole.table(table).to_pylist()
    lost = [e for e in events(cut) if e[0] == "lost_segment"]
    assert lost == [("lost_segment", "skipped", "send")] * 8
    assert [e for e in events(cut) if e[0] == "retransmit"] == [("retransmit", "other", "send")] * 8


def test_retired_connections_give_the_same_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = []
    for number in range(300):
        client = ("10.0.1.1", 20000 + number)
        at = START_NS + number * 1000 * MS
        records += [
            (at, tcp(client, SERVER, 10, 0, SYN)),
            (at + 1, tcp(SERVER, client, 90, 11, SYN | ACK)),
            (at + 2, tcp(client, SERVER, 11, 91, ACK, b"q%d" % number)),
            (at + 3, tcp(SERVER, client, 91, 0, RST)),
        ]
    kept = imported(tmp_path, pcap(records))
    monkeypatch.setattr("kubetape.capture.pcap.retiring.KEPT_COUNT", 20)
    monkeypatch.setattr("kubetape.capture.pcap.file_input.WINDOW_BYTES", 4000)
    retired = imported(tmp_path, pcap(records))
    for table in ("connection", "socket_data", "tcp_event"):
        assert retired.table(table).to_pylist() == kept.table(table).to_pylist()
    assert retired.row_count("connection") == 300
