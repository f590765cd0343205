"""Finds by asking GitHub what webhooks would have told, where none can reach us and after we were away.

It asks as little as it can: a quiet repository costs five conditional requests a look, all answered "not modified". What it finds has the same
name however often it is found, so that a look that broke off in the middle and is made again doubles nothing. Nothing is changed at GitHub.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from codespar.domain.happenings import NO_COMMIT, InstallationChanged, Pushed, RepositoryChanged
from codespar.forges.base import Gone, Polled
from codespar.forges.github.client import GithubClient
from codespar.forges.github.errors import Unprocessable
from codespar.forges.github.models import Activity, Reference, Repository
from codespar.forges.github.payloads import TEMPORARY, Malformed, delivery_id
from codespar.forges.github.polling_base import Look, item_of, items_of, stamp
from codespar.forges.github.polling_builds import look_at_commits, look_at_runs, watch_default
from codespar.forges.github.polling_pulls import look_at_pulls, look_at_reviews
from codespar.forges.github.polling_talk import look_at_comments, look_at_issues

__all__ = ["look"]


async def look(client: GithubClient, repository: str, cursor: dict[str, Any], now: datetime) -> Polled:
    """What happened in the repository since `cursor`, and the cursor for the next look; `repository` is `owner/name`.

    With an empty cursor: from now on, and the runs and checks of the default branch as they stand. After a rename the cursor leads on by itself.
    Raises `ForgeUnavailable` and `AccessLost`, after which the old cursor is still good, and `Gone` for a repository that was never there.
    """
    seen = Look(client, repository, cursor, now)
    if await _repository(seen):
        await seen.source("branches", lambda: _branches(seen))
        await seen.source("pulls", lambda: look_at_pulls(seen))
        await seen.source("reviews", lambda: look_at_reviews(seen))
        await seen.source("issues", lambda: look_at_issues(seen))
        await look_at_comments(seen)
        await seen.source("runs", lambda: look_at_runs(seen))
        await look_at_commits(seen)
    return Polled(news=tuple(seen.news), comments=tuple(seen.comments), cursor=seen.cursor)


async def _repository(seen: Look) -> bool:
    """Whether it can be reached. Tells when that changed, and when it has another name or default branch."""
    cursor = seen.cursor
    owner = seen.repository.partition("/")[0]
    try:
        data = await seen.changed("repository", seen.path)
        read = item_of(data, Repository) if data is not None else None
        if read is not None and cursor.get("id") not in (None, read.id):
            # Somebody else's repository has the name that ours had.
            read = item_of(await seen.client.get(f"/repositories/{cursor['id']}"), Repository)
    except Gone:
        if seen.first:
            raise
        if not cursor.get("lost"):
            cursor["lost"] = True
            what = InstallationChanged(action="removed", account=owner, repositories=(seen.repository,))
            seen.tell_change("lost", what)
        cursor["etags"].pop("repository", None)
        return False
    if cursor.pop("lost", False):
        what = InstallationChanged(action="added", account=owner, repositories=(seen.repository,))
        seen.tell_change("found", what)
    if read is not None:
        _take_in(seen, read)
    return True


def _take_in(seen: Look, read: Repository) -> None:
    if not read.full_name or not read.default_branch:
        raise Malformed(
            f"GitHub's answer for {seen.repository} has no name or no default branch. Check api_url"
        )
    cursor, old = seen.cursor, seen.repository
    if seen.first:
        cursor |= {
            "id": read.id,
            "repository": read.full_name,
            "default": read.default_branch,
            "archived": read.archived,
        }
        return
    if read.full_name != old:
        cursor["repository"] = read.full_name
        cursor["etags"] = {"repository": cursor["etags"].get("repository")}
        same_owner = read.full_name.partition("/")[0].lower() == old.partition("/")[0].lower()
        what = RepositoryChanged(
            action="renamed" if same_owner else "transferred", old=old, new=read.full_name
        )
        seen.tell_change("name", what)
    if read.default_branch != cursor["default"]:
        what = RepositoryChanged(action="default_branch", old=cursor["default"], new=read.default_branch)
        seen.tell_change("default", what)
        cursor["default"] = read.default_branch
    if read.archived != cursor["archived"]:
        action = "archived" if read.archived else "unarchived"
        what = RepositoryChanged(action=action, old=read.full_name, new=read.full_name)
        seen.tell_change(action, what)
        cursor["archived"] = read.archived


async def _branches(seen: Look) -> None:
    """GitHub gives all branches in one answer, whatever their number."""
    cursor = seen.cursor
    try:
        data = await seen.changed("branches", f"{seen.path}/git/matching-refs/heads")
    except Unprocessable as error:
        if error.status != 409:
            raise
        data = []  # a repository without a commit
    if data is not None:
        now = {
            reference.ref.removeprefix("refs/heads/"): reference.object.sha
            for reference in items_of(data, Reference, None)
            if reference.ref.startswith("refs/heads/") and reference.object.sha
        }
        now = {name: commit for name, commit in now.items() if not name.startswith(TEMPORARY)}
        before: dict[str, str] = cursor.get("branches", now)
        cursor["branches"] = now
        moved = [name for name in {**now, **before} if now.get(name) != before.get(name)]
        if moved:
            await _pushes(seen, sorted(moved, key=lambda name: (name != cursor["default"], name)), before)
    watch_default(seen)


async def _pushes(seen: Look, moved: list[str], before: dict[str, str]) -> None:
    activity: list[Activity] = []

    async def ask() -> None:
        data = await seen.client.get(f"{seen.path}/activity", {"per_page": 100})
        activity.extend(items_of(data, Activity, None))

    await seen.source("activity", ask)
    for name in moved:
        old = before.get(name, NO_COMMIT)
        new = seen.cursor["branches"].get(name, NO_COMMIT)
        way = _way(activity, name, old, new)
        author = way[0].actor.login if way else ""
        what = Pushed(
            branch=name,
            before=old,
            after=new,
            default=name == seen.cursor["default"],
            forced=any(step.activity_type == "force_push" for step in way) and new != NO_COMMIT,
            author=author,
        )
        at = way[0].timestamp if way else None
        moment = (stamp(at),) if at else ()  # a branch may go the same way twice
        seen.tell(delivery_id("push", name, old, new, *moment), what, at, author)


def _way(activity: list[Activity], name: str, old: str, new: str) -> list[Activity]:
    """The steps from one commit of a branch to another, newest first; the last alone where not all of them are known."""
    steps = [step for step in activity if step.ref in (name, f"refs/heads/{name}")]
    begin = next((place for place, step in enumerate(steps) if step.after == new), None)
    if begin is None:
        return []
    end = next((place for place, step in enumerate(steps) if place >= begin and step.before == old), begin)
    return steps[begin : end + 1]
