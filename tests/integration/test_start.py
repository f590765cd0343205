"""A server that has just said that it is ready: parts of it are still being imported."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest_asyncio

from codespar.scripted.script import Library
from support.house import READY_SECONDS, House
from support.repositories import repository

PATIENCE = aiohttp.ClientTimeout(total=READY_SECONDS)


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Of one project, and ended."""
    async with House(tmp_path / "house", Library({})) as house:
        await house.link("one", repository(tmp_path / "one.git"))
        await house.down()
        yield house


async def launch(house: House, session: aiohttp.ClientSession) -> asyncio.subprocess.Process:
    """Start the server. Returns at the first 200 of /readyz, which is asked for again at once."""
    process = await house.launch()
    async with asyncio.timeout(READY_SECONDS):
        while True:
            assert process.returncode is None, house.log[-3000:]
            try:
                async with session.get("/readyz") as answer:
                    if answer.status == 200:
                        return process
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.005)


def talker(house: House) -> aiohttp.ClientSession:
    token = (house.folder / "data" / "cli-token").read_text().strip()
    return aiohttp.ClientSession(
        f"http://127.0.0.1:{house.port}", headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE
    )


async def test_whatever_is_asked_as_soon_as_it_is_ready_is_answered(house: House) -> None:
    async with talker(house) as session:
        await launch(house, session)
        said = session.post("/api/v1/messages", json={"content": "status", "project": "one"})
        asked = [session.get(path) for path in ("/api/v1/version", "/api/v1/projects", "/openapi.json")]
        answers = await asyncio.gather(said, *asked, session.get("/api/v1/none"))
        assert [answer.status for answer in answers] == [200, 200, 200, 200, 404]
        assert (await answers[0].json())["responses"]


async def test_it_ends_in_order_as_soon_as_it_is_ready(house: House) -> None:
    async with talker(house) as session:
        process = await launch(house, session)
        asked = asyncio.ensure_future(session.get("/api/v1/version"))
        await asyncio.sleep(0.02)  # it is on its way
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await process.wait() == 0
        await asyncio.gather(asked, return_exceptions=True)
