"""Running the machine's own programs."""

from __future__ import annotations

import subprocess

from tests.lab.errors import LabError


def run(*argv: str, stdin: str | None = None, timeout_s: float = 60.0) -> str:
    """Run a program to its end; its standard output. Raises LabError with its own words when it fails."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed: run tools/setup.sh test") from error
    if done.returncode != 0:
        words = " ".join((done.stderr or done.stdout).split())
        raise LabError(f"{' '.join(argv[:6])} failed with status {done.returncode}: {words[-500:]}")
    return done.stdout
