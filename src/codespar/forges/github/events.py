"""The table of GitHub's webhook events: what follows from each action of each, and why nothing follows from the others.

It is the whole of it: docs/github-webhooks.md shows the same rows, and a test holds both and GitHub's own list of events together. A
reader turns a payload into our words and decides nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from codespar.domain.happenings import (
    NO_COMMIT,
    Deployed,
    Happening,
    InstallationChanged,
    Pinged,
    PullAction,
    Pushed,
    Ran,
    RepositoryChanged,
)
from codespar.forges.base import PostedComment
from codespar.forges.github.models import CheckRun, Payload, WorkflowRun
from codespar.forges.github.payloads import (
    TEMPORARY,
    check_of,
    commented_on_line,
    commit_or_none,
    issue_changed,
    needed,
    of_actions,
    posted,
    pull_changed,
    reviewed,
    run_of,
    status_of,
    words_of_review,
)

Ends = TypeVar("Ends", CheckRun, WorkflowRun)
ANY = "*"  # every action that has no row of its own; also an event's that has no actions


@dataclass(frozen=True, slots=True)
class Said:
    """What a rule makes of a payload."""

    what: Happening | None = None
    at: datetime | None = None  # when it happened, where GitHub says it
    comment: PostedComment | None = None
    ignored: str = ""


Reader = Callable[[Payload, datetime], Said]  # the time stands for those that GitHub does not tell


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of an event's action. `says` is for people: what follows, or why nothing does."""

    says: str
    read: Reader | None = None  # None: passed over on purpose


def rule_for(event: str, action: str) -> Rule | None:
    """The row that holds for the action; None for an event that is not in the table."""
    return TABLE.get((event, action)) or TABLE.get((event, ANY))


def takes(event: str) -> bool:
    """Whether something follows from one of the event's actions."""
    return any(name == event and rule.read is not None for (name, _), rule in TABLE.items())


def _push(read: Payload, received: datetime) -> Said:
    ref = needed(read.ref, "ref")
    if not ref.startswith("refs/heads/"):
        return Said(ignored="a tag moved: branches alone are watched")
    branch = needed(ref.removeprefix("refs/heads/"), "branch")
    if branch.startswith(TEMPORARY):
        return Said(ignored="a branch that the merge queue makes and takes away by itself")
    after = commit_or_none(needed(read.after, "commit after the push"))
    what = Pushed(
        branch=branch,
        before=commit_or_none(read.before),
        after=after,
        default=branch == read.repository.default_branch,
        forced=read.forced and after != NO_COMMIT,
        author=read.sender.login or read.pusher.name,
    )
    return Said(what=what, at=read.repository.pushed_at)


def _pull(action: PullAction) -> Reader:
    def made(read: Payload, received: datetime) -> Said:
        pull = read.pull_request
        became = PullAction.MERGED if action is PullAction.CLOSED and pull.is_merged else action
        return Said(what=pull_changed(pull, became, received), at=pull.updated_at)

    return made


def _review(read: Payload, received: datetime) -> Said:
    number = read.pull_request.number
    what = reviewed(read.review, number)
    if what is None:
        return Said(ignored="the review is not handed in yet")
    if what.verdict == "dismissed":
        return Said(what=what)
    return Said(
        what=what, at=read.review.submitted_at, comment=words_of_review(read.review, number, received)
    )


def _line_comment(read: Payload, received: datetime) -> Said:
    number = read.pull_request.number
    remark = read.comment.model_copy(update={"path": read.comment.path or ""})
    comment = posted(remark, number, received)
    return Said(what=commented_on_line(remark, comment.number), at=comment.at, comment=comment)


def _comment(read: Payload, received: datetime) -> Said:
    remark = read.comment.model_copy(update={"path": None, "pull_request_url": ""})
    return Said(comment=posted(remark, read.issue.number, received))


def _issue(read: Payload, received: datetime) -> Said:
    return Said(what=issue_changed(read.issue, read.action), at=read.issue.updated_at)


def _run(read: Payload, received: datetime) -> Said:
    run = run_of(_as_told(read, read.workflow_run), read.repository, received, read.workflow)
    return Said(what=Ran(run=run), at=run.updated_at)


def _as_told(read: Payload, one: Ends) -> Ends:
    """What an action says has completed has, whatever its own status says beside its conclusion."""
    if read.action == "completed" and (one.conclusion or not one.status):
        return one.model_copy(update={"status": "completed"})
    return one


def _check(read: Payload, received: datetime) -> Said:
    if of_actions(read.check_run):
        return Said(ignored="a job of GitHub Actions: `workflow_run` tells of the whole run")
    what = check_of(_as_told(read, read.check_run), read.repository, received)
    return Said(what=what, at=what.run.updated_at)


def _status(read: Payload, received: datetime) -> Said:
    what = status_of(read, read.repository, received)
    return Said(what=what, at=what.run.updated_at)


def _deployment(read: Payload, received: datetime) -> Said:
    what = Deployed(
        deployment=needed(read.deployment.id, "id of the deployment"),
        environment=read.deployment_status.environment or read.deployment.environment,
        state=needed(read.deployment_status.state, "state of the deployment"),
        commit=read.deployment.sha,
    )
    return Said(what=what, at=read.deployment_status.updated_at)


_Access = Literal["created", "deleted", "suspended", "unsuspended", "added", "removed", "permissions"]


def _installation(action: _Access) -> Reader:
    def made(read: Payload, received: datetime) -> Said:
        named = {"added": read.repositories_added, "removed": read.repositories_removed}
        what = InstallationChanged(
            action=action,
            account=needed(read.installation.account.login, "account of the installation"),
            repositories=tuple(
                one.full_name for one in named.get(action, read.repositories) if one.full_name
            ),
        )
        if action in named and not what.repositories:
            return Said(ignored="it names no repository")
        return Said(what=what)

    return made


def _repository(
    action: Literal["deleted", "archived", "unarchived"],
) -> Reader:
    def made(read: Payload, received: datetime) -> Said:
        name = needed(read.repository.full_name, "name of the repository")
        return Said(what=RepositoryChanged(action=action, old=name, new="" if action == "deleted" else name))

    return made


def _renamed(read: Payload, received: datetime) -> Said:
    new = needed(read.repository.full_name, "name of the repository")
    former = needed(read.changes.repository.name.was, "former name of the repository")
    old = f"{new.partition('/')[0]}/{former}"
    return Said(what=RepositoryChanged(action="renamed", old=old, new=new))


def _transferred(read: Payload, received: datetime) -> Said:
    new = needed(read.repository.full_name, "name of the repository")
    owners = read.changes.owner.was
    former = needed(owners.organization.login or owners.user.login, "former owner of the repository")
    old = f"{former}/{new.partition('/')[2]}"
    return Said(what=RepositoryChanged(action="transferred", old=old, new=new))


def _edited(read: Payload, received: datetime) -> Said:
    changed = read.changes.default_branch
    if changed is None:
        return Said(ignored="its description, topics or home page: nothing that we use")
    new = needed(read.repository.default_branch, "default branch")
    return Said(what=RepositoryChanged(action="default_branch", old=changed.was, new=new))


def _ping(read: Payload, received: datetime) -> Said:
    return Said(what=Pinged(hook=str(read.hook_id or "")))


_NOT_YET = "an action that we do not know: GitHub added it after this release"
_LATER = "the words were changed or taken away afterwards: what was asked with them stands"
_ROWS: tuple[tuple[str, str, str, Reader | None], ...] = (
    ("push", "*", "`Pushed` for a branch; a tag or a branch of the merge queue is passed over", _push),
    ("pull_request", "opened", "`PullChanged`: opened", _pull(PullAction.OPENED)),
    ("pull_request", "synchronize", "`PullChanged`: updated, its head moved", _pull(PullAction.UPDATED)),
    ("pull_request", "ready_for_review", "`PullChanged`: ready", _pull(PullAction.READY)),
    ("pull_request", "reopened", "`PullChanged`: reopened", _pull(PullAction.REOPENED)),
    (
        "pull_request",
        "edited",
        "`PullChanged`: edited (title, text or base)",
        _pull(PullAction.EDITED),
    ),
    ("pull_request", "closed", "`PullChanged`: merged, or closed", _pull(PullAction.CLOSED)),
    (
        "pull_request",
        "converted_to_draft labeled unlabeled review_requested review_request_removed enqueued dequeued stacked",
        "`PullChanged`: other, from which nothing follows but that its newest state is known",
        _pull(PullAction.OTHER),
    ),
    (
        "pull_request",
        "assigned unassigned locked unlocked milestoned demilestoned",
        "who works on it and what it is planned for is nothing that we use",
        None,
    ),
    (
        "pull_request",
        "auto_merge_enabled auto_merge_disabled",
        "whether GitHub will merge it by itself is asked for when we are to merge",
        None,
    ),
    ("pull_request", "*", _NOT_YET, None),
    ("pull_request_review", "submitted", "`Reviewed`, and a comment where something is written", _review),
    ("pull_request_review", "dismissed", "`Reviewed`: dismissed", _review),
    ("pull_request_review", "edited", _LATER, None),
    ("pull_request_review", "*", _NOT_YET, None),
    ("pull_request_review_comment", "created", "`Reviewed`: comment, and the comment", _line_comment),
    ("pull_request_review_comment", "edited deleted", _LATER, None),
    ("pull_request_review_comment", "*", _NOT_YET, None),
    (
        "pull_request_review_thread",
        "*",
        "which threads are resolved is asked for with the next review",
        None,
    ),
    ("issue_comment", "created", "a comment, in an issue or pull request", _comment),
    ("issue_comment", "edited deleted", _LATER, None),
    ("issue_comment", "pinned unpinned", "where a comment is shown changes nothing", None),
    ("issue_comment", "*", _NOT_YET, None),
    (
        "issues",
        "opened edited closed reopened deleted transferred labeled unlabeled assigned unassigned",
        "`IssueChanged`",
        _issue,
    ),
    (
        "issues",
        "pinned unpinned locked unlocked milestoned demilestoned typed untyped field_added field_removed",
        "what an issue is planned for and how it is shown is nothing that we use",
        None,
    ),
    ("issues", "*", _NOT_YET, None),
    (
        "check_run",
        "created completed",
        "`Checked`; one of GitHub Actions is passed over, for `workflow_run` tells of it",
        _check,
    ),
    (
        "check_run",
        "rerequested requested_action",
        "asks the check's own app for something; what it does comes as `created`",
        None,
    ),
    ("check_run", "*", _NOT_YET, None),
    ("check_suite", "*", "its check runs and workflow runs tell the same one by one", None),
    ("workflow_run", "requested in_progress completed", "`Ran`, of the attempt it names", _run),
    ("workflow_run", "*", _NOT_YET, None),
    (
        "workflow_job",
        "*",
        "`workflow_run` tells of the whole run; its jobs are asked for when it has ended",
        None,
    ),
    ("workflow_dispatch", "*", "the run that it starts comes as `workflow_run`", None),
    ("repository_dispatch", "*", "the run that it starts comes as `workflow_run`", None),
    ("merge_group", "*", "its runs come as `workflow_run`, its end as `pull_request`", None),
    ("status", "*", "`Checked`, with the context as its workflow", _status),
    ("deployment_status", "created", "`Deployed`", _deployment),
    ("deployment_status", "*", _NOT_YET, None),
    ("deployment", "*", "how it goes comes as `deployment_status`", None),
    (
        "deployment_review",
        "*",
        "approvals of deployments at GitHub are GitHub's; ours are asked for in chat",
        None,
    ),
    ("deployment_protection_rule", "*", "we are no protection rule of an environment", None),
    ("installation", "created", "`InstallationChanged`: created", _installation("created")),
    ("installation", "deleted", "`InstallationChanged`: deleted", _installation("deleted")),
    ("installation", "suspend", "`InstallationChanged`: suspended", _installation("suspended")),
    ("installation", "unsuspend", "`InstallationChanged`: unsuspended", _installation("unsuspended")),
    (
        "installation",
        "new_permissions_accepted",
        "`InstallationChanged`: permissions",
        _installation("permissions"),
    ),
    ("installation", "*", _NOT_YET, None),
    ("installation_repositories", "added", "`InstallationChanged`: added", _installation("added")),
    ("installation_repositories", "removed", "`InstallationChanged`: removed", _installation("removed")),
    ("installation_repositories", "*", _NOT_YET, None),
    (
        "installation_target",
        "*",
        "an account has a new name: GitHub leads requests on, and the next look finds it",
        None,
    ),
    ("repository", "renamed", "`RepositoryChanged`: renamed", _renamed),
    ("repository", "transferred", "`RepositoryChanged`: transferred", _transferred),
    ("repository", "deleted", "`RepositoryChanged`: deleted", _repository("deleted")),
    ("repository", "archived", "`RepositoryChanged`: archived", _repository("archived")),
    ("repository", "unarchived", "`RepositoryChanged`: unarchived", _repository("unarchived")),
    (
        "repository",
        "edited",
        "`RepositoryChanged`: default_branch; any other edit is passed over",
        _edited,
    ),
    ("repository", "created", "nothing is linked by itself: `link` is a person's to say", None),
    ("repository", "publicized privatized", "who may see it at GitHub changes nothing for us", None),
    ("repository", "*", _NOT_YET, None),
    ("ping", "*", "`Pinged`", _ping),
    ("meta", "*", "the webhook was taken away at GitHub: polling goes on without it", None),
    *(
        (event, "*", why, None)
        for events, why in (
            ("create delete", "`push` tells of the same branch, with its commits"),
            (
                "commit_comment discussion discussion_comment",
                "talk that belongs to no issue or pull request: nobody is listened to there",
            ),
            (
                "public fork star watch sponsorship gollum page_build marketplace_purchase",
                "nothing that happens to the code",
            ),
            (
                "label milestone project project_card project_column projects_v2 projects_v2_item projects_v2_status_update sub_issues issue_dependencies",
                "planning at GitHub, which we keep no copy of",
            ),
            (
                "release package registry_package",
                "what is published is not watched; its deployment comes as `deployment_status`",
            ),
            (
                "member membership organization org_block team team_add",
                "people and their roles are known from our own records, never from GitHub's",
            ),
            (
                "github_app_authorization personal_access_token_request deploy_key",
                "other people's access; what becomes of ours comes as `installation`",
            ),
            (
                "branch_protection_rule branch_protection_configuration repository_ruleset custom_property custom_property_values",
                "rules of a branch are asked for when we are to merge",
            ),
            (
                "code_scanning_alert dependabot_alert repository_advisory repository_vulnerability_alert secret_scanning_alert secret_scanning_alert_location secret_scanning_scan security_advisory security_and_analysis",
                "GitHub's own security findings are told by GitHub; reviews run their own analysers",
            ),
            ("repository_import", "what is imported comes as `push`"),
        )
        for event in events.split()
    ),
)
TABLE: Mapping[tuple[str, str], Rule] = {
    (event, action): Rule(says, read) for event, actions, says, read in _ROWS for action in actions.split()
}
"""By event and action."""
