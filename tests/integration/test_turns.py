"""The turns of projects when they are stopped: on the real store, with a mind that takes its time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from codespar.agents.turns import Turns, Understood
from codespar.domain.commands import Command
from codespar.domain.messages import Author, Channel, NormalizedMessage
from codespar.domain.people import Role
from codespar.domain.tasks import Thread
from codespar.store.base import Happened, Incoming, Unit
from codespar.store.database import Database

AT = datetime(2026, 1, 2, tzinfo=UTC)
THREAD = Thread(channel="cli", conversation="shop", thread_id="t", person="ada")


class Ponders:
    """A mind that reads for a message until it is told to go on."""

    def __init__(self) -> None:
        self.reading: asyncio.Queue[int] = asyncio.Queue()  # the messages it began to read for
        self.go_on = asyncio.Event()

    async def gather(self, incoming: Incoming) -> Understood:
        self.reading.put_nowait(incoming.id)
        await self.go_on.wait()
        return Understood(command=Command(name="status"))

    def decide(self, unit: Unit, incoming: Incoming, understood: Understood, now: datetime) -> None: ...

    def notice(self, unit: Unit, happened: Happened, now: datetime) -> None: ...


async def deliver(store: Database, delivery: str) -> int:
    author = Author(id="ada", name="Ada", role=Role.OWNER)
    message = NormalizedMessage(
        id=delivery, channel=Channel.CLI, author=author, content="status", timestamp=AT
    )
    body = {"message": message.wire(), "person": "ada", "thread": THREAD.wire()}
    return (await store.write(lambda unit: unit.accept("cli", delivery, "shop", body, AT)))[0]


async def test_after_it_was_stopped_no_turn_begins_and_the_messages_wait_for_the_next_start(
    tmp_path: Path,
) -> None:
    store = Database(f"sqlite:///{tmp_path / 'codespar.sqlite'}")
    await store.open()
    mind = Ponders()
    turns = Turns(store, mind, lambda: AT)
    first = await deliver(store, "one")
    turns.wake("shop")
    assert await mind.reading.get() == first
    await deliver(store, "two")
    turns.wake("shop")  # to be looked at after the turn under way
    async with asyncio.timeout(60):
        await turns.stop()
    turns.wake("shop")
    mind.go_on.set()
    await asyncio.sleep(0.3)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("turns-")]
    assert mind.reading.empty() and turns.taken == 0

    again = Turns(store, mind, lambda: AT)
    await again.start()
    async with asyncio.timeout(60):
        while again.taken < 2:  # noqa: ASYNC110 - it is counted after the commit
            await asyncio.sleep(0.01)
    assert not await store.read(lambda unit: unit.projects_with_pending())
    await again.stop()
    assert again.taken == 2
    await store.close()
