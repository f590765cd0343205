"""Turns of conversation: from the inbox to the outbox, one project at a time, in order.

A turn is one unit of work: claim, decide, write state, outbox and audit, done. What a command needs to read from outside the store (a
diff, a search) is gathered before the unit begins, so no transaction ever waits. One project's slow gathering holds up no other project.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import structlog

from codespar.agents import cards
from codespar.agents.turn import Facts
from codespar.domain.base import Value
from codespar.domain.commands import Command, NotUnderstood
from codespar.models.base import Interpretation
from codespar.store.base import Happened, Incoming, Outgoing, Store, Unit

log = structlog.get_logger(__name__)
BATCH = 32  # messages of one project in one commit at most


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
        self._waiting: dict[int, asyncio.Future[Sequence[Outgoing]]] = {}
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

    async def answered(self, incoming: int) -> Sequence[Outgoing]:
        """Wait for a message's turn and return what was answered."""
        future = self._waiting.setdefault(incoming, asyncio.get_running_loop().create_future())
        if not await self._store.read(lambda unit: unit.is_pending(incoming)):
            self._waiting.pop(incoming, None)
            return await self._store.read(lambda unit: unit.answers(incoming))
        try:
            return await future
        finally:
            self._waiting.pop(incoming, None)

    def expect(self, incoming: int) -> asyncio.Future[Sequence[Outgoing]]:
        """A future of the answers to a message that was just committed and whose turn cannot have run yet."""
        return self._waiting.setdefault(incoming, asyncio.get_running_loop().create_future())

    async def _run(self, project: str) -> None:
        try:
            while True:
                self._again.discard(project)
                batch = await self._store.read(lambda unit: unit.pending(project, BATCH))
                if batch:
                    await self._take(batch)
                elif project not in self._again:
                    return
        except Exception as error:  # the other projects go on; the inbox keeps these for the next wake
            log.error("turns.failed", project=project, error=str(error), exc_info=True)
        finally:
            del self._active[project]
            if project in self._again:
                self.wake(project)

    async def _take(self, batch: Sequence[Incoming | Happened]) -> None:
        works = [
            self._look(one) if isinstance(one, Happened) else self._turn(one, await self._gathered(one))
            for one in batch
        ]
        answers = await self._store.write_all(works)
        for incoming, answer in zip(batch, answers, strict=True):
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
            if (future := self._waiting.pop(incoming.id, None)) and not future.done():
                future.set_result(answer)

    async def _gathered(self, incoming: Incoming) -> Understood | Exception:
        """What was read for the message. A defect there must not keep the messages behind it from their turns."""
        try:
            return await self._mind.gather(incoming)
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

    def _look(self, happened: Happened) -> Callable[[Unit], list[Outgoing]]:
        def work(unit: Unit) -> list[Outgoing]:
            now = self._clock()
            if unit.is_pending(happened.id):
                unit.lock_project(happened.project)
                self._mind.notice(unit, happened, now)
                unit.finish(happened.id, now)
            return []

        return work

    async def _apologize(self, incoming: Incoming | Happened, error: Exception) -> list[Outgoing]:
        """A turn that failed is told, never repeated for ever: the message is done, with its error kept."""
        now = self._clock()
        if isinstance(incoming, Happened):  # nobody said it: the log and the inbox have it
            await self._store.write(lambda unit: unit.finish(incoming.id, now, str(error)[:1000]))
            return []
        card = cards.refused(
            "This message could not be handled",
            f"{type(error).__name__}: {error}"[:500],
            "nothing was changed; the server's log has the details",
        )

        def write(unit: Unit) -> list[Outgoing]:
            unit.say(incoming.project, incoming.thread, f"in{incoming.id}:failed", card, now, incoming.id)
            unit.finish(incoming.id, now, str(error)[:1000])
            return unit.said()

        return await self._store.write(write)
