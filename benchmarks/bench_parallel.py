"""What three equal tasks at once cost against one alone, where their time is the model's: each of two answers takes 8 seconds.

From the first `instruct` to the last task's end, pull request included. A first task, which is not counted, makes sure that the image is
there.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.house import House
from tests.support.repositories import repository

from benchmarks.tasks import WRITES, all_ended, begun, moment

ANSWER = 8.0  # seconds that the model takes for one answer
TOGETHER = 3


async def _measure(folder: Path) -> list[dict[str, Any]]:
    async with House(folder / "house", WRITES, seconds=ANSWER) as house:
        for project in ("first", "alone", "together"):
            await house.link(project, repository(folder / f"{project}.git", config=None))
        first = await house.instruct("first", "make it")
        await begun(house, first, 600)
        await house.say("first", f"cancel {first}")
        await house.until(first, "cancelled")
        alone = await _span(house, "alone", 1)
        together = await _span(house, "together", TOGETHER)
    return [
        {
            "name": "parallel",
            "value": round(together, 2),
            "unit": "s",
            "against": f"one such task alone: {alone:.2f} s",
            "ratio": round(together / alone, 3),
            "goal": "<= 1.15 of one alone",
            "ok": together / alone <= 1.15,
        }
    ]


async def _span(house: House, project: str, count: int) -> float:
    """Seconds that `count` tasks at once take."""
    began = time.time()
    await asyncio.gather(*(house.instruct(project, f"make it, part {number}") for number in range(count)))
    tasks = await all_ended(house, project, 120)
    if any(task["status"] != "completed" for task in tasks):
        raise RuntimeError(f"a task was not completed: {[task['result'] for task in tasks]}")
    return max(moment(task["endedAt"]) for task in tasks) - began


def run() -> list[dict[str, Any]]:
    """Measure once each."""
    with tempfile.TemporaryDirectory(prefix="codespar-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))
