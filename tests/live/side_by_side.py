"""tcpdump and the recorder beside each other while real clients talk to real servers; run in a network namespace.

    unshare --net python -m tests.live.side_by_side FOLDER [NAME...]

Leaves FOLDER/wire.pcap and FOLDER/node.ktape.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.live.services import services

TIMEOUT_S = 200


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    # Whatever hangs: the servers are ended by the blocks below.
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("took too long"))
    signal.alarm(TIMEOUT_S)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with services(folder):
        capture = subprocess.Popen(
            ["tcpdump", "-i", "lo", "-s", "0", "-B", "65536", "-w", str(folder / "wire.pcap"), "-U", "-Z", "root"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert capture.stderr is not None
        assert "listening" in capture.stderr.readline()
        record = [sys.executable, "-m", "kubetape", "record", "-o", str(folder / "node.ktape"), "--no-kubernetes"]
        talk = [sys.executable, "-m", "tests.live.odd_traffic", *names]
        done = subprocess.run([*record, "--payload", "full", "--", *talk], capture_output=True, text=True)
        time.sleep(0.5)
        capture.terminate()
        said = capture.communicate(timeout=20)[1]
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")
    print(said)


if __name__ == "__main__":
    main()
