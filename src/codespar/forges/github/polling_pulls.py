"""Pull requests and their reviews, found by asking: what changed is told by what was known of each before."""

from __future__ import annotations

import hashlib
from typing import Any

from codespar.domain.happenings import PullAction
from codespar.forges.base import Gone
from codespar.forges.github.models import Pull, SubmittedReview
from codespar.forges.github.payloads import (
    delivery_id,
    number_of,
    pull_changed,
    reviewed,
    words_of_review,
)
from codespar.forges.github.polling_base import Look, earlier, items_of, stamp
from codespar.forges.github.polling_builds import watch_commit

OPEN_AT_FIRST = 1000  # open pull requests that are read when we begin to watch
CLOSED_KEPT = 200  # closed ones whose state is kept, the last updated
REVIEWS_A_LOOK = 50  # pull requests whose reviews one look asks for; the others wait for the next
_FRESH = (PullAction.OPENED, PullAction.UPDATED, PullAction.READY, PullAction.REOPENED)


async def look_at_pulls(seen: Look) -> None:
    state = seen.state("pulls")
    begun = "known" not in state
    known: dict[str, dict[str, Any]] = {} if begun else state["known"]
    if begun:
        data = await seen.client.pages(
            f"{seen.path}/pulls",
            {"state": "open", "sort": "updated", "direction": "desc", "per_page": 100},
            most=OPEN_AT_FIRST,
        )
        state |= {"known": known, "whole": len(data) < OPEN_AT_FIRST}
        seen.each(items_of(data, Pull, None), lambda pull: known.update({_key(pull): _known(pull)}))
    newest = await seen.newest_first(
        "pulls",
        f"{seen.path}/pulls",
        {"state": "all", "sort": "updated", "direction": "desc"},
        Pull,
        lambda pull: pull.updated_at,
    )
    if newest:
        seen.stir()
    for pull, floor in newest:
        read = _Read(seen, floor, begun)
        seen.each([pull], read)
    if "gap" in state:
        return  # its pages may be read again
    closed = sorted((n for n in known if known[n]["state"] != "open"), key=lambda n: known[n]["at"])
    for number in closed[:-CLOSED_KEPT]:
        del known[number]


class _Read:
    """Takes in one pull request. What was closed or opened before `floor` was told before."""

    def __init__(self, seen: Look, floor: str, silent: bool) -> None:
        self._seen = seen
        self._floor = floor
        self._silent = silent

    def __call__(self, pull: Pull) -> None:
        state = self._seen.state("pulls")
        number, now = _key(pull), _known(pull)
        before: dict[str, Any] | None = state["known"].get(number)
        state["known"][number] = now | {"reviews": before["reviews"] if before else {}}
        if self._silent:
            return
        if (now["at"] >= self._floor) if before is None else (now["at"] != before["at"]):
            waiting: dict[str, str] = state.setdefault("reviews", {})
            waiting.setdefault(number, earlier(self._floor))
        action = self._action(pull, before, now, whole=state["whole"])
        if action is None:
            return
        what = pull_changed(pull, action, self._seen.now)
        name = delivery_id("pull", number, now["at"], action.value, what.head_commit[:12])
        self._seen.tell(name, what, pull.updated_at)
        if action in _FRESH:
            theirs = pull.head.repo.owner.login if pull.head.repo else ""
            branch = f"{theirs or 'unknown'}:{what.branch}" if what.fork else what.branch
            watch_commit(self._seen, what.head_commit, branch)

    def _action(
        self, pull: Pull, before: dict[str, Any] | None, now: dict[str, Any], *, whole: bool
    ) -> PullAction | None:
        ended = PullAction.MERGED if now["state"] == "merged" else PullAction.CLOSED
        if before is None:
            if now["state"] != "open":
                at = pull.merged_at or pull.closed_at
                return ended if at and stamp(at) >= self._floor else None
            if pull.created_at and stamp(pull.created_at) >= self._floor:
                return PullAction.OPENED
            # Every open one was known at first, unless they were too many: then all that is sure is that this one changed.
            return PullAction.REOPENED if whole else PullAction.UPDATED
        if now["state"] != before["state"]:
            return PullAction.REOPENED if now["state"] == "open" else ended
        if now["state"] != "open":
            return None
        if before["draft"] and not now["draft"]:
            return PullAction.READY
        if before["head"] != now["head"]:
            return PullAction.UPDATED
        if before["text"] != now["text"]:
            return PullAction.EDITED
        return PullAction.OTHER if now["draft"] != before["draft"] else None


async def look_at_reviews(seen: Look) -> None:
    """The reviews of pull requests that changed, those that wait longest first."""
    state = seen.state("pulls")
    waiting: dict[str, str] = state.get("reviews", {})
    for number in list(waiting)[:REVIEWS_A_LOOK]:
        try:
            data = await seen.client.pages(f"{seen.path}/pulls/{number}/reviews", {"per_page": 100})
        except Gone:
            data = []
        known: dict[str, Any] = state.get("known", {}).get(number, {})
        told: dict[str, str] = known.setdefault("reviews", {})
        floor = waiting.pop(number)

        def read(
            review: SubmittedReview, number: str = number, told: dict[str, str] = told, floor: str = floor
        ) -> None:
            what = reviewed(review, int(number))
            if what is None:
                return
            before = told.get(what.id)
            fresh = before is None and review.submitted_at is not None and stamp(review.submitted_at) >= floor
            if not fresh and (before is None or before == what.verdict):
                return
            told[what.id] = what.verdict
            at = review.submitted_at if fresh else None
            seen.tell(delivery_id("review", what.id, what.verdict), what, at, what.author)
            if fresh and (words := words_of_review(review, int(number), seen.now)):
                seen.comments.append(words)

        seen.each(items_of(data, SubmittedReview, None), read)


def _key(pull: Pull) -> str:
    return str(number_of(pull.number, "number of the pull request"))


def _known(pull: Pull) -> dict[str, Any]:
    """What is kept of a pull request until the next look."""
    state = "merged" if pull.is_merged else "closed" if pull.state == "closed" else "open"
    text = "\0".join((pull.title, pull.body, pull.base.ref))
    return {
        "head": pull.head.sha,
        "state": state,
        "draft": pull.draft,
        "text": hashlib.sha256(text.encode()).hexdigest()[:12],
        "at": stamp(pull.updated_at) if pull.updated_at else "",
        "reviews": {},
    }
