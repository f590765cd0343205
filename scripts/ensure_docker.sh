#!/usr/bin/env bash
# Sees to it that a Docker Engine answers. One that answers already is left exactly as it is.
# Otherwise, as root on Debian or Ubuntu, installs and starts one, saying so; anyone else is told the commands to run (exit code 2).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
export PATH="$PATH:/usr/sbin:/sbin"

LOG=${CODESPAR_DOCKERD_LOG:-/var/log/codespar-dockerd.log}
PID_FILE=/var/run/docker.pid
SECONDS_TO_ANSWER=60

answers() { python3 scripts/engine_answers.py >/dev/null 2>&1; }
has_systemd() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null; }
engine_runs() { [ -s "$PID_FILE" ] && grep -aq dockerd "/proc/$(cat "$PID_FILE")/cmdline" 2>/dev/null; }

# Makes the base image where no container registry can be reached; of use to root alone.
ensure_debootstrap() {
    if ! command -v debootstrap >/dev/null && can_install; then
        apt_install "the base image may have to be made without a registry" debootstrap
    fi
}

start_engine() {
    if engine_runs; then
        say "a Docker Engine is starting already (process $(cat "$PID_FILE"))"
    elif has_systemd; then
        say "starting the Docker Engine: systemctl start docker"
        systemctl start docker </dev/null
    else
        rm -f "$PID_FILE" # of an engine that is gone: its number may belong to another process by now
        say "starting the Docker Engine in the background: dockerd (log: $LOG, process id: $PID_FILE)"
        setsid nohup dockerd --pidfile "$PID_FILE" >>"$LOG" 2>&1 </dev/null 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
        started=$!
    fi
}

if answers; then
    ensure_debootstrap
    exit 0
fi

code=0
reason=$(python3 scripts/engine_answers.py 2>&1) || code=$?
if [ -n "${DOCKER_HOST:-}" ]; then
    stop "no Docker Engine answers at DOCKER_HOST ($reason)." "Start that engine, or use the one of this machine: unset DOCKER_HOST"
fi
if [ "$code" = 3 ]; then
    stop "a Docker Engine is there, but you may not speak to it ($reason)." \
        "Run: sudo usermod -aG docker \"\$USER\"" "then log out and in again (or: newgrp docker)."
fi
if ! can_install; then
    if command -v apt-get >/dev/null; then
        stop "no Docker Engine answers ($reason). Installing one needs root. Run:" \
            "  sudo apt-get update && sudo apt-get install -y docker.io iptables debootstrap" \
            "  sudo systemctl start docker      (without systemd: sudo dockerd &)" \
            "  sudo usermod -aG docker \"\$USER\"  (then log out and in again)"
    fi
    stop "no Docker Engine answers ($reason)." \
        "Install and start Docker Engine 20.10 or newer as your system's manual has it, then check with: docker info"
fi

if ! command -v dockerd >/dev/null; then
    apt_install "no Docker Engine is installed" docker.io iptables debootstrap
fi
command -v iptables >/dev/null || apt_install "the Docker Engine needs it" iptables
ensure_debootstrap

started=""
answers || start_engine
for ((tenth = 0; tenth < SECONDS_TO_ANSWER * 10; tenth++)); do
    if answers; then
        say "the Docker Engine answers"
        exit 0
    fi
    if [ -n "$started" ] && ! kill -0 "$started" 2>/dev/null && ! engine_runs; then
        tail -n 15 "$LOG" >&2
        stop "dockerd ended at once; the last lines of $LOG are above." \
            "It needs a real root (in a container: --privileged). Correct the cause, then run: dockerd"
    fi
    sleep 0.1
done
[ -f "$LOG" ] && tail -n 15 "$LOG" >&2
stop "the Docker Engine did not answer within $SECONDS_TO_ANSWER seconds." \
    "Look at its log (journalctl -u docker, or $LOG), then run again: scripts/ensure_docker.sh"
