"""The processes of a demo's folder: one demo at a time, and none of its servers left behind."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import shutil
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from codespar.domain.base import CodesparError

_LOWEST = 10_000  # of the ports that are looked at
KEPT = ("cache", "installation", "demo.lock")  # of an earlier demo: what makes the next one quick


class Alone:
    """Holds the demo's folder, so that two demos do not meet in it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "demo.lock"

    def __enter__(self) -> None:
        self._file = self._path.open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CodesparError(
                f"another demo runs in {self._path.parent}; wait for it, or give this one its own folder with --data"
            ) from error

    def __exit__(self, *_: object) -> None:
        self._file.close()


def holder(data: Path) -> int | None:
    """The process that serves this folder now, if there is one."""
    try:
        with (data / "server.lock").open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read().strip() or 0) or None
    except (OSError, ValueError):
        pass
    return None


async def end_server(data: Path) -> None:
    """End the server of this folder, whoever started it, and wait for it."""
    while (pid := holder(data)) is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        for _ in range(200):
            if holder(data) != pid and not _lives(pid):
                return
            await asyncio.sleep(0.05)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def end_kept(data: Path, say: Callable[[str], None]) -> None:
    """End what an earlier run left up: its server, and its scripted model."""
    if holder(data) is not None:
        say("A server of an earlier demo is still up: ending it first.")
        await end_server(data)
    marker = data / "model.pid"
    with suppress(OSError, ValueError):
        pid = int(marker.read_text())
        if b"codespar.scripted" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)


async def end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def clear(data: Path) -> None:
    for entry in data.iterdir():
        if entry.name in KEPT:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def free_port() -> int:
    """A port of the loopback where nobody listens. It may be minutes until a server of the demo does, while images are built: it is none
    of those that the system meanwhile gives to whoever connects, or asks for any."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    end = int(given.read_text().split()[0]) if given.exists() else 0
    while True:
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", random.randrange(_LOWEST, end) if end > _LOWEST else 0))
            return int(probe.getsockname()[1])
