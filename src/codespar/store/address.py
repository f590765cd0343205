"""Which database an address names. Never shows its password."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from codespar.store.base import StoreError

NAME_BYTES = 63  # PostgreSQL cuts longer names off without a word, so two of them may be one database


def postgresql_address(text: str) -> URL:
    """The parts of `postgresql://user@server:port/name`, with the driver we use. Raises `StoreError`."""
    form = "write `database_url` as postgresql://user@server:port/name"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise StoreError(f"the address of the database cannot be read: {form}") from error
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise StoreError(f"codespar keeps its data in SQLite or PostgreSQL, not {url.drivername}: {form}")
    shown = url.render_as_string(hide_password=True)
    if not url.database:
        raise StoreError(f"{shown} names no database: {form}")
    if len(url.database.encode()) > NAME_BYTES:
        raise StoreError(
            f"the database name {url.database} is longer than PostgreSQL's {NAME_BYTES} bytes. Choose a shorter one."
        )
    return url.set(drivername="postgresql+psycopg")
