"""How fast a turn of conversation is: `status` through POST /api/v1/messages, answered when message, turn and answer are committed.

16 connections. The peer is the bare handler of `benchmarks/bare.py`, which commits the same bodies once and decides nothing.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any

from tests.support.house import House, free_port
from tests.support.repositories import repository

from benchmarks.bare import bare_handler
from benchmarks.load import Measured, measure, message, p99_figure
from codespar.scripted.script import Library

CONNECTIONS = 16
TURNS = 2500  # a round
ROUNDS = 3


async def _measure(folder: Path) -> list[dict[str, Any]]:
    bare_port = free_port()
    turns: list[Measured] = []
    bare: list[Measured] = []
    with bare_handler(folder / "bare", bare_port):
        async with House(folder / "house", Library({})) as house:
            await house.link("bench", repository(folder / "repository.git"))
            token = (house.folder / "data" / "cli-token").read_text().strip()
            for turn in range(ROUNDS):
                load = [message(token, "bench", f"s{turn}-{n}", "status") for n in range(TURNS)]
                bare.append(await asyncio.to_thread(measure, bare_port, load, CONNECTIONS))
                turns.append(await asyncio.to_thread(measure, house.port, load, CONNECTIONS))
    rate, peer = (statistics.median(one.rate for one in kind) for kind in (turns, bare))
    return [
        {
            "name": "turn",
            "value": round(rate),
            "unit": "turns/s",
            "against": f"a bare ASGI handler that commits the same bodies: {peer:.0f} requests/s",
            "ratio": round(rate / peer, 3),
            "goal": ">= 500 turns/s",
            "ok": rate >= 500,
        },
        p99_figure("turn_p99", turns, bare, 50),
    ]


def run() -> list[dict[str, Any]]:
    """Measure; medians of three rounds, server and peer taking turns."""
    with tempfile.TemporaryDirectory(prefix="codespar-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))
