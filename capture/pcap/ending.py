"""What is only known when the last packet has been read: bytes that never came, connections that never were."""

from __future__ import annotations

from kubetape.capture.pcap.flows import Bounds, Connection
from kubetape.capture.pcap.strays import signed
from kubetape.capture.pcap.tcp import UNSEEN, TcpStreams
from kubetape.capture.pcap.transport import TCP

# A SYN younger than this at the end of the capture may still be answered; TCP repeats it after 1 s (RFC 6298).
CONNECT_WAIT_NS = 1_000_000_000


def finish(connection: Connection, streams: TcpStreams, end_ns: int) -> None:
    """Nothing more will come: record lost segments and an attempt without answer, close what was replaced.

    end_ns: time of the last packet so far.
    """
    if connection.protocol != TCP:
        return
    _lost(connection, streams)
    connection.bounds = (_bounds(connection, streams, 0), _bounds(connection, streams, 1))
    _unanswered(connection, streams, end_ns)
    if connection.superseded and not connection.closed:
        connection.end_ns, connection.close_reason = last_seen_ns(connection, streams), None


def last_seen_ns(connection: Connection, streams: TcpStreams) -> int:
    """Time of its last packet, of either transport."""
    pair = streams.last_ns.values[2 * connection.number : 2 * connection.number + 2]
    return max(int(pair.max()), connection.first_ns)


def _bounds(connection: Connection, streams: TcpStreams, sender: int) -> Bounds:
    """Where what this end sent began and ended, whether or not the capture has those bytes.

    It begins after the SYN (RFC 9293, section 3.4) and ends at the last number sent or acknowledged. A FIN counts
    one number: where none was seen, one number acknowledged beyond the last byte is taken for it.
    """
    direction = 2 * connection.number + sender
    began, reached = int(streams.began.values[direction]), int(streams.reached.values[direction])
    acked = int(streams.acked.values[direction ^ 1])
    isn = connection.isn[sender]
    if began == UNSEEN:
        return None, None
    first = None if isn is None else began + signed(isn + 1 - began)
    if connection.fin[sender]:
        return first, max(reached, acked) - 1
    return first, reached if acked == UNSEEN or acked <= reached + 1 else acked


def _lost(connection: Connection, streams: TcpStreams) -> None:
    """Holes that were never filled, and bytes acknowledged beyond the last one seen."""
    for sender in (0, 1):
        direction = 2 * connection.number + sender
        peer_acked = int(streams.acked.values[direction ^ 1])
        reached = int(streams.reached.values[direction])
        holes = streams.holes.pop(direction, None)
        for start, end, ts_ns in (*holes.given_up, *holes.ranges) if holes else ():
            detail = "acked" if peer_acked >= end else "skipped"
            streams.events.add("lost_segment", ts_ns, connection.number, sender, detail, start, end - start)
        # Of a direction never seen at all it is not known where it began.
        if reached != UNSEEN and peer_acked != UNSEEN and peer_acked > reached:
            # The FIN of an end that was not seen counts one.
            ts_ns = int(streams.acked_ns.values[direction ^ 1])
            streams.events.add("lost_segment", ts_ns, connection.number, sender, "acked", reached, peer_acked - reached)


def _unanswered(connection: Connection, streams: TcpStreams, end_ns: int) -> None:
    if connection.syn_ns is None or connection.established_ns is not None or connection.closed:
        return
    client = 2 * connection.number + connection.client
    isn = connection.isn[connection.client]
    went_on = isn is not None and int(streams.reached.values[client]) & 0xFFFFFFFF != (isn + 1) & 0xFFFFFFFF
    heard = int(streams.reached.values[client ^ 1]) != UNSEEN or int(streams.acked.values[client]) != UNSEEN
    waited_ns = (last_seen_ns(connection, streams) if connection.superseded else end_ns) - connection.syn_ns
    if went_on or heard or waited_ns < CONNECT_WAIT_NS:
        return
    last_ns = last_seen_ns(connection, streams)
    streams.events.add("connect", last_ns, connection.number, detail="timeout", duration_ns=last_ns - connection.syn_ns)
    connection.end_ns, connection.close_reason = last_ns, "timeout"
