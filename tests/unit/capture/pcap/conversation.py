"""A TCP conversation between CLIENT and SERVER, one millisecond per packet, for tests to disturb."""

from __future__ import annotations

from tests.unit.capture.pcap.craft import ACK, CLIENT, FIN, SERVER, SYN, Record, tcp

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000


class Conversation:
    """Packets in the order of the calls. `c` and `s` send from the client and the server; sequence numbers are
    relative to the initial ones."""

    def __init__(self, client_isn: int = 1000, server_isn: int = 5000) -> None:
        self.isn = {CLIENT: client_isn, SERVER: server_isn}
        self.records: list[Record] = []
        self.now_ns = START_NS

    def _send(self, source: tuple[str, int], seq: int, ack: int, payload: bytes, flags: int, **more: int) -> None:
        target = SERVER if source == CLIENT else CLIENT
        packet = tcp(source, target, self.isn[source] + seq, self.isn[target] + ack, flags, payload, **more)
        self.records.append((self.now_ns, packet))
        self.now_ns += MS

    def c(self, seq: int, ack: int, payload: bytes = b"", flags: int = ACK, **more: int) -> None:
        self._send(CLIENT, seq, ack, payload, flags, **more)

    def s(self, seq: int, ack: int, payload: bytes = b"", flags: int = ACK, **more: int) -> None:
        self._send(SERVER, seq, ack, payload, flags, **more)

    def wait(self, ms: int) -> None:
        self.now_ns += ms * MS

    def handshake(self) -> None:
        self.c(0, -self.isn[SERVER], flags=SYN)
        self.s(0, 1, flags=SYN | ACK)
        self.c(1, 1)

    def close(self, client_seq: int, server_seq: int) -> None:
        self.c(client_seq, server_seq, flags=FIN | ACK)
        self.s(server_seq, client_seq + 1, flags=FIN | ACK)
        self.c(client_seq + 1, server_seq + 1)
