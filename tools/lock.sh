#!/usr/bin/env bash
# Write requirements.lock: the newest versions of everything that pyproject.toml asks for, transitive ones included.
# Usage: tools/lock.sh          (after a dependency was added to pyproject.toml)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Resolved in an empty environment: what the distribution happens to have installed must not leave holes in the list.
/usr/bin/python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --dry-run --report "$work/report.json" \
  '.[capture,dev]' 'setuptools>=77'
{
  echo "# Made by tools/lock.sh from pyproject.toml. Do not edit."
  "$work/venv/bin/python" - "$work/report.json" <<'PY'
import json, sys

with open(sys.argv[1]) as file:
    found = {i["metadata"]["name"].lower(): i["metadata"] for i in json.load(file)["install"]}
for name in sorted(found):
    if name != "kubetape":
        print(f"{name}=={found[name]['version']}")
PY
} >"$work/requirements.lock"
cp "$work/requirements.lock" requirements.lock
