#!/usr/bin/env bash
# Makes .venv from the lock files: uv at a pinned version, every package by its hash, this project editable.
# A stamp of all inputs makes a second run instant. Never touches anything outside this folder but missing Debian packages.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH

PYTHON=${PYTHON:-python3}
VENV=.venv
STAMP=$VENV/.codespar-stamp

command -v "$PYTHON" >/dev/null || stop "there is no $PYTHON here. Install it: sudo apt-get install -y python3"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    stop "$("$PYTHON" --version) is too old; CodeSpar needs Python 3.11 or newer." \
        "Name a newer one: make setup PYTHON=/path/to/python3.11"

# The folder is part of the stamp because a virtual environment that was copied or moved does not work.
wanted=$({
    pwd -P
    "$PYTHON" -c 'import sys; print(sys.version, sys.base_prefix)'
    cat requirements-dev.lock scripts/bootstrap.lock pyproject.toml scripts/setup.sh
} | sha256sum)
if [ -x "$VENV/bin/python" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    can_install || stop "$PYTHON cannot make virtual environments: its venv module is not installed." \
        "Run: sudo apt-get update && sudo apt-get install -y $package" "and then again: make setup"
    apt_install "$PYTHON cannot make virtual environments yet" "$package"
fi

# Where the machine has its own list of trusted authorities, it counts.
if [ -s /etc/ssl/certs/ca-certificates.crt ]; then
    export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1}
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 UV_PYTHON_DOWNLOADS=never
rm -f "$STAMP"
if ! "$VENV/bin/python" -c 'import sys' 2>/dev/null || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$VENV"
fi
say "making the virtual environment in $VENV"
"$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install -q --no-deps --require-hashes -r scripts/bootstrap.lock </dev/null
uv() { "$VENV/bin/python" -m uv "$@" </dev/null; }
uv pip sync -q --python "$VENV/bin/python" --require-hashes --compile-bytecode requirements-dev.lock
uv pip install -q --python "$VENV/bin/python" --no-deps --no-build-isolation --editable .
"$VENV/bin/python" -m compileall -q src # else every start of a server compiles it where Python may not write byte code
printf '%s\n' "$wanted" >"$STAMP"
say "ready: $VENV/bin/codespar"
