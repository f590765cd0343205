"""What the team is told of its pull requests, and what a vote and a merge need: whatever order and repetition news come in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from codespar.agents.announcer import Announcer
from codespar.agents.pullwork import MERGE
from codespar.app.webhooks import accept_news
from codespar.domain.approvals import Approval, ApprovalState
from codespar.domain.happenings import Happening, News, PullAction, PullChanged
from codespar.domain.notifications import Rules
from codespar.domain.policy import Effect, Policy, Rule
from codespar.forges.base import ForgeUnavailable, PullState
from support.agency import AT, Agency
from support.repositories import repository
from support.reviewing import Bureau

RULES = Rules(per_hour=100, batch_seconds=0, quiet=None)
HEADS = ("a" * 40, "b" * 40)
ASKS = Policy(rules=(Rule(name="asks", effect=Effect.ASK, what=("merge", "instruct")),))


@pytest.fixture
async def agency(tmp_path: Path) -> AsyncIterator[Agency]:
    async with Agency(tmp_path, repository(tmp_path / "shop.git")) as made:
        yield made


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Bureau]:
    async with Bureau(tmp_path, autonomy=1, scripts=None) as made:
        yield made


async def hear(agency: Agency, *happened: Happening) -> None:
    """News, each by a delivery of its own."""

    def write(unit: Any) -> None:
        for number, what in enumerate(happened):
            name = f"{len(happened)}-{number}"
            assert accept_news(unit, "shop", News(delivery=name, repository="", at=AT, what=what))

    await agency.store.write(write)
    await agency.quiet()


def pull(action: PullAction, head: str = HEADS[0], *, draft: bool = False) -> PullChanged:
    return PullChanged(
        action=action,
        number=7,
        title="feat: prices",
        head_commit=head,
        branch="prices",
        base_branch="main",
        author="grace",
        draft=draft,
        updated_at=AT,
    )


async def titles(agency: Agency) -> list[str]:
    """What everybody was told, once nothing waits to be told."""
    announcer = Announcer(agency.store, RULES, agency.clock)
    announcer.start()
    while await agency.store.read(lambda unit: unit.places_waiting()):  # noqa: ASYNC110 - the store is asked
        await asyncio.sleep(0.01)
    await announcer.stop()
    return [one.title for one in await agency.told()]


async def approvals(agency: Agency) -> list[Approval]:
    return await agency.store.read(lambda unit: unit.approvals("shop"))


async def test_a_pull_request_that_a_look_finds_at_a_later_head_is_told_once(agency: Agency) -> None:
    await hear(agency, pull(PullAction.OPENED), pull(PullAction.UPDATED, HEADS[1]))
    await hear(agency, pull(PullAction.OPENED, HEADS[1]))
    assert await titles(agency) == ["📋 PR #7 opened: feat: prices"]


async def test_a_draft_that_was_ready_when_a_look_found_it_is_told_once(agency: Agency) -> None:
    await hear(agency, pull(PullAction.OPENED, draft=True), pull(PullAction.READY))
    await hear(agency, pull(PullAction.OPENED))
    assert await titles(agency) == ["📋 PR #7 ready for review: feat: prices"]


async def test_that_it_was_merged_is_told_too(agency: Agency) -> None:
    await hear(agency, pull(PullAction.OPENED), pull(PullAction.MERGED, HEADS[1]))
    assert await titles(agency) == ["📋 PR #7 opened: feat: prices", "📋 PR #7 merged: feat: prices"]


async def test_approve_alone_means_the_one_that_the_persons_yes_counts_for(agency: Agency) -> None:
    agency.policy = ASKS
    await agency.say("instruct mine", by="ada")
    [own] = await approvals(agency)
    other = own.evolve(token="tk-000000", requester="somebody")
    await agency.store.write(lambda unit: unit.save_approval(other))
    told = await agency.say("approve", by="ada")
    assert any(one.title.startswith("✅ tk-000000: approved by Ada") for one in told)


async def test_who_can_approve_nothing_but_their_own_is_told_why_that_does_not_count(agency: Agency) -> None:
    agency.policy = ASKS
    await agency.say("instruct mine", by="ada")
    [told] = await agency.say("approve", by="ada")
    assert "who asks does not count" in told.text


async def test_a_no_counts_while_the_code_host_is_out_of_reach_and_a_yes_does_not(shop: Bureau) -> None:
    shop.policy = ASKS
    number = (await shop.open({"a.py": "a = 1\n"})).number
    await shop.say(f"merge PR #{number}", by="ada")
    [asked] = await approvals(shop)
    shop.forge.troubles["fetch_pull"] = [ForgeUnavailable("it does not answer")] * 9
    [yes] = await shop.say(f"approve {asked.token}", by="rex")
    assert "cannot be read now" in yes.text
    told = await shop.say(f"reject {asked.token} not today", by="rex")
    assert f"✅ {asked.token}: rejected by Rex: not today" in [one.title for one in told]
    assert [one.state for one in await approvals(shop)] == [ApprovalState.REJECTED]


async def test_what_waits_to_be_merged_is_not_merged_after_a_kill(shop: Bureau) -> None:
    number = (await shop.open({"a.py": "a = 1\n"})).number
    await shop.say(f"merge PR #{number}")
    await shop.say("kill")
    [intent] = [
        one for one in await shop.store.read(lambda unit: unit.open_intents(9)) if one.target == MERGE
    ]
    told = await shop.pull_work.merge(Straight(), intent.payload)
    assert told == f"❌ PR #{number} was not merged"
    assert (await shop.forge.fetch_pull(number)).state is PullState.OPEN
    await shop.say("resume")
    assert await shop.pull_work.merge(Straight(), intent.payload) == f"✅ PR #{number} merged"
    await shop.say("kill")
    again = await shop.pull_work.merge(Straight(), intent.payload)
    assert again == f"✅ PR #{number} merged", (
        "it is done again after a crash, and was merged before the kill"
    )


class Straight:
    """An engine's context that keeps nothing: steps run at once."""

    id = "merge"

    async def step(self, name: str, function: Any, *arguments: Any) -> Any:
        return await function(*arguments)

    async def wait(self, topic: str, seconds: float) -> Any:
        return None

    async def sleep(self, seconds: float) -> None:
        return None
