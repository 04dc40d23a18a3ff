"""What runs in a recorder's pod: `kubetape record`, and lines of JSON in the pod's log that say how it goes.

    python3 -m kubetape.capture.kubernetes.agent FOLDER ARGUMENTS...

Strategy: the pod must need nobody. The recording goes on while the client's connection is down, ends by itself at
its safety duration, and the log can be read again at any time. The client creates FOLDER/stop to end the
recording, fetches FOLDER/node.ktape, and deletes the pod.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BUNDLE = "node.ktape"
STOP = "stop"
POLL_S = 0.1


def say(state: str, **values: Any) -> None:
    """One state: 'starting', 'recording', 'stopping', 'done' (bytes, sha256) or 'failed' (reason)."""
    print(json.dumps({"kubetape": state, "realtime_ns": time.time_ns(), **values}), flush=True)


def last_state(log: str) -> dict[str, Any]:
    """The newest state in a pod's log; {} where there is none yet. Other lines are passed over."""
    for line in reversed(log.splitlines()):
        if line.startswith('{"kubetape"'):
            try:
                return dict(json.loads(line))
            except ValueError:
                continue  # the line is still being written
    return {}


def run(folder: Path, arguments: list[str], recorder: list[str] | None = None) -> int:
    """Record into `folder` and report; returns the exit status. recorder: the command, for tests."""
    bundle = folder / BUNDLE
    spool = folder / f"{BUNDLE}.spool"
    errors = folder / "errors"
    say("starting")
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    command = [*(recorder or [sys.executable, "-m", "kubetape", "record"]), "-o", str(bundle), *arguments]
    with errors.open("wb") as error_file:
        child = subprocess.Popen(command, stdout=sys.stderr, stderr=error_file)
        recording = stopping = False
        while child.poll() is None:
            # The recorder writes its header when every probe is attached.
            if not recording and spool.exists() and spool.stat().st_size > 0:
                recording = True
                say("recording")
            if recording and not stopping and (asked or (folder / STOP).exists()):
                stopping = True
                say("stopping")
                child.send_signal(signal.SIGINT)
            time.sleep(POLL_S)
    if child.returncode != 0 or not bundle.exists():
        lines = errors.read_text(errors="replace").strip().splitlines()
        say("failed", reason=lines[-1] if lines else f"the recorder ended with status {child.returncode}")
        return 1
    say("done", bytes=bundle.stat().st_size, sha256=_digest(bundle))
    while not asked:
        time.sleep(POLL_S)  # the bundle is here as long as the pod is
    return 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
