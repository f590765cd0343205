"""`codespar build report`: tells the server how a build stands, with as much of its log as a request may hold."""

from __future__ import annotations

import json
import re
import sys
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from codespar.channels.cli import one_line
from codespar.cli.client import Client, Json, Server
from codespar.cli.talk import write, write_json
from codespar.domain.base import CodesparError, short_id
from codespar.domain.buildlog import Excerpt
from codespar.domain.builds import Conclusion

CONCLUSIONS = tuple(one.value for one in Conclusion)
HEAD, TAIL = 20 * 1024, 150 * 1024  # bytes of a longer log that are sent
ROOM = 220 * 1024  # bytes of it as JSON: a request may have 256 KiB
_PIECE = 64 * 1024


@dataclass(frozen=True)
class Report:
    """What is said of a run and of one of its jobs."""

    workflow: str
    commit: str
    branch: str
    conclusion: str | None
    job: str
    step: str
    run: str | None
    attempt: int
    url: str

    def body(self, log: str | None, at: datetime) -> Json:
        """The run as the API takes it, which began and changed `at` that time."""
        made = short_id("run", f"{self.workflow}\0{self.commit}\0{self.branch}\0{at.isoformat()}")
        steps = [{"number": 1, "name": self.step, "conclusion": self.conclusion}] if self.step else []
        job = {
            "id": re.sub(r"[^A-Za-z0-9_-]", "-", self.job).lstrip("-_")[:100] or "job",
            "name": self.job,
            "conclusion": self.conclusion,
            "steps": steps,
            "url": self.url,
        }
        return {
            "id": self.run or made,
            "attempt": self.attempt,
            "workflow": self.workflow,
            "branch": self.branch,
            "commit": self.commit,
            "url": self.url,
            "conclusion": self.conclusion,
            "startedAt": at.isoformat(),
            "updatedAt": at.isoformat(),
            "jobs": [job | ({} if log is None else {"log": log})],
        }


async def report_build(
    server: Server, project: str, report: Report, log: str | None, *, as_json: bool
) -> None:
    """Send the report and say what became of it. Raises `CodesparError`."""
    text = _log(log, report.step) if log is not None else None
    async with Client(server) as client:
        answer = await client.report_run(project, report.body(text, datetime.now(UTC)))
    if as_json:
        write_json(answer)
        return
    run = answer["run"]
    state = run.get("conclusion") or "under way"
    known = "" if answer["new"] else "; something newer was known of it already"
    write(f"{one_line(str(run['workflow']))} at {run['commit'][:12]}: {state} (run {run['id']}){known}")


def _log(path: str, step: str) -> str:
    if path == "-":
        return shortened(sys.stdin.buffer, step)
    try:
        with Path(path).open("rb") as file:
            return shortened(file, step)
    except OSError as error:
        raise CodesparError(
            f"the log {path} cannot be read: {error.strerror}. Name a file with --log, or `-`."
        ) from error


def shortened(file: BinaryIO, step: str = "") -> str:
    """A log that fits into a request: whole, or its head, the first error in it, and its tail. A log of any size needs little memory."""
    head, size, excerpt = b"", 0, Excerpt(step)
    tail, held = deque[bytes](), 0
    while piece := file.read(_PIECE):
        size += len(piece)
        excerpt.feed(piece)
        if len(head) < HEAD + TAIL:
            head += piece
        tail.append(piece)
        held += len(piece)
        while held - len(tail[0]) >= TAIL:
            held -= len(tail.popleft())
    if size <= HEAD + TAIL and _fits(text := head.decode("utf-8", "replace")):
        return text
    last = b"".join(tail)
    first_error = "\n".join(excerpt.lines())
    share = 1.0
    while True:
        start = head[: int(HEAD * share)].rpartition(b"\n")[0]
        end = last[-max(1, int(TAIL * share)) :].partition(b"\n")[2]
        told = f"[{size - len(start) - len(end):,} bytes of {size:,} were left out here; the first error in all of them:]"
        text = "\n".join(
            (
                start.decode("utf-8", "replace"),
                told,
                first_error,
                "[and its end:]",
                end.decode("utf-8", "replace"),
            )
        )
        if _fits(text):
            return text
        share *= 0.8


def _fits(text: str) -> bool:
    return len(json.dumps(text)) <= ROOM
