"""Builds as a continuous integration reports them: what may be posted, and what becomes of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from codespar.domain.builds import BuildJob, Run, Step
from codespar.forges.base import Forge, NotSupported
from codespar.web.base import ApiError

MOST_JOBS, MOST_STEPS = 100, 200
AHEAD = timedelta(minutes=10)  # how far another machine's clock may be ahead of ours

_Line = Annotated[str, StringConstraints(max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Id = Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
_Url = Annotated[str, StringConstraints(max_length=1000, pattern=r"^(https?://[^\s\x00-\x1f]+)?$")]


class PostedStep(Step):
    number: int = Field(ge=0, le=100_000)
    name: _Name


class PostedJob(BuildJob):
    """A job, with as much of its log as a request may hold."""

    id: _Id
    name: _Name
    # narrower than a job's own, which is safe: values never change
    steps: tuple[PostedStep, ...] = Field(default=(), max_length=MOST_STEPS)  # pyright: ignore[reportIncompatibleVariableOverride]
    url: _Url = ""
    log: str | None = None


class PostedRun(Run):
    """A run, with its jobs. Posted again with the same id, attempt and `updatedAt`, it changes nothing."""

    id: _Id
    attempt: int = Field(default=1, ge=1, le=100_000)
    workflow: _Name
    branch: _Name
    commit: Annotated[str, StringConstraints(pattern=r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")]
    event: _Line = ""
    title: _Line = ""
    url: _Url = ""
    pulls: tuple[Annotated[int, Field(ge=1, le=2**31)], ...] = Field(default=(), max_length=100)
    jobs: tuple[PostedJob, ...] = Field(default=(), max_length=MOST_JOBS)


async def take_build(forge: Forge, posted: PostedRun, now: datetime) -> dict[str, Any]:
    """Keep a run that was posted. Returns `run`, as it is known now, and whether it is `new`: no newer one was known. Raises `ApiError`."""
    for name, at in (("startedAt", posted.started_at), ("updatedAt", posted.updated_at)):
        if at > now + AHEAD:
            raise ApiError(
                422, "invalid", f"body.{name}: {at.isoformat()} lies in the future", "set the clock"
            )
    if posted.updated_at < posted.started_at:
        raise ApiError(
            422, "invalid", "body.updatedAt: it lies before startedAt", "say when it was last changed"
        )
    ids = [job.id for job in posted.jobs]
    if twice := next((id for id in ids if ids.count(id) > 1), None):
        raise ApiError(422, "invalid", f"body.jobs: two jobs have the id {twice}", "give each its own")
    run = Run(**{field: getattr(posted, field) for field in Run.model_fields})
    jobs = [
        BuildJob(**{field: getattr(job, field) for field in BuildJob.model_fields}) for job in posted.jobs
    ]
    logs = {job.id: job.log.encode("utf-8", "replace") for job in posted.jobs if job.log is not None}
    try:
        await forge.sync()
        kept = await forge.report_run(run, jobs, logs)
    except NotSupported as error:
        raise ApiError(409, "not_supported", str(error), "its runs are read where its code is") from error
    return {"run": kept.wire(), "new": kept == run}
