"""The tables. A change here needs a migration beside it; a test compares the two.

Documents (tasks, approvals) are kept whole as JSON, with the columns that are asked for beside them.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text, TextClause, text

metadata = MetaData()
_Id = BigInteger().with_variant(Integer, "sqlite")
_PARTIAL: list[tuple[Index, TextClause]] = []


def _open(name: str, until: str, *columns: str) -> Index:
    """An index of the rows that wait for something: those whose `until` is empty. What is done costs it nothing."""
    waits = text(f"{until} IS NULL")
    index = Index(name, *columns, sqlite_where=waits)
    _PARTIAL.append((index, waits))
    return index


def for_postgresql() -> None:
    """Tell the indexes what PostgreSQL calls the same. Not at once: naming its dialect imports it, and most installations never use it."""
    for index, waits in _PARTIAL:
        index.dialect_options["postgresql"]["where"] = waits


inbox = Table(
    "inbox",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("source", String(64), nullable=False),
    Column("delivery", String(200), nullable=False),
    Column("project", String(100), nullable=False),
    Column("body", Text, nullable=False),
    Column("received_at", String(32), nullable=False),
    Column("done_at", String(32)),
    Column("error", Text),
    Index("inbox_delivery", "source", "delivery", unique=True),
    _open("inbox_open", "done_at", "project", "id"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column(
        "seq", _Id, nullable=False, unique=True
    ),  # grows with every change of the row: the clients' cursor
    Column("key", String(200), nullable=False, unique=True),
    Column("cause", _Id),  # the inbox row that it answers
    Column("project", String(100), nullable=False),
    Column("channel", String(16), nullable=False),
    Column("thread", String(300), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("delivered_at", String(32)),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt_at", String(32)),
    Column("external_id", String(200)),
    Index("outbox_thread", "thread", "seq"),
    Index("outbox_cause", "cause"),
    _open("outbox_due", "delivered_at", "next_attempt_at"),
)

intents = Table(
    "intents",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("kind", String(16), nullable=False),  # start | send
    Column("target", String(100), nullable=False),  # workflow name, or workflow id
    Column("payload", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("done_at", String(32)),
    _open("intents_open", "done_at", "created_at"),
)

projects = Table(
    "projects",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("repository", Text, nullable=False),
    Column("autonomy", Integer, nullable=False, default=1),
    Column("paused", Integer, nullable=False, default=0),
    Column("created_at", String(32), nullable=False),
)

agents = Table(
    "agents",
    metadata,
    Column("id", String(100), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("project", String(100), nullable=False),
    Column("state", String(20), nullable=False),
    Column("outcome", String(16)),
    Column("since", String(32), nullable=False),
    Index("agents_project", "project", "state"),
)

transitions = Table(
    "transitions",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("agent", String(100), nullable=False),
    Column("before", String(20)),
    Column("after", String(20), nullable=False),
    Column("cause", Text, nullable=False),
    Column("correlation", String(200), nullable=False),
    Column("at", String(32), nullable=False),
    Index("transitions_agent", "agent", "id"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(100), nullable=False),
    Column("status", String(16), nullable=False),
    Column("ticket", _Id, nullable=False, unique=True),
    Column("body", Text, nullable=False),
    Index("tasks_project", "project", "status", "ticket"),
)

usage = Table(
    "usage",
    metadata,
    Column("task", String(32), primary_key=True),
    Column("request", String(100), primary_key=True),
    Column("model", String(100), nullable=False),
    Column("tokens", _Id, nullable=False),
    Column("cost_micros", _Id, nullable=False),
    Column("at", String(32), nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    Column("token", String(16), primary_key=True),
    Column("project", String(100), nullable=False),
    Column("state", String(16), nullable=False),
    Column("body", Text, nullable=False),
    Index("approvals_project", "project", "state"),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", _Id, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),  # canonical JSON of every field
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", _Id, nullable=False),
    Column("hash", String(64), nullable=False, default=""),
)
