"""Follows one container at a time for a Task Agent: progress, limits, silence, cancellation, and how it ended.

What the container writes is data of unknown origin: sizes are capped, links are not followed, and nothing of it is executed.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from codespar.agents import cards
from codespar.domain.base import Value
from codespar.domain.tasks import MICROS, Task, TestRun
from codespar.sandbox.base import (
    Container,
    Ended,
    ModelGateway,
    ModelTrouble,
    Order,
    OutputRefused,
    Sandbox,
    Usage,
)
from codespar.store.base import Store

TICK = 0.25  # seconds between looks at the container's events
EVERY = 1.0  # seconds between edits of the progress card
_RESULT_BYTES = 4 * 1024**2
_ADVICE = {
    "unauthorized": "set a valid API key for the server (`codespar doctor` says where), then retry",
    "rate_limited": "the model's rate limit was reached: retry in a while, or raise the account's limit",
    "overloaded": "the model's service is overloaded: retry in a while",
    "upstream_unreachable": "check the server's network and `model.base_url`, then retry",
    "model_not_allowed": "the coding CLI asked for a model that is not configured: check `model.name`",
}


_PHASES = {
    "started": "starting",
    "cloned": "the work tree is ready",
    "model_started": "thinking",
    "testing": "running the tests",
    "finishing": "collecting the change",
    "working; the transcript is full": "working",
}


class Seen(Value):
    """What became of a container's work. `outcome`: done | ask | cancelled | failed."""

    outcome: str
    summary: str
    last_line: str = ""
    next_step: str = ""


class RunnerResult(Value):
    """`result.json` of the runner protocol, as far as we use it."""

    model_config = Value.model_config | {"extra": "ignore"}

    outcome: str = "error"
    summary: str = ""
    error: str = ""
    filesystem_full: bool = False
    test_exit_code: int | None = None
    seconds: float = 0
    output_tail: str = ""


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
            seen = await self._watch(container, order, troubles, nudge)
            kept.write_text(seen.model_dump_json(by_alias=True))
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
        task, limits = order.spec.id, order.spec.limits
        nudge = self._nudges.setdefault(task, asyncio.Event())
        began = time.monotonic()
        container = await sandbox.start(order)
        waiter = asyncio.create_task(container.wait())
        late = False
        try:
            while not waiter.done():
                await asyncio.wait({waiter}, timeout=1)
                late = time.monotonic() - began > limits.wall_seconds
                if not waiter.done() and (late or await self._is_cancelled(task)):
                    await container.stop()
                nudge.clear()
            ended = await waiter
        finally:
            waiter.cancel()
            self._nudges.pop(task, None)
        result = _result(order.folder / "out" / "result.json")
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
            output_tail=tail.strip() or result.error or ended.log_tail[-2000:],
        )
        kept.write_text(run.model_dump_json(by_alias=True))
        await container.remove()
        return run

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
        waiter = asyncio.create_task(container.wait())
        began = heard = time.monotonic()
        told = ""
        told_at = 0.0
        why: tuple[str, str] | None = None
        try:
            while not waiter.done():
                nudged = asyncio.create_task(nudge.wait())
                await asyncio.wait({waiter, nudged}, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
                nudged.cancel()
                now = time.monotonic()
                if events.read():
                    heard = now
                if events.phase != told and now - told_at >= EVERY:
                    told, told_at = events.phase, now
                    await self.tell(task, events.phase)
                if why is None and not waiter.done():
                    cancelled = (nudge.is_set() or now - told_at > EVERY) and await self._is_cancelled(task)
                    why = self._must_stop(order, troubles, cancelled, now - began, now - heard)
                    nudge.clear()
                    if why is not None:
                        await container.stop(0 if cancelled and await self._is_killed(task) else 10)
            ended = await waiter
        finally:
            waiter.cancel()
        events.read()
        if why is None and (refusal := _asking(troubles, limits.cost_micros, limits.turns)):
            why = refusal
        if events.phase != told:
            await self.tell(task, events.phase)
        return self._judge(order, ended, troubles, events, why)

    def _must_stop(
        self, order: Order, troubles: list[ModelTrouble], cancelled: bool, running: float, silent: float
    ) -> tuple[str, str] | None:
        limits = order.spec.limits
        if cancelled:
            return "cancelled", ""
        if asking := _asking(troubles, limits.cost_micros, limits.turns):
            return asking
        if any(trouble.kind == "unauthorized" for trouble in troubles):
            return "failed", ""  # asking again does not make a key valid
        if running > limits.wall_seconds:
            return "ask", f"it worked for {running / 60:.0f} minutes, its limit"
        if silent > limits.stall_seconds:
            return "ask", f"no output for {silent / 60:.1f} minutes"
        return None

    def _judge(
        self,
        order: Order,
        ended: Ended,
        troubles: list[ModelTrouble],
        events: Events,
        why: tuple[str, str] | None,
    ) -> Seen:
        limits = order.spec.limits
        result = _result(order.folder / "out" / "result.json")
        last = events.last_line or ended.log_tail.strip().splitlines()[-1:] or ""
        last_line = last if isinstance(last, str) else last[0]
        if why is not None and why[0] != "failed":
            return Seen(outcome=why[0], summary=why[1] or "stopped", last_line=last_line)
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

    async def _is_killed(self, task: str) -> bool:
        known = await self._store.read(lambda unit: unit.task(task))
        return known is not None and known.killed

    async def _keep_isolation(self, task_id: str, isolation: dict[str, Any]) -> None:
        def write(unit: Any) -> None:
            task = unit.task(task_id)
            if task is not None and not task.status.final:
                unit.update_task(task.evolve(isolation=isolation))

        await self._store.write(write)


def _asking(troubles: list[ModelTrouble], cost_micros: int, turns: int) -> tuple[str, str] | None:
    for trouble in troubles:
        if trouble.kind == "budget":
            return "ask", f"the budget of ${cost_micros / MICROS:.2f} is spent"
        if trouble.kind == "turns":
            return "ask", f"{turns} model turns were used, its limit"
    return None


class Events:
    """Tails `events.ndjson`: what the coding CLI does, as a phase for people."""

    def __init__(self, path: Path, cap: int) -> None:
        self._path = path
        self._cap = cap
        self._offset = 0
        self._rest = b""
        self.phase = "starting"
        self.last_line = ""
        self.summary = ""

    def read(self) -> bool:
        """Take in what is new. True when there was something."""
        if self._offset >= self._cap:
            return False
        new = _read_from(self._path, self._offset, 1024**2)
        if not new:
            return False
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a line cut by a kill, or noise: the transcript keeps it, the phase does not need it
            if isinstance(event, dict):
                self._take(event)
        return True

    def _take(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "runner":
                self.phase = _PHASES.get(str(event.get("phase")), self.phase)
            case "system" if event.get("subtype") == "api_retry":
                self.phase = f"waiting for the model: {_retry(event)}"
            case "assistant":
                for part in _parts(event):
                    if part.get("type") == "tool_use":
                        self.phase = _doing(part)
                    elif part.get("type") == "text" and str(part.get("text", "")).strip():
                        self.last_line = str(part["text"]).strip().splitlines()[-1][:500]
            case "result":
                self.summary = str(event.get("result") or "")[:8000]
                self.last_line = (self.summary.strip().splitlines() or [self.last_line])[-1][:500]
            case _:
                return


def _retry(event: dict[str, Any]) -> str:
    status, attempt, most = event.get("error_status"), event.get("attempt"), event.get("max_retries")
    return f"it answered {status or 'nothing'}, try {attempt} of {most}"[:80]


def _parts(event: dict[str, Any]) -> list[dict[str, Any]]:
    message = event.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _doing(part: dict[str, Any]) -> str:
    given = part.get("input")
    arguments: dict[str, Any] = given if isinstance(given, dict) else {}
    target = str(arguments.get("file_path") or arguments.get("path") or arguments.get("pattern") or "")
    shown = target.removeprefix("/tmp/work/")[:60]
    match part.get("name"):
        case "Write":
            return f"writing {shown}"
        case "Edit" | "MultiEdit":
            return f"editing {shown}"
        case "Read":
            return f"reading {shown}"
        case "Grep" | "Glob":
            return f"searching {shown}"
        case "Bash":
            return f"running {str(arguments.get('command', ''))[:60]}"
        case name:
            return f"using {str(name)[:40]}"


def _read_from(path: Path, offset: int, limit: int) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OutputRefused(
                f"{path.name} is not a regular file: nothing of this container's output is used"
            )
        return os.pread(handle, limit, offset)
    except OSError as error:
        raise OutputRefused(f"{path.name} cannot be read: {error}") from error
    finally:
        os.close(handle)


def read_output(path: Path, cap: int) -> bytes:
    """A file the container wrote. Raises `OutputRefused` when it is a link, no regular file, or larger than `cap` bytes."""
    try:
        content = _read_from(path, 0, cap + 1)
    except OSError as error:
        raise OutputRefused(
            f"{path.name} is a link or cannot be opened: nothing of this container's output is used"
        ) from error
    if len(content) > cap:
        raise OutputRefused(
            f"{path.name} is larger than the {cap} bytes that may come out of a task (`limits.output`)"
        )
    return content


def _result(path: Path) -> RunnerResult:
    raw = read_output(path, _RESULT_BYTES)
    if not raw:
        return RunnerResult(error="the runner left no result")
    try:
        return RunnerResult.model_validate_json(raw)
    except ValidationError as error:
        return RunnerResult(error=f"the runner's result is malformed: {error.error_count()} problems")
