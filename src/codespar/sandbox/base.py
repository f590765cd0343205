"""The port to isolation: start one task's container, follow it, stop it, take out what it made.

The in-container protocol is the *codespar runner protocol*, version 1 (see `docs/runner-protocol.md`): the runner reads a
TaskSpec, works, writes `events.ndjson`, `changes.patch` and `result.json` to `/output`, and ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from codespar.domain.base import CodesparError, Value
from codespar.domain.reviews import Finding
from codespar.domain.tasks import Limits, TaskSpec


class SandboxError(CodesparError):
    """The root of what a sandbox can refuse."""


class EngineUnavailable(SandboxError):
    """No container engine answers."""


class ImageMissing(SandboxError):
    """The image is not there and cannot be made."""


class EnvironmentBroken(SandboxError):
    """The repository's own set-up failed while its image was built. The text carries the last lines of output."""


class OutputRefused(SandboxError):
    """What came out breaks a cap or a rule (too big, too many files, a link where a file should be)."""


class Job(StrEnum):
    WORK = "work"  # the coding CLI works on the instruction
    VERIFY = "verify"  # only the test command runs, on base + patch
    ANALYSE = "analyse"  # analysers look at base and at base + patch


class Order(Value):
    """What to run. `name` is the container's name and its idempotency key."""

    name: str  # codespar-task-abc123-1, codespar-task-abc123-1-verify
    job: Job
    spec: TaskSpec
    repository: Path  # bare repository on this host, mounted read-only at /workspace
    folder: Path  # this container's own folder on this host: in/ (task.json, patch, model socket) and out/
    patch: Path | None = None  # base + this patch is where the work starts (verify, or work that goes on)


class Ended(Value):
    """How a container ended."""

    exit_code: int
    out_of_memory: bool = False
    disk_full: bool = False
    stopped_by_us: bool = False
    seconds: float = 0
    log_tail: str = ""


class Container(Protocol):
    """A container that was started or found again."""

    name: str
    adopted: bool  # it already ran when we came

    async def isolation(self) -> dict[str, JsonValue]:
        """What the engine says of the live container: network, memory, cpus, readOnlyRootfs, capDrop, securityOpt, pidsLimit,
        user, tmpfs, mounts, image. Taken from the engine's answer, never from what was asked for."""
        ...

    async def wait(self) -> Ended:
        """Wait until it has ended."""
        ...

    async def stop(self, grace_seconds: float = 10) -> None:
        """SIGTERM, `grace_seconds`, SIGKILL. No error when it has ended already."""
        ...

    async def remove(self) -> None:
        """Remove it and what it left. No error when it is gone."""
        ...


class Sandbox(Protocol):
    async def check(self) -> None:
        """Raise `EngineUnavailable` with what to do when no engine answers."""
        ...

    async def ensure_image(
        self, *, project: str, base_commit: str, setup: EnvironmentSetup, read_file: ReadFile, say: Say
    ) -> str:
        """The image for this environment, built if its inputs are new. Returns the image's id. Raises `ImageMissing`, `EnvironmentBroken`."""
        ...

    async def start(self, order: Order) -> Container:
        """Start the order's container, or adopt the one that runs under its name, or return the one that ended under it."""
        ...

    async def sweep(self, keep: set[str]) -> list[str]:
        """Remove every container of this installation whose name is not in `keep`. Returns the removed names."""
        ...


class EnvironmentSetup(Value):
    """The repository's own set-up, from `.codespar.yaml` at the base commit."""

    image: str | None = None  # a ready image instead of ours
    dockerfile: str | None = None  # a Dockerfile of the repository; its context is that file and `inputs`
    setup: tuple[str, ...] = ()  # shell commands, run at build time as root, with network
    inputs: tuple[
        str, ...
    ] = ()  # files the set-up reads (lock files): part of its cache key, copied in before it runs
    variables: dict[str, str] = {}


ReadFile = Callable[[str, str], Awaitable[bytes | None]]  # (commit, path) -> content
Say = Callable[[str], None]  # a line for the person who waits


class Usage(Value):
    """What one answer of the model used, by the vendor's own count."""

    request: str  # the answer's id: counted once, however often it is reported
    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_micros: int = 0


class ModelTrouble(Value):
    """Why the model gateway refused or what the vendor answered: `kind` is one of budget, turns, model_not_allowed, endpoint_not_allowed,
    unauthorized, rate_limited, overloaded, upstream_unreachable, upstream_cut, upstream_malformed, upstream_endless, upstream_error."""

    kind: str
    status: int
    message: str


class ModelGateway(Protocol):
    """Carries a task's model calls from a Unix socket to the vendor, with the key the container never sees."""

    async def open(
        self,
        task: str,
        socket: Path,
        *,
        model: str,
        limits: Limits,
        spent_micros: int,
        turns: int,
        on_usage: Callable[[Usage], Awaitable[None]],
        on_trouble: Callable[[ModelTrouble], None],
    ) -> None:
        """Listen on `socket` for this task. `spent_micros` and `turns` are what it used before. Again for the same task: takes the socket over.

        An answer's end is passed on only when `on_usage` has kept what it used."""
        ...

    async def close(self, task: str) -> None: ...


class Analyser(Value):
    """A program that looks at code and writes SARIF 2.1.0: ours, or one that a repository's `.codespar.yaml` names.

    `command` is run by `sh -c` in the root of the work tree, once on the base and once on the change, without network. `$SARIF` is the file
    to write; `$FILES` is a file with the changed paths that exist in this tree, NUL-separated.
    """

    name: str
    command: str
    seconds: float = 120  # after which it is ended
    languages: tuple[
        str, ...
    ] = ()  # file name endings such as `.py`: it is left out where no changed file has one; () always runs


class AnalyserReport(Value):
    """What one analyser said of the base and of the change. `problem` says why it did not do its work."""

    analyser: str
    version: str = ""
    base: tuple[Finding, ...] = ()
    head: tuple[Finding, ...] = ()
    problem: str = ""
    unlooked: dict[str, str] = {}  # changed files not wholly looked at, and why: `has 2.0 MiB`


class AnalysisOrder(Value):
    """What the analysers are to look at. `name` is the container's name and its idempotency key."""

    name: str  # codespar-review-abc123
    owner: str  # the agent: review-abc123
    project: str
    base_commit: str
    repository: Path  # bare repository on this host that has the base commit
    patch: Path  # base + this patch is the change
    changed: tuple[str, ...]  # paths that the change touches and that exist after it
    folder: Path  # this container's own folder on this host
    limits: Limits = Limits()
    analysers: tuple[Analyser, ...] = ()  # beside ours
    without: tuple[str, ...] = ()  # names of ours that the repository leaves out
    environment_image: str | None = (
        None  # the project's own environment, in which `analysers` run; None: in our image
    )


class Analysers(Protocol):
    """Analysers in a container with no network: what the repository holds is data, and nothing of it is run on this host."""

    async def analyse(self, order: AnalysisOrder) -> tuple[AnalyserReport, ...]:
        """Run them, or take what an interrupted run under the same name has made. Raises `SandboxError` when no container can run."""
        ...

    async def stop(self, name: str) -> None:
        """End the container of that name. No error when there is none."""
        ...
