"""What the embedded forge keeps in git: pull requests under refs/codespar/pulls/<n>, one commit chain a pull request, whose tree is `pull.json`;
builds under refs/codespar/runs/<id> and what is said of commits under refs/codespar/commits/<commit>, alike.

Numbers and changes are settled by compare-and-swap on the reference, so that several writers can never lose each other's, and each change has
a key under which it is made once.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from codespar import git
from codespar.domain.base import short_id
from codespar.domain.builds import BuildJob, Run
from codespar.forges.base import Check, ForgeError, Gone, PullRequest, PullRequestNotFound, PullState
from codespar.forges.documents import RACES, REFS, Document, Shelf, put_document, read_document

PULLS = f"{REFS}/pulls"
RUNS = f"{REFS}/runs"
COMMITS = f"{REFS}/commits"
KEPT_RUNS = 500  # the newest, which are all that is shown and looked at
_PULL, _RUN, _COMMIT = "pull.json", "run.json", "commit.json"


class PullBrief(NamedTuple):
    """What pull requests are found by."""

    number: int
    state: PullState
    branch: str
    head_commit: str


class PullRecords:
    """The pull requests in one bare repository. `repository` need not exist yet: then there are none.

    A document is `{"pull": the pull request as on the wire, "keys": [the keys of the changes that were made]}`.
    """

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._shelf = Shelf(repository, PULLS, _PULL, _pull_brief, _pull_of)

    async def briefs(self) -> list[PullBrief]:
        """What there is, in no order."""
        return list((await self._shelf.briefs()).values())

    async def find(self, wanted: Callable[[PullBrief], bool]) -> list[PullRequest]:
        """The pull requests that are `wanted`, newest first."""
        found = [(brief.number, tip) for tip, brief in (await self._shelf.briefs()).items() if wanted(brief)]
        return await self._shelf.wholes([tip for _, tip in sorted(found, reverse=True)])

    async def get(self, number: int) -> PullRequest:
        """One pull request. Raises `PullRequestNotFound`."""
        return _pull_of((await self._document(number)).content)

    async def add(
        self, known: Callable[[PullBrief], bool], make: Callable[[int], PullRequest]
    ) -> PullRequest:
        """The newest that is `known` already, or a new one under the next number."""
        for _ in range(RACES):
            # one look for both: else somebody's could come in between, and be neither found nor in our number's way
            there = await self.briefs()
            if found := max((brief.number for brief in there if known(brief)), default=0):
                return await self.get(found)
            pull = make(max((brief.number for brief in there), default=0) + 1)
            if await self._put(pull, [], None, pull.created_at):
                return pull
        raise ForgeError("no pull request number could be had: too many are opened at once; retry")

    async def change(
        self, number: int, key: str | None, change: Callable[[PullRequest], PullRequest], at: datetime
    ) -> PullRequest:
        """Change one, once under each `key`; without one, whenever it makes a difference. Raises `PullRequestNotFound`, and whatever `change`
        raises."""
        for _ in range(RACES):
            document = await self._document(number)
            pull, keys = _pull_of(document.content), document.content["keys"]
            if key in keys:
                return pull
            changed = change(pull)
            if key is None and changed == pull:
                return pull
            if await self._put(changed, [*keys, key] if key else keys, document.tip, at):
                return changed
        raise ForgeError(f"PR #{number} is being changed by too many at once; retry")

    async def _document(self, number: int) -> Document:
        document = await read_document(self._repository, f"{PULLS}/{number}", _PULL)
        if document is None:
            raise PullRequestNotFound(f"there is no pull request #{number}")
        return document

    async def _put(self, pull: PullRequest, keys: list[str], before: str | None, at: datetime) -> bool:
        content = {"pull": pull.wire(), "keys": keys}
        ref = f"{PULLS}/{pull.number}"
        return await put_document(self._repository, ref, _PULL, content, before=before, at=at)


class RunBrief(NamedTuple):
    """What runs are found by, in their order."""

    started_at: datetime
    id: str
    branch: str
    commit: str


class BuildRecords:
    """The runs that were reported, each with its jobs and their logs. `repository` need not exist yet.

    A document is `{"run": …, "jobs": […]}`, both as on the wire; beside it is a file `<job>.log` a job that has one.
    """

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._shelf = Shelf(repository, RUNS, _RUN, _run_brief, _run_of)

    async def find(self, branch: str | None = None, commit: str | None = None) -> list[Run]:
        """The newest attempt of each of the newest runs, as far as they are of that branch and commit; newest first."""
        briefs = await self._shelf.briefs()
        newest = heapq.nlargest(KEPT_RUNS, ((brief, tip) for tip, brief in briefs.items()))
        return await self._shelf.wholes(
            [
                tip
                for brief, tip in newest
                if branch in (None, brief.branch) and commit in (None, brief.commit)
            ]
        )

    async def save(self, run: Run, jobs: Sequence[BuildJob], logs: dict[str, bytes]) -> Run:
        """Keep a run, with `logs` by the jobs' ids. Returns what is known of it now: what is known already and not older stays."""
        content = {"run": run.wire(), "jobs": [job.wire() for job in jobs]}
        beside = {_log_file(job): log for job, log in logs.items()}
        for _ in range(RACES):
            document = await read_document(self._repository, _run_ref(run.id), _RUN)
            if document is not None:
                known = _run_of(document.content)
                if (known.attempt, known.updated_at) >= (run.attempt, run.updated_at):
                    return known
            before = document.tip if document else None
            if await put_document(
                self._repository,
                _run_ref(run.id),
                _RUN,
                content,
                before=before,
                at=run.updated_at,
                beside=beside,
            ):
                return run
        raise ForgeError(f"run {run.id} is being changed by too many at once; retry")

    async def jobs(self, run: str) -> list[BuildJob]:
        """The jobs of a run's newest attempt. Raises `Gone`."""
        document = await read_document(self._repository, _run_ref(run), _RUN)
        if document is None:
            raise Gone(f"there is no run {run}")
        return [BuildJob.model_validate(job) for job in document.content["jobs"]]

    async def log(self, run: str, job: str) -> bytes:
        """What was reported as a job's log. Raises `Gone`."""
        file = f"{_run_ref(run)}:{_log_file(job)}"
        code, out = await git.run_bytes("cat-file", "blob", file, cwd=self._repository, ok_codes=(0, 128))
        if code:
            raise Gone(f"no log of job {job} of run {run} was reported")
        return out


class CommitRecords:
    """Statuses of commits, and comments on them. `repository` need not exist yet.

    A document is `{"statuses": {name: check as on the wire}, "comments": {id: text}}`.
    """

    def __init__(self, repository: Path) -> None:
        self._repository = repository

    async def statuses(self, commit: str) -> list[Check]:
        content, _ = await self._read(commit)
        return [Check.model_validate(one) for one in content["statuses"].values()]

    async def set_status(self, commit: str, check: Check) -> None:
        """Set what `check.name` says of a commit, in the place of what it said before."""

        def change(content: dict[str, Any]) -> None:
            content["statuses"][check.name] = check.wire()

        await self._change(commit, change, check.at)

    async def comment(self, commit: str, body: str, key: str) -> str:
        """Comment on a commit, once under each `key`. Returns the comment's id."""
        id = short_id("comment", f"{commit}:{key}")

        def change(content: dict[str, Any]) -> None:
            content["comments"].setdefault(id, body)

        await self._change(commit, change, datetime.fromtimestamp(0, UTC))
        return id

    async def _change(self, commit: str, change: Callable[[dict[str, Any]], None], at: datetime) -> None:
        ref = f"{COMMITS}/{_named(commit)}"
        for _ in range(RACES):
            content, before = await self._read(commit)
            change(content)
            if await put_document(self._repository, ref, _COMMIT, content, before=before, at=at):
                return
        raise ForgeError(f"what is said of {commit[:12]} is being changed by too many at once; retry")

    async def _read(self, commit: str) -> tuple[dict[str, Any], str | None]:
        """The content, which the caller may change, and the commit it was read from."""
        document = await read_document(self._repository, f"{COMMITS}/{_named(commit)}", _COMMIT)
        return (document.content, document.tip) if document else ({"statuses": {}, "comments": {}}, None)


def _pull_of(content: dict[str, Any]) -> PullRequest:
    return PullRequest.model_validate(content["pull"])


def _pull_brief(content: dict[str, Any]) -> PullBrief:
    pull = content["pull"]
    return PullBrief(pull["number"], PullState(pull["state"]), pull["branch"], pull["headCommit"])


def _run_of(content: dict[str, Any]) -> Run:
    return Run.model_validate(content["run"])


def _run_brief(content: dict[str, Any]) -> RunBrief:
    run = _run_of(content)
    return RunBrief(run.started_at, run.id, run.branch, run.commit)


def _run_ref(run: str) -> str:
    return f"{RUNS}/{_named(run)}"


def _log_file(job: str) -> str:
    return f"{_named(job)}.log"


def _named(id: str) -> str:
    """An id as a part of a reference's or a file's name."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", id)[:100] or "_"
    if id.isascii() and len(id) <= 100:
        return plain
    return f"{plain[:60]}-{hashlib.sha256(id.encode()).hexdigest()[:16]}"  # else many would be named alike
