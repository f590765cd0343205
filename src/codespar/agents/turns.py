"""Turns of conversation: from the inbox to the outbox, one project at a time, in order.

A turn is one unit of work: claim, decide, write state, outbox and audit, done. What a command needs to read from outside the store (a
diff, a search) is gathered before the unit begins, so no transaction ever waits. One project's slow gathering holds up no other project.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol

import structlog

from codespar.agents import cards
from codespar.agents.turn import Facts
from codespar.domain.base import Value
from codespar.domain.commands import Command, NotUnderstood
from codespar.models.base import Interpretation
from codespar.store.base import (
    Happened,
    Incoming,
    Outgoing,
    Store,
    StoreUnavailable,
    Unit,
    Unreadable,
)

log = structlog.get_logger(__name__)
BATCH = 32  # messages of one project in one commit at most
FIRST, LONGEST = 0.5, 30.0  # seconds until a project whose turns could not be taken is looked at again
Answers = Sequence[Outgoing]


class Understood(Value):
    """A message, parsed, and what was read for it. `interpretation`: it was plain language, and this is what a model made of it."""

    command: Command | NotUnderstood
    facts: Facts | None = None
    interpretation: Interpretation | None = None


class ProjectMind(Protocol):
    """The deciding half of a Project Agent."""

    async def gather(self, incoming: Incoming) -> Understood: ...

    def decide(self, unit: Unit, incoming: Incoming, understood: Understood, now: datetime) -> None: ...

    def notice(self, unit: Unit, happened: Happened, now: datetime) -> None: ...


class Turns:
    def __init__(self, store: Store, mind: ProjectMind, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._mind = mind
        self._clock = clock
        self._active: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._waiting: dict[int, list[asyncio.Future[Answers]]] = {}  # one for each who waits
        self._stopped = False
        self.taken = 0

    async def start(self) -> None:
        """Take up what was committed but not answered before the last stop."""
        for project in await self._store.read(lambda unit: unit.projects_with_pending()):
            self.wake(project)

    async def stop(self) -> None:
        """End the turns under way. None begins after it: what it leaves undone stays in the inbox."""
        self._stopped = True
        for task in list(self._active.values()):
            task.cancel()
        await asyncio.gather(*self._active.values(), return_exceptions=True)

    def wake(self, project: str) -> None:
        """There is something in the project's inbox."""
        if self._stopped:
            return
        if project in self._active:
            self._again.add(project)
            return
        self._active[project] = asyncio.get_running_loop().create_task(
            self._run(project), name=f"turns-{project}"
        )

    async def answered(self, incoming: int) -> Answers:
        """Wait for a message's turn and return what was answered."""
        future = self.expect(incoming)
        try:
            if await self._store.read(lambda unit: unit.is_pending(incoming)):
                return await future
        finally:
            future.cancel()
        return await self._store.read(lambda unit: unit.answers(incoming))

    def expect(self, incoming: int) -> asyncio.Future[Answers]:
        """A future of the answers to a message that was just committed and whose turn cannot have run yet. The caller's own: others may
        wait for the same."""
        future: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(incoming, [])
        waiting.append(future)
        future.add_done_callback(lambda _: self._expected_no_more(incoming, future))
        return future

    def _expected_no_more(self, incoming: int, future: asyncio.Future[Answers]) -> None:
        if future in (waiting := self._waiting.get(incoming, [])):
            waiting.remove(future)
            if not waiting:
                del self._waiting[incoming]

    async def _run(self, project: str) -> None:
        failed = 0
        batch: Sequence[Incoming | Happened | Unreadable] = ()
        try:
            while True:
                self._again.discard(project)
                try:
                    before = batch
                    batch = await self._store.read(lambda unit: unit.pending(project, BATCH))
                    await self._tell_late({one.id for one in before} - {one.id for one in batch})
                    if batch:
                        await self._take(batch)
                    elif project not in self._again:
                        return
                    failed = 0
                except Exception as error:  # the inbox keeps these, and they are tried again
                    ours = not isinstance(error, StoreUnavailable)
                    log.error("turns.failed", project=project, error=str(error), exc_info=ours)
                    await asyncio.sleep(min(LONGEST, FIRST * 2**failed))
                    failed = min(failed + 1, 10)
        finally:
            del self._active[project]
            if project in self._again:
                self.wake(project)

    async def _tell_late(self, done: set[int]) -> None:
        """Who still waits for one of these: its turn was committed, and the answer of the database was lost."""
        for incoming in done & self._waiting.keys():
            self._tell(incoming, await self._store.read(partial(_answers, incoming)))

    def _tell(self, incoming: int, answers: Answers) -> None:
        for future in self._waiting.pop(incoming, ()):
            if not future.done():
                future.set_result(answers)

    async def _take(self, batch: Sequence[Incoming | Happened | Unreadable]) -> None:
        """Take the turns of these, in order. Raises `StoreUnavailable` when one could not be: it is still to be taken."""
        works = [
            self._turn(one, await self._gathered(one)) if isinstance(one, Incoming) else self._look(one)
            for one in batch
        ]
        answers = await self._store.write_all(works)
        away: StoreUnavailable | None = None
        for incoming, answer in zip(batch, answers, strict=True):
            if isinstance(answer, StoreUnavailable):
                away = away or answer
                continue
            self.taken += 1
            if isinstance(answer, Exception):
                log.error(
                    "turn.failed",
                    project=incoming.project,
                    incoming=incoming.id,
                    error=str(answer),
                    exc_info=answer,
                )
                answer = await self._apologize(incoming, answer)
            self._tell(incoming.id, answer)
        if away is not None:
            raise away

    async def _gathered(self, incoming: Incoming) -> Understood | Exception:
        """What was read for the message. A defect there must not keep the messages behind it from their turns."""
        try:
            return await self._mind.gather(incoming)
        except StoreUnavailable:
            raise
        except Exception as error:  # handed to the turn, which fails with it and is apologized for
            log.error("turn.gather_failed", project=incoming.project, incoming=incoming.id, exc_info=True)
            return error

    def _turn(
        self, incoming: Incoming, understood: Understood | Exception
    ) -> Callable[[Unit], list[Outgoing]]:
        def work(unit: Unit) -> list[Outgoing]:
            before = len(unit.notices)
            now = self._clock()
            if not unit.is_pending(incoming.id):
                return []
            if isinstance(understood, Exception):
                raise understood
            unit.lock_project(incoming.project)
            self._mind.decide(unit, incoming, understood, now)
            unit.finish(incoming.id, now)
            return [sent for sent in unit.said(before) if sent.thread == incoming.thread.key]

        return work

    def _look(self, happened: Happened | Unreadable) -> Callable[[Unit], list[Outgoing]]:
        def work(unit: Unit) -> list[Outgoing]:
            now = self._clock()
            if isinstance(happened, Unreadable):
                raise ValueError(f"what stands in the inbox cannot be read: {happened.problem}")
            if unit.is_pending(happened.id):
                unit.lock_project(happened.project)
                self._mind.notice(unit, happened, now)
                unit.finish(happened.id, now)
            return []

        return work

    async def _apologize(
        self, incoming: Incoming | Happened | Unreadable, error: Exception
    ) -> list[Outgoing]:
        """A turn that failed is told, never repeated for ever: the message is done, with its error kept."""
        now = self._clock()

        def end(unit: Unit) -> list[Outgoing]:
            unit.finish(incoming.id, now, str(error)[:1000])
            return []

        if not isinstance(incoming, Incoming):  # nobody said it: the log and the inbox have it
            return await self._store.write(end)
        card = cards.refused(
            "This message could not be handled",
            f"{type(error).__name__}: {error}"[:500],
            "nothing was changed; the server's log has the details",
        )

        def write(unit: Unit) -> list[Outgoing]:
            unit.say(incoming.project, incoming.thread, f"in{incoming.id}:failed", card, now, incoming.id)
            end(unit)
            return unit.said()

        try:
            return await self._store.write(write)
        except StoreUnavailable:
            raise
        except Exception:  # what cannot even be told must not keep those behind it from their turns
            log.error("turn.not_told", project=incoming.project, incoming=incoming.id, exc_info=True)
            return await self._store.write(end)


def _answers(incoming: int, unit: Unit) -> Answers:
    return unit.answers(incoming)
