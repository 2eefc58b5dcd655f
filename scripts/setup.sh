#!/usr/bin/env bash
# Makes .venv exactly what requirements.lock says, with this project in it, and installs the system packages that are missing.
# Run again, it does only what has changed; with nothing changed it returns at once.
#
#   scripts/setup.sh [tests]      with what the tests need besides
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
exec 9<"$root" && flock 9 # two at once would write into the same .venv

stamp=.venv/.coursedub
# A virtual environment holds its own path, so a moved one is made anew.
locked=$({ echo "$root" && cat requirements.lock scripts/setup.sh; } | sha256sum)
project=$(sha256sum <pyproject.toml)

say() { echo "set-up: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

# The Python to build on, if this machine has one.
find_python() {
    local name
    for name in python3.11 python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
}

install_system_packages() {
    local as_root=() command="apt-get install $*"
    command -v apt-get >/dev/null || fail "please install what these Debian packages hold, then run this again: $*"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "please run this as root, then run this again: $command"
        as_root=(sudo)
    fi
    say "$command"
    "${as_root[@]}" apt-get update -qq || say "not all package lists could be refreshed; going on with those there are"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >/dev/null ||
        fail "apt-get could not install them all; please provide what these packages hold, then run this again: $*"
}

venv_is_locked() { [ -x .venv/bin/python ] && [ "$(sed -n 1p $stamp 2>/dev/null)" = "$locked" ]; }

project_is_installed() { [ -x .venv/bin/coursedub ] && [ "$(sed -n 2p $stamp)" = "$project" ]; }

# The lines of requirements.lock that pin one package.
pin_of() { awk -v start="$1==" '/^[^ ]/ { on = index($0, start) == 1 } on' requirements.lock; }

pip_install() {
    PIP_USER=0 .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation --no-compile "$@"
}

missing=()
command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null || missing+=(ffmpeg)
if ! venv_is_locked; then
    python=$(find_python)
    if [ -z "$python" ]; then
        missing+=(python3.11 python3.11-venv)
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        missing+=(python3.11-venv)
    fi
fi
[ "${1:-}" != tests ] || command -v curl >/dev/null || missing+=(curl)
if [ ${#missing[@]} -gt 0 ]; then
    install_system_packages "${missing[@]}"
fi
if [ "${1:-}" = tests ] && ! { command -v chromium && command -v chromedriver; } >/dev/null; then
    # Not every distribution has them as packages.
    (install_system_packages chromium chromium-driver) || say "going on without a browser: what is tested in one will be skipped"
fi

if ! venv_is_locked; then
    python=$(find_python)
    [ -n "$python" ] || fail "Python 3.11 is needed and was not found"
    say "installing Python packages into .venv"
    rm -f $stamp
    "$python" -m venv --clear .venv
    # First the tools of the lock itself: they then build the two packages that are published as source only.
    pip_install --require-hashes -r <(pin_of pip && pin_of setuptools)
    pip_install --require-hashes -r requirements.lock
    echo "$locked" >$stamp
fi
if ! project_is_installed; then
    pip_install --editable .
    printf '%s\n' "$locked" "$project" >$stamp
    say "done: .venv/bin/coursedub"
fi
