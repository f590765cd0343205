"""Polling, over real sockets, with the real client: what a look costs, the repository and its branches, and looks that break off."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from codespar.domain.builds import Conclusion
from codespar.domain.happenings import (
    NO_COMMIT,
    Checked,
    InstallationChanged,
    PullChanged,
    Pushed,
    Ran,
    RepositoryChanged,
)
from codespar.forges.base import AccessLost, ForgeUnavailable, Gone
from codespar.forges.github.polling import look
from support.github.listing import Listing, commit
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


async def test_the_first_look_tells_how_the_default_branch_stands_and_nothing_that_was_before(
    github: Listing, watcher: Watcher
) -> None:
    github.pull(1)
    github.comment(1, "@codespar review")
    github.issue(2)
    github.run(50, status="completed", conclusion="success")
    github.pass_time(minutes=5)
    github.run(51, status="completed", conclusion="failure")
    github.run(52, status="in_progress")
    github.run(53, name="Lint", workflow_id=8, status="completed", conclusion="success")
    github.run(54, head_branch="feat-1", status="completed", conclusion="failure")
    fork = github.run(55, status="completed", conclusion="failure", event="pull_request")
    fork["head_repository"] |= {"id": 77}
    github.check(commit(0), "coverage", "codecov", "success")
    github.check(commit(0), "build", "github-actions", "failure")
    github.status(commit(0), "ci/jenkins", "pending")
    first = await watcher.look(minutes=10)
    assert [(ran.run.id, ran.run.conclusion) for ran in found(first, Ran)] == [
        ("51", Conclusion.FAILURE),
        ("52", None),
        ("53", Conclusion.SUCCESS),
    ]
    assert {(one.run.workflow, one.run.conclusion, one.run.branch) for one in found(first, Checked)} == {
        ("coverage", Conclusion.SUCCESS, "main"),
        ("ci/jenkins", None, "main"),
    }
    assert len(first.news) == 5 and first.comments == ()
    again = await watcher.look()
    assert again.news == () and again.comments == ()


async def test_a_quiet_repository_costs_five_requests_a_look_all_answered_not_modified(
    github: Listing, watcher: Watcher
) -> None:
    for number in range(1, 8):
        github.pull(number)
        github.run(number, status="completed", conclusion="success")
    github.comment(3, "hello")
    await watcher.look(days=1)
    for _ in range(3):
        await watcher.restart()  # the ETags are in the cursor, not in the process
        polled = await watcher.look()
        assert polled.news == () and polled.comments == ()
        assert total(github) == github.unchanged == 5, github.asked
    await watcher.look(hours=2)  # now and then it looks for late checks of the newest commit
    assert total(github) == github.unchanged == 7


async def test_a_push_a_forced_push_a_new_and_a_deleted_branch_are_told_apart(
    github: Listing, watcher: Watcher
) -> None:
    github.branches |= {"old": commit(1), "wild": commit(2)}
    await watcher.look()
    github.pass_time(minutes=1)
    github.push("main", commit(10))
    github.push("main", commit(11))
    github.push("wild", commit(12), "force_push")
    github.push("wild", commit(13))
    github.push("old", None, "branch_deletion")
    github.push("new/branch", commit(14), "branch_creation")
    github.push("gh-readonly-queue/main/pr-1", commit(15), "branch_creation")
    polled = await watcher.look()
    assert found(polled, Pushed) == [
        Pushed(branch="main", before=commit(0), after=commit(11), default=True, author="mona"),
        Pushed(branch="new/branch", before=NO_COMMIT, after=commit(14), default=False, author="mona"),
        Pushed(branch="old", before=commit(1), after=NO_COMMIT, default=False, author="mona"),
        Pushed(branch="wild", before=commit(2), after=commit(13), default=False, forced=True, author="mona"),
    ]
    names = [news.delivery for news in polled.news]
    assert names[0].startswith(f"push:main:{commit(0)}:{commit(11)}")
    assert (await watcher.look()).news == ()


async def test_a_push_is_told_where_the_host_keeps_no_activity(github: Listing, watcher: Watcher) -> None:
    github.refused["/activity"] = 404
    await watcher.look()
    github.push("main", commit(10), "force_push")
    (push,) = found(await watcher.look(), Pushed)
    assert (push.before, push.after, push.forced, push.author) == (commit(0), commit(10), False, "")


async def test_a_repository_without_a_commit_is_watched_until_it_has_one(
    github: Listing, watcher: Watcher
) -> None:
    github.branches.clear()
    github.refused["/git/matching-refs/heads"] = 409
    assert (await watcher.look()).news == ()
    github.refused.clear()
    github.push("main", commit(1), "branch_creation")
    assert [one.before for one in found(await watcher.look(), Pushed)] == [NO_COMMIT]


async def test_a_renamed_repository_is_followed_and_said_so_once(github: Listing, watcher: Watcher) -> None:
    await watcher.look()
    github.former.append("octo/world")
    github.name = "octo/planet"
    polled = await watcher.look()
    assert found(polled, RepositoryChanged) == [
        RepositoryChanged(action="renamed", old="octo/world", new="octo/planet")
    ]
    assert (await watcher.look()).news == ()
    github.former.append("octo/planet")
    github.name = "mona/planet"
    (moved,) = found(await watcher.look(), RepositoryChanged)
    assert (moved.action, moved.old, moved.new) == ("transferred", "octo/planet", "mona/planet")
    await watcher.look()
    assert (await watcher.look()).news == ()
    assert total(github) == github.unchanged == 5


async def test_another_repository_under_the_former_name_is_not_taken_for_ours(
    github: Listing, watcher: Watcher
) -> None:
    await watcher.look()
    kept = json.loads(watcher.kept)
    kept["repository"], kept["id"] = "octo/world", 4242
    kept["etags"] = {}
    watcher.kept = json.dumps(kept)
    github.push("main", commit(66))
    polled = await watcher.look()
    assert [one.action for one in found(polled, InstallationChanged)] == ["removed"]
    assert len(polled.news) == 1


async def test_another_default_branch_and_an_archived_repository_are_told(
    github: Listing, watcher: Watcher
) -> None:
    github.branches["trunk"] = commit(3)
    await watcher.look()
    github.repository |= {"default_branch": "trunk", "archived": True}
    changes = found(await watcher.look(), RepositoryChanged)
    assert [(one.action, one.new) for one in changes] == [
        ("default_branch", "trunk"),
        ("archived", "octo/world"),
    ]
    github.push("trunk", commit(4))
    assert [one.default for one in found(await watcher.look(), Pushed)] == [True]


async def test_a_repository_out_of_reach_is_told_once_and_nothing_of_it_is_lost_when_it_is_back(
    github: Listing, watcher: Watcher
) -> None:
    await watcher.look()
    github.refused["/octo/world"] = 404
    github.pull(1)
    (lost,) = found(await watcher.look(), InstallationChanged)
    assert (lost.action, lost.account, lost.repositories) == ("removed", "octo", ("octo/world",))
    assert (await watcher.look()).news == ()
    github.refused.clear()
    back = await watcher.look(days=2)
    assert [one.action for one in found(back, InstallationChanged)] == ["added"]
    assert [one.number for one in found(back, PullChanged)] == [1]


async def test_a_repository_that_never_was_is_gone_and_a_refused_token_is_access_lost(
    github: Listing, watcher: Watcher
) -> None:
    github.refused["/octo/world"] = 404
    with pytest.raises(Gone):
        await watcher.look()
    github.refused["/octo/world"] = 401
    with pytest.raises(AccessLost):
        await watcher.look()


@pytest.mark.parametrize("status", [403, 404])
async def test_a_repository_without_actions_is_watched_all_the_same(
    github: Listing, watcher: Watcher, status: int
) -> None:
    github.refused["/actions/runs"] = status
    await watcher.look()
    github.pull(1)
    github.push("main", commit(1))
    polled = await watcher.look()
    assert len(found(polled, PullChanged)) == len(found(polled, Pushed)) == 1
    assert "/repos/octo/world/actions/runs" not in github.asked  # not asked again at once
    github.refused.clear()
    github.run(9, status="completed", conclusion="failure")
    assert [one.run.id for one in found(await watcher.look(hours=2), Ran)] == ["9"]


async def test_a_limit_in_the_middle_of_a_look_loses_nothing_and_doubles_nothing(
    github: Listing, watcher: Watcher
) -> None:
    github.issue(3)
    await watcher.look(hours=1)
    github.pass_time(hours=1)
    github.push("main", commit(1))
    github.pull(1)
    github.pull(2)
    github.review(1, "APPROVED", "@codespar merge")
    github.comment(3, "@codespar status")
    github.run(9, status="completed", conclusion="failure")
    github.check(commit(1), "coverage", "codecov", "success")
    kept = watcher.kept
    whole = await watcher.look()
    wanted = [news.delivery for news in whole.news]
    spoken = [one.id for one in whole.comments]
    needed = total(github)
    assert len(wanted) == 6 and len(spoken) == 2
    watcher.kept = kept
    for enough in range(needed):
        github.limited_after = enough
        await watcher.restart()
        cursor = json.loads(kept)
        with pytest.raises(ForgeUnavailable):
            await look(watcher.client, "octo/world", cursor, github.now)
        assert cursor == json.loads(kept)
    github.limited_after = None
    await watcher.restart()
    polled = await watcher.look(seconds=0)
    assert [news.delivery for news in polled.news] == wanted
    assert [one.id for one in polled.comments] == spoken


async def test_a_cursor_that_cannot_be_understood_begins_anew(github: Listing, watcher: Watcher) -> None:
    github.run(50, status="completed", conclusion="success")
    watcher.kept = json.dumps({"version": 99, "anything": [1]})
    assert [one.run.id for one in found(await watcher.look(), Ran)] == ["50"]
