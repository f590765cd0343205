"""Brings what waits in the outbox to the chat platforms: in order a thread, edited in place, at the platform's pace.

Nothing is lost and nothing doubled as far as the platform lets us: before a message is sent, that it is being sent is committed; after a
crash or a lost answer the adapter is asked for that message before it is sent again. What failed waits in the outbox and is tried again
with back-off; only its own thread waits with it. Agents and adapters know nothing of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import structlog

from codespar.channels.base import (
    Capabilities,
    ChannelAdapter,
    ContentRefused,
    DeliveryFailed,
    DeliveryRefused,
    MessageGone,
    Part,
)
from codespar.domain.messages import Tone
from codespar.domain.tasks import Thread
from codespar.store.base import Letter, Posted, Sending, Store, StoreError

log = structlog.get_logger(__name__)
LOOK = 2.0  # seconds between looks for what another process has put into the outbox
FIRST, LONGEST = 0.5, 300.0  # seconds of back-off
PATIENCE = timedelta(days=3)  # after which a message that was never taken is given up, and said so in the log
UNEDITABLE = 60.0  # seconds between two progress messages where a platform cannot edit
_TAKEN = 20  # letters of a thread looked at together


class Postman:
    """One for all platforms. What it brings was screened when it was put into the outbox."""

    def __init__(
        self,
        store: Store,
        channels: Mapping[str, ChannelAdapter],
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._channels = channels
        self._clock = clock
        self._rounds: dict[str, asyncio.Task[None]] = {}
        self._news: dict[str, asyncio.Event] = {}  # of the threads that have a round
        self._pace: dict[str, _Pace] = {}
        self._overall: dict[str, _Pace] = {}
        self._looking: asyncio.Task[None] | None = None
        self.on_delivered: Callable[[str, float], None] = lambda channel, seconds: None

    def start(self) -> None:
        """Take up what waits, and from now on whatever comes."""
        self._looking = asyncio.create_task(self._look(), name="postman")

    async def stop(self) -> None:
        """End what is under way. Nothing begins after it: what is said then waits for the next start."""
        looking, self._looking = self._looking, None
        tasks = [*self._rounds.values(), *([looking] if looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._rounds.clear()

    def wake(self, thread: str) -> None:
        """There is something for this thread."""
        if self._looking is None or thread.partition("/")[0] not in self._channels:
            return
        if thread in self._rounds:
            self._news[thread].set()
            return
        self._news[thread] = asyncio.Event()
        self._rounds[thread] = asyncio.create_task(self._round(thread), name=f"post-{thread}")

    async def _look(self) -> None:
        names = tuple(self._channels)
        while names:
            try:
                waiting = await self._store.read(lambda unit: unit.waiting_threads(names))
            except Exception as error:  # noqa: BLE001 - the outbox keeps everything; the next look finds it
                log.error("postman.cannot_look", error=str(error))
            else:
                for thread in waiting:
                    if thread not in self._rounds:
                        self.wake(thread)
            await asyncio.sleep(LOOK)

    async def _round(self, thread: str) -> None:
        news = self._news[thread]
        try:
            while True:
                news.clear()
                letters = await self._store.read(lambda unit: unit.letters(thread, _TAKEN))
                if not letters and not news.is_set():
                    return
                await self._serve(Thread.of(thread), letters, news)
        except Exception as error:  # the outbox keeps the letter; the next look takes it up
            log.error("postman.failed", thread=thread, error=str(error), exc_info=True)
        finally:
            del self._rounds[thread], self._news[thread]

    async def _serve(self, thread: Thread, letters: list[Letter], news: asyncio.Event) -> None:
        """Deliver the first letter that may go; wait when none may yet."""
        channel = self._channels[thread.channel]
        pace = self._pace_of(channel, thread)
        now, soonest = self._clock(), 60.0
        for letter in letters:
            wait = self._wait(letter, pace, channel.capabilities, now)
            if wait <= 0:
                await self._try(channel, thread, letter, pace)
                return
            soonest = min(soonest, wait)
            if not _is_edit_of_progress(letter):
                break  # what comes after it has to wait: a thread is told in order
        if letters:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(soonest):
                    await news.wait()

    def _wait(self, letter: Letter, pace: _Pace, able: Capabilities, now: datetime) -> float:
        """Seconds until this letter may be tried."""
        wait = (letter.next_attempt_at - now).total_seconds() if letter.next_attempt_at else 0.0
        if letter.parts and able.edits:
            wait = max(wait, pace.until_edit(letter.key, able.edit_seconds))
        return max(wait, pace.until_free())

    def _pace_of(self, channel: ChannelAdapter, thread: Thread) -> _Pace:
        key = f"{thread.channel}/{thread.conversation}"
        if key not in self._pace:
            if len(self._pace) > 10_000:
                self._pace.clear()  # only rhythm is forgotten; a platform that minds says so with a 429
            able = channel.capabilities
            overall = self._overall.setdefault(thread.channel, _Pace(able.overall_per_second))
            self._pace[key] = _Pace(able.messages_per_second, overall)
        return self._pace[key]

    async def _try(self, channel: ChannelAdapter, thread: Thread, letter: Letter, pace: _Pace) -> None:
        try:
            await self._deliver(channel, thread, letter, pace)
        except DeliveryFailed as error:
            await self._put_off(letter, pace, error)
        except DeliveryRefused as error:
            log.warning("message.refused", thread=letter.thread, key=letter.key, error=str(error))
            why, at = str(error)[:1000], self._clock()
            await self._store.write(lambda unit: unit.delivered(letter, at, why))
        except StoreError:
            raise
        except Exception as error:  # a defect: it must not hold up its thread for ever
            log.error("message.failed", thread=letter.thread, key=letter.key, exc_info=True)
            await self._put_off(letter, pace, DeliveryFailed(f"{type(error).__name__}: {error}"))

    async def _put_off(self, letter: Letter, pace: _Pace, error: DeliveryFailed) -> None:
        now = self._clock()
        if now - letter.created_at > PATIENCE:
            log.error("message.given_up", thread=letter.thread, key=letter.key, error=str(error))
            why = f"given up after {PATIENCE.days} days: {error}"[:1000]
            await self._store.write(lambda unit: unit.delivered(letter, now, why))
            return
        back_off = min(LONGEST, FIRST * 2 ** min(letter.attempts, 12)) * random.uniform(0.75, 1.25)
        seconds = max(error.retry_after, 0.05) if error.retry_after is not None else back_off
        if error.retry_after is not None:
            pace.hold(seconds)
        log.info(
            "message.put_off",
            thread=letter.thread,
            key=letter.key,
            seconds=round(seconds, 1),
            error=str(error),
        )
        until = now + timedelta(seconds=seconds)
        await self._store.write(lambda unit: unit.put_off(letter, until))

    async def _deliver(self, channel: ChannelAdapter, thread: Thread, letter: Letter, pace: _Pace) -> None:
        response = letter.response
        if letter.parts and not channel.capabilities.edits and _still_under_way(letter, pace):
            await self._done(letter)  # progress that nobody can be shown in place: the end is told anyway
            return
        try:
            await self._show(channel, thread, letter, channel.render(response), pace)
        except ContentRefused as error:
            log.warning("message.sent_plain", thread=letter.thread, key=letter.key, error=str(error))
            letter = await self._as_it_stands(letter)
            try:
                await self._show(channel, thread, letter, channel.render(response, plain=True), pace)
            except ContentRefused as again:
                raise DeliveryRefused(f"refused even as plain text: {again}") from again
        await self._done(letter)
        self.on_delivered(thread.channel, (self._clock() - letter.created_at).total_seconds())

    async def _as_it_stands(self, letter: Letter) -> Letter:
        waiting = await self._store.read(lambda unit: unit.letters(letter.thread, 1000))
        return next((one for one in waiting if one.key == letter.key), letter)

    async def _done(self, letter: Letter) -> None:
        at = self._clock()
        await self._store.write(lambda unit: unit.delivered(letter, at))

    async def _show(
        self, channel: ChannelAdapter, thread: Thread, letter: Letter, parts: tuple[Part, ...], pace: _Pace
    ) -> None:
        """Make the platform show exactly these parts: what stands there already is left, edited or taken away."""
        able = channel.capabilities
        standing = list(letter.parts) if able.edits else []
        sending = letter.sending
        for place, part in enumerate(parts):
            digest = _digest(part)
            if place < len(standing):
                if standing[place].digest == digest:
                    continue
                try:
                    await pace.turn()
                    await channel.edit(thread, standing[place].id, part)
                    pace.edited(letter.key)
                    standing[place] = Posted(id=standing[place].id, digest=digest)
                    await self._note(letter, standing)
                    continue
                except MessageGone:
                    del standing[place:]
            id = await self._send(channel, thread, letter, place, part, sending, pace)
            sending = None
            standing.append(Posted(id=id, digest=digest))
            await self._note(letter, standing)
        for surplus in standing[len(parts) :]:
            await channel.delete(thread, surplus.id)
        if len(standing) > len(parts):
            await self._note(letter, standing[: len(parts)])

    async def _send(
        self,
        channel: ChannelAdapter,
        thread: Thread,
        letter: Letter,
        place: int,
        part: Part,
        sending: Sending | None,
        pace: _Pace,
    ) -> str:
        key = f"{letter.key}#{place}" if channel.capabilities.edits else f"{letter.key}#{place}@{letter.seq}"
        if sending is not None and sending.part == place:
            if found := await channel.find(thread, key, sending.since):
                return found
        else:
            begun = Sending(part=place, since=self._clock())
            await self._store.write(lambda unit: unit.sending(letter.key, begun))
        await pace.turn()
        try:
            return await channel.send(thread, part, key)
        except DeliveryFailed as error:
            if not error.arrived_perhaps:
                await self._store.write(lambda unit: unit.sending(letter.key, None))
            raise
        finally:
            pace.edited(letter.key)

    async def _note(self, letter: Letter, standing: list[Posted]) -> None:
        kept = tuple(standing)
        await self._store.write(lambda unit: unit.posted(letter.key, kept))


class _Pace:
    """The rhythm of one conversation: a bucket of messages, and when each was last edited."""

    BURST = 3.0

    def __init__(self, per_second: float | None, overall: _Pace | None = None) -> None:
        self._per_second = per_second
        self._overall = overall
        self._held = 0.0
        self._tokens = self.BURST
        self._filled = asyncio.get_running_loop().time()
        self._edited: dict[str, float] = {}

    def hold(self, seconds: float) -> None:
        """The platform asked for a pause."""
        self._held = max(self._held, _now() + seconds)

    def until_free(self) -> float:
        return self._held - _now()

    def until_edit(self, key: str, every: float) -> float:
        return self._edited.get(key, float("-inf")) + every - _now()

    def since_edit(self, key: str) -> float:
        return _now() - self._edited.get(key, float("-inf"))

    def edited(self, key: str) -> None:
        if len(self._edited) > 500:
            self._edited.clear()
        self._edited[key] = _now()

    async def turn(self) -> None:
        """Wait until this conversation, and then the platform as a whole, takes its next message."""
        while self._per_second is not None:
            now = _now()
            self._tokens = min(self.BURST, self._tokens + (now - self._filled) * self._per_second)
            self._filled = now
            if self._tokens >= 1:
                self._tokens -= 1
                break
            await asyncio.sleep((1 - self._tokens) / self._per_second)
        if self._overall is not None:
            await self._overall.turn()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_edit_of_progress(letter: Letter) -> bool:
    """Whether what comes after it need not wait for it."""
    return bool(letter.parts) and letter.response.tone is Tone.PROGRESS


def _still_under_way(letter: Letter, pace: _Pace) -> bool:
    return letter.response.tone is Tone.PROGRESS and pace.since_edit(letter.key) < UNEDITABLE


def _digest(part: Part) -> str:
    return hashlib.sha256(
        part.model_dump_json(exclude={"files"}).encode() + b"".join(f.content for f in part.files)
    ).hexdigest()[:16]
