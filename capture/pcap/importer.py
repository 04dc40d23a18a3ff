"""A bundle from packet captures.

# Strategy: the files are read in windows of 8 MiB. Each window is decoded, followed and written while its bytes
# are still in the processor's cache, by NumPy and Arrow calls over all its packets; the memory needed does not
# depend on the size of the files (but for about 70 bytes per TCP event and 500 per connection).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from kubetape.bundle.manifest import ClockAnchor, Manifest, Node, ProbeStatus
from kubetape.bundle.writer import BundleWriter, TableWriter
from kubetape.capture.pcap import rows_out
from kubetape.capture.pcap.decode import Decoder
from kubetape.capture.pcap.events import EventLog, SampleLog
from kubetape.capture.pcap.file_input import FileInput
from kubetape.capture.pcap.flows import FlowTable
from kubetape.capture.pcap.link_layer import NAMES, SUPPORTED
from kubetape.capture.pcap.opening import (
    CaptureFile,
    TimeRunsBackError,
    in_time_order,
    sorted_as_a_whole,
)
from kubetape.capture.pcap.packets import Bytes, Ints, Packets
from kubetape.capture.pcap.retiring import ConnectionRows
from kubetape.capture.pcap.tcp import StreamRows, TcpStreams
from kubetape.capture.pcap.transport import TCP, Layer4
from kubetape.capture.pcap.udp import datagrams
from kubetape.errors import ImportFileError


@dataclasses.dataclass
class Imported:
    """What an import found: counts of packets, TCP and UDP connections, and the notes of the manifest."""

    packet_count: int
    tcp_count: int
    udp_count: int
    notes: list[str]


def import_pcap(paths: Sequence[str], output: str, node: str | None = None) -> Imported:
    """Write a bundle from one or several captures (pcap, pcapng, either gzip-compressed), merged by time.

    Raises ImportFileError where a file is none, is empty, or holds only link types that carry no IP here;
    BundleError where the output cannot be written. Damage inside a file becomes a note in the manifest.
    """
    name = node or _node_name(paths[0])
    try:
        with _opened(paths) as files:
            return _Import(files, name).write(output, in_time_order(files))
    except TimeRunsBackError:
        with tempfile.TemporaryDirectory(prefix="kubetape-import-") as folder:
            plain = [_unpacked(path, folder) for path in paths]
            with _opened(plain) as files:
                for file, path in zip(files, paths, strict=True):
                    file.facts.path = path
                    file.facts.note("its packets are not in the order of their times; they were sorted")
                return _Import(files, name).write(output, sorted_as_a_whole(files))


@contextlib.contextmanager
def _opened(paths: Sequence[str]) -> Iterator[list[CaptureFile]]:
    files: list[CaptureFile] = []
    try:
        for number, path in enumerate(paths):
            files.append(CaptureFile(path, number))
        yield files
    finally:
        for file in files:
            file.close()


def _node_name(path: str) -> str:
    base = os.path.basename(path)
    for suffix in (".gz", ".pcapng", ".pcap", ".cap"):
        base = base.removesuffix(suffix)
    return base or "capture"


def _unpacked(path: str, folder: str) -> str:
    """`path`, or where it is compressed an unpacked copy in `folder`."""
    with open(path, "rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path
    handle, copy = tempfile.mkstemp(dir=folder)
    source = FileInput(path)
    with os.fdopen(handle, "wb") as target:
        while source.advance(source.size):
            target.write(source.data[: source.size].data)
    source.close()
    return copy


class _Import:
    """One pass over the packets of all files, into one bundle."""

    def __init__(self, files: list[CaptureFile], node: str) -> None:
        self.files, self.node = files, node
        self.decoder = Decoder()
        self.flows = FlowTable()
        self.events, self.samples = EventLog(), SampleLog()
        self.streams = TcpStreams(self.flows, self.events, self.samples)
        self.rows = ConnectionRows(self.streams)
        self.udp_copy_count = 0
        self.first_ns: int | None = None
        self.last_ns = 0

    def write(self, output: str, windows: Iterator[list[Packets]]) -> Imported:
        with BundleWriter(output, Manifest()) as writer:
            table = writer.table("socket_data")
            for window in windows:
                self._window(window, table)
                self.rows.retire(self.last_ns, self.decoder.labels.names)
            self._refuse_unreadable()
            labels = self.decoder.labels.names
            connections = self.rows.table(self.last_ns, labels)
            writer.write("tcp_event", rows_out.tcp_events(self.events, self.flows, connections, self.node))
            writer.write("tcp_sample", rows_out.tcp_samples(self.samples, self.flows, self.node))
            for name, value in (("node", self.node), ("side", "wire")):
                connections = connections.append_column(name, rows_out.Labels(value).column(len(connections)))
            writer.write("connection", connections)
            node = self._describe(table.rows)
            writer.manifest.nodes.append(node)
        tcp_count = ConnectionRows.count_tcp(connections)
        return Imported(
            packet_count=sum(f.facts.packet_count for f in self.files),
            tcp_count=tcp_count,
            udp_count=len(connections) - tcp_count,
            notes=node.notes,
        )

    def _window(self, window: list[Packets], table: TableWriter) -> None:
        for packets in window:
            first_ns, last_ns = int(packets.ts_ns.min()), int(packets.ts_ns.max())
            self.first_ns = first_ns if self.first_ns is None else min(self.first_ns, first_ns)
            self.last_ns = max(self.last_ns, last_ns)
        decoded, buffers = self.decoder.decode(window)
        if not len(decoded):
            return
        flow, sender = self.flows.assign(decoded, buffers)
        is_tcp = decoded.protocol == TCP
        parts: list[StreamRows] = []
        for protocol_mask, follow in ((is_tcp, self._tcp), (~is_tcp, self._udp)):
            which = np.nonzero(protocol_mask)[0]
            if not len(which):
                continue
            if len(which) == len(decoded):
                parts.append(follow(decoded, flow, sender, buffers))
                continue
            rows = follow(decoded.take(which), flow[which], sender[which], buffers)
            rows.packet = which[rows.packet]
            parts.append(rows)
        rows = parts[0] if len(parts) == 1 else StreamRows.concatenate(parts)
        if len(rows.packet):
            table.write(rows_out.socket_data(decoded, buffers, rows, self.flows, self.node))

    def _tcp(self, packets: Layer4, flow: Ints, sender: Ints, buffers: list[Bytes]) -> StreamRows:
        return self.streams.window(packets, flow, sender, buffers)

    def _udp(self, packets: Layer4, flow: Ints, sender: Ints, buffers: list[Bytes]) -> StreamRows:
        rows, copy_count = datagrams(packets, flow, sender, self.flows, self.streams.last_ns, buffers)
        self.udp_copy_count += copy_count
        return rows

    def _refuse_unreadable(self) -> None:
        """Raise ImportFileError for a file none of whose interfaces has a link type known here."""
        for file in self.files:
            unknown = sorted(file.facts.links - SUPPORTED)
            names = ", ".join(f"{n} ({NAMES[n]})" if n in NAMES else str(n) for n in unknown)
            if unknown and not file.facts.links & SUPPORTED:
                raise ImportFileError(
                    f"{file.facts.path} has link type {names}, which is not supported; "
                    "capture on an Ethernet, cooked or raw IP interface"
                )
            if unknown:
                file.facts.note(f"interfaces with link type {names} were left out")

    def _describe(self, row_count: int) -> Node:
        first_ns = self.first_ns or 0
        packet_count = sum(f.facts.packet_count for f in self.files)
        dropped = [f.facts.dropped_count for f in self.files if f.facts.dropped_count is not None]
        notes = [f"{os.path.basename(f.facts.path)}: {text}" for f in self.files for text in f.facts.notes]
        copies = self.streams.copy_count + self.udp_copy_count
        if copies:
            notes.append(f"{copies} packets were captured twice (bridge, tunnel or 'any' device); each counts once")
        if strays := self.streams.stray_count:
            notes.append(f"{strays} TCP segments had sequence numbers far from their stream and were left out")
        if unfinished := self.decoder.reassembler.unfinished_count:
            notes.append(f"{unfinished} datagrams lack fragments and were left out")
        for reason, count in sorted(self.decoder.skipped.counts.items()):
            notes.append(f"{count} packets were left out: {reason}")
        return Node(
            name=self.node,
            distribution=next((f.facts.system for f in self.files if f.facts.system), ""),
            clock=[ClockAnchor(first_ns, first_ns), ClockAnchor(self.last_ns, self.last_ns)],
            source="pcap",
            start_ns=first_ns,
            end_ns=self.last_ns,
            stop_reason="end_of_file",
            probes=[
                ProbeStatus(
                    probe="packets",
                    mechanism="pcap",
                    event_count=packet_count,
                    lost_count=sum(dropped),
                    reason="" if dropped else "the files do not say how many packets their capture lost",
                )
            ],
            notes=notes,
            facts={
                "capture_files": [
                    {
                        "name": os.path.basename(f.facts.path),
                        "format": f.facts.format,
                        "bytes": f.facts.file_bytes,
                        "packets": f.facts.packet_count,
                        "link_types": sorted(f.facts.links),
                        "interfaces": f.facts.interfaces,
                        "application": f.facts.application,
                    }
                    for f in self.files
                ],
                "stream_rows": row_count,
            },
        )
