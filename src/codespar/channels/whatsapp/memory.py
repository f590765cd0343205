"""What the channel must know after a restart: when people last wrote, what was sent under which key, and what waits for a person.

A small SQLite file in the adapter's own folder, readable by this user only. Bounded: it never grows with the age of an installation, and
whatever it has to give up is counted and told. It holds no secret. Its calls block, so they run in a thread, one after another.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import JsonValue

from codespar.channels.base import DeliveryFailed

MAX_SENT = 2000  # keys that can still be found
MAX_HELD = 100  # messages that wait for one person
MAX_PEOPLE = 50_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS people (id TEXT PRIMARY KEY, last REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent (
    key TEXT PRIMARY KEY, wamid TEXT, state TEXT NOT NULL, person TEXT NOT NULL, payload TEXT, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS sent_at ON sent (at);
CREATE TABLE IF NOT EXISTS held (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, person TEXT NOT NULL, payload TEXT NOT NULL,
    progress INTEGER NOT NULL, announced TEXT, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS held_person ON held (person);
CREATE TABLE IF NOT EXISTS dropped (person TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
"""
T = TypeVar("T")


@dataclass(frozen=True)
class Sent:
    """A message that was posted, or whose posting has begun. `state`: trying, accepted, or what the platform last said."""

    key: str
    wamid: str | None
    state: str
    person: str
    payload: dict[str, JsonValue] | None


@dataclass(frozen=True)
class Held:
    """A message that waits until its person writes. `announced`: the id of the template that told them, if one was sent."""

    key: str
    person: str
    payload: dict[str, JsonValue]
    announced: str | None


class Memory:
    """The file. Every method may be called from several tasks at once; all run in one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="whatsapp-memory")
        self._connection: sqlite3.Connection | None = None

    async def close(self) -> None:
        """Let go of the file. It is not used again."""

        def work() -> None:
            if self._connection is not None:
                self._connection.close()

        await asyncio.get_running_loop().run_in_executor(self._thread, work)
        self._thread.shutdown(wait=False)

    async def wrote(self, people: Sequence[str], at: float) -> None:
        """A person wrote: free text may be sent to each of their ids from now on for 24 hours."""

        def work(db: sqlite3.Connection) -> None:
            db.executemany(
                "INSERT INTO people VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET last = max(last, excluded.last)",
                [(person, at) for person in people],
            )
            db.execute(
                "DELETE FROM people WHERE id IN (SELECT id FROM people ORDER BY last DESC LIMIT -1 OFFSET ?)",
                (MAX_PEOPLE,),
            )

        await self._run(work)

    async def window_closed(self, person: str, now: float) -> None:
        """The platform says that the person's window is closed, whatever we thought."""
        await self._run(
            lambda db: db.execute(
                "INSERT INTO people VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET last = min(last, excluded.last)",
                (person, now),
            )
        )

    async def last_written(self, person: str) -> float | None:
        def work(db: sqlite3.Connection) -> float | None:
            row = db.execute("SELECT last FROM people WHERE id = ?", (person,)).fetchone()
            return row[0] if row else None

        return await self._run(work)

    async def trying(self, key: str, person: str, payload: dict[str, JsonValue], now: float) -> None:
        """A message is about to be posted under a key."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT OR REPLACE INTO sent VALUES (?, NULL, 'trying', ?, ?, ?)",
                (key, person, json.dumps(payload), now),
            )
            db.execute(
                "DELETE FROM sent WHERE key IN (SELECT key FROM sent ORDER BY at DESC LIMIT -1 OFFSET ?)",
                (MAX_SENT,),
            )

        await self._run(work)

    async def accepted(self, key: str, wamid: str) -> None:
        """The platform took it. A status that came before its answer stays."""
        await self._run(
            lambda db: db.execute(
                "UPDATE sent SET wamid = ?, state = CASE state WHEN 'trying' THEN 'accepted' ELSE state END WHERE key = ?",
                (wamid, key),
            )
        )

    async def status(self, key: str, wamid: str, state: str, now: float) -> Sent | None:
        """What the platform says has become of a message; what it was before. The payload is kept only until it has arrived."""

        def work(db: sqlite3.Connection) -> Sent | None:
            before = _sent(db, key)
            if before and before.state in ("delivered", "read", "failed") and state in ("sent", before.state):
                return before  # statuses come in any order, and more than once
            arrived = state in ("delivered", "read", "played")
            db.execute(
                "INSERT INTO sent VALUES (?, ?, ?, '', NULL, ?) ON CONFLICT (key) DO UPDATE SET wamid = excluded.wamid, "
                "state = excluded.state, payload = CASE WHEN ? THEN NULL ELSE payload END",
                (key, wamid, state, now, arrived),
            )
            return before

        return await self._run(work)

    async def sent(self, key: str) -> Sent | None:
        return await self._run(lambda db: _sent(db, key))

    async def forget(self, key: str) -> None:
        """It was certainly not posted."""
        await self._run(lambda db: db.execute("DELETE FROM sent WHERE key = ?", (key,)))

    async def hold(
        self, key: str, person: str, payload: dict[str, JsonValue], announced: str | None, now: float
    ) -> None:
        """Keep a message until the person writes. The same key is kept once. Where there is no more room, progress goes first."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO held (key, person, payload, progress, announced, at) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET announced = coalesce(excluded.announced, announced)",
                (key, person, json.dumps(payload), bool(payload.get("progress")), announced, now),
            )
            over = db.execute(
                "SELECT count(*) - ? FROM held WHERE person = ?", (MAX_HELD, person)
            ).fetchone()[0]
            if over > 0:
                db.execute(
                    "DELETE FROM held WHERE number IN "
                    "(SELECT number FROM held WHERE person = ? ORDER BY progress DESC, number LIMIT ?)",
                    (person, over),
                )
                db.execute(
                    "INSERT INTO dropped VALUES (?, ?) ON CONFLICT (person) DO UPDATE SET count = count + excluded.count",
                    (person, over),
                )

        await self._run(work)

    async def held(self, people: Iterable[str]) -> list[Held]:
        """What waits for a person, oldest first."""
        ids = tuple(people)

        def work(db: sqlite3.Connection) -> list[Held]:
            marks = ", ".join("?" * len(ids))
            rows = db.execute(
                f"SELECT key, person, payload, announced FROM held WHERE person IN ({marks}) ORDER BY number",
                ids,
            )
            return [Held(key, person, json.loads(payload), told) for key, person, payload, told in rows]

        return await self._run(work)

    async def is_held(self, key: str) -> bool:
        return await self._run(
            lambda db: db.execute("SELECT 1 FROM held WHERE key = ?", (key,)).fetchone() is not None
        )

    async def waiting(self) -> list[str]:
        """The people for whom something waits."""
        return await self._run(
            lambda db: [row[0] for row in db.execute("SELECT DISTINCT person FROM held ORDER BY person")]
        )

    async def released(self, key: str) -> None:
        await self._run(lambda db: db.execute("DELETE FROM held WHERE key = ?", (key,)))

    async def take_dropped(self, person: str) -> int:
        """How many messages had to be given up for a person since this was last asked."""

        def work(db: sqlite3.Connection) -> int:
            row = db.execute("SELECT count FROM dropped WHERE person = ?", (person,)).fetchone()
            db.execute("DELETE FROM dropped WHERE person = ?", (person,))
            return row[0] if row else 0

        return await self._run(work)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def transaction() -> T:
            try:
                connection = self._connection or self._open()
                with connection:
                    return work(connection)
            except (sqlite3.Error, OSError) as error:
                raise DeliveryFailed(
                    f"{self._path} cannot be read or written ({error}): look at the disk and the folder's rights.",
                    30.0,
                ) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, transaction)

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path.touch(mode=0o600, exist_ok=True)
        connection = sqlite3.connect(self._path, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
        self._connection = connection
        return connection


def _sent(db: sqlite3.Connection, key: str) -> Sent | None:
    row: Any = db.execute(
        "SELECT key, wamid, state, person, payload FROM sent WHERE key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    return Sent(row[0], row[1], row[2], row[3], json.loads(row[4]) if row[4] else None)
