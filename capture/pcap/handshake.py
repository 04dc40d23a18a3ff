"""Making and ending of TCP connections: the few packets with SYN, FIN or RST, in time order.

A SYN begins a new connection on a 5-tuple when the one before has ended, or had another initial sequence
number (RFC 9293 section 3.5); everything else belongs to the connection at hand.
"""

from __future__ import annotations

import numpy as np

from kubetape.capture.pcap.events import EventLog
from kubetape.capture.pcap.flows import Connection, FlowTable
from kubetape.capture.pcap.packets import Bools, Ints
from kubetape.capture.pcap.transport import Layer4

FIN, SYN, RST, ACK = 1, 2, 4, 16
# A second copy of the same packet on its way through the same host (bridge, tunnel, `-i any`).
COPY_WITHIN_NS = 1_000_000_000


def assign_connections(
    packets: Layer4, flow: Ints, sender: Ints, flows: FlowTable, events: EventLog
) -> tuple[Ints, Bools]:
    """Connection number of each TCP packet of a window (time-ordered), and which control packets are mere copies.

    Connections are made, and their beginnings and ends recorded, on the way.
    """
    control = packets.flags & (SYN | FIN | RST) != 0
    local_flows, first, local = np.unique(flow, return_index=True, return_inverse=True)
    at_start = np.array(
        [c.number if (c := flows.current.get(f)) is not None else -1 for f in local_flows.tolist()], np.int64
    )
    # Flows unknown so far get their connection from their first packet, whatever it is.
    control[first[at_start < 0]] = True
    copies = np.zeros(len(packets), bool)
    which = np.nonzero(control)[0]
    begins: list[tuple[int, int]] = []
    columns = (packets.ts_ns, flow, sender, packets.flags, packets.seq, packets.ack, packets.label, packets.ip_id)
    for i, *values in zip(which.tolist(), *(c[which].tolist() for c in columns), strict=True):
        ts_ns, f, s, flags, seq, ack, label, ip_id = values
        before = flows.current.get(f)
        identity = (s, flags, seq, ack, ip_id)
        if (
            before is not None
            and before.last_control[1:] == identity
            and ip_id > 0
            and ts_ns - before.last_control[0] <= COPY_WITHIN_NS
        ):
            copies[i] = True
            continue
        connection = _one(flows, events, ts_ns, f, s, flags, seq, ack, label)
        if flags & (SYN | FIN | RST):
            connection.last_control = (ts_ns, *identity)
        if connection is not before:
            begins.append((i, connection.number))
    if not begins:
        return at_start[local], copies
    if len(set(flow[[i for i, _ in begins]].tolist())) == len(begins) and all(
        at_start[local[i]] < 0 for i, _ in begins
    ):
        # The common case: every new connection begins with its flow.
        for i, number in begins:
            at_start[local[i]] = number
        return at_start[local], copies
    return _spread(local, at_start, begins), copies


def _spread(local: Ints, at_start: Ints, begins: list[tuple[int, int]]) -> Ints:
    """Connection per packet, where connections may begin in the middle of a window."""
    order = np.argsort(local, kind="stable")
    marks = np.full(len(local), -1, np.int64)
    for i, number in begins:
        marks[i] = number
    marks = marks[order]
    sorted_local = local[order]
    starts = np.nonzero(np.append(True, sorted_local[1:] != sorted_local[:-1]))[0]
    marks[starts] = np.where(marks[starts] >= 0, marks[starts], at_start[sorted_local[starts]])
    last_mark = np.maximum.accumulate(np.where(marks >= 0, np.arange(len(marks)), 0))
    result = np.empty(len(local), np.int64)
    result[order] = marks[last_mark]
    return result


def _one(
    flows: FlowTable, events: EventLog, ts_ns: int, flow: int, sender: int, flags: int, seq: int, ack: int, label: int
) -> Connection:
    """The connection one control packet (or first packet) belongs to, with its state moved on."""
    connection = flows.current.get(flow)
    if flags & RST:
        if connection is None:
            connection = flows.connect(flow, ts_ns, label, None, sender)
        _reset(connection, events, ts_ns, sender)
        return connection
    if flags & SYN:
        if connection is None or _begins_anew(connection, ts_ns, sender, flags, seq, ack):
            client = 1 - sender if flags & ACK else sender
            connection = flows.connect(flow, ts_ns, label, client, sender)
        _synchronise(connection, flows, events, ts_ns, sender, flags, seq, ack)
        return connection
    if connection is None:
        connection = flows.connect(flow, ts_ns, label, None, sender)
    if flags & FIN and not connection.fin[sender]:
        connection.fin[sender] = True
        if connection.fin[1 - sender] and not connection.closed:
            _close(connection, events, ts_ns, "fin", 1 - sender)
    return connection


def _begins_anew(connection: Connection, ts_ns: int, sender: int, flags: int, seq: int, ack: int) -> bool:
    isn = connection.isn[sender]
    if connection.end_ns is not None and (isn != seq or ts_ns - connection.end_ns > COPY_WITHIN_NS):
        return True
    if isn == seq:
        return False
    if flags & ACK:
        if isn is None:  # joined in the middle: a handshake this much later is another connection's
            return connection.start_ns is None and ts_ns - connection.first_ns > COPY_WITHIN_NS
        # A server may answer a second SYN with a second number (SYN cookies): the client's number decides.
        other = connection.isn[1 - sender]
        return other is None or ack != (other + 1) & 0xFFFFFFFF
    if isn is not None:
        return True
    if connection.answered == (seq + 1) & 0xFFFFFFFF:
        return False  # the answer was captured before the question
    # Simultaneous open: both ends sent a SYN, neither has answered yet.
    return not (connection.isn[1 - sender] is not None and connection.established_ns is None)


def _synchronise(
    connection: Connection, flows: FlowTable, events: EventLog, ts_ns: int, sender: int, flags: int, seq: int, ack: int
) -> None:
    again = connection.isn[sender] == seq
    connection.isn[sender] = seq
    if connection.start_ns is None:
        connection.start_ns = ts_ns
    if again:
        detail = "synack" if flags & ACK else "syn"
        events.add("retransmit", ts_ns, connection.number, sender, detail, seq, 0)
    if not flags & ACK:
        if connection.syn_ns is None:
            connection.syn_ns = ts_ns
        return
    connection.answered = ack
    if connection.client != 1 - sender or connection.basis != "packet":
        flows.set_client(connection, 1 - sender)
    if connection.established_ns is None and not connection.closed:
        connection.established_ns = ts_ns
        if connection.syn_ns is not None:
            took_ns = ts_ns - connection.syn_ns
            events.add("connect", ts_ns, connection.number, detail="ok", duration_ns=took_ns)
            events.add("state", ts_ns, connection.number, detail="SYN_SENT>ESTABLISHED", duration_ns=took_ns)


def _reset(connection: Connection, events: EventLog, ts_ns: int, sender: int) -> None:
    kind = "reset_sent" if sender == connection.client else "reset_received"
    events.add(kind, ts_ns, connection.number, sender)
    if connection.closed:
        return
    if connection.syn_ns is not None and connection.established_ns is None and sender != connection.client:
        took_ns = ts_ns - connection.syn_ns
        events.add("connect", ts_ns, connection.number, detail="refused", duration_ns=took_ns)
        events.add("state", ts_ns, connection.number, sender, "SYN_SENT>CLOSE", duration_ns=took_ns)
        connection.end_ns, connection.close_reason = ts_ns, kind
        return
    _close(connection, events, ts_ns, kind, sender)


def _close(connection: Connection, events: EventLog, ts_ns: int, reason: str, sender: int) -> None:
    """`sender`: who ended it (of two FINs, the first)."""
    connection.end_ns, connection.close_reason = ts_ns, reason
    since = connection.established_ns
    duration_ns = {} if since is None else {"duration_ns": ts_ns - since}
    events.add("state", ts_ns, connection.number, sender, "ESTABLISHED>CLOSE", **duration_ns)
