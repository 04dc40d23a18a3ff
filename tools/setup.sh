#!/usr/bin/env bash
# The complete set-up of a checkout on Debian 12: packages, .venv, pinned Python packages, kubetape itself.
# Usage: tools/setup.sh demo|test|kernel
# Each step looks first whether it is done: a second run takes a fraction of a second.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kind=${1:?usage: tools/setup.sh demo|test|kernel}

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 2; }

packages() { # packages FILE...: their names, comments left out
  sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$@"
}

missing() { # missing PACKAGE...: those that are not installed
  local installed
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' || true)
  comm -23 <(printf '%s\n' "$@" | sort -u) <(printf '%s\n' "$installed" | sort -u)
}

install_packages() {
  local as_root=() made_policy= policy=/usr/sbin/policy-rc.d
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || die "these Debian packages are missing and neither root nor sudo is at hand: $*"
    as_root=(sudo)
  fi
  say "installing Debian packages: $*"
  # Debian starts a server when its package is installed; status 101 from this script forbids it (deb-systemd-invoke(1p)).
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
    made_policy=yes
  fi
  local rc=0
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
  # A third-party source that does not answer must not stop us: the install below says what is really missing.
  "${apt[@]}" update >/dev/null || say "apt-get update had errors; going on with the package lists at hand"
  "${apt[@]}" install --no-install-recommends "$@" >.cache/setup/apt.log 2>&1 || rc=$?
  [[ -z $made_policy ]] || "${as_root[@]}" rm -f "$policy"
  ((rc == 0)) || { tail -n 20 .cache/setup/apt.log >&2; die "apt-get install failed (log: .cache/setup/apt.log)"; }
}

# A stamp is a copy of a step's input file, kept where the step's result lives.
done_before() { cmp -s "$1" ".venv/.stamp-$(basename "$1")"; }
stamp() { cp "$1" ".venv/.stamp-$(basename "$1")"; }

mkdir -p .cache/setup
if command -v dpkg-query >/dev/null; then
  lists=(tools/packages-demo.txt)
  [[ $kind == demo ]] || lists+=(tools/packages-test.txt)
  [[ $kind != kernel ]] || lists+=(tools/packages-kernel.txt)
  mapfile -t wanted < <(packages "${lists[@]}")
  mapfile -t absent < <(missing "${wanted[@]}")
  ((${#absent[@]} == 0)) || install_packages "${absent[@]}"
else
  say "this is not Debian: bcc, the lab's servers and the tools of tools/packages-*.txt are yours to install"
fi

if [[ ! -x .venv/bin/python ]]; then
  # Debian's own Python, which the bcc binding belongs to.
  say "making .venv"
  /usr/bin/python3 -m venv --system-site-packages .venv
fi
pip=(.venv/bin/python -m pip --quiet --disable-pip-version-check)
if ! done_before requirements.lock; then
  say "installing the Python packages of requirements.lock"
  "${pip[@]}" install --no-deps -r requirements.lock
  stamp requirements.lock
fi
if ! done_before pyproject.toml; then
  say "installing kubetape (editable)"
  "${pip[@]}" install --no-deps --no-build-isolation --editable .
  stamp pyproject.toml
fi
# Where Python is told to write no bytecode, as in many containers, each start would compile all of it again.
.venv/bin/python -m compileall -q kubetape capture analyze reports
