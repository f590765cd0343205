"""Coding tasks: what a Task Agent is given, what it brings back, and what is known of it in between."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, JsonValue

from codespar.domain.base import Value
from codespar.domain.issues import QuotedIssue, alone
from codespar.domain.messages import Attachment, UtcDatetime

MICROS = 1_000_000  # micro-dollars in a dollar


def money(micros: int) -> str:
    """Micro-dollars as people read them."""
    return f"${micros / MICROS:.2f}" if micros >= 10_000 or micros == 0 else f"${micros / MICROS:.4f}"


def counted(number: int, what: str) -> str:
    """A number of things as people say it: `1 turn`, `2 turns`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


class TaskKind(StrEnum):
    INSTRUCT = "instruct"
    FIX = "fix"
    PLAN_STEP = "plan_step"
    INCIDENT_FIX = "incident_fix"


class TaskStatus(StrEnum):
    QUEUED = "queued"  # waits for a slot
    RUNNING = "running"  # holds a slot
    WAITING = "waiting"  # asked its people something; holds no slot
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED)


class Limits(Value):
    """What one task may use. The defaults are the ones of the product page."""

    cost_micros: int = Field(default=5 * MICROS, ge=0)
    turns: int = Field(default=100, ge=1)  # model turns
    wall_seconds: float = Field(default=3600, gt=0)
    stall_seconds: float = Field(default=300, gt=0)  # no output for that long counts as stalled
    memory_bytes: int = Field(default=2 * 1024**3, ge=64 * 1024**2)
    cpus: float = Field(default=2, gt=0)
    tmp_bytes: int = Field(default=512 * 1024**2, ge=16 * 1024**2)
    pids: int = Field(default=512, ge=16)
    output_bytes: int = Field(default=64 * 1024**2, ge=1024)  # all that may come out
    output_files: int = Field(default=2000, ge=1)  # files a change may touch


class Environment(Value):
    """Where the work happens: an image reference and variables. Never a secret."""

    image: str
    variables: dict[str, str] = {}


class TaskContext(Value):
    """What helps the agent begin: data, not orders."""

    repository_map: str = ""  # the files and symbols that matter most for the instruction
    earlier_steps: tuple[str, ...] = ()
    failing_log: str = ""
    issue: str = ""  # what others wrote at the code host about what is to be mended
    conventions: tuple[str, ...] = ()  # what the team told its agent to keep in mind
    attachments: tuple[
        Attachment, ...
    ] = ()  # files that came with the instruction, in `attachments/` of the input
    earlier_patch: bool = False  # the work tree starts with this task's own earlier changes


class AnalysisProgram(Value):
    """A program that looks at a work tree and writes SARIF, as `docs/runner-protocol.md` says."""

    name: str
    command: str  # run by `sh -c` in the root of the work tree
    seconds: float = Field(gt=0)  # after which it is ended
    languages: tuple[
        str, ...
    ] = ()  # file name endings: skipped in a tree with no changed file of one; () always runs


class Analysis(Value):
    """What the job `analyse` does: each program on the base, then each on the base with the patch."""

    programs: tuple[AnalysisProgram, ...]
    changed: tuple[str, ...]  # paths from the root of the work tree
    at_once: int = Field(
        default=1, ge=1
    )  # above 1 for programs that leave the work tree as it is; else one has it for itself


class TaskSpec(Value):
    """The order a Task Agent works from: `task.json`. Its JSON Schema is published as `docs/task-spec.schema.json`."""

    version: Literal[1] = 1
    id: str  # task-abc123
    project: str
    repository: str  # as people know it: a path or URL without credentials
    base_branch: str
    base_commit: str  # 40 or 64 hex digits
    instruction: str
    kind: TaskKind = TaskKind.INSTRUCT
    requester: str  # the person's name, for the commit trailer
    context: TaskContext = TaskContext()
    allowed_tools: tuple[str, ...] = (
        "Bash",
        "Edit",
        "Glob",
        "Grep",
        "MultiEdit",
        "Read",
        "TodoWrite",
        "Write",
    )
    blocked_paths: tuple[str, ...] = ()  # gitignore-style patterns that a change may not touch
    blocked_commands: tuple[str, ...] = ()  # command prefixes the agent is told and configured not to run
    environment: Environment
    test_command: str | None = None  # run by `sh -c` in the root of the work tree
    limits: Limits = Limits()
    model: str
    analysis: Analysis | None = None  # for the job `analyse` alone


class TestRun(Value):
    """What the project's own test command showed in the second, clean container."""

    __test__ = False  # not a test class, whatever its name

    command: str
    exit_code: int
    seconds: float
    output_tail: str = ""

    @property
    def passed(self) -> bool:
        return self.exit_code == 0


class TaskResult(Value):
    """How a task ended."""

    status: TaskStatus
    summary: str = ""  # what happened, in the agent's words or ours
    last_line: str = ""  # the last useful line of output of a failure
    next_step: str = ""  # what a person can do about it
    branch: str | None = None
    commit: str | None = None
    pr_number: int | None = None
    pr_title: str | None = None
    files_changed: int = 0
    additions: int = 0
    deletions: int = 0
    tests: TestRun | None = None
    cost_micros: int = 0
    tokens: int = 0
    turns: int = 0
    isolation: dict[str, JsonValue] = {}  # as inspected on the live container
    patch: str | None = None  # file name under the task's folder of work that was kept


class Thread(Value):
    """Where a request came from and its answers go."""

    channel: str
    conversation: str  # the platform's channel, chat or room
    thread_id: str | None = None
    person: str | None = None  # id of the person who asked

    @property
    def key(self) -> str:
        return f"{self.channel}/{self.conversation}/{self.thread_id or ''}"

    @classmethod
    def of(cls, key: str) -> Thread:
        """The thread that a key names. A conversation may have slashes in it, a channel and a thread's id never."""
        channel, _, rest = key.partition("/")
        conversation, _, thread_id = rest.rpartition("/")
        return cls(channel=channel, conversation=conversation, thread_id=thread_id or None)


class Task(Value):
    """A task as the store knows it."""

    id: str
    project: str
    ticket: int  # order of arrival in the installation; smaller first
    kind: TaskKind
    instruction: str
    requester: str
    thread: Thread
    status: TaskStatus
    attachments: tuple[Attachment, ...] = ()  # what came with the instruction
    failing_log: str = ""  # what a build said that it is to mend
    issue: QuotedIssue | None = None  # what it is to mend, in the words of whoever wrote it at the code host
    killed: bool = False  # stop at once: no time to end by itself
    resumes: bool = False  # goes on after an answer: ahead of everything queued
    queued_position: int | None = None  # the position it was told when it was queued
    attempt: int = 1
    cancel_requested_by: str | None = None
    phase: str = ""  # what it is doing now, for people
    phase_at: UtcDatetime | None = None
    limits: Limits = Limits()
    spec: dict[str, Any] | None = None
    result: TaskResult | None = None
    cost_micros: int = 0
    tokens: int = 0
    turns: int = 0
    isolation: dict[str, JsonValue] = {}
    created_at: UtcDatetime
    started_at: UtcDatetime | None = None
    ended_at: UtcDatetime | None = None

    @property
    def title(self) -> str:
        """By which people know it: the instruction, or what the issue is called where the instruction only names one. One line then."""
        if self.issue is None or not alone(self.instruction):
            return self.instruction
        return f"Fix #{self.issue.number}: {self.issue.title}".rstrip(": ")


def task_spec_schema() -> dict[str, Any]:
    """The published JSON Schema of `task.json`."""
    return TaskSpec.model_json_schema(by_alias=True)
