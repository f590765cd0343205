#!/usr/bin/env bash
# What `make demo` runs once everything is installed: REPO, TASK and KEEP come in by environment, so nothing is quoted twice.
set -euo pipefail
cd "$(dirname "$0")/.."
arguments=()
[ -z "${REPO:-}" ] || arguments+=(--repo "$REPO")
[ -z "${TASK:-}" ] || arguments+=(--task "$TASK")
[ -z "${KEEP:-}" ] || arguments+=(--keep)
exec .venv/bin/codespar demo "${arguments[@]}"
