#!/usr/bin/env bash
# Every check, cheapest first; pytest comes last, so that its summary ends the output.
# Usage: tools/check.sh [PYTEST ARGUMENT...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=$PWD/.venv/bin

step() { printf '== %s\n' "$*"; "$@"; }

step "$bin/ruff" check
step "$bin/ruff" format --check
step "$bin/mypy"
step "$bin/python" -m pytest -q tests/test_layout.py -p no:cacheprovider
# Live tests measure time and count packets: conftest.py puts them all in one group at the end of the queue,
# and without reordering that group starts when the rest has all but finished. They so run one by one.
step "$bin/python" -m pytest -q -n 2 --dist loadgroup --no-loadscope-reorder \
  --cov --cov-report=term:skip-covered --durations=15 "$@"
