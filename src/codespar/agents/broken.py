"""Broken builds as tasks see them: which one is meant by `fix build`, and what its task is told."""

from __future__ import annotations

import re

from codespar.domain.builds import Standing
from codespar.store.base import Unit

_BUILD = re.compile(r"(?:the\s+)?build(?:\s+(?P<workflow>\S.*))?", re.IGNORECASE | re.DOTALL)


def asked(text: str) -> str | None:
    """Whether `fix <text>` means a build: its workflow's name, empty for whichever is broken; None when it means something else."""
    found = _BUILD.fullmatch(text.strip())
    return (found["workflow"] or "").strip() if found else None


def broken(unit: Unit, project: str) -> list[Standing]:
    """The broken builds whose log was read: those of the newest break first."""
    found = [
        (one.broken_by.started_at, one)
        for one in unit.standings(project)
        if one.broken_by is not None and one.failure is not None
    ]
    return [one for _, one in sorted(found, key=lambda pair: pair[0], reverse=True)]


def to_fix(unit: Unit, project: str, workflow: str) -> Standing | None:
    """The broken build of that name, or the only one there is."""
    found = [one for one in broken(unit, project) if workflow.lower() in ("", one.workflow.lower())]
    return found[0] if found and (workflow or len(found) == 1) else None


def instruction(standing: Standing) -> str:
    """What a task is told. The log goes beside it, as data."""
    failure, run = standing.failure, standing.broken_by
    assert failure is not None and run is not None, "only a broken build whose log was read is to be fixed"
    return (
        f"The build of {standing.branch} is broken since {run.commit[:12]}. Find the cause and mend it; which workflow, job and step "
        "fail, and their log, are in the context."
    )


def failing_log(standing: Standing) -> str:
    """The excerpt of the log, and what was committed since it last worked."""
    failure = standing.failure
    if failure is None:
        return ""
    where = [
        f"Workflow: {standing.workflow}",
        f"Job: {failure.job}",
        *([f"Step: {failure.step}"] if failure.step else []),
    ]
    commits = [f"{one.commit[:12]} {one.author}: {one.title}" for one in failure.since_green]
    since = ["", "Commits since it last worked, newest first:", *commits] if commits else []
    return "\n".join([*where, "", *failure.excerpt, *since])
