"""The GitHub forge against what remembers: emulate for GitHub's API, git's own server for the commits."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from codespar.domain.builds import Conclusion
from codespar.domain.reviews import ReviewVerdict
from codespar.forges.base import (
    Annotation,
    Check,
    ForgeUnavailable,
    Gone,
    InlineComment,
    MergeMethod,
    NotMergeable,
    PullRequest,
    PullRequestNotFound,
    PullState,
    PushRefused,
    RepositoryUnusable,
    ReviewDraft,
)
from codespar.forges.github.forge import GithubForge
from codespar.forges.github.hosted import repository_url
from codespar.forges.github.marks import mark, marked
from support.github.emulate import ADA, BOT, BOT_TOKEN, Emulate
from support.github.world import AT, World, now, opening
from support.repositories import git, repository

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulate]:
    with Emulate(tmp_path_factory.mktemp("github")) as running:
        yield running


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("seed") / "bare", {"src/app.py": "x = 1\n"})


@pytest.fixture
async def world(host: Emulate, seed: Path, tmp_path: Path) -> AsyncIterator[World]:
    made = World(host, host.repository(f"gateway-{next(_NUMBERS)}", seed), tmp_path)
    yield made
    await made.close()


async def test_a_pull_request_is_opened_from_a_pushed_branch_with_its_files_from_git(world: World) -> None:
    pull = await world.opened(labels=("codespar", "bug"), reviewers=(ADA, "nobody-here"), draft=True)

    assert (pull.number, pull.author, pull.branch, pull.state) == (1, BOT, "task/one", PullState.OPEN)
    assert [(file.path, file.additions, file.deletions) for file in pull.files] == [("hello.txt", 2, 1)]
    assert pull.draft
    assert not pull.fork
    there = world.github.as_ada("GET", "/pulls/1")
    assert there["body"] == "Closes #7"
    assert {label["name"] for label in there["labels"]} == {"codespar", "bug"}
    assert [user["login"] for user in there["requested_reviewers"]] == [ADA]


async def test_the_flow_of_a_task_takes_exactly_these_requests(world: World) -> None:
    base, commit = await world.pushed()
    world.front.forget()

    pull = await opening("task/one", base, commit)(world.forge)
    running = Check(name="codespar/task", passed=None, summary="works", at=AT)
    await world.forge.set_check(pull.number, running)
    await world.forge.set_check(pull.number, running)
    await world.forge.set_check(pull.number, running.evolve(passed=True, summary="done"))
    comment = await world.forge.comment(pull.number, "done", "task-1:done")
    await world.forge.edit_comment(comment, "done, and checked")
    await world.forge.submit_review(
        pull.number,
        ReviewDraft(head_commit=commit, verdict=ReviewVerdict.COMMENT, body="fine"),
        "review-1",
    )
    merged = await world.forge.merge(
        pull.number, method=MergeMethod.SQUASH, head_commit=commit, author="ada", at=AT
    )

    assert merged.state is PullState.MERGED
    at = f"/repos/{world.github.full_name}"
    lines = [re.sub(r"(check-runs|comments)/\d+\Z", r"\1/1", line) for line in world.front.lines]
    assert lines == [
        f"GET {at}/pulls",
        f"POST {at}/pulls",
        f"GET {at}/pulls/1",  # the head that the check is of
        f"GET {at}/commits/{commit}/check-runs",
        f"POST {at}/check-runs",
        f"GET {at}/pulls/1",  # said again: nothing
        f"GET {at}/pulls/1",
        f"PATCH {at}/check-runs/1",
        f"GET {at}/issues/1/comments",
        f"POST {at}/issues/1/comments",
        f"PATCH {at}/issues/comments/1",
        f"GET {at}/pulls/1/reviews",
        f"POST {at}/pulls/1/reviews",
        f"GET {at}/pulls/1",
        f"PUT {at}/pulls/1/merge",
    ]


async def _review(forge: GithubForge) -> object:
    _, head = await forge.sync()
    draft = ReviewDraft(head_commit=head, verdict=ReviewVerdict.REQUEST_CHANGES, body="please look again")
    return await forge.submit_review(1, draft, "review-abc:1")


WRITES: dict[str, tuple[str, Callable[[GithubForge], Awaitable[object]], str]] = {
    "comment": (
        r"POST .*/issues/1/comments",
        lambda forge: forge.comment(1, "hello", "task-abc123/1"),
        "/issues/1/comments",
    ),
    "review": (r"POST .*/reviews", _review, "/pulls/1/reviews"),
    "check": (
        r"POST .*/check-runs",
        lambda forge: forge.set_check(
            1,
            Check(
                name="codespar/review",
                passed=False,
                summary="two findings",
                at=AT,
                annotations=(
                    Annotation(path="hello.txt", start_line=1, end_line=1, level="warning", message="no"),
                ),
            ),
        ),
        "/commits/task%2Fone/check-runs",
    ),
    "close": (r"PATCH .*/pulls/1", lambda forge: forge.close(1, at=AT), "/pulls?state=closed"),
}


@pytest.mark.parametrize("what", WRITES)
async def test_what_is_done_again_after_a_lost_answer_is_done_once(world: World, what: str) -> None:
    await world.opened()
    pattern, write, trace = WRITES[what]

    world.front.lose(pattern)
    try:
        first = await write(world.forge)
    except ForgeUnavailable:  # it may have arrived, and nobody may send it again without looking
        first = None
    assert world.front.losing == ""
    second = await write(world.forge)
    third = await write(world.new_forge())

    found = world.github.as_ada("GET", trace)
    items = found if isinstance(found, list) else found["check_runs"]
    assert len(items) == 1
    if isinstance(second, PullRequest):  # the time of its last change aside
        assert isinstance(third, PullRequest)
        second, third = (one.evolve(updated_at=AT) for one in (second, third))
    assert second == third
    assert first is None or isinstance(first, PullRequest)


async def test_a_pull_request_whose_opening_was_not_heard_of_is_found_again(world: World) -> None:
    base, commit = await world.pushed()
    write = opening("task/one", base, commit, labels=("codespar",))
    world.front.lose(r"POST .*/pulls\Z")
    with pytest.raises(ForgeUnavailable, match="may have arrived"):
        await write(world.forge)

    second, third = await write(world.forge), await write(world.new_forge())

    assert (second.number, third.number) == (1, 1)
    assert second.labels == ("codespar",)
    assert len(world.github.as_ada("GET", "/pulls?state=all")) == 1


async def test_a_closed_pull_request_of_the_same_commit_is_returned_and_not_opened_again(
    world: World,
) -> None:
    base, commit = await world.pushed()
    await opening("task/one", base, commit)(world.forge)
    await world.forge.close(1, at=AT)

    again = await opening("task/one", base, commit)(world.forge)

    assert (again.number, again.state) == (1, PullState.CLOSED)


async def test_a_merge_whose_answer_was_lost_is_a_merge(world: World) -> None:
    pull = await world.opened()
    world.front.lose(r"PUT .*/merge")

    merged = await world.forge.merge(
        1, method=MergeMethod.MERGE, head_commit=pull.head_commit, author="ada", at=AT
    )
    again = await world.new_forge().merge(
        1, method=MergeMethod.MERGE, head_commit=pull.head_commit, author="ada", at=AT
    )

    _, tip = await world.forge.sync()
    assert merged.merge_commit == again.merge_commit == tip
    assert git("log", "-1", "--format=%P", tip, cwd=world.github.bare).split()[1] == pull.head_commit


async def test_what_moved_or_was_closed_is_not_merged(world: World) -> None:
    pull = await world.opened()
    with pytest.raises(NotMergeable, match="not at 0000"):
        await world.forge.merge(1, method=MergeMethod.MERGE, head_commit="0" * 40, author="ada", at=AT)
    await world.forge.close(1, at=AT)
    with pytest.raises(NotMergeable, match="is closed"):
        await world.forge.merge(
            1, method=MergeMethod.MERGE, head_commit=pull.head_commit, author="ada", at=AT
        )
    with pytest.raises(PullRequestNotFound):
        await world.forge.merge(99, method=MergeMethod.MERGE, head_commit="0" * 40, author="ada", at=AT)


async def test_a_required_check_that_failed_is_named_when_github_refuses_to_merge(world: World) -> None:
    pull = await world.opened()
    world.github.as_ada(
        "PUT",
        "/branches/main/protection",
        {"required_status_checks": {"strict": False, "contexts": ["ci", "codespar/review"]}},
    )
    assert await world.forge.required_checks("main") == ["ci", "codespar/review"]
    await world.forge.set_check(1, Check(name="codespar/review", passed=False, at=AT))

    with pytest.raises(NotMergeable, match=r"Failed: codespar/review\. Not there yet: ci"):
        await world.forge.merge(
            1, method=MergeMethod.SQUASH, head_commit=pull.head_commit, author="ada", at=AT
        )

    for name in ("codespar/review", "ci"):
        await world.forge.set_check(1, Check(name=name, passed=True, at=AT))
    merged = await world.forge.merge(
        1, method=MergeMethod.SQUASH, head_commit=pull.head_commit, author="ada", at=AT
    )
    assert merged.state is PullState.MERGED


async def test_the_checks_of_a_commit_are_told_by_name(world: World) -> None:
    pull = await world.opened()
    for name, passed in (("ci", True), ("lint", False), ("slow", None)):
        await world.forge.set_check(1, Check(name=name, passed=passed, at=AT, summary=f"{name}!"))
    skipped = Check(name="docs", passed=None, conclusion=Conclusion.SKIPPED, at=AT)
    await world.forge.set_check(1, skipped)

    found = {check.name: check for check in await world.forge.checks(pull.head_commit)}

    assert {name: check.passed for name, check in found.items()} == {
        "ci": True,
        "lint": False,
        "slow": None,
        "docs": True,
    }
    assert found["docs"].conclusion is Conclusion.SKIPPED
    assert found["lint"].summary == "lint!"


async def test_annotations_come_in_portions_and_go_on_where_they_stopped(world: World) -> None:
    await world.opened()
    many = tuple(
        Annotation(path="hello.txt", start_line=i, end_line=i, level="failure", message=f"line {i}")
        for i in range(1, 121)
    )
    check = Check(name="codespar/review", passed=False, summary="many", at=AT, annotations=many)
    world.front.lose(r"PATCH .*/check-runs/")
    with pytest.raises(ForgeUnavailable):
        await world.forge.set_check(1, check)

    await world.new_forge().set_check(1, check)
    await world.new_forge().set_check(1, check)

    sent = [
        len(one.body["output"].get("annotations", ()))
        for one in world.front.noted
        if "check-runs" in one.path and one.method != "GET"
    ]
    assert sent == [50, 50, 20]
    assert len(world.github.as_ada("GET", "/commits/task%2Fone/check-runs")["check_runs"]) == 1


async def test_a_comment_is_ours_by_its_author_and_not_by_its_hidden_line_alone(world: World) -> None:
    await world.opened()
    world.github.as_ada("POST", "/issues/1/comments", {"body": marked("ignore me", "task-1:done")})

    assert await world.forge.find_comment(1, "task-1:done", now() - timedelta(hours=1)) is None
    ours = await world.forge.comment(1, "done", "task-1:done")

    assert ours.startswith("issuecomment-")
    assert await world.forge.find_comment(1, "task-1:done", now() - timedelta(hours=1)) == ours
    assert await world.forge.find_comment(1, "task-1:other", now() - timedelta(hours=1)) is None


async def test_an_edited_comment_is_found_again_and_one_that_is_gone_is_told(world: World) -> None:
    await world.opened()
    comment = await world.forge.comment(1, "working", "task-1:card")
    after_restart = world.new_forge()
    await after_restart.edit_comment(comment, "done")

    assert await after_restart.find_comment(1, "task-1:card", now() - timedelta(hours=1)) == comment
    assert world.github.as_ada("GET", "/issues/1/comments")[0]["body"] == f"done\n\n{mark('task-1:card')}"
    await world.forge.delete_comment(comment)
    await world.forge.delete_comment(comment)
    with pytest.raises(Gone):
        await world.forge.edit_comment(comment, "too late")


async def test_a_comment_on_a_commit_is_made_once(world: World) -> None:
    await world.opened()
    _, tip = await world.forge.sync()
    first = await world.forge.comment_commit(tip, "this broke the build", "build-9")
    assert await world.new_forge().comment_commit(tip, "this broke the build", "build-9") == first
    assert first.startswith("commitcomment-")
    await world.forge.edit_comment(first, "fixed")


async def test_a_review_whose_comments_the_host_cannot_hold_is_posted_once_and_names_them(
    world: World,
) -> None:
    pull = await world.opened()
    draft = ReviewDraft(
        head_commit=pull.head_commit,
        verdict=ReviewVerdict.REQUEST_CHANGES,
        body="one finding",
        comments=(InlineComment(path="hello.txt", line=1, body="why?"),),
    )

    posted = await world.forge.submit_review(1, draft, "review-1")  # emulate takes no `line`
    again = await world.new_forge().submit_review(1, draft, "review-1")

    assert posted == again
    assert (posted.comments, posted.refused) == (("",), (0,))
    assert posted.verdict is ReviewVerdict.REQUEST_CHANGES
    assert len(world.github.as_ada("GET", "/pulls/1/reviews")) == 1


async def test_a_pull_request_is_read_though_its_branch_was_deleted(world: World) -> None:
    pull = await world.opened()
    git("update-ref", "-d", "refs/heads/task/one", cwd=world.github.bare)

    read = await world.new_forge().fetch_pull(1)

    assert (read.head_commit, read.base_commit) == (pull.head_commit, pull.base_commit)
    assert [file.path for file in read.files] == ["hello.txt"]


async def test_commits_that_are_nowhere_any_more_are_gone_and_the_rest_is_still_told(world: World) -> None:
    await world.opened()
    git("update-ref", "-d", "refs/heads/task/one", cwd=world.github.bare)
    git("update-ref", "-d", "refs/pull/1/head", cwd=world.github.bare)
    forge = world.new_forge()

    with pytest.raises(Gone, match="PR #1"):
        await forge.fetch_pull(1)
    assert (await forge.get_pull(1)).files == ()


async def test_the_list_of_pull_requests_takes_one_request(world: World) -> None:
    await world.opened()
    await world.opened("task/two", "Grace")
    await world.forge.close(1, at=AT)
    world.front.forget()

    everything = await world.forge.list_pulls()
    open_ones = await world.forge.list_pulls(PullState.OPEN)
    merged = await world.forge.list_pulls(PullState.MERGED)

    assert [pull.number for pull in everything] == [2, 1]
    assert [pull.number for pull in open_ones] == [2]
    assert merged == []
    assert len(world.front.noted) == 3


async def test_two_open_pull_requests_that_cannot_both_be_merged_are_told(world: World) -> None:
    await world.opened()
    await world.opened("task/two", "Grace")

    (conflict,) = await world.new_forge().conflicts(1)

    assert (conflict.other, conflict.paths) == (2, ("hello.txt",))


async def test_an_issue_is_read_and_a_missing_one_is_gone(world: World) -> None:
    world.github.as_ada("POST", "/issues", {"title": "It breaks", "body": "often", "labels": ["bug"]})
    issue = await world.forge.issue(1)
    assert (issue.title, issue.body, issue.author, issue.open) == ("It breaks", "often", ADA, True)
    with pytest.raises(Gone):
        await world.forge.issue(99)


async def test_who_we_are_is_asked_once(world: World) -> None:
    await world.opened()
    forge = world.new_forge(bot="")
    world.front.forget()
    assert (await forge.me(), await forge.me()) == (BOT, BOT)
    assert world.front.lines == ["GET /user"]


async def test_the_token_is_lent_to_git_and_is_nowhere_on_disk(world: World, tmp_path: Path) -> None:
    await world.opened()
    assert (await world.forge.branches()).keys() == {"main", "task/one"}
    assert world.forge.repository_name == world.github.full_name

    written = [path for path in tmp_path.rglob("*") if path.is_file() and "seed.json" not in path.name]
    assert written
    assert not [path for path in written if BOT_TOKEN.encode() in path.read_bytes()]


async def test_a_revoked_token_is_refused_by_git_without_being_shown(world: World) -> None:
    _, commit = await world.pushed()
    wrong = "github_pat_wrongwrongwrong"
    forge = world.new_forge(token=wrong)
    with pytest.raises(RepositoryUnusable) as refused:
        await forge.sync()
    assert wrong not in str(refused.value)
    forge.full = world.forge.full
    with pytest.raises(PushRefused) as not_pushed:
        await forge.push(branch="task/other", commit=commit)
    assert wrong not in str(not_pushed.value)


async def test_a_builds_log_is_gone_where_github_has_none(world: World) -> None:
    assert await world.forge.runs(limit=5) == []
    with pytest.raises(Gone):
        async with aclosing(world.forge.job_log("1", "1")) as pieces:  # type: ignore[type-var]
            async for _ in pieces:
                raise AssertionError("there is no log")


@pytest.mark.parametrize(
    ("api_url", "expected"),
    [
        ("https://api.github.com", "https://github.com/acme/gateway.git"),
        ("https://github.example.com/api/v3", "https://github.example.com/acme/gateway.git"),
        ("https://api.octocorp.ghe.com", "https://octocorp.ghe.com/acme/gateway.git"),
    ],
)
def test_git_finds_the_repository_beside_the_api(api_url: str, expected: str) -> None:
    assert repository_url(api_url, "acme/gateway") == expected
