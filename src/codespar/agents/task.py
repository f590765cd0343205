"""The Task Agent: the durable workflow from a granted slot to an open pull request.

prepare → work (start or adopt the container, follow it) → harvest → verify → publish → finish. Each is a step that finds its own earlier
trace when it is done again after a crash. A limit that was reached does not kill: the work is kept, the slot given back, and the people
are asked. No step raises for what can go wrong in the world: it answers with a `failure`, and every ending tells the thread.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from codespar.agents import board, cards, issues
from codespar.agents.consent import with_token
from codespar.agents.delivery import Delivery
from codespar.agents.requests import card_key, tell
from codespar.agents.supervisor import Supervisor
from codespar.agents.workshop import Answer, Tools, Workshop, cancelled, failure
from codespar.config import parse_repository_config
from codespar.domain.approvals import Approval, ApprovalKind, ApprovalState, new_approval
from codespar.domain.base import CodesparError
from codespar.domain.people import Permission
from codespar.domain.tasks import (
    Environment,
    Limits,
    Task,
    TaskContext,
    TaskResult,
    TaskSpec,
    TaskStatus,
)
from codespar.engine.base import WorkflowContext
from codespar.sandbox.base import Job, Order
from codespar.store.base import StoreError

log = structlog.get_logger(__name__)
_MAP_CHARACTERS = 6000


class TaskAgent:
    """One object serves every task: all that lasts is in the store, the task's folder and the workflow's steps."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._supervisor = Supervisor(tools.store, tools.gateway, tools.clock)
        self._delivery = Delivery(tools, self._supervisor)

    def nudge(self, task: str) -> None:
        """Something about the task changed: a running supervision looks at once."""
        self._supervisor.nudge(task)

    async def run(self, context: WorkflowContext, payload: dict[str, Any]) -> str:
        """The workflow. Returns the final status."""
        task_id = str(payload["task"])
        try:
            answer = await self._work_through(context, task_id)
        except CodesparError as error:
            answer = failure(str(error))
        except Exception as error:  # a defect of ours: its people are told, and the slot is not lost
            log.error("task.unexpected", task=task_id, exc_info=True)
            answer = failure(
                f"an unexpected error ended the task: {type(error).__name__}: {error}",
                next_step=f"`retry {task_id}`; the server's log has the details",
            )
        return str(await context.step("finish", self._finish, task_id, answer))

    async def _work_through(self, context: WorkflowContext, task_id: str) -> Answer:
        attempt = 1
        while True:
            prepared = await context.step(f"prepare-{attempt}", self._safely, self._prepare, task_id, attempt)
            if "failure" in prepared:
                return prepared
            worked = await context.step(
                f"work-{attempt}", self._safely, self._work, task_id, attempt, prepared["spec"]
            )
            if "failure" in worked:
                return worked
            if worked["outcome"] != "ask":
                break
            asked = await context.step(f"ask-{attempt}", self._ask, task_id, attempt, worked)
            if "failure" in asked:
                return asked
            token = str(asked["token"])
            reply = await context.wait(f"answer-{token}", float(asked["seconds"]))
            if reply is None or reply.get("verdict") != "approve":
                return await context.step(
                    f"answered-{attempt}", self._not_going_on, task_id, token, reply, worked
                )
            going = await context.step(f"go-on-{attempt}", self._go_on, task_id)
            if going is not None:
                return going
            attempt += 1
            while await context.wait(f"slot-{attempt}", 24 * 3600) is None:
                if await context.step(f"still-wanted-{attempt}", self._is_over, task_id):
                    return failure("cancelled while it waited for a slot")
        harvested = await context.step(
            "harvest", self._safely, self._delivery.harvest, task_id, attempt, prepared["spec"], worked
        )
        if "failure" in harvested:
            return harvested
        verified = await context.step(
            "verify", self._safely, self._delivery.verify, task_id, attempt, prepared["spec"]
        )
        if "failure" in verified:
            return verified
        return await context.step(
            "publish",
            self._safely,
            self._delivery.publish,
            task_id,
            prepared["spec"],
            harvested,
            verified,
        )

    async def _safely(self, step: Callable[..., Any], *arguments: Any) -> Answer:
        """What our ports refuse is an answer, not a crash. A cancellation that arrived before the step ends the task here."""
        task = await self._tools.task(str(arguments[0]))
        if task.cancel_requested_by and step != self._work:
            return cancelled(task)
        try:
            return await step(*arguments)
        except StoreError:
            raise  # the engine tries the step again
        except CodesparError as error:
            return failure(str(error), patch=self._newest_patch(task))

    def _newest_patch(self, task: Task) -> str | None:
        """What the task has made so far, in whichever attempt."""
        attempts = range(task.attempt, 0, -1)
        made = (
            str(self._tools.folder_of(task.id, attempt) / "out" / "changes.patch") for attempt in attempts
        )
        return next((patch for patch in made if _kept(patch)), None)

    # prepare

    async def _prepare(self, task_id: str, attempt: int) -> Answer:
        """The TaskSpec. A repository's own set-up may take long, or hang: who cancels need not wait for it."""
        task = await self._tools.task(task_id)
        seconds = self._tools.workshop(task.project).limits.wall_seconds
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                prepared = await self._supervisor.unless_cancelled(task_id, self._specify(task, attempt))
        except TimeoutError:
            if not deadline.expired():
                raise
            return failure(
                f"what the task needs was not ready within {seconds / 60:.0f} minutes",
                next_step="look at `environment` in .codespar.yaml: a command there may wait for something; or raise `limits.wall`",
            )
        return cancelled(await self._tools.task(task_id)) if prepared is None else prepared

    async def _specify(self, task: Task, attempt: int) -> Answer:
        shop = self._tools.workshop(task.project)
        branch, base = await shop.forge.sync()
        if attempt > 1 and task.spec is not None:
            base = TaskSpec.model_validate(task.spec).base_commit  # its own earlier patch was made on it
        raw = await shop.forge.read_file(base, ".codespar.yaml")
        rules = parse_repository_config(raw, f".codespar.yaml at {base[:12]}")
        image = await self._tools.sandbox.ensure_image(
            project=task.project,
            base_commit=base,
            setup=rules.environment,
            read_file=shop.forge.read_file,
            say=log.info,
        )
        await shop.index.update(shop.forge.base_repository, base)
        overview = await shop.index.repository_map(issues.subject(task), _MAP_CHARACTERS)
        memories = await self._tools.store.read(lambda unit: unit.memories(task.project))
        spec = TaskSpec(
            id=task.id,
            project=task.project,
            repository=shop.repository,
            base_branch=branch,
            base_commit=base,
            instruction=issues.instruction(task),
            kind=task.kind,
            requester=task.requester,
            context=TaskContext(
                repository_map=overview,
                failing_log=task.failing_log,
                issue=task.issue.quoted if task.issue else "",
                conventions=tuple(memory.text for memory in memories),
                earlier_patch=attempt > 1,
                attachments=task.attachments,
            ),
            blocked_paths=(*shop.blocked_paths, *rules.blocked_paths),
            blocked_commands=rules.blocked_commands,
            environment=Environment(image=image, variables=rules.environment.variables),
            test_command=rules.test,
            limits=await self._limits(task, shop, rules.limits),
            model=shop.model,
        )
        document = spec.wire()
        await self._change(task.id, lambda known: known.evolve(spec=document, limits=spec.limits))
        return {"spec": document}

    async def _limits(self, task: Task, shop: Workshop, wanted: dict[str, Any]) -> Limits:
        """The project's wishes, within what the organization allows; with each answer to go on, once more beyond what was used."""
        merged = shop.limits.evolve(**wanted) if wanted else shop.limits
        capped = {name: min(getattr(merged, name), getattr(shop.cap, name)) for name in Limits.model_fields}
        limits = Limits(**capped)
        if task.attempt > 1:
            cost, _, turns = await self._tools.store.read(lambda unit: unit.usage(task.id))
            limits = limits.evolve(cost_micros=cost + limits.cost_micros, turns=turns + limits.turns)
        return limits

    # work

    async def _work(self, task_id: str, attempt: int, document: dict[str, Any]) -> Answer:
        task = await self._tools.task(task_id)
        if task.cancel_requested_by:
            return cancelled(task)
        spec = TaskSpec.model_validate(document)
        shop = self._tools.workshop(task.project)
        earlier = (
            self._tools.folder_of(task_id, attempt - 1) / "out" / "changes.patch" if attempt > 1 else None
        )
        order = Order(
            name=f"codespar-{task_id}-{attempt}",
            job=Job.WORK,
            spec=spec,
            repository=shop.forge.base_repository,
            folder=self._tools.folder_of(task_id, attempt),
            patch=earlier if earlier and earlier.is_file() and earlier.stat().st_size else None,
        )
        await asyncio.to_thread(self._lay_out, task, order.folder / "in" / "attachments")
        seen = await self._supervisor.follow(self._tools.sandbox, order)
        patch = str(order.folder / "out" / "changes.patch")
        match seen.outcome:
            case "done" | "ask":
                return seen.wire() | {"outcome": seen.outcome}
            case "cancelled":
                return cancelled(await self._tools.task(task_id), patch)
            case _:
                return failure(seen.summary, last_line=seen.last_line, next_step=seen.next_step, patch=patch)

    def _lay_out(self, task: Task, folder: Path) -> None:
        """Put what came with the instruction where the container can read it."""
        for number, attached in enumerate(task.attachments, start=1):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(
                    self._tools.attachment(attached.sha256), folder / f"{number:02}-{attached.name}"
                )
            except FileNotFoundError as error:
                raise CodesparError(
                    f"{attached.name} came with the instruction and is not kept any more: instruct again, with the file"
                ) from error

    # a limit was reached

    async def _ask(self, task_id: str, attempt: int, worked: Answer) -> Answer:
        """Ask the task's people once. Returns the approval's token, and for how many seconds the answer is waited for; who cancelled is
        not asked."""
        now = self._tools.clock()
        why = str(worked["summary"])

        def ask(unit: Any) -> dict[str, Any]:
            task: Task = unit.task(task_id)
            shop = self._tools.workshop(task.project)
            answer_time = timedelta(seconds=shop.answer_seconds)
            approval, known = self._question(unit, task, attempt, now, answer_time)
            if not known and task.cancel_requested_by:
                return cancelled(task, self._newest_patch(task))
            if not known:
                unit.save_approval(approval)
                card = cards.question(task, approval, why)
                unit.say(task.project, task.thread, card_key(approval, 0), card, now)
                unit.record(
                    at=now,
                    actor=task_id,
                    action="approval.asked",
                    project=task.project,
                    subject=approval.token,
                    detail={"why": why},
                )
                board.give_back(unit, task, shop.max_tasks, now)
            return {"token": approval.token, "seconds": shop.answer_seconds}

        return await self._tools.store.write(ask)

    def _question(
        self, unit: Any, task: Task, attempt: int, now: datetime, answer_time: timedelta
    ) -> tuple[Approval, bool]:
        """The approval that is asked for, and whether it was asked for before. A token another question has is passed over."""
        shown = f"{task.id}:{attempt}"
        make = partial(
            new_approval,
            kind=ApprovalKind.BUDGET,
            seed=shown,
            project=task.project,
            subject=task.id,
            action_summary=f"Go on with {task.id} with the same limits once more? The work so far is kept either way.",
            shown_digest=shown,
            requester=task.thread.person or task.requester,
            permission=Permission.INSTRUCT_AGENT,
            thread=task.thread,
            now=now,
            expires_in=answer_time,
            shown=cards.task_so_far(task),
            places=(task.thread,),
        )
        return with_token(unit, make, same=lambda held: held.shown_digest == shown)

    async def _not_going_on(
        self, task_id: str, token: str, reply: dict[str, Any] | None, worked: Answer
    ) -> Answer:
        task = await self._tools.task(task_id)
        patch = str(self._tools.folder_of(task_id, task.attempt) / "out" / "changes.patch")
        if task.cancel_requested_by:
            return cancelled(task, patch)
        if reply is not None:
            return failure(f"{worked['summary']}; {reply.get('by', 'somebody')} said to stop", patch=patch)
        now = self._tools.clock()

        def expire(unit: Any) -> None:
            approval: Approval | None = unit.approval(token)
            if approval is not None and approval.state is ApprovalState.PENDING:
                over = approval.evolve(state=ApprovalState.EXPIRED)
                unit.save_approval(over)
                tell(unit, over, now)

        await self._tools.store.write(expire)
        return failure(f"{worked['summary']}; nobody answered until {now:%H:%M} UTC", patch=patch)

    async def _go_on(self, task_id: str) -> Answer | None:
        """Take the next free slot. A task that was cancelled after the answer ends here, and waits for none."""
        now = self._tools.clock()

        def resume(unit: Any) -> Answer | None:
            task: Task = unit.task(task_id)
            if task.cancel_requested_by and task.status is TaskStatus.WAITING:
                return cancelled(task, self._newest_patch(task))
            board.go_on(unit, task, self._tools.workshop(task.project).max_tasks, now)
            return None

        return await self._tools.store.write(resume)

    async def _is_over(self, task_id: str) -> bool:
        return (await self._tools.task(task_id)).status.final

    # finish

    async def _finish(self, task_id: str, answer: Answer) -> str:
        now = self._tools.clock()
        told = dict(answer.get("failure", {}))
        for words in ("summary", "lastLine"):
            told[words] = await asyncio.to_thread(self._tools.screening.clean, str(told.get(words, "")))

        def finish(unit: Any) -> str:
            task: Task = unit.task(task_id)
            cost, tokens, turns = unit.usage(task_id)
            spent = {"cost_micros": cost, "tokens": tokens, "turns": turns}
            if "result" in answer:
                result = TaskResult.model_validate(answer["result"]).evolve(**spent)
                card = cards.completed(task, result)
            else:
                result = TaskResult(
                    status=TaskStatus.CANCELLED if told.get("cancelled") else TaskStatus.FAILED,
                    summary=told["summary"],
                    last_line=told["lastLine"],
                    next_step=told["nextStep"],
                    patch=_kept(told["patch"]),
                    isolation=task.isolation,
                    **spent,
                )
                card = cards.ended_badly(task, result)
            limit = self._tools.workshop(task.project).max_tasks
            return board.end(unit, task, result, card, limit, now).status.value

        return await self._tools.store.write(finish)

    # small things

    async def _change(self, task_id: str, change: Callable[[Task], Task]) -> None:
        def apply(unit: Any) -> None:
            task = unit.task(task_id)
            if task is not None and not task.status.final:
                unit.update_task(change(task))

        await self._tools.store.write(apply)


def _kept(patch: str | None) -> str | None:
    """The patch's path where there is one with something in it."""
    if patch is None:
        return None
    path = Path(patch)
    return patch if path.is_file() and path.stat().st_size else None
