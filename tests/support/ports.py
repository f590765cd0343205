"""Ports for programs that are told theirs before they start."""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path

_GIVEN_AWAY = Path("/proc/sys/net/ipv4/ip_local_port_range")
_PLACES = itertools.count(os.getpid() * 64)


def free_port() -> int:
    """A port of the loopback where nobody listens, and that no other test takes before its program does.

    It is none of those that the system gives to whoever asks for any port or connects to one, and each process looks in a place of its own.
    """
    lowest = 10_000
    number = int(_GIVEN_AWAY.read_text().split()[0]) - lowest if _GIVEN_AWAY.exists() else 0
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", lowest + next(_PLACES) % number if number > 0 else 0))
            except OSError:
                continue
            return int(probe.getsockname()[1])
