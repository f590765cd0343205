"""Builds: what a code host's continuous integration says of a commit, and what follows from it for a branch.

Pure. Events come in any order and more than once; what is known afterwards does not depend on that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from codespar.domain.base import Value
from codespar.domain.messages import UtcDatetime

MOST_FLAKY = 20  # commits that are remembered as flaky


class Conclusion(StrEnum):
    """How a run, a job or a step ended, in GitHub's words; other hosts' are mapped to these."""

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    NEUTRAL = "neutral"
    TIMED_OUT = "timed_out"
    ACTION_REQUIRED = "action_required"
    STARTUP_FAILURE = "startup_failure"
    STALE = "stale"

    @property
    def good(self) -> bool:
        return self is Conclusion.SUCCESS

    @property
    def bad(self) -> bool:
        return self in (Conclusion.FAILURE, Conclusion.TIMED_OUT, Conclusion.STARTUP_FAILURE)


class Run(Value):
    """One attempt of one workflow on one commit."""

    id: str  # the host's; the same for every attempt
    attempt: int = Field(default=1, ge=1)
    workflow: str
    branch: str
    commit: str
    event: str = ""  # push, pull_request, schedule, …
    title: str = ""
    url: str = ""
    pulls: tuple[int, ...] = ()  # the pull requests it was for
    conclusion: Conclusion | None = None  # None: under way
    started_at: UtcDatetime
    updated_at: UtcDatetime

    @property
    def of_pull(self) -> bool:
        """It tried a pull request merged into its base, and not its branch."""
        return self.event.startswith("pull_request")


class Step(Value):
    number: int
    name: str
    conclusion: Conclusion | None = None


class BuildJob(Value):
    """A job of a run."""

    id: str
    name: str
    conclusion: Conclusion | None = None
    steps: tuple[Step, ...] = ()
    url: str = ""

    @property
    def failed_step(self) -> Step | None:
        return next((step for step in self.steps if step.conclusion and step.conclusion.bad), None)


class CommitLine(Value):
    """A commit as people read of it."""

    commit: str
    author: str
    title: str


class Failure(Value):
    """Why a run failed, as far as its log tells: what people are shown, and what a fix starts from."""

    run: str
    attempt: int = 1
    job: str
    step: str = ""
    excerpt: tuple[str, ...] = ()  # the first error and the lines around it, without colours
    log_cut: str = ""  # why not all of the log was read
    url: str = ""
    since_green: tuple[CommitLine, ...] = ()  # newest first
    green_commit: str | None = None


class Standing(Value):
    """How one workflow stands on one branch: what is known of it, and what people were told."""

    branch: str
    workflow: str
    last: Run | None = None  # the newest run that says whether it works
    green: Run | None = None  # the newest good one
    broken_by: Run | None = None  # the first bad one since; None while it works
    failure: Failure | None = None  # of `broken_by`, once its log was read
    flaky: tuple[str, ...] = ()  # commits on which it gave different results, newest first
    told: str = ""  # the key of the announcement that is edited when it is fixed; empty: nobody was told
    suggestion: str = ""  # the token of the fix that was suggested
    task: str = ""  # the fix task that was begun


class BuildNews(StrEnum):
    """What one run's end means for its workflow on its branch."""

    NOTHING = "nothing"
    BROKE = "broke"
    STILL_BROKEN = "still broken"
    FIXED = "fixed"
    FLAKY = "flaky"  # it failed on a commit on which it had worked, or the other way round


def absorb(standing: Standing, run: Run, others: Sequence[Run]) -> tuple[Standing, BuildNews]:
    """What is known after `run`, and what of it is new. `others` are the workflow's other runs on that branch, as far as they are known;
    those on the same commit must be among them. With all of them, what is known does not depend on the order in which runs were told of.

    A run that began before the newest one that counts is no news; one that ended without saying whether it works (cancelled, skipped) changes
    nothing at all. An attempt stands where its run began: an old run that is tried again does not speak for the newest commit. A pull
    request's run speaks for its branch only where no other does.
    """
    if not _counts(run):
        return standing, BuildNews.NOTHING
    known = (standing.last, standing.green, standing.broken_by, *others, run)
    counted = [one for one in known if one is not None and _counts(one)]
    counted = [one for one in counted if not one.of_pull] or counted
    history = _in_order(counted)
    last = history[-1]
    place = max((place for place, one in enumerate(history) if _good(one)), default=-1)
    green, broken_by = history[place] if place >= 0 else None, next(iter(history[place + 1 :]), None)
    flaky = len({_good(one) for one in counted if one.commit == run.commit}) > 1
    commits = (run.commit, *(one for one in standing.flaky if one != run.commit))[:MOST_FLAKY]
    changed = standing.evolve(
        last=last, green=green, broken_by=broken_by, flaky=commits if flaky else standing.flaky
    )
    if standing.broken_by is None:
        if broken_by is None:
            return changed, BuildNews.NOTHING
        return changed, BuildNews.FLAKY if flaky else BuildNews.BROKE
    if broken_by is not None:
        return changed, BuildNews.NOTHING if last == standing.last else BuildNews.STILL_BROKEN
    fixed = changed.evolve(failure=None, told="", suggestion="", task="")
    same = standing.broken_by.commit == run.commit
    return fixed, BuildNews.FLAKY if flaky and same else BuildNews.FIXED


def under_way(runs: Iterable[Run]) -> list[Run]:
    """Those of the runs that go on, in their order. An attempt is over when a later one of its run has begun, even where its end was not told."""
    runs = [*runs]
    newest: dict[str, int] = {}
    for run in runs:
        newest[run.id] = max(run.attempt, newest.get(run.id, 0))
    return [run for run in runs if run.conclusion is None and run.attempt == newest[run.id]]


def _counts(run: Run) -> bool:
    return run.conclusion is not None and (run.conclusion.good or run.conclusion.bad)


def _good(run: Run) -> bool:
    return run.conclusion is not None and run.conclusion.good


def _in_order(runs: Iterable[Run]) -> list[Run]:
    """The runs, each attempt once as it was last heard of, in the order in which they began."""
    newest: dict[tuple[str, int], Run] = {}
    for run in runs:
        known = newest.get((run.id, run.attempt))
        if known is None or (known.updated_at, known.conclusion or "") < (
            run.updated_at,
            run.conclusion or "",
        ):
            newest[run.id, run.attempt] = run
    began: dict[str, datetime] = {}
    for run in newest.values():
        began[run.id] = min(run.started_at, began.get(run.id, run.started_at))
    return sorted(newest.values(), key=lambda one: (began[one.id], one.id, one.attempt))
