#!/usr/bin/env bash
# Sees to it that PostgreSQL's programs are there for the tests, which start a private server of their own.
# Starts no server and makes no cluster. Exit code 2 says that a person must install it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

installed() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

installed && exit 0
can_install || stop "the tests need PostgreSQL's programs (/usr/lib/postgresql/*/bin/initdb). Run:" \
    "  sudo apt-get update && sudo apt-get install -y postgresql"

# The package would make and start a server of its own; nobody asked for that.
conf=/etc/postgresql-common/createcluster.d/codespar.conf
if [ ! -d /etc/postgresql ]; then
    mkdir -p "${conf%/*}"
    echo "create_main_cluster = false" >"$conf"
    trap 'rm -f "$conf"' EXIT
fi
apt_install "the tests run on PostgreSQL too" postgresql
installed || stop "apt-get installed postgresql, but there is no /usr/lib/postgresql/*/bin/initdb." "Look at: dpkg -L postgresql"
