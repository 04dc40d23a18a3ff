"""`--no-arguments`: no command line gets into the bundle, neither of a running process nor of a new one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kubetape.bundle.reader import Bundle
from tests.live.recording import SLOWER

pytestmark = pytest.mark.live


@pytest.mark.parametrize(("options", "kept"), [([], True), (["--no-arguments"], False)])
def test_command_lines_are_kept_only_when_wanted(tmp_path: Path, options: list[str], kept: bool) -> None:
    bundle = tmp_path / "arguments.ktape"
    sleep = f"{61.25 * SLOWER}"
    running = subprocess.Popen(["sleep", sleep])
    try:
        kubetape = [sys.executable, "-m", "kubetape", "record", "-o", str(bundle), "--no-kubernetes", *options]
        subprocess.run([*kubetape, "--", "sh", "-c", "sleep 1.125"], check=True, capture_output=True)
    finally:
        running.kill()
        running.wait()
    arguments = [text for text in Bundle(bundle).table("process")["arguments"].to_pylist() if text]
    assert (f"sleep {sleep}" in arguments) == kept
    assert ("sleep 1.125" in arguments) == kept
    assert bool(arguments) == kept
