"""What happens at a code host, free of any host: a push, a pull request that changed, a run that ended.

Forges turn webhooks and what polling finds into `News`; the Project Agent decides on them one by one, in its project's own order. Nobody
may rely on the order in which they come, nor on each coming once.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from codespar.domain.base import Value
from codespar.domain.builds import Run
from codespar.domain.messages import UtcDatetime

NO_COMMIT = "0" * 40


class Pushed(Value):
    kind: Literal["push"] = "push"
    branch: str
    before: str  # `NO_COMMIT`: the branch is new
    after: str  # `NO_COMMIT`: the branch was deleted
    default: bool  # it is the default branch
    forced: bool = False
    author: str = ""


class PullAction(StrEnum):
    OPENED = "opened"
    UPDATED = "updated"  # its head moved
    READY = "ready"  # it was a draft
    REOPENED = "reopened"
    EDITED = "edited"  # title, body, base
    CLOSED = "closed"
    MERGED = "merged"
    OTHER = "other"  # labels, reviewers, a draft again: known, and nothing follows


class PullChanged(Value):
    kind: Literal["pull"] = "pull"
    action: PullAction
    number: int
    title: str
    head_commit: str
    branch: str
    base_branch: str
    author: str
    draft: bool = False
    fork: bool = False  # its branch is in another repository
    updated_at: UtcDatetime


class Reviewed(Value):
    """Somebody reviewed a pull request, or commented on its lines."""

    kind: Literal["review"] = "review"
    number: int
    author: str
    verdict: str  # approve | request_changes | comment | dismissed
    id: str


class IssueChanged(Value):
    kind: Literal["issue"] = "issue"
    action: str
    number: int
    title: str
    author: str


class Ran(Value):
    """A run began, went on or ended."""

    kind: Literal["run"] = "run"
    run: Run


class Checked(Value):
    """A check or a status of a commit changed. What builds are made of where a host has no runs."""

    kind: Literal["check"] = "check"
    run: Run  # of the check: its name is the workflow


class Deployed(Value):
    kind: Literal["deployment"] = "deployment"
    deployment: str
    environment: str
    state: str
    commit: str


class InstallationChanged(Value):
    """Our access changed. `repositories` are those it concerns; none named: all of the installation's."""

    kind: Literal["installation"] = "installation"
    action: Literal["created", "deleted", "suspended", "unsuspended", "added", "removed", "permissions"]
    account: str
    repositories: tuple[str, ...] = ()


class RepositoryChanged(Value):
    kind: Literal["repository"] = "repository"
    action: Literal["renamed", "transferred", "deleted", "archived", "unarchived", "default_branch"]
    old: str = ""  # the full name, or the default branch, as it was
    new: str = ""


class Pinged(Value):
    """The host tried whether we are there."""

    kind: Literal["ping"] = "ping"
    hook: str = ""


Happening = Annotated[
    Pushed
    | PullChanged
    | Reviewed
    | IssueChanged
    | Ran
    | Checked
    | Deployed
    | InstallationChanged
    | RepositoryChanged
    | Pinged,
    Field(discriminator="kind"),
]


class News(Value):
    """One thing that happened. `delivery` is the same for every repeat of the same delivery."""

    delivery: str = Field(min_length=1, max_length=190)
    repository: str  # the host's full name, `owner/name`; empty where it concerns none
    sender: str = ""  # the host's name of who did it
    at: UtcDatetime
    what: Happening
