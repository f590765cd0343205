"""Carries intents from our database to the engine.

A turn never starts a workflow itself: it writes an intent in its own transaction. The starter hands it to the engine under the intent's
target id, then marks it done; killed in between, it does both again, and the engine recognizes the repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial

import structlog

from codespar.engine.base import Engine
from codespar.store.base import Intent, Store, Unit

log = structlog.get_logger(__name__)
BATCH = 50  # intents at a look
IDLE_SECONDS = 5.0  # how often to look without being woken: only a crash leaves something to find


def _oldest(limit: int, unit: Unit) -> list[Intent]:
    return unit.open_intents(limit)


class Starter:
    def __init__(self, store: Store, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        self._wake.set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="starter")

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.drain()
            except Exception as error:  # the database may be away: the intents stay, the loop must go on
                log.error("starter.failed", error=str(error), exc_info=True)
                await asyncio.sleep(1)
                continue
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def drain(self) -> None:
        """Hand over every open intent, oldest first. One that cannot be stays open until the next look, and holds up no other."""
        failed: set[str] = set()
        while True:
            known = await self._store.read(partial(_oldest, BATCH + len(failed)))
            intents = [intent for intent in known if intent.id not in failed]
            if not intents:
                return
            for intent in intents:
                try:
                    await self._hand_over(intent)
                except Exception as error:  # noqa: BLE001 - told, and tried again at the next look
                    log.error("starter.intent_failed", intent=intent.id, error=repr(error))
                    failed.add(intent.id)

    async def _hand_over(self, intent: Intent) -> None:
        if intent.kind == "start":
            await self._engine.start(intent.target, str(intent.payload["workflowId"]), intent.payload)
        else:
            await self._engine.send(
                intent.target, str(intent.payload["topic"]), intent.payload["message"], intent.id
            )
        now = self._clock()
        await self._store.write(lambda unit: unit.close_intent(intent.id, now))
