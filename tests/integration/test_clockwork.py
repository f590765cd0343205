"""Commands that come by the clock: once for a time, once for all that was missed, and with no more rights than somebody has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from codespar.agents.clockwork import LONGEST, Clockwork
from codespar.config import ProjectSettings, Settings
from codespar.config.work import ScheduleSettings
from codespar.domain.approvals import ApprovalState
from codespar.domain.notifications import AlertKind
from codespar.domain.policy import Policy
from support.agency import AT, ROOM, Agency
from support.repositories import repository


@pytest.fixture
async def agency(tmp_path: Path) -> AsyncIterator[Agency]:
    async with Agency(tmp_path, repository(tmp_path / "shop.git")) as made:
        await made.route(ROOM, AlertKind.REPORTS)
        yield made


def clockwork(agency: Agency, run: str, cron: str = "0 9 * * *", **more: Any) -> Clockwork:
    schedule = ScheduleSettings(name="daily", cron=cron, run=run, **more)
    project = ProjectSettings(name="shop", repository="/srv/shop.git", schedules=(schedule,))
    return Clockwork(Settings(projects=(project,)), agency.store, agency.clock)


async def at_level(agency: Agency, level: int) -> None:
    def write(unit: Any) -> None:
        unit.save_project(unit.project("shop").evolve(autonomy=level))

    await agency.store.write(write)


async def look(agency: Agency, *clocks: Clockwork) -> None:
    for one in clocks:
        await one.look()
    await agency.quiet()


async def titles(agency: Agency) -> list[str]:
    """What the team's room was told."""
    room = await agency.route(ROOM, AlertKind.REPORTS)
    return [one.title for one in await agency.told(room)]


async def test_a_schedule_that_is_new_owes_nothing_and_fires_once_at_its_time(agency: Agency) -> None:
    clock = clockwork(agency, "status")
    await look(agency, clock)
    agency.clock.move(minutes=59)
    await look(agency, clock)
    assert await titles(agency) == []
    agency.clock.move(minutes=1)
    await look(agency, clock, clock)
    assert await titles(agency) == ["📊 shop: 0/3 tasks"]
    agency.clock.move(hours=23)
    await look(agency, clock)
    assert len(await titles(agency)) == 1
    agency.clock.move(hours=1)
    await look(agency, clock)
    assert len(await titles(agency)) == 2


async def test_thirty_missed_times_are_made_up_for_once_after_a_restart(agency: Agency) -> None:
    await look(agency, clockwork(agency, "status"))
    agency.clock.move(days=30, hours=2)
    again = clockwork(agency, "status")
    await look(agency, again, again)
    assert len(await titles(agency)) == 1
    fired = await agency.store.read(lambda unit: unit.fired("shop", "daily"))
    assert fired == datetime(2026, 4, 1, 9, tzinfo=UTC)


async def test_two_starts_at_once_never_fire_the_same_time_twice(agency: Agency) -> None:
    clocks = [clockwork(agency, "status") for _ in range(5)]
    await look(agency, *clocks)
    agency.clock.move(hours=2)
    await asyncio.gather(*(clock.look() for clock in clocks for _ in range(4)))
    await agency.quiet()
    assert len(await titles(agency)) == 1


async def test_a_time_is_not_fired_again_when_the_clock_was_set_back_over_it(agency: Agency) -> None:
    clock = clockwork(agency, "status")
    await look(agency, clock)
    agency.clock.move(hours=1, seconds=5)
    await look(agency, clock)
    agency.clock.move(minutes=-10)
    await look(agency, clock)
    agency.clock.move(minutes=10)
    await look(agency, clock)
    assert len(await titles(agency)) == 1


async def test_a_clock_that_was_years_ahead_silences_nothing_for_years(agency: Agency) -> None:
    clock = clockwork(agency, "status")
    await look(agency, clock)
    agency.clock.move(days=3650)
    await look(agency, clock)
    agency.clock.at = AT
    await look(agency, clock)
    agency.clock.move(hours=1)
    await look(agency, clock)
    assert len(await titles(agency)) == 2


async def test_the_time_is_that_of_the_schedules_zone(agency: Agency) -> None:
    clock = clockwork(agency, "status", time_zone="America/New_York")
    await look(agency, clock)
    agency.clock.move(hours=5)
    await look(agency, clock)
    assert await titles(agency) == []
    agency.clock.move(hours=1)  # 14:00 UTC
    await look(agency, clock)
    assert len(await titles(agency)) == 1


async def test_it_looks_again_when_the_next_time_comes_and_never_later_than_an_hour(agency: Agency) -> None:
    clock = clockwork(agency, "status")
    assert await clock.look() == LONGEST
    agency.clock.move(minutes=59, seconds=30)
    assert await clock.look() == 30.0


async def test_it_fires_by_itself_while_it_runs(agency: Agency) -> None:
    agency.clock.at = AT.replace(hour=8, minute=59, second=59, microsecond=800_000)
    clock = clockwork(agency, "status")
    clock.start()
    async with asyncio.timeout(60):
        while await agency.store.read(lambda unit: unit.fired("shop", "daily")) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # what is due before it has looked once is owed to nobody
        agency.clock.move(seconds=1)
        while not await titles(agency):  # noqa: ASYNC110 - the store is asked
            await asyncio.sleep(0.02)
    await clock.stop()
    assert len(await titles(agency)) == 1


async def fired(agency: Agency, run: str, **more: Any) -> list[str]:
    """What the room is told when the command's time comes."""
    clock = clockwork(agency, run, **more)
    await look(agency, clock)
    agency.clock.move(hours=1)
    await look(agency, clock)
    return await titles(agency)


@pytest.mark.parametrize("run", ["status build", "prs stale", "queue", "logs 5", "memory"])
async def test_from_level_1_on_the_agent_tells(agency: Agency, run: str) -> None:
    [title] = await fired(agency, run)
    assert not title.startswith("❌"), title


@pytest.mark.parametrize("run", ["status build", "prs stale", "instruct tidy up", "diff"])
async def test_at_level_0_it_says_nothing_and_records_that_it_did_not(agency: Agency, run: str) -> None:
    await at_level(agency, 0)
    assert await fired(agency, run) == []
    assert await agency.told() == []
    assert [one["subject"] for one in await agency.audit("denied")] == [run.split()[0]] * (
        1 if run.startswith(("instruct", "diff")) else 2
    )


async def test_a_policy_that_caps_the_level_silences_it_as_well(agency: Agency) -> None:
    agency.policy = Policy(autonomy_cap=0)
    assert await fired(agency, "status build") == []


async def test_at_level_0_what_a_person_scheduled_is_answered(agency: Agency) -> None:
    await at_level(agency, 0)
    assert await fired(agency, "status", by="ada") == ["📊 shop: 0/3 tasks"]


async def test_at_level_1_a_task_without_a_person_is_denied_and_told(agency: Agency) -> None:
    [title] = await fired(agency, "instruct tidy up")
    assert title == "❌ agent-shop did not do `instruct tidy up`, which its schedule asks for"
    assert await agency.store.read(lambda unit: unit.open_tasks("shop")) == []


async def test_at_level_2_a_task_is_asked_for_and_done_with_the_rights_of_who_says_yes(
    agency: Agency,
) -> None:
    await at_level(agency, 2)
    [title] = await fired(agency, "instruct tidy up")
    [asked] = await agency.store.read(lambda unit: unit.approvals("shop", ApprovalState.PENDING.value))
    assert asked.token.startswith("sg-") and asked.token in title
    assert (
        "❌" in (await agency.say(f"approve {asked.token}", by="rex"))[0].title
    )  # a reviewer may not instruct
    assert "approved by Ada" in (await agency.say(f"approve {asked.token}"))[0].title
    [task] = await agency.store.read(lambda unit: unit.open_tasks("shop"))
    assert (task.instruction, task.requester) == ("tidy up", "Ada")


async def test_at_level_4_a_task_runs(agency: Agency) -> None:
    await at_level(agency, 4)
    await fired(agency, "instruct tidy up")
    [task] = await agency.store.read(lambda unit: unit.open_tasks("shop"))
    assert (task.requester, task.thread.conversation) == ("agent-shop", ROOM)


async def test_with_a_person_it_runs_with_their_rights_and_no_others(agency: Agency) -> None:
    await fired(agency, "instruct tidy up", by="ada")
    [task] = await agency.store.read(lambda unit: unit.open_tasks("shop"))
    assert task.requester == "Ada"


async def test_with_a_person_who_may_not_it_does_not_run_at_any_level(agency: Agency) -> None:
    await at_level(agency, 5)
    [title] = await fired(agency, "instruct tidy up", by="rex")
    assert title == "❌ `instruct` is not yours to give"
    assert await agency.store.read(lambda unit: unit.open_tasks("shop")) == []


async def test_with_a_person_who_is_gone_it_never_becomes_the_agents_own(agency: Agency) -> None:
    await at_level(agency, 5)
    await agency.store.write(lambda unit: unit.remove_member("rex"))
    assert await fired(agency, "instruct tidy up", by="rex") == []
    assert await agency.store.read(lambda unit: unit.open_tasks("shop")) == []
    assert len(await agency.audit("schedule.left-out")) == 1


async def test_no_level_lets_a_schedule_raise_the_level(agency: Agency) -> None:
    await at_level(agency, 4)
    await fired(agency, "autonomy L5")
    project = await agency.store.read(lambda unit: unit.project("shop"))
    assert project is not None and project.autonomy == 4


async def test_reports_go_to_the_places_that_take_them_and_to_no_other(agency: Agency) -> None:
    silent = await agency.route("T1:C2", AlertKind.BUILDS)
    nothing = await agency.route("acme/shop", channel="github", source="host")
    everything = await agency.route("T1:C3", AlertKind.ALL)
    assert len(await fired(agency, "status")) == 1
    assert len(await agency.told(everything)) == 1
    assert await agency.told(silent) == [] and await agency.told(nothing) == []


async def test_what_changes_something_is_done_once_however_many_places_there_are(agency: Agency) -> None:
    await agency.route("T1:C3", AlertKind.ALL)
    await fired(agency, "instruct tidy up", by="ada")
    assert len(await agency.store.read(lambda unit: unit.open_tasks("shop"))) == 1


async def test_without_any_place_it_is_told_in_the_terminal(tmp_path: Path) -> None:
    async with Agency(tmp_path, repository(tmp_path / "shop.git")) as alone:
        clock = clockwork(alone, "instruct tidy up", by="ada")
        await look(alone, clock)
        alone.clock.move(hours=1)
        await look(alone, clock)
        [task] = await alone.store.read(lambda unit: unit.open_tasks("shop"))
        assert task.thread.channel == "cli"
