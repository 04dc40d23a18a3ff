"""Coverage-guided fuzzing of decoders: no exception, no hang, bounded memory.

    python -m tools.fuzz mysql --seconds 600 [--corpus FOLDER]
    make fuzz                                   the five largest, ten minutes each

Inputs begin as real conversations of the capture corpus (../shared/corpus) where it is at hand. An input is: one byte
of options (start of the connection seen or not, bytes missing between the pieces), two bytes that say where the
client's bytes end, then both directions. What breaks a decoder is written to FOLDER/crash-*; keep it as a test.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MAX_INPUT_BYTES = 1 << 15
MEMORY_MIB = 1024
# Decoding with coverage counted, on a busy machine; a quadratic step over 32 KiB takes far longer.
SLOW_S, SLOW_S_PER_BYTE = 2.0, 2e-4
SEEDS = 400


def seeds(name: str, corpus: Path, folder: Path) -> int:
    """Write conversations of the corpus that speak `name` as inputs; how many."""
    import numpy as np

    from kubetape.analyze.protocols import registry
    from kubetape.analyze.protocols.engine import Endpoints, decode_connection
    from kubetape.analyze.streams import StreamIndex
    from kubetape.bundle.reader import Bundle
    from kubetape.capture.pcap import import_pcap
    from kubetape.errors import KubetapeError

    count = 0
    only = {name: registry()[name]}
    for path in sorted(corpus.glob("*/*cap*")):
        if path.suffix not in (".pcap", ".pcapng", ".cap") or count >= SEEDS:
            continue
        with tempfile.TemporaryDirectory() as place, contextlib.suppress(KubetapeError):
            import_pcap([str(path)], f"{place}/x.ktape")
            tables = Bundle(f"{place}/x.ktape")
            kinds = tables.table("connection").select(["connection_id", "transport"]).to_pylist()
            datagrams = np.array([k["connection_id"] for k in kinds if k["transport"] == "udp"], np.int64)
            for number, streams in enumerate(StreamIndex(tables.table("socket_data"), datagrams)):
                if number >= 5:
                    break
                ends = Endpoints("10.0.0.1", 40000, "10.0.0.2", 9, True)
                if decode_connection(streams, ends, True, True, only, {}).protocol != name:
                    continue
                sides = [b"".join(run.data for run in s.runs)[:8192] for s in (streams.send, streams.receive)]
                for options in (0, 1):
                    head = bytes([options]) + len(sides[0]).to_bytes(2, "big")
                    (folder / f"seed-{count}-{options}").write_bytes(head + sides[0] + sides[1])
                count += 1
    return count


def harness(name: str) -> Any:
    """The function that atheris calls with inputs. The decoder must have been imported with instrumentation."""
    import numpy as np

    from kubetape.analyze.protocols import engine, registry
    from kubetape.analyze.protocols.contract import Sample
    from kubetape.analyze.streams import ConnectionStreams, Run, Stream

    protocol = registry()[name]
    datagrams = "tcp" not in protocol.transports

    def stream(data: bytes, gap_bytes: int, late_ns: int) -> Stream:
        # Four pieces, as they come from sockets; with a gap, bytes are missing between them.
        step = max(1, (len(data) + 3) // 4)
        pieces = [data[i : i + step] for i in range(0, len(data), step)]
        sizes = np.array([len(p) for p in pieces], np.int64)
        positions = np.cumsum(sizes + gap_bytes) - sizes - gap_bytes
        runs = [Run(int(p), piece) for p, piece in zip(positions, pieces, strict=True)]
        if not gap_bytes and not datagrams and runs:
            runs = [Run(0, data)]
        times = np.arange(len(pieces), dtype=np.int64) * 1000 + late_ns
        nobody = np.zeros(len(pieces), np.int32)
        return Stream(runs, positions, sizes, sizes, times, nobody, nobody)

    def once(data: bytes) -> None:
        if len(data) < 3:
            return
        split = int.from_bytes(data[1:3], "big") % (len(data) - 2)
        client, server = data[3 : 3 + split], data[3 + split :]
        gap_bytes = 50 if data[0] & 2 else 0
        pair = (stream(client, gap_bytes, 0), stream(server, gap_bytes, 500))
        streams = ConnectionStreams(1, "wire", datagrams, *pair)
        ends = engine.Endpoints("10.0.0.1", 40000, "10.0.0.2", 4444, True)
        from_start = not data[0] & 1
        began = time.thread_time()
        protocol.detect(
            Sample(client[:4096], server[:4096], [client[7:99]], [server[5:99]], 1, 2, datagrams, from_start)
        )
        shared: dict[Any, Any] = {}
        result = engine.Decoded(name, 1.0, None, 0.0)
        connection = engine._connection(streams, pair, ends, False, from_start, shared)
        engine._run(name, connection, result, registry(), {name: shared})
        if protocol.resolve is not None:
            protocol.resolve([row for row in result.rows if row.protocol == name], shared)
        took = time.thread_time() - began
        if took > SLOW_S + SLOW_S_PER_BYTE * len(data):
            raise AssertionError(f"{took:.1f} s for {len(data)} bytes")

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path, default=None, help="folder of inputs, kept and added to")
    parser.add_argument("--replay", type=Path, nargs="*", help="only run these inputs")
    args = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["kubetape.analyze.protocols", "kubetape.analyze.normalise"]):
        once = harness(args.name)
    if args.replay:
        for path in args.replay:
            once(path.read_bytes())
            print(path, "runs through")
        return
    folder = args.corpus or Path(".cache/fuzz") / args.name
    folder.mkdir(parents=True, exist_ok=True)
    captures = Path(__file__).resolve().parents[2] / "shared" / "corpus"
    print(f"{args.name}: {seeds(args.name, captures, folder)} conversations to begin with", flush=True)
    options = [
        f"-max_total_time={args.seconds}", f"-max_len={MAX_INPUT_BYTES}", f"-rss_limit_mb={MEMORY_MIB}", "-timeout=20",
        f"-artifact_prefix={folder}/", "-print_final_stats=1", "-verbosity=1", "-reload=0",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(folder)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
