"""How long a freed slot stays free: from a task's end to the next one's start, as stored, as told, and as its container sees it.

Three projects with 1, 2 and 3 slots work their queues off one after another; a task asks the model once and changes nothing.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.house import House
from tests.support.repositories import repository

from benchmarks.tasks import IDLE, all_ended, begun, events_of, first_line, moment, warm

HANDOVERS = {1: 6, 2: 11, 3: 13}  # for each number of slots
NOBODY = "none in the table: reported"


async def _measure(folder: Path) -> list[dict[str, Any]]:
    bare = repository(folder / "repository.git", config=None)
    projects = [
        {"name": f"slots{slots}", "repository": str(bare), "max_concurrent_tasks": slots}
        for slots in HANDOVERS
    ]
    stored: list[float] = []
    begins: list[float] = []
    free: list[float] = []
    told: dict[str, float] = {}
    async with House(folder / "house", IDLE, settings={"projects": projects}) as house:
        listening = asyncio.create_task(_listen(house, told))
        await warm(house, "slots1")
        for slots in HANDOVERS:
            task = await house.instruct(f"slots{slots}", "on a free slot")
            at = await begun(house, task)
            ended = await house.until(task, "completed", "failed")
            free.append(at - moment(ended["startedAt"]))
        known = {task["id"] for task in (await house.client.get("/api/v1/tasks"))["tasks"]}
        for slots, handovers in HANDOVERS.items():
            for number in range(slots + handovers):
                await house.instruct(f"slots{slots}", f"nothing, the {number}th time")
            tasks = [one for one in await all_ended(house, f"slots{slots}", 60) if one["id"] not in known]
            ends = sorted(moment(task["endedAt"]) for task in tasks)
            for task in tasks:
                if not task["queuedPosition"]:
                    continue
                began = moment(task["startedAt"])
                freed = max(end for end in ends if end <= began)
                seen = first_line(events_of(house, task["id"]))
                if seen is None or task["id"] not in told:
                    raise RuntimeError(f"{task['id']} has left no trace of its start: {task}")
                stored.append(max(began, told[task["id"]]) - freed)
                begins.append(seen - freed)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    p99, last = (statistics.quantiles(kind, n=100, method="inclusive")[98] for kind in (stored, begins))
    usual = statistics.median(free)
    return [
        {
            "name": "handover",
            "value": round(p99 * 1000),
            "unit": "ms",
            "against": f"p99 of {len(stored)}, until a client of /api/v1/events sees it; their median: {statistics.median(stored) * 1000:.0f} ms",
            "ratio": round(p99 / statistics.median(stored), 2),
            "goal": "<= 150 ms",
            "ok": p99 <= 0.150,
        },
        {
            "name": "handover_container",
            "value": round(last * 1000),
            "unit": "ms",
            "against": f"start of a container on a slot that was free: {usual * 1000:.0f} ms (median hand-over: {statistics.median(begins) * 1000:.0f} ms)",
            "ratio": round(last / usual, 2),
            "goal": NOBODY,
            "ok": True,
        },
    ]


async def _listen(house: House, told: dict[str, float]) -> None:
    """Keep when a client first saw that a task runs."""
    async for event in house.client.events():
        if event.kind == "task" and event.data["status"] != "queued":
            told.setdefault(event.data["id"], time.time())


def run() -> list[dict[str, Any]]:
    """Measure 30 hand-overs."""
    with tempfile.TemporaryDirectory(prefix="codespar-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))
