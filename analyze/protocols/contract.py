"""The contract between the engine and a protocol: bytes in, requests out.

A protocol is a folder with `types.py` (frames), `parse.py` (bytes -> frames), `stitch.py` (frames ->
requests) and an `__init__.py` that defines `PROTOCOL: Protocol`. The engine (engine.py) owns the loop, the
gaps, the resynchronisation and the clock; a decoder owns only the meaning of bytes.

The whole recording is there when decoding begins: a decoder sees all contiguous captured bytes after a frame's
start at once, so "wait for more" does not exist. What exists is said by the value `Decoder.parse` returns:

    (size, frame)  a frame of `size` bytes of the stream. `size` may reach past the bytes given, where the
                   header declares a length whose bytes were cut or lost: the engine goes on behind it.
    CUT            a frame begins here, but the captured bytes end before it can be understood.
    INVALID        these bytes are not a frame: the engine looks for the next boundary.
    WAIT           the other direction must be read further first. The engine comes back when it was; where the
                   other direction has ended (`Decoder.at_end`) or waits too, WAIT counts as CUT.

Frames of both directions reach `on_frame` in the order in which their first bytes were seen.
A decoder never raises on bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Final, Literal

from kubetape.analyze.protocols.turns import Plain, Turns
from kubetape.analyze.streams import Span, Stream


class Outcome(Enum):
    CUT = "cut"
    INVALID = "invalid"
    WAIT = "wait"


CUT: Final = Outcome.CUT
INVALID: Final = Outcome.INVALID
WAIT: Final = Outcome.WAIT

Parsed = tuple[int, Any] | Outcome

# Who sent the bytes. Plain integers: they index pairs on the hot path.
Side = Literal[0, 1]
CLIENT: Final[Side] = 0
SERVER: Final[Side] = 1


@dataclass(slots=True)
class Request:
    """One row of `request` as a decoder knows it; names, and words of the values, as in PROTOCOLS.md.

    attributes: what the protocol has to say beyond the common columns, JSON-able. inferred: names of
    columns whose value was not in these bytes but concluded from elsewhere.
    """

    operation: str | None = None
    resource: str | None = None
    statement: str | None = None
    status: str | None = None
    is_error: bool = False
    error_kind: str | None = None
    outcome: str | None = None  # None: the engine says 'complete', 'no_response', 'no_request' or 'truncated'
    stream_id: int | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    error_message: str | None = None
    rows_sent: int | None = None
    rows_affected: int | None = None
    parameters: str | None = None
    attributes: dict[str, Any] | None = None
    inferred: str | None = None
    protocol: str | None = None  # None: the decoder's own; 'grpc' of an http2 decoder
    # Filled by `Decoder.emit`.
    request: Span | None = None
    response: Span | None = None
    connection_id: int = 0


@dataclass(slots=True)
class Sample:
    """What detection may look at: the beginnings of both directions, seen as if `client` were the client's.

    client, server: up to SAMPLE_BYTES of the first run of each direction (b"" where there is none);
    client_runs, server_runs: the first bytes of later runs and chunks, places where a message is likely to begin.
    server_port, client_port; datagrams: each run is one datagram; from_start: the connection's first bytes are there.
    """

    client: bytes
    server: bytes
    client_runs: list[bytes]
    server_runs: list[bytes]
    client_port: int
    server_port: int
    datagrams: bool
    from_start: bool


@dataclass(slots=True)
class Connection:
    """What a decoder may know of its connection beside the bytes.

    shared: a dictionary common to all connections of one protocol in the analysis, for knowledge that
    outlives a connection (prepared statements of a pool, topic ids); key it by (server_ip, server_port).
    carry: what the previous protocol on this connection handed over at `Decoder.switch`.
    """

    connection_id: int
    client_ip: str
    client_port: int
    server_ip: str
    server_port: int
    datagrams: bool
    from_start: bool
    streams: tuple[Stream, Stream]  # indexed by Side: the client's bytes, the server's bytes
    shared: dict[Any, Any]
    carry: dict[str, Any] = field(default_factory=dict)


class Decoder(ABC):
    """Decodes one connection. One instance per connection, fed by the engine.

    Subclasses implement `parse`, `find_boundary`, `on_frame` and `finish`, and call `emit` once per request.
    Those with READS_TURNS also implement `at_rest` and `read_turns`, which read plain dialogues many turns at once.
    """

    READS_TURNS: ClassVar[bool] = False

    def __init__(self, connection: Connection, sink: list[Request]) -> None:
        self.connection = connection
        self._sink = sink
        self.at_end = [False, False]  # per Side: all its bytes were read (kept by the engine)
        self.switch_to: str | None = None
        self.switch_carry: dict[str, Any] = {}

    @abstractmethod
    def parse(self, side: Side, data: bytes, offset: int) -> Parsed:
        """The frame that begins at data[offset]; data is a whole run, nothing more will come after its end."""

    @abstractmethod
    def find_boundary(self, side: Side, data: bytes, offset: int) -> int:
        """The index >= offset at which the next frame plausibly begins, or -1.

        Called after INVALID, a gap, or a start mid-stream.
        """

    @abstractmethod
    def on_frame(self, side: Side, frame: Any, span: Span) -> None:
        """A frame, in order of time over both directions."""

    def on_gap(self, side: Side, position: int, size_bytes: int) -> None:
        """Bytes between two frames are missing or could not be read: frames of this direction may have been lost."""
        return

    def at_rest(self) -> bool:
        """Whether nothing is open: every request is answered, and the next bytes mean what they say."""
        return False

    def read_turns(self, turns: Turns) -> Plain | None:
        """Rows of the first turns of a stretch, as many as are surely one request and its whole response each.

        Called at rest; for these turns neither `parse` nor `on_frame` will be. The rows must be those that these
        would have made, and no turn may change how later bytes are read.
        """
        return None

    @abstractmethod
    def finish(self) -> None:
        """No more bytes: emit what is unanswered."""

    def emit(self, row: Request, request: Span | None, response: Span | None) -> None:
        """Hand over a finished row with the spans of its request and its response (None: not seen)."""
        row.request, row.response = request, response
        row.connection_id = self.connection.connection_id
        self._sink.append(row)

    def switch(self, protocol: str, **carry: Any) -> None:
        """From the next byte of each direction on, this connection speaks `protocol`.

        A name of the registry; 'detect': find out anew; 'opaque': nothing can be read (encrypted, tunnelled).
        """
        self.switch_to, self.switch_carry = protocol, carry


@dataclass(frozen=True)
class Protocol:
    """One entry of the registry.

    name: value of `request.protocol`. detect: score 0..1 for a Sample: 0 these bytes exclude it, below 0.5 a
    guess that is not enough, 0.5 one side fits a grammar that random bytes hardly fit, 0.9 and more both sides
    fit. Detection must not need the port; ports are a hint to order equal scores. decoder: class.
    resolve: called once when all connections are decoded, with all rows of this protocol and the shared
    dictionary: fills in what later or other connections taught (prepared statements, topic names).
    """

    name: str
    detect: Callable[[Sample], float]
    decoder: type[Decoder]
    ports: frozenset[int] = frozenset()
    transports: frozenset[str] = frozenset({"tcp"})
    resolve: Callable[[list[Request], dict[Any, Any]], None] | None = None
