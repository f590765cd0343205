"""A project's task board: the moves that change who holds a slot.

Each function runs inside a unit of work of the caller, so that the slot, the message that tells of it and the intent that starts the
workflow are one commit. A move done again after a crash changes nothing.
"""

from __future__ import annotations

from datetime import datetime

from codespar.agents import cards
from codespar.agents.announcer import announce
from codespar.domain import slots
from codespar.domain.agents import AgentKind, AgentState, Outcome
from codespar.domain.messages import NormalizedResponse
from codespar.domain.notifications import AlertKind
from codespar.domain.tasks import Task, TaskResult, TaskStatus
from codespar.store.base import PULLED, Intent, Notice, Unit

WORKFLOW = "task"  # the name under which the Task Agent's workflow is registered: never changes
_OUTCOME = {
    TaskStatus.COMPLETED: Outcome.SUCCEEDED,
    TaskStatus.FAILED: Outcome.FAILED,
    TaskStatus.CANCELLED: Outcome.CANCELLED,
}


def workflow_id(task: str) -> str:
    return f"{task}-run"


def admit(
    unit: Unit, task: Task, limit: int, now: datetime, cause: int | None, *, paused: bool
) -> Task | None:
    """Take a new task in: it starts when a slot is free, else it queues. Returns it as stored, or None when its id is taken."""
    promote(unit, task.project, limit, now)  # who waited comes first, also where the limit was raised since
    known = unit.open_tasks(task.project)
    if not unit.add_task(task):
        return None
    unit.create_agent(task.id, AgentKind.TASK, task.project, f"{task.kind} by {task.requester}", task.id, now)
    with_it = [*known, task]
    if not paused and any(ready.id == task.id for ready in slots.startable(with_it, limit)):
        running = _grant(unit, task, now)
        active = len(slots.running(known)) + 1
        unit.say(
            task.project, task.thread, f"{task.id}:started", cards.started(running, active, limit), now, cause
        )
        stored = running
    else:
        place = slots.position(with_it, task.id) or 1
        stored = task.evolve(queued_position=place)
        unit.update_task(stored)
        card = cards.queued(stored, place, len(slots.running(known)), limit)
        unit.say(task.project, task.thread, f"{task.id}:queued", card, now, cause)
    _wake_project(unit, task.project, now)
    return stored


def promote(unit: Unit, project: str, limit: int, now: datetime) -> list[Task]:
    """Start whatever fits into the free slots, and tell its thread and the project's channel."""
    record = unit.project(project)
    if record is None or record.paused:
        return []
    begun: list[Task] = []
    while ready := slots.startable(unit.open_tasks(project), limit)[:1]:
        task = ready[0]
        running = _grant(unit, task, now)
        known = unit.open_tasks(project)
        active, remaining = len(slots.running(known)), len(slots.queue(known))
        if task.resumes:
            unit.say(
                project,
                task.thread,
                f"{task.id}:goes-on:{task.attempt}",
                cards.goes_on(running, active, limit),
                now,
            )
            begun.append(running)
            continue
        step = f"{task.id}:dequeued"
        unit.say(project, task.thread, step, cards.dequeued(running, 1, active, limit), now)
        notice = cards.dequeued_notice(task, 1, remaining)
        told = None
        if task.thread.channel in PULLED:
            unit.say(project, task.thread.evolve(thread_id=None), f"{step}:notice", notice, now)
            told = (task.thread.channel, task.thread.conversation)
        announce(unit, project, AlertKind.TASKS, notice, f"{step}:notice", now, but=told)
        begun.append(running)
    return begun


def _grant(unit: Unit, task: Task, now: datetime) -> Task:
    running = task.evolve(
        status=TaskStatus.RUNNING,
        phase="starting",
        started_at=task.started_at or now,
        resumes=False,
        phase_at=now,
    )
    unit.update_task(running)
    payload = {"workflowId": workflow_id(task.id), "task": task.id}
    if task.resumes:
        unit.transition(task.id, AgentState.ACTIVE, "slot granted after the answer", task.id, now)
        wake = {"topic": f"slot-{task.attempt}", "message": "granted"}
        unit.intend(
            Intent(
                id=f"{task.id}:slot:{task.attempt}", kind="send", target=workflow_id(task.id), payload=wake
            ),
            now,
        )
    else:
        unit.transition(task.id, AgentState.IDLE, "ready", task.id, now)
        unit.transition(task.id, AgentState.ACTIVE, "slot granted", task.id, now)
        unit.intend(Intent(id=f"{task.id}:start", kind="start", target=WORKFLOW, payload=payload), now)
    unit.record(
        at=now,
        actor=f"agent-{task.project}",
        action="task.started",
        project=task.project,
        subject=task.id,
        detail={"for": task.requester},
    )
    return running


def end(
    unit: Unit,
    task: Task,
    result: TaskResult,
    card: NormalizedResponse,
    limit: int,
    now: datetime,
    cause: int | None = None,
) -> Task:
    """End a task: store the result, tell its thread, free its slot, start the next. Ended already: nothing changes."""
    current = unit.task(task.id)
    if current is None or current.status.final:
        return current or task
    ended = current.evolve(
        status=result.status, result=result, ended_at=now, phase=result.status.value, phase_at=now
    )
    unit.update_task(ended)
    agent = unit.agent(task.id)
    if agent is not None and agent.state is AgentState.WAITING_APPROVAL:
        unit.transition(task.id, AgentState.ACTIVE, "cleans up and reports", task.id, now)
    unit.transition(
        task.id,
        AgentState.TERMINATED,
        result.summary[:200] or result.status.value,
        task.id,
        now,
        _OUTCOME[result.status],
    )
    if unit.was_said(
        cards.card_key(task.id)
    ):  # its buttons go, and nobody looks at a card that seems to move
        unit.say(task.project, task.thread, cards.card_key(task.id), cards.progress(ended, now), now)
    unit.say(task.project, task.thread, f"{task.id}:ended", card, now, cause)
    detail = {"pr": result.pr_number, "costMicros": result.cost_micros, "commit": result.commit}
    unit.record(
        at=now,
        actor=task.id,
        action=f"task.{result.status.value}",
        project=task.project,
        subject=task.id,
        detail=dict(detail),
    )
    if result.pr_number is not None:
        unit.notices.append(Notice(kind="published", key=f"#{result.pr_number}", project=task.project))
    promote(unit, task.project, limit, now)
    if not unit.open_tasks(task.project):
        _rest_project(unit, task.project, now)
    return ended


def give_back(unit: Unit, task: Task, limit: int, now: datetime) -> None:
    """The task waits for people: its slot goes to the next."""
    unit.update_task(task.evolve(status=TaskStatus.WAITING, phase="waiting for an answer", phase_at=now))
    unit.transition(task.id, AgentState.WAITING_APPROVAL, "asked its people", task.id, now)
    promote(unit, task.project, limit, now)


def go_on(unit: Unit, task: Task, limit: int, now: datetime) -> None:
    """The answer was yes: the task takes the next free slot, ahead of the queue."""
    if task.status is not TaskStatus.WAITING:
        return
    unit.update_task(
        task.evolve(
            status=TaskStatus.QUEUED,
            resumes=True,
            attempt=task.attempt + 1,
            phase="waiting for a slot",
            phase_at=now,
        )
    )
    promote(unit, task.project, limit, now)


def project_agent(project: str) -> str:
    return f"agent-{project}"


def restart(unit: Unit, now: datetime) -> None:
    """After a restart every living agent initializes again and takes up its state."""
    for agent in unit.agents(limit=100_000):
        if agent.kind is AgentKind.TASK and agent.state is AgentState.INITIALIZING:
            continue  # still queued: it has not begun
        unit.transition(agent.id, AgentState.INITIALIZING, "restart", "restart", now)
        unit.transition(agent.id, AgentState.IDLE, "ready", "restart", now)
        busy = bool(unit.open_tasks(agent.project)) if agent.kind is AgentKind.PROJECT else True
        if busy:
            unit.transition(agent.id, AgentState.ACTIVE, "goes on", "restart", now)
        if agent.state is AgentState.WAITING_APPROVAL:
            unit.transition(agent.id, AgentState.WAITING_APPROVAL, "still waits", "restart", now)


def _wake_project(unit: Unit, project: str, now: datetime) -> None:
    agent = unit.agent(project_agent(project))
    if agent and agent.state is AgentState.IDLE:
        unit.transition(agent.id, AgentState.ACTIVE, "work arrived", project, now)


def _rest_project(unit: Unit, project: str, now: datetime) -> None:
    agent = unit.agent(project_agent(project))
    if agent and agent.state is AgentState.ACTIVE:
        unit.transition(agent.id, AgentState.IDLE, "work done", project, now)
