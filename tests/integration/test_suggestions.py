"""Suggestions wait, as everything that is told unasked does, until their place may be disturbed; and can still be answered then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codespar.agents.announcer import Announcer, announce
from codespar.agents.consent import expire_due, suggest
from codespar.agents.pullwork import approval_facts
from codespar.agents.requests import tell_card
from codespar.app.webhooks import accept_news
from codespar.domain.approvals import Approval, ApprovalState
from codespar.domain.autonomy import Ask, AuthorizationVerdict, Decision
from codespar.domain.commands import Command, CommandArgs
from codespar.domain.happenings import News, PullAction, PullChanged
from codespar.domain.messages import NormalizedResponse
from codespar.domain.notifications import AlertKind, QuietHours, Rules
from codespar.domain.people import Permission
from codespar.domain.tasks import Thread
from codespar.store.base import Unit
from support.agency import ROOM, Agency, Clock
from support.repositories import repository

NIGHT = datetime(2026, 3, 2, 2, 0, tzinfo=UTC)
MORNING = NIGHT.replace(hour=8)
NOON = NIGHT.replace(hour=12)
HOUR = timedelta(hours=1)
RULES = Rules(per_hour=2, batch_seconds=300, quiet=QuietHours(start=22 * 60, end=8 * 60))
WHY = "the build of main is broken"


class Night(Agency):
    """The project at two in the morning, its room, and what is suggested there."""

    room: Thread

    async def suggest(self, seed: str = "a", text: str = "build tests", quorum: int = 1) -> Approval | None:
        asked = Ask(kind="sg", permission=Permission.APPLY_FIX, quorum=quorum, expires_in=HOUR)
        decision = Decision(
            verdict=AuthorizationVerdict.NEEDS_APPROVAL, rule="test", reason="level 2", ask=asked
        )
        command = Command(name="fix", args=CommandArgs(text=text))

        def write(unit: Unit) -> Approval | None:
            return suggest(
                unit, "shop", command, decision, WHY, self.clock(), seed=seed, kind=AlertKind.BUILDS
            )

        return await self.store.write(write)

    async def must_suggest(self, seed: str = "a", text: str = "build tests", quorum: int = 1) -> str:
        approval = await self.suggest(seed, text, quorum)
        assert approval is not None
        return approval.token

    async def look(self, at: datetime | None = None) -> None:
        """The announcer of a server that was just started looks once."""
        self.clock.at = at or self.clock.at
        for place in await self.store.read(lambda unit: unit.places_waiting()):
            await Announcer(self.store, RULES, self.clock)._tell(place)  # pyright: ignore
        await self.store.write(lambda unit: expire_due(unit, self.clock()))

    async def seen(self) -> list[NormalizedResponse]:
        return await self.told(self.room)

    async def titles(self) -> list[str]:
        return [one.title for one in await self.seen()]

    async def approval(self, token: str) -> Approval:
        found = await self.store.read(lambda unit: unit.approval(token))
        assert found is not None
        return found

    async def waits(self) -> list[str]:
        return await self.store.read(lambda unit: unit.places_waiting())


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Night]:
    bare = repository(tmp_path / "shop.git")
    async with Night(tmp_path / "house", bare, autonomy=2, clock=Clock(NIGHT)) as shop:
        shop.room = await shop.route(ROOM, AlertKind.BUILDS)
        yield shop


def lines(card: NormalizedResponse) -> dict[str, str]:
    return {line.name: line.value for line in card.fields}


async def test_a_suggestion_of_the_night_is_told_in_the_morning_with_its_buttons_and_its_whole_time(
    shop: Night,
) -> None:
    token = await shop.must_suggest()
    await shop.look()
    await shop.look(NIGHT + 5 * HOUR)
    assert await shop.seen() == [] and (await shop.approval(token)).state is ApprovalState.PENDING
    await shop.look(MORNING)
    [card] = await shop.seen()
    assert token in card.title and [one.command for one in card.actions] == [
        f"approve {token}",
        f"reject {token}",
    ]
    assert lines(card)["Answer by"] == "2026-03-02 09:00 UTC" and lines(card)["Why"] == WHY
    terminal = [one for one in await shop.told() if token in one.title and one != card]
    assert [lines(one)["Answer by"] for one in terminal] == ["2026-03-02 09:00 UTC"], "the other card says so"
    await shop.look(MORNING + timedelta(minutes=59))
    assert await shop.seen() == [card], "told once"
    await shop.say(f"approve {token}")
    assert (await shop.approval(token)).state is ApprovalState.EXECUTED


async def test_its_time_ends_an_hour_after_it_was_told(shop: Night) -> None:
    token = await shop.must_suggest()
    await shop.look(MORNING)
    await shop.look(MORNING + HOUR)
    assert (await shop.approval(token)).state is ApprovalState.EXPIRED
    [card] = await shop.seen()
    assert card.actions == ()


async def test_by_day_it_is_told_at_once_and_ends_an_hour_after_it_was_made(shop: Night) -> None:
    shop.clock.at = NOON
    token = await shop.must_suggest()
    before = await shop.store.read(lambda unit: unit.messages(None, 0, 100))
    await shop.look(NOON + timedelta(seconds=20))
    [card] = await shop.seen()
    assert lines(card)["Answer by"] == "2026-03-02 13:00 UTC" and not await shop.waits()
    after = await shop.store.read(lambda unit: unit.messages(None, 0, 100))
    assert len(after) == len(before) + 1 and before[0] in after, "the terminal's card is not touched"
    await shop.look(NOON + HOUR)
    assert (await shop.approval(token)).state is ApprovalState.EXPIRED


@pytest.mark.parametrize("words", ["approve", "approve {}", "reject {} no"])
async def test_what_was_answered_in_the_night_is_not_told_in_the_morning(shop: Night, words: str) -> None:
    token = await shop.must_suggest()
    await shop.look()
    shop.clock.at = NIGHT + 3 * HOUR
    await shop.say(words.format(token))
    decided = (await shop.approval(token)).state
    assert decided in (ApprovalState.EXECUTED, ApprovalState.REJECTED)
    assert await shop.seen() == [], "nor is the room told of the answer"
    await shop.look(MORNING)
    assert await shop.seen() == [] and not await shop.waits()


async def test_a_vote_of_the_night_is_on_the_card_that_is_told(shop: Night) -> None:
    token = await shop.must_suggest(quorum=2)
    shop.clock.at = NIGHT + 3 * HOUR
    await shop.say(f"approve {token}")
    await shop.look(MORNING)
    [card] = await shop.seen()
    assert lines(card)["Approvals"] == "1/2 — Ada via Cli" and card.actions
    await shop.say(f"approve {token}", by="rex")
    assert (await shop.approval(token)).votes[0].person == "ada"


async def test_of_suggestions_of_the_same_command_only_the_newest_is_told(shop: Night) -> None:
    old = await shop.must_suggest("a")
    await shop.look()
    new = await shop.must_suggest("b")
    other = await shop.must_suggest("c", "build docs")
    assert await shop.suggest("b") is None, "the same again is none"
    await shop.look(MORNING)
    assert [title.split("(")[1] for title in await shop.titles()] == [f"{new})", f"{other})"]
    assert (await shop.approval(old)).state is ApprovalState.VOID


async def test_over_the_limit_of_the_hour_it_waits_and_no_more_are_told_than_the_limit(shop: Night) -> None:
    shop.clock.at = NOON
    tokens = [await shop.must_suggest(str(number), f"build {number}") for number in range(3)]
    await shop.look(NOON)
    assert len(await shop.seen()) == 2
    await shop.look(NOON + timedelta(minutes=59))
    assert len(await shop.seen()) == 2
    await shop.look(NOON + HOUR + timedelta(seconds=1))
    assert len(await shop.seen()) == 3
    assert (await shop.approval(tokens[2])).expires_at == NOON + 2 * HOUR + timedelta(seconds=1)


async def test_the_first_place_that_is_told_begins_its_time_and_what_is_over_is_told_nowhere_else(
    shop: Night,
) -> None:
    shop.clock.at = NOON

    def busy(unit: Unit) -> None:
        for number in range(2):
            card = NormalizedResponse(title=f"news {number}")
            announce(unit, "shop", AlertKind.BUILDS, card, f"n{number}", NOON, critical=True)

    await shop.store.write(busy)
    await shop.look(NOON)
    free = await shop.route("T1:C2", AlertKind.BUILDS)
    token = await shop.must_suggest()
    await shop.look(NOON)
    assert token in (await shop.told(free))[-1].title and len(await shop.seen()) == 2
    await shop.look(NOON + HOUR + timedelta(seconds=1))
    assert len(await shop.seen()) == 2 and not await shop.waits()


class Killed(Exception):
    pass


async def test_what_a_kill_leaves_undone_is_told_once_afterwards(shop: Night) -> None:
    token = await shop.must_suggest()
    shop.clock.at = MORNING

    def dies(unit: Unit) -> None:
        (waiting,) = unit.announcements(shop.room.key, 10)
        unit.tell([waiting], MORNING)
        tell_card(unit, waiting, MORNING)
        raise Killed

    with pytest.raises(Killed):
        await shop.store.write(dies)
    assert await shop.seen() == [] and (await shop.approval(token)).untold
    await shop.look()
    await shop.look()
    assert len(await shop.seen()) == 1 and not (await shop.approval(token)).untold


def pull(
    action: PullAction, head: str = "a" * 40, *, minutes: int = 0, title: str = "feat: prices"
) -> PullChanged:
    """News of pull request 7, this many minutes after the night began."""
    return PullChanged(
        action=action,
        number=7,
        title=title,
        head_commit=head,
        branch="prices",
        base_branch="main",
        author="grace",
        updated_at=NIGHT + timedelta(minutes=minutes),
    )


class Pulls:
    """What is suggested for pull request 7 in the night."""

    def __init__(self, shop: Night) -> None:
        self.shop = shop
        self._heard = 0

    async def hear(self, *happened: PullChanged) -> None:
        def write(unit: Unit) -> None:
            for what in happened:
                self._heard += 1
                news = News(delivery=f"heard-{self._heard}", repository="", at=self.shop.clock(), what=what)
                assert accept_news(unit, "shop", news)

        await self.shop.store.write(write)
        await self.shop.quiet()

    async def approval(self, head: str = "a" * 40) -> str:
        asked = Ask(kind="sg", permission=Permission.APPROVE_PR, quorum=1, expires_in=HOUR)
        decision = Decision(
            verdict=AuthorizationVerdict.NEEDS_APPROVAL, rule="test", reason="level 2", ask=asked
        )

        def write(unit: Unit) -> str:
            made = suggest(
                unit,
                "shop",
                Command(name="approve", args=CommandArgs(number=7)),
                decision,
                "nothing was found",
                self.shop.clock(),
                seed=f"approve:7:{head}",
                kind=AlertKind.REVIEWS,
                facts=approval_facts(7, "feat: prices", head),
            )
            assert made is not None
            return made.token

        return await self.shop.store.write(write)

    async def states(self) -> list[ApprovalState]:
        approvals = await self.shop.store.read(lambda unit: unit.approvals("shop"))
        return sorted(one.state for one in approvals)


@pytest.fixture
async def pulls(shop: Night) -> Pulls:
    shop.room = await shop.route(ROOM, AlertKind.ALL)
    return Pulls(shop)


async def cards(shop: Night) -> list[NormalizedResponse]:
    """The requests that the room sees."""
    return [one for one in await shop.seen() if "(sg-" in one.title]


@pytest.mark.parametrize("ended", [PullAction.CLOSED, PullAction.MERGED])
async def test_what_was_suggested_for_a_pull_request_that_ended_in_the_night_is_never_told(
    shop: Night, pulls: Pulls, ended: PullAction
) -> None:
    await pulls.hear(pull(PullAction.OPENED))
    await pulls.approval()
    await shop.look()
    assert await pulls.states() == [ApprovalState.PENDING] * 2
    await pulls.hear(pull(ended, minutes=-5))  # a time of the host's, and late
    await shop.look(MORNING)
    assert await cards(shop) == [] and not await shop.waits()
    assert await pulls.states() == [ApprovalState.VOID] * 2
    voided = [
        one
        for one in await shop.store.read(lambda unit: unit.audit_entries(50))
        if one["action"] == "approval.void"
    ]
    assert {one["detail"]["why"] for one in voided} == {f"PR #7 was {ended}"}


async def test_a_suggestion_that_was_told_is_marked_as_over_when_its_pull_request_is_closed(
    shop: Night, pulls: Pulls
) -> None:
    shop.clock.at = NOON
    await pulls.hear(pull(PullAction.OPENED))
    await shop.look(NOON)
    [card] = await cards(shop)
    assert card.actions
    await pulls.hear(pull(PullAction.CLOSED))
    [over] = await cards(shop)
    assert over.replaces and over.title.startswith("❌ Void") and over.actions == ()
    assert lines(over)["Why"] == "PR #7 was closed"


async def test_one_that_is_opened_again_is_suggested_again_and_once(shop: Night, pulls: Pulls) -> None:
    shop.clock.at = NOON
    await pulls.hear(pull(PullAction.OPENED), pull(PullAction.CLOSED))
    await pulls.hear(pull(PullAction.REOPENED), pull(PullAction.REOPENED))
    await shop.look(NOON)
    [card] = await cards(shop)
    assert card.actions and await pulls.states() == [ApprovalState.PENDING, ApprovalState.VOID]


async def test_an_approval_that_showed_an_older_head_is_not_told_and_old_news_do_not_end_it(
    shop: Night, pulls: Pulls
) -> None:
    token = await pulls.approval("b" * 40)
    await pulls.hear(pull(PullAction.UPDATED, minutes=-5), pull(PullAction.OTHER, "b" * 40, minutes=1))
    assert (await shop.approval(token)).state is ApprovalState.PENDING
    await pulls.hear(pull(PullAction.EDITED, "b" * 40, minutes=1, title="feat: other prices"))
    assert (await shop.approval(token)).state is ApprovalState.VOID
    newer = await pulls.approval("c" * 40)
    await pulls.hear(pull(PullAction.UPDATED, "d" * 40, minutes=1))
    await shop.look(MORNING)
    assert (await shop.approval(newer)).state is ApprovalState.VOID
    told = [one for one in await cards(shop) if "approve" in lines(one)["What"]]
    assert told == [] and not await shop.waits()


async def test_what_becomes_moot_while_its_place_is_told_is_not_told(shop: Night, pulls: Pulls) -> None:
    await pulls.approval()
    (waiting,) = await shop.store.read(lambda unit: unit.announcements(shop.room.key, 10))
    await pulls.hear(pull(PullAction.MERGED))
    await shop.store.write(lambda unit: tell_card(unit, waiting, MORNING))
    assert await cards(shop) == []
