"""What agents say, as structured responses. Pure: the same values give the same card.

The task cards carry exactly the information, in the order, that `docs/messages.md` shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from codespar.domain.approvals import Approval, ApprovalState, Verdict
from codespar.domain.messages import Action, Block, FieldLine, NormalizedResponse, Progress, Tone
from codespar.domain.slots import position, queue, running
from codespar.domain.tasks import Task, TaskResult, TaskStatus, counted, money


def _line(name: str, value: object) -> FieldLine:
    return FieldLine(name=name, value=str(value))


def card_key(task: str) -> str:
    """The outbox key of a task's progress card."""
    return f"{task}:progress"


def _issue(task: Task) -> tuple[FieldLine, ...]:
    """Which issue its task was given, or why it was not."""
    return (_line("Issue", task.issue.told),) if task.issue else ()


def started(task: Task, active: int, limit: int) -> NormalizedResponse:
    return NormalizedResponse(
        title="🔧 Task Agent Started",
        tone=Tone.PROGRESS,
        fields=(
            _line("Task", f'"{task.title}"'),
            _line("Agent", task.id),
            _line("Active tasks", f"{active}/{limit}"),
            *_issue(task),
        ),
        actions=(Action(label="Cancel", command=f"cancel {task.id}", style="danger"),),
        agent=task.id,
    )


def queued(task: Task, place: int, active: int, limit: int) -> NormalizedResponse:
    return NormalizedResponse(
        title=f"⏳ Task Queued (position {place})",
        tone=Tone.INFO,
        fields=(
            _line("Task", f'"{task.title}"'),
            _line("Active tasks", f"{active}/{limit}"),
            _line("Estimated start", "when next task completes"),
            *_issue(task),
        ),
        text="",
        actions=(Action(label="Cancel", command=f"cancel {task.id}", style="danger"),),
        blocks=(Block(text="You'll be notified when this task starts."),),
        agent=task.id,
    )


def dequeued(task: Task, place: int, active: int, limit: int) -> NormalizedResponse:
    return NormalizedResponse(
        title=f"🔧 Task Started (dequeued from position {place})",
        tone=Tone.PROGRESS,
        fields=(
            _line("Task", f'"{task.title}"'),
            _line("Agent", task.id),
            _line("Active tasks", f"{active}/{limit}"),
        ),
        agent=task.id,
    )


def goes_on(task: Task, active: int, limit: int) -> NormalizedResponse:
    """The answer was yes and a slot is free."""
    return NormalizedResponse(
        title=f"🔧 Task Goes On ({task.id})",
        tone=Tone.PROGRESS,
        fields=(_line("Task", f'"{task.title}"'), _line("Active tasks", f"{active}/{limit}")),
        agent=task.id,
    )


def dequeued_notice(task: Task, place: int, remaining: int) -> NormalizedResponse:
    return NormalizedResponse(
        title=f'Task dequeued: "{task.title}" (was position {place}, {remaining} remaining in queue)',
        agent=f"agent-{task.project}",
    )


def progress(task: Task, now: datetime) -> NormalizedResponse:
    """The card that is edited while a task runs, and once more when it has ended."""
    elapsed = (now - task.started_at).total_seconds() if task.started_at else 0.0
    return NormalizedResponse(
        title=f"🔧 {task.id}: {task.phase}",
        tone=Tone.PROGRESS,
        fields=(
            _line("Task", f'"{task.title}"'),
            _line("Elapsed", f"{elapsed:.0f} s"),
            _line("Used", used(task)),
        ),
        progress=Progress(
            phase=task.phase,
            elapsed_seconds=elapsed,
            turns=task.turns,
            tokens=task.tokens,
            cost_micros=task.cost_micros,
        ),
        actions=()
        if task.status.final
        else (Action(label="Cancel", command=f"cancel {task.id}", style="danger"),),
        agent=task.id,
        replaces=card_key(task.id),
    )


def used(task: Task) -> str:
    """What a task has used so far."""
    return f"{counted(task.turns, 'turn')}, {counted(task.tokens, 'token')}, {money(task.cost_micros)}"


def completed(task: Task, result: TaskResult) -> NormalizedResponse:
    fields = [
        _line("", f'PR #{result.pr_number} opened: "{result.pr_title}"'),
        _line(
            "", f"Files changed: {result.files_changed} | Lines: +{result.additions} / -{result.deletions}"
        ),
        _line("Tests", tests(result)),
        _line(
            "Cost",
            f"{money(result.cost_micros)} ({counted(result.tokens, 'token')}, {counted(result.turns, 'turn')})",
        ),
        _line("Asked by", task.requester),
    ]
    return NormalizedResponse(
        title=f"✅ Task Completed ({task.id})",
        tone=Tone.SUCCESS if result.tests is None or result.tests.passed else Tone.WARNING,
        fields=tuple(fields),
        actions=(
            Action(label="Show diff", command=f"diff PR #{result.pr_number}"),
            Action(label="Merge", command=f"merge PR #{result.pr_number}", style="primary"),
        ),
        agent=task.id,
    )


def tests(result: TaskResult) -> str:
    run = result.tests
    if run is None:
        return "not run: no test command is configured (`test:` in .codespar.yaml)"
    verdict = "passed" if run.passed else f"FAILED with exit code {run.exit_code}"
    return f"{verdict} in a second clean container (`{run.command}`, {run.seconds:.1f} s)"


def ended_badly(task: Task, result: TaskResult) -> NormalizedResponse:
    cancelled = result.status is TaskStatus.CANCELLED
    fields = [_line("Task", f'"{task.title}"'), _line("What happened", result.summary)]
    if result.last_line:
        fields.append(_line("Last output", result.last_line))
    if result.patch:
        fields.append(_line("Work so far", f"kept as {result.patch}"))
    fields.append(_line("Cost", money(result.cost_micros)))
    fields.append(
        _line("Next", result.next_step or f"`retry {task.id}` starts it again on the newest commit")
    )
    return NormalizedResponse(
        title=f"🛑 Task Cancelled ({task.id})" if cancelled else f"❌ Task Failed ({task.id})",
        tone=Tone.WARNING if cancelled else Tone.FAILURE,
        fields=tuple(fields),
        actions=(Action(label="Retry", command=f"retry {task.id}"),),
        agent=task.id,
    )


def task_so_far(task: Task) -> tuple[FieldLine, ...]:
    """What a question about a task shows of it."""
    return (
        _line("Task", f'"{task.title}"'),
        _line("Used so far", used(task)),
    )


def question(task: Task, approval: Approval, why: str) -> NormalizedResponse:
    """A budget, a limit or a silence: the work is kept, the slot given back, the people asked."""
    return NormalizedResponse(
        title=f"⏳ {task.id} asks: {why}",
        tone=Tone.WARNING,
        text=approval.action_summary,
        fields=(
            *task_so_far(task),
            _line("Answer by", approval.expires_at.strftime("%Y-%m-%d %H:%M UTC")),
        ),
        actions=(
            Action(label="Go on", command=f"approve {approval.token}", style="primary"),
            Action(label="Stop", command=f"reject {approval.token}", style="danger"),
        ),
        agent=task.id,
    )


_STANDING = {
    ApprovalState.PENDING: ("🛡️ Approval needed", Tone.WARNING),
    ApprovalState.APPROVED: ("✅ Approved", Tone.SUCCESS),
    ApprovalState.EXECUTED: ("✅ Approved and carried out", Tone.SUCCESS),
    ApprovalState.REJECTED: ("❌ Rejected", Tone.FAILURE),
    ApprovalState.EXPIRED: ("⏳ Expired", Tone.WARNING),
    ApprovalState.VOID: ("❌ Void: what it showed has changed, or it may not be done any more", Tone.WARNING),
}


def approval_request(
    approval: Approval, requester: str, names: Mapping[str, str], why: str = ""
) -> NormalizedResponse:
    """A request for approval and how it stands: the same card in every place, edited as votes come in."""
    title, tone = _STANDING[approval.state]
    voted = ", ".join(
        f"{names.get(vote.person, vote.person)} via {vote.channel.capitalize()}"
        for vote in approval.votes
        if vote.verdict is Verdict.APPROVE
    )
    have = f"{len(approval.approvers)}/{approval.quorum}" + (f" — {voted}" if voted else "")
    fields = [_line("What", approval.action_summary), *approval.shown, _line("Asked by", requester)]
    if why:
        fields.append(_line("Why", why))
    fields.append(_line("Approvals", have))
    fields += [
        _line(
            "Rejected by",
            f"{names.get(vote.person, vote.person)} via {vote.channel.capitalize()}"
            + (f": {vote.reason}" if vote.reason else ""),
        )
        for vote in approval.votes
        if vote.verdict is Verdict.REJECT
    ]
    waits = approval.state is ApprovalState.PENDING
    if waits:
        fields.append(_line("Answer by", approval.expires_at.strftime("%Y-%m-%d %H:%M UTC")))
    return NormalizedResponse(
        title=f"{title} ({approval.token})",
        tone=tone,
        fields=tuple(fields),
        actions=(
            Action(label="Approve", command=f"approve {approval.token}", style="primary"),
            Action(label="Reject", command=f"reject {approval.token}", style="danger", asks="Why?"),
        )
        if waits
        else (),
        agent=f"agent-{approval.project}" if approval.project else None,
    )


def conflict(number: int, other: int, paths: Sequence[str]) -> NormalizedResponse:
    shown = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
    return NormalizedResponse(
        title=f"⚠️ PR #{number} and PR #{other} conflict",
        tone=Tone.WARNING,
        fields=(
            _line("Files", shown),
            _line(
                "Next", "merge one, then `retry` the other's task on the newest commit, or resolve by hand"
            ),
        ),
    )


def queue_overview(tasks: Sequence[Task], limit: int) -> NormalizedResponse:
    held = running(tasks)
    lines = [
        _line(f"Slot {place}", f'{task.id} ({task.phase or "starting"}): "{task.title}"')
        for place, task in enumerate(held, 1)
    ]
    lines += [
        _line(f"Position {position(tasks, task.id)}", f'{task.id}: "{task.title}"') for task in queue(tasks)
    ]
    lines += [
        _line("Waiting for an answer", f'{task.id}: "{task.title}"')
        for task in tasks
        if task.status is TaskStatus.WAITING
    ]
    return NormalizedResponse(
        title=f"📋 Active tasks: {len(held)}/{limit}",
        text="" if lines else "Nothing runs and nothing waits. `instruct <task>` starts one.",
        fields=tuple(lines),
    )


def refused(title: str, why: str, next_step: str = "") -> NormalizedResponse:
    return NormalizedResponse(
        title=f"❌ {title}",
        tone=Tone.FAILURE,
        text=why,
        fields=(_line("Next", next_step),) if next_step else (),
    )
