"""Turns when something fails: the database, a mind, a message that nobody can read, and somebody who waits and goes away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from codespar.agents.turns import Turns, Understood
from codespar.domain.commands import Command
from codespar.domain.messages import Author, Channel, NormalizedMessage, NormalizedResponse
from codespar.domain.people import Role
from codespar.domain.tasks import Thread
from codespar.store.base import Happened, Incoming, StoreUnavailable, Unit
from codespar.store.database import Database

AT = datetime(2026, 1, 2, tzinfo=UTC)
THREAD = Thread(channel="cli", conversation="shop", thread_id="t", person="ada")
PUSHED = {
    "news": {
        "delivery": "pushed",
        "at": "2026-01-02T00:00:00Z",
        "repository": "ada/shop",
        "what": {"kind": "push", "branch": "main", "before": "a" * 40, "after": "b" * 40, "default": True},
    }
}


class Answers:
    """A mind that answers every message with its id. `meanwhile` is called as a turn decides or looks."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[str], None] = lambda content: None
        self.news = 0

    async def gather(self, incoming: Incoming) -> Understood:
        return Understood(command=Command(name="status"))

    def decide(self, unit: Unit, incoming: Incoming, understood: Understood, now: datetime) -> None:
        self.meanwhile(incoming.message.content)
        told = NormalizedResponse(title=f"answer to {incoming.message.content}")
        unit.say("shop", incoming.thread, f"in{incoming.id}", told, now, incoming.id)

    def notice(self, unit: Unit, happened: Happened, now: datetime) -> None:
        self.meanwhile("news")
        unit.next_ticket()
        self.news += 1


class Desk:
    """A store, its turns, and what is said to them."""

    def __init__(self, url: str) -> None:
        self.mind = Answers()
        self.store = Database(url)
        self.turns = Turns(self.store, self.mind, lambda: AT)

    async def put(self, content: str, body: dict[str, Any] | None = None) -> int:
        author = Author(id="ada", name="Ada", role=Role.OWNER)
        message = NormalizedMessage(
            id=content, channel=Channel.CLI, author=author, content=content, timestamp=AT
        )
        if body is None:
            body = {"message": message.wire(), "person": "ada", "thread": THREAD.wire()}
        return (await self.store.write(lambda unit: unit.accept("cli", content, "shop", body, AT)))[0]

    async def done(self) -> None:
        async with asyncio.timeout(60):
            while await self.store.read(lambda unit: unit.projects_with_pending()):  # noqa: ASYNC110 - the store is asked
                await asyncio.sleep(0.02)

    async def said(self) -> list[str | None]:
        return [one.response.title for one in await self.store.read(lambda unit: unit.messages(None, 0, 99))]


@pytest.fixture(params=["sqlite", "postgresql"])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'a.sqlite'}" if sqlite else request.getfixturevalue("postgres_database")
    made = Desk(url)
    await made.store.open()
    yield made
    await made.turns.stop()
    await made.store.close()


async def test_sessions_lost_in_the_middle_of_turns_lose_no_message_and_no_news(
    postgres_database: str,
) -> None:
    desk = Desk(postgres_database)
    await desk.store.open()
    lost: list[str] = []

    def lose(content: str) -> None:
        if content in ("b", "news") and content not in lost:
            lost.append(content)
            with psycopg.connect(postgres_database, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

    desk.mind.meanwhile = lose
    for content in ("a", "b", "c"):
        await desk.put(content)
    news = await desk.put("pushed", PUSHED)
    desk.turns.wake("shop")
    await desk.done()
    assert lost == ["b", "news"]
    assert await desk.said() == ["answer to a", "answer to b", "answer to c"]
    assert await desk.store.write(lambda unit: unit.next_ticket()) == 2, "the news were looked at"
    assert not await desk.store.read(lambda unit: unit.is_pending(news))
    await desk.turns.stop()
    await desk.store.close()


async def test_turns_go_on_by_themselves_when_the_database_is_there_again(postgres_database: str) -> None:
    desk = Desk(postgres_database)
    await desk.store.open()
    name = postgres_database.rpartition("/")[2]
    server = f"{postgres_database.rpartition('/')[0]}/postgres"
    incoming = await desk.put("a")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        desk.turns.wake("shop")
        answer = asyncio.create_task(_expected(desk, incoming))
        await asyncio.sleep(0.7)
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    assert await answer == ["answer to a"]
    await desk.turns.stop()
    await desk.store.close()


async def _expected(desk: Desk, incoming: int) -> list[str | None]:
    async with asyncio.timeout(60):
        return [one.response.title for one in await desk.turns.expect(incoming)]


async def test_a_message_that_cannot_be_read_keeps_none_behind_it_from_its_turn(desk: Desk) -> None:
    await desk.put("of another release", {"message": {"words": "?"}, "thread": {}})
    await desk.put("no document", {"news": []})
    await desk.put("a")
    desk.turns.wake("shop")
    await desk.done()
    assert await desk.said() == ["answer to a"]


async def test_a_turn_whose_apology_fails_too_keeps_none_behind_it_from_its_turn(desk: Desk) -> None:
    def screen(response: NormalizedResponse) -> NormalizedResponse:
        if response.title != "answer to a":
            raise RuntimeError("screened by nobody")
        return response

    desk.store.screen = screen
    await desk.put("never told")
    await desk.put("a")
    desk.turns.wake("shop")
    await desk.done()
    assert await desk.said() == ["answer to a"]


async def test_who_asks_for_the_answers_of_a_turn_that_is_being_told_takes_them_from_nobody(
    desk: Desk,
) -> None:
    """The second message is committed, and its waiter not yet told, while the first one's apology is written."""
    apologizing, go_on = threading.Event(), threading.Event()

    def screen(response: NormalizedResponse) -> NormalizedResponse:
        if response.title and "could not be handled" in response.title:
            apologizing.set()
            assert go_on.wait(60)
        return response

    def fail(content: str) -> None:
        if content == "bad":
            raise RuntimeError("not this one")

    desk.store.screen, desk.mind.meanwhile = screen, fail
    await desk.put("bad")
    good = await desk.put("good")
    waiting = asyncio.create_task(_expected(desk, good))
    await asyncio.sleep(0)
    desk.turns.wake("shop")
    try:
        assert await asyncio.to_thread(apologizing.wait, 60)
        again = await desk.turns.answered(good)
    finally:
        go_on.set()
    assert [one.response.title for one in again] == await waiting == ["answer to good"]


@pytest.mark.parametrize("leaves", ["the first", "the second"])
async def test_one_who_waits_for_an_answer_and_goes_away_leaves_the_other_waiting(
    desk: Desk, leaves: str
) -> None:
    incoming = await desk.put("a")
    first = asyncio.create_task(_expected(desk, incoming))
    second = asyncio.create_task(desk.turns.answered(incoming))
    await asyncio.sleep(0.2)
    gone, stays = (first, second) if leaves == "the first" else (second, first)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    desk.turns.wake("shop")
    async with asyncio.timeout(60):
        assert len(await stays) == 1


async def test_who_waits_is_answered_though_the_news_of_the_commit_were_lost(desk: Desk) -> None:
    """What the turns were told was not committed, was: they find the message done when they look again."""
    incoming = await desk.put("a")
    told = NormalizedResponse(title="answer to a")

    def lose(content: str) -> None:
        raise StoreUnavailable("the connection was lost")

    def committed(unit: Unit) -> None:
        unit.say("shop", THREAD, f"in{incoming}", told, AT, incoming)
        unit.finish(incoming, AT)

    desk.mind.meanwhile = lose
    waiting = asyncio.create_task(_expected(desk, incoming))
    await asyncio.sleep(0)
    desk.turns.wake("shop")
    await asyncio.sleep(0.2)
    await desk.store.write(committed)
    assert await waiting == ["answer to a"]
