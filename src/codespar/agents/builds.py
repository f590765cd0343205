"""Builds: how they stand, who is told when one breaks, and what is done about it.

A run that ended is a turn. What broke the default branch is looked at in a workflow, since its log lies at the code host: it is told once,
and that message is changed when it is fixed. What follows from it (nothing, a suggestion, a fix task) the autonomy level decides.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from codespar.agents import broken, buildcards, tasking
from codespar.agents.alone import by_itself, does, may_tell
from codespar.agents.announcer import amend, announce, places_of
from codespar.agents.consent import suggest
from codespar.agents.requests import withdraw
from codespar.agents.workshop import Workshop
from codespar.domain.approvals import ApprovalState
from codespar.domain.autonomy import Risk
from codespar.domain.base import CodesparError
from codespar.domain.buildlog import Excerpt
from codespar.domain.builds import BuildNews, Failure, Run, Standing, absorb
from codespar.domain.commands import Command, CommandArgs
from codespar.domain.messages import FieldLine
from codespar.domain.notifications import AlertKind
from codespar.domain.people import Permission
from codespar.domain.policy import Policy
from codespar.domain.tasks import TaskKind
from codespar.engine.base import WorkflowContext
from codespar.forges.base import Forge, ForgeError, ForgeUnavailable
from codespar.screening.base import Screening
from codespar.store.base import PULLED, Intent, Project, Store, StoreError, Unit

log = structlog.get_logger(__name__)
WORKFLOW = "build"  # the name under which its workflow is registered: never changes
MOST_LOG = 256 * 1024**2  # bytes of a log that are read
SINCE_GREEN = 20  # commits that are named
MOST_RUNS = 200  # of a workflow on a branch, the newest, that are looked at for which of them broke it
PATIENCE = 5  # looks after which a log that cannot be had is told without
TRIES = 24  # looks at a code host that does not answer: most of a day


def ran(unit: Unit, project: Project, policy: Policy, run: Run, now: datetime) -> None:
    """A run began, went on or ended. One of a commit that is in no branch of ours, a fork's say, tells of none how it stands."""
    if not unit.save_run(project.name, run) or not run.branch:
        return
    standing = unit.standing(project.name, run.branch, run.workflow)
    others: list[Run] = []
    if run.conclusion is not None:  # nothing follows from one that goes on
        others = unit.runs(project.name, branch=run.branch, workflow=run.workflow, limit=MOST_RUNS)
        others += unit.runs(project.name, branch=run.branch, workflow=run.workflow, commit=run.commit)
    changed, news = absorb(standing, run, others)
    if changed != standing:
        unit.save_standing(project.name, changed)
    cause = changed.broken_by
    if cause is not None and changed.failure is None and not _is(cause, standing.broken_by):
        # It broke; or, before it was told, an earlier run turns out to have broken it.
        _look_at(unit, project, cause, _name(project, run), now)
    if cause is None and standing.broken_by is not None:
        _fixed(unit, project, standing, run, news is BuildNews.FLAKY, now)


def _is(run: Run, other: Run | None) -> bool:
    return other is not None and (run.id, run.attempt) == (other.id, other.attempt)


def _look_at(unit: Unit, project: Project, cause: Run, why: str, now: datetime) -> None:
    """Have a workflow look at what broke a build: one for every `why`, the news from which that followed."""
    id = f"{_name(project, cause)}-{hashlib.sha256(why.encode()).hexdigest()[:8]}"
    payload = {"workflowId": id, "project": project.name, "run": cause.wire()}
    unit.intend(Intent(id=id, kind="start", target=WORKFLOW, payload=payload), now)


def _name(project: Project, run: Run) -> str:
    """What follows from a run goes by it. A status that is set again has its id and attempt again, and another time."""
    seed = f"{project.name}\0{run.id}\0{run.attempt}\0{run.updated_at.isoformat()}".encode()
    return f"build-{hashlib.sha256(seed).hexdigest()[:20]}"


def became_default(unit: Unit, project: Project, branch: str, now: datetime) -> None:
    """A branch is the default one from now on: what is broken there was told nobody."""
    for standing in unit.standings(project.name, branch):
        if standing.broken_by is not None and standing.failure is None:
            _look_at(unit, project, standing.broken_by, f"default since {now.isoformat()}", now)


def _fixed(unit: Unit, project: Project, before: Standing, run: Run, flaky: bool, now: datetime) -> None:
    """It works again: the message that told of it says so, and what was suggested is void."""
    unit.record(
        at=now,
        actor=f"agent-{project.name}",
        action="build.fixed",
        project=project.name,
        subject=f"{before.workflow} on {before.branch}",
        detail={"commit": run.commit, "flaky": flaky},
    )
    if before.told:
        amend(unit, project.name, buildcards.fixed(project.name, before, run, flaky), before.told, now)
    _void_suggestion(unit, before, "the build works again", now)


def branch_gone(unit: Unit, project: Project, branch: str, now: datetime) -> None:
    """A branch was deleted: how its builds stand is nobody's business any more. Were it to come again, its runs are still known."""
    for standing in unit.standings(project.name, branch):
        _void_suggestion(unit, standing, f"{branch} was deleted", now)
        unit.save_standing(project.name, Standing(branch=standing.branch, workflow=standing.workflow))


def _void_suggestion(unit: Unit, standing: Standing, why: str, now: datetime) -> None:
    suggested = unit.approval(standing.suggestion) if standing.suggestion else None
    if suggested is not None and suggested.state is ApprovalState.PENDING:
        withdraw(unit, suggested, why, now)


@dataclass(frozen=True)
class BuildTools:
    """What is needed to look at a broken build."""

    store: Store
    forge: Callable[[str], Forge]
    workshop: Callable[[str], Workshop]
    policy: Callable[[], Policy]
    screening: Screening
    clock: Callable[[], datetime]


class BuildWatch:
    """The workflow behind a broken build: read its log, tell, and do what autonomy allows."""

    def __init__(self, tools: BuildTools) -> None:
        self._tools = tools

    async def run(self, context: WorkflowContext, payload: dict[str, Any]) -> str:
        """Returns what came of it."""
        project = str(payload["project"])
        for attempt in range(1, TRIES + 1):
            seen = await context.step(f"look-{attempt}", self._look, project, payload["run"], attempt)
            if "failure" in seen:
                return str(await context.step("tell", self._tell, project, payload["run"], seen["failure"]))
            if "wait" not in seen:
                return str(seen["why"])
            await context.sleep(float(seen["wait"]))
        return "the code host could not be asked for too long"

    async def _look(self, project: str, document: dict[str, Any], attempt: int) -> dict[str, Any]:
        run = Run.model_validate(document)
        if run.of_pull:
            return {"why": "it tried a pull request, and no branch"}
        try:
            forge = self._tools.forge(project)
            branch, _ = await forge.sync()
        except StoreError:
            raise
        except CodesparError as error:  # whether anybody is to be told of it is not known
            log.info("build.later", project=project, run=run.id, error=str(error))
            return {"wait": min(3600.0, 20.0 * 2**attempt)}
        if run.branch != branch:
            return {"why": f"{run.branch} is not the default branch"}
        try:
            standing = await self._tools.store.read(
                lambda unit: unit.standing(project, run.branch, run.workflow)
            )
            green = standing.green.commit if standing.green else None
            since = await forge.log(green, run.commit, SINCE_GREEN) if green else []
            failure = await self._failure(forge, run)
            return {"failure": failure.evolve(since_green=tuple(since), green_commit=green).wire()}
        except ForgeUnavailable as error:
            if attempt < PATIENCE:
                return {"wait": min(900.0, error.retry_after or 20.0)}
            return {"failure": _unread(run, "the code host asked for patience for too long").wire()}
        except StoreError:
            raise  # the engine tries the step again
        except CodesparError as error:
            return {"failure": _unread(run, str(error)).wire()}

    async def _failure(self, forge: Forge, run: Run) -> Failure:
        jobs = await forge.jobs(run.id, run.attempt)
        job = next((one for one in jobs if one.conclusion and one.conclusion.bad), None)
        if job is None:
            return _unread(run, "no job of it failed, as far as the code host says")
        step = job.failed_step
        excerpt, cut = Excerpt(step.name if step else ""), ""
        try:
            size = 0
            async for piece in forge.job_log(run.id, job.id):
                await asyncio.to_thread(excerpt.feed, piece)
                size += len(piece)
                if size > MOST_LOG:
                    cut = f"its log has more than {MOST_LOG // 1024**2} MiB; the rest was not read"
                    break
        except ForgeUnavailable:
            raise
        except ForgeError as error:
            cut = f"its log could not be read: {error}"
        return Failure(
            run=run.id,
            attempt=run.attempt,
            job=job.name,
            step=step.name if step else "",
            excerpt=tuple(await asyncio.to_thread(self._clean, excerpt)),
            log_cut=cut,
            url=job.url or run.url,
        )

    def _clean(self, excerpt: Excerpt) -> list[str]:
        """A log may hold what nobody is to see, and its excerpt goes to people and into a task's container."""
        return self._tools.screening.clean("\n".join(excerpt.lines())).splitlines()

    async def _tell(self, project: str, document: dict[str, Any], told: dict[str, Any]) -> str:
        run, failure, now = Run.model_validate(document), Failure.model_validate(told), self._tools.clock()

        def write(unit: Unit) -> str:
            record = unit.project(project)
            standing = unit.standing(project, run.branch, run.workflow)
            cause = standing.broken_by
            if record is None or cause is None:
                return "fixed meanwhile"
            if not _is(run, cause):
                return f"run {cause.id} broke it"
            if standing.failure is not None:
                return "told before"
            known = standing.evolve(failure=failure)
            unit.record(
                at=now,
                actor=f"agent-{project}",
                action="build.broke",
                project=project,
                subject=f"{run.workflow} on {run.branch}",
                detail={"commit": run.commit, "job": failure.job, "step": failure.step, "url": failure.url},
            )
            known = self._act(unit, record, known, now)
            unit.save_standing(project, known)
            return "told" if known.told else "noted"

        return await self._tools.store.write(write)

    def _act(self, unit: Unit, project: Project, standing: Standing, now: datetime) -> Standing:
        """Ignore it, tell, suggest with one tap, or do: as the level says."""
        policy, run = self._tools.policy(), standing.broken_by
        assert run is not None, "only a broken build is acted upon"
        if not may_tell(project, policy):
            return standing
        name = _name(project, run)
        key = f"{project.name}:{name}"
        decision = by_itself(project, policy, "fix", Permission.APPLY_FIX, Risk.MEDIUM, now)
        flaky = run.commit in standing.flaky
        told = standing.evolve(told=key)
        if does(decision) and not flaky:
            places = places_of(unit, project.name, AlertKind.BUILDS)
            place = min(places, key=lambda one: one.channel in PULLED)  # where people hear what came of it
            task = tasking.admit(
                unit,
                project.name,
                TaskKind.FIX,
                broken.instruction(standing),
                f"agent-{project.name}",
                place.thread,
                now,
                seed=name,
                workshop=self._tools.workshop(project.name),
                failing_log=broken.failing_log(standing),
            )
            told = told.evolve(task=task.id)
        card = buildcards.broke(project.name, told, flaky)
        announce(unit, project.name, AlertKind.BUILDS, card, key, now, standing=True)
        if not flaky:
            command = Command(name="fix", args=CommandArgs(text=f"build {standing.workflow}"))
            asked_for = suggest(
                unit,
                project.name,
                command,
                decision,
                f"the build of {standing.branch} is broken",
                now,
                seed=name,
                kind=AlertKind.BUILDS,
                shown=(
                    FieldLine(name="Build", value=f"{standing.workflow} on {standing.branch}"),
                    FieldLine(name="Since", value=run.commit[:12]),
                ),
            )
            told = told.evolve(suggestion=asked_for.token if asked_for else "")
        return told


def _unread(run: Run, why: str) -> Failure:
    return Failure(run=run.id, attempt=run.attempt, job=run.workflow, log_cut=why, url=run.url)
