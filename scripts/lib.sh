# Shared by the set-up scripts: how they speak, and how a Debian package is installed.
# Never reads from standard input, and never installs anything without saying so.

say() { printf 'codespar: %s\n' "$*" >&2; }

# stop LINE...: says each line and ends with 2, the exit code for "a person must do something first".
stop() {
    local line
    for line in "$@"; do say "$line"; done
    exit 2
}

# can_install: whether this shell may install Debian packages by itself.
can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

APT_UPDATED=""

# apt_install WHY PACKAGE...: as root on Debian or Ubuntu.
apt_install() {
    local why=$1 log
    shift
    say "$why: installing $* with apt-get"
    log=$(mktemp)
    if ! {
        { [ -n "$APT_UPDATED" ] || apt-get update; } &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
    } >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        stop "apt-get could not install $* (its last lines are above)." \
            "Correct that, then run: apt-get update && apt-get install -y $*"
    fi
    rm -f "$log"
    APT_UPDATED=yes
}
