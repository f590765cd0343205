"""Carries intents from our database to the engine.

A turn never starts a workflow itself: it writes an intent in its own transaction. The starter hands it to the engine under the intent's
target id, then marks it done; killed in between, it does both again, and the engine recognizes the repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog

from codespar.engine.base import Engine
from codespar.store.base import Intent, Store

log = structlog.get_logger(__name__)
IDLE_SECONDS = 5.0  # how often to look without being woken: only a crash leaves something to find


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
            except Exception as error:
                log.error("starter.failed", error=str(error), exc_info=True)
                await asyncio.sleep(1)
                continue
            try:
                await asyncio.wait_for(self._wake.wait(), IDLE_SECONDS)
            except TimeoutError:
                continue

    async def drain(self) -> None:
        """Hand over every open intent, oldest first."""
        while True:
            intents = await self._store.read(lambda unit: unit.open_intents(50))
            if not intents:
                return
            for intent in intents:
                await self._hand_over(intent)

    async def _hand_over(self, intent: Intent) -> None:
        if intent.kind == "start":
            await self._engine.start(intent.target, str(intent.payload["workflowId"]), intent.payload)
        else:
            await self._engine.send(
                intent.target, str(intent.payload["topic"]), intent.payload["message"], intent.id
            )
        now = self._clock()
        await self._store.write(lambda unit: unit.close_intent(intent.id, now))
