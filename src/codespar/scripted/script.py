"""What a scripted model says: turns of text and tool calls, and the ways an answer can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

WORK = "/tmp/work"  # where a task's work tree is, in its container


@dataclass(frozen=True)
class Call:
    """A tool call of the coding CLI."""

    tool: str
    arguments: dict[str, Any]


class FaultKind(StrEnum):
    STATUS = "status"  # an HTTP error with the vendor's error body
    CUT = "cut"  # the connection breaks in the middle of the answer
    MALFORMED = "malformed"  # a stream that is none of the vendor's
    ENDLESS = "endless"  # an answer that does not end
    SILENCE = "silence"  # no answer at all


@dataclass(frozen=True)
class Fault:
    """How a turn goes wrong, the first `times` that it is asked for."""

    kind: FaultKind
    status: int = 500
    times: int = 1_000_000


@dataclass(frozen=True)
class Turn:
    """One answer: some text, then tool calls. Only the last one of a script has none."""

    text: str
    calls: tuple[Call, ...] = ()
    fault: Fault | None = None
    input_tokens: int = 1500
    seconds: float | None = None  # how long the answer takes; None: the server's pace


@dataclass(frozen=True)
class Script:
    """The answers to one instruction, in order. After the last one it is repeated."""

    turns: tuple[Turn, ...]

    def turn(self, place: int) -> Turn:
        return self.turns[min(place, len(self.turns) - 1)]


Choose = Callable[[str], Script]
"""From the text of a conversation's first message to its script."""


@dataclass(frozen=True)
class Library:
    """Scripts by a phrase of the instruction; the first one that occurs counts."""

    scripts: dict[str, Script]
    otherwise: Script = field(
        default=Script((Turn("I have no script for this instruction, so I change nothing."),))
    )

    def __call__(self, instruction: str) -> Script:
        return next(
            (script for phrase, script in self.scripts.items() if phrase in instruction), self.otherwise
        )


def write(path: str, content: str) -> Call:
    """Write a new file of the work tree."""
    return Call("Write", {"file_path": f"{WORK}/{path}", "content": content})


def read(path: str) -> Call:
    return Call("Read", {"file_path": f"{WORK}/{path}"})


def edit(path: str, old: str, new: str) -> Call:
    """Replace text of a file that was read before."""
    return Call("Edit", {"file_path": f"{WORK}/{path}", "old_string": old, "new_string": new})


def pause(seconds: float) -> Call:
    """A command that takes its time. (The coding CLI refuses a long `sleep` of its own accord.)"""
    return bash(f"python3 -c 'import time; time.sleep({seconds})'", "wait")


def bash(command: str, why: str = "") -> Call:
    return Call("Bash", {"command": f"cd {WORK} && {command}", "description": why or command[:60]})
