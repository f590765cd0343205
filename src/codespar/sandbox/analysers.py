"""Analysers in containers without network: ours in an image of ours, a repository's own in the project's environment.

The two never share a container: a repository's own program may run what the change brings along (a linter's plugins, say), and that must not
reach what our analysers write. What comes out is read as data of unknown origin, and one program that fails, hangs or writes nonsense leaves
the others' reports as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import structlog
from pydantic import TypeAdapter, ValidationError

from codespar.domain.tasks import Analysis, AnalysisProgram, Environment, TaskSpec
from codespar.sandbox.analysersimage import AnalysersImage
from codespar.sandbox.base import (
    Analyser,
    AnalyserReport,
    AnalysisOrder,
    Ended,
    EngineUnavailable,
    ImageMissing,
    Job,
    Order,
    OutputRefused,
    SandboxError,
    Say,
)
from codespar.sandbox.docker import DockerSandbox
from codespar.sandbox.folder import regular
from codespar.sandbox.sarif import NAMELESS, SARIF_BYTES, SarifLog, read

log = structlog.get_logger(__name__)
_PYTHON = (".py", ".pyi")
_SEMGREP = (".py", ".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".mts", ".cts", ".go")
_COMMAND = "exec /opt/codespar/analysers/bin/python -I /opt/codespar/analyse.py"
OURS = (
    Analyser(name="ruff", command=f"{_COMMAND} ruff", seconds=60, languages=_PYTHON),
    Analyser(name="bandit", command=f"{_COMMAND} bandit", seconds=240, languages=(".py",)),
    Analyser(name="semgrep", command=f"{_COMMAND} semgrep", seconds=240, languages=_SEMGREP),
    Analyser(name="detect-secrets", command=f"{_COMMAND} detect-secrets", seconds=90),
)
"""What runs on every change, where it has something to look at."""
WORK = "/tmp/work"  # the work tree inside the container
PROGRAMS = 24  # of a repository's own
GRACE = 60.0  # seconds after the runner's own deadline until the container is ended from outside
_RECORD_BYTES = 8 * 1024**2
_REPORTS = TypeAdapter(tuple[AnalyserReport, ...])


class SandboxAnalysers:
    """`Analysers` in containers of a `DockerSandbox`."""

    def __init__(self, sandbox: DockerSandbox, say: Say | None = None) -> None:
        """`say` is told when the image has to be built."""
        self._sandbox = sandbox
        self._image = AnalysersImage(sandbox.image)
        self._say = say or (lambda line: log.info("analysers.image", said=line))
        self._one_by_one: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._stopped: set[str] = set()

    async def analyse(self, order: AnalysisOrder) -> tuple[AnalyserReport, ...]:
        """Run them, or take what an interrupted run under the same name has made.

        The reports are kept in the order's folder: asked again, nothing runs again. Those of ours come first, then the repository's own, without
        those that had no changed file of their languages. Raises `SandboxError` when no container can run; what goes wrong in one is told in the
        reports.
        """
        lock = self._one_by_one.setdefault(order.name, asyncio.Lock())
        async with lock:
            self._stopped.discard(order.name)
            own = tuple(one for one in order.analysers[:PROGRAMS] if _concerned(one, order.changed))
            ours = tuple(
                one
                for one in OURS
                if one.name not in order.without and order.changed and _concerned(one, order.changed)
            )
            names = container_names(order.name)
            try:
                async with asyncio.TaskGroup() as group:
                    first = group.create_task(self._group(order, names[0], "ours", ours, None))
                    second = group.create_task(
                        self._group(order, names[1], "own", own, order.environment_image)
                    )
            except* SandboxError as errors:
                raise _first(errors) from errors
            finally:
                self._stopped.discard(order.name)
            return (*first.result(), *second.result())

    async def stop(self, name: str) -> None:
        """End the containers of that name; whoever waits for their reports gets them with the problem that they were stopped."""
        if name in self._one_by_one:
            self._stopped.add(name)
        for container in container_names(name):
            await self._sandbox.remove(container)

    async def _group(
        self, order: AnalysisOrder, name: str, part: str, analysers: tuple[Analyser, ...], image: str | None
    ) -> tuple[AnalyserReport, ...]:
        """The reports of those that run in one container."""
        if not analysers:
            return ()
        folder = order.folder / part
        kept = folder / "reports.json"
        done = await asyncio.to_thread(_kept, kept)
        if done is not None:
            await self._sandbox.remove(name)  # there when we were killed right after keeping them
            return done
        analysis = Analysis(
            programs=tuple(AnalysisProgram(**one.model_dump()) for one in analysers),
            changed=order.changed,
            at_once=math.ceil(order.limits.cpus)
            if part == "ours"
            else 1,  # ours leave the work tree as it is
        )
        try:
            out, ended = await self._run(order, name, folder, analysis, image)
        except SandboxError as error:
            if order.name in self._stopped:
                return _none("it was stopped", analysers)
            done = await asyncio.to_thread(_kept, kept)
            if (
                done is not None
            ):  # another process that waited for the same container was faster, and has removed it
                return done
            if part == "own" and not isinstance(error, EngineUnavailable):
                return _none(str(error)[:600], analysers)  # not kept: it may go next time
            raise
        if order.name in self._stopped:  # its container was removed; asked again, they run again
            return _none("it was stopped", analysers)
        reports = await asyncio.to_thread(_reports, out, analysers, ended, order.changed)
        await asyncio.to_thread(_keep, kept, reports)
        await self._sandbox.remove(name)
        return reports

    async def _run(
        self, order: AnalysisOrder, name: str, folder: Path, analysis: Analysis, image: str | None
    ) -> tuple[Path, Ended]:
        for attempt in (1, 2):
            try:
                reference = image or await self._image.ensure(self._say)
                to_run = _to_run(order, name, folder, analysis, reference)
                if not await self._sandbox.has(
                    name
                ):  # whatever lies there is half of what a removed container wrote
                    await asyncio.to_thread(shutil.rmtree, folder / "out", True)
                container = await self._sandbox.start(to_run)
                break
            except ImageMissing:
                self._image.forget()
                if image or attempt == 2:
                    raise
        else:
            raise AssertionError
        try:
            async with asyncio.timeout(order.limits.wall_seconds + GRACE):
                return folder / "out", await container.wait()
        except TimeoutError:  # the runner keeps to its time by itself; this is for one that was tampered with
            await container.stop(0)
            return folder / "out", await container.wait()


def container_names(name: str) -> tuple[str, str]:
    """The containers of one order: that of our analysers, and that of the repository's own. What sweeps must keep both."""
    return name, f"{name}-own"


def _none(problem: str, analysers: tuple[Analyser, ...]) -> tuple[AnalyserReport, ...]:
    return tuple(AnalyserReport(analyser=one.name, problem=problem) for one in analysers)


def _first(errors: BaseExceptionGroup[SandboxError]) -> SandboxError:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, SandboxError)
    return found


def _concerned(analyser: Analyser, changed: Sequence[str]) -> bool:
    return not analyser.languages or any(path.endswith(analyser.languages) for path in changed)


def _to_run(order: AnalysisOrder, name: str, folder: Path, analysis: Analysis, image: str) -> Order:
    folder.mkdir(parents=True, exist_ok=True)
    spec = TaskSpec(
        id=order.owner,
        project=order.project,
        repository=order.project,
        base_branch="",
        base_commit=order.base_commit,
        instruction="",
        requester="",
        environment=Environment(image=image),
        limits=order.limits,
        model="",
        analysis=analysis,
    )
    return Order(
        name=name, job=Job.ANALYSE, spec=spec, repository=order.repository, folder=folder, patch=order.patch
    )


def _kept(path: Path) -> tuple[AnalyserReport, ...] | None:
    try:
        return _REPORTS.validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _keep(path: Path, reports: tuple[AnalyserReport, ...]) -> None:
    # after a crash two may come to the end at once
    unfinished = path.with_suffix(f".{secrets.token_hex(4)}.part")
    unfinished.write_bytes(_REPORTS.dump_json(reports, by_alias=True))
    unfinished.replace(path)


class _Tree(NamedTuple):
    """What one program said of one tree."""

    log: SarifLog
    problem: str


def _reports(
    out: Path, analysers: tuple[Analyser, ...], ended: Ended, changed: Sequence[str]
) -> tuple[AnalyserReport, ...]:
    """What the container left, one report a program. Nothing in it is trusted, no link followed. Runs in a thread."""
    end = _end(out, ended)
    reports: list[AnalyserReport] = []
    for number, analyser in enumerate(analysers):
        base, head = (_tree(out, number, analyser, tree, end) for tree in ("base", "head"))
        if base.problem == head.problem or not head.problem:
            problem = base.problem and (base.problem if head.problem else f"on the base: {base.problem}")
        else:
            problem = (
                f"on the base: {base.problem}; on the change: {head.problem}"
                if base.problem
                else head.problem
            )
        reports.append(
            AnalyserReport(
                analyser=analyser.name,
                version=head.log.version or base.log.version,
                base=base.log.findings,
                head=head.log.findings,
                unlooked=_unlooked(base.log, head.log, changed),
                problem=problem[:1500],
            )
        )
    return tuple(reports)


def _unlooked(base: SarifLog, head: SarifLog, changed: Sequence[str]) -> dict[str, str]:
    """The changed files that it did not wholly look at, and why; it is said where that is nothing new."""
    known = {*changed, NAMELESS}
    return {
        path: f"{why}, as before this change" if path in base.unlooked else why
        for path, why in head.unlooked.items()
        if path in known
    }


def _end(out: Path, ended: Ended) -> str:
    """Why a program may have left nothing, by how the container ended."""
    if ended.out_of_memory:
        return "its container ran out of memory (`limits.memory`)"
    if ended.disk_full:
        return "its container had no space left on /tmp (`limits.tmp`)"
    said = ""
    with contextlib.suppress(OutputRefused, ValueError, RecursionError):
        result: Any = json.loads(regular(out / "result.json", _RECORD_BYTES))
        said = str(result.get("error") or "")[:800] if isinstance(result, dict) else ""
    if said:
        return said
    if ended.stopped_by_us:
        return "it was stopped"
    return f"its container ended with {ended.exit_code} before it" + (
        f": {ended.log_tail[-300:]}" if ended.exit_code else ""
    )


def _tree(out: Path, number: int, analyser: Analyser, tree: str, end: str) -> _Tree:
    nothing = SarifLog("", (), "")
    place = out / "analysis" / f"{number:02}-{tree}"
    if (out / "analysis").is_symlink():
        return _Tree(nothing, "its output is a link")
    try:
        record: Any = json.loads(regular(place.with_suffix(".json"), _RECORD_BYTES))
    except (OutputRefused, ValueError, RecursionError):
        return _Tree(nothing, end)
    if not isinstance(record, dict):
        return _Tree(nothing, end)
    if record.get("skipped") is True:
        return _Tree(nothing, "")
    if problem := record.get("problem"):
        return _Tree(nothing, str(problem)[:600])
    try:
        content = regular(place.with_suffix(".sarif"), SARIF_BYTES)
        found = read(content, analyser=analyser.name, root=WORK, lines=_lines(record.get("lines")))
    except OutputRefused as error:
        return _Tree(nothing, str(error)[:600])
    return _Tree(found, found.problem)


def _lines(given: Any) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = {}
    for path, texts in given.items() if isinstance(given, dict) else ():
        if isinstance(texts, dict):
            found[str(path)] = {
                int(number): text
                for number, text in texts.items()
                if isinstance(text, str) and number.isdecimal() and len(number) < 9
            }
    return found
