"""Which database an address names. Never shows its password."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from codespar.store.base import StoreError

GONE_AFTER = 20  # seconds of silence after which the server's host counts as gone
_WATCHED = {  # libpq's names. What was sent is acknowledged in time; and while an answer is waited for, the host is asked whether it is there
    "connect_timeout": "10",
    "tcp_user_timeout": str(GONE_AFTER * 1000),
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
}
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


def watching(url: URL) -> dict[str, str]:
    """The parameters of a connection by which a host that vanishes without a word is noticed, less those that the address has itself."""
    return {name: value for name, value in _WATCHED.items() if name not in url.query}


def watched(url: URL) -> URL:
    """The address with these parameters."""
    return url.update_query_dict(watching(url))
