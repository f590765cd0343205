"""Tasks for benchmarks: scripts that do the least a coding CLI can do, and what a task's folder says of when its container began."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.house import House

from codespar.scripted.script import Library, Script, Turn, write

IDLE = Library({}, otherwise=Script((Turn("There is nothing to do."),)))
"""One answer without a tool: the task ends at the harvest, having changed nothing."""
WRITES = Library(
    {}, otherwise=Script((Turn("I write it.", (write("made.txt", "made\n"),)), Turn("feat: add made.txt")))
)
"""Two answers, one written file: the task ends in a pull request."""


def moment(text: str) -> float:
    """The API's time as seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def first_line(events: Path) -> float | None:
    """When the first process of a container said its first line into this `events.ndjson`; None before."""
    try:
        with events.open(encoding="utf-8") as file:
            line = file.readline()
    except FileNotFoundError:
        return None
    return float(json.loads(line)["at"]) if line.endswith("\n") else None


def events_of(house: House, task: str) -> Path:
    """Where the task's first container writes what it does."""
    return house.folder / "data" / "tasks" / task / "1" / "out" / "events.ndjson"


async def begun(house: House, task: str, seconds: float = 30) -> float:
    """Wait for the first line of the task's container and return its time. Raises `RuntimeError` when none comes."""
    deadline = time.monotonic() + seconds
    while (at := first_line(events_of(house, task))) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{task} has no container after {seconds} s: {await house.task(task)}")
        await asyncio.sleep(0.02)
    return at


async def warm(house: House, project: str) -> str:
    """Let one task run, so that image, clone and index are there. Returns the id of the image it ran in."""
    ended = await house.until(await house.instruct(project, "warm up"), "completed", "failed", seconds=600)
    if "image" not in ended["isolation"]:
        raise RuntimeError(f"the first task had no container: {ended['result']}")
    return str(ended["isolation"]["image"])


async def all_ended(house: House, project: str, seconds: float) -> list[dict[str, Any]]:
    """Wait until every task of the project has ended, and return them. Raises `RuntimeError` when they do not."""
    deadline = time.monotonic() + seconds
    while True:
        tasks = (await house.client.get("/api/v1/tasks", project=project, limit="500"))["tasks"]
        if all(task["endedAt"] for task in tasks):
            return list(tasks)
        if time.monotonic() > deadline:
            raise RuntimeError(f"tasks of {project} are still under way after {seconds:.0f} s")
        await asyncio.sleep(0.3)
