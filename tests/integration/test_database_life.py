"""A database's life: one server at a time, older and newer schemas, files that are something else, and kill -9."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, inspect, make_url
from sqlalchemy.exc import DBAPIError

from codespar.store.base import DatabaseInUse, DatabaseTooNew, StoreError, Unit
from codespar.store.database import SCHEMA_REVISION, Database
from codespar.store.migrate import known_revisions
from codespar.store.sibling import engine_database

AT = datetime(2026, 1, 2, tzinfo=UTC)
WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from codespar.store.database import Database

async def main():
    store = Database(sys.argv[1])
    await store.open()
    async def forever(name):
        number = 0
        while True:
            delivery = f"{sys.argv[2]}-{name}-{number}"
            await store.write(lambda unit: unit.accept("t", delivery, "p", {}, datetime.now(UTC)))
            sys.stdout.write(delivery + "\\n")
            sys.stdout.flush()
            number += 1
    await asyncio.gather(*(forever(name) for name in "abcd"))

asyncio.run(main())
"""


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'codespar.sqlite'}"


async def opened(url: str, folder: Path | None = None) -> Database:
    database = Database(url, lock_folder=folder)
    await database.open()
    return database


async def test_a_second_server_on_the_same_folder_is_refused_by_name(tmp_path: Path) -> None:
    first = await opened(sqlite_url(tmp_path), tmp_path)
    with pytest.raises(DatabaseInUse, match=rf"pid {os.getpid()}\) already works on {tmp_path}"):
        await opened(sqlite_url(tmp_path), tmp_path)
    await first.close()
    await (await opened(sqlite_url(tmp_path), tmp_path)).close()


async def test_a_second_server_on_the_same_postgresql_is_refused(
    tmp_path: Path, postgres_database: str
) -> None:
    first = await opened(postgres_database, tmp_path / "one")
    with pytest.raises(DatabaseInUse, match="already works on"):
        await opened(postgres_database, tmp_path / "two")
    await first.close()
    await (await opened(postgres_database, tmp_path / "two")).close()


async def test_servers_that_start_at_once_on_a_new_postgresql_leave_one(
    tmp_path: Path, postgres_database: str
) -> None:
    """The loser is told who it is; it does not stumble over the tables that the other is making."""
    servers = [Database(postgres_database, lock_folder=tmp_path / str(number)) for number in range(4)]
    outcomes = await asyncio.gather(*(server.open() for server in servers), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["DatabaseInUse"] * 3 + ["NoneType"]
    for server in servers:
        await server.close()


async def test_a_newer_release_does_not_touch_the_database_of_a_running_server(
    tmp_path: Path, postgres_database: str
) -> None:
    """It claims the database before it looks at the schema, so that it never upgrades one in use."""
    first = await opened(postgres_database, tmp_path / "one")
    with psycopg.connect(postgres_database) as connection:
        connection.execute("DELETE FROM alembic_version")  # as old as a database can be: an upgrade is due
    with pytest.raises(DatabaseInUse):
        await opened(postgres_database, tmp_path / "two")
    await first.close()


async def test_postgresql_restarted_costs_the_writes_under_way_and_not_the_claim(
    tmp_path: Path, postgres_database: str
) -> None:
    store = await opened(postgres_database, tmp_path / "one")
    assert await store.write(lambda unit: unit.next_ticket()) == 1
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises((StoreError, DBAPIError)):
        await store.write(lambda unit: unit.next_ticket())
    assert await store.write(lambda unit: unit.next_ticket()) == 2
    assert await store.read(lambda unit: unit.projects()) == []
    with pytest.raises(DatabaseInUse):
        await opened(postgres_database, tmp_path / "two")
    await store.close()


async def test_a_server_that_lost_its_claim_to_another_does_not_write(
    tmp_path: Path, postgres_database: str
) -> None:
    first = await opened(postgres_database, tmp_path / "one")
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    second = await opened(postgres_database, tmp_path / "two")
    assert await second.write(lambda unit: unit.next_ticket()) == 1
    for _ in range(3):
        with pytest.raises((StoreError, DBAPIError)):
            await first.write(lambda unit: unit.next_ticket())
    with pytest.raises(StoreError, match="another server already works on"):
        await first.write(lambda unit: unit.next_ticket())
    await second.close()
    assert await first.write(lambda unit: unit.next_ticket()) == 2, "the other one has ended"
    await first.close()


async def test_a_session_lost_on_the_way_does_not_lock_its_own_server_out(
    tmp_path: Path, postgres_database: str
) -> None:
    """A router forgets the connection; PostgreSQL does not notice and would hold the claim for hours."""
    server = make_url(postgres_database)
    there: list[asyncio.StreamWriter] = []
    here: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(server.host, server.port)
        here.append(writer)
        there.append(forth)  # never closed from this side
        with suppress(ConnectionError):
            await asyncio.gather(carry(reader, forth), carry(back, writer))

    router = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    port = router.sockets[0].getsockname()[1]
    store = await opened(server.set(port=port).render_as_string(hide_password=False), tmp_path / "one")
    assert await store.write(lambda unit: unit.next_ticket()) == 1
    for writer in here:
        writer.transport.abort()
    with pytest.raises((StoreError, DBAPIError)):
        await store.write(lambda unit: unit.next_ticket())
    assert await store.write(lambda unit: unit.next_ticket()) == 2
    await store.close()
    for writer in [*here, *there]:
        writer.transport.abort()
    router.close()


async def test_a_database_of_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    await (await opened(sqlite_url(tmp_path))).close()
    with sqlite3.connect(tmp_path / "codespar.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseTooNew, match=r"9999.*newer codespar.*backup"):
        await opened(sqlite_url(tmp_path))
    with sqlite3.connect(tmp_path / "codespar.sqlite") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


async def test_an_older_database_is_brought_up_to_date(tmp_path: Path) -> None:
    """A database before the first revision has Alembic's table alone; every migration runs on it."""
    with sqlite3.connect(tmp_path / "codespar.sqlite") as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        connection.execute("INSERT INTO alembic_version VALUES ('base')")
        connection.execute("DELETE FROM alembic_version")
    store = await opened(sqlite_url(tmp_path))
    assert await store.write(lambda unit: unit.next_ticket()) == 1
    await store.close()
    assert SCHEMA_REVISION in known_revisions()


def schema(path: Path) -> dict[str, object]:
    """Tables, columns, keys, indexes and triggers; the order of columns tells only in which release they came."""
    engine = create_engine(f"sqlite:///{path}")
    seen = inspect(engine)
    found: dict[str, object] = {
        table: (
            sorted(str((c["name"], str(c["type"]), c["nullable"])) for c in seen.get_columns(table)),
            seen.get_pk_constraint(table)["constrained_columns"],
            sorted(
                str(
                    (i["name"], i["column_names"], i["unique"], str(i["dialect_options"].get("sqlite_where")))
                )
                for i in seen.get_indexes(table)
            ),
            sorted(str(u["column_names"]) for u in seen.get_unique_constraints(table)),
        )
        for table in seen.get_table_names()
        if table != "alembic_version"
    }
    engine.dispose()
    with sqlite3.connect(path) as connection:
        found["triggers"] = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
        ).fetchall()
    return found


async def test_migrations_and_tables_make_the_same_schema(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    await (await opened(sqlite_url(tmp_path / "made"))).close()
    with sqlite3.connect(tmp_path / "codespar.sqlite") as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    await (await opened(sqlite_url(tmp_path))).close()
    assert schema(tmp_path / "codespar.sqlite") == schema(tmp_path / "made" / "codespar.sqlite")


async def test_tables_of_another_program_are_not_touched(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "codespar.sqlite") as connection:
        connection.execute("CREATE TABLE wp_posts (id INTEGER)")
    with pytest.raises(StoreError, match=r"tables of another program.*wp_posts"):
        await opened(sqlite_url(tmp_path))


async def test_a_file_that_is_no_database_says_which_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "codespar.sqlite").write_bytes(b"this is not a database, but it is long enough to look" * 50)
    with pytest.raises(StoreError, match=r"codespar\.sqlite.*cannot be opened.*backup"):
        await opened(sqlite_url(tmp_path))


async def test_a_postgresql_that_is_not_there_says_so_without_the_password() -> None:
    with pytest.raises(StoreError) as caught:
        await opened("postgresql://codespar:s3cret@127.0.0.1:1/codespar")
    assert "127.0.0.1:1/codespar" in str(caught.value) and "s3cret" not in str(caught.value)


def deliver(name: str, unit: Unit) -> None:
    unit.accept("t", name, "p", {}, AT)


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
async def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, damage: str) -> None:
    store = await opened(sqlite_url(tmp_path))
    await store.write_all([partial(deliver, str(number)) for number in range(300)])
    await store.close()
    file = tmp_path / "codespar.sqlite"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else whole[:200] + b"\xff" * len(whole))
    with pytest.raises(StoreError, match=r"codespar\.sqlite.*cannot be opened.*restore it from a backup"):
        await opened(sqlite_url(tmp_path))


@pytest.fixture
def powerless(postgres_database: str) -> Iterator[str]:
    """The URL for a user who may connect, and nothing else."""
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("CREATE ROLE powerless LOGIN PASSWORD 's3cret'")
        yield (
            make_url(postgres_database)
            .set(username="powerless", password="s3cret")
            .render_as_string(hide_password=False)
        )
        connection.execute("DROP ROLE powerless")


async def test_a_user_who_may_not_make_tables_is_told(powerless: str) -> None:
    with pytest.raises(StoreError, match=r"permission denied for schema public.*may create tables") as caught:
        await opened(powerless)
    assert "s3cret" not in str(caught.value)


async def test_a_user_who_may_not_make_the_engines_database_is_told_which(powerless: str) -> None:
    with pytest.raises(StoreError, match=r'CREATE DATABASE "test_\w+_engine" OWNER "powerless";') as caught:
        await engine_database(powerless)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret@127.0.0.1:port/x",
        "postgresql://u:s3cret@127.0.0.1:1",
        "postgresql://u:s3cret@127.0.0.1:1/x",
        "postgresql://u:s3cret@127.0.0.1:1/x?bogus=1",
        f"postgresql://u:s3cret@127.0.0.1:1/{'x' * 64}",
        "mysql://u:s3cret@127.0.0.1/x",
    ],
)
@pytest.mark.parametrize("ask", [opened, engine_database])
async def test_an_address_that_cannot_be_used_is_refused_without_its_password(
    ask: Callable[[str], Awaitable[object]], url: str
) -> None:
    with pytest.raises(StoreError, match="database") as caught:
        await ask(url)
    assert "s3cret" not in str(caught.value)


async def test_a_name_that_leaves_no_room_for_the_engines_is_refused(postgres_url: str) -> None:
    """PostgreSQL would cut the name off; of 63 bytes, to our own database's."""
    with pytest.raises(StoreError, match="at most 56"):
        await engine_database(f"{postgres_url}/{'x' * 57}")


async def test_the_engines_own_database_is_made_once(postgres_database: str) -> None:
    first, second = await asyncio.gather(
        engine_database(postgres_database), engine_database(postgres_database)
    )
    name = str(make_url(first).database)
    assert first == second and name.endswith("_engine")
    plain = first.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def kept(url: str) -> set[str]:
    """The deliveries in the database, read past the product."""
    if not url.startswith("sqlite"):
        with psycopg.connect(url) as connection:
            return {row[0] for row in connection.execute("SELECT delivery FROM inbox")}
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0] for row in connection.execute("SELECT delivery FROM inbox")}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_acknowledged_write_survives_kill_9(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = sqlite_url(tmp_path) if kind == "sqlite" else request.getfixturevalue("postgres_database")
    told: list[str] = []
    for life in "123":
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, url, life], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(200)]
        process.kill()
        lines += process.communicate()[0].splitlines(keepends=True)
        told += [line.strip() for line in lines if line.endswith("\n")]  # the last one may be cut
    assert len(told) >= 600 and not set(told) - kept(url)
