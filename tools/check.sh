#!/usr/bin/env bash
# Every check, cheapest first; pytest comes last, so that its summary ends the output.
# Usage: tools/check.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=$PWD/.venv/bin

step() { printf '== %s\n' "$*"; "$@"; }

step "$bin/ruff" check
step "$bin/ruff" format --check
step "$bin/mypy"
step "$bin/python" -m pytest -q tests/test_layout.py -p no:cacheprovider
step "$bin/python" -m pytest -q -n 2 -m "not (live or lab)" --cov --cov-report=
# One by one, with nothing beside them: they measure time and count packets.
step "$bin/python" -m pytest -q -m "live or lab" --cov --cov-append --cov-report=term:skip-covered --durations=15
