"""How long `codespar up` takes until it is ready, and what it takes while it has nothing to do.

Ready is a 200 of /readyz. The peer imports uvicorn, FastAPI and SQLAlchemy in the same interpreter and ends. Idle is measured with 100
linked projects, in the process that linked them and all processes under it, from /proc.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.house import House
from tests.support.repositories import repository

import codespar
from codespar.scripted.script import Library

STARTS = 5
PROJECTS = 100
SETTLE = 3.0  # seconds after the last project was linked
IDLE = 20.0  # seconds that are measured
READY = 30.0
IMPORTS = "import uvicorn, fastapi, sqlalchemy"


async def _measure(folder: Path) -> list[dict[str, Any]]:
    ready: list[float] = []
    peer: list[float] = []
    async with House(folder / "empty", Library({})) as house:
        await house.down()
        for _ in range(STARTS):
            peer.append(await asyncio.to_thread(_imports))
            ready.append(await asyncio.to_thread(_start, house))
    async with House(folder / "full", Library({})) as house:
        bare = repository(folder / "repository.git", config=None)
        for number in range(0, PROJECTS, 10):
            await asyncio.gather(*(house.link(f"project-{number + more}", bare) for more in range(10)))
        await asyncio.sleep(SETTLE)
        before, began = _cpu_seconds(house.pid), time.monotonic()
        await asyncio.sleep(IDLE)
        busy = (_cpu_seconds(house.pid) - before) / (time.monotonic() - began) * 100
        memory = sum(_resident(pid) for pid in _tree(house.pid)) / 1024**2
        await house.down()
        again = await asyncio.to_thread(_start, house)
    value, imports = statistics.median(ready), statistics.median(peer)
    return [
        {
            "name": "startup",
            "value": round(value, 3),
            "unit": "s",
            "against": f"python -c '{IMPORTS}': {imports:.3f} s (with {PROJECTS} projects we take {again:.3f} s)",
            "ratio": round(value / imports, 2),
            "goal": "<= 1.0 s",
            "ok": value <= 1.0,
        },
        {
            "name": "idle_memory",
            "value": round(memory, 1),
            "unit": "MB",
            "against": f"the goal's limit, with {PROJECTS} linked projects",
            "ratio": round(memory / 150, 3),
            "goal": "<= 150 MB",
            "ok": memory <= 150,
        },
        {
            "name": "idle_cpu",
            "value": round(busy, 2),
            "unit": "% of a core",
            "against": f"the goal's limit, over {IDLE:.0f} s with {PROJECTS} linked projects",
            "ratio": round(busy / 2, 3),
            "goal": "<= 2 %",
            "ok": busy <= 2,
        },
    ]


def _imports() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.perf_counter() - began


def _start(house: House) -> float:
    """Seconds from calling `codespar up` to the first 200 of /readyz; the server is ended again."""
    environment = {key: value for key, value in os.environ.items() if key != "ANTHROPIC_API_KEY"}
    with (house.folder / "server.log").open("ab") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "codespar", "up"],
            cwd=house.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        while not _is_ready(house.port):
            if process.poll() is not None or time.perf_counter() - began > READY:
                raise RuntimeError(f"the server did not get ready: {house.log[-2000:]}")
            time.sleep(0.005)
        return time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (http.client.HTTPException, OSError):
        return False
    finally:
        connection.close()


def _tree(pid: int) -> list[int]:
    """The process and everything under it."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += _tree(int(child))
    return found


def _cpu_seconds(pid: int) -> float:
    """What the process and its children, living and ended, have used."""
    total = 0.0
    for one in _tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ended = fields[13:15] if one == pid else []
        total += sum(int(field) for field in [*fields[11:13], *ended]) / os.sysconf("SC_CLK_TCK")
    return total


def _resident(pid: int) -> int:
    """Bytes of memory that the process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run() -> list[dict[str, Any]]:
    """Measure; the start is the median of five on one data folder."""
    # As an installed package: where Python may not write byte code, each start would compile what was changed since `make setup`.
    subprocess.run([sys.executable, "-m", "compileall", "-q", *codespar.__path__], check=True)
    with tempfile.TemporaryDirectory(prefix="codespar-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))
