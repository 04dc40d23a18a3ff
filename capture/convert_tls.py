"""Plaintext of TLS libraries -> rows of socket_data with source 'tls', tied to the connection that carried it.

A session (an SSL *, a gnutls_session_t, a *tls.Conn) belongs to a connection by one of these, the best first:

    fd       the session's socket, read from the library's own structs while it was used (Go)
    nested   a socket call of the same thread inside a call of the library (handshakes included); calls that
             needed no socket, since the library had the bytes already, belong where the session's others do
    thread   the library moved bytes through memory (Python's asyncio, proxies): the socket its thread read from right
             before, or wrote to right after. Only where most of the session's calls say the same and the connection
             carried at least as many bytes

Only connections whose bytes look like TLS come into question. A session with none of these is counted in tls_stream
and its bytes are left out. Times are never compared between threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from kubetape.capture import columns
from kubetape.capture.layouts import Layout, defines
from kubetape.capture.records import Array, Window

CALLS = (
    "handshake", "SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex", "gnutls_record_recv", "gnutls_record_send",
    "tls.Conn.Read", "tls.Conn.Write",
)  # fmt: skip
_LIBRARIES = ("openssl", "openssl", "openssl", "openssl", "openssl", "gnutls", "gnutls", "go", "go")

# A write begins when the program hands its bytes over, but is told at its end; a window's newest events wait for the
# next window (convert_data.py), which must be longer than this.
MAX_BACKDATE_NS = 10_000_000
_THREADS = 1 << 15  # told apart in one sort key beside 48 bits of time
_TIME_BITS = 48
_RECEIVE = 1


@dataclass
class Evidence:
    """Pass one over the spool: what is needed to tie sessions, a few words per event."""

    tls: list[Array] = field(default_factory=list)
    sockets: list[Array] = field(default_factory=list)
    firsts: list[Array] = field(default_factory=list)  # first positions of streams, window by window
    named: list[Array] = field(default_factory=list)
    opened: list[Array] = field(default_factory=list)
    looks: set[int] = field(default_factory=set)  # sockets whose bytes look like TLS records
    seen: set[int] = field(default_factory=set)  # sockets with any payload

    def feed(self, window: Window, layout: Layout) -> None:
        """All there is to know from a window."""
        events = self.look(window, layout)
        self.tls.append(window.events("tls_event"))
        self.named.append(window.events("tls_socket_event"))
        self.opened.append(window.events("connection_event"))
        events = events[self.may_be_tls(events["socket_id"].astype(np.int64))]
        self.sockets.append(_packed(events, "ts_ns", "socket_id", "size_bytes", "tid", "direction", "flags"))
        self.firsts.append(_first_positions(_packed(events, "socket_id", "direction", "position")))

    def may_be_tls(self, ids: Array) -> Array:
        """Where no payload was kept nothing can be said, and everything comes into question."""
        look, seen = (np.fromiter(some, np.int64, len(some)) for some in (self.looks, self.seen))
        return np.isin(ids, look) | ~np.isin(ids, seen)

    def look(self, window: Window, layout: Layout) -> Array:
        """Which connections of a window look like TLS; returns its events."""
        events = window.events("data_event")
        captured = events["captured_bytes"] >= 3
        begins = window.offsets("data_event")[captured] + layout.dtype.itemsize
        ids = events["socket_id"][captured].astype(np.int64)
        first, major, minor = (window.data[begins + i] for i in range(3))
        # RFC 8446, section 5.1: content type, then a version that begins with 3.
        record = (first >= 20) & (first <= 24) & (major == 3) & (minor <= 4)
        self.looks.update(np.unique(ids[record]).tolist())
        self.seen.update(np.unique(ids).tolist())
        return events


@dataclass
class Session:
    """One session: its library, first event, and what ties it."""

    pid: int
    session_id: int
    library: str
    connection_id: int | None
    basis: str
    tied_count: int
    call_count: int
    first_ns: int
    last_ns: int
    sent_bytes: int
    received_bytes: int
    reason: str | None = None

    def row(self, node: str) -> dict[str, Any]:
        return {
            "node": node,
            "ts_ns": self.first_ns,
            "end_ns": self.last_ns,
            "connection_id": self.connection_id,
            "library": self.library,
            "pid": self.pid,
            "basis": self.basis,
            "tied_count": self.tied_count,
            "call_count": self.call_count,
            "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes,
            "reason": self.reason,
        }


class Ties:
    """Which connection each session belongs to, and where its bytes stand in the connection's plaintext."""

    def __init__(self, evidence: Evidence) -> None:
        self.sessions: list[Session] = []
        # (pid, session) -> connection id, offset of its positions by direction; as sorted arrays for lookup
        self._keys = np.zeros(0, _KEY)
        self._connections = np.zeros(0, np.int64)
        self._offsets = np.zeros((0, 2), np.int64)
        self._evidence = evidence
        tls = np.concatenate(evidence.tls) if evidence.tls else None
        if tls is not None and len(tls):
            self._tie(tls, np.concatenate(evidence.sockets))

    def _tie(self, tls: Array, sockets: Array) -> None:
        keys, session = np.unique(_keys(tls), return_inverse=True)
        session = session.reshape(-1)
        sockets = sockets[np.isin(sockets["tid"], np.unique(tls["tid"]))]
        sockets = sockets[self._evidence.may_be_tls(sockets["socket_id"].astype(np.int64))]
        nested, before, after = _neighbours(tls, sockets)
        around = np.where(tls["direction"] == _RECEIVE, before, after)
        around = np.where(tls["call"] == 0, np.where(before >= 0, before, after), around)
        carried = _carried(sockets)
        named = self._named(keys)
        order = np.argsort(session, kind="stable")
        bounds = np.searchsorted(session[order], np.arange(len(keys) + 1))
        self._keys = keys
        self._connections = np.full(len(keys), -1, np.int64)
        for index in range(len(keys)):
            rows = order[bounds[index] : bounds[index + 1]]
            self.sessions.append(self._session(index, tls[rows], nested[rows], around[rows], named.get(index), carried))
        way = np.minimum(tls["direction"], 1).astype(np.int64)
        ends = np.zeros((len(keys), 2), np.int64)  # of each session's positions
        np.maximum.at(ends, (session, way), (tls["position"] + tls["size_bytes"]).astype(np.int64))
        self._place(ends, sockets)

    def _session(
        self,
        index: int,
        calls: Array,
        nested: Array,
        around: Array,
        named: int | None,
        carried: dict[tuple[int, int], int],
    ) -> Session:
        way = calls["direction"] == _RECEIVE
        sizes = calls["size_bytes"].astype(np.int64)
        found = Session(
            int(calls["pid"][0]), int(calls["session_id"][0]),
            _LIBRARIES[int(calls["call"].max())], None, "none", 0, len(calls),
            int(calls["enter_ns"].min()), int(calls["ts_ns"].max()),
            int(sizes[~way].sum()), int(sizes[way].sum()),
        )  # fmt: skip
        inside = nested[nested >= 0]
        beside = around[around >= 0]
        if named is not None:
            found.connection_id, found.basis, found.tied_count = named, "fd", len(calls)
        elif len(inside):
            found.connection_id, found.tied_count = _mode(inside)
            found.basis = "nested"
            if found.tied_count * 2 <= len(inside):
                found.connection_id, found.basis = None, "none"
                found.reason = "its calls used several connections"
        elif len(beside):
            best, count = _mode(beside)
            enough = all(
                total <= carried.get((best, direction), 0)
                for direction, total in ((0, found.sent_bytes), (1, found.received_bytes))
            )
            if count * 2 > len(beside) and enough:
                found.connection_id, found.basis, found.tied_count = best, "thread", count
            else:
                found.reason = "its thread served several connections, none of them clearly this one"
        else:
            found.reason = "no socket call seen near its calls"
        if found.connection_id is not None:
            self._connections[index] = found.connection_id
        return found

    def _named(self, keys: Array) -> dict[int, int]:
        """Index of a session -> connection, where the library named the socket."""
        named = np.concatenate(self._evidence.named)
        if not len(named):
            return {}
        opened = np.concatenate(self._evidence.opened)
        opened = opened[self._evidence.may_be_tls(opened["socket_id"].astype(np.int64))]
        by_ends: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
        for event in opened[np.argsort(opened["ts_ns"], kind="stable")]:
            by_ends.setdefault(_ends(event), []).append((int(event["ts_ns"]), int(event["socket_id"])))
        found: dict[int, int] = {}
        for event, key in zip(named, _keys(named), strict=True):
            index = int(np.searchsorted(keys, key))
            candidates = by_ends.get(_ends(event), [])
            if index >= len(keys) or keys[index] != key or not candidates:
                continue
            # Told when first used, which may be just after the library named it; ports are used again much later.
            earlier = [one for at, one in candidates if at <= event["ts_ns"]]
            socket_id = earlier[-1] if earlier else candidates[0][1]
            if self._evidence.may_be_tls(np.array([socket_id], np.int64))[0]:
                found[index] = socket_id
        return found

    def _place(self, own_ends: Array, sockets: Array) -> None:
        """A connection's sessions follow each other: later ones count on. Two at a time cannot both be right."""
        transformed = {
            (int(s), int(d))
            for s, d in np.unique(sockets[(sockets["flags"] & defines()["DATA_ULP"]) != 0][["socket_id", "direction"]])
        }
        rank = {"fd": 0, "nested": 1, "thread": 2, "none": 3}
        bases = self._bases()
        ends: dict[int, tuple[int, int, int]] = {}
        self._offsets = np.zeros((len(self.sessions), 2), np.int64)
        by_time = sorted(range(len(self.sessions)), key=lambda i: self.sessions[i].first_ns)
        for index in sorted(by_time, key=lambda i: rank[self.sessions[i].basis]):
            session = self.sessions[index]
            if session.connection_id is None:
                continue
            if {(session.connection_id, 0), (session.connection_id, 1)} & transformed:
                self._leave_out(index, "the kernel encrypts (kTLS): the socket calls carry the plaintext")
                continue
            known = ends.get(session.connection_id)
            if known is not None and (known[2] > session.first_ns or session.basis == "thread"):
                self._leave_out(index, "another session was using that connection")
                continue
            one = session.connection_id
            before = known[:2] if known is not None else (bases.get((one, 0), 0), bases.get((one, 1), 0))
            self._offsets[index] = before
            sent, received = own_ends[index].tolist()
            ends[one] = (before[0] + sent, before[1] + received, session.last_ns)

    def _bases(self) -> dict[tuple[int, int], int]:
        """(connection, direction) -> the stream position from which its plaintext is counted, the first one seen.

        The same at both ends of a connection, and another for each connection: so the same byte of plaintext is
        found at the other end as bytes of plain streams are.
        """
        firsts = _first_positions(np.concatenate(self._evidence.firsts))
        wanted = np.isin(firsts["socket_id"], self._connections[self._connections >= 0])
        return {(int(s), int(d)): int(p) for s, d, p in firsts[wanted].tolist()}

    def _leave_out(self, index: int, reason: str) -> None:
        session = self.sessions[index]
        session.connection_id, session.reason, session.basis, session.tied_count = None, reason, "none", 0
        self._connections[index] = -1

    def lookup(self, events: Array) -> tuple[Array, Array]:
        """(connection id or -1, position in the connection's plaintext) of each event."""
        if not len(self._keys):
            return np.full(len(events), -1, np.int64), np.zeros(len(events), np.int64)
        index = np.minimum(np.searchsorted(self._keys, _keys(events)), len(self._keys) - 1)
        ids = np.where(self._keys[index] == _keys(events), self._connections[index], -1)
        offset = self._offsets[index, np.minimum(events["direction"], 1)]
        return ids, events["position"].astype(np.int64) + offset


_KEY = np.dtype([("pid", "<u8"), ("session", "<u8")])


def _keys(events: Array) -> Array:
    keys = np.empty(len(events), _KEY)
    keys["pid"], keys["session"] = events["pid"], events["session_id"]
    return keys


def _ends(event: Any) -> tuple[Any, ...]:
    return (
        int(event["netns_id"]), event["local_ip"].tobytes(), int(event["local_port"]), event["remote_ip"].tobytes(),
        int(event["remote_port"]),
    )  # fmt: skip


def _mode(values: Array) -> tuple[int, int]:
    unique, counts = np.unique(values, return_counts=True)
    best = int(np.argmax(counts))
    return int(unique[best]), int(counts[best])


def _packed(events: Array, *names: str) -> Array:
    """These members alone: a selection of members still has the size of all."""
    fields = [(name, events.dtype.fields[name][0]) for name in names]
    result = np.empty(len(events), fields)
    for name in names:
        result[name] = events[name]
    return result


def _first_positions(streams: Array) -> Array:
    """The row with the lowest position of each socket and direction."""
    ordered = streams[np.lexsort((streams["position"], streams["direction"], streams["socket_id"]))]
    new = np.ones(len(ordered), bool)
    new[1:] = (np.diff(ordered["socket_id"]) != 0) | (np.diff(ordered["direction"]) != 0)
    return ordered[new]


def _carried(sockets: Array) -> dict[tuple[int, int], int]:
    totals: dict[tuple[int, int], int] = {}
    pairs, inverse = np.unique(sockets[["socket_id", "direction"]], return_inverse=True)
    sizes = np.bincount(inverse.reshape(-1), sockets["size_bytes"].astype(np.float64), minlength=len(pairs))
    for pair, size in zip(pairs.tolist(), sizes.tolist(), strict=True):
        totals[int(pair[0]), int(pair[1])] = int(size)
    return totals


def _neighbours(tls: Array, sockets: Array) -> tuple[Array, Array, Array]:
    """Of each call: the connection of the last socket call inside it; of the last receive before it in its thread; of
    the first send after it. -1: none."""
    nested, before, after = (np.full(len(tls), -1, np.int64) for _ in range(3))
    threads = np.unique(tls["tid"])
    start = int(min(tls["enter_ns"].min(), sockets["ts_ns"].min())) if len(sockets) else 0
    for low in range(0, len(threads), _THREADS):
        some = threads[low : low + _THREADS]
        rows = np.flatnonzero(np.isin(tls["tid"], some))
        calls = tls[rows]
        near = sockets[np.isin(sockets["tid"], some)]
        key = _sort_key(near["tid"], near["ts_ns"], some, start)
        order = np.argsort(key, kind="stable")
        near, key = near[order], key[order]
        ids = near["socket_id"].astype(np.int64)
        enter = _sort_key(calls["tid"], calls["enter_ns"], some, start)
        leave = _sort_key(calls["tid"], calls["ts_ns"], some, start)
        last = np.searchsorted(key, leave, "right") - 1
        inside = (last >= 0) & (key[last] >= enter) if len(key) else np.zeros(len(rows), bool)
        nested[rows[inside]] = ids[last[inside]]
        for way, result in ((1, before), (0, after)):
            chosen = near["direction"] == way
            keys, whose = key[chosen], ids[chosen]
            if not len(keys):
                continue
            place = np.searchsorted(keys, enter, "left") - 1 if way else np.searchsorted(keys, leave, "right")
            there = (place >= 0) & (place < len(keys))
            place = np.clip(place, 0, len(keys) - 1)
            there &= keys[place] >> _TIME_BITS == enter >> _TIME_BITS
            result[rows[there]] = whose[place[there]]
    return nested, before, after


def _sort_key(tids: Array, times: Array, threads: Array, start: int) -> Array:
    return np.searchsorted(threads, tids).astype(np.int64) << _TIME_BITS | (times.astype(np.int64) - start)


def table(node: str, window: Window, layout: Layout, ties: Ties) -> tuple[Any, int]:
    """Rows of socket_data of this window's plaintext, unsorted, and how many were cut."""
    offsets, events = window.offsets("tls_event"), window.events("tls_event")
    ids, positions = ties.lookup(events)
    chosen = (ids >= 0) & (events["size_bytes"] > 0)
    events, offsets, ids, positions = events[chosen], offsets[chosen], ids[chosen], positions[chosen]
    captured = events["captured_bytes"].astype(np.int64)
    leave, enter = events["ts_ns"].astype(np.int64), events["enter_ns"].astype(np.int64)
    sending = events["direction"] != _RECEIVE
    names = ["send", "receive"]
    result = pa.table(
        {
            "node": columns.constant(node, len(events)),
            "ts_ns": pa.array(np.where(sending, np.maximum(enter, leave - MAX_BACKDATE_NS), leave)),
            "connection_id": pa.array(ids),
            "direction": columns.labels(events["direction"].astype(np.int32), names),
            "position": pa.array(positions),
            "size_bytes": columns.integers(events["size_bytes"]),
            "call": columns.labels(np.minimum(events["call"], len(CALLS) - 1).astype(np.int32), CALLS),
            "pid": columns.integers(events["pid"], kind=pa.int32()),
            "tid": columns.integers(events["tid"], kind=pa.int32()),
            "payload": columns.payload(window.data, offsets + layout.dtype.itemsize, captured, captured == 0),
            "source": columns.constant("tls", len(events)),
            "duration_ns": pa.array(leave - enter),
        }
    )
    return result, int(((events["flags"] & defines()["DATA_CUT"]) != 0).sum())


def unread_rows(
    listed: list[dict[str, Any]], connections: list[dict[str, Any]], looks: set[int], tied: set[int]
) -> list[dict[str, Any]]:
    """Of the processes in which nothing was found (`listed`): those with TLS connections that nobody read."""
    pids = {
        row["pid"]
        for row in connections
        if row["connection_id"] in looks and row["connection_id"] not in tied and row["pid"]
    }
    return [row for row in listed if row["pid"] in pids]
