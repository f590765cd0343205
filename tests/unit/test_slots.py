"""Task slots: never more than the limit, by arrival, and whoever goes on after an answer first."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from codespar.domain.slots import position, queue, running, startable
from codespar.domain.tasks import Task, TaskKind, TaskStatus, Thread

WITHIN_REASON = settings(max_examples=50, deadline=None)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Q, R, W = TaskStatus.QUEUED, TaskStatus.RUNNING, TaskStatus.WAITING


def task(ticket: int, status: TaskStatus = Q, *, resumes: bool = False) -> Task:
    return Task(
        id=f"task-{ticket:06}",
        project="shop",
        ticket=ticket,
        kind=TaskKind.INSTRUCT,
        instruction="do it",
        requester="ada",
        thread=Thread(channel="cli", conversation="shop"),
        status=status,
        resumes=resumes,
        created_at=NOW,
    )


def tickets(tasks: list[Task]) -> list[int]:
    return [each.ticket for each in tasks]


def test_the_fourth_task_waits_in_position_one() -> None:
    tasks = [task(1, R), task(2, R), task(3, R), task(4)]
    assert startable(tasks, 3) == []
    assert position(tasks, "task-000004") == 1


def test_waiting_tasks_start_by_arrival_whatever_order_they_are_listed_in() -> None:
    assert tickets(startable([task(9), task(5), task(7)], 2)) == [5, 7]


def test_who_goes_on_after_an_answer_comes_before_all_who_arrived_earlier() -> None:
    tasks = [task(1), task(2), task(8, resumes=True), task(6, resumes=True)]
    assert tickets(queue(tasks)) == [6, 8, 1, 2]


def test_who_goes_on_still_needs_a_free_slot() -> None:
    assert startable([task(1, R), task(2, resumes=True)], 1) == []


def test_a_task_that_waits_for_an_answer_holds_no_slot() -> None:
    assert tickets(startable([task(1, W), task(2)], 1)) == [2]


def test_a_lowered_limit_stops_nobody_and_starts_nobody() -> None:
    tasks = [task(1, R), task(2, R), task(3, R), task(4)]
    assert startable(tasks, 1) == [] and len(running(tasks)) == 3


@pytest.mark.parametrize("status", [status for status in TaskStatus if status is not Q])
def test_only_a_queued_task_has_a_position(status: TaskStatus) -> None:
    assert position([task(1, status), task(2)], "task-000001") is None


def test_an_unknown_task_has_no_position() -> None:
    assert position([task(1)], "task-zzzzzz") is None


MANY = st.lists(
    st.builds(task, st.integers(1, 10_000), st.sampled_from(TaskStatus), resumes=st.booleans()),
    max_size=15,
    unique_by=lambda each: each.ticket,
)


@WITHIN_REASON
@given(tasks=MANY, limit=st.integers(1, 5))
def test_what_may_start_fills_the_free_slots_and_no_more(tasks: list[Task], limit: int) -> None:
    started = startable(iter(tasks), limit)
    free = max(0, limit - len(running(tasks)))
    assert len(started) == min(free, len(queue(tasks)))
    assert started == queue(tasks)[: len(started)]
    assert all(each.status is Q for each in started)


@WITHIN_REASON
@given(tasks=MANY, again=st.randoms(use_true_random=False))
def test_positions_are_one_to_n_in_queue_order_whatever_the_listing(tasks: list[Task], again: object) -> None:
    shuffled = list(tasks)
    again.shuffle(shuffled)  # pyright: ignore[reportAttributeAccessIssue]
    waiting = queue(tasks)
    assert queue(shuffled) == waiting
    assert [position(shuffled, each.id) for each in waiting] == list(range(1, len(waiting) + 1))


@WITHIN_REASON
@given(tasks=MANY)
def test_no_queued_task_stands_before_one_that_has_more_right(tasks: list[Task]) -> None:
    waiting = queue(tasks)
    for earlier, later in pairwise(waiting):
        assert (earlier.resumes, -earlier.ticket) > (later.resumes, -later.ticket)


class Slots(RuleBasedStateMachine):
    """A project's life: tasks arrive, ask, are answered and end, and after each the free slots are filled."""

    ids = Bundle("ids")

    @initialize(limit=st.integers(1, 4))
    def begin(self, limit: int) -> None:
        self.limit = limit
        self.tasks: dict[str, Task] = {}
        self.tickets = 0
        self.first_starts: list[int] = []

    def fill(self) -> None:
        for each in startable(self.tasks.values(), self.limit):
            if not each.resumes:
                self.first_starts.append(each.ticket)
            self.tasks[each.id] = each.evolve(status=R, resumes=False)

    def move(self, id: str, before: TaskStatus, after: TaskStatus, *, resumes: bool = False) -> None:
        if self.tasks[id].status is before:
            self.tasks[id] = self.tasks[id].evolve(status=after, resumes=resumes)
            self.fill()

    @rule(target=ids, count=st.integers(1, 3))
    def arrive(self, count: int) -> object:
        new: list[str] = []
        for _ in range(count):
            self.tickets += 1
            one = task(self.tickets)
            self.tasks[one.id] = one
            new.append(one.id)
            self.fill()
        return multiple(*new)

    @rule(id=ids)
    def ask(self, id: str) -> None:
        self.move(id, R, W)

    @rule(id=ids)
    def answered(self, id: str) -> None:
        self.move(id, W, Q, resumes=True)

    @rule(id=ids)
    def end(self, id: str) -> None:
        self.move(id, R, TaskStatus.COMPLETED)

    @rule(id=ids)
    def cancel_in_queue(self, id: str) -> None:
        self.move(id, Q, TaskStatus.CANCELLED)

    @invariant()
    def never_more_than_the_limit_runs(self) -> None:
        assert len(running(self.tasks.values())) <= self.limit

    @invariant()
    def no_slot_is_free_while_somebody_waits(self) -> None:
        if queue(self.tasks.values()):
            assert len(running(self.tasks.values())) == self.limit

    @invariant()
    def first_starts_are_in_order_of_arrival(self) -> None:
        assert self.first_starts == sorted(self.first_starts)


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestSlots.__doc__ = "Whatever happens in a project, its slots are kept."
