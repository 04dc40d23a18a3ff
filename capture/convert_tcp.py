"""tcp_event and tcp_sample rows from the spool's state, packet and sample events."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from kubetape.capture import columns
from kubetape.capture.layouts import defines
from kubetape.capture.records import Array

STATES = (
    "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT",
    "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV",
)  # fmt: skip
SYN_SENT, ESTABLISHED, CLOSED = 2, 1, 7
_CONNECT_ERRORS = {104: "reset", 110: "timeout", 111: "refused", 101: "unreachable", 113: "unreachable", 0: "aborted"}
_CAUSES = ("other", "syn", "fast", "timeout", "tail_loss")
_KINDS = (None, "retransmit", "retransmit", "reset_sent", "reset_received", "drop", "listen_overflow")
_INFINITE_SSTHRESH = 0x7FFFFFFF


def connect_result(new_state: int, error: int) -> str:
    """Words for how connect(2) ended; 'aborted': given up by the process itself."""
    return "ok" if new_state == ESTABLISHED else _CONNECT_ERRORS.get(error, "unreachable")


def state_table(node: str, events: Array, connections: Array) -> Any:
    """tcp_event rows of state changes; `connections` are connection_event records sorted by socket_id."""
    pairs = events["old_state"].astype(np.int64) * 16 + events["new_state"]
    unique, inverse = np.unique(pairs, return_inverse=True)
    names = [f"{_state(int(p) >> 4)}>{_state(int(p) & 15)}" for p in unique]
    duration = events["duration_ns"].astype(np.int64)
    state = {
        "kind": columns.constant("state", len(events)),
        "detail": columns.labels(inverse.reshape(-1), names) if names else columns.constant("", 0),
        **_common(node, events, connections),
        "duration_ns": pa.array(duration, mask=duration == 0),
    }
    ended = (events["old_state"] == SYN_SENT) & np.isin(events["new_state"], (ESTABLISHED, CLOSED))
    done = events[ended]
    results = [connect_result(int(n), int(e)) for n, e in zip(done["new_state"], done["error"], strict=True)]
    connect = {
        "kind": columns.constant("connect", len(done)),
        "detail": pa.array(results, pa.string()).dictionary_encode(),
        **_common(node, done, connections),
        "duration_ns": columns.integers(done["duration_ns"]),
    }
    return pa.concat_tables([pa.table(state), pa.table(connect)]).unify_dictionaries()


def _state(number: int) -> str:
    return STATES[number] if number < len(STATES) else str(number)


def _common(node: str, events: Array, connections: Array) -> dict[str, Any]:
    at = np.searchsorted(connections["socket_id"], events["socket_id"])
    at = np.minimum(at, max(0, len(connections) - 1))
    found: Array = np.zeros(len(events), connections.dtype)
    missing: Array = np.ones(len(events), bool)
    if len(connections):
        found = connections[at]
        missing[:] = found["socket_id"] != events["socket_id"]
    pids = events["pid"]
    return {
        "node": columns.constant(node, len(events)),
        "ts_ns": columns.integers(events["ts_ns"]),
        "connection_id": columns.integers(events["socket_id"], missing),
        "local_ip": columns.addresses(found["local_ip"], missing),
        "local_port": columns.integers(found["local_port"], missing, pa.int32()),
        "remote_ip": columns.addresses(found["remote_ip"], missing),
        "remote_port": columns.integers(found["remote_port"], missing, pa.int32()),
        "netns_id": columns.integers(found["netns_id"], missing),
        "pid": columns.integers(pids, pids == 0, pa.int32()),
    }


def packet_table(
    node: str,
    events: Array,
    ids: Array,
    drop_reasons: dict[int, str],
    reset_reasons: dict[int, str],
    symbols: dict[int, str],
) -> Any:
    """tcp_event rows of retransmissions, resets and drops. ids: connection id of each event, 0 for none."""
    marks = defines()
    details: list[str | None] = []
    for what, reason in zip(events["what"].tolist(), events["reason"].tolist(), strict=True):
        if what == marks["PACKET_RETRANSMIT"]:
            details.append(_CAUSES[reason] if reason < len(_CAUSES) else "other")
        elif what == marks["PACKET_SYNACK_RETRANSMIT"]:
            details.append("synack")
        elif what == marks["PACKET_RESET_SENT"]:
            details.append(reset_reasons.get(reason))
        elif what in (marks["PACKET_DROP"], marks["PACKET_LISTEN_OVERFLOW"]):
            details.append(drop_reasons.get(reason, str(reason)))
        else:
            details.append(None)
    no_address: Array = np.logical_not(events["local_ip"].any(axis=1) | events["remote_ip"].any(axis=1))
    no_position: Array = np.equal(events["has_sequence"], 0)
    location = [symbols.get(a) if a else None for a in events["location"].tolist()]
    return pa.table(
        {
            "node": columns.constant(node, len(events)),
            "ts_ns": columns.integers(events["ts_ns"]),
            "connection_id": pa.array(ids, mask=ids == 0),
            "kind": columns.labels(events["what"].astype(np.int32), _KINDS),
            "detail": pa.array(details, pa.string()).dictionary_encode(),
            "direction": columns.labels(events["direction"].astype(np.int32), ["send", "receive"]),
            "position": columns.integers(events["sequence"], no_position),
            "size_bytes": columns.integers(events["size_bytes"]),
            "local_ip": columns.addresses(events["local_ip"], no_address),
            "local_port": columns.integers(events["local_port"], no_address, pa.int32()),
            "remote_ip": columns.addresses(events["remote_ip"], no_address),
            "remote_port": columns.integers(events["remote_port"], no_address, pa.int32()),
            "netns_id": columns.integers(events["netns_id"], events["netns_id"] == 0),
            "pid": columns.integers(events["pid"], events["pid"] == 0, pa.int32()),
            "symbol": pa.array(location, pa.string()).dictionary_encode(),
        }
    )


def sample_table(node: str, events: Array) -> Any:
    """tcp_sample rows of the kernel's samples."""
    marks = defines()
    reason = (events["reason"] == marks["SAMPLE_CLOSE"]).astype(np.int32)
    no_rtt = events["srtt_us8"] == 0
    min_rtt = events["min_rtt_us"].astype(np.int64)
    interval = events["rate_interval_us"].astype(np.int64)
    rate = events["rate_delivered"].astype(np.int64) * events["mss_bytes"] * 1_000_000 // np.maximum(interval, 1)
    plain32 = ("cwnd_segments", "lost_segments", "unacked_segments", "reordering")
    plain64 = (
        "sent_bytes", "acked_bytes", "received_bytes", "sent_segments", "received_segments", "sent_data_segments",
        "retransmit_count", "send_queue_bytes", "receive_queue_bytes", "send_window_bytes", "receive_window_bytes",
    )  # fmt: skip
    # A queue is a difference of sequence numbers; SYN and FIN count in them and can make it -1.
    queue = {
        name: np.where(events[name] > 1 << 31, 0, events[name]) for name in ("send_queue_bytes", "receive_queue_bytes")
    }
    return pa.table(
        {
            "node": columns.constant(node, len(events)),
            "ts_ns": columns.integers(events["ts_ns"]),
            "connection_id": columns.integers(events["socket_id"]),
            "reason": columns.labels(reason, ["periodic", "close"]),
            "srtt_ns": columns.integers(events["srtt_us8"].astype(np.int64) * 125, no_rtt),
            "rttvar_ns": columns.integers(events["rttvar_us4"].astype(np.int64) * 250, no_rtt),
            "min_rtt_ns": columns.integers(min_rtt * 1000, (min_rtt == 0) | (min_rtt == 0xFFFFFFFF)),
            "ssthresh_segments": columns.integers(
                events["ssthresh_segments"], events["ssthresh_segments"] >= _INFINITE_SSTHRESH, pa.int32()
            ),
            "delivery_rate_bps": pa.array(rate, mask=interval == 0),
            **{name: columns.integers(events[name], kind=pa.int32()) for name in plain32},
            **{name: columns.integers(queue.get(name, events[name])) for name in plain64},
        }
    )
