"""GitHub's objects as far as we read them, in webhooks and in answers alike.

They are tolerant on purpose: GitHub adds fields, leaves some out and sends null where none was before, and Enterprise servers are years
apart. An unknown field is passed over, and one of the wrong shape counts as missing; none of that may ever raise. Whether what is left is
enough is decided where it is used.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)


class Loose(BaseModel):
    """An object of GitHub's. Every field has a default, which also stands for what cannot be read."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _as_far_as_it_can_be_read(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        try:
            return _clean(handler(value))
        except (ValidationError, OverflowError):
            if isinstance(value, list):  # what can be read of it
                items = cast("list[Any]", value)
                try:
                    return handler([item for item in items if isinstance(item, dict)])
                except ValidationError:
                    pass
            name = info.field_name or ""
            return cls.model_fields[name].get_default(call_default_factory=True)


def _clean(value: Any) -> Any:
    """Text without what databases and UTF-8 refuse; a time in UTC. Raises OverflowError for a time that has none there."""
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value


class User(Loose):
    login: str = ""
    id: int | None = None
    type: str = ""

    @property
    def bot(self) -> bool:
        return self.type == "Bot" or self.login.endswith("[bot]")


class Repository(Loose):
    id: int | None = None
    name: str = ""
    full_name: str = ""
    default_branch: str = ""
    owner: User = Field(default_factory=User)
    archived: bool = False
    pushed_at: datetime | None = None  # seconds since 1970 in a push, a date elsewhere


class Tip(Loose):
    """A branch of a pull request."""

    ref: str = ""
    sha: str = ""
    repo: Repository | None = None  # None: the fork was deleted


class Pull(Loose):
    id: int | None = None
    number: int | None = None
    title: str = ""
    body: str = ""
    state: str = ""
    draft: bool = False
    merged: bool = False
    merged_at: datetime | None = None
    closed_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    user: User = Field(default_factory=User)
    head: Tip = Field(default_factory=Tip)
    base: Tip = Field(default_factory=Tip)

    @property
    def is_merged(self) -> bool:
        return self.merged or self.merged_at is not None

    @property
    def fork(self) -> bool:
        """Whether its branch is in another repository. One that is deleted was another: we would know our own."""
        if self.head.repo is None:
            return True
        ours = self.base.repo
        return ours is not None and self.head.repo.id != ours.id


class Label(Loose):
    name: str = ""


class Issue(Loose):
    number: int | None = None
    title: str = ""
    body: str = ""
    state: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    closed_at: datetime | None = None
    user: User = Field(default_factory=User)
    labels: tuple[Label, ...] = ()
    pull_request: dict[str, Any] | None = None  # present where the issue is a pull request


class Remark(Loose):
    """A comment in an issue or pull request, or on a line of the diff."""

    id: int | None = None
    body: str = ""
    path: str | None = None
    user: User = Field(default_factory=User)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    html_url: str = ""
    issue_url: str = ""
    pull_request_url: str = ""


class SubmittedReview(Loose):
    id: int | None = None
    body: str = ""
    state: str = ""
    user: User = Field(default_factory=User)
    submitted_at: datetime | None = None
    html_url: str = ""


class PullReference(Loose):
    """A pull request as a run names it."""

    number: int | None = None
    base: Tip = Field(default_factory=Tip)


class Workflow(Loose):
    name: str = ""
    path: str = ""


class WorkflowRun(Loose):
    id: int | None = None
    name: str = ""
    path: str = ""
    display_title: str = ""
    event: str = ""
    status: str = ""
    conclusion: str | None = None
    head_branch: str = ""
    head_sha: str = ""
    html_url: str = ""
    run_attempt: int | None = None
    workflow_id: int | None = None
    created_at: datetime | None = None
    run_started_at: datetime | None = None
    updated_at: datetime | None = None
    pull_requests: tuple[PullReference, ...] = ()
    repository: Repository = Field(default_factory=Repository)
    head_repository: Repository | None = None


class App(Loose):
    id: int | None = None
    slug: str = ""
    name: str = ""


class CheckSuite(Loose):
    head_branch: str = ""


class CheckRun(Loose):
    id: int | None = None
    name: str = ""
    head_sha: str = ""
    status: str = ""
    conclusion: str | None = None
    html_url: str = ""
    details_url: str = ""
    started_at: datetime | None = None
    completed_at: datetime | None = None
    app: App = Field(default_factory=App)
    check_suite: CheckSuite = Field(default_factory=CheckSuite)
    pull_requests: tuple[PullReference, ...] = ()


class BranchOfStatus(Loose):
    name: str = ""
    commit: Tip = Field(default_factory=Tip)


class Status(Loose):
    """A plain status of a commit. In a webhook its fields stand at the top of the payload."""

    sha: str = ""
    state: str = ""
    context: str = ""
    description: str = ""
    target_url: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    branches: tuple[BranchOfStatus, ...] = ()


class Deployment(Loose):
    id: int | None = None
    sha: str = ""
    environment: str = ""


class DeploymentStatus(Loose):
    state: str = ""
    environment: str = ""
    updated_at: datetime | None = None


class Installation(Loose):
    id: int | None = None
    account: User = Field(default_factory=User)


class FormerText(Loose):
    """What something was called before it changed."""

    was: str = Field(default="", alias="from")


class FormerName(Loose):
    name: FormerText = Field(default_factory=FormerText)


class Owners(Loose):
    user: User = Field(default_factory=User)
    organization: User = Field(default_factory=User)


class FormerOwner(Loose):
    was: Owners = Field(default_factory=Owners, alias="from")


class Changes(Loose):
    default_branch: FormerText | None = None
    repository: FormerName = Field(default_factory=FormerName)
    owner: FormerOwner = Field(default_factory=FormerOwner)


class Named(Loose):
    """A person of a push, as git knows them."""

    name: str = ""


class Reference(Loose):
    """A branch in the list of references."""

    ref: str = ""
    object: Tip = Field(default_factory=Tip)


class Activity(Loose):
    """A movement of a branch, as the repository's activity tells it."""

    ref: str = ""
    before: str = ""
    after: str = ""
    timestamp: datetime | None = None
    activity_type: str = ""
    actor: User = Field(default_factory=User)


class Payload(Status):
    """What a webhook brings. Which of it is there depends on the event; a status' own fields stand at the top."""

    action: str = ""
    repository: Repository = Field(default_factory=Repository)
    sender: User = Field(default_factory=User)
    installation: Installation = Field(default_factory=Installation)
    changes: Changes = Field(default_factory=Changes)
    pull_request: Pull = Field(default_factory=Pull)
    issue: Issue = Field(default_factory=Issue)
    comment: Remark = Field(default_factory=Remark)
    review: SubmittedReview = Field(default_factory=SubmittedReview)
    workflow_run: WorkflowRun = Field(default_factory=WorkflowRun)
    workflow: Workflow = Field(default_factory=Workflow)
    check_run: CheckRun = Field(default_factory=CheckRun)
    deployment: Deployment = Field(default_factory=Deployment)
    deployment_status: DeploymentStatus = Field(default_factory=DeploymentStatus)
    repositories: tuple[Repository, ...] = ()
    repositories_added: tuple[Repository, ...] = ()
    repositories_removed: tuple[Repository, ...] = ()
    hook_id: int | None = None
    ref: str = ""
    before: str = ""
    after: str = ""
    forced: bool = False
    pusher: Named = Field(default_factory=Named)
