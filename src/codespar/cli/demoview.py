"""What a person sees of the demo: the messages of the thread, and in a terminal the slots as they move."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from codespar.channels.cli import WIDEST, one_line, progress_line, render
from codespar.cli.client import Json
from codespar.domain.messages import NormalizedResponse
from codespar.domain.tasks import MICROS, counted, money

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_MARKS = {
    "queued": "⏳",
    "running": "🔧",
    "waiting": "⏳",
    "completed": "✅",
    "failed": "❌",
    "cancelled": "🛑",
}


class View:
    """Writes to standard output; with `quiet` to standard error, plain. `live` keeps a table of the slots at the bottom."""

    def __init__(self, *, live: bool, quiet: bool) -> None:
        self._wants_live = live
        self._stream = sys.stderr if quiet else sys.stdout
        self._live: Live | None = None
        self._told: dict[str, str] = {}

    def line(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
            return
        self._stream.write(text + "\n")
        self._stream.flush()

    def messages(self, sent: list[Json]) -> None:
        """Show messages of the outbox. Edits of a progress card become one line each, or move the table."""
        for message in sent:
            response = NormalizedResponse.model_validate(message["response"])
            if response.progress is None:
                self._show(response)
            elif not self._wants_live:
                phase = response.progress.phase
                if self._told.get(response.agent or "") != phase:
                    self._told[response.agent or ""] = phase
                    self.line(f"  {progress_line(response)}")

    def _show(self, response: NormalizedResponse) -> None:
        if self._live is None:
            self.line(str(render(response, plain=True)) + "\n")
            return
        width = min(self._live.console.width, WIDEST)
        self._live.console.print(render(response, plain=False, width=width))

    def slots(self, tasks: list[Json]) -> None:
        """Where every task stands now."""
        if not self._wants_live:
            return
        from rich.live import Live

        table = slots(tasks)
        if self._live is None:
            self._live = Live(table, refresh_per_second=8, transient=True)
            self._live.start()
        self._live.update(table)

    def close(self) -> None:
        """Take the table away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def summary(self, tasks: list[Json], repository: str) -> None:
        """The pull requests, each with its diff, its test result and its cost."""
        self.line(f"\nPull requests of {repository}:")
        for task in sorted(tasks, key=lambda task: task["prNumber"] or sys.maxsize):
            if task["prNumber"] is None:
                self.line(f"  {_MARKS[task['state']]} {task['id']} {task['state']}")
                continue
            tests = task["tests"]
            ran = (
                "no tests" if tests is None else "tests passed" if tests["exitCode"] == 0 else "tests FAILED"
            )
            cost = money(round(task["costUsd"] * MICROS))
            size = f"{counted(task['filesChanged'], 'file')}, +{task['additions']} / -{task['deletions']}"
            self.line(
                f"  #{task['prNumber']} {one_line(task['prTitle'])} · {size} · {ran} · {cost} · {task['branch']}"
            )


def slots(tasks: list[Json]) -> Table:
    """Where every task stands: a line each, cut where the terminal is narrow."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), show_header=False)
    for fixed in (True, True, False, True, False):
        table.add_column(no_wrap=fixed)
    for task in tasks:
        position = task.get("position")
        doing = f"position {position}" if position else str(task["phase"] or task["status"])
        table.add_row(
            _MARKS[task["status"]],
            Text(task["id"], style="bold"),
            Text(one_line(doing), style="cyan", no_wrap=True, overflow="ellipsis"),
            Text(money(task["costMicros"]), style="dim"),
            Text(one_line(task["instruction"]), style="dim", no_wrap=True, overflow="ellipsis"),
        )
    return table
