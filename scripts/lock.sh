#!/usr/bin/env bash
# Writes the lock files from pyproject.toml and scripts/*.in: every package and hash, for every platform, no host names.
# `make lock UPGRADE=1` takes the newest allowed versions; without it what is locked stays.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

compile() {
    .venv/bin/python -m uv pip compile -q --generate-hashes --universal --python-version 3.11 \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
        ${UPGRADE:+--upgrade} "$@" </dev/null
}
compile scripts/bootstrap.in -o scripts/bootstrap.lock
compile pyproject.toml -o requirements.lock
compile pyproject.toml --group pyproject.toml:dev scripts/build.in -c requirements.lock -o requirements-dev.lock
if grep -nE '://|--(extra-)?index|--find-links' requirements.lock requirements-dev.lock scripts/bootstrap.lock; then
    stop "the lines above name a host or an index; a lock file must work against any of them."
fi
