"""The postman when things go wrong that no platform's own tests show: a defect of an adapter, old messages, a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codespar.channels.base import (
    Capabilities,
    DeliveryFailed,
    HttpAnswer,
    HttpRequest,
    Part,
    Reception,
)
from codespar.channels.postman import Postman
from codespar.domain.messages import NormalizedResponse, Tone
from codespar.domain.tasks import Thread
from codespar.store.base import Notice
from codespar.store.database import Database

THREAD = Thread(channel="wall", conversation="room")


class Wall:
    """A platform in this process: what was written on it, and what it does when it is told to."""

    name = "wall"
    capabilities = Capabilities(edits=True, deletes=True, edit_seconds=0.01, resend="safe")

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}
        self.broken = ""  # what no one can render
        self.failures: list[Exception] = []  # of the next calls

    async def start(self, reception: Reception) -> None: ...

    async def stop(self) -> None: ...

    def render(self, response: NormalizedResponse, *, plain: bool = False) -> tuple[Part, ...]:
        if response.title == self.broken:
            raise KeyError("no such block")
        return (Part(payload={}, text=response.title or ""),)

    async def send(self, thread: Thread, part: Part, key: str) -> str:
        self._fail()
        self.shown[key] = part.text
        return key

    async def edit(self, thread: Thread, external: str, part: Part) -> None:
        self._fail()
        self.shown[external] = part.text

    async def delete(self, thread: Thread, external: str) -> None:
        self.shown.pop(external, None)

    async def find(self, thread: Thread, key: str, since: datetime) -> str | None:
        return key if key in self.shown else None

    async def fetch(self, ref: str, cap: int) -> bytes:
        return b""

    async def answer(self, request: HttpRequest) -> HttpAnswer:
        return HttpAnswer()

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


class Post:
    """A store whose clock can be set, a postman and a wall."""

    def __init__(self, folder: Path) -> None:
        self.ahead = timedelta()
        self.wall = Wall()
        self.waited: list[float] = []
        self.store = Database(f"sqlite:///{folder / 'codespar.sqlite'}")
        self.store.on_commit = self._wake
        self.postman = Postman(self.store, {"wall": self.wall}, self.now)
        self.postman.on_delivered = lambda channel, seconds: self.waited.append(seconds)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def _wake(self, notices: list[Notice]) -> None:
        for notice in notices:
            if notice.kind == "message":
                self.postman.wake(notice.body["message"].thread)

    async def say(self, key: str, title: str, *, again: bool = False) -> None:
        told = NormalizedResponse(title=title, tone=Tone.WARNING, replaces=key if again else None)
        await self.store.write(lambda unit: unit.say("shop", THREAD, key, told, self.now()))

    async def counted(self, times: int) -> None:
        async with asyncio.timeout(60):
            while len(self.waited) < times:  # noqa: ASYNC110 - what was counted is looked at
                await asyncio.sleep(0.01)

    async def shows(self, *titles: str) -> None:
        async with asyncio.timeout(60):
            while list(self.wall.shown.values()) != list(titles):  # noqa: ASYNC110 - the wall is looked at
                await asyncio.sleep(0.01)


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    made = Post(tmp_path)
    await made.store.open()
    made.postman.start()
    yield made
    await made.postman.stop()
    await made.store.close()


async def test_an_edit_of_a_message_from_last_week_that_fails_once_is_tried_again(post: Post) -> None:
    await post.say("build", "main is broken")
    await post.shows("main is broken")
    post.ahead = timedelta(days=7)
    post.wall.failures = [DeliveryFailed("try later", retry_after=0.05)]
    await post.say("build", "main is fixed", again=True)
    await post.shows("main is fixed")


async def test_the_time_until_an_edit_is_shown_is_counted_from_the_edit(post: Post) -> None:
    await post.say("task", "started")
    await post.counted(1)
    post.ahead = timedelta(days=1)
    await post.say("task", "ended", again=True)
    await post.counted(2)
    assert all(seconds < 60 for seconds in post.waited)


async def test_a_message_that_no_adapter_can_render_is_given_up_after_some_days_and_those_behind_it_are_told(
    post: Post,
) -> None:
    post.wall.broken = "broken"
    await post.say("bad", "broken")
    await post.say("good", "fine")
    await asyncio.sleep(0.2)
    assert not post.wall.shown, "a thread is told in order"
    post.ahead = timedelta(days=4)
    await post.shows("fine")


async def test_what_is_said_after_the_postman_was_stopped_waits_for_the_next_start(post: Post) -> None:
    await post.postman.stop()
    await post.say("late", "the last words of a task")
    await asyncio.sleep(0.2)
    assert not post.wall.shown
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("post-")]
    post.postman.start()
    await post.shows("the last words of a task")
