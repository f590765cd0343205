"""The unit's part for what nobody needs any more: rows of the inbox and of announcements, once they are done and old.

What is removed could be taken for new when it comes again. The inbox therefore remembers up to when it has forgotten: a message from before
then counts as a repeat. Stays for ever: the newest row, since SQLite would give its id, which answers and their keys are named by, to
another; what waits; standing announcements, which may be amended at any time; and `LASTING` deliveries.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil
from typing import Literal

from sqlalchemy import ColumnElement, Table, delete, func, select

from codespar.domain.messages import UtcDatetime
from codespar.store import statements as q
from codespar.store import tables as t
from codespar.store.rows import Rows, stamp

Ageing = Literal["inbox", "announcements"]
LASTING = ("github:body",)
"""Sources whose rows stay: a signature that has no time in it is good for ever, and counts once by these."""
FORGOTTEN = "forgotten"  # the counter: whole seconds since 1970


class Outliving(Rows):
    """What is done and old."""

    def outlived(
        self, what: Ageing, before: UtcDatetime, after: int, most: int
    ) -> tuple[list[int], int | None]:
        """Which of the next `most` rows behind the id `after` may go, and where to go on: None where all that come are newer."""
        table, came, done = _columns(what)
        at = stamp(before)
        found = (
            select(
                table.c.id,
                table.c[came].label("came"),
                table.c[done].label("done"),
                _lasts(table).label("lasts"),
            )
            .where(table.c.id > after)
            .order_by(table.c.id)
            .limit(most)
        )
        rows = self._db.execute(found).all()
        newest = self._db.execute(select(func.max(table.c.id))).scalar()
        over = [
            row.id
            for row in rows
            if not row.lasts and row.id != newest and row.done and max(row.came, row.done) < at
        ]
        more = len(rows) == most and any(row.came < at for row in rows)
        return over, rows[-1].id if more else None

    def let_go(self, what: Ageing, ids: Sequence[int], before: UtcDatetime) -> int:
        """Remove these rows, which `outlived` named. Returns how many were there."""
        if what == "inbox":
            values = {
                "name": FORGOTTEN,
                "value": max(ceil(before.timestamp()), self._forgotten()),
                "hash": "",
            }
            self._upsert(t.counters, "name", values)
        table, _, _ = _columns(what)
        return self._db.execute(delete(table).where(table.c.id.in_(ids))).rowcount

    def _is_forgotten(self, at: UtcDatetime) -> bool:
        """Whether a message of that time may have been here, and is not known any more."""
        return at < datetime.fromtimestamp(self._forgotten(), UTC)

    def _forgotten(self) -> int:
        row = q.COUNTER.first(self._db, counter=FORGOTTEN)
        return int(row[0]) if row else 0


def _columns(what: Ageing) -> tuple[Table, str, str]:
    if what == "inbox":
        return t.inbox, "received_at", "done_at"
    return t.announcements, "created_at", "told_at"


def _lasts(table: Table) -> ColumnElement[bool]:
    if table is t.inbox:
        return t.inbox.c.source.in_(LASTING)
    return t.announcements.c.standing == 1
