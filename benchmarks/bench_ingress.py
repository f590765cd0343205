"""How fast a delivery is committed and acknowledged: signed webhooks, and messages whose sender does not wait for the answer.

32 connections send bodies of 8 kB each to a CodeSpar server on SQLite (`synchronous=FULL`) and, in turns with it, to the bare handler of
`benchmarks/bare.py`. At the end the server is killed and every acknowledged delivery is looked for in its database.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import statistics
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.support.house import House, free_port
from tests.support.repositories import repository

from benchmarks.bare import bare_handler, rows
from benchmarks.load import Measured, measure, message, p99_figure, padded, signed
from codespar.scripted.script import Library

CONNECTIONS = 32
SIZE = 8192  # bytes of a body
WEBHOOKS = 4000  # a round
MESSAGES = 1500  # a round
ROUNDS = 3
SOURCE = "bench"


async def _measure(folder: Path) -> list[dict[str, Any]]:
    secret, bare_port = secrets.token_hex(16), free_port()
    environment = {f"CODESPAR_WEBHOOK_SECRET_{SOURCE.upper()}": secret}
    hooks: list[Measured] = []
    messages: list[Measured] = []
    bare: list[Measured] = []
    sent: set[str] = set()
    with bare_handler(folder / "bare", bare_port) as bare_database:
        async with House(folder / "house", Library({}), environment=environment) as house:
            await house.link("bench", repository(folder / "repository.git"))
            token = (house.folder / "data" / "cli-token").read_text().strip()
            for turn in range(ROUNDS):
                names = [f"h{turn}-{number}" for number in range(WEBHOOKS)]
                said = [f"m{turn}-{number}" for number in range(MESSAGES)]
                sent |= {*names, *said}
                load = [signed(SOURCE, secret, name, SIZE) for name in names]
                bare.append(await asyncio.to_thread(measure, bare_port, load, CONNECTIONS))
                hooks.append(await asyncio.to_thread(measure, house.port, load, CONNECTIONS))
                load = [message(token, "bench", name, padded(name, SIZE), wait=False) for name in said]
                messages.append(await asyncio.to_thread(measure, house.port, load, CONNECTIONS))
                await house.say("bench", "queue")  # answered when every turn before it has been taken
            await house.kill()
            kept = _deliveries(house.folder / "data" / "codespar.sqlite")
        there = rows(bare_database) == WEBHOOKS * ROUNDS
    if not there:
        raise RuntimeError("the bare handler lost deliveries: it is no peer")
    missing = len(sent - kept)
    peer = statistics.median(one.rate for one in bare)
    return [
        *_figures("ingress_webhook", hooks, bare, peer),
        *_figures("ingress_message", messages, bare, peer),
        {
            "name": "ingress_rows",
            "value": len(sent) - missing,
            "unit": "rows",
            "against": f"{len(sent)} acknowledged deliveries, counted after kill -9",
            "ratio": round((len(sent) - missing) / len(sent), 6),
            "goal": "every row there",
            "ok": missing == 0,
        },
    ]


def _deliveries(database: Path) -> set[str]:
    """The deliveries in the inbox, by the name that the load gave them: a message's has its person's id before it."""
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT delivery FROM inbox").fetchall()
    return {str(row[0]).rpartition(":")[2] for row in found}


def _figures(name: str, ours: list[Measured], bare: list[Measured], peer: float) -> list[dict[str, Any]]:
    rate = statistics.median(one.rate for one in ours)
    return [
        {
            "name": name,
            "value": round(rate),
            "unit": "requests/s",
            "against": f"a bare ASGI handler with the same group-committed insert: {peer:.0f} requests/s",
            "ratio": round(rate / peer, 3),
            "goal": ">= 0.5 of the bare handler",
            "ok": rate / peer >= 0.5,
        },
        p99_figure(f"{name}_p99", ours, bare, 15),
    ]


def run() -> list[dict[str, Any]]:
    """Measure; medians of three rounds, the kinds of load taking turns."""
    with tempfile.TemporaryDirectory(prefix="codespar-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))
