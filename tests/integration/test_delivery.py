"""From the outbox to every chat platform: in order, edited in place, nothing lost and nothing doubled, through faults and restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from codespar.channels.base import Capabilities, ChannelAdapter, ChannelTools, Heard
from codespar.channels.platforms import platforms
from codespar.channels.postman import Postman
from codespar.domain.messages import Action, Block, FieldLine, NormalizedResponse, Progress, Tone
from codespar.domain.tasks import Thread
from codespar.store.base import Notice
from codespar.store.database import Database
from support.platforms.all import FAKES
from support.platforms.base import FakePlatform, Shown


def now() -> datetime:
    return datetime.now(UTC)


class Nobody:
    """A reception that takes what it hears and does nothing with it."""

    async def hear(self, heard: Heard) -> bool:
        return True


class Seldom:
    """A platform's adapter which says that a message may be edited every ten minutes."""

    def __init__(self, adapter: ChannelAdapter) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    @property
    def capabilities(self) -> Capabilities:
        return self._adapter.capabilities.evolve(edit_seconds=600.0)


class Post:
    """A store, a postman and one platform."""

    def __init__(self, fake: FakePlatform, folder: Path) -> None:
        self.fake = fake
        self.folder = folder
        self.thread = Thread(channel=fake.name, conversation=fake.room)
        self.adapter: ChannelAdapter
        self.store = Database(f"sqlite:///{folder / 'codespar.sqlite'}")
        self.store.on_commit = self._wake
        self.postman: Postman | None = None

    async def open(self) -> None:
        await self.store.open()
        await self.fake.start()
        platform = platforms()[self.fake.name]
        folder = self.folder / self.fake.name
        folder.mkdir(exist_ok=True)
        tools = ChannelTools(now, self.fake.environment, folder)
        section = platform.settings.model_validate(self.fake.settings, by_name=True)
        self.adapter = platform.make(section, tools)
        if hasattr(self.fake, "deliver"):
            self.fake.deliver = self.adapter.answer
        await self.adapter.start(Nobody())
        if self.fake.name == "whatsapp":  # opens the window within which anything may be said
            await self.fake.say("ada", "hello")

    async def close(self) -> None:
        await self.rest()
        await self.adapter.stop()
        await self.fake.stop()
        await self.store.close()

    def work(self, adapter: ChannelAdapter | None = None) -> None:
        """A postman begins, as after a start."""
        self.postman = Postman(self.store, {self.fake.name: adapter or self.adapter}, now)
        self.postman.start()

    async def rest(self) -> None:
        if self.postman is not None:
            await self.postman.stop()
            self.postman = None

    def _wake(self, notices: list[Notice]) -> None:
        for notice in notices:
            if notice.kind == "message" and self.postman is not None:
                self.postman.wake(notice.body["message"].thread)

    async def say(self, key: str, response: NormalizedResponse, thread: Thread | None = None) -> None:
        await self.store.write(lambda unit: unit.say("shop", thread or self.thread, key, response, now()))

    def seen(self) -> list[Shown]:
        return self.fake.seen(self.thread.conversation if self.fake.name != "whatsapp" else None)

    def times(self, words: str) -> int:
        return sum(words in one.text for one in self.seen())

    async def until(self, wanted: Callable[[], Any], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < deadline, ([one.text for one in self.seen()], self.fake.refusals)
            await asyncio.sleep(0.02)

    async def waiting(self) -> int:
        return len(await self.store.read(lambda unit: unit.letters(self.thread.key, 100)))


@pytest.fixture(params=sorted(FAKES))
async def post(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Post]:
    made = Post(FAKES[request.param](), tmp_path)
    await made.open()
    yield made
    refusals = list(made.fake.refusals)
    await made.close()
    assert refusals == []


def card(title: str, **more: Any) -> NormalizedResponse:
    return NormalizedResponse(title=title, **more)


async def test_a_thread_is_told_in_order_and_once(post: Post) -> None:
    for number in range(4):
        await post.say(f"k{number}", card(f"message {number}"))
    post.work()
    await post.until(lambda: post.times("message 3"))
    told = [one.text.split("message ")[1][0] for one in post.seen() if "message " in one.text]
    assert told == ["0", "1", "2", "3"]


async def test_what_is_said_again_under_its_key_is_edited_in_place(post: Post) -> None:
    post.work()
    await post.say("k", card("waiting", tone=Tone.WARNING))
    await post.until(lambda: post.times("waiting"))
    await post.say("k", card("approved", tone=Tone.SUCCESS, replaces="k"))
    await post.until(lambda: post.times("approved"))
    if post.adapter.capabilities.edits:
        assert not post.times("waiting") and post.seen()[-1].edits == 1
    assert post.times("approved") == 1


async def test_progress_is_edited_at_the_platforms_pace_and_ends_with_the_last(post: Post) -> None:
    post.work()
    began = time.monotonic()
    for number in range(20):
        step = card(
            f"step {number}",
            tone=Tone.PROGRESS,
            progress=Progress(phase=f"step {number}"),
            replaces="p",
        )
        await post.say("p", step)
        await asyncio.sleep(0.05)
    if not post.adapter.capabilities.edits:  # a message for the first, and then none for a minute
        await post.say("end", card("completed"))
        await post.until(lambda: post.times("completed"))
        assert sum("step" in one.text for one in post.seen()) == 1
        return
    await post.until(lambda: post.times("step 19"))
    shown = next(one for one in post.seen() if "step 19" in one.text)
    allowed = (time.monotonic() - began) / post.adapter.capabilities.edit_seconds + 1
    assert 1 <= shown.edits <= allowed


async def test_an_answer_does_not_wait_for_an_edit_of_progress(post: Post) -> None:
    post.work(Seldom(post.adapter))  # type: ignore[arg-type]
    for number in range(3):
        await post.say("p", card(f"step {number}", tone=Tone.PROGRESS, replaces="p"))
        await post.until(lambda: post.times("step 0"))
    await post.say("end", card("completed"))
    await post.until(lambda: post.times("completed"))
    assert not post.times("step 2"), "the edit waits for its time"


async def test_a_pause_the_platform_asks_for_is_kept_and_nothing_is_lost_or_doubled(post: Post) -> None:
    post.fake.fail_next(2, status=429, retry_after=1)
    for number in range(3):
        await post.say(f"k{number}", card(f"message {number}"))
    began = time.monotonic()
    post.work()
    await post.until(lambda: post.times("message 2"))
    assert time.monotonic() - began >= 1.0
    assert [post.times(f"message {number}") for number in range(3)] == [1, 1, 1]


async def test_a_platform_that_fails_is_tried_again(post: Post) -> None:
    post.fake.fail_next(2, status=503)
    await post.say("k", card("after all"))
    post.work()
    await post.until(lambda: post.times("after all"))
    assert post.times("after all") == 1


async def test_a_send_whose_answer_was_lost_is_not_doubled_where_the_platform_can_tell(post: Post) -> None:
    post.fake.lose_next_answer()
    await post.say("k", card("only once"))
    await post.say("next", card("and then this"))
    post.work()
    await post.until(lambda: post.times("and then this"))
    most = 1 if post.adapter.capabilities.resend == "safe" else 2
    assert 1 <= post.times("only once") <= most


async def test_a_crash_between_sending_and_knowing_is_not_doubled_where_the_platform_can_tell(
    post: Post,
) -> None:
    post.fake.lose_next_answer()
    await post.say("k", card("only once"))
    post.work()
    await post.until(lambda: post.times("only once"))
    await post.rest()
    post.work()
    await post.until(lambda: post.postman is not None)
    deadline = time.monotonic() + 60
    while await post.waiting():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert post.times("only once") <= (1 if post.adapter.capabilities.resend == "safe" else 2)


async def test_a_restart_in_the_middle_loses_and_doubles_nothing(post: Post) -> None:
    for number in range(4):
        await post.say(f"k{number}", card(f"message {number}"))
    post.work()
    await post.until(lambda: post.times("message 1"))
    await post.rest()
    await asyncio.sleep(0.3)  # a send under way when the postman stopped has arrived or not by now
    post.work()
    # Discord's library counts a send that was cancelled as one more for half a minute
    await post.until(lambda: post.times("message 3"), 120)
    counts = [post.times(f"message {number}") for number in range(4)]
    if post.adapter.capabilities.resend == "safe":
        assert counts == [1, 1, 1, 1]
    assert min(counts) == 1 and sum(counts) <= 5


async def test_whatever_is_said_is_taken_by_the_platform(post: Post) -> None:
    post.work()
    monster = card(
        "🔥 <b>bold</b> @everyone <!channel> `code` *x* _y_ ~z~ [a](http://evil.example)" * 8,
        text="word " * 2500,
        fields=tuple(FieldLine(name=f"field {n}", value="v" * 900) for n in range(14)),
        blocks=(
            Block(language="diff", text="+ ```\n- line\n" * 6000, title="the change"),
            Block(text=""),
        ),
        actions=tuple(Action(label=f"do {n} " * 9, command=f"cancel task-abc12{n}") for n in range(9)),
        agent="task-abc123",
    )
    await post.say("monster", monster)
    await post.say("after", card("the end of it"))
    await post.until(lambda: post.times("the end of it"), 120)
    files = [name for one in post.seen() for name in one.files]
    assert files, "a long block goes out as a file"
