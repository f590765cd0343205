"""GitHub's objects turned into our values, the same way whether a webhook brought them or polling found them.

Nothing here asks GitHub or keeps anything. What lacks that without which the value would say nothing (a number, a commit) is `Malformed`.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime

from codespar.domain.builds import Conclusion, Run
from codespar.domain.happenings import (
    NO_COMMIT,
    Checked,
    IssueChanged,
    PullAction,
    PullChanged,
    Reviewed,
)
from codespar.forges.base import ForgeError, PostedComment
from codespar.forges.github.models import (
    BranchOfStatus,
    CheckRun,
    Issue,
    Pull,
    PullReference,
    Remark,
    Repository,
    Status,
    SubmittedReview,
    Workflow,
    WorkflowRun,
)

LONGEST_DELIVERY = 190  # of `News.delivery`
TEMPORARY = "gh-readonly-queue/"  # branches that the merge queue makes and takes away by itself
_VERDICTS = {
    "approved": "approve",
    "changes_requested": "request_changes",
    "commented": "comment",
    "dismissed": "dismissed",
}
_STATES = {"success": Conclusion.SUCCESS, "failure": Conclusion.FAILURE, "error": Conclusion.FAILURE}
_NUMBER_AT_END = re.compile(r"/(?:pulls|issues)/(\d{1,18})/?\Z")


class Malformed(ForgeError):
    """What GitHub sent lacks something without which it says nothing. Nobody need send it again; it stays so."""


def needed(value: str | int | None, what: str) -> str:
    """The value as text. Raises `Malformed`, naming what is missing."""
    if value is None or value == "":
        raise Malformed(f"GitHub's message has no {what}")
    return str(value)


def number_of(value: int | None, what: str) -> int:
    if value is None or value < 1:
        raise Malformed(f"GitHub's message has no {what}")
    return value


def delivery_id(*parts: object) -> str:
    """The name of something that polling found: the same whenever the same is found. One that is too long ends in its own digest."""
    whole = ":".join(str(part) for part in parts)
    if len(whole) <= LONGEST_DELIVERY:
        return whole
    return f"{whole[:125]}:{hashlib.sha256(whole.encode(errors='replace')).hexdigest()}"


def commit_or_none(commit: str) -> str:
    """The commit; `NO_COMMIT` for zeros of whatever hash the repository uses."""
    return NO_COMMIT if not commit.strip("0") else commit


def concluded(status: str, conclusion: str | None) -> Conclusion | None:
    """How it ended, None while it is under way. An ending in a word that GitHub added later is neutral: neither good nor bad."""
    if status not in ("", "completed"):
        return None  # what it concluded before it was run again
    if not conclusion:
        return Conclusion.NEUTRAL if status else None
    try:
        return Conclusion(conclusion)
    except ValueError:
        return Conclusion.NEUTRAL


def pull_changed(pull: Pull, action: PullAction, seen: datetime) -> PullChanged:
    return PullChanged(
        action=action,
        number=number_of(pull.number, "number of the pull request"),
        title=pull.title,
        head_commit=needed(pull.head.sha, "head commit of the pull request"),
        branch=pull.head.ref,
        base_branch=pull.base.ref,
        author=pull.user.login,
        draft=pull.draft,
        fork=pull.fork,
        updated_at=pull.updated_at or seen,
    )


def reviewed(review: SubmittedReview, number: int | None) -> Reviewed | None:
    """The review; None where it is not handed in yet, or says something that we do not know."""
    verdict = _VERDICTS.get(review.state.lower())
    if verdict is None:
        return None
    return Reviewed(
        number=number_of(number, "number of the pull request"),
        author=review.user.login,
        verdict=verdict,
        id=f"pullrequestreview-{needed(review.id, 'id of the review')}",
    )


def commented_on_line(remark: Remark, number: int | None) -> Reviewed:
    return Reviewed(
        number=number_of(number, "number of the pull request"),
        author=remark.user.login,
        verdict="comment",
        id=f"discussion_r{needed(remark.id, 'id of the comment')}",
    )


def posted(remark: Remark, number: int | None, seen: datetime) -> PostedComment:
    """A comment. Its id is the anchor that it has on GitHub's page, for the three kinds are counted apart."""
    on_line = remark.path is not None or bool(remark.pull_request_url)
    if number is None and (found := _NUMBER_AT_END.search(remark.pull_request_url or remark.issue_url)):
        number = int(found[1])
    written = remark.created_at or remark.updated_at or seen
    return PostedComment(
        id=f"{'discussion_r' if on_line else 'issuecomment-'}{needed(remark.id, 'id of the comment')}",
        number=number_of(number, "number of what is commented on"),
        author=remark.user.login,
        author_id=str(remark.user.id) if remark.user.id is not None else "",
        body=remark.body,
        at=written,
        edited=remark.updated_at is not None and remark.updated_at > written,
        bot=remark.user.bot,
        path=remark.path,
        url=remark.html_url,
    )


def words_of_review(review: SubmittedReview, number: int | None, seen: datetime) -> PostedComment | None:
    """What somebody wrote with a review; None where that is nothing."""
    if not review.body.strip():
        return None
    return PostedComment(
        id=f"pullrequestreview-{needed(review.id, 'id of the review')}",
        number=number_of(number, "number of the pull request"),
        author=review.user.login,
        author_id=str(review.user.id) if review.user.id is not None else "",
        body=review.body,
        at=review.submitted_at or seen,
        bot=review.user.bot,
        url=review.html_url,
    )


def issue_changed(issue: Issue, action: str) -> IssueChanged:
    return IssueChanged(
        action=action,
        number=number_of(issue.number, "number of the issue"),
        title=issue.title,
        author=issue.user.login,
    )


def run_of(run: WorkflowRun, repository: Repository, seen: datetime, workflow: Workflow | None = None) -> Run:
    """One attempt of a workflow. The branch of a fork's run is called `owner:branch`, so that nobody takes a fork's `main` for ours."""
    started = run.run_started_at or run.created_at or run.updated_at or seen
    known = workflow or Workflow()
    return Run(
        id=needed(run.id, "id of the run"),
        attempt=max(1, run.run_attempt or 1),
        workflow=run.name
        or known.name
        or run.path
        or known.path
        or f"workflow {run.workflow_id or ''}".strip(),
        branch=_branch_of(run, repository),
        commit=needed(run.head_sha, "commit of the run"),
        event=run.event,
        title=run.display_title,
        url=run.html_url,
        pulls=_pulls(run.pull_requests, repository),
        conclusion=concluded(run.status, run.conclusion),
        started_at=started,
        updated_at=run.updated_at or started,
    )


def of_actions(check: CheckRun) -> bool:
    """Whether it is a job of GitHub Actions, which the run it belongs to tells of."""
    return check.app.slug == "github-actions"


def check_of(check: CheckRun, repository: Repository, seen: datetime, branch: str = "") -> Checked:
    """A check as a run of one attempt. GitHub gives a check that is run again another id and no attempt; what stays the same, and is
    the run's id here, is `check:<commit>:<app>:<name>`. So the later of two takes the place of the earlier."""
    commit, name = needed(check.head_sha, "commit of the check"), needed(check.name, "name of the check")
    started = check.started_at or check.completed_at or seen
    return Checked(
        run=Run(
            id=f"check:{commit}:{check.app.id or ''}:{name}",
            workflow=name,
            branch=branch or check.check_suite.head_branch,
            commit=commit,
            event="check_run",
            title=check.app.name,
            url=check.html_url or check.details_url,
            pulls=_pulls(check.pull_requests, repository),
            conclusion=concluded(check.status, check.conclusion),
            started_at=started,
            updated_at=max(check.completed_at or started, started),
        )
    )


def status_of(
    status: Status, repository: Repository, seen: datetime, *, commit: str = "", branch: str = ""
) -> Checked:
    """A plain status as a run of one attempt, whose id is `status:<commit>:<context>`: the later of two takes the place of the earlier."""
    sha, state = needed(status.sha or commit, "commit of the status"), needed(status.state, "state")
    context = status.context or "default"
    started = status.created_at or status.updated_at or seen
    return Checked(
        run=Run(
            id=f"status:{sha}:{context}",
            workflow=context,
            branch=branch or _best(status.branches, sha, repository.default_branch),
            commit=sha,
            event="status",
            title=status.description,
            url=status.target_url,
            conclusion=None if state == "pending" else _STATES.get(state, Conclusion.NEUTRAL),
            started_at=started,
            updated_at=status.updated_at or started,
        )
    )


def _branch_of(run: WorkflowRun, repository: Repository) -> str:
    ours = run.repository if run.repository.id is not None else repository
    theirs = run.head_repository
    if theirs is None:  # it was deleted, as only a fork can be
        return f"unknown:{run.head_branch}" if run.event.startswith("pull_request") else run.head_branch
    if theirs.id == ours.id or ours.id is None:
        return run.head_branch
    return f"{theirs.owner.login or theirs.full_name.partition('/')[0] or 'unknown'}:{run.head_branch}"


def _pulls(references: tuple[PullReference, ...], repository: Repository) -> tuple[int, ...]:
    """GitHub also names pull requests that the same commit has in other repositories; ours alone count."""
    return tuple(
        reference.number
        for reference in references
        if reference.number is not None
        and (
            reference.base.repo is None
            or repository.id is None
            or reference.base.repo.id in (None, repository.id)
        )
    )


def _best(branches: tuple[BranchOfStatus, ...], commit: str, default: str) -> str:
    """The branch to name where a commit is in several: one whose newest commit it is, and the default branch rather than others."""
    at_tip = [branch.name for branch in branches if branch.commit.sha == commit]
    names = at_tip or [branch.name for branch in branches]
    return default if default in names else next(iter(names), "")
