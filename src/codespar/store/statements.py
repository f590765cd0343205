"""The statements of the hot path, by what they do to the tables."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Integer, Table, bindparam, func, insert, literal_column, select, update
from sqlalchemy.dialects import sqlite

from codespar.domain.reviews import ReviewState
from codespar.domain.tasks import TaskStatus
from codespar.store import tables as t
from codespar.store.prepared import Prepared

_OPEN = [literal_column(f"'{status}'") for status in TaskStatus if not status.final]


def _named(table: Table, *names: str) -> dict[str, Any]:
    return {name: bindparam(name, type_=table.c[name].type) for name in names}


def insert_for(connection: Connection, table: Table) -> Any:
    """An insert with this database's `ON CONFLICT`."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # its import is paid for where it is used

    return postgresql.insert(table)


def _accept(connection: Connection) -> Any:
    values = _named(t.inbox, "source", "delivery", "project", "body", "received_at", "done_at")
    return insert_for(connection, t.inbox).values(**values).on_conflict_do_nothing().returning(t.inbox.c.id)


ACCEPT = Prepared(_accept)
DELIVERED = Prepared(
    select(t.inbox.c.id).where(
        t.inbox.c.source == bindparam("source"), t.inbox.c.delivery == bindparam("delivery")
    )
)
PENDING = Prepared(
    select(t.inbox.c.id, t.inbox.c.project, t.inbox.c.body)
    .where(t.inbox.c.done_at.is_(None), t.inbox.c.project == bindparam("project"))
    .order_by(t.inbox.c.id)
    .limit(bindparam("most", type_=Integer))
)
DONE_AT = Prepared(select(t.inbox.c.done_at).where(t.inbox.c.id == bindparam("row")))
FINISH = Prepared(
    update(t.inbox)
    .where(t.inbox.c.id == bindparam("row"))
    .values(done_at=bindparam("at"), error=bindparam("why"))
)
SAID = Prepared(select(t.outbox.c.id).where(t.outbox.c.key == bindparam("key")))
_OUTBOX = (
    "seq",
    "key",
    "cause",
    "project",
    "channel",
    "thread",
    "body",
    "created_at",
    "delivered_at",
    "attempts",
)
SAY = Prepared(insert(t.outbox).values(**_named(t.outbox, *_OUTBOX)))
SAY_AGAIN = Prepared(
    update(t.outbox)
    .where(t.outbox.c.key == bindparam("row"))
    .values(
        seq=bindparam("new_seq"),
        body=bindparam("new_body"),
        created_at=bindparam("new_created"),
        delivered_at=bindparam("new_delivered"),
    )
    .returning(t.outbox.c.id)
)
BUMP = Prepared(
    update(t.counters)
    .where(t.counters.c.name == bindparam("counter"))
    .values(value=t.counters.c.value + literal_column("1"))
    .returning(t.counters.c.value, t.counters.c.hash)
)
COUNTER = Prepared(select(t.counters.c.value).where(t.counters.c.name == bindparam("counter")))
PROJECT = Prepared(select(t.projects).where(t.projects.c.name == bindparam("name")))
AGENT = Prepared(select(t.agents).where(t.agents.c.id == bindparam("id")))
TASK = Prepared(select(t.tasks.c.body).where(t.tasks.c.id == bindparam("id")))
OPEN_TASKS = Prepared(
    select(t.tasks.c.body)
    .where(t.tasks.c.project == bindparam("project"), t.tasks.c.status.in_(_OPEN))
    .order_by(t.tasks.c.ticket)
)
PROBLEM = Prepared(select(t.watches.c.problem).where(t.watches.c.project == bindparam("project")))
RUNNING_REVIEWS = Prepared(
    select(t.reviews.c.body)
    .where(
        t.reviews.c.project == bindparam("project"),
        t.reviews.c.state == literal_column(f"'{ReviewState.RUNNING}'"),
    )
    .order_by(t.reviews.c.started_at.desc())
)
REVIEW_OF = Prepared(
    select(t.reviews.c.body).where(
        t.reviews.c.project == bindparam("project"),
        t.reviews.c.number == bindparam("number"),
        t.reviews.c.head == bindparam("head"),
    )
)
REVIEWS_AT = Prepared(
    select(t.reviews.c.body).where(
        t.reviews.c.project == bindparam("project"), t.reviews.c.head == bindparam("head")
    )
)
BEGUN_UNASKED = Prepared(
    select(func.count(), func.count().filter(t.reviews.c.number == bindparam("number"))).where(
        t.reviews.c.project == bindparam("project"),
        t.reviews.c.unasked == literal_column("1"),
        t.reviews.c.started_at > bindparam("since"),
    )
)
