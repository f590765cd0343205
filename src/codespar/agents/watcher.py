"""What the Project Agent makes of news from its code host: each is a turn, in the project's own order.

Decides and writes, and asks nothing of anybody: what needs a log, a diff or a clone is begun as a workflow. News come in any order and more
than once; nothing here may rely on the contrary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import JsonValue

from codespar.agents import builds, consent, following, reviews
from codespar.agents.alone import may_tell
from codespar.agents.announcer import announce
from codespar.domain.happenings import (
    NO_COMMIT,
    Checked,
    InstallationChanged,
    PullAction,
    PullChanged,
    Pushed,
    Ran,
    RepositoryChanged,
)
from codespar.domain.messages import FieldLine, NormalizedResponse, Tone
from codespar.domain.notifications import AlertKind
from codespar.domain.policy import Policy
from codespar.store.base import Happened, Project, Unit

LAST = 200  # entries of the record in which a repetition is looked for
TWICE_WITHIN = timedelta(days=1)  # a webhook and a look tell of the same change


@dataclass(frozen=True)
class Sight:
    """One piece of news being looked at: the project as it is now, the rules, and the time."""

    unit: Unit
    project: Project
    policy: Policy
    now: datetime

    @property
    def may_tell(self) -> bool:
        return may_tell(self.project, self.policy)


def notice(unit: Unit, happened: Happened, policy: Callable[[], Policy], now: datetime) -> None:
    """One turn. Everything it writes is in `unit`."""
    project = unit.project(happened.project)
    if project is None:
        return
    sight = Sight(unit, project, policy(), now)
    news = happened.news
    match news.what:
        case Pushed() as push:
            last = _newest(sight, "pushed", push.branch) if push.default else None
            if last is None or last["detail"].get("after") != push.after:
                following.pushed(unit, project, push, now)
            if push.after == NO_COMMIT:
                builds.branch_gone(unit, project, push.branch, now)
        case PullChanged() as pull:
            consent.pull_changed(unit, project.name, pull, now)
            reviews.pull_changed(unit, project, sight.policy, pull, now)
            _tell_pull(sight, pull)
        case Ran(run=run) | Checked(run=run):
            builds.ran(unit, project, sight.policy, run, now)
            reviews.checked(unit, project, sight.policy, run, now)
        case InstallationChanged() as change:
            _tell_access(sight, change, news.delivery)
        case RepositoryChanged() as change:
            _tell_repository(sight, change, news.delivery)
        case _:
            return


_PULLS = {PullAction.OPENED: "opened", PullAction.READY: "ready for review", PullAction.MERGED: "merged"}


def _tell_pull(sight: Sight, pull: PullChanged) -> None:
    """People's own pull requests are news to the others; those of our tasks were told where they were asked for."""
    word = _PULLS.get(pull.action)
    ours = pull.branch.startswith("codespar/") and not pull.fork
    if word is None or pull.draft or not sight.may_tell or ours:
        return
    card = NormalizedResponse(
        title=f"📋 PR #{pull.number} {word}: {pull.title}",
        fields=(FieldLine(name="By", value=pull.author), FieldLine(name="Into", value=pull.base_branch)),
        agent=f"agent-{sight.project.name}",
    )
    # Not by its head: a look may find at a later one what a webhook told of, and in one what were two.
    key = (
        f"{sight.project.name}:pull:{pull.number}:{'merged' if pull.action is PullAction.MERGED else 'open'}"
    )
    announce(sight.unit, sight.project.name, AlertKind.REVIEWS, card, key, sight.now)


_ACCESS = {
    "deleted": ("The GitHub App was uninstalled", "install it again, or unlink the project"),
    "suspended": ("The GitHub App's installation was suspended", "an owner of the account can unsuspend it"),
    "removed": (
        "The GitHub App has no access to the repository any more",
        "give it access in its installation's settings",
    ),
    "unsuspended": ("The GitHub App's installation works again", ""),
    "added": ("The GitHub App has access to the repository again", ""),
}


def _tell_access(sight: Sight, change: InstallationChanged, delivery: str) -> None:
    """Told when it changes what we know: a look may have found it before, or somebody may have sent it again."""
    told = _ACCESS.get(change.action)
    if told is None:
        return
    title, next_step = told
    lost = bool(next_step)
    watch = sight.unit.watch(sight.project.name)
    if bool(watch.problem) == lost:
        return
    sight.unit.save_watch(watch.evolve(problem=title if lost else ""))
    card = NormalizedResponse(
        title=f"{'❌' if lost else '✅'} {title}",
        tone=Tone.FAILURE if lost else Tone.SUCCESS,
        text=f"{sight.project.repository}: nothing is read from it or written to it." if lost else "",
        fields=(FieldLine(name="Next", value=next_step),) if lost else (),
        agent=f"agent-{sight.project.name}",
    )
    key = f"{sight.project.name}:access:{delivery}"
    sight.unit.record(
        at=sight.now,
        actor="github",
        action=f"access.{change.action}",
        project=sight.project.name,
        subject=sight.project.repository,
        detail={"account": change.account},
    )
    if sight.may_tell:
        announce(sight.unit, sight.project.name, AlertKind.ALL, card, key, sight.now, critical=lost)


def _tell_repository(sight: Sight, change: RepositoryChanged, delivery: str) -> None:
    project = sight.project
    action = f"repository.{change.action}"
    detail: dict[str, JsonValue] = {"old": change.old, "new": change.new}
    before = _newest(sight, action)
    if before is not None and before["detail"] == detail and _is_lately(before, sight.now):
        return  # a webhook told of it, and a look found it as well
    next_step = ""
    match change.action:
        case "renamed" | "transferred":
            title = f"The repository is called {change.new} now"
            next_step = (
                f"write `repository: {change.new}` into codespar.yaml; until then the old name is followed"
            )
        case "deleted":
            title, next_step = (
                "The repository was deleted",
                "`unlink` the project, or link another repository",
            )
            watch = sight.unit.watch(project.name)
            if watch.problem:
                return  # that it is out of reach was told
            sight.unit.save_watch(watch.evolve(problem=title))
        case "archived":
            title, next_step = (
                "The repository was archived: nothing can be pushed to it",
                "unarchive it, or pause with `kill`",
            )
        case "unarchived":
            title = "The repository is not archived any more"
        case "default_branch":
            title = f"The default branch is {change.new} now, not {change.old}"
            builds.became_default(sight.unit, project, change.new, sight.now)
    card = NormalizedResponse(
        title=f"📋 {title}",
        tone=Tone.WARNING if next_step else Tone.INFO,
        fields=(FieldLine(name="Next", value=next_step),) if next_step else (),
        agent=f"agent-{project.name}",
    )
    sight.unit.record(
        at=sight.now,
        actor="github",
        action=action,
        project=project.name,
        subject=project.repository,
        detail=detail,
    )
    key = f"{project.name}:repository:{delivery}"
    critical = change.action == "deleted"
    if sight.may_tell:
        announce(sight.unit, project.name, AlertKind.ALL, card, key, sight.now, critical=critical)


def _newest(sight: Sight, action: str, subject: str | None = None) -> dict[str, Any] | None:
    """The newest entry of the record about this, among the last ones."""
    entries = reversed(sight.unit.audit_entries(LAST))
    return next(
        (
            one
            for one in entries
            if (one["project"], one["action"]) == (sight.project.name, action)
            and subject in (None, one["subject"])
        ),
        None,
    )


def _is_lately(entry: dict[str, Any], now: datetime) -> bool:
    return now - datetime.fromisoformat(entry["at"]) < TWICE_WITHIN


def trouble(unit: Unit, name: str, policy: Policy, before: str, now_is: str, now: datetime) -> None:
    """The code host cannot be read, or can be again: told when it changes, and not at every look."""
    project = unit.project(name)
    if bool(before) == bool(now_is) or project is None:
        return
    lost = bool(now_is)
    card = NormalizedResponse(
        title=f"❌ The repository of {name} cannot be read"
        if lost
        else f"✅ The repository of {name} can be read again",
        tone=Tone.FAILURE if lost else Tone.SUCCESS,
        text=now_is,
        agent=f"agent-{name}",
    )
    action = "forge.lost" if lost else "forge.found"
    unit.record(
        at=now,
        actor=f"agent-{name}",
        action=action,
        project=name,
        subject=name,
        detail={"why": now_is},
    )
    if may_tell(project, policy):
        announce(unit, name, AlertKind.ALL, card, f"{name}:forge:{now.isoformat()}", now, critical=lost)
