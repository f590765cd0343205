"""Follows one container at a time for a Task Agent: progress, limits, silence, cancellation, and how it ended.

It must never let a container go on that nobody follows any more, unless the server itself ends: then the next one adopts it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from codespar.agents import cards
from codespar.agents.files import write_whole
from codespar.agents.leavings import Events, Words, plain, read_result
from codespar.agents.workshop import Answer
from codespar.domain.base import Value
from codespar.domain.tasks import MICROS, Task, TestRun
from codespar.sandbox.base import (
    Container,
    Ended,
    ModelGateway,
    ModelTrouble,
    Order,
    Sandbox,
    SandboxError,
    Usage,
)
from codespar.store.base import Store

TICK = 0.25  # seconds between looks at the container's events
EVERY = 1.0  # seconds between edits of the progress card
_ADVICE = {
    "unauthorized": "set a valid API key for the server (`codespar doctor` says where), then retry",
    "rate_limited": "the model's rate limit was reached: retry in a while, or raise the account's limit",
    "overloaded": "the model's service is overloaded: retry in a while",
    "upstream_unreachable": "check the server's network and `model.base_url`, then retry",
    "model_not_allowed": "the coding CLI asked for a model that is not configured: check `model.name`",
}


class Seen(Value):
    """What became of a container's work. `outcome`: done | ask | cancelled | failed."""

    outcome: str
    summary: Words
    last_line: Words = ""
    next_step: str = ""


class Stop(Value):
    """Why we ended a container: kept before it is ended, for whoever finds it ended. `outcome`: ask | cancelled | failed."""

    outcome: str
    summary: str = ""


class Supervisor:
    def __init__(self, store: Store, gateway: ModelGateway, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._gateway = gateway
        self._clock = clock
        self._nudges: dict[str, asyncio.Event] = {}

    def nudge(self, task: str) -> None:
        if event := self._nudges.get(task):
            event.set()

    async def follow(self, sandbox: Sandbox, order: Order) -> Seen:
        """Start or adopt the order's container, follow it to its end, take it away. Done again, it gives the same answer."""
        kept = order.folder / "seen.json"
        if kept.is_file():
            return Seen.model_validate_json(kept.read_bytes())
        task = order.spec.id
        (order.folder / "in").mkdir(parents=True, exist_ok=True)
        troubles: list[ModelTrouble] = []
        nudge = self._nudges.setdefault(task, asyncio.Event())

        def trouble(what: ModelTrouble) -> None:
            troubles.append(what)
            nudge.set()

        cost, _, turns = await self._store.read(lambda unit: unit.usage(task))
        await self._gateway.open(
            task,
            order.folder / "in" / "model.sock",
            model=order.spec.model,
            limits=order.spec.limits,
            spent_micros=cost,
            turns=turns,
            on_usage=lambda usage: self._spent(task, usage),
            on_trouble=trouble,
        )
        try:
            container = await sandbox.start(order)
            async with _ending_with(container):
                seen = await self._watch(container, order, troubles, nudge)
            _keep(kept, seen)
            await container.remove()
        finally:
            await self._gateway.close(task)
            self._nudges.pop(task, None)
        return seen

    async def verify(self, sandbox: Sandbox, order: Order) -> TestRun:
        """Run the project's tests on base + patch in a clean container."""
        kept = order.folder / "seen.json"
        if kept.is_file():
            return TestRun.model_validate_json(kept.read_bytes())
        limits = order.spec.limits
        container = await sandbox.start(order)
        async with _ending_with(container):
            ended, late = await self._wait_for_tests(container, order)
            result = read_result(order.folder / "out" / "result.json")
        code, tail = result.test_exit_code, result.output_tail[-4000:]
        if ended.out_of_memory:
            code, tail = (
                137,
                f"{tail}\nthe container ran out of memory (limit {limits.memory_bytes // 1024**2} MiB)",
            )
        elif late:
            code, tail = 124, f"{tail}\nstopped after {limits.wall_seconds:.0f} s"
        run = TestRun(
            command=order.spec.test_command or "",
            exit_code=ended.exit_code or 1 if code is None else code,
            seconds=result.seconds or ended.seconds,
            output_tail=plain(tail.strip() or result.error or ended.log_tail[-2000:]),
        )
        _keep(kept, run)
        await container.remove()
        return run

    async def _wait_for_tests(self, container: Container, order: Order) -> tuple[Ended, bool]:
        """How it ended, and whether that was for want of time."""
        began = _began(order)
        waiter = asyncio.create_task(container.wait())
        late = False
        try:
            while not waiter.done():
                await asyncio.wait({waiter}, timeout=1)
                late = time.monotonic() - began > order.spec.limits.wall_seconds
                if not waiter.done() and (late or await self._is_cancelled(order.spec.id)):
                    await container.stop(await self._grace(order.spec.id))
            return await waiter, late
        finally:
            waiter.cancel()

    async def unless_cancelled(self, task: str, work: Coroutine[Any, Any, Answer]) -> Answer | None:
        """What `work` gives; None when the task is cancelled before that, and `work` with it."""
        nudge = self._nudges.setdefault(task, asyncio.Event())
        worker = asyncio.create_task(work)
        try:
            while not worker.done():
                nudge.clear()
                if await self._is_cancelled(task):
                    return None
                await _first_of(worker, nudge, EVERY)
            return await worker
        finally:
            self._nudges.pop(task, None)
            worker.cancel()
            await asyncio.wait({worker})

    async def tell(self, task_id: str, phase: str) -> None:
        """Say what the task does now: in the store, and on its card."""
        now = self._clock()

        def write(unit: Any) -> None:
            task: Task | None = unit.task(task_id)
            if task is None or task.status.final:
                return
            cost, tokens, turns = unit.usage(task_id)
            told = task.evolve(phase=phase, phase_at=now, cost_micros=cost, tokens=tokens, turns=turns)
            unit.update_task(told)
            unit.say(task.project, task.thread, cards.card_key(task_id), cards.progress(told, now), now)

        await self._store.write(write)

    async def _watch(
        self, container: Container, order: Order, troubles: list[ModelTrouble], nudge: asyncio.Event
    ) -> Seen:
        task, limits = order.spec.id, order.spec.limits
        events = Events(order.folder / "out" / "events.ndjson", limits.output_bytes)
        isolation = await container.isolation()
        await self._keep_isolation(task, isolation)
        began, heard = _began(order), time.monotonic()
        told = ""
        told_at = looked_at = 0.0
        kept = order.folder / "stop.json"
        why = Stop.model_validate_json(kept.read_bytes()) if kept.is_file() else None
        if why is not None:  # the server ended between this and what came of it
            await container.stop(await self._grace(task))
        waiter = asyncio.create_task(container.wait())
        try:
            while not waiter.done():
                await _first_of(waiter, nudge, TICK)
                now = time.monotonic()
                if events.read():
                    heard = now
                if events.phase != told and now - told_at >= EVERY:
                    told, told_at = events.phase, now
                    await self.tell(task, events.phase)
                if why is None and not waiter.done():
                    cancelled = False
                    if nudge.is_set() or now - looked_at > EVERY:
                        nudge.clear()  # before it is looked: what comes meanwhile is looked at next
                        looked_at = now
                        cancelled = await self._is_cancelled(task)
                    why = self._must_stop(order, troubles, cancelled, now - began, now - heard)
                    if why is not None:
                        _keep(kept, why)
                        await container.stop(await self._grace(task))
            ended = await waiter
        finally:
            waiter.cancel()
        events.read_all()
        why = why or _asking(troubles, limits.cost_micros, limits.turns)
        if events.phase != told:
            await self.tell(task, events.phase)
        return self._judge(order, ended, troubles, events, why)

    def _must_stop(
        self, order: Order, troubles: list[ModelTrouble], cancelled: bool, running: float, silent: float
    ) -> Stop | None:
        limits = order.spec.limits
        if cancelled:
            return Stop(outcome="cancelled")
        if asking := _asking(troubles, limits.cost_micros, limits.turns):
            return asking
        if any(trouble.kind == "unauthorized" for trouble in troubles):
            return Stop(outcome="failed")  # asking again does not make a key valid
        if running > limits.wall_seconds:
            return Stop(outcome="ask", summary=f"it worked for {running / 60:.0f} minutes, its limit")
        if silent > limits.stall_seconds:
            return Stop(outcome="ask", summary=f"no output for {silent / 60:.1f} minutes")
        return None

    def _judge(
        self,
        order: Order,
        ended: Ended,
        troubles: list[ModelTrouble],
        events: Events,
        why: Stop | None,
    ) -> Seen:
        limits = order.spec.limits
        result = read_result(order.folder / "out" / "result.json")
        last = events.last_line or ended.log_tail.strip().splitlines()[-1:] or ""
        last_line = last if isinstance(last, str) else last[0]
        if why is not None and why.outcome != "failed":
            return Seen(outcome=why.outcome, summary=why.summary or "stopped", last_line=last_line)
        if ended.out_of_memory:
            return Seen(
                outcome="failed",
                summary=f"the container ran out of memory (limit {limits.memory_bytes // 1024**2} MiB)",
                last_line=last_line,
                next_step="raise `limits.memory` for the project, or split the task",
            )
        if ended.disk_full or result.filesystem_full:
            return Seen(
                outcome="failed",
                summary=f"the disk in the sandbox is full (limit {limits.tmp_bytes // 1024**2} MiB of /tmp)",
                last_line=last_line,
                next_step="raise `limits.tmp` for the project, or split the task",
            )
        if result.outcome == "done" and ended.exit_code == 0:
            return Seen(outcome="done", summary=result.summary or events.summary, last_line=last_line)
        trouble = troubles[-1] if troubles else None
        summary = (
            trouble.message
            if trouble
            else result.error or f"the coding CLI ended with exit code {ended.exit_code}"
        )
        return Seen(
            outcome="failed",
            summary=summary[:1000],
            last_line=last_line[:500],
            next_step=_ADVICE.get(trouble.kind, "") if trouble else "",
        )

    async def _spent(self, task: str, usage: Usage) -> None:
        now = self._clock()
        tokens = usage.input_tokens + usage.output_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        await self._store.write(
            lambda unit: unit.record_usage(task, usage.request, usage.model, tokens, usage.cost_micros, now)
        )

    async def _is_cancelled(self, task: str) -> bool:
        known = await self._store.read(lambda unit: unit.task(task))
        return known is not None and known.cancel_requested_by is not None

    async def _grace(self, task: str) -> float:
        """Seconds it has to end by itself."""
        known = await self._store.read(lambda unit: unit.task(task))
        return 0 if known is not None and known.killed else 10

    async def _keep_isolation(self, task_id: str, isolation: dict[str, Any]) -> None:
        def write(unit: Any) -> None:
            task = unit.task(task_id)
            if task is not None and not task.status.final:
                unit.update_task(task.evolve(isolation=isolation))

        await self._store.write(write)


def _asking(troubles: list[ModelTrouble], cost_micros: int, turns: int) -> Stop | None:
    for trouble in troubles:
        if trouble.kind == "budget":
            return Stop(outcome="ask", summary=f"the budget of ${cost_micros / MICROS:.2f} is spent")
        if trouble.kind == "turns":
            return Stop(outcome="ask", summary=f"{turns} model turns were used, its limit")
    return None


@asynccontextmanager
async def _ending_with(container: Container) -> AsyncGenerator[None]:
    """What the sandbox refuses ends the task, and its container with it: nobody would follow that any more."""
    try:
        yield
    except SandboxError:
        with suppress(SandboxError):  # the first one says what is wrong
            await container.remove()
        raise


async def _first_of(worker: asyncio.Task[Any], nudge: asyncio.Event, seconds: float) -> None:
    nudged = asyncio.create_task(nudge.wait())
    try:
        await asyncio.wait({worker, nudged}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        nudged.cancel()


def _began(order: Order) -> float:
    """When the order's container was first given its order, on the monotonic clock: one that is adopted may have worked for long."""
    given = (order.folder / "in" / "order.json").stat().st_mtime
    return time.monotonic() - max(0.0, time.time() - given)


def _keep(path: Path, value: Value) -> None:
    write_whole(path, value.model_dump_json(by_alias=True).encode())
