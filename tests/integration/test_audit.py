"""The audit chain on both databases: append-only, and every edit, removal, insertion and reordering is found."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from codespar.store import audit
from codespar.store.base import Unit
from codespar.store.database import Database

AT = datetime(2026, 1, 2, tzinfo=UTC)
FIELDS = ("seq", "at", "actor", "action", "project", "subject", "detail")


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_database")
    database = Database(url)
    await database.open()

    def record(unit: Unit) -> None:
        for number in range(6):
            unit.record(
                at=AT,
                actor="Ada",
                action="task.cancel",
                project="shop",
                subject=f"task-{number}",
                detail={"why": "ä", "n": number},
            )

    await database.write(record)
    yield database
    await database.close()


def tamper(store: Database, *statements: str, guarded: bool = False, **values: object) -> None:
    """Write past the product, as somebody with the database's password would; unless `guarded`, with its triggers removed."""
    engine = create_engine(store.url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        if not guarded:
            _disarm(connection)
        for statement in statements:
            connection.execute(text(statement), values)
    engine.dispose()


def _disarm(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        for verb in ("update", "delete"):
            connection.execute(text(f"DROP TRIGGER IF EXISTS audit_no_{verb}"))
    else:
        connection.execute(text("DROP TRIGGER IF EXISTS audit_guard ON audit"))


async def problem(store: Database) -> str:
    report = await store.read(lambda unit: unit.verify_audit())
    assert report.ok is (report.problem is None)
    return report.problem or ""


async def test_an_untouched_chain_is_whole(store: Database) -> None:
    report = await store.read(lambda unit: unit.verify_audit())
    assert report.ok and report.entries == 6


@pytest.mark.parametrize("statement", ["UPDATE audit SET body = '{}'", "DELETE FROM audit"])
async def test_the_database_itself_refuses_to_change_an_entry(store: Database, statement: str) -> None:
    with pytest.raises(DBAPIError, match="append-only"):
        tamper(store, statement, guarded=True)
    assert await problem(store) == ""


@pytest.mark.parametrize("field", FIELDS)
async def test_any_changed_field_is_found(store: Database, field: str) -> None:
    entry = (await store.read(lambda unit: unit.audit_entries(6)))[2]
    changed = {name: entry[name] for name in FIELDS} | {field: 99 if field == "seq" else "other"}
    body = json.dumps(changed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    tamper(store, "UPDATE audit SET body = :body WHERE seq = 3", body=body)
    assert "entry 3 was changed" in await problem(store)


TAMPERINGS: dict[str, tuple[str, ...]] = {
    "hash": ("UPDATE audit SET hash = previous WHERE seq = 2",),
    "link": ("UPDATE audit SET previous = hash WHERE seq = 4",),
    "removal": ("DELETE FROM audit WHERE seq = 3",),
    "cut tail": ("DELETE FROM audit WHERE seq > 4",),
    "everything": ("DELETE FROM audit",),
    "first": ("DELETE FROM audit WHERE seq = 1",),
    "reordering": (
        "UPDATE audit SET seq = 100 WHERE seq = 2",
        "UPDATE audit SET seq = 2 WHERE seq = 3",
        "UPDATE audit SET seq = 3 WHERE seq = 100",
    ),
    "insertion": ("INSERT INTO audit (seq, body, previous, hash) VALUES (7, '{\"seq\"\\:7}', 'a', 'b')",),
    "no entry at all": ("UPDATE audit SET body = 'this is no JSON' WHERE seq = 2",),
    "not our JSON": ("UPDATE audit SET body = '[2]' WHERE seq = 2",),
    "removal with renumbering": (
        "DELETE FROM audit WHERE seq = 3",
        "UPDATE audit SET seq = seq - 1 WHERE seq > 3",
    ),
}


@pytest.mark.parametrize("kind", TAMPERINGS)
async def test_every_other_tampering_is_found(store: Database, kind: str) -> None:
    tamper(store, *TAMPERINGS[kind])
    assert await problem(store), kind


async def test_the_chain_goes_on_where_it_stood_and_names_every_field(store: Database) -> None:
    before: Callable[[Unit], list[dict[str, object]]] = lambda unit: unit.audit_entries(100)  # noqa: E731
    known = await store.read(before)
    assert set(known[0]) == {*FIELDS, "hash"}
    await store.write(
        lambda unit: unit.record(at=AT, actor="Bo", action="x", project="other", subject="y", detail={})
    )
    assert await problem(store) == ""
    assert [entry["actor"] for entry in await store.read(lambda unit: unit.audit_entries(5, "other"))] == [
        "Bo"
    ]


async def test_a_quiet_projects_entries_are_found_behind_those_of_a_busy_one(store: Database) -> None:
    def record(project: str, subject: str) -> Callable[[Unit], None]:
        return lambda unit: unit.record(
            at=AT, actor="Bo", action="x", project=project, subject=subject, detail={}
        )

    await store.write_all([record("quiet", "one"), record("quiet", "two"), record("quiet", "three")])
    await store.write_all([record("busy", str(number)) for number in range(250)])
    found = await store.read(lambda unit: unit.audit_entries(2, "quiet"))
    assert [entry["subject"] for entry in found] == ["two", "three"], "the newest, newest last"


async def test_what_no_database_can_keep_is_still_recorded(store: Database) -> None:
    """A file name is bytes: its stray ones must not stop the record of what was done to it."""
    odd: dict[str, JsonValue] = {"path": "caf\udce9", "nul": "a\x00b"}
    await store.write(
        lambda unit: unit.record(at=AT, actor="Bo", action="x", project="p", subject="y", detail=odd)
    )
    assert (await store.read(lambda unit: unit.audit_entries(1)))[0]["detail"] == {
        "path": "caf?",
        "nul": "a\x00b",
    }
    assert await problem(store) == ""


Row = tuple[int, str, str, str]


def chained(details: list[dict[str, JsonValue]]) -> list[Row]:
    rows: list[Row] = []
    previous = audit.GENESIS
    for seq, detail in enumerate(details, start=1):
        fields = {"at": "2026", "actor": "Ada", "action": "a", "project": "p", "subject": "s"}
        body = audit.canonical({"seq": seq, "detail": detail, **fields})
        found = audit.chain_hash(body, previous)
        rows.append((seq, body, previous, found))
        previous = found
    return rows


DETAILS = st.lists(
    st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=9)),
    min_size=1,
    max_size=6,
)


@given(DETAILS, st.data())
def test_no_single_change_of_a_row_stays_hidden(
    details: list[dict[str, JsonValue]], data: st.DataObject
) -> None:
    rows = chained(details)
    head = (len(rows), rows[-1][3])
    assert audit.verify(rows, *head).ok
    at = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.integers(0, 3))
    row: list[Any] = list(rows[at])
    row[column] = data.draw(
        st.integers(-9, 99) if column == 0 else st.text(max_size=80) | _one_character(row[column])
    )
    changed = [*rows[:at], tuple(row), *rows[at + 1 :]]
    assert audit.verify(changed, *head).ok is (changed == rows)


def _one_character(text: str) -> st.SearchStrategy[str]:
    """The text with one character of it become another."""
    places = st.tuples(st.integers(0, len(text) - 1), st.characters(exclude_categories=["Cs"]))
    return places.map(lambda place: text[: place[0]] + place[1] + text[place[0] + 1 :])


@given(DETAILS, st.data())
def test_who_knows_how_the_chain_is_made_is_found_too(
    details: list[dict[str, JsonValue]], data: st.DataObject
) -> None:
    """An entry rewritten with a hash that fits it does not fit its neighbours; with all after it rewritten, not the head."""
    rows = chained(details)
    at = data.draw(st.integers(0, len(rows) - 1))
    rewritten = chained([*details[:at], {**details[at], "forged": True}, *details[at + 1 :]])
    head = (len(rows), rows[-1][3])
    assert not audit.verify([*rows[:at], rewritten[at], *rows[at + 1 :]], *head).ok
    assert not audit.verify(rewritten, *head).ok


@given(DETAILS, st.data())
def test_no_other_order_or_number_of_rows_stays_hidden(
    details: list[dict[str, JsonValue]], data: st.DataObject
) -> None:
    rows = chained(details)
    picked = data.draw(st.lists(st.sampled_from(rows), max_size=len(rows) + 1))
    assert audit.verify(picked, len(rows), rows[-1][3]).ok is (picked == rows)
