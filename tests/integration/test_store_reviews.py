"""Reviews in the store on both databases: what is found without reading them all, and a database from before there were columns for it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine

from codespar.domain.reviews import ReviewRecord, ReviewState
from codespar.store.address import postgresql_address
from codespar.store.base import Unit
from codespar.store.database import Database, whole
from codespar.store.migrate import upgrade

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_database")
    return f"sqlite:///{tmp_path / 'store.sqlite'}"


@pytest_asyncio.fixture
async def store(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    await database.open()
    yield database
    await database.close()


def record(
    place: int,
    *,
    project: str = "shop",
    number: int = 1,
    state: ReviewState = ReviewState.POSTED,
    by: str = "",
    minutes: int | None = None,
) -> ReviewRecord:
    """The review with that place in the order of time."""
    return ReviewRecord(
        id=f"review-{project}-{place}",
        project=project,
        number=number,
        head_commit=f"{place:040x}",
        state=state,
        by=by,
        started_at=AT + timedelta(minutes=place if minutes is None else minutes),
    )


async def keep(store: Database, *records: ReviewRecord) -> None:
    def write(unit: Unit) -> None:
        assert all(unit.add_review(one) for one in records)

    await store.write(write)


async def test_the_review_of_a_head_is_found_however_many_came_after_it(store: Database) -> None:
    records = [record(place) for place in range(60)]
    await keep(store, *records)
    newest = await store.read(lambda unit: unit.reviews("shop", 1))
    assert records[0] not in newest, "it is beyond those that are listed"
    first = records[0].head_commit
    assert await store.read(lambda unit: unit.review_of("shop", 1, first)) == records[0]
    assert await store.read(lambda unit: unit.review_of("shop", 2, first)) is None
    assert await store.read(lambda unit: unit.review_of("till", 1, first)) is None


async def test_the_running_reviews_are_those_of_the_project_newest_first(store: Database) -> None:
    running = [record(place, number=place, state=ReviewState.RUNNING) for place in (1, 2, 3)]
    others = [record(place, state=state) for place, state in enumerate(ReviewState, 10) if state != "running"]
    await keep(store, *running, *others, record(1, project="till", state=ReviewState.RUNNING))
    assert await store.read(lambda unit: unit.running_reviews("shop")) == running[::-1]

    posted = running[1].evolve(state=ReviewState.POSTED)
    again = others[0].evolve(state=ReviewState.RUNNING, attempt=2)

    def change(unit: Unit) -> None:
        unit.update_review(posted)
        unit.update_review(again)

    await store.write(change)
    found = await store.read(lambda unit: unit.running_reviews("shop"))
    assert found == [again, running[2], running[0]]


async def test_the_unasked_reviews_of_a_day_are_counted_for_the_project_and_the_pull_request(
    store: Database,
) -> None:
    day_ago = AT
    await keep(
        store,
        record(1, number=7, minutes=-1),
        record(2, number=7, minutes=0),
        record(3, number=7, minutes=1),
        record(4, number=7, minutes=2, by="Ada"),
        record(5, number=8, minutes=3),
        record(6, number=7, minutes=4, project="till"),
    )
    assert await store.read(lambda unit: unit.begun_unasked("shop", 7, day_ago)) == (2, 1)
    asked = (await store.read(lambda unit: unit.review("review-shop-4"))) or pytest.fail("it is kept")
    await store.write(lambda unit: unit.update_review(asked.evolve(by="")))
    assert await store.read(lambda unit: unit.begun_unasked("shop", 7, day_ago)) == (3, 2)
    assert await store.read(lambda unit: unit.begun_unasked("other", 7, day_ago)) == (0, 0)


def engine_of(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(postgresql_address(url))
    return create_engine(url, connect_args={"isolation_level": None})


def of_an_older_release(url: str, *bodies: str) -> Engine:
    """A database at schema 0003, with reviews of these documents."""
    engine = engine_of(url)
    with whole(engine) as connection:
        upgrade(connection, "0003")
        for place, body in enumerate(bodies):
            row = {"id": f"review-shop-{place}", "head": f"{place:040x}", "body": body}
            connection.execute(
                text(
                    "INSERT INTO reviews (id, project, number, head, started_at, body)"
                    " VALUES (:id, 'shop', 1, :head, '2026-01-02T03:04:05.000000Z', :body)"
                ),
                row,
            )
    return engine


async def test_reviews_from_before_the_columns_are_found_by_them_after_the_upgrade(url: str) -> None:
    records = [
        record(0, state=ReviewState.RUNNING, minutes=0),
        record(1, by="Ada", minutes=0),
        record(2, minutes=0),
    ]
    of_an_older_release(url, *(one.model_dump_json(by_alias=True) for one in records)).dispose()
    store = Database(url)
    await store.open()
    assert await store.read(lambda unit: unit.running_reviews("shop")) == records[:1]
    assert await store.read(lambda unit: unit.begun_unasked("shop", 1, AT - timedelta(1))) == (2, 2)
    assert await store.read(lambda unit: unit.review_of("shop", 1, records[1].head_commit)) == records[1]
    await store.close()


async def test_an_upgrade_that_fails_leaves_the_schema_as_it_was(url: str) -> None:
    """Else the next start would find columns there already, for ever."""
    engine = of_an_older_release(url, "cut of")
    with pytest.raises(ValueError, match="Expecting value"):
        await Database(url).open()
    whole_body = record(0, state=ReviewState.RUNNING, minutes=0)
    with whole(engine) as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0003"
        document = {"body": whole_body.model_dump_json(by_alias=True)}
        connection.execute(text("UPDATE reviews SET body = :body"), document)
    engine.dispose()
    store = Database(url)
    await store.open()
    assert await store.read(lambda unit: unit.running_reviews("shop")) == [whole_body]
    await store.close()


@pytest.mark.parametrize("query", ["state = 'running'", "started_at > '2026'"])
async def test_what_is_asked_of_reviews_is_asked_of_an_index(tmp_path: Path, query: str) -> None:
    store = Database(f"sqlite:///{tmp_path / 'store.sqlite'}")
    await store.open()
    await store.close()
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        asked = f"EXPLAIN QUERY PLAN SELECT body FROM reviews WHERE project = 'shop' AND {query}"
        plan = str(connection.execute(asked).fetchall())
    assert "USING INDEX reviews_st" in plan
