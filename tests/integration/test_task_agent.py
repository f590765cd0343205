"""A Task Agent between its people and its steps: who cancels when, what an answer allows, and preparations that do not end.

The store, git and the forge are the real ones. No container runs: what the work came to, a test says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from codespar.agents.task import TaskAgent
from codespar.agents.workshop import Answer, Tools
from codespar.domain.approvals import ApprovalState
from codespar.domain.messages import Attachment
from codespar.domain.tasks import MICROS, Task, TaskSpec, TaskStatus
from codespar.screening.screen import Screen
from codespar.store.base import Notice
from support.agency import Agency
from support.repositories import repository

SPENT = {"outcome": "ask", "summary": "the budget is spent"}


class Hands:
    """A workflow's hands that remember nothing: each step is done at once, but for those whose answers a test gives."""

    id = "t"

    def __init__(self, **given: Any) -> None:
        self._given = given
        self.steps: list[str] = []
        self.answers: dict[str, Any] = {}

    async def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        self.steps.append(name)
        given = self._given.get(name.replace("-", "_"))
        self.answers[name] = await given() if given is not None else await function(*arguments)
        return self.answers[name]

    async def wait(self, topic: str, seconds: float) -> Any:
        return await self._given[topic.partition("-")[0]](topic)

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(f"a task sleeps for nothing, and not for {seconds} s")


async def spent() -> Answer:
    return dict(SPENT)


class Shop(Agency):
    """One project with one slot, and its Task Agent."""

    def __init__(self, folder: Path, bare: Path, *, slots: int = 1) -> None:
        super().__init__(folder, bare)
        self.set_up: Callable[[], Any] = self._at_once
        self.slots(slots)
        self.tasks = TaskAgent(
            Tools(
                store=self.store,
                sandbox=SimpleNamespace(ensure_image=self._ensure_image),  # type: ignore[arg-type]
                gateway=None,  # type: ignore[arg-type]
                screening=Screen(),
                workshop=lambda name: self._workshop,
                clock=self.clock,
                folder=folder / "tasks",
                attachment=lambda sha256: folder / "attachments" / sha256,
            )
        )
        self.listeners.append(self._nudge)

    def slots(self, count: int) -> None:
        self._workshop = replace(self._workshop, max_tasks=count)

    def limit(self, **limits: Any) -> None:
        self._workshop = replace(self._workshop, limits=self._workshop.limits.evolve(**limits))

    def _nudge(self, notice: Notice) -> None:
        if notice.kind == "task":
            self.tasks.nudge(notice.key)

    async def _at_once(self) -> str:
        return "image"

    async def _ensure_image(self, **_: Any) -> str:
        return await self.set_up()

    async def all(self) -> list[Task]:
        """In order of arrival."""
        found = await self.store.read(lambda unit: unit.tasks("shop"))
        return sorted(found, key=lambda task: task.ticket)

    async def begin(self, text: str = "do it") -> Task:
        await self.say(f"instruct {text}")
        return (await self.all())[-1]

    async def now(self, task: Task) -> Task:
        return next(one for one in await self.all() if one.id == task.id)

    async def titles(self) -> list[str]:
        return [card.title for card in await self.told()]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    (tmp_path / "house").mkdir()
    bare = repository(tmp_path / "shop.git", config="limits: {cost: $1, turns: 7}\n")
    async with Shop(tmp_path / "house", bare) as made:
        yield made


async def test_who_has_cancelled_is_not_asked_any_more(shop: Shop) -> None:
    task = await shop.begin()

    async def work() -> Answer:  # the limit was reached, and nobody had cancelled until then
        await shop.say(f"cancel {task.id}")
        return dict(SPENT)

    hands = Hands(work_1=work)
    assert await shop.tasks.run(hands, {"task": task.id}) == "cancelled"
    assert await shop.store.read(lambda unit: unit.approvals("shop")) == []
    assert any(title.startswith("🛑 Task Cancelled") for title in await shop.titles())


async def test_a_task_that_is_cancelled_after_the_answer_does_not_wait_for_a_slot(shop: Shop) -> None:
    task = await shop.begin()

    async def answer(topic: str) -> Any:  # its slot went to another one when it asked
        assert (await shop.now(other)).status is TaskStatus.RUNNING
        await shop.say(f"approve {topic.removeprefix('answer-')}")
        await shop.say(f"cancel {task.id}")
        return {"verdict": "approve", "by": "Ada"}

    other = await shop.begin("something else")
    hands = Hands(work_1=spent, answer=answer)
    assert await shop.tasks.run(hands, {"task": task.id}) == "cancelled"
    assert [one.status for one in await shop.all()] == [TaskStatus.CANCELLED, TaskStatus.RUNNING]


async def test_a_task_that_is_cancelled_when_its_question_expires_is_told_as_cancelled(shop: Shop) -> None:
    task = await shop.begin()

    async def nobody(topic: str) -> None:
        await shop.say(f"cancel {task.id}")

    assert await shop.tasks.run(Hands(work_1=spent, answer=nobody), {"task": task.id}) == "cancelled"


async def test_going_on_allows_the_task_s_own_limits_once_more_beyond_what_was_used(shop: Shop) -> None:
    task = await shop.begin()

    async def work() -> Answer:
        for number in range(8):
            await shop.store.write(
                lambda unit, n=number: unit.record_usage(task.id, f"m{n}", "x", 1, MICROS // 4, shop.clock())
            )
        return dict(SPENT)

    async def answer(topic: str) -> Any:
        if topic.startswith("slot-"):
            return "granted"
        token = topic.removeprefix("answer-")
        await shop.say(f"approve {token}")
        approval = await shop.store.read(lambda unit: unit.approval(token))
        assert approval is not None and approval.state is ApprovalState.APPROVED
        return {"verdict": "approve", "by": "Ada"}

    async def over() -> Answer:
        return {"failure": {"summary": "", "lastLine": "", "nextStep": "", "patch": None}}

    hands = Hands(work_1=work, work_2=over, answer=answer, slot=answer)
    await shop.tasks.run(hands, {"task": task.id})
    first, second = (TaskSpec.model_validate(hands.answers[f"prepare-{n}"]["spec"]).limits for n in (1, 2))
    assert (first.cost_micros, first.turns) == (1 * MICROS, 7)
    assert (second.cost_micros, second.turns) == (2 * MICROS + 1 * MICROS, 8 + 7)


async def test_a_task_is_cancelled_while_its_environment_is_made(shop: Shop) -> None:
    task = await shop.begin()
    begun, ended = asyncio.Event(), asyncio.Event()

    async def never() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    shop.set_up = never
    running = asyncio.create_task(shop.tasks.run(Hands(), {"task": task.id}))
    async with asyncio.timeout(60):
        await begun.wait()
        await shop.say(f"cancel {task.id}")
        assert await running == "cancelled"
    assert ended.is_set()


async def test_an_environment_that_is_never_ready_ends_the_task_and_frees_its_slot(shop: Shop) -> None:
    shop.limit(wall_seconds=1)
    task = await shop.begin()
    waits = await shop.begin("next")

    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    shop.set_up = never
    async with asyncio.timeout(60):
        assert await shop.tasks.run(Hands(), {"task": task.id}) == "failed"
    result = (await shop.now(task)).result
    assert result is not None and "not ready within" in result.summary
    assert (await shop.now(waits)).status is TaskStatus.RUNNING


async def test_an_attachment_that_is_not_kept_any_more_is_named(shop: Shop) -> None:
    task = await shop.begin()
    file = Attachment(name="plan.pdf", media_type="application/pdf", size=3, sha256="0" * 64)
    await shop.store.write(lambda unit: unit.update_task(task.evolve(attachments=(file,))))
    assert await shop.tasks.run(Hands(), {"task": task.id}) == "failed"
    result = (await shop.now(task)).result
    assert result is not None
    assert result.summary.startswith("plan.pdf came with the instruction and is not kept any more")


async def test_who_waits_starts_before_who_arrives_when_there_are_more_slots_than_before(shop: Shop) -> None:
    for name in ("first", "second", "third"):
        await shop.begin(name)
    shop.slots(3)
    await shop.begin("fourth")
    assert [task.status.value for task in await shop.all()] == ["running", "running", "running", "queued"]
