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
    Column("created_at", String(32), nullable=False),  # of what it says now: an edit is as old as itself
    Column("delivered_at", String(32)),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt_at", String(32)),
    Column("parts", Text),  # what stands at the platform: JSON, the id and digest of each message
    Column("sending", Text),  # a send whose answer is not known: JSON, which part and since when
    Column("refused", Text),  # why the platform will never take it
    Index("outbox_thread", "thread", "seq"),
    Index("outbox_cause", "cause"),
    _open("outbox_waiting", "delivered_at", "thread", "seq"),
)

announcements = Table(
    "announcements",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("key", String(200), nullable=False, unique=True),
    Column("project", String(100), nullable=False),
    Column("place", String(300), nullable=False),  # a thread's key
    Column("kind", String(16), nullable=False),
    Column("critical", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("told_at", String(32)),
    Column("standing", Integer, nullable=False, server_default="0"),  # told alone, and edited in place later
    Index("announcements_place", "place", "told_at"),
    _open("announcements_waiting", "told_at", "place", "id"),
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

routes = Table(
    "routes",
    metadata,
    Column("channel", String(16), primary_key=True),
    Column("conversation", String(200), primary_key=True),
    Column("project", String(100), nullable=False),
    Column("alerts", Text, nullable=False),  # JSON: the kinds
    Column("source", String(16), nullable=False),  # file: codespar.yaml | link: a command
    Index("routes_project", "project"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("alias", String(100), primary_key=True),  # lower case
    Column("project", String(100), nullable=False),
)

people = Table(
    "people",
    metadata,
    Column("id", String(100), primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column(
        "source", String(16), nullable=False
    ),  # file: codespar.yaml | invite: a command | host: this machine
)

identities = Table(
    "identities",
    metadata,
    Column("channel", String(16), primary_key=True),
    Column("external", String(200), primary_key=True),  # the platform's id of the person
    Column("person", String(100), nullable=False),
    Column("source", String(16), nullable=False),  # file | code
    Column("linked_at", String(32), nullable=False),
    Index("identities_person", "person"),
)

codes = Table(
    "codes",
    metadata,
    Column("hash", String(64), primary_key=True),  # SHA-256 of the code: the code itself is kept nowhere
    Column("person", String(100), nullable=False),  # whom it makes the sender
    Column("made_by", String(100), nullable=False),
    Column("made_at", String(32), nullable=False),
    Column("expires_at", String(32), nullable=False),
    Column("used_at", String(32)),
)

tries = Table(
    "tries",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("channel", String(16), nullable=False),
    Column("external", String(200), nullable=False),
    Column("at", String(32), nullable=False),
    Index("tries_of", "channel", "external", "at"),
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
    Index("approvals_state", "state"),
)

watches = Table(
    "watches",
    metadata,
    Column("project", String(100), primary_key=True),
    Column("cursor", Text, nullable=False),  # JSON, the forge's own
    Column("polled_at", String(32)),
    Column("heard_at", String(32)),
    Column("problem", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("project", String(100), primary_key=True),
    Column("run", String(100), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("branch", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("commit", String(64), nullable=False),
    Column("started_at", String(32), nullable=False),
    Column("body", Text, nullable=False),
    Index("runs_started", "project", "started_at"),
    Index("runs_commit", "project", "commit"),
    Index("runs_branch", "project", "branch", "workflow", "started_at"),
)

standings = Table(
    "standings",
    metadata,
    Column("project", String(100), primary_key=True),
    Column("branch", String(255), primary_key=True),
    Column("workflow", String(255), primary_key=True),
    Column("body", Text, nullable=False),
)

reviews = Table(
    "reviews",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(100), nullable=False),
    Column("number", Integer, nullable=False),
    Column("head", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("unasked", Integer, nullable=False),  # 1: nobody asked for it
    Column("started_at", String(32), nullable=False),
    Column("body", Text, nullable=False),
    Index("reviews_of", "project", "number", "head", unique=True),
    Index("reviews_state", "project", "state"),
    Index("reviews_head", "project", "head"),
    Index("reviews_started", "project", "started_at"),
)

memories = Table(
    "memories",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(100), nullable=False),
    Column("body", Text, nullable=False),
    Index("memories_project", "project"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("project", String(100), primary_key=True),
    Column("name", String(100), primary_key=True),
    Column("fired_at", String(32), nullable=False),
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
