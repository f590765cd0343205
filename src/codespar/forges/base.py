"""The port to a code host: branches, pull requests and their life.

Every method is idempotent: done again after a crash it finds its own earlier trace and returns the same answer.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Protocol

from codespar.domain.base import CodesparError, Value
from codespar.domain.messages import UtcDatetime


class ForgeError(CodesparError):
    """The root of what a forge can refuse."""


class RepositoryUnusable(ForgeError):
    """The repository cannot be worked on as it is (missing, no commit, not a repository, no default branch)."""


class PatchRefused(ForgeError):
    """The change that came out of a task does not apply to its base commit, or tries something it may not."""


class PushRefused(ForgeError):
    """The code host did not take the branch."""


class PullRequestNotFound(ForgeError):
    """There is no pull request of that number."""


class NotMergeable(ForgeError):
    """The pull request cannot be merged now: conflicts, closed, or its head moved from what was shown."""


class PullState(StrEnum):
    OPEN = "open"
    MERGED = "merged"
    CLOSED = "closed"


class MergeMethod(StrEnum):
    MERGE = "merge"
    SQUASH = "squash"
    REBASE = "rebase"


class Check(Value):
    name: str
    passed: bool
    summary: str = ""
    at: UtcDatetime


class Comment(Value):
    author: str
    body: str
    path: str | None = None  # with `line`: an inline comment on the new side
    line: int | None = None
    at: UtcDatetime


class Review(Value):
    author: str
    verdict: str  # approve | request_changes | comment
    body: str
    head_commit: str
    at: UtcDatetime


class FileChange(Value):
    path: str
    additions: int  # 0 for a binary file
    deletions: int


class PullRequest(Value):
    number: int
    title: str
    body: str
    branch: str
    base_branch: str
    head_commit: str
    base_commit: str  # the commit the branch was made from
    author: str
    state: PullState = PullState.OPEN
    merge_commit: str | None = None
    files: tuple[FileChange, ...] = ()
    checks: tuple[Check, ...] = ()
    comments: tuple[Comment, ...] = ()
    reviews: tuple[Review, ...] = ()
    created_at: UtcDatetime
    updated_at: UtcDatetime

    @property
    def additions(self) -> int:
        return sum(change.additions for change in self.files)

    @property
    def deletions(self) -> int:
        return sum(change.deletions for change in self.files)


class Conflict(Value):
    """Two open pull requests whose changes cannot both be merged as they stand."""

    number: int
    other: int
    paths: tuple[str, ...]


class Forge(Protocol):
    """One project's code host. Times come in as arguments; the forge has no clock."""

    async def sync(self) -> tuple[str, str]:
        """Bring the newest default branch here. Returns (branch name, commit). Raises `RepositoryUnusable`."""
        ...

    @property
    def base_repository(self) -> Path:
        """A bare repository with the default branch's history alone, after `sync`: safe to show to a task."""
        ...

    async def read_file(self, commit: str, path: str) -> bytes | None:
        """One file of a commit of the default branch, or None where it is not there. At most 1 MiB, else ForgeError."""
        ...

    async def import_patch(
        self, *, base_commit: str, patch: bytes, branch: str, message: str, author: str, at: UtcDatetime
    ) -> str:
        """Make the commit `base_commit` + `patch` (of `git diff --binary --full-index`) and return its id.

        Works in a fresh, throw-away index, never in a work tree with hooks, filters or attributes in force. The same arguments give the same commit id.
        Raises `PatchRefused` when it does not apply. The commit is kept under `branch` locally; `push` publishes it.
        """
        ...

    async def push(self, *, branch: str, commit: str) -> None:
        """Publish the branch at that commit. Again with the same commit: nothing happens. Raises `PushRefused`."""
        ...

    async def open_pull(
        self,
        *,
        branch: str,
        commit: str,
        base_branch: str,
        base_commit: str,
        title: str,
        body: str,
        author: str,
        at: UtcDatetime,
    ) -> PullRequest:
        """Open the pull request of the branch, or return the one that is already open for it."""
        ...

    async def get_pull(self, number: int) -> PullRequest: ...

    async def list_pulls(self, state: PullState | None = None) -> list[PullRequest]:
        """Newest first."""
        ...

    async def diff(self, base_commit: str, head: str) -> str:
        """Unified diff from the merge base of both to `head` (a branch of ours or a commit)."""
        ...

    async def changes(self, base_commit: str, head: str) -> list[FileChange]:
        """What changed from `base_commit` to `head`, a file each; a rename counts as both of its paths."""
        ...

    async def set_check(self, number: int, check: Check) -> PullRequest: ...

    async def add_comment(self, number: int, comment: Comment, key: str) -> PullRequest:
        """`key` makes a repeat recognizable."""
        ...

    async def add_review(self, number: int, review: Review, key: str) -> PullRequest: ...

    async def merge(
        self, number: int, *, method: MergeMethod, head_commit: str, author: str, at: UtcDatetime
    ) -> PullRequest:
        """Merge, if the head still is `head_commit`. Raises `NotMergeable`."""
        ...

    async def close(self, number: int, *, at: UtcDatetime) -> PullRequest: ...

    async def conflicts(self, number: int) -> list[Conflict]:
        """The other open pull requests that this one conflicts with (git merge-tree)."""
        ...
