"""What people read: every card of a task, as `docs/messages.md` shows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codespar.agents import cards
from codespar.channels.cli import render
from codespar.domain.approvals import ApprovalKind, ApprovalState, Verdict, Vote, new_approval
from codespar.domain.messages import FieldLine, NormalizedResponse
from codespar.domain.people import Permission
from codespar.domain.tasks import Task, TaskKind, TaskResult, TaskStatus, TestRun, Thread

PAGE = Path(__file__).resolve().parents[2] / "docs" / "messages.md"
AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
THREAD = Thread(channel="cli", conversation="shop", thread_id="ada", person="ada")


def task(id: str, instruction: str) -> Task:
    return Task(
        id=id,
        project="shop",
        ticket=1,
        kind=TaskKind.INSTRUCT,
        instruction=instruction,
        requester="Ada",
        thread=THREAD,
        status=TaskStatus.RUNNING,
        phase="editing shop/auth.py",
        cost_micros=412_000,
        tokens=118_200,
        turns=14,
        created_at=AT,
        started_at=AT,
    )


LIMITING = task("task-abc123", "add rate limiting to the users endpoint")
PAGING = task("task-jkl012", "add pagination to the products list")
RUN = TestRun(command="pytest -q", exit_code=0, seconds=12.4)
DONE = TaskResult(
    status=TaskStatus.COMPLETED,
    pr_number=51,
    pr_title="feat: add rate limiting to the users endpoint",
    files_changed=3,
    additions=89,
    cost_micros=412_000,
    tokens=118_200,
    turns=14,
    tests=RUN,
)
FAILED = TaskResult(
    status=TaskStatus.FAILED,
    summary="the container ran out of memory (limit 2048 MiB)",
    last_line="Running the integration tests.",
    next_step="raise `limits.memory` for the project, or split the task",
    patch="/srv/codespar/tasks/task-abc123/1/out/changes.patch",
    cost_micros=412_000,
)
CANCELLED = TaskResult(status=TaskStatus.CANCELLED, summary="cancelled by Ada", cost_micros=412_000)
QUESTION = new_approval(
    kind=ApprovalKind.BUDGET,
    seed="task-abc123:1",
    project="shop",
    subject="task-abc123",
    action_summary="Go on with task-abc123 with the same limits once more? The work so far is kept either way.",
    shown_digest="task-abc123:1",
    requester="ada",
    permission=Permission.INSTRUCT_AGENT,
    thread=THREAD,
    now=AT,
    expires_in=timedelta(hours=1),
)
VOTES = (
    Vote(person="marcus", verdict=Verdict.APPROVE, channel="discord", at=AT),
    Vote(person="rex", verdict=Verdict.REJECT, channel="whatsapp", reason="not on a Friday", at=AT),
)
MERGE = new_approval(
    kind=ApprovalKind.MERGE,
    seed="slack:T024BE7LD:C012AB3CD:1",
    project="shop",
    subject="merge",
    action_summary="`merge PR #51` in shop",
    shown_digest="",
    requester="ada",
    permission=Permission.APPROVE_PR,
    thread=THREAD,
    now=AT,
    quorum=2,
    shown=(
        FieldLine(name="PR", value="#51 feat: add rate limiting to the users endpoint"),
        FieldLine(name="Commit", value="4f1c2a9be01d"),
        FieldLine(name="Changes", value="3 files, +89 / -0"),
    ),
)
NAMES = {"marcus": "Marcus", "rex": "Rex"}
CARDS: dict[str, NormalizedResponse] = {
    "started": cards.started(LIMITING, 1, 3),
    "queued": cards.queued(PAGING, 1, 3, 3),
    "dequeued": cards.dequeued(PAGING, 1, 3, 3),
    "dequeued, in the project's channel": cards.dequeued_notice(PAGING, 1, 0),
    "progress": cards.progress(LIMITING, AT + timedelta(seconds=95)),
    "completed": cards.completed(LIMITING, DONE),
    "failed": cards.ended_badly(LIMITING, FAILED),
    "cancelled": cards.ended_badly(LIMITING, CANCELLED),
    "question": cards.question(LIMITING, QUESTION, "the budget of $5.00 is spent"),
    "goes on": cards.goes_on(LIMITING, 2, 3),
    "approval asked": cards.approval_request(
        MERGE, "Ada", NAMES, "rule:two-for-merge asks for 2 approvals before merge."
    ),
    "approval half given": cards.approval_request(MERGE.evolve(votes=VOTES[:1]), "Ada", NAMES),
    "approval rejected": cards.approval_request(
        MERGE.evolve(votes=VOTES, state=ApprovalState.REJECTED), "Ada", NAMES
    ),
    "ended": cards.progress(
        LIMITING.evolve(status=TaskStatus.COMPLETED, phase="completed"), AT + timedelta(seconds=312)
    ),
    "conflict": cards.conflict(51, 50, ["shop/auth.py", "shop/limits.py"]),
}


@pytest.mark.parametrize("name", CARDS)
def test_the_page_shows_the_card_as_it_is(name: str) -> None:
    shown = f"```text\n{render(CARDS[name], plain=True)}\n```"
    assert shown in PAGE.read_text(encoding="utf-8"), (
        f"docs/messages.md does not show {name} as it is:\n{shown}"
    )
