"""A workflow whose store is away for longer than a failing step is tried: in a process of its own, since there is one engine a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, os, sys
from codespar.engine.durable import DurableEngine
from codespar.store.base import StoreUnavailable

away = 7  # times: one more than a step that raises is tried

async def step():
    global away
    away -= 1
    if away >= 0:
        raise StoreUnavailable("the database did not commit: it is away")
    return "kept"

async def work(context, payload):
    sys.stdout.write(str(await context.step("step", step)))
    sys.stdout.flush()
    os._exit(0)

async def main():
    engine = DurableEngine(sys.argv[1])
    engine.register("work", work)
    await engine.open()
    await engine.start("work", "w-1", {})
    await asyncio.sleep(120)
    os._exit(1)

asyncio.run(main())
"""


def test_a_step_is_tried_for_as_long_as_its_store_is_away(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"sqlite:///{tmp_path / 'engine.sqlite'}"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ended.returncode == 0 and ended.stdout.endswith("kept"), ended.stderr[-2000:]
