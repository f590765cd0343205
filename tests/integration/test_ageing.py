"""What is done and old leaves the store, on both databases; what is still needed, or guards against a repetition, stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from codespar.app.housekeeping import ROWS, Housekeeping
from codespar.channels.locker import Locker
from codespar.config.housekeeping import HousekeepingSettings
from codespar.domain.messages import NormalizedResponse
from codespar.domain.notifications import AlertKind
from codespar.sandbox.docker import DockerSandbox
from codespar.store.base import Unit
from codespar.store.database import Database

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
MESSAGE = {"message": {}, "person": None, "thread": {}}
NEWS = {"news": {}}
PLACE = "cli/shop/"
Row = tuple[str, str, dict[str, Any] | None, int, bool]  # source, delivery, body, age in days, done


async def tidy(store: Database, folder: Path, **after: Any) -> dict[str, int]:
    """What one round removed, by kind."""
    removed: dict[str, int] = {}
    sandbox = DockerSandbox(f"unix://{folder / 'no-engine.sock'}", folder, "test")
    house = Housekeeping(
        HousekeepingSettings.model_validate({"images": "never"} | after),
        folder,
        store,
        sandbox,
        Locker({}, folder / "attachments"),
        lambda: NOW,
        lambda what, count, size: removed.update({what: count}),
    )
    await house.tidy()
    await sandbox.close()
    return removed


def take(unit: Unit, *rows: Row) -> list[tuple[int, bool]]:
    came = [
        unit.accept(source, delivery, "shop", body or "{}", NOW - timedelta(days=days), done=done)
        for source, delivery, body, days, done in rows
    ]
    unit.notices.clear()
    return came


def kept(unit: Any, table: str, column: str) -> list[str]:
    found = unit._db.execute(text(f"SELECT {column} FROM {table} ORDER BY id"))
    return [row[0] for row in found]


async def inbox(store: Database) -> list[str]:
    return await store.read(lambda unit: kept(unit, "inbox", "delivery"))


async def test_deliveries_go_when_they_are_done_and_old_and_all_others_stay(
    store: Database, tmp_path: Path
) -> None:
    rows: list[Row] = [
        ("slack", "old", MESSAGE, 91, True),
        ("slack", "waits", MESSAGE, 400, False),
        ("github", "old-news", NEWS, 91, True),
        ("github:body", "signed", None, 400, True),
        ("github", "young-news", NEWS, 89, True),
        ("webhook:sentry", "old-signal", {}, 100, True),
        ("slack", "newest", MESSAGE, 89, True),
    ]
    await store.write(lambda unit: take(unit, *rows))
    assert await tidy(store, tmp_path) == {"messages": 3}
    assert await inbox(store) == ["waits", "signed", "young-news", "newest"]
    assert await tidy(store, tmp_path) == {}


async def test_what_waited_long_stays_until_its_own_end_is_old(store: Database, tmp_path: Path) -> None:
    def late(unit: Unit) -> None:
        (row, _), _ = take(unit, ("slack", "late", MESSAGE, 200, False), ("slack", "last", MESSAGE, 0, True))
        unit.finish(row, NOW - timedelta(days=10))

    await store.write(late)
    assert await tidy(store, tmp_path) == {}
    assert await tidy(store, tmp_path, messages="never") == {}
    assert await inbox(store) == ["late", "last"]


async def test_the_newest_row_stays_so_that_no_id_is_given_twice(store: Database, tmp_path: Path) -> None:
    """Answers, and the keys they are said under, are named by the id of what they answer."""
    before = await store.write(
        lambda unit: take(unit, ("slack", "a", MESSAGE, 300, True), ("slack", "b", MESSAGE, 299, True))
    )
    assert await tidy(store, tmp_path) == {"messages": 1}
    ((id, new),) = await store.write(lambda unit: take(unit, ("slack", "c", MESSAGE, 0, True)))
    assert new and id > max(row for row, _ in before)


async def test_a_message_that_was_forgotten_is_not_carried_out_when_it_is_sent_again(
    store: Database, tmp_path: Path
) -> None:
    old: Row = ("whatsapp", "deploy", MESSAGE, 100, False)
    ((id, new),) = await store.write(lambda unit: take(unit, old))
    assert new
    await store.write(lambda unit: unit.finish(id, NOW - timedelta(days=100)))
    await store.write(lambda unit: take(unit, ("whatsapp", "last", MESSAGE, 1, True)))
    assert await tidy(store, tmp_path) == {"messages": 1}
    assert await store.write(lambda unit: take(unit, old)) == [(0, False)]
    later: Row = ("whatsapp", "of the week", MESSAGE, 7, False)
    assert (await store.write(lambda unit: take(unit, later)))[0][1]
    news: Row = ("github", "run of last year", NEWS, 300, False)  # how a branch stands that nobody works on
    assert (await store.write(lambda unit: take(unit, news)))[0][1]


async def test_told_announcements_go_and_what_may_be_amended_or_waits_stays(
    store: Database, tmp_path: Path
) -> None:
    ages = {"told": 100, "stands": 100, "waits": 100, "told lately": 100, "newest": 100}

    def announce(unit: Unit) -> None:
        for key, days in ages.items():
            at = NOW - timedelta(days=days)
            card = NormalizedResponse(title=key)
            unit.announce("shop", PLACE, key, AlertKind.BUILDS, False, card, at, key == "stands")
        for one in unit.announcements(PLACE, 10):
            if one.response.title != "waits":
                days = 1 if one.response.title == "told lately" else 100
                unit.tell([one], NOW - timedelta(days=days))

    await store.write(announce)
    assert await tidy(store, tmp_path) == {"messages": 1}
    left = await store.read(lambda unit: kept(unit, "announcements", "key"))
    assert left == ["stands", "waits", "told lately", "newest"]
    fixed = NormalizedResponse(title="fixed")
    assert await store.write(lambda unit: unit.amend("stands", fixed, NOW))


async def test_more_than_a_transaction_takes_goes_all_the_same(store: Database, tmp_path: Path) -> None:
    rows: list[Row] = [("slack", f"m{number}", NEWS, 100, True) for number in range(2 * ROWS + 7)]
    rows.insert(0, ("github:body", "first", None, 100, True))
    rows.append(("slack", "young", NEWS, 1, True))
    await store.write(lambda unit: take(unit, *rows))
    assert await tidy(store, tmp_path) == {"messages": 2 * ROWS + 7}
    assert await inbox(store) == ["first", "young"]


@pytest.mark.parametrize("wrong", ["29d", "12h", "always", "99999d"])
def test_a_time_within_which_a_platform_may_send_again_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"30d|never"):
        HousekeepingSettings.model_validate({"messages": wrong})
