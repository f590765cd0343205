"""A review that lacked nothing but green checks is looked at again when one ends well: it approves once, or says nothing to anybody."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from codespar.agents import builds
from codespar.domain.builds import Conclusion, Run
from codespar.domain.happenings import Checked, News
from codespar.domain.notifications import AlertKind
from codespar.domain.reviews import ReviewRecord, ReviewState, ReviewVerdict, Severity
from codespar.forges.base import AccessLost, Check, ForgeUnavailable
from codespar.store.base import Unit
from support.agency import AT, ROOM
from support.reviewing import CODE, Bureau, Journal, Killed, Once, Twice, finding, words

SMALL = {"shop.py": CODE.replace("cart[3]", "cart[3] + 1")}  # line 14
COUNT = itertools.count(1)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Bureau]:
    """At L3, with a review that found nothing, of a commit that nothing checked yet."""
    async with Bureau(tmp_path) as made:
        record, _ = await made.reviewed(SMALL, green=False)
        assert (record.verdict, failed(record)) == (ReviewVerdict.COMMENT, ["checks"])
        yield made


def failed(record: ReviewRecord) -> list[str]:
    return [gate.name for gate in record.gates if not gate.passed]


def news(
    shop: Bureau, head: str, name: str = "ci", conclusion: Conclusion | None = Conclusion.SUCCESS
) -> News:
    """A check of that commit changed."""
    at = shop.clock.move(seconds=1)
    run = Run(
        id=f"r{next(COUNT)}",
        workflow=name,
        branch="feature",
        commit=head,
        conclusion=conclusion,
        started_at=at,
        updated_at=at,
    )
    return News(delivery=run.id, repository="shop", at=at, what=Checked(run=run))


async def ends(shop: Bureau, name: str = "ci", conclusion: Conclusion | None = Conclusion.SUCCESS) -> News:
    """A check of the pull request's head changed at the host, and we hear of it."""
    passed = None if conclusion is None else conclusion.good
    check = Check(name=name, passed=passed, conclusion=conclusion, at=shop.clock())
    pull = await shop.forge.set_check(1, check)
    heard = news(shop, pull.head_commit, name, conclusion)
    await shop.hear(heard)
    await shop.store.write(_no_builds)
    return heard


def _no_builds(unit: Unit) -> None:
    """What follows from a red build is another's work."""
    for intent in unit.open_intents(100):
        if intent.target == builds.WORKFLOW:
            unit.close_intent(intent.id, AT)


async def verdicts(shop: Bureau) -> list[str]:
    return [one.verdict for one in (await shop.forge.get_pull(1)).reviews]


async def approved_once(shop: Bureau) -> bool:
    record = await shop.latest()
    return (await verdicts(shop), record.verdict, record.looking) == (
        ["comment", "approve"],
        ReviewVerdict.APPROVE,
        False,
    )


async def test_the_check_that_turns_green_after_the_posting_leads_to_one_approval(tmp_path: Path) -> None:
    async with Bureau(tmp_path) as shop:
        room = await shop.route(ROOM, AlertKind.REVIEWS)
        await shop.open(SMALL, green=False)
        (begun,) = await shop.say("review PR #1")
        assert await shop.work() == ["posted"]
        before = await shop.latest()
        at = shop.clock.move(hours=3)
        run = Run(
            id="7",
            workflow="slow tests",
            branch="feature",
            commit=before.head_commit,
            conclusion=Conclusion.SUCCESS,
            started_at=at,
            updated_at=at,
        )
        await shop.forge.report_run(run, [], {})
        shop.twin.problem = "nobody analyses anything again"
        await shop.look()
        assert await shop.work() == ["approved"]
        assert await approved_once(shop)
        record, pull = await shop.latest(), await shop.forge.get_pull(1)
        body = pull.reviews[-1].body
        assert "`slow tests`" in body and record.head_commit[:12] in body
        assert "Nothing else has changed since its review" in body
        assert shop.forge.posts[-1].comments == () and len(shop.twin.orders) == 1
        told = (await shop.told(record.thread))[-1]
        assert told.title == f"✅ Approved: PR #1 ({record.id})" and begun.title != told.title
        assert [one["subject"] for one in await shop.audit("review.approved")] == ["PR #1"]
        waiting = await shop.store.read(lambda unit: unit.announcements(room.key, 10))
        assert not any("Approved" in one.response.title for one in waiting)  # who asked is told
        (again,) = await shop.say("review PR #1")
        assert again.title == told.title and "reviewed this very commit already." in again.text
        assert await shop.work() == []


async def test_what_was_found_and_when_it_was_reviewed_stays_as_it_was(shop: Bureau) -> None:
    before = await shop.latest()
    await ends(shop)
    await shop.work()
    after = await shop.latest()
    assert failed(after) == [] and after.looks == 1
    changed = {"verdict", "gates", "looks"}
    assert after.model_dump(exclude=changed) == before.model_dump(exclude=changed)


@pytest.mark.parametrize("conclusion", [Conclusion.FAILURE, Conclusion.CANCELLED, Conclusion.TIMED_OUT, None])
async def test_a_check_that_did_not_end_well_changes_nothing_and_nobody_is_told(
    shop: Bureau, conclusion: Conclusion | None
) -> None:
    before, told = await shop.latest(), await shop.told()
    await ends(shop, conclusion=conclusion)
    assert await shop.work() == []
    assert (await shop.latest(), await shop.told(), await verdicts(shop)) == (before, told, ["comment"])


@pytest.mark.parametrize("other", [Conclusion.FAILURE, None])
async def test_while_another_check_runs_or_is_red_nothing_is_said_and_its_end_is_waited_for(
    shop: Bureau, other: Conclusion | None
) -> None:
    gates, told = (await shop.latest()).gates, await shop.told()
    await ends(shop, "slow", other)
    await ends(shop, "quick")
    assert await shop.work() == ["nothing"]
    assert ((await shop.latest()).gates, await shop.told(), await verdicts(shop)) == (
        gates,
        told,
        ["comment"],
    )
    await ends(shop, "slow")  # tried again, where it was red
    assert await shop.work() == ["approved"]
    assert await approved_once(shop)


async def test_news_of_a_commit_that_is_not_the_newest_any_more_approve_nothing(shop: Bureau) -> None:
    old = (await shop.latest()).head_commit
    shop.push("feature", {"b.py": "b = 1\n"})  # and nobody told us of it yet
    await shop.hear(news(shop, old))
    (why,) = await shop.work()
    assert "PR #1 is at" in why
    assert await verdicts(shop) == ["comment"]
    assert (await shop.latest()).state is ReviewState.POSTED


async def test_a_push_while_it_is_looked_at_keeps_the_approval_from_being_given(shop: Bureau) -> None:
    async def push() -> None:
        shop.push("feature", {"b.py": "b = 1\n"})

    await ends(shop)
    shop.forge.before["sync"] = push
    (why,) = await shop.work()
    assert "PR #1 is at" in why and await verdicts(shop) == ["comment"]


async def test_the_same_news_twice_before_and_after_approve_once(shop: Bureau) -> None:
    heard = await ends(shop)
    again = heard.model_copy(update={"delivery": "again"})
    await shop.hear(again)
    assert await shop.work() == ["approved"]
    # what came while the first look was under way is looked at after it, and there is nothing left to do
    assert await shop.work() == []
    await shop.hear(again.model_copy(update={"delivery": "and again"}))
    assert await shop.work() == [] and await approved_once(shop)


async def test_a_check_that_ends_while_it_is_looked_at_is_looked_at_after_it(shop: Bureau) -> None:
    """The look has read the checks before the last one turned green."""
    await ends(shop, "lint", Conclusion.FAILURE)
    await ends(shop, "ci")

    host = type(shop.forge)

    class Busy(host):  # type: ignore[misc, valid-type]
        async def checks(self, commit: str) -> list[Check]:
            read = await super().checks(commit)
            await ends(shop, "lint")
            return read

    shop.forge.__class__ = Busy
    assert await shop.work() == ["nothing"]
    shop.forge.__class__ = host
    assert await shop.work() == ["approved"]
    assert await approved_once(shop) and (await shop.latest()).looks == 2


@pytest.mark.parametrize("when", ["submit_review", "resolve"])
async def test_a_check_that_ends_while_the_review_is_posted_is_not_lost(tmp_path: Path, when: str) -> None:
    async with Bureau(tmp_path) as shop:
        await shop.open(SMALL, green=False)
        await shop.look()

        async def green() -> None:
            await ends(shop)

        if when == "submit_review":
            shop.forge.before["submit_review"] = green
            assert await shop.work() == ["posted"]
        else:  # it stands at the host, and the record does not say so yet
            kept: dict[str, Any] = {}
            with pytest.raises(Killed):
                await shop.work(lambda id: Journal(id, shop.clock, 8, kept))
            await green()
            assert await shop.work(lambda id: Journal(id, shop.clock, 99, kept)) == ["posted"]
        assert await shop.work() == ["approved"]
        assert await approved_once(shop)


# autonomy and rules, as they are then


async def at_level(shop: Bureau, level: int) -> None:
    await shop.store.write(lambda unit: unit.save_project(unit.project("shop").evolve(autonomy=level)))


async def test_below_l2_no_look_begins(shop: Bureau) -> None:
    await at_level(shop, 1)
    await ends(shop)
    assert await shop.work() == [] and await verdicts(shop) == ["comment"]


@pytest.mark.parametrize("when", ["before", "while judged"])
async def test_a_level_that_was_lowered_meanwhile_approves_nothing(shop: Bureau, when: str) -> None:
    await ends(shop)

    async def lower() -> None:
        await at_level(shop, 1)

    if when == "before":
        await lower()
    else:
        shop.forge.before["checks"] = lower
    assert await shop.work() == ["nothing"]
    assert await verdicts(shop) == ["comment"]
    assert await shop.store.read(lambda unit: unit.approvals("shop")) == []


async def test_a_stopped_project_approves_nothing_and_a_request_makes_up_for_it(shop: Bureau) -> None:
    await shop.say("kill")
    await ends(shop)
    assert await shop.work() == []
    await shop.say("resume")
    (card,) = await shop.say("review PR #1")
    assert "its checks are looked at once more" in card.text
    assert await shop.work() == ["approved"]
    assert await approved_once(shop)
    assert (await shop.told((await shop.latest()).thread))[-1].title.startswith("✅ Approved")


async def test_at_l2_the_approval_is_suggested_once_the_checks_are_green(tmp_path: Path) -> None:
    async with Bureau(tmp_path, autonomy=2) as shop:
        await shop.open(SMALL, green=False)
        await shop.say("review PR #1")
        assert await shop.work() == ["posted"]
        assert failed(await shop.latest()) == ["policy", "checks"]
        await ends(shop)
        assert await shop.work() == ["nothing"]
        asked = await shop.store.read(lambda unit: unit.approvals("shop"))
        assert [one.action_summary for one in asked] == ["`approve PR #1` in shop"]
        assert failed(await shop.latest()) == ["policy"] and await verdicts(shop) == ["comment"]
        await ends(shop, "another")
        assert await shop.work() == []
        assert len(await shop.store.read(lambda unit: unit.approvals("shop"))) == 1


async def test_the_repositorys_rules_are_those_of_now(shop: Bureau) -> None:
    shop.push("main", {".codespar.yaml": "review:\n  approve_up_to: none\n"})
    await ends(shop)
    assert await shop.work() == ["nothing"]
    assert await verdicts(shop) == ["comment"]


@pytest.mark.parametrize(
    "changed", [{"base_branch": "soft"}, {"base_commit": "1" * 40}, {"draft": True}, {"fork": True}]
)
async def test_a_pull_request_that_was_aimed_elsewhere_or_made_a_draft_is_not_approved(
    shop: Bureau, changed: dict[str, Any]
) -> None:
    host = type(shop.forge)

    class Aimed(host):  # type: ignore[misc, valid-type]
        async def fetch_pull(self, number: int) -> Any:
            return (await super().fetch_pull(number)).evolve(**changed)

    await ends(shop)
    shop.forge.__class__ = Aimed
    outcomes = await shop.work()
    shop.forge.__class__ = host
    assert outcomes != ["approved"] and await verdicts(shop) == ["comment"]


async def test_a_review_that_lacked_more_than_checks_is_not_looked_at_again(tmp_path: Path) -> None:
    async with Bureau(tmp_path) as shop:
        shop.twin.head = (finding("shop.py", 14, "Off by one", severity=Severity.LOW),)
        record, _ = await shop.reviewed(SMALL, green=False)
        assert failed(record) == ["checks", "findings"]
        await ends(shop)
        assert await shop.work() == [] and await verdicts(shop) == ["comment"]


# the same, done again


async def test_killed_after_any_step_of_a_look_it_approves_once(shop: Bureau) -> None:
    await ends(shop)
    kept: dict[str, Any] = {}
    killed: list[str] = []
    outcome: list[Any] = []
    for place in range(5):
        try:
            outcome = await shop.work(lambda id, place=place: Journal(id, shop.clock, place, kept))
        except Killed as at:
            killed.append(str(at))
            continue
        break
    assert killed == ["look", "settle"] and outcome == ["settled before"]
    assert await approved_once(shop)
    assert len(await shop.audit("review.approved")) == 1


async def test_every_step_of_a_look_done_twice_approves_once(shop: Bureau) -> None:
    await ends(shop)
    await shop.work(lambda id: Twice(id, shop.clock))
    assert await approved_once(shop) and len(await shop.audit("review.approved")) == 1


@pytest.mark.parametrize("lost", [False, True])
async def test_a_host_that_asks_for_patience_has_one_approval(shop: Bureau, lost: bool) -> None:
    await ends(shop)
    troubles = shop.forge.lost if lost else shop.forge.troubles
    troubles["submit_review"] = [ForgeUnavailable("rate limited", 42.0)]
    assert await shop.work() == ["approved"]
    assert await approved_once(shop)


async def test_a_look_that_fails_says_nothing_and_the_next_news_begin_another(shop: Bureau) -> None:
    told = await shop.told()
    await ends(shop)
    shop.forge.troubles["submit_review"] = [AccessLost("GitHub refuses the token")]
    assert await shop.work() == ["GitHub refuses the token"]
    assert (await shop.told(), (await shop.latest()).looking) == (told, False)
    await ends(shop, "another")
    assert await shop.work() == ["approved"]
    assert await approved_once(shop)


async def test_without_its_case_file_a_review_approves_nothing(shop: Bureau) -> None:
    record = await shop.latest()
    shutil.rmtree(shop.folder / "reviews" / record.id)
    await ends(shop)
    (why,) = await shop.work()
    assert "evidence.json is missing" in why and await verdicts(shop) == ["comment"]
    assert (await shop.latest()).looking is False


async def test_the_name_of_a_check_is_shown_and_means_nothing(shop: Bureau) -> None:
    await ends(shop, "ci` @everyone <img src=x> #12")
    assert await shop.work() == ["approved"]
    body = (await shop.forge.get_pull(1)).reviews[-1].body
    assert "``ci` @everyone <img src=x> #12``" in body


async def test_a_second_look_tells_the_places_that_want_to_hear_of_reviews(shop: Bureau) -> None:
    room = await shop.route(ROOM, AlertKind.REVIEWS)
    await ends(shop)
    assert await shop.work() == ["approved"]
    waiting = await shop.store.read(lambda unit: unit.announcements(room.key, 50))
    titles = [one.response.title for one in waiting] + [one.title for one in await shop.told(room)]
    assert [title for title in titles if title.startswith("✅ Approved")] == [
        f"✅ Approved: PR #1 ({(await shop.latest()).id})"
    ]
    (card,) = await shop.say("status")
    assert "review-" not in words(card)


async def test_an_approval_that_was_posted_before_a_crash_is_known_though_a_check_turned_red_meanwhile(
    shop: Bureau,
) -> None:
    """What stands at the host is said: a look that judged anew would leave the approval there, and nobody told of it."""
    await ends(shop)

    async def turns_red() -> None:
        await ends(shop, "slow tests", Conclusion.FAILURE)

    class Interrupted(Once):
        async def step(self, name: str, function: Any, *arguments: Any) -> Any:
            answer = await super().step(name, function, *arguments)
            if name != "look":
                return answer
            await shop.store.write(self._as_before_it)
            await turns_red()
            return await super().step(name, function, *arguments)

        def _as_before_it(self, unit: Unit) -> None:
            """It was killed after the posting, before the note of it."""
            known = unit.review(before.id)
            assert known is not None
            unit.update_review(known.evolve(verdict=before.verdict, gates=before.gates))

    before = await shop.latest()
    assert await shop.work(lambda id: Interrupted(id, shop.clock)) == ["approved"]
    assert await approved_once(shop)
    assert failed(await shop.latest()) == []
    assert len(await shop.audit("review.approved")) == 1
