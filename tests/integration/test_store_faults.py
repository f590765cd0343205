"""The store when its database does not do what it should, and a close that finds a read still under way."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from codespar.domain.messages import NormalizedResponse
from codespar.domain.tasks import Thread
from codespar.store.base import StoreError, StoreUnavailable, Unit
from codespar.store.database import Database

AT = datetime(2026, 1, 2, tzinfo=UTC)


async def opened(url: str) -> Database:
    store = Database(url)
    await store.open()
    return store


async def test_a_read_that_does_not_end_holds_up_no_loop_that_closes_the_store(tmp_path: Path) -> None:
    store = await opened(f"sqlite:///{tmp_path / 'a.sqlite'}")
    begun, go_on = threading.Event(), threading.Event()

    def read(unit: Unit) -> bool:
        begun.set()
        return go_on.wait(60)

    reading = asyncio.create_task(store.read(read))
    assert await asyncio.to_thread(begun.wait, 60)
    began = time.monotonic()
    closing_it = asyncio.create_task(store.close())
    await asyncio.sleep(0.2)
    assert time.monotonic() - began < 50, "the loop goes on"
    assert not closing_it.done()
    go_on.set()
    assert await reading
    await closing_it


async def test_a_database_that_is_away_is_told_as_such_and_its_own_words_alone_are_quoted(
    postgres_database: str,
) -> None:
    store = await opened(postgres_database)
    server, _, name = postgres_database.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        for work in (store.read, store.write, store.write):
            with pytest.raises(StoreUnavailable) as told:
                await work(lambda unit: unit.accept("a", "b", "shop", {"said": "in confidence"}, AT))
            assert "SELECT" not in str(told.value) and "confidence" not in str(told.value)
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    assert await store.write(lambda unit: unit.next_ticket()) == 1
    await store.close()


async def test_what_the_database_will_never_take_is_no_fault_that_passes(postgres_database: str) -> None:
    store = await opened(postgres_database)
    for wrong in ("a\0b", "a" * 300):
        with pytest.raises(StoreError, match="the database refused") as told:
            await store.write(lambda unit, wrong=wrong: unit.accept("a", wrong, "shop", {}, AT))
        assert not isinstance(told.value, StoreUnavailable)
    await store.close()


async def test_a_full_disk_is_a_fault_that_passes(tmp_path: Path) -> None:
    store = await opened(f"sqlite:///{tmp_path / 'a.sqlite'}")

    def limit(pages: int, unit: Unit) -> None:
        unit._db.exec_driver_sql(f"PRAGMA max_page_count={pages}")  # type: ignore[attr-defined]

    await store.write(lambda unit: limit(1, unit))  # SQLite then takes as many as there are
    thread = Thread(channel="cli", conversation="shop")
    told = NormalizedResponse(title="a card", text="x" * 500_000)
    with pytest.raises(StoreUnavailable, match="full"):
        await store.write(lambda unit: unit.say("shop", thread, "k", told, AT))
    await store.write(lambda unit: limit(100_000, unit))
    await store.write(lambda unit: unit.say("shop", thread, "k", told, AT))
    assert len(await store.read(lambda unit: unit.messages(None, 0, 9))) == 1
    await store.close()


async def test_a_database_that_another_program_holds_is_a_fault_that_passes(tmp_path: Path) -> None:
    store = await opened(f"sqlite:///{tmp_path / 'a.sqlite'}")
    await store.write(lambda unit: unit._db.exec_driver_sql("PRAGMA busy_timeout=50"))  # type: ignore[attr-defined]
    with closing(sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.write(lambda unit: unit.next_ticket())
        other.execute("ROLLBACK")
    assert await store.write(lambda unit: unit.next_ticket()) == 1
    await store.close()
