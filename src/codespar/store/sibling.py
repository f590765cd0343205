"""The engine's own database on the PostgreSQL server that holds ours."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg
from psycopg import sql
from sqlalchemy import URL

from codespar.store.address import NAME_BYTES, postgresql_address, watched
from codespar.store.base import StoreError

SUFFIX = "_engine"


async def engine_database(url: str) -> str:
    """The URL of `<our database>_engine`, created when it is not there; a host that vanishes is noticed. Raises `StoreError`."""
    return await asyncio.to_thread(_engine_database, url)


def _engine_database(url: str) -> str:
    ours = postgresql_address(url)
    name = f"{ours.database}{SUFFIX}"
    if len(name.encode()) > NAME_BYTES:
        raise StoreError(
            f"the durable engine needs the database {name}, whose name is longer than PostgreSQL's {NAME_BYTES} bytes."
            f" Give our own database a name of at most {NAME_BYTES - len(SUFFIX)}."
        )
    try:
        with psycopg.connect(_plain(watched(ours)), autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
            if found is None:
                # another server may have been faster
                with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(
            f"the durable engine needs the database {name} beside {ours.database}, and {ours.username or 'this user'}"
            f' may not create it. As a superuser: CREATE DATABASE "{name}" OWNER "{ours.username or "<user>"}";'
        ) from error
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        raise StoreError(
            f"the database {ours.render_as_string(hide_password=True)} cannot be opened: {str(error).strip()}."
            " Check `database_url` and that the server runs."
        ) from error
    return watched(ours).set(database=name).render_as_string(hide_password=False)


def _plain(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
