"""What a task's pull request says beside the agent's own words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from codespar.agents.delivery import closes
from codespar.domain.tasks import Task, TaskKind, TaskStatus, Thread


def task(instruction: str, kind: TaskKind = TaskKind.FIX) -> Task:
    return Task(
        id="task-abc123",
        project="shop",
        ticket=1,
        kind=kind,
        instruction=instruction,
        requester="Ada",
        thread=Thread(channel="cli", conversation="shop"),
        status=TaskStatus.RUNNING,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "instruction", ["#12", "issue #12", " Issue #12: the cart is wrong", "#12 and its tests"]
)
def test_a_fix_that_begins_with_an_issues_number_closes_it(instruction: str) -> None:
    assert closes(task(instruction)) == ["", "Closes #12"]


@pytest.mark.parametrize("instruction", ["the cart, see #12", "#12b", "#", "12"])
def test_an_issue_that_is_only_mentioned_stays_open(instruction: str) -> None:
    assert closes(task(instruction)) == []


def test_an_instruction_that_is_no_fix_closes_nothing() -> None:
    assert closes(task("#12", TaskKind.INSTRUCT)) == []
