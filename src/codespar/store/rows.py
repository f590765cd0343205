"""What every part of the unit of work is built on: the connection, the notices, and two ways to write a row."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Table, literal_column

from codespar.domain.messages import NormalizedResponse
from codespar.store import statements as q
from codespar.store.base import Notice

Screen = Callable[[NormalizedResponse], NormalizedResponse]


def stamp(at: datetime) -> str:
    """UTC, fixed width, so that text order is time order."""
    utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    return utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


class Rows:
    """A connection that is inside a transaction, and the notices of what was changed on it."""

    def __init__(self, connection: Connection, screen: Screen = lambda response: response) -> None:
        self._db = connection
        self._screen = screen
        self._sqlite = connection.dialect.name == "sqlite"
        self.notices: list[Notice] = []

    def _upsert(self, table: Table, key: str | tuple[str, ...], values: dict[str, Any]) -> None:
        keys = (key,) if isinstance(key, str) else key
        made = q.insert_for(self._db, table).values(**values)
        rest = {name: made.excluded[name] for name in values if name not in keys}
        self._db.execute(made.on_conflict_do_update(index_elements=list(keys), set_=rest))

    def _insert_new(self, table: Table, values: dict[str, Any]) -> bool:
        made = q.insert_for(self._db, table).values(**values)
        # asked for as a row, since drivers count the rows of an insert differently
        kept = made.on_conflict_do_nothing().returning(literal_column("1"))
        return self._db.execute(kept).first() is not None
