"""The connection table: sockets met by the probes, peers of datagram sockets, and those that only existed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kubetape.capture.columns import address_text
from kubetape.capture.convert_tcp import CLOSED, SYN_SENT
from kubetape.capture.layouts import defines
from kubetape.capture.records import Array

TCP, UDP, MPTCP = 6, 17, 262
_LISTEN = 10
_ETIMEDOUT = 110
LISTED_ID_BASE = 1 << 51

Row = dict[str, Any]
Key = tuple[int, int, str, int, str, int]  # netns, protocol, local ip and port, remote ip and port


@dataclass
class Evidence:
    """What the recording knows of sockets besides their own events.

    listed_start, listed_end: rows of `sockets` frames (dicts); None where no list could be made.
    """

    owners: Array
    states: Array
    packets: Array
    packet_ids: Array
    listed_start: list[Row]
    listed_end: list[Row]
    ephemeral_low: int = 32768
    datagrams: list[tuple[int, bytes, int, int, int, int, int]] = field(default_factory=list)


def once(events: Array) -> Array:
    """Each socket's first announcement; a recording that gives up its oldest part asks for them again and again."""
    _, first = np.unique(events["socket_id"], return_index=True)
    return events if len(first) == len(events) else events[np.sort(first)]


def key_of(row: Row) -> Key:
    return (row["netns_id"], row["protocol"], row["local_ip"], row["local_port"], row["remote_ip"], row["remote_port"])


def connection_rows(node: str, events: Array, known: Evidence) -> tuple[list[Row], dict[Key, int]]:
    """Rows of `connection`, and the connection id of each five-tuple (the latest, where one was used twice)."""
    marks = defines()
    owner = {int(e["socket_id"]): e for e in known.owners[::-1]}
    closed = {int(e["socket_id"]): e for e in known.states if e["new_state"] == CLOSED}
    resets: dict[int, str] = {}
    for what, connection in zip(known.packets["what"].tolist(), known.packet_ids.tolist(), strict=True):
        if what == marks["PACKET_RESET_SENT"]:
            resets[connection] = "reset_sent"
        elif what == marks["PACKET_RESET_RECEIVED"]:
            resets[connection] = "reset_received"
    listening = {(r["netns_id"], r["local_port"]) for r in known.listed_start if r["state"] == _LISTEN}
    before = {key_of(r): r for r in known.listed_start}
    after = {key_of(r) for r in known.listed_end}
    has_end_list = bool(known.listed_end)
    datagrams: dict[int, list[tuple[int, bytes, int, int, int, int, int]]] = {}
    for one in known.datagrams:
        datagrams.setdefault(one[0], []).append(one)

    rows: list[Row] = []
    index: dict[Key, int] = {}
    for event in events:
        socket_id = int(event["socket_id"])
        protocol = int(event["protocol"])
        row: Row = {
            "node": node,
            "connection_id": socket_id,
            "transport": "udp" if protocol == UDP else "tcp",
            "local_ip": address_text(event["local_ip"].tobytes()),
            "local_port": int(event["local_port"]),
            "remote_ip": address_text(event["remote_ip"].tobytes()),
            "remote_port": int(event["remote_port"]),
            "netns_id": int(event["netns_id"]),
            "cgroup_id": int(event["cgroup_id"]) or None,
            "pid": int(event["pid"]) or None,
            "start_ns": int(event["start_ns"]) or None,
            "existed_before": False,
        }
        key = (row["netns_id"], protocol, row["local_ip"], row["local_port"], row["remote_ip"], row["remote_port"])
        listed = before.get(key)
        if socket_id in owner and row["pid"] is None:
            row["pid"] = int(owner[socket_id]["pid"])
            row["cgroup_id"] = int(owner[socket_id]["cgroup_id"]) or None
        if row["pid"] is None and listed:
            row["pid"], row["cgroup_id"] = listed.get("pid"), listed.get("cgroup_id")
        if protocol == UDP:
            _datagram_socket(row, event, listed, has_end_list and key not in after)
            if socket_id in datagrams and not row["remote_port"]:
                for one in datagrams[socket_id]:
                    peer = _peer_row(row, one, known.ephemeral_low)
                    index[(*key[:4], peer["remote_ip"], peer["remote_port"])] = peer["connection_id"]
                    rows.append(peer)
                continue
            if not row["remote_port"]:
                continue  # none of its datagrams were wanted, or could be kept
        else:
            _stream_side(row, int(event["origin"]), marks, listening)
            row["existed_before"] = row["start_ns"] is None
            row["close_reason"] = "open"
            if socket_id in closed:
                end = closed[socket_id]
                row["end_ns"] = int(end["ts_ns"])
                row["close_reason"] = _close_reason(end, resets.get(socket_id))
        index[key] = row["connection_id"]
        rows.append(row)
    _add_listed(node, rows, index, known, listening)
    return rows, index


def _close_reason(end: Any, reset: str | None) -> str | None:
    if int(end["error"]) == _ETIMEDOUT:
        return "timeout"
    if reset:
        return reset
    # A connect that failed for another reason never was a connection with a FIN.
    return None if int(end["old_state"]) == SYN_SENT else "fin"


def _stream_side(row: Row, origin: int, marks: dict[str, int], listening: set[tuple[int, int]]) -> None:
    if origin == marks["ORIGIN_CONNECT"]:
        row["side"], row["side_basis"] = "client", "state"
    elif origin == marks["ORIGIN_ACCEPT"]:
        row["side"], row["side_basis"] = "server", "state"
    else:
        listens = (row["netns_id"], row["local_port"]) in listening
        row["side"], row["side_basis"] = ("server" if listens else "client"), "listener"


def _datagram_socket(row: Row, event: Any, listed: Row | None, gone: bool) -> None:
    """A connected datagram socket is a client's; connect(2) is what clients do."""
    row["side"], row["side_basis"] = "client", "state"
    row["existed_before"] = listed is not None
    row["start_ns"] = None if listed else int(event["ts_ns"])
    row["close_reason"] = None if gone else "open"


def _peer_row(row: Row, one: tuple[int, bytes, int, int, int, int, int], ephemeral_low: int) -> Row:
    """One peer of an unconnected datagram socket: a socket on a fixed port serves, else whoever spoke first asks."""
    _, ip, port, connection_id, first_ns, direction, pid = one
    fixed = 0 < row["local_port"] < ephemeral_low
    peer = dict(row, connection_id=connection_id, remote_ip=address_text(ip), remote_port=port, pid=pid)
    if fixed and (port >= ephemeral_low or direction == 1):
        peer["side"], peer["side_basis"] = "server", "port"
    else:
        peer["side"], peer["side_basis"] = ("client" if direction == 0 else "server"), "state"
    if not row["existed_before"]:
        peer["start_ns"] = first_ns
    return peer


def _add_listed(
    node: str, rows: list[Row], index: dict[Key, int], known: Evidence, listening: set[tuple[int, int]]
) -> None:
    """TCP connections that existed at the start and did nothing during the recording."""
    count = 0
    for one in known.listed_start:
        if (
            one["protocol"] != TCP
            or one["state"] in (_LISTEN, CLOSED)
            or not one["inode"]
            or not one.get("in_scope", True)
        ):
            continue
        key = key_of(one)
        if key in index:
            continue
        listens = (one["netns_id"], one["local_port"]) in listening
        index[key] = LISTED_ID_BASE + count
        count += 1
        rows.append(
            {
                "node": node,
                "connection_id": index[key],
                "transport": "tcp",
                "side": "server" if listens else "client",
                "side_basis": "listener",
                "local_ip": one["local_ip"],
                "local_port": one["local_port"],
                "remote_ip": one["remote_ip"],
                "remote_port": one["remote_port"],
                "netns_id": one["netns_id"],
                "cgroup_id": one.get("cgroup_id"),
                "pid": one.get("pid"),
                "existed_before": True,
                "close_reason": "open",
            }
        )


def packet_connection_ids(packets: Array, connections: Array) -> Array:
    """Connection id of each packet event: the kernel's, else by five-tuple and network namespace; 0 for none."""
    ids = packets["socket_id"].astype(np.int64)
    unknown = np.flatnonzero(ids == 0)
    if not len(unknown) or not len(connections):
        return ids
    table: dict[tuple[bytes, bytes, int, int, int], list[tuple[int, int]]] = {}
    for event in connections:
        key = (
            event["local_ip"].tobytes(), event["remote_ip"].tobytes(), int(event["local_port"]),
            int(event["remote_port"]), int(event["netns_id"]),
        )  # fmt: skip
        table.setdefault(key, []).append((int(event["ts_ns"]), int(event["socket_id"])))
    for at in unknown.tolist():
        packet = packets[at]
        key = (
            packet["local_ip"].tobytes(), packet["remote_ip"].tobytes(), int(packet["local_port"]),
            int(packet["remote_port"]), int(packet["netns_id"]),
        )  # fmt: skip
        uses = table.get(key)
        if uses:
            earlier = [u for u in uses if u[0] <= int(packet["ts_ns"])]
            ids[at] = (earlier[-1] if earlier else uses[0])[1]
    return ids
