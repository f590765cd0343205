"""What GitHub Actions did: runs, their jobs, logs and artefacts. Read alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from codespar.domain.builds import BuildJob, Run
from codespar.forges.base import Artefact
from codespar.forges.github.hosted import Hosted, quoted
from codespar.forges.github.models import Repository, WorkflowRun
from codespar.forges.github.payloads import run_of
from codespar.forges.github.values import ArtefactData, JobData, artefact_of, job_of


class Builds(Hosted):
    """The part of the GitHub forge that reads builds."""

    async def runs(
        self, *, branch: str | None = None, commit: str | None = None, limit: int = 50
    ) -> list[Run]:
        """One request for each 100. A fork's branch is called `owner:branch`, and is none of ours."""
        params: dict[str, str | int] = {}
        if branch is not None:
            params["branch"] = branch
        if commit is not None:
            params["head_sha"] = commit
        seen, ours = self._clock(), Repository(full_name=self._repository)
        items = await self._client.pages(
            self._at("/actions/runs"), params, key="workflow_runs", most=max(1, limit)
        )
        found = [run_of(WorkflowRun.model_validate(item), ours, seen) for item in items]
        return [run for run in found if branch in (None, run.branch) and commit in (None, run.commit)][:limit]

    async def jobs(self, run: str, attempt: int) -> list[BuildJob]:
        path = self._at(f"/actions/runs/{quoted(run)}/attempts/{attempt}/jobs")
        items = await self._client.pages(path, key="jobs")
        return [job_of(JobData.model_validate(item)) for item in items]

    async def job_log(self, run: str, job: str) -> AsyncIterator[bytes]:
        """GitHub knows a job by its own id; `run` is not needed. A log is there once the job has ended."""
        async with aclosing(self._client.stream(self._at(f"/actions/jobs/{quoted(job)}/logs"))) as pieces:
            async for piece in pieces:
                yield piece

    async def artefacts(self, run: str) -> list[Artefact]:
        path = self._at(f"/actions/runs/{quoted(run)}/artifacts")
        items = await self._client.pages(path, key="artifacts")
        return [artefact_of(ArtefactData.model_validate(item)) for item in items]

    async def artefact(self, id: str) -> AsyncIterator[bytes]:
        async with aclosing(self._client.stream(self._at(f"/actions/artifacts/{quoted(id)}/zip"))) as pieces:
            async for piece in pieces:
                yield piece
