"""Tasks for benchmarks: scripts that do the least a coding CLI can do, and what their folders say of when things happened."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from codespar.scripted.script import Library, Script, Turn, write
from codespar.sandbox.base import EnvironmentSetup
from tests.support.house import House

IDLE = Script((Turn("There is nothing to do."),))  # one answer, no tool: ends as a task that changed nothing
WRITES = Script((Turn("I write it.", (write("made.txt", "made\n"),)), Turn("feat: add made.txt\n\nDone.")))
SCRIPTS = Library({"write": WRITES}, otherwise=IDLE)


def moment(text: str) -> float:
    """The API's time as seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def first_line(house: House, task: str) -> float | None:
    """When the first process of the task's first container said its first line; None before."""
    path = house.folder / "data" / "tasks" / task / "1" / "out" / "events.ndjson"
    try:
        line = path.open(encoding="utf-8").readline()
    except FileNotFoundError:
        return None
    return float(json.loads(line)["at"]) if line.endswith("\n") else None


async def begun(house: House, task: str, seconds: float = 30) -> float:
    """Wait for the first line of the task's container and return its time."""
    deadline = time.monotonic() + seconds
    while (at := first_line(house, task)) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{task} has no container after {seconds} s: {await house.task(task)}")
        await asyncio.sleep(0.02)
    return at


async def all_ended(house: House, project: str, seconds: float) -> list[dict[str, Any]]:
    """Wait until every task of the project has ended, and return them."""
    deadline = time.monotonic() + seconds
    while True:
        tasks = (await house.client.get("/api/v1/tasks", project=project, limit="500"))["tasks"]
        if all(task["endedAt"] for task in tasks):
            return list(tasks)
        if time.monotonic() > deadline:
            raise RuntimeError(f"tasks of {project} are still under way after {seconds} s")
        await asyncio.sleep(0.25)


async def image_of(house: House, project: str, repository: Path) -> str:
    """The image that the project's tasks run in, built by letting one run."""
    task = await house.instruct(project, "warm up")
    ended = await house.until(task, seconds=600)
    return str((ended["isolation"] or {})["image"])


__all__ = ["IDLE", "SCRIPTS", "WRITES", "EnvironmentSetup", "all_ended", "begun", "first_line", "image_of", "moment"]
