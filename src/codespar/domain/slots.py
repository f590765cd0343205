"""Task slots: who runs, who waits, and in which order. Pure.

A project runs at most `limit` tasks. Waiting tasks start by arrival, but one that goes on after an answer comes before them.
"""

from __future__ import annotations

from collections.abc import Iterable

from codespar.domain.tasks import Task, TaskStatus


def running(tasks: Iterable[Task]) -> list[Task]:
    """The tasks that hold a slot."""
    return [task for task in tasks if task.status is TaskStatus.RUNNING]


def queue(tasks: Iterable[Task]) -> list[Task]:
    """The tasks that wait for a slot, next first."""
    waiting = (task for task in tasks if task.status is TaskStatus.QUEUED)
    return sorted(waiting, key=lambda task: (not task.resumes, task.ticket))


def position(tasks: Iterable[Task], task_id: str) -> int | None:
    """The place in the queue, from 1, or None for a task that does not wait."""
    for place, task in enumerate(queue(tasks), start=1):
        if task.id == task_id:
            return place
    return None


def startable(tasks: Iterable[Task], limit: int) -> list[Task]:
    """The waiting tasks that fit into the free slots now, in starting order."""
    known = list(tasks)
    free = max(0, limit - len(running(known)))
    return queue(known)[:free]
