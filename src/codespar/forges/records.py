"""What the embedded forge keeps in git: pull requests under refs/codespar/pulls/<n>, one commit chain a pull request, whose tree is `pull.json`;
builds under refs/codespar/runs/<id> and what is said of commits under refs/codespar/commits/<commit>, alike.

The chain is the record's whole history. Numbers and changes are settled by compare-and-swap on the reference, so that several writers can
never lose each other's, and each change has a key under which it is made once.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codespar import git
from codespar.domain.base import short_id
from codespar.domain.builds import BuildJob, Run
from codespar.forges.base import Check, ForgeError, Gone, PullRequest, PullRequestNotFound

PULLS = "refs/codespar/pulls"
RUNS = "refs/codespar/runs"
COMMITS = "refs/codespar/commits"
KEPT_RUNS = 500  # the newest
RACES = 20  # how often a lost compare-and-swap is tried again


class PullRecords:
    """The records in one bare repository. `repository` need not exist yet: then there are none."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository

    async def all(self) -> list[PullRequest]:
        """Every pull request, newest first."""
        found = await _read_all(self._repository, PULLS, "pull.json")
        pulls = await asyncio.to_thread(
            lambda: [PullRequest.model_validate(record["pull"]) for record in found]
        )
        return sorted(pulls, key=lambda pull: -pull.number)

    async def get(self, number: int) -> PullRequest:
        """One pull request. Raises `PullRequestNotFound`."""
        record, _ = await self._read(number)
        return PullRequest.model_validate(record["pull"])

    async def add(
        self, known: Callable[[PullRequest], bool], make: Callable[[int], PullRequest]
    ) -> PullRequest:
        """The one that is `known` already, or a new one under the next number."""
        for _ in range(RACES):
            there = await self.all()
            for pull in there:
                if known(pull):
                    return pull
            pull = make(max((pull.number for pull in there), default=0) + 1)
            if await self._write(pull.number, {"pull": pull.wire(), "keys": []}, None, pull.created_at):
                return pull
        raise ForgeError("no pull request number could be had: too many are opened at once; retry")

    async def change(
        self, number: int, key: str, change: Callable[[PullRequest], PullRequest], at: datetime
    ) -> PullRequest:
        """Change one, once under each `key`. Raises `PullRequestNotFound`, and whatever `change` raises."""
        for _ in range(RACES):
            record, tip = await self._read(number)
            pull = PullRequest.model_validate(record["pull"])
            if key in record["keys"]:
                return pull
            changed = change(pull)
            body = {"pull": changed.wire(), "keys": [*record["keys"], key]}
            if await self._write(number, body, tip, at):
                return changed
        raise ForgeError(f"PR #{number} is being changed by too many at once; retry")

    async def _read(self, number: int) -> tuple[dict[str, Any], str]:
        tip = await _tip(self._repository, f"{PULLS}/{number}")
        if not tip:
            raise PullRequestNotFound(f"there is no pull request #{number}")
        return json.loads(await git.run("cat-file", "blob", f"{tip}:pull.json", cwd=self._repository)), tip

    async def _write(self, number: int, record: dict[str, Any], before: str | None, at: datetime) -> bool:
        """Write the record's next state if its last one is still `before`. False when another writer was faster."""
        text = json.dumps(record, ensure_ascii=False, indent=1).encode()
        ref = f"{PULLS}/{number}"
        return await _put(self._repository, ref, {"pull.json": text}, before, at)


class BuildRecords:
    """The runs that were reported, each with its jobs and their logs."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository

    async def all(self) -> list[Run]:
        """The newest attempt of every run, newest first."""
        found = [
            Run.model_validate(record["run"])
            for record in await _read_all(self._repository, RUNS, "run.json")
        ]
        return sorted(found, key=lambda run: (run.started_at, run.id), reverse=True)[:KEPT_RUNS]

    async def save(self, run: Run, jobs: Sequence[BuildJob], logs: dict[str, bytes]) -> Run:
        """Keep a run. What is known already of it and is newer stays."""
        ref = f"{RUNS}/{_named(run.id)}"
        record = {"run": run.wire(), "jobs": [job.wire() for job in jobs]}
        files = {"run.json": json.dumps(record, ensure_ascii=False, indent=1).encode()}
        files |= {f"{_named(job)}.log": log for job, log in logs.items()}
        for _ in range(RACES):
            before = await _tip(self._repository, ref)
            if before:
                known = Run.model_validate((await self._record(run.id))["run"])
                if (known.attempt, known.updated_at) >= (run.attempt, run.updated_at):
                    return known
            if await _put(self._repository, ref, files, before, run.updated_at):
                return run
        raise ForgeError(f"run {run.id} is being changed by too many at once; retry")

    async def jobs(self, run: str, attempt: int) -> list[BuildJob]:
        record = await self._record(run)
        return [BuildJob.model_validate(job) for job in record["jobs"]]

    async def log(self, run: str, job: str) -> bytes:
        """Raises `Gone`."""
        file = f"{RUNS}/{_named(run)}:{_named(job)}.log"
        code, out = await git.run_bytes("cat-file", "blob", file, cwd=self._repository, ok_codes=(0, 128))
        if code:
            raise Gone(f"no log of job {job} of run {run} was reported")
        return out

    async def _record(self, run: str) -> dict[str, Any]:
        if not await _tip(self._repository, f"{RUNS}/{_named(run)}"):
            raise Gone(f"there is no run {run}")
        return json.loads(
            await git.run("cat-file", "blob", f"{RUNS}/{_named(run)}:run.json", cwd=self._repository)
        )


class CommitRecords:
    """Statuses of commits, and comments on them."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository

    async def statuses(self, commit: str) -> list[Check]:
        return [Check.model_validate(one) for one in (await self._read(commit))["statuses"].values()]

    async def set_status(self, commit: str, check: Check) -> None:
        def change(record: dict[str, Any]) -> None:
            record["statuses"][check.name] = check.wire()

        await self._change(commit, change, check.at)

    async def comment(self, commit: str, body: str, key: str) -> str:
        id = short_id("comment", f"{commit}:{key}")

        def change(record: dict[str, Any]) -> None:
            record["comments"].setdefault(id, body)

        await self._change(commit, change, datetime.fromtimestamp(0, UTC))
        return id

    async def _change(self, commit: str, change: Callable[[dict[str, Any]], None], at: datetime) -> None:
        ref = f"{COMMITS}/{_named(commit)}"
        for _ in range(RACES):
            before = await _tip(self._repository, ref)
            record = await self._read(commit)
            change(record)
            text = json.dumps(record, ensure_ascii=False, indent=1).encode()
            if await _put(self._repository, ref, {"commit.json": text}, before, at):
                return
        raise ForgeError(f"what is said of {commit[:12]} is being changed by too many at once; retry")

    async def _read(self, commit: str) -> dict[str, Any]:
        ref = f"{COMMITS}/{_named(commit)}"
        if not await _tip(self._repository, ref):
            return {"statuses": {}, "comments": {}}
        return json.loads(await git.run("cat-file", "blob", f"{ref}:commit.json", cwd=self._repository))


def _named(id: str) -> str:
    """An id as a part of a reference's name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", id)[:100] or "_"


async def _tip(repository: Path, ref: str) -> str | None:
    if not (repository / "HEAD").exists():
        return None
    _, out = await git.run_bytes("rev-parse", "--verify", "-q", ref, cwd=repository, ok_codes=(0, 1))
    return out.decode().strip() or None


async def _read_all(repository: Path, prefix: str, file: str) -> list[dict[str, Any]]:
    """Every record's document under a prefix, in one call of git."""
    if not (repository / "HEAD").exists():
        return []
    refs = (await git.run("for-each-ref", "--format=%(refname)", prefix, cwd=repository)).split()
    if not refs:
        return []
    asked = "".join(f"{ref}:{file}\n" for ref in refs).encode()
    _, out = await git.run_bytes("cat-file", "--batch", cwd=repository, stdin=asked)
    return await asyncio.to_thread(_documents, out)


def _documents(out: bytes) -> list[dict[str, Any]]:
    """What `git cat-file --batch` printed: each object's size at the end of a line, its content, and a line feed."""
    found: list[dict[str, Any]] = []
    place = 0
    while place < len(out):
        start = out.index(b"\n", place) + 1
        end = start + int(out[place:start].split()[-1])
        found.append(json.loads(out[start:end]))
        place = end + 1
    return found


async def _put(repository: Path, ref: str, files: dict[str, bytes], before: str | None, at: datetime) -> bool:
    """Make the reference's next commit of these files if its last one is still `before`. False when another writer was faster."""
    entries: list[str] = []
    for name, content in sorted(files.items()):
        _, blob = await git.run_bytes("hash-object", "-w", "--stdin", cwd=repository, stdin=content)
        entries.append(f"100644 blob {blob.decode().strip()}\t{name}\n")
    tree = await git.run("mktree", cwd=repository, stdin="".join(entries).encode())
    parents = [before] if before else []
    subject = ref.removeprefix("refs/codespar/")
    commit = await git.commit_tree(repository, tree, parents, f"{subject}\n", "CodeSpar", at)
    code, _ = await git.run_bytes(
        "update-ref", ref, commit, before or "", cwd=repository, ok_codes=(0, 1, 128)
    )
    return code == 0
