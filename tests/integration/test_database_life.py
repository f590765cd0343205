"""A database's life: one server at a time, older and newer schemas, files that are something else, and kill -9."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from codespar.store.base import DatabaseInUse, DatabaseTooNew, StoreError
from codespar.store.database import SCHEMA_REVISION, Database
from codespar.store.migrate import known_revisions
from codespar.store.sibling import engine_database

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
            delivery = f"{name}-{number}"
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


def schema(path: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
        return [(name, " ".join(sql.split())) for name, sql in found if name != "alembic_version"]


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


async def test_the_engines_own_database_is_made_once(postgres_database: str) -> None:
    first, second = await asyncio.gather(
        engine_database(postgres_database), engine_database(postgres_database)
    )
    assert first == second and first.endswith("_engine")
    plain = first.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    name = plain.rsplit("/", 1)[1]
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name}".encode())


def test_every_acknowledged_write_survives_kill_9(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        told = [process.stdout.readline().strip() for _ in range(200)]
        process.kill()
        told += process.communicate()[0].splitlines()
        if not told[-1].count("-"):
            told.pop()
        with sqlite3.connect(tmp_path / "codespar.sqlite") as connection:
            there = {row[0] for row in connection.execute("SELECT delivery FROM inbox")}
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            connection.execute("DELETE FROM inbox")
        missing = set(told) - there
        assert not missing and len(told) >= 200
