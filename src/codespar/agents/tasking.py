"""The commands that concern tasks: take one in, stop it, do it again. Each is a function of a turn."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from codespar.agents import board, broken, cards
from codespar.agents.requests import tell
from codespar.agents.turn import Turn
from codespar.agents.workshop import Workshop
from codespar.domain.approvals import ApprovalState
from codespar.domain.base import CodesparError, short_id
from codespar.domain.issues import QuotedIssue
from codespar.domain.messages import Attachment, NormalizedResponse, Tone
from codespar.domain.tasks import Task, TaskKind, TaskResult, TaskStatus, Thread
from codespar.store.base import Intent, Unit


def instruct(turn: Turn) -> None:
    kind = TaskKind.FIX if turn.command.name == "fix" else TaskKind.INSTRUCT
    if turn.facts is not None and turn.facts.problem:
        able = turn.facts.able or "send it again, or without it"
        turn.say(cards.refused("Nothing was started", turn.facts.problem, able))
        return
    text = (turn.command.args.text or "").strip()
    if kind is TaskKind.FIX and (build := broken.asked(text)) is not None:
        _fix_build(turn, build)
        return
    _admit(turn, kind, text, issue=turn.facts.issue if turn.facts else None)


def _fix_build(turn: Turn, workflow: str) -> None:
    """`fix build [<workflow>]`: what broke, with its log."""
    build = broken.to_fix(turn.unit, turn.project, workflow)
    if build is None:
        known = "; ".join(f"{one.workflow} on {one.branch}" for one in broken.broken(turn.unit, turn.project))
        why = f"broken are: {known}" if known else "no build is broken, as far as is known"
        turn.say(cards.refused("No such build to fix", why, "`status build` shows how they stand"))
        return
    begun = turn.unit.task(build.task) if build.task else None
    if begun is not None and not begun.status.final:
        told = f"{begun.id} works on {build.workflow} on {build.branch}."
        turn.say(cards.refused("It is being mended already", told, f"`cancel {begun.id}` first"))
        return
    task = _admit(turn, TaskKind.FIX, broken.instruction(build), broken.failing_log(build))
    turn.unit.save_standing(turn.project, build.evolve(task=task.id))


def _admit(
    turn: Turn,
    kind: TaskKind,
    instruction: str,
    failing_log: str = "",
    issue: QuotedIssue | None = None,
    attachments: tuple[Attachment, ...] = (),
) -> Task:
    return admit(
        turn.unit,
        turn.project,
        kind,
        instruction,
        turn.person.name,
        turn.thread,
        turn.now,
        seed=turn.seed,
        workshop=turn.bench.workshop(turn.project),
        attachments=attachments or (turn.facts.attachments if turn.facts else ()),
        failing_log=failing_log,
        issue=issue,
        cause=turn.cause,
    )


def admit(
    unit: Unit,
    project: str,
    kind: TaskKind,
    instruction: str,
    requester: str,
    thread: Thread,
    now: datetime,
    *,
    seed: str,
    workshop: Workshop,
    attachments: tuple[Attachment, ...] = (),
    failing_log: str = "",
    issue: QuotedIssue | None = None,
    cause: int | None = None,
) -> Task:
    """Take a task in, for a person or for the agent itself: it starts when a slot is free, else it queues."""
    record = unit.project(project)
    ticket = unit.next_ticket()
    for attempt in range(100):
        task = Task(
            id=short_id("task", seed, attempt),
            project=project,
            ticket=ticket,
            kind=kind,
            instruction=instruction,
            requester=requester,
            thread=thread,
            status=TaskStatus.QUEUED,
            limits=workshop.limits,
            attachments=attachments,
            failing_log=failing_log,
            issue=issue,
            created_at=now,
        )
        paused = bool(record and record.paused)
        stored = board.admit(unit, task, workshop.max_tasks, now, cause, paused=paused)
        if stored is not None:
            written = hashlib.sha256(instruction.encode()).hexdigest()
            unit.record(
                at=now,
                actor=requester,
                action="task.accepted",
                project=project,
                subject=stored.id,
                detail={"instruction": written, "kind": kind.value},
            )
            return stored
    raise CodesparError("no free task id was found: the store holds an unbelievable number of tasks")


def cancel(turn: Turn) -> None:
    task = _own(turn)
    if task is None:
        return
    if task.status.final:
        turn.say(cards.refused("Nothing to cancel", f"{task.id} has ended: {task.status.value}."))
        return
    if task.cancel_requested_by:
        told = f"{task.cancel_requested_by} asked before; it is stopping."
        turn.say(cards.refused("Already being cancelled", told))
        return
    turn.record("task.cancel", task.id, {})
    if stop(turn, task):
        text = "It gets 10 seconds to stop; the work so far is kept as a patch."
        turn.say(
            NormalizedResponse(title=f"🛑 Cancelling {task.id}", tone=Tone.WARNING, text=text, agent=task.id)
        )


def stop(turn: Turn, task: Task, *, killed: bool = False) -> bool:
    """Have an open task end. True when it is still stopping, False when it has ended with this. `killed`: without a grace period."""
    marked = task.evolve(cancel_requested_by=turn.person.name, killed=killed)
    if task.status is TaskStatus.QUEUED:
        why = "it waited for a slot to go on" if task.resumes else "it was queued and never ran"
        _end_cancelled(turn, marked, why)
        return False
    turn.unit.update_task(marked)
    if task.status is TaskStatus.WAITING:
        answer(turn.unit, marked, {"verdict": "cancel", "by": turn.person.name}, turn)
    return True


def _end_cancelled(turn: Turn, task: Task, why: str) -> None:
    result = TaskResult(
        status=TaskStatus.CANCELLED,
        summary=f"cancelled by {turn.person.name}: {why}",
        cost_micros=task.cost_micros,
    )
    turn.unit.update_task(task)
    limit = turn.bench.workshop(task.project).max_tasks
    board.end(turn.unit, task, result, cards.ended_badly(task, result), limit, turn.now, turn.cause)


def retry(turn: Turn) -> None:
    task = _own(turn)
    if task is None:
        return
    if not task.status.final:
        told = f"{task.id} is {task.status.value}."
        turn.say(cards.refused("Still under way", told, f"`cancel {task.id}` first"))
        return
    _admit(turn, task.kind, task.instruction, task.failing_log, task.issue, task.attachments)


def _own(turn: Turn) -> Task | None:
    id = turn.command.args.id or ""
    task = turn.unit.task(id)
    if task is None or task.project != turn.project:
        told = f"{id or 'that'} is not a task of {turn.project}."
        turn.say(cards.refused("No such task", told, "`queue` lists the open ones"))
        return None
    return task


def answer(unit: Unit, task: Task, message: dict[str, Any], turn: Turn, token: str | None = None) -> None:
    """Send the answer to the task that asked. Without a token: to whatever it asks now, whose question is void with this."""
    if token is None:
        asked = [one for one in unit.approvals(task.project, "pending") if one.subject == task.id]
        if not asked:
            return
        token = asked[0].token
        void = asked[0].evolve(state=ApprovalState.VOID)
        unit.save_approval(void)
        tell(unit, void, turn.now)
    payload = {"topic": f"answer-{token}", "message": message}
    target = board.workflow_id(task.id)
    unit.intend(Intent(id=f"{token}:answer", kind="send", target=target, payload=payload), turn.now)
