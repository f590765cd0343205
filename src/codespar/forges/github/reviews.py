"""Reviews at GitHub: posted whole or not at all, once under each key, and the threads they began resolved.

GitHub refuses a review as a whole when it cannot hold one of its comments, and does not say which. Then those that our own reading of the
diff does not place are left out; if it still refuses, the rest is halved and tried as a draft that nobody sees (group testing: Dorfman 1943,
"The detection of defective members of large populations"), with an end.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

import structlog

from codespar.domain.diffs import DiffError, parse
from codespar.domain.reviews import ReviewVerdict, Side
from codespar.forges.base import (
    AccessLost,
    ForgeError,
    Gone,
    InlineComment,
    NotOnDiff,
    PostedReview,
    PullRequestNotFound,
    ReviewDraft,
)
from codespar.forges.github.comments import ON_LINE, number_in
from codespar.forges.github.errors import Unprocessable
from codespar.forges.github.hosted import Hosted
from codespar.forges.github.marks import is_marked, mark, mark_of, marked
from codespar.forges.github.values import EVENTS, id_in, verdict_of

log = structlog.get_logger(__name__)
REVIEW = "pullrequestreview-"
_SIDES = {Side.NEW: "RIGHT", Side.OLD: "LEFT"}
_OWN_PULL = re.compile(r"(?:approve|request changes on) your own pull request", re.IGNORECASE)
_STALE = re.compile(
    r"commit.{0,20}(?:not part|no longer|deleted|not found|does not exist)|commit_id", re.IGNORECASE
)
_PENDING = re.compile(r"one pending review", re.IGNORECASE)
_AT_ONCE = 50  # threads resolved by one request

_THREADS = """
query ($owner: String!, $name: String!, $number: Int!, $after: String) {
  repository(owner: $owner, name: $name) {
    pullRequest(number: $number) {
      reviewThreads(first: 100, after: $after) {
        pageInfo { hasNextPage endCursor }
        nodes { id isResolved viewerCanResolve comments(first: 1) { nodes { fullDatabaseId } } }
      }
    }
  }
}
"""


class Reviews(Hosted):
    """The part of the GitHub forge that reviews."""

    async def submit_review(self, number: int, draft: ReviewDraft, key: str) -> PostedReview:
        """Two requests, and one more for the ids of inline comments. Where GitHub refuses a comment without saying which: at most
        `4 * log2(n) + 30` more.

        GitHub lets nobody approve their own pull request, nor request changes on it: such a review is posted as a comment, and `verdict`
        says so.
        """
        path = self._at(f"/pulls/{number}/reviews")
        earlier = await self._reviews(number)
        if (found := await self._ours_among(earlier, key)) is not None:
            return await self._posted(path, found, draft, key)
        for review in earlier:
            if review.get("state") == "PENDING" and mark_of(review.get("body")):
                await self._take_back(
                    path, review
                )  # our draft, from before a crash; nobody sees others' drafts
        review, verdict = await self._post(path, number, draft, key)
        return await self._posted(path, review, draft.model_copy(update={"verdict": verdict}), key)

    async def review_under(self, number: int, key: str) -> PostedReview | None:
        """One request a hundred reviews."""
        found = await self._ours_among(await self._reviews(number), key)
        return None if found is None else _as_posted(found, ReviewVerdict.COMMENT)

    async def _reviews(self, number: int) -> Sequence[Mapping[str, Any]]:
        try:
            return await self._client.pages(self._at(f"/pulls/{number}/reviews"), most=5000)
        except Gone as error:
            raise PullRequestNotFound(f"there is no pull request #{number} in {self._repository}") from error

    async def _ours_among(self, reviews: Sequence[Mapping[str, Any]], key: str) -> Mapping[str, Any] | None:
        for review in reviews:
            if review.get("state") == "PENDING" or not is_marked(review.get("body"), key):
                continue
            if await self._is_ours(review):
                return review
        return None

    async def _post(
        self, path: str, number: int, draft: ReviewDraft, key: str
    ) -> tuple[Mapping[str, Any], ReviewVerdict]:
        verdict = draft.verdict
        async with aclosing(self._ever_fewer(path, number, draft, key)) as tries:
            async for places in tries:
                while True:
                    body = _body(draft, places, key) | {"event": EVENTS[verdict]}
                    try:
                        return await self._client.send("POST", path, body), verdict
                    except Unprocessable as error:
                        if verdict is not ReviewVerdict.COMMENT and _OWN_PULL.search(str(error)):
                            verdict = ReviewVerdict.COMMENT
                            continue
                        await self._raise_hopeless(error, number, draft)
                        if not places:
                            raise
                    # whatever was made before it was refused must not be made twice
                    if found := await self._ours_among(await self._client.pages(path, most=5000), key):
                        return found, verdict
                    break
        raise ForgeError(f"GitHub takes no review of PR #{number}: try again later")

    async def _raise_hopeless(self, error: Unprocessable, number: int, draft: ReviewDraft) -> None:
        """Refusals that no comment is to blame for."""
        if error.status == 403:  # it is locked or archived
            raise error
        if _PENDING.search(str(error)):
            raise ForgeError(
                f"{await self.me()} has begun a review of PR #{number} by hand: submit or discard it, then review again"
            ) from error
        if _STALE.search(str(error)):
            raise NotOnDiff(
                f"PR #{number} does not have {draft.head_commit[:12]} any more: review what it is now"
            ) from error

    async def _ever_fewer(
        self, path: str, number: int, draft: ReviewDraft, key: str
    ) -> AsyncGenerator[list[int]]:
        """The places in the draft of the comments to try, until GitHub takes them."""
        everything = list(range(len(draft.comments)))
        yield everything
        held = await self._on_diff(number, draft, everything)
        log.info("github.review.refused", number=number, comments=len(everything), on_diff=len(held))
        if len(held) < len(everything):
            yield held
        if held:
            yield await self._by_halves(path, draft, held, key)
        yield []

    async def _on_diff(self, number: int, draft: ReviewDraft, places: list[int]) -> list[int]:
        """Those that our own reading of the diff places. Raises `NotOnDiff` when the pull request does not have the commit any more."""
        pull = await self.fetch_pull(number)
        if not await self.knows(draft.head_commit):
            raise NotOnDiff(
                f"PR #{number} does not have {draft.head_commit[:12]} any more: review what it is now"
            )
        if await self.merge_base(draft.head_commit, pull.head_commit) != draft.head_commit:
            raise NotOnDiff(
                f"PR #{number} was pushed over and is at {pull.head_commit[:12]}, which does not have {draft.head_commit[:12]}"
            )
        try:
            text = await self.diff(pull.base_commit, draft.head_commit)
            diff = await asyncio.to_thread(parse, text)
        except (DiffError, ForgeError):  # larger than is read
            return places
        held: list[int] = []
        for place in places:
            one = draft.comments[place]
            file = diff.at(one.path, one.side)
            if file and file.text_between(one.start_line or one.line, one.line, one.side) is not None:
                held.append(place)
        return held

    async def _by_halves(self, path: str, draft: ReviewDraft, places: list[int], key: str) -> list[int]:
        """Those that GitHub takes, as far as a bounded number of drafts tells."""
        tries = 2 * len(places).bit_length() + 10
        good: list[int] = []
        waiting = _halves(places)  # the whole was refused
        while waiting and tries:
            part = waiting.pop(0)
            tries -= 1
            if await self._takes(path, draft, part, key):
                good += part
            else:
                waiting += _halves(part)
        return sorted(good)

    async def _takes(self, path: str, draft: ReviewDraft, places: list[int], key: str) -> bool:
        try:
            pending = await self._client.send("POST", path, _body(draft, places, key))
        except Unprocessable:
            return False
        await self._take_back(path, pending)
        return True

    async def _take_back(self, path: str, pending: Mapping[str, Any]) -> None:
        try:
            await self._client.send("DELETE", f"{path}/{id_in(pending)}")
        except Gone:
            return

    async def _posted(
        self, path: str, review: Mapping[str, Any], draft: ReviewDraft, key: str
    ) -> PostedReview:
        """What stands at GitHub. Comments are known by their hidden lines: GitHub lists them in an order of its own."""
        id = id_in(review)
        ids = [""] * len(draft.comments)
        if ids:
            places = {mark(f"{key}#{place}"): place for place in range(len(ids))}
            for comment in await self._client.pages(f"{path}/{id}/comments"):
                place = places.get(mark_of(comment.get("body")))
                if place is not None:
                    ids[place] = self._remember(ON_LINE + id_in(comment), comment.get("body"))
        refused = tuple(place for place, one in enumerate(ids) if not one)
        return _as_posted(review, draft.verdict).evolve(comments=tuple(ids), refused=refused)

    # threads

    async def resolve(self, number: int, comments: Sequence[str], note: str) -> list[str]:
        """Two requests for up to 50 threads among 100. Where GitHub lets us not resolve, the note is said once in each thread: one request
        to look, one a thread."""
        wanted = {id: comment for comment in comments if (id := number_in(comment, ON_LINE)) is not None}
        if not wanted:
            return []
        resolved: list[str] = []
        try:
            async for comment in self._resolved(number, wanted):
                resolved.append(comment)
        except (AccessLost, Gone, Unprocessable) as error:
            log.info("github.resolve.refused", number=number, reason=str(error)[:200])
        left = [id for id in wanted if wanted[id] not in resolved]
        if left:
            await self._say_in_threads(number, left, note)
        return resolved

    async def _resolved(self, number: int, wanted: Mapping[int, str]) -> AsyncGenerator[str]:
        """Those that are resolved, one by one: what GitHub refuses takes nothing back of what was done before."""
        open_threads: dict[str, str] = {}  # thread → our comment
        for thread in await self._threads(number, len(wanted)):
            comment = wanted.get(thread["comment"])
            if comment is None:
                continue
            if thread["isResolved"]:
                yield comment
            elif thread["viewerCanResolve"] is not False:
                open_threads[thread["id"]] = comment
        ids = list(open_threads)
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            names = ", ".join(f"$t{i}: ID!" for i in range(len(part)))
            steps = " ".join(
                f"r{i}: resolveReviewThread(input: {{threadId: $t{i}}}) {{ thread {{ isResolved }} }}"
                for i in range(len(part))
            )
            await self._client.graphql(
                f"mutation ({names}) {{ {steps} }}", {f"t{i}": id for i, id in enumerate(part)}
            )
            for id in part:
                yield open_threads[id]

    async def _threads(self, number: int, wanted: int) -> list[dict[str, Any]]:
        owner, _, name = self._repository.partition("/")
        after: str | None = None
        found: list[dict[str, Any]] = []
        for _ in range(50):
            variables = {"owner": owner, "name": name, "number": number, "after": after}
            data: Any = await self._client.graphql(_THREADS, variables)
            threads: Any = ((data.get("repository") or {}).get("pullRequest") or {}).get("reviewThreads")
            if threads is None:
                raise Gone(f"there is no pull request #{number} in {self._repository}")
            for node in cast(list[dict[str, Any]], threads["nodes"]):
                first = ((node.get("comments") or {}).get("nodes") or [{}])[0]
                id = str(first.get("fullDatabaseId") or "")  # a text, for it is longer than GraphQL's numbers
                found.append(node | {"comment": int(id) if id.isdecimal() else None})
            if not threads["pageInfo"]["hasNextPage"]:
                break
            after = threads["pageInfo"]["endCursor"]
        return found

    async def _say_in_threads(self, number: int, ids: Sequence[int], note: str) -> None:
        try:
            there = await self._client.pages(self._at(f"/pulls/{number}/comments"), most=5000)
        except Gone:
            return
        known = {one.get("id") for one in there}
        answered = {
            one.get("in_reply_to_id")
            for one in there
            if is_marked(one.get("body"), f"resolved:{one.get('in_reply_to_id')}")
            and await self._is_ours(one)
        }
        for id in ids:
            if id in known and id not in answered:
                body = {"body": marked(note, f"resolved:{id}")}
                try:
                    await self._client.send("POST", self._at(f"/pulls/{number}/comments/{id}/replies"), body)
                except Gone:
                    continue


def _halves(places: list[int]) -> list[list[int]]:
    """Two halves of what was refused; nothing of a single one."""
    middle = len(places) // 2
    return [places[:middle], places[middle:]] if middle else []


def _body(draft: ReviewDraft, places: Sequence[int], key: str) -> dict[str, Any]:
    comments = [_inline(draft.comments[place], f"{key}#{place}") for place in places]
    made: dict[str, Any] = {"commit_id": draft.head_commit, "body": marked(draft.body, key)}
    return made | ({"comments": comments} if comments else {})


def _inline(comment: InlineComment, key: str) -> dict[str, Any]:
    side = _SIDES[comment.side]
    made: dict[str, Any] = {
        "path": comment.path,
        "line": comment.line,
        "side": side,
        "body": marked(comment.body, key),
    }
    if comment.start_line is not None and comment.start_line != comment.line:
        made |= {"start_line": comment.start_line, "start_side": side}
    return made


def _as_posted(review: Mapping[str, Any], otherwise: ReviewVerdict) -> PostedReview:
    return PostedReview(
        id=REVIEW + id_in(review),
        url=str(review.get("html_url") or ""),
        verdict=verdict_of(review.get("state"), otherwise),
    )
