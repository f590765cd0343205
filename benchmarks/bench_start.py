"""How long it takes from an accepted `instruct` on a free slot to the first process in its container.

The peer is a bare `docker run` of the same image with the same entry point, up to the same first line. The two take turns. The image is
there already, and one task has run before.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.house import House
from tests.support.repositories import repository

from benchmarks.tasks import IDLE, begun, first_line, moment, warm

STARTS = 12


async def _measure(folder: Path) -> list[dict[str, Any]]:
    ours: list[float] = []
    bare: list[float] = []
    offline: list[float] = []
    async with House(folder / "house", IDLE) as house:
        await house.link("bench", repository(folder / "repository.git", config=None))
        image = await warm(house, "bench")
        for turn in range(STARTS):
            bare.append(await asyncio.to_thread(_bare, image, folder / f"bare-{turn}"))
            offline.append(
                await asyncio.to_thread(_bare, image, folder / f"offline-{turn}", "--network=none")
            )
            task = await house.instruct("bench", f"nothing, the {turn}th time")
            at = await begun(house, task)
            ended = await house.until(task, "completed", "failed")
            ours.append(at - moment(ended["createdAt"]))
            await asyncio.sleep(0.3)  # the container's removal is not the next start's business
    value, peer, quick = (statistics.median(kind) for kind in (ours, bare, offline))
    return [
        {
            "name": "start",
            "value": round(value * 1000),
            "unit": "ms",
            "against": f"a bare docker run of the same image: {peer * 1000:.0f} ms (with --network=none: {quick * 1000:.0f} ms)",
            "ratio": round(value / peer, 2),
            "goal": "<= 1.3 of the bare run",
            "ok": value / peer <= 1.3,
        }
    ]


def _bare(image: str, out: Path, *options: str) -> float:
    """Seconds from calling `docker run` to the first line of the container's first process."""
    out.mkdir()
    out.chmod(0o777)
    command = ["docker", "run", "--rm", *options, "-v", f"{out}:/output", image]
    began = time.time()
    # It ends by itself with an error, since it has no task: its first line is all that is asked of it.
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    at = first_line(out / "events.ndjson")
    if at is None:
        raise RuntimeError(f"{' '.join(command)} did not start the runner")
    return at - began


def run() -> list[dict[str, Any]]:
    """Measure; medians of 12 starts of each kind."""
    with tempfile.TemporaryDirectory(prefix="codespar-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))
