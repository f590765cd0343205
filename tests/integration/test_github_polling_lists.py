"""Polling, over real sockets, with the real client: pull requests, reviews, issues, comments, runs and checks, each found once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from codespar.domain.builds import Conclusion
from codespar.domain.happenings import Checked, IssueChanged, PullAction, PullChanged, Ran, Reviewed
from support.github.listing import Listing, commit, stamp
from support.github.watcher import Watcher, found, total, watched


@pytest.fixture
async def both() -> AsyncIterator[tuple[Listing, Watcher]]:
    async with watched() as pair:
        yield pair


@pytest.fixture
def github(both: tuple[Listing, Watcher]) -> Listing:
    return both[0]


@pytest.fixture
def watcher(both: tuple[Listing, Watcher]) -> Watcher:
    return both[1]


async def test_after_a_day_offline_with_130_updated_pull_requests_none_is_missing(
    github: Listing, watcher: Watcher
) -> None:
    for number in range(1, 131):
        github.pull(number)
    await watcher.look(hours=1)
    github.pass_time(hours=1)
    for number in range(1, 131):
        github.pass_time(seconds=20)
        github.pull(number, head=commit(1000 + number))
    github.pull(131)
    github.pull(5, state="closed", merged_at=stamp(github.now), closed_at=stamp(github.now))
    github.pull(6, state="closed", closed_at=stamp(github.now))
    github.pull(132)
    github.pull(132, state="closed", merged_at=stamp(github.now), closed_at=stamp(github.now))
    await watcher.restart()
    polled = await watcher.look(days=1)
    changed = {one.number: one.action for one in found(polled, PullChanged)}
    assert len(changed) == 132
    special = {5: PullAction.MERGED, 6: PullAction.CLOSED, 131: PullAction.OPENED, 132: PullAction.MERGED}
    assert changed == dict.fromkeys(range(1, 133), PullAction.UPDATED) | special
    assert next(one for one in found(polled, PullChanged) if one.number == 9).head_commit == commit(1009)
    assert github.asked["/repos/octo/world/pulls"] == 3
    more: list[Any] = []
    for _ in range(4):
        later = await watcher.look()
        more += later.news
    assert more == []


async def test_reviews_of_many_pull_requests_are_asked_for_over_several_looks_and_each_is_told_once(
    github: Listing, watcher: Watcher
) -> None:
    for number in range(1, 71):
        github.pull(number)
    await watcher.look(hours=1)
    for number in range(1, 71):
        github.review(number, "APPROVED", "@codespar merge" if number == 70 else "")
    seen: list[Reviewed] = []
    words: list[str] = []
    for _ in range(3):
        polled = await watcher.look()
        seen += found(polled, Reviewed)
        words += [one.body for one in polled.comments]
        assert sum(n for path, n in github.asked.items() if path.endswith("/reviews")) <= 50
    assert sorted(one.number for one in seen) == list(range(1, 71))
    assert {one.verdict for one in seen} == {"approve"}
    assert words == ["@codespar merge"]
    github.reviews[3][0]["state"] = "DISMISSED"
    github.pull(3)
    assert [(one.number, one.verdict) for one in found(await watcher.look(), Reviewed)] == [(3, "dismissed")]


async def test_more_than_a_look_may_read_is_read_by_the_next_and_nothing_is_lost_or_doubled(
    github: Listing, watcher: Watcher
) -> None:
    await watcher.look()
    for number in range(1, 621):
        if number % 20 == 0:
            github.pass_time(seconds=3)
        github.pull(number)
        github.run(number, head_branch="x", status="completed", conclusion="success")
    pulls: list[int] = []
    runs: list[str] = []
    for turn in range(4):
        polled = await watcher.look()
        pulls += [one.number for one in found(polled, PullChanged)]
        runs += [one.run.id for one in found(polled, Ran)]
        assert github.asked["/repos/octo/world/pulls"] <= 10
        assert github.asked["/repos/octo/world/actions/runs"] <= 10
        if turn == 0:
            assert len(pulls) == 500 and len(runs) == 500
            github.pull(621)  # while there is still something to be caught up with
            github.pull(620, head=commit(5))
    assert sorted(pulls) == sorted([*range(1, 622), 620])
    assert sorted(map(int, runs)) == list(range(1, 621))


async def test_thousands_of_comments_are_read_in_order_without_losing_one(
    github: Listing, watcher: Watcher
) -> None:
    github.pull(1)
    await watcher.look(hours=1)
    for number in range(1250):
        if number % 150 == 0:
            github.pass_time(seconds=1)
        github.comment(1, f"{number}")
    github.comments[1200]["updated_at"] = stamp(github.pass_time(minutes=9))  # edited before it was ever read
    github.issue(1)
    bodies: list[str] = []
    for _ in range(4):
        polled = await watcher.look()
        bodies += [one.body for one in polled.comments]
    assert sorted(map(int, bodies)) == list(range(1250))


async def test_a_run_is_told_when_it_goes_on_and_once_for_each_attempt(
    github: Listing, watcher: Watcher
) -> None:
    await watcher.look()
    github.run(9)
    seen: list[tuple[str, int, Conclusion | None]] = []

    async def again(**much: float) -> None:
        polled = await watcher.look(**much)
        seen.extend((r.run.id, r.run.attempt, r.run.conclusion) for r in found(polled, Ran))

    await again()
    github.run(9, status="in_progress")
    await again()
    await again()
    github.run(9, status="completed", conclusion="failure")
    await again()
    github.run(9, status="in_progress", conclusion=None, run_attempt=2)
    await again()
    assert seen == [
        ("9", 1, None),
        ("9", 1, None),
        ("9", 1, Conclusion.FAILURE),
        ("9", 2, None),
    ]
    seen.clear()
    github.run(9, status="completed", conclusion="failure")
    github.run(9, status="completed", conclusion="success", run_attempt=3)
    await again(days=1)  # two endings between two looks: both are told, for only together do they say "flaky"
    assert seen == [("9", 2, Conclusion.FAILURE), ("9", 3, Conclusion.SUCCESS)]


async def test_a_run_under_way_that_sixty_newer_ones_pushed_off_the_first_page_is_still_followed(
    github: Listing, watcher: Watcher
) -> None:
    await watcher.look()
    github.run(9, status="in_progress")
    await watcher.look()
    for id in range(10, 70):
        github.run(id, status="completed", conclusion="success")
    await watcher.look()
    github.run(9, status="completed", conclusion="timed_out")
    polled = await watcher.look()
    assert [(r.run.id, r.run.conclusion) for r in found(polled, Ran)] == [("9", Conclusion.TIMED_OUT)]
    await watcher.look()
    assert not any(path.endswith("/actions/runs/9") for path in github.asked)


async def test_what_somebody_writes_is_told_once_though_it_is_edited_and_looked_at_again(
    github: Listing, watcher: Watcher
) -> None:
    github.issue(1)
    github.pull(2)
    old = github.comment(1, "written before anybody listened")
    await watcher.look(hours=1)
    said = github.comment(1, "@codespar status")
    line = github.line_comment(2, "@codespar why?")
    polled = await watcher.look()
    assert [(c.id, c.number, c.body, c.path) for c in polled.comments] == [
        (f"issuecomment-{said['id']}", 1, "@codespar status", None),
        (f"discussion_r{line['id']}", 2, "@codespar why?", "README.md"),
    ]
    assert [one.id for one in found(polled, Reviewed)] == [f"discussion_r{line['id']}"]
    for words in (said, old):
        words |= {"body": "@codespar deploy", "updated_at": stamp(github.pass_time(seconds=10))}
        github.issue(1)
        assert (await watcher.look()).comments == ()
    for _ in range(3):
        assert (await watcher.look()).comments == ()
    assert total(github) == github.unchanged == 5


async def test_a_comment_that_github_shows_later_than_its_issue_is_found_by_the_next_look(
    github: Listing, watcher: Watcher
) -> None:
    github.issue(1)
    await watcher.look(hours=1)
    late = github.comment(1, "@codespar status")
    github.comments.remove(late)
    assert (await watcher.look()).comments == ()
    github.comments.append(late)
    assert [one.body for one in (await watcher.look()).comments] == ["@codespar status"]


async def test_comments_that_were_refused_for_a_while_are_found_when_they_are_not(
    github: Listing, watcher: Watcher
) -> None:
    github.issue(1)
    await watcher.look(hours=1)
    github.refused["/issues/comments"] = 403
    github.comment(1, "@codespar status")
    for _ in range(5):
        assert (await watcher.look()).comments == ()
    github.refused.clear()
    assert [one.body for one in (await watcher.look(hours=1)).comments] == ["@codespar status"]


async def test_what_became_of_a_pull_request_is_told_by_what_was_known_of_it(
    github: Listing, watcher: Watcher
) -> None:
    github.pull(1, draft=True)
    github.pull(2)
    await watcher.look(hours=1)

    async def after(**fields: Any) -> list[PullAction]:
        github.pass_time(seconds=5)
        github.pull(1, **fields)
        return [one.action for one in found(await watcher.look(), PullChanged)]

    assert await after(draft=False) == [PullAction.READY]
    assert await after(head=commit(77)) == [PullAction.UPDATED]
    assert await after(title="another") == [PullAction.EDITED]
    assert await after(labels=[]) == []
    assert await after(draft=True) == [PullAction.OTHER]
    assert await after(state="closed", closed_at=stamp(github.now)) == [PullAction.CLOSED]
    assert await after(state="open", closed_at=None) == [PullAction.REOPENED]
    assert await after(state="closed", merged_at=stamp(github.now)) == [PullAction.MERGED]


async def test_a_head_that_moves_twice_in_one_second_is_told_twice(github: Listing, watcher: Watcher) -> None:
    github.pull(1)
    await watcher.look(hours=1)
    github.pull(1, head=commit(70))
    at = github.pulls[1]["updated_at"]
    first = await watcher.look()
    github.pulls[1]["head"]["sha"] = commit(71)
    second = await watcher.look()
    assert github.pulls[1]["updated_at"] == at
    assert [p.head_commit for p in found(first, PullChanged)] == [commit(70)]
    assert [p.head_commit for p in found(second, PullChanged)] == [commit(71)]
    assert first.news[0].delivery != second.news[0].delivery


async def test_issues_are_told_when_they_open_close_and_change_and_not_when_somebody_comments(
    github: Listing, watcher: Watcher
) -> None:
    github.issue(1)
    await watcher.look(hours=1)
    github.issue(2, title="new")
    github.issue(1)
    assert [(i.number, i.action) for i in found(await watcher.look(), IssueChanged)] == [(2, "opened")]
    told: list[str] = []
    for change in (
        {"title": "newer"},
        {"labels": [{"name": "bug"}]},
        {},
        {"state": "closed"},
        {"state": "open"},
    ):
        github.pass_time(seconds=5)
        github.issue(2, **change)
        told += [one.action for one in found(await watcher.look(), IssueChanged)]
    assert told == ["edited", "labeled", "closed", "reopened"]


async def test_checks_and_statuses_of_a_changed_pull_request_are_followed_until_they_end(
    github: Listing, watcher: Watcher
) -> None:
    await watcher.look()
    pull = github.pull(1, head=commit(5))
    await watcher.look()
    github.check(commit(5), "coverage", "codecov", None)
    github.status(commit(5), "ci/jenkins", "pending")
    under_way = found(await watcher.look(minutes=5), Checked)
    assert {(one.run.workflow, one.run.conclusion) for one in under_way} == {
        ("coverage", None),
        ("ci/jenkins", None),
    }
    assert (await watcher.look(hours=1)).news == ()
    github.check(commit(5), "coverage", "codecov", "failure")
    github.status(commit(5), "ci/jenkins", "error")
    ended = found(await watcher.look(), Checked)
    assert {one.run.conclusion for one in ended} == {Conclusion.FAILURE} and len(ended) == 2
    assert {one.run.id for one in ended} == {one.run.id for one in under_way}
    await watcher.look()
    assert not any(pull["head"]["sha"] in path for path in github.asked)


async def test_what_comes_after_a_hundred_updates_within_a_minute_is_found(
    github: Listing, watcher: Watcher
) -> None:
    await watcher.look()
    for number in range(1, 131):  # as a robot labels them
        github.issue(number)
    for _ in range(3):
        await watcher.look(minutes=2)
    github.comment(200, "@codespar status")
    polled = await watcher.look(minutes=2)
    assert [one.number for one in found(polled, IssueChanged)] == [200]
    assert [one.body for one in polled.comments] == ["@codespar status"]


async def test_a_check_on_the_second_page_is_heard_of_when_it_ends(github: Listing, watcher: Watcher) -> None:
    for number in range(1, 101):
        github.check(commit(0), f"job {number}", "github-actions", "success")
    github.check(commit(0), "deploy", "circleci", None)
    await watcher.look()
    await watcher.look()
    github.check(commit(0), "deploy", "circleci", "failure")
    polled = await watcher.look()
    assert [one.run.conclusion for one in found(polled, Checked)] == [Conclusion.FAILURE]
