"""Ports that are chosen now and listened at later."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from codespar.cli import processes
from support import ports

GIVEN_AWAY = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.mark.skipif(
    not GIVEN_AWAY.exists() or int(GIVEN_AWAY.read_text().split()[0]) < 11_000,
    reason="this system does not say which ports it gives away, or gives nearly all",
)
@pytest.mark.parametrize("free_port", [processes.free_port, ports.free_port])
def test_a_free_port_is_none_that_the_system_gives_to_somebody_else_meanwhile(
    free_port: Callable[[], int],
) -> None:
    first, last = (int(word) for word in GIVEN_AWAY.read_text().split())
    for _ in range(50):
        port = free_port()
        assert not first <= port <= last
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_no_test_is_given_a_port_twice_however_soon_it_asks() -> None:
    assert len({ports.free_port() for _ in range(100)}) == 100
