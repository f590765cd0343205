"""Reviews and threads, where only a strict GitHub of our own can play the other side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from codespar.domain.reviews import ReviewVerdict, Side
from codespar.forges.base import (
    ForgeError,
    InlineComment,
    NotOnDiff,
    ReviewDraft,
)
from codespar.forges.github.forge import GithubForge
from codespar.forges.github.marks import mark, marked
from support.github.api import Asked, Says
from support.github.onepull import BOT, EVE, LINES, PULL, OnePull, one_pull

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[OnePull, GithubForge]]:
    async with one_pull(tmp_path) as made:
        yield made


@pytest.fixture
def github(both: tuple[OnePull, GithubForge]) -> OnePull:
    return both[0]


@pytest.fixture
def forge(both: tuple[OnePull, GithubForge]) -> GithubForge:
    return both[1]


def draft(github: OnePull, *lines: int, verdict: ReviewVerdict = ReviewVerdict.COMMENT) -> ReviewDraft:
    comments = tuple(InlineComment(path="src/new.py", line=line, body=f"about {line}") for line in lines)
    return ReviewDraft(head_commit=github.head, verdict=verdict, body="findings", comments=comments)


async def test_a_review_with_comments_takes_three_requests_and_tells_their_ids_in_order(
    github: OnePull, forge: GithubForge
) -> None:
    review = draft(github, 3, 1, 2).evolve(verdict=ReviewVerdict.REQUEST_CHANGES)
    posted = await forge.submit_review(1, review, "review-1")

    assert len(github.requests) == 3
    (id,) = github.reviews
    assert posted.comments == tuple(f"discussion_r{id * 1000 + n}" for n in range(3))
    assert (posted.refused, posted.verdict) == ((), ReviewVerdict.REQUEST_CHANGES)
    assert posted.id == f"pullrequestreview-{id}"
    assert await forge.submit_review(1, review, "review-1") == posted
    assert await forge.review_under(1, "review-1") == posted.evolve(comments=())
    assert await forge.review_under(1, "review-2") is None
    assert len(github.reviews) == 1


async def test_comments_beside_the_diff_are_named_and_the_others_stand_inline(
    github: OnePull, forge: GithubForge
) -> None:
    review = draft(github, 5, 400, 7)
    old = InlineComment(path="src/app.py", line=1, side=Side.OLD, body="not in the diff")
    posted = await forge.submit_review(1, review.evolve(comments=(*review.comments, old)), "review-1")

    assert posted.refused == (1, 3)
    assert [bool(id) for id in posted.comments] == [True, False, True, False]
    assert github.drafts_made == 0  # our own reading of the diff was enough
    assert github.lines_of("POST") == [f"POST {PULL}/reviews"] * 2


@pytest.mark.parametrize("bad", [{17}, {1, 40}, {3, 9, 20, 33}, set(range(1, LINES + 1))])
async def test_what_github_alone_cannot_place_is_found_by_halves_with_an_end(
    github: OnePull, forge: GithubForge, bad: set[int]
) -> None:
    github.unplaced = bad
    posted = await forge.submit_review(1, draft(github, *range(1, LINES + 1)), "review-1")

    assert {n + 1 for n in posted.refused} >= bad
    assert len(github.requests) <= 4 * (LINES.bit_length()) + 30 + 3
    assert [one["state"] for one in github.reviews.values()] == ["COMMENTED"]  # no draft was left
    if len(bad) <= 2:
        assert {n + 1 for n in posted.refused} == bad


async def test_our_own_pull_request_gets_a_comment_where_nobody_may_approve_their_own(
    github: OnePull, forge: GithubForge
) -> None:
    github.author = BOT
    for verdict in (ReviewVerdict.APPROVE, ReviewVerdict.REQUEST_CHANGES):
        posted = await forge.submit_review(1, draft(github, verdict=verdict), f"review-{verdict}")
        assert posted.verdict is ReviewVerdict.COMMENT


async def test_a_review_of_a_commit_that_was_pushed_over_is_refused(
    github: OnePull, forge: GithubForge
) -> None:
    github.commits = set()
    with pytest.raises(NotOnDiff, match="any more"):
        await forge.submit_review(1, draft(github, 1), "review-1")


async def test_a_review_of_a_commit_that_the_head_does_not_have_is_refused(
    github: OnePull, forge: GithubForge
) -> None:
    stale = draft(github, 1).evolve(head_commit="1" * 40)
    github.commits.add("1" * 40)
    github.unplaced = {1}
    with pytest.raises(NotOnDiff, match="111111111111"):
        await forge.submit_review(1, stale, "review-1")


async def test_a_draft_from_before_a_crash_is_taken_back_and_a_persons_is_not(
    github: OnePull, forge: GithubForge
) -> None:
    ours = {"id": 5, "state": "PENDING", "body": marked("findings", "review-1"), "user": BOT}
    github.reviews[5] = ours
    github.on("DELETE", f"{PULL}/reviews/5", lambda asked: github._take_back(5))
    await forge.submit_review(1, draft(github, 1), "review-1")
    assert 5 not in github.reviews

    github.reviews[6] = {"id": 6, "state": "PENDING", "body": "my notes", "user": BOT}
    with pytest.raises(ForgeError, match="by hand"):
        await forge.submit_review(1, draft(github, 1), "review-2")
    assert 6 in github.reviews


async def test_nobody_else_can_make_us_believe_that_we_reviewed(github: OnePull, forge: GithubForge) -> None:
    github.reviews[5] = {"id": 5, "state": "COMMENTED", "body": mark("review-1"), "user": EVE}
    posted = await forge.submit_review(1, draft(github), "review-1")
    assert posted.id != "pullrequestreview-5"


async def test_a_review_that_is_too_long_is_cut_and_still_known_again(
    github: OnePull, forge: GithubForge
) -> None:
    long = draft(github).evolve(body="é" * 100_000)
    posted = await forge.submit_review(1, long, "review-1")
    assert await forge.submit_review(1, long, "review-1") == posted


def _threads(*threads: tuple[str, int, bool]) -> dict[str, Any]:
    """As GraphQL has them: its numbers end at 2,147,483,647, and GitHub's review comments are beyond that."""
    nodes = [
        {
            "id": id,
            "isResolved": done,
            "viewerCanResolve": True,
            "comments": {
                "nodes": [{"databaseId": first if first < 2**31 else None, "fullDatabaseId": str(first)}]
            },
        }
        for id, first, done in threads
    ]
    page = {"hasNextPage": False, "endCursor": None}
    return {"data": {"repository": {"pullRequest": {"reviewThreads": {"pageInfo": page, "nodes": nodes}}}}}


async def test_threads_are_resolved_by_two_requests_and_those_that_are_gone_are_passed_over(
    github: OnePull, forge: GithubForge
) -> None:
    resolved = {"data": {"r0": {"thread": {"isResolved": True}}}}
    threads = _threads(("T1", 2_412_345_678, False), ("T2", 12, True))
    github.on("POST", "/graphql", Says(threads), Says(resolved))
    github.lists(f"{PULL}/comments", [])

    ours = ["discussion_r2412345678", "discussion_r12", "discussion_r13"]
    done = await forge.resolve(1, ours, "fixed")

    assert sorted(done) == ["discussion_r12", "discussion_r2412345678"]
    asked = github.asked("POST", "/graphql")
    assert len(asked) == 2
    assert asked[1].body["variables"] == {"t0": "T1"}


async def test_where_threads_cannot_be_resolved_the_note_is_said_in_them_once(
    github: OnePull, forge: GithubForge
) -> None:
    forbidden = {"errors": [{"type": "FORBIDDEN", "message": "Resource not accessible by integration"}]}
    github.on("POST", "/graphql", Says(forbidden))
    said: list[dict[str, Any]] = [{"id": 11, "body": "why?", "user": BOT}]
    github.on("GET", f"{PULL}/comments", lambda asked: Says(said))

    def reply(asked: Asked) -> Says:
        said.append({"id": 90, "in_reply_to_id": 11, "user": BOT} | asked.body)
        return Says(said[-1], 201)

    github.on("POST", f"{PULL}/comments/11/replies", reply)
    for _ in range(2):
        assert await forge.resolve(1, ["discussion_r11", "discussion_r404"], "fixed in abc") == []
    assert len(github.asked("POST", f"{PULL}/comments/11/replies")) == 1
    assert said[-1]["body"].startswith("fixed in abc")


async def test_a_thread_that_is_resolved_gets_no_note_where_github_refuses_the_others(
    github: OnePull, forge: GithubForge
) -> None:
    forbidden = {"errors": [{"type": "FORBIDDEN", "message": "Resource not accessible by integration"}]}
    github.on("POST", "/graphql", Says(_threads(("T1", 11, False), ("T2", 12, True))), Says(forbidden))
    github.lists(f"{PULL}/comments", [{"id": id, "body": "why?", "user": BOT} for id in (11, 12)])
    for id in (11, 12):
        github.on("POST", f"{PULL}/comments/{id}/replies", Says({"id": 90}, 201))
    assert await forge.resolve(1, ["discussion_r11", "discussion_r12"], "fixed") == ["discussion_r12"]
    assert github.asked("POST", f"{PULL}/comments/12/replies") == []


async def test_a_locked_pull_request_is_not_asked_comment_by_comment(
    github: OnePull, forge: GithubForge
) -> None:
    github.on("POST", f"{PULL}/reviews", Says({"message": "Unable to create review: issue is locked"}, 403))
    with pytest.raises(ForgeError, match="is locked"):
        await forge.submit_review(1, draft(github, 1, 2, 3), "review-1")
    assert len(github.asked("POST", f"{PULL}/reviews")) == 1
