"""The port to a code host: branches, pull requests and their life.

Every method is idempotent: done again after a crash it finds its own earlier trace and returns the same answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from codespar.domain.base import CodesparError, Value
from codespar.domain.builds import BuildJob, CommitLine, Conclusion, Run
from codespar.domain.happenings import News
from codespar.domain.messages import UtcDatetime
from codespar.domain.reviews import ReviewVerdict, Side


class ForgeError(CodesparError):
    """The root of what a forge can refuse.

    ForgeError
     ├─ RepositoryUnusable    missing, empty, not a repository, no default branch
     ├─ PatchRefused          a task's change does not apply, or tries what it may not
     ├─ PushRefused           the host did not take the branch
     ├─ PullRequestNotFound   there is none of that number
     ├─ NotMergeable          conflicts, closed, moved, or its checks are not green
     ├─ NotOnDiff             an inline comment's lines are not in the diff (any more)
     ├─ Gone                  what was to be changed or read is not there any more
     ├─ AccessLost            our access was taken away, or does not cover this
     ├─ NotSupported          this host cannot do that
     └─ ForgeUnavailable      not now: a limit, a network, a host that is down
    """


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


class NotOnDiff(ForgeError):
    """The lines of an inline comment are not in the diff of the pull request (any more)."""


class Gone(ForgeError):
    """What was to be changed or read is not there any more: a comment, a log that has expired."""


class AccessLost(ForgeError):
    """The host refuses our credentials: revoked, suspended, or without the permission that the text names."""


class NotSupported(ForgeError):
    """This host cannot do that."""


class ForgeUnavailable(ForgeError):
    """The host did not answer, or asks for patience. `retry_after` is in seconds, where it says so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PullState(StrEnum):
    OPEN = "open"
    MERGED = "merged"
    CLOSED = "closed"


class MergeMethod(StrEnum):
    MERGE = "merge"
    SQUASH = "squash"
    REBASE = "rebase"


class Annotation(Value):
    """A remark of a check on lines of the head commit."""

    path: str
    start_line: int
    end_line: int
    level: str  # notice | warning | failure
    title: str = ""
    message: str


class Check(Value):
    """What something says of a commit. The same `name` again replaces what it said before."""

    name: str
    passed: bool | None  # None: under way
    summary: str = ""
    at: UtcDatetime
    title: str = ""
    text: str = ""  # Markdown, the long form
    url: str = ""
    annotations: tuple[Annotation, ...] = ()
    conclusion: Conclusion | None = None  # where `passed` says too little: neutral, skipped, cancelled

    @property
    def ended_as(self) -> Conclusion | None:
        """How it ended; None while it is under way."""
        if self.conclusion is not None or self.passed is None:
            return self.conclusion
        return Conclusion.SUCCESS if self.passed else Conclusion.FAILURE


class Comment(Value):
    author: str
    body: str
    path: str | None = None  # with `line`: an inline comment
    line: int | None = None
    at: UtcDatetime
    id: str = ""  # the host's
    start_line: int | None = None
    side: Side = Side.NEW
    author_id: str = ""  # the host's id of the author


class Review(Value):
    author: str
    verdict: str  # approve | request_changes | comment
    body: str
    head_commit: str
    at: UtcDatetime
    id: str = ""


class InlineComment(Value):
    """A comment on lines of the diff, to be posted with a review."""

    path: str
    line: int  # the last line
    start_line: int | None = None  # the first of several
    side: Side = Side.NEW
    body: str


class ReviewDraft(Value):
    """A review to be posted: all of it, or nothing."""

    head_commit: str
    verdict: ReviewVerdict
    body: str
    comments: tuple[InlineComment, ...] = ()


class PostedReview(Value):
    """A review as it stands at the host. `comments` are the ids in the order of the draft's; `refused` are the places in the draft of those
    the host could not hold on their lines, whose id is empty."""

    id: str
    comments: tuple[str, ...] = ()
    refused: tuple[int, ...] = ()
    url: str = ""
    verdict: ReviewVerdict = ReviewVerdict.COMMENT  # what it was posted as: a host may not let us approve


class Issue(Value):
    number: int
    title: str
    body: str
    author: str
    open: bool
    labels: tuple[str, ...] = ()
    url: str = ""


class Artefact(Value):
    """A file that a run left."""

    id: str
    name: str
    size: int  # bytes
    expired: bool = False


class Polled(Value):
    """What happened since the last look. `cursor` is given back at the next one; it is JSON and ours to keep."""

    news: tuple[News, ...] = ()
    comments: tuple[PostedComment, ...] = ()
    cursor: dict[str, Any] = {}


class PostedComment(Value):
    """A comment that somebody wrote in an issue or pull request."""

    id: str
    number: int
    author: str
    author_id: str
    body: str
    at: UtcDatetime
    edited: bool = False
    bot: bool = False  # a program wrote it
    path: str | None = None  # it stands on a line of the diff
    url: str = ""


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
    draft: bool = False
    labels: tuple[str, ...] = ()
    url: str = ""
    fork: bool = False  # its branch is in another repository, whose owner we do not know
    bot: bool = False  # a program opened it
    queued: bool = False  # it stands in the host's merge queue

    @property
    def additions(self) -> int:
        return sum(change.additions for change in self.files)

    @property
    def deletions(self) -> int:
        return sum(change.deletions for change in self.files)


class PastCommit(Value):
    """A commit of the default branch's history, with those of the asked paths that it touched."""

    commit: str
    author: str
    title: str
    at: UtcDatetime
    reverts: bool  # it takes an earlier commit back
    paths: tuple[str, ...]


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

    @property
    def whole_repository(self) -> Path:
        """A bare repository with everything that was fetched, of whomever. Never shown to a task."""
        ...

    @property
    def repository_name(self) -> str:
        """As people and the host call it: `owner/name`, or a path."""
        ...

    async def read_file(self, commit: str, path: str) -> bytes | None:
        """One file of a commit that is here, or None where it is not there. At most 1 MiB, else ForgeError."""
        ...

    async def paths(self, commit: str) -> list[str]:
        """All files of a commit that is here, in git's order."""
        ...

    async def fetch_pull(self, number: int) -> PullRequest:
        """The pull request as it is now, with the commits of its head and base brought here, so that `diff`, `patch`, `changes` and
        `read_file` know them; `base_commit` is the merge base. Raises `PullRequestNotFound`, `Gone` when its commits are not there."""
        ...

    async def patch(self, base_commit: str, head: str, cap: int) -> bytes:
        """`git diff --binary --full-index` from the merge base to `head`: what `Order.patch` takes. Raises `ForgeError` beyond `cap` bytes."""
        ...

    async def log(self, older: str | None, newer: str, limit: int) -> list[CommitLine]:
        """The commits that `newer` has and `older` has not, newest first."""
        ...

    async def history(
        self, commit: str, paths: Sequence[str], since: datetime, limit: int
    ) -> list[PastCommit]:
        """The commits up to `commit` that touched one of the paths since then, newest first."""
        ...

    async def behind(self, older: str, newer: str) -> int | None:
        """How many commits `newer` is ahead of `older`; None when one of them is not known here."""
        ...

    async def branches(self) -> dict[str, str]:
        """The host's branches and their commits."""
        ...

    async def fetch_branch(self, branch: str) -> str | None:
        """Bring the branch's newest commit here and return it; None when there is no such branch."""
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
        draft: bool = False,
        labels: Sequence[str] = (),
        reviewers: Sequence[str] = (),
    ) -> PullRequest:
        """Open the pull request of the branch, or return the one that is already open for it.

        Closing keywords in `body` (`Closes #12`) are the host's to understand."""
        ...

    async def get_pull(self, number: int) -> PullRequest: ...

    async def list_pulls(self, state: PullState | None = None) -> list[PullRequest]:
        """Newest first."""
        ...

    async def diff(self, base_commit: str, head: str) -> str:
        """Unified diff from the merge base of both to `head` (a branch of ours or a commit), without renames' detection switched off.

        Bytes that are no UTF-8 are shown as U+FFFD. At most 64 MiB, else ForgeError."""
        ...

    async def changes(self, base_commit: str, head: str) -> list[FileChange]:
        """What changed from `base_commit` to `head`, a file each; a rename counts as both of its paths."""
        ...

    async def set_check(self, number: int, check: Check) -> PullRequest:
        """Set a check on the head of a pull request. Said again, nothing changes."""
        ...

    async def checks(self, commit: str) -> list[Check]:
        """What everything says of a commit now, by name: check runs and statuses, the newest of each."""
        ...

    async def required_checks(self, branch: str) -> list[str]:
        """The names of the checks without which the host merges nothing into the branch; empty where it knows none.

        Raises `AccessLost` where the host does not tell all of them."""
        ...

    async def set_status(
        self, commit: str, *, context: str, state: Conclusion | None, description: str, url: str = ""
    ) -> None:
        """Set a plain status of a commit. Said again, nothing changes."""
        ...

    async def comment_commit(self, commit: str, body: str, key: str) -> str:
        """Comment on a commit, once under each `key`. Returns the comment's id."""
        ...

    async def comment(self, number: int, body: str, key: str) -> str:
        """Comment in a pull request or issue, once under each `key`. Returns the comment's id."""
        ...

    async def find_comment(self, number: int, key: str, since: datetime) -> str | None:
        """The id of the comment that was made under `key` at `since` or later."""
        ...

    async def edit_comment(self, comment: str, body: str) -> None:
        """Put `body` in the place of what a comment of ours says. Raises `Gone`."""
        ...

    async def delete_comment(self, comment: str) -> None:
        """Take a comment of ours away. No error when it is gone."""
        ...

    async def submit_review(self, number: int, draft: ReviewDraft, key: str) -> PostedReview:
        """Post a review, once under each `key`. Comments the host cannot hold on their lines are left out and named in `refused`."""
        ...

    async def review_under(self, number: int, key: str) -> PostedReview | None:
        """The review that we posted under this key, without its comments; None where none was."""
        ...

    async def resolve(self, number: int, comments: Sequence[str], note: str) -> list[str]:
        """Mark the threads that these comments of ours began as resolved, or say `note` in them where the host's programs cannot.

        Returns those that are resolved now. No error for what is gone."""
        ...

    async def issue(self, number: int) -> Issue:
        """One issue. Raises `Gone`, and `NotSupported` where the host has no issues."""
        ...

    async def runs(
        self, *, branch: str | None = None, commit: str | None = None, limit: int = 50
    ) -> list[Run]:
        """The runs of the host's continuous integration, newest first."""
        ...

    async def jobs(self, run: str, attempt: int) -> list[BuildJob]:
        """The jobs of a run's attempt."""
        ...

    def job_log(self, run: str, job: str) -> AsyncIterator[bytes]:
        """A job's log as it comes, in pieces; whoever has read enough stops. Raises `Gone` when the host keeps it no more."""
        ...

    async def report_run(self, run: Run, jobs: Sequence[BuildJob], logs: dict[str, bytes]) -> Run:
        """Keep what a continuous integration says of one of its runs; `logs` by the jobs' ids. Returns what is known of the run now, which is
        what was known already where that is as new. Raises `NotSupported` where the host has a continuous integration of its own."""
        ...

    async def artefacts(self, run: str) -> list[Artefact]: ...

    def artefact(self, id: str) -> AsyncIterator[bytes]:
        """An artefact's content (a ZIP archive at GitHub), in pieces. Raises `Gone`."""
        ...

    async def start_deployment(self, *, ref: str, environment: str, description: str, key: str) -> str:
        """Record a deployment at the host, once under each `key`. Returns its id."""
        ...

    async def set_deployment(self, deployment: str, *, state: str, description: str, url: str = "") -> None:
        """Say how a deployment stands: queued, in_progress, success, failure, inactive, error."""
        ...

    async def poll(self, cursor: dict[str, Any]) -> Polled:
        """What happened since `cursor` (empty: from now on). Asks as little as it can; raises `ForgeUnavailable`, `AccessLost`."""
        ...

    async def merge(
        self, number: int, *, method: MergeMethod, head_commit: str, author: str, at: UtcDatetime
    ) -> PullRequest:
        """Merge, if the head still is `head_commit` and what the host requires holds. Where it has a merge queue the answer may still be open
        and `queued`. Raises `NotMergeable`."""
        ...

    async def close(self, number: int, *, at: UtcDatetime) -> PullRequest: ...

    async def conflicts(self, number: int) -> list[Conflict]:
        """The other open pull requests that this one conflicts with (git merge-tree)."""
        ...
