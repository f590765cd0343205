"""What a Task Agent works with, and the answers its steps give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from codespar.codeindex.base import CodeIndex
from codespar.domain.base import CodesparError
from codespar.domain.tasks import Limits, Task
from codespar.forges.base import Forge
from codespar.sandbox.base import ModelGateway, Sandbox
from codespar.screening.base import Screening
from codespar.store.base import Store


@dataclass(frozen=True)
class Workshop:
    """One project's tools, as the composition root plugs them together."""

    name: str
    repository: str
    model: str
    max_tasks: int
    limits: Limits
    cap: Limits  # what the organization allows at most
    answer_seconds: float  # how long a question to people waits for its answer
    blocked_paths: tuple[str, ...]
    forge: Forge
    index: CodeIndex


@dataclass(frozen=True)
class Tools:
    """What every Task Agent works with."""

    store: Store
    sandbox: Sandbox
    gateway: ModelGateway
    screening: Screening
    workshop: Callable[[str], Workshop]
    clock: Callable[[], datetime]
    folder: Path  # tasks/ of the data folder
    attachment: Callable[[str], Path]  # where the content of that SHA-256 is kept

    async def task(self, id: str) -> Task:
        """The task as the store knows it. Raises `CodesparError` when it does not."""
        task = await self.store.read(lambda unit: unit.task(id))
        if task is None:
            raise CodesparError(f"there is no task {id} in the store")
        return task

    def folder_of(self, task: str, attempt: int) -> Path:
        """Where an attempt's container has its input and leaves its output."""
        return self.folder / task / str(attempt)


Answer = dict[str, Any]


def failure(summary: str, *, last_line: str = "", next_step: str = "", patch: str | None = None) -> Answer:
    """What a step answers with when the task ends here."""
    return {"failure": {"summary": summary, "lastLine": last_line, "nextStep": next_step, "patch": patch}}


def cancelled(task: Task, patch: str | None = None) -> Answer:
    """The failure of a task that somebody cancelled."""
    answer = failure(f"cancelled by {task.cancel_requested_by}", patch=patch)
    answer["failure"]["cancelled"] = True
    return answer
