"""The engine's own database on the PostgreSQL server that holds ours."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

from codespar.store.base import StoreError


async def engine_database(url: str) -> str:
    """The URL of `<our database>_engine`, created when it is not there. Raises `StoreError`."""
    return await asyncio.to_thread(_engine_database, url)


def _engine_database(url: str) -> str:
    ours = make_url(url).set(drivername="postgresql+psycopg")
    theirs = ours.set(database=f"{ours.database}_engine")
    try:
        with psycopg.connect(_plain(ours), autocommit=True) as connection:
            found = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [theirs.database]
            ).fetchone()
            if found is None:
                with suppress(
                    psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation
                ):  # another server was faster
                    connection.execute(
                        sql.SQL("CREATE DATABASE {}").format(sql.Identifier(str(theirs.database)))
                    )
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(
            f"the durable engine needs the database {theirs.database} beside {ours.database}, and {ours.username or 'this user'} may not create it."
            f" As a superuser: CREATE DATABASE {theirs.database} OWNER {ours.username or '<user>'};"
        ) from error
    except psycopg.OperationalError as error:
        raise StoreError(
            f"the database {ours.render_as_string(hide_password=True)} cannot be opened: {str(error).strip()}"
        ) from error
    return theirs.render_as_string(hide_password=False)


def _plain(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
