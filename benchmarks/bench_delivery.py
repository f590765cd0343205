"""How long a message is on its way: from the commit that puts it into the outbox until the platform has it.

For each platform 200 task cards go to 40 threads, spread evenly in time and more slowly than the platform's pace allows, so that nothing
ever waits for it. Between them the same card is sent by the adapter alone, as often and to the same threads. When each arrives, the played
platform says: in the moment in which it takes the message. At the end every one has arrived once, those of a thread in their order.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.platforms.discord import FakeDiscord
from tests.support.platforms.discord_world import Room
from tests.support.platforms.slack import PEOPLE, FakeSlack
from tests.support.platforms.telegram import FakeTelegram
from tests.support.platforms.whatsapp import NUMBER, FakeWhatsapp

from benchmarks.bench_channels import task_card
from codespar.channels.base import Capabilities, ChannelAdapter, ChannelTools, Heard
from codespar.channels.platforms import platforms
from codespar.channels.postman import Postman
from codespar.domain.tasks import Thread
from codespar.store.base import Notice
from codespar.store.database import Database

MESSAGES, THREADS = 200, 40
FASTEST = 30.0  # messages a second by the outbox, and as many bare ones
SHARE = 0.8  # of the platform's pace
PATIENCE = 10.0  # seconds after the last in which all have to be there
ADDED_MS = {50: 10.0, 99: 50.0}  # what the outbox may add, by percentile
_MARK = re.compile(r"(?:warm|outbox|bare)\d{4}x")
_Due = tuple[Callable[[str, Thread], Awaitable[None]], str, Thread]  # how, which message, and where to


class Arrivals:
    """When the platform took each message, by the mark in its title: `outbox0017x`."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self.order: list[str] = []

    def note(self, payload: dict[str, Any]) -> None:
        at = time.perf_counter()
        mark = _MARK.findall(json.dumps(payload))[0]
        self.times.setdefault(mark, []).append(at)
        self.order.append(mark)


# The played platforms, each with a clock where it has checked and kept a message, and with the threads of the load.


class _Slack(FakeSlack):
    """Threads in forty direct conversations."""

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__()
        self._arrivals = arrivals

    def _chat_post(self, team: str, given: dict[str, Any]) -> dict[str, Any]:
        answer = super()._chat_post(team, given)
        self._arrivals.note(given)
        return answer

    async def threads(self) -> list[Thread]:
        PEOPLE.update({f"p{number}": (f"U0P{number}", f"Person {number}") for number in range(THREADS)})
        said = [(f"p{n}", await self.say(f"p{n}", "hello", direct=True)) for n in range(THREADS)]
        return [
            Thread(channel="slack", conversation=self.direct(person), thread_id=at) for person, at in said
        ]


class _Discord(FakeDiscord):
    """A thread in each of forty channels of a server."""

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__()
        self._arrivals = arrivals
        self._channels = [self._open(Room(self.snowflake(), 0, f"room-{n}")) for n in range(THREADS)]

    async def _create(self, room: Room, payload: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
        answer = await super()._create(room, payload, files)
        self._arrivals.note(payload)
        return answer

    async def threads(self) -> list[Thread]:
        said = [(str(room.id), await self.say("ada", "hello", room=room.id)) for room in self._channels]
        return [Thread(channel="discord", conversation=room, thread_id=first) for room, first in said]


class _Telegram(FakeTelegram):
    """Forty direct conversations."""

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__()
        self._arrivals = arrivals

    async def _sendMessage(self, given: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        answer = await super()._sendMessage(given, files)
        self._arrivals.note(given)
        return answer

    async def threads(self) -> list[Thread]:
        return [
            Thread(channel="telegram", conversation=self.identity(f"person-{number}"))
            for number in range(THREADS)
        ]


class _Whatsapp(FakeWhatsapp):
    """Forty people who have written, so that anything may be said to them."""

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__()
        self._arrivals = arrivals
        self.now = int(time.time())

    def _as_shown(self, wamid: str, person: str, payload: dict[str, Any]) -> Any:
        self._arrivals.note(payload)
        return super()._as_shown(wamid, person, payload)

    async def threads(self) -> list[Thread]:
        self.people |= {f"p{n}": (f"US.{5000 + n}", f"1555000{5000 + n}") for n in range(THREADS)}
        for number in range(THREADS):
            await self.say(f"p{number}", "hello")
        return [
            Thread(channel="whatsapp", conversation=f"{NUMBER}:{self.identity(f'p{n}')}")
            for n in range(THREADS)
        ]


PLAYED: dict[str, Callable[[Arrivals], Any]] = {
    "slack": _Slack,
    "discord": _Discord,
    "telegram": _Telegram,
    "whatsapp": _Whatsapp,
}


class _Nobody:
    """A reception that takes what it hears and does nothing with it."""

    async def hear(self, heard: Heard) -> bool:
        return True


def _now() -> datetime:
    return datetime.now(UTC)


def _rate_of(able: Capabilities) -> float:
    """Messages a second that the Postman never has to hold back for the platform's pace."""
    one, overall = able.messages_per_second, able.overall_per_second
    paces = [one * THREADS] if one else []
    paces += [overall] if overall else []
    return min([FASTEST, *(pace * SHARE for pace in paces)])


async def _measure(name: str, folder: Path) -> list[dict[str, Any]]:
    arrivals = Arrivals()
    committed: dict[str, float] = {}
    called: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        fake = PLAYED[name](arrivals)
        await fake.start()
        stack.push_async_callback(fake.stop)
        adapter = await _adapter(name, fake, folder)
        stack.push_async_callback(adapter.stop)
        threads: list[Thread] = await fake.threads()
        store = Database(f"sqlite:///{folder / 'codespar.sqlite'}")
        await store.open()
        stack.push_async_callback(store.close)
        postman = Postman(store, {name: adapter}, _now)

        def wake(notices: list[Notice]) -> None:
            at = time.perf_counter()
            for notice in notices:
                if notice.kind == "message":
                    said = notice.body["message"]
                    committed[_MARK.findall(said.response.title)[0]] = at
                    postman.wake(said.thread)

        async def say(mark: str, thread: Thread) -> None:
            response = task_card(f"Task Completed ({mark})")
            await store.write(lambda unit: unit.say("bench", thread, mark, response, _now()))

        async def send(mark: str, thread: Thread) -> None:
            (part,) = adapter.render(task_card(f"Task Completed ({mark})"))
            called[mark] = time.perf_counter()
            await adapter.send(thread, part, mark)

        store.on_commit = wake
        postman.start()
        stack.push_async_callback(postman.stop)
        rate = _rate_of(adapter.capabilities)
        await _spread([(say, f"warm{n:04}x", thread) for n, thread in enumerate(threads)], rate)
        await _until(arrivals, THREADS)
        load: list[_Due] = []
        for number in range(MESSAGES):
            load.append((say, f"outbox{number:04}x", threads[number % THREADS]))
            load.append((send, f"bare{number:04}x", threads[(number + THREADS // 2) % THREADS]))
        await _spread(load, 2 * rate)
        await _until(arrivals, THREADS + 2 * MESSAGES)
        await _nothing_waits(store, threads)
        if fake.refusals:
            raise RuntimeError(f"{name} refused: {fake.refusals[:3]}")
    _once_and_in_order(name, arrivals)
    outbox = [arrivals.times[mark][0] - at for mark, at in committed.items() if mark.startswith("outbox")]
    bare = [arrivals.times[mark][0] - at for mark, at in called.items()]
    return _rows(name, rate, outbox, bare)


async def _adapter(name: str, fake: Any, folder: Path) -> ChannelAdapter:
    """The platform's adapter, connected to the played platform by the real client library."""
    platform = platforms()[name]
    own = folder / name
    own.mkdir()
    section = platform.settings.model_validate(fake.settings, by_name=True)
    adapter = platform.make(section, ChannelTools(_now, fake.environment, own))
    if hasattr(fake, "deliver"):
        fake.deliver = adapter.answer
    await adapter.start(_Nobody())
    return adapter


async def _spread(load: list[_Due], rate: float) -> None:
    """Begin each at its time, whether or not those before it have ended; when this returns, all have."""
    began, running = time.perf_counter(), list[asyncio.Task[None]]()

    async def at_its_time(due: _Due) -> None:
        do, mark, thread = due
        await do(mark, thread)

    for number, due in enumerate(load):
        await asyncio.sleep(began + number / rate - time.perf_counter())
        running.append(asyncio.create_task(at_its_time(due)))
    await asyncio.gather(*running)


async def _until(arrivals: Arrivals, count: int) -> None:
    deadline = time.perf_counter() + PATIENCE
    while len(arrivals.order) < count:
        if time.perf_counter() > deadline:
            raise RuntimeError(f"only {len(arrivals.order)} of {count} messages arrived")
        await asyncio.sleep(0.02)


async def _nothing_waits(store: Database, threads: list[Thread]) -> None:
    """The outbox knows of every one that it was delivered."""
    deadline = time.perf_counter() + PATIENCE
    while waiting := await store.read(lambda unit: unit.waiting_threads([threads[0].channel])):
        if time.perf_counter() > deadline:
            raise RuntimeError(f"still waiting: {waiting}")
        await asyncio.sleep(0.02)


def _once_and_in_order(name: str, arrivals: Arrivals) -> None:
    """Raises `RuntimeError` unless every message arrived once, and those of the outbox in a thread as they were said."""
    wanted = {f"warm{number:04}x" for number in range(THREADS)}
    wanted |= {f"{kind}{number:04}x" for kind in ("outbox", "bare") for number in range(MESSAGES)}
    doubled = [mark for mark, times in arrivals.times.items() if len(times) > 1]
    if doubled or set(arrivals.times) != wanted:
        missing = sorted(wanted - set(arrivals.times))
        raise RuntimeError(f"{name}: doubled {doubled[:5]}, missing {missing[:5]}")
    numbers = [int(mark[6:10]) for mark in arrivals.order if mark.startswith("outbox")]
    for thread in range(THREADS):
        told = [number for number in numbers if number % THREADS == thread]
        if told != sorted(told):
            raise RuntimeError(f"{name}: thread {thread} was told out of order: {told}")


def _rows(name: str, rate: float, outbox: list[float], bare: list[float]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for percentile, added in ADDED_MS.items():
        ours, peer = (
            statistics.quantiles(kind, n=100, method="inclusive")[percentile - 1] * 1000
            for kind in (outbox, bare)
        )
        rows.append(
            {
                "name": f"delivery_{name}_p{percentile}",
                "value": round(ours, 1),
                "unit": "ms",
                "against": f"the adapter's bare send of the same card: {peer:.1f} ms ({len(outbox)} of each at {rate:g}/s; "
                "every one there once, in order)",
                "ratio": round(ours / peer, 2),
                "goal": f"<= {added:.0f} ms more than the bare send",
                "ok": ours - peer <= added,
            }
        )
    return rows


async def _measure_all(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in PLAYED:
        own = folder / name
        own.mkdir()
        rows += await _measure(name, own)
    return rows


def run() -> list[dict[str, Any]]:
    """Measure one platform after the other, outbox and bare send taking turns."""
    with tempfile.TemporaryDirectory(prefix="codespar-bench-") as folder:
        return asyncio.run(_measure_all(Path(folder)))
