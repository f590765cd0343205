"""GitHub's answers turned into the values of the port. Nothing here asks GitHub or keeps anything."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from pydantic import Field

from codespar.domain.builds import BuildJob, Conclusion, Step
from codespar.domain.reviews import ReviewVerdict
from codespar.forges.base import Artefact, Check, PullRequest, PullState
from codespar.forges.base import Issue as PortIssue
from codespar.forges.github.models import CheckRun, Issue, Label, Loose, Pull, Status, User, WorkflowRun
from codespar.forges.github.payloads import concluded, needed, number_of

PASSING = (Conclusion.SUCCESS, Conclusion.NEUTRAL, Conclusion.SKIPPED)  # GitHub merges with these
_VERDICTS = {
    "APPROVED": ReviewVerdict.APPROVE,
    "CHANGES_REQUESTED": ReviewVerdict.REQUEST_CHANGES,
    "COMMENTED": ReviewVerdict.COMMENT,
    "DISMISSED": ReviewVerdict.COMMENT,
}
EVENTS = {
    ReviewVerdict.APPROVE: "APPROVE",
    ReviewVerdict.REQUEST_CHANGES: "REQUEST_CHANGES",
    ReviewVerdict.COMMENT: "COMMENT",
}
_STATUSES = {"success": Conclusion.SUCCESS, "failure": Conclusion.FAILURE, "error": Conclusion.FAILURE}


class PullData(Pull):
    node_id: str = ""
    html_url: str = ""
    merge_commit_sha: str = ""
    mergeable_state: str = ""
    labels: tuple[Label, ...] = ()
    requested_reviewers: tuple[User, ...] = ()


class Output(Loose):
    title: str = ""
    summary: str = ""
    text: str = ""
    annotations_count: int = 0


class CheckData(CheckRun):
    external_id: str = ""
    output: Output = Field(default_factory=Output)


class StepData(Loose):
    number: int = 0
    name: str = ""
    status: str = ""
    conclusion: str | None = None


class JobData(Loose):
    id: int | None = None
    name: str = ""
    status: str = ""
    conclusion: str | None = None
    html_url: str = ""
    steps: tuple[StepData, ...] = ()


class ArtefactData(Loose):
    id: int | None = None
    name: str = ""
    size_in_bytes: int = 0
    expired: bool = False


class IssueData(Issue):
    html_url: str = ""


def pull_of(data: PullData, seen: datetime) -> PullRequest:
    """The pull request without files, and with the base branch's commit as `base_commit`. Raises `Malformed`."""
    created = data.created_at or data.updated_at or seen
    if data.is_merged:
        state = PullState.MERGED
    else:
        state = PullState.CLOSED if data.state == "closed" else PullState.OPEN
    return PullRequest(
        number=number_of(data.number, "number of the pull request"),
        title=data.title,
        body=data.body,
        branch=data.head.ref,
        base_branch=data.base.ref,
        head_commit=needed(data.head.sha, "head commit of the pull request"),
        base_commit=needed(data.base.sha, "base commit of the pull request"),
        author=data.user.login,
        state=state,
        merge_commit=(data.merge_commit_sha or None) if data.is_merged else None,
        created_at=created,
        updated_at=data.updated_at or created,
        draft=data.draft,
        labels=tuple(label.name for label in data.labels),
        url=data.html_url,
        fork=data.fork,
        bot=data.user.bot,
    )


def issue_of(data: IssueData) -> PortIssue:
    return PortIssue(
        number=number_of(data.number, "number of the issue"),
        title=data.title,
        body=data.body,
        author=data.user.login,
        open=data.state != "closed",
        labels=tuple(label.name for label in data.labels),
        url=data.html_url,
    )


def check_of_run(data: CheckData, seen: datetime) -> Check:
    ended = concluded(data.status, data.conclusion)
    return Check(
        name=needed(data.name, "name of the check"),
        passed=None if ended is None else ended in PASSING,
        summary=data.output.summary,
        title=data.output.title,
        text=data.output.text,
        url=data.html_url or data.details_url,
        conclusion=ended,
        at=data.completed_at or data.started_at or seen,
    )


def check_of_status(data: Status, seen: datetime) -> Check:
    ended = None if data.state == "pending" else _STATUSES.get(data.state, Conclusion.NEUTRAL)
    return Check(
        name=data.context or "default",
        passed=None if ended is None else ended in PASSING,
        summary=data.description,
        url=data.target_url,
        conclusion=ended,
        at=data.updated_at or data.created_at or seen,
    )


def check_of_workflow(data: WorkflowRun, seen: datetime) -> Check:
    ended = concluded(data.status, data.conclusion)
    return Check(
        name=data.name or data.path or "workflow",
        passed=None if ended is None else ended in PASSING,
        title=data.display_title,
        url=data.html_url,
        conclusion=ended,
        at=data.updated_at or data.run_started_at or seen,
    )


def job_of(data: JobData) -> BuildJob:
    return BuildJob(
        id=needed(data.id, "id of the job"),
        name=data.name,
        conclusion=concluded(data.status, data.conclusion),
        url=data.html_url,
        steps=tuple(
            Step(number=step.number, name=step.name, conclusion=concluded(step.status, step.conclusion))
            for step in data.steps
        ),
    )


def artefact_of(data: ArtefactData) -> Artefact:
    return Artefact(
        id=needed(data.id, "id of the artefact"),
        name=data.name,
        size=data.size_in_bytes,
        expired=data.expired,
    )


def verdict_of(state: object, otherwise: ReviewVerdict) -> ReviewVerdict:
    return _VERDICTS.get(str(state).upper(), otherwise)


def stamp(at: datetime) -> str:
    """A time as GitHub writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def fingerprint(check: Check) -> str:
    """What a check says, in short: the same for the same."""
    return hashlib.sha256(check.model_dump_json(exclude={"at"}).encode()).hexdigest()[:32]


def id_in(data: Any) -> str:
    """The id of what GitHub just made. Raises `Malformed`."""
    id: object = data.get("id") if isinstance(data, dict) else None  # pyright: ignore[reportUnknownMemberType]
    return needed(id if isinstance(id, int) else None, "id")
