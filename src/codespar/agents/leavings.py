"""What a task's container writes: its events as they come, its result, its patch.

It is data of unknown origin: sizes are capped, links are not followed, and nothing of it is executed.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from codespar.domain.base import Value
from codespar.sandbox.base import OutputRefused

_RESULT_BYTES = 4 * 1024**2
_PHASES = {
    "started": "starting",
    "cloned": "the work tree is ready",
    "model_started": "thinking",
    "testing": "running the tests",
    "finishing": "collecting the change",
    "working; the transcript is full": "working",
}


def plain(text: str) -> str:
    """Without control characters, and without what JSON may hold but no text can."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text).encode(errors="replace").decode()


Words = Annotated[str, BeforeValidator(plain)]


class RunnerResult(Value):
    """`result.json` of the runner protocol, as far as we use it."""

    model_config = Value.model_config | {"extra": "ignore"}

    outcome: str = "error"
    summary: str = ""
    error: str = ""
    filesystem_full: bool = False
    test_exit_code: int | None = None
    seconds: float = 0
    output_tail: str = ""


class Events:
    """Tails `events.ndjson`: what the coding CLI does, as a phase for people."""

    def __init__(self, path: Path, cap: int) -> None:
        self._path = path
        self._cap = cap
        self._offset = 0
        self._rest = b""
        self.phase = "starting"
        self.last_line = ""
        self.summary = ""

    def read(self) -> bool:
        """Take in what is new. True when there was something."""
        if self._offset >= self._cap:
            return False
        new = _read_from(self._path, self._offset, 1024**2)
        if not new:
            return False
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue  # a line cut by a kill, or noise: the transcript keeps it, the phase does not need it
            if isinstance(event, dict):
                self._take(event)
        self.phase, self.last_line = plain(self.phase), plain(self.last_line)
        return True

    def read_all(self) -> None:
        while self.read():
            continue

    def _take(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "runner":
                self.phase = _PHASES.get(str(event.get("phase")), self.phase)
            case "system" if event.get("subtype") == "api_retry":
                self.phase = f"waiting for the model: {_retry(event)}"
            case "assistant":
                for part in _parts(event):
                    if part.get("type") == "tool_use":
                        self.phase = _doing(part)
                    elif part.get("type") == "text" and str(part.get("text", "")).strip():
                        self.last_line = str(part["text"]).strip().splitlines()[-1][:500]
            case "result":
                self.summary = str(event.get("result") or "")[:8000]
                self.last_line = (self.summary.strip().splitlines() or [self.last_line])[-1][:500]
            case _:
                return


def _retry(event: dict[str, Any]) -> str:
    status, attempt, most = event.get("error_status"), event.get("attempt"), event.get("max_retries")
    return f"it answered {status or 'nothing'}, try {attempt} of {most}"[:80]


def _parts(event: dict[str, Any]) -> list[dict[str, Any]]:
    message = event.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _doing(part: dict[str, Any]) -> str:
    given = part.get("input")
    arguments: dict[str, Any] = given if isinstance(given, dict) else {}
    target = str(arguments.get("file_path") or arguments.get("path") or arguments.get("pattern") or "")
    shown = target.removeprefix("/tmp/work/")[:60]
    match part.get("name"):
        case "Write":
            return f"writing {shown}"
        case "Edit" | "MultiEdit":
            return f"editing {shown}"
        case "Read":
            return f"reading {shown}"
        case "Grep" | "Glob":
            return f"searching {shown}"
        case "Bash":
            return f"running {str(arguments.get('command', ''))[:60]}"
        case name:
            return f"using {str(name)[:40]}"


def _read_from(path: Path, offset: int, limit: int) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise OutputRefused(
            f"{path.name} is a link or cannot be opened: nothing of this container's output is used"
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OutputRefused(
                f"{path.name} is not a regular file: nothing of this container's output is used"
            )
        return os.pread(handle, limit, offset)
    except OSError as error:
        raise OutputRefused(f"{path.name} cannot be read: {error}") from error
    finally:
        os.close(handle)


def read_output(path: Path, cap: int) -> bytes:
    """A file the container wrote. Raises `OutputRefused` when it is a link, no regular file, or larger than `cap` bytes."""
    content = _read_from(path, 0, cap + 1)
    if len(content) > cap:
        raise OutputRefused(
            f"{path.name} is larger than the {cap} bytes that may come out of a task (`limits.output`)"
        )
    return content


def read_result(path: Path) -> RunnerResult:
    raw = read_output(path, _RESULT_BYTES)
    if not raw:
        return RunnerResult(error="the runner left no result")
    try:
        return RunnerResult.model_validate_json(raw)
    except ValidationError as error:
        return RunnerResult(error=f"the runner's result is malformed: {error.error_count()} problems")
