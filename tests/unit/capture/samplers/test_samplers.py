"""The samplers against this machine's own /proc, against a /proc made of real text, and their time budget."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kubetape.bundle import ClockAnchor, Manifest, Node
from kubetape.bundle.reader import Bundle
from kubetape.bundle.writer import BundleWriter
from kubetape.capture.samplers import TABLE_NAMES, Samplers, conntrack, network, node, processes, start
from kubetape.capture.samplers.cgroups import Hierarchies

NO_CGROUPS = Hierarchies()


def test_rows_of_this_machine_fit_the_bundle(tmp_path: Path) -> None:
    samplers = start("node-x", interval_s=0.05)
    time.sleep(0.3)
    samplers.stop()
    samplers.stop()  # again: nothing happens
    tables = samplers.tables()
    assert set(tables) == set(TABLE_NAMES)
    path = tmp_path / "s.ktape"
    with BundleWriter(path, Manifest(nodes=[Node("node-x", clock=[ClockAnchor(1, 2)])])) as writer:
        for name, table in tables.items():
            writer.write(name, table)
    bundle = Bundle(path)
    assert bundle.verify() == []
    seconds = bundle.table("node_sample").column("ts_ns").to_pylist()
    assert len(seconds) == samplers.round_count >= 4
    assert seconds == sorted(set(seconds))
    cpus = bundle.table("cpu_sample").to_pylist()
    assert {row["ts_ns"] for row in cpus} == set(seconds)
    assert len(cpus) == len(seconds) * len({row["cpu"] for row in cpus})
    assert samplers.status().event_count == sum(t.num_rows for t in tables.values())


def test_node_row_agrees_with_other_sources() -> None:
    row = node.node_row()
    assert row is not None
    assert row["memory_total_bytes"] == pytest.approx(
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), rel=0.01
    )
    assert abs(row["load1"] - os.getloadavg()[0]) < 2
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    for cpu in node.cpu_rows():
        assert 0.5 * now < sum(v for k, v in cpu.items() if k.endswith("_ns")) / 1e9 < 1.2 * now


def test_filesystem_of_the_root() -> None:
    (root,) = [row for row in node.filesystem_rows() if row["mount_point"] == "/"]
    size = os.statvfs("/")
    assert root["size_bytes"] == size.f_blocks * size.f_frsize
    assert 0 < root["free_bytes"] < root["size_bytes"]


def _fake_proc(root: Path, stat: dict[int, str]) -> str:
    for pid, text in stat.items():
        (root / str(pid)).mkdir(exist_ok=True)
        (root / str(pid) / "stat").write_text(text)
    return str(root)


STAT = "{pid} ({comm}) S 1 1 1 0 -1 4194560 100 0 0 0 {user} {system} 0 0 20 0 7 0 {start} 300000 250 18446744"


def test_busiest_process_counts_since_the_reading_before(tmp_path: Path) -> None:
    def stats(a: int, b: int, start_b: int = 50) -> dict[int, str]:
        return {
            10: STAT.format(pid=10, comm="web) server", user=a, system=1, start=40),
            11: STAT.format(pid=11, comm="db", user=b, system=2, start=start_b),
        }

    found = processes.Processes(_fake_proc(tmp_path, stats(100, 900)))
    found.scan()
    assert [row["pid"] for row in found.busiest()] == [11, 10]
    _fake_proc(tmp_path, stats(150, 900))
    (row,) = found.busiest()
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert row["command"] == "web) server"
    assert row["cpu_ns"] == 151 * tick_ns
    assert row["memory_bytes"] == 250 * os.sysconf("SC_PAGE_SIZE")
    assert row["thread_count"] == 7
    # The same number given to a new process counts from its own start, not below zero.
    _fake_proc(tmp_path, stats(150, 3, start_b=99))
    assert [(r["pid"], r["cpu_ns"]) for r in found.busiest()] == [(11, 5 * tick_ns)]


def test_vanished_process_and_missing_files_are_no_error(tmp_path: Path) -> None:
    proc = _fake_proc(tmp_path, {10: "", 11: "11 (x"})
    (tmp_path / "12").mkdir()
    samplers = Samplers("n", proc=proc, sys=str(tmp_path), hierarchies=NO_CGROUPS)
    samplers.sample(1, first=True)
    samplers.sample(2)
    samplers.sample(3, final=True)
    assert sum(t.num_rows for t in samplers.tables().values()) == 0
    assert samplers.round_count == 3


def test_file_of_unknown_form_ends_only_its_own_sampler(tmp_path: Path) -> None:
    proc = _fake_proc(tmp_path, {10: STAT.format(pid=10, comm="a", user=5, system=5, start=1)})
    (tmp_path / "loadavg").write_text("not a number\n")
    samplers = Samplers("n", proc=proc, sys=str(tmp_path), hierarchies=NO_CGROUPS)
    samplers.sample(1)
    assert samplers.tables()["process_sample"].num_rows == 1
    assert "sampler node" in samplers.status().reason


SNMP = b"""Tcp: ActiveOpens RetransSegs InErrs
Tcp: 10 3 0
Udp: InDatagrams NoPorts
Udp: 7 0
"""


def test_only_counters_that_changed() -> None:
    before = SNMP.splitlines()
    assert dict(network._pairs_of_lines(None, before)) == {
        "Tcp.ActiveOpens": b"10",
        "Tcp.RetransSegs": b"3",
        "Udp.InDatagrams": b"7",
    }
    after = SNMP.replace(b"10 3 0", b"10 5 0").splitlines()
    assert network._pairs_of_lines(before, after) == [("Tcp.RetransSegs", b"5")]
    six = [b"Ip6InReceives                   \t1", b"Icmp6InErrors                   \t0"]
    assert network._names_and_values(None, six) == [("Ip6.InReceives", b"1")]
    changed = [six[0], b"Icmp6InErrors                   \t4"]
    assert network._names_and_values(six, changed) == [("Icmp6.InErrors", b"4")]


def test_conntrack_entry_of_a_service_address() -> None:
    line = (
        "ipv4     2 tcp      6 99 TIME_WAIT src=10.244.4.10 dst=10.102.188.198 sport=41674 dport=80 "
        "src=10.244.4.11 dst=10.244.4.10 sport=8080 dport=41674 [ASSURED] mark=0 zone=0 use=2"
    )
    row = conntrack.parse_entry(line)
    assert row is not None
    assert (row["transport"], row["original_destination_ip"], row["original_destination_port"]) == (
        "tcp",
        "10.102.188.198",
        80,
    )
    assert (row["reply_source_ip"], row["reply_source_port"]) == ("10.244.4.11", 8080)
    six = "ipv6 10 udp 17 5 src=fd00:0000:0000:0000:0000:0000:0000:0001 dst=fd00::2 sport=1 dport=53 [UNREPLIED] "
    six += "src=fd00::2 dst=fd00:0000:0000:0000:0000:0000:0000:0001 sport=53 dport=1 mark=0"
    row = conntrack.parse_entry(six)
    assert row is not None
    assert row["original_source_ip"] == "fd00::1"
    assert conntrack.parse_entry("ipv4 2 icmp 1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=1") is None


def test_conntrack_keeps_translated_entries_first(tmp_path: Path) -> None:
    plain = "udp 17 6 src=1.1.1.1 dst=2.2.2.2 sport={n} dport=53 src=2.2.2.2 dst=1.1.1.1 sport=53 dport={n} use=1"
    translated = "udp 17 6 src=1.1.1.1 dst=9.9.9.9 sport=7 dport=53 src=2.2.2.2 dst=1.1.1.1 sport=53 dport=7 use=1"
    lines = [plain.format(n=n) for n in range(10)] + [translated]
    (tmp_path / "nf_conntrack").write_text("\n".join(lines))
    rows, left_out = conntrack.entry_rows(str(tmp_path), entries_max=4)
    assert rows[0]["original_destination_ip"] == "9.9.9.9"
    assert (len(rows), left_out) == (4, 7)


def test_conntrack_counters_of_all_cpus(tmp_path: Path) -> None:
    (tmp_path / "net" / "stat").mkdir(parents=True)
    (tmp_path / "sys" / "net" / "netfilter").mkdir(parents=True)
    (tmp_path / "sys" / "net" / "netfilter" / "nf_conntrack_max").write_text("262144\n")
    (tmp_path / "net" / "stat" / "nf_conntrack").write_text(
        "entries  clashres found insert insert_failed drop early_drop\n"
        "000000ff 0 0 0 00000002 00000001 00000000\n000000ff 0 0 0 00000003 00000000 0000000a\n"
    )
    assert conntrack.sample_row(str(tmp_path / "net"), True, str(tmp_path)) == {
        "entry_count": 255,
        "entry_max": 262144,
        "insert_failed_count": 5,
        "drop_count": 1,
        "early_drop_count": 10,
    }


def test_items_are_taken_in_turn_within_the_budget() -> None:
    samplers = Samplers("n", hierarchies=NO_CGROUPS)
    taken = []
    for _ in range(4):
        for item in samplers._in_turn("x", list("abcde"), budget_ns=3_000_000):
            taken.append(item)
            time.sleep(0.002)
    # Two at a time (2 ms each against 3 ms), each continuing where the one before stopped.
    assert "".join(taken).startswith("abcde")
    assert len(taken) < 20
    assert list(samplers._in_turn("y", list("abc"), budget_ns=1 << 62)) == ["a", "b", "c"]


def test_listener_with_its_owner_and_queue() -> None:
    samplers = Samplers("n", hierarchies=NO_CGROUPS)
    server = socket.create_server(("127.0.0.1", 0), backlog=5)
    waiting = socket.create_connection(server.getsockname())
    # Only a connection that has reached the accept queue counts.
    deadline = time.monotonic() + 5
    rows: list[dict[str, Any]] = []
    while time.monotonic() < deadline and not any(row["backlog_count"] == 1 for row in rows):
        samplers.sample(time.monotonic_ns())
        port = server.getsockname()[1]
        rows = [row for row in samplers.rows()["listener"] if row["local_port"] == port]
    server.close()
    waiting.close()
    if "netlink" in samplers.notes:
        pytest.skip(samplers.notes["netlink"])
    row = next(row for row in rows if row["backlog_count"] == 1)
    assert (row["local_ip"], row["transport"], row["backlog_max"]) == ("127.0.0.1", "tcp", 5)
    assert row["pid"] == os.getpid()
    for namespace in samplers._namespaces.values():
        namespace.close()


def test_thread_ends_with_stop() -> None:
    samplers = start("n", interval_s=30)
    samplers.stop()
    assert not [t for t in threading.enumerate() if t.name == "kubetape-samplers"]
    assert samplers.round_count == 2
