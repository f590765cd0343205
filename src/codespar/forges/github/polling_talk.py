"""Issues and what people write, found by asking.

A comment moves the time at which its issue or pull request was updated. So comments are asked for only when one of those changed, and for
two looks more, for GitHub may show the one before the other.
"""

from __future__ import annotations

import hashlib
from typing import Any

from codespar.forges.github.models import Issue, Remark
from codespar.forges.github.payloads import (
    commented_on_line,
    delivery_id,
    issue_changed,
    needed,
    number_of,
    posted,
)
from codespar.forges.github.polling_base import TALK, Look, earlier, stamp

ISSUES_KEPT = 500  # issues whose state is kept, the last updated


async def look_at_issues(seen: Look) -> None:
    state = seen.state("issues")
    known: dict[str, dict[str, Any]] = state.setdefault("known", {})
    items, floor = await seen.oldest_first("issues", f"{seen.path}/issues", {"state": "all"}, Issue)
    fresh = [issue for issue in items if known.get(str(issue.number), {}).get("at") != _at(issue)]
    if fresh:
        seen.stir()

    def read(issue: Issue) -> None:
        number = str(number_of(issue.number, "number of the issue"))
        before, now = known.get(number), _known(issue)
        known[number] = now
        action = None if issue.pull_request is not None else _action(issue, before, now, floor)
        if action is not None:
            what = issue_changed(issue, action)
            seen.tell(delivery_id("issue", number, now["at"], action), what, issue.updated_at)

    seen.each(fresh, read)
    for number in sorted(known, key=lambda number: known[number]["at"])[:-ISSUES_KEPT]:
        del known[number]


async def look_at_comments(seen: Look) -> None:
    """`asks` is how many more looks ask for them."""
    for name, path in TALK.items():
        if seen.state(name).get("asks", 0) or (seen.is_closed("issues") and not seen.first):
            await seen.source(name, lambda name=name, path=path: _comments(seen, name, seen.path + path))


async def _comments(seen: Look, name: str, path: str) -> None:
    state = seen.state(name)
    told: dict[str, str] = state.setdefault("told", {})
    items, floor = await seen.oldest_first(name, path, {}, Remark)

    def read(remark: Remark) -> None:
        id = needed(remark.id, "id of the comment")
        before, told[id] = told.get(id), stamp(remark.updated_at or seen.now)
        written = remark.created_at or remark.updated_at
        if before is not None or written is None or stamp(written) < floor:
            return  # told before, or an old one whose words were changed
        comment = posted(remark, None, seen.now)
        seen.comments.append(comment)
        if name == "line_comments":
            what = commented_on_line(remark, comment.number)
            seen.tell(delivery_id("review", what.id, what.verdict), what, comment.at, comment.author)

    seen.each(items, read)
    kept = state.get("floor") or earlier(state["to"])
    state["asks"] = max(state.get("asks", 0) - 1, 1 if "floor" in state else 0)
    state["told"] = {id: at for id, at in told.items() if at >= kept}


def _action(issue: Issue, before: dict[str, Any] | None, now: dict[str, Any], floor: str) -> str | None:
    if before is None:
        if now["state"] == "closed":
            return "closed" if issue.closed_at and stamp(issue.closed_at) >= floor else None
        return "opened" if issue.created_at and stamp(issue.created_at) >= floor else None
    if before["state"] != now["state"]:
        return "closed" if now["state"] == "closed" else "reopened"
    if before["text"] != now["text"]:
        return "edited"
    return "labeled" if before["labels"] != now["labels"] else None


def _known(issue: Issue) -> dict[str, Any]:
    labels = "\0".join(sorted(label.name for label in issue.labels))
    return {
        "state": "closed" if issue.state == "closed" else "open",
        "text": _digest(f"{issue.title}\0{issue.body}"),
        "labels": _digest(labels),
        "at": _at(issue),
    }


def _at(issue: Issue) -> str:
    return stamp(issue.updated_at) if issue.updated_at else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
