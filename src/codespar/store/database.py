"""Where units of work are committed.

One thread with one connection writes, and commits in groups. Whatever waits when it comes round goes into one transaction, each unit in
its own savepoint, so a failing unit rolls back alone and thirty-two callers share one fsync. Units therefore never run beside each other,
on either database: what one reads stays true until it is committed. Readers have their own connections and see a snapshot. A unit is a
plain function: nothing can hold a write transaction across an await.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

from codespar.store import tables
from codespar.store.address import postgresql_address, watching
from codespar.store.base import DatabaseInUse, DatabaseTooNew, Notice, StoreError, StoreUnavailable, Unit
from codespar.store.rows import Screen
from codespar.store.unit import SqlUnit

T = TypeVar("T")
SCHEMA_REVISION = "0004"  # the newest file under migrations/versions
GROUP = 64  # units in one commit at most
SERVER_LOCK = 0x636F646573706172  # "codespar": the advisory lock of the one server of a PostgreSQL database
_SQLITE_PASSES = frozenset(  # primary result codes
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_POSTGRESQL_PASSES = frozenset({"08", "40", "53", "57", "58"})  # classes of SQLSTATE
_READ_ONLY = "25006"  # a standby that is not yet the primary
COUNTERS = ("ticket", "outbox", "audit")
_LOCK = text("SELECT pg_try_advisory_lock(:key)")
_SESSION = text("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")
_END_SESSION = text(
    "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE pid = :pid AND backend_start = :start"
)


class _Job:
    __slots__ = ("error", "future", "loop", "notices", "result", "work")

    def __init__(self, work: Callable[[Unit], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None
        self.notices: list[Notice] = []

    def settle(self) -> None:
        if self.future.cancelled():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Database:
    """A `Store`. `on_commit` is called on the loop with the notices of every commit."""

    def __init__(self, url: str, *, lock_folder: Path | None = None) -> None:
        self.url = url
        self.on_commit: Callable[[list[Notice]], None] = lambda notices: None
        self.screen: Screen = lambda response: response  # what everything that is said passes
        self._sqlite = url.startswith("sqlite")
        self._lock_folder = lock_folder
        self._lock: int | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._engine: Engine | None = None
        self._writer: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._connection: Connection | None = (
            None  # the writer's; on PostgreSQL its session is the server's claim
        )
        self._driver_error: type[BaseException] = Exception  # the root of what the driver raises
        self._claimed: tuple[Any, Any, Any] | None = (
            None  # the driver's connection, its backend's pid and start
        )

    async def open(self) -> None:
        """Take the lock, bring the schema up to date, start the threads. Raises `DatabaseInUse`, `DatabaseTooNew`, `StoreError`."""
        if self._lock_folder is not None:
            self._take_lock(self._lock_folder)
        try:
            self._engine = self._make_engine()
            await asyncio.to_thread(self._connect)
        except BaseException:
            self._disconnect()
            raise
        self._writer = threading.Thread(target=self._write_loop, name="codespar-writer", daemon=True)
        self._writer.start()
        self._readers = ThreadPoolExecutor(2 if self._sqlite else 6, thread_name_prefix="codespar-reader")

    async def close(self) -> None:
        """Commit what was handed in, then stop."""
        writer, self._writer = self._writer, None
        readers, self._readers = self._readers, None
        if writer is not None:
            self._jobs.put(None)
            await asyncio.to_thread(writer.join, 10)
        if readers is not None:
            await asyncio.to_thread(readers.shutdown)  # a read that hangs must not hold up the loop
        self._disconnect()

    async def write(self, work: Callable[[Unit], T]) -> T:
        if self._writer is None:
            raise StoreError("the store is closed")
        job = _Job(work, asyncio.get_running_loop())
        self._jobs.put(job)
        return await job.future

    async def write_all(self, works: Sequence[Callable[[Unit], T]]) -> list[T | Exception]:
        """Run the units one after another. One that fails is rolled back alone; its exception stands in its place."""
        if self._writer is None:
            raise StoreError("the store is closed")
        jobs = [_Job(work, asyncio.get_running_loop()) for work in works]
        for job in jobs:
            self._jobs.put(job)
        outcomes = await asyncio.gather(*(job.future for job in jobs), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
                raise outcome
        return cast("list[T | Exception]", outcomes)

    async def read(self, work: Callable[[Unit], T]) -> T:
        if self._readers is None:
            raise StoreError("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def _read(self, work: Callable[[Unit], T]) -> T:
        assert self._engine is not None
        try:
            with self._engine.connect() as connection:
                if self._sqlite:
                    connection.exec_driver_sql("BEGIN")
                else:
                    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                answer = work(SqlUnit(connection))
                connection.rollback()
                return answer
        except (DBAPIError, self._driver_error) as error:
            raise _refusal(_driven(error)) from error

    # the writer

    def _write_loop(self) -> None:
        assert self._connection is not None
        while True:
            first = self._jobs.get()
            if first is None:
                return
            group = [first]
            while len(group) < GROUP:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._jobs.put(None)
                    break
                group.append(more)
            self._commit(self._connection, group)

    def _commit(self, connection: Connection, group: list[_Job]) -> None:
        try:
            self._begin(connection)
            for job in group:
                self._run(connection, job)
                if job.error is not None:
                    connection.rollback()
                    if len(group) > 1:
                        self._commit_apart(connection, group)
                    break
            else:
                connection.commit()
        except Exception as error:  # noqa: BLE001 - the commit itself failed: every caller of the group is told
            connection.invalidate()
            connection.rollback()
            for job in group:
                job.error = StoreUnavailable(f"the database did not commit: {_first_line(_driven(error))}")
        notices = [notice for job in group if job.error is None for notice in job.notices]
        by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        for job in group:
            by_loop.setdefault(job.loop, []).append(job)
        for loop, jobs in by_loop.items():
            try:
                loop.call_soon_threadsafe(self._settle, jobs, notices)
            except RuntimeError:  # the loop has closed: nobody waits for these any more
                continue
            notices = []

    def _begin(self, connection: Connection) -> None:
        if self._sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return
        if self._claimed is not None and connection.connection.dbapi_connection is not self._claimed[0]:
            self._claim(connection)  # a new session: nothing is written before it is the server's again
        connection.begin()

    def _commit_apart(self, connection: Connection, group: list[_Job]) -> None:
        """Savepoints cost as much as the small units in them, so a group runs without. When one fails, all run again, each in its own."""
        self._begin(connection)
        for job in group:
            savepoint = connection.begin_nested()
            self._run(connection, job)
            if job.error is None:
                savepoint.commit()
            else:
                savepoint.rollback()
        connection.commit()

    def _run(self, connection: Connection, job: _Job) -> None:
        """Run one unit. Raises when the connection was lost, which is no fault of the unit."""
        unit = SqlUnit(connection, self.screen)
        job.error = None
        try:
            job.result = job.work(unit)
            job.notices = unit.notices
        except Exception as error:  # handed to the caller, whose unit alone is rolled back
            refused = _driven(error)
            if not isinstance(refused, self._driver_error):
                job.error = error
                return
            if self._is_lost(connection, refused):
                raise
            job.error = _refusal(refused)
            job.error.__cause__ = error

    def _is_lost(self, connection: Connection, error: Any) -> bool:
        return connection.invalidated or connection.dialect.is_disconnect(
            error, connection.connection.dbapi_connection, None
        )

    def _settle(self, jobs: list[_Job], notices: list[Notice]) -> None:
        for job in jobs:
            job.settle()
        if notices:
            self.on_commit(notices)

    # setting up

    def _make_engine(self) -> Engine:
        if not self._sqlite:
            tables.for_postgresql()
            address = postgresql_address(self.url)
            return create_engine(address, connect_args=watching(address), pool_size=10, pool_pre_ping=True)
        engine = create_engine(self.url, connect_args={"check_same_thread": False})

        def configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # we say BEGIN ourselves
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                "busy_timeout=10000",
                "foreign_keys=ON",
                "cache_size=-8000",
            ):
                connection.execute(f"PRAGMA {pragma}")

        event.listen(engine, "connect", configure)
        return engine

    def _connect(self) -> None:
        """Claim the database, then look at what it holds: another server's schema is not ours to upgrade."""
        assert self._engine is not None
        try:
            self._connection = self._engine.connect()
            self._driver_error = self._engine.dialect.loaded_dbapi.Error
            if not self._sqlite and self._lock_folder is not None:
                self._claim(self._connection)
            self._prepare()
        except DBAPIError as error:
            shown = self._engine.url.render_as_string(hide_password=True)
            advice = (
                "If the file is damaged, stop here and restore it from a backup; otherwise check its rights and the room on its disk."
                if self._sqlite
                else "Check `database_url`, that the server runs, and that the user may create tables there."
            )
            why = str(error.orig).strip().splitlines()[0]  # what follows points into our own SQL
            raise StoreError(f"the database {shown} cannot be opened: {why}. {advice}") from error

    def _prepare(self) -> None:
        assert self._engine is not None
        with self._engine.connect() as connection:
            names = set(inspect(connection).get_table_names())
            found = (
                connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
                if "alembic_version" in names
                else None
            )
        if found == SCHEMA_REVISION:
            return
        if found is None and not names:
            with whole(self._engine) as connection:
                tables.metadata.create_all(connection)
                create_extras(connection)
                connection.execute(
                    text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
                )
                connection.execute(
                    text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": SCHEMA_REVISION}
                )
            return
        if found is None and names != {"alembic_version"}:
            raise StoreError(
                f"the database {self._engine.url.render_as_string(hide_password=True)} holds tables of another program"
                f" ({', '.join(sorted(names)[:3])}). Give codespar a database of its own."
            )
        from codespar.store.migrate import known_revisions, upgrade

        if found is not None and found not in known_revisions():
            raise DatabaseTooNew(
                f"the database is at schema {found}, which this release does not know (its newest is {SCHEMA_REVISION}): a newer codespar "
                "wrote it. Install that release again, or restore the backup from before the upgrade."
            )
        with whole(self._engine) as connection:
            upgrade(connection)

    def _claim(self, connection: Connection) -> None:
        """One server a database: an advisory lock that lives as long as the writer's session.

        When the network lost our last session, PostgreSQL may keep it, and its lock, for hours: that one, and no other, is ended.
        """
        if self._claimed is not None:
            ours = {"pid": self._claimed[1], "start": self._claimed[2]}
            connection.execute(_END_SESSION, ours)
        if not connection.execute(_LOCK, {"key": SERVER_LOCK}).scalar():
            connection.rollback()
            shown = connection.engine.url.render_as_string(hide_password=True)
            raise DatabaseInUse(
                f"another server already works on {shown}. Stop it, or give this one its own `database_url`."
            )
        pid, start = connection.execute(_SESSION).one()
        connection.commit()
        self._claimed = (connection.connection.dbapi_connection, pid, start)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()  # ends the session and with it the claim
            self._connection.close()
            self._connection = None
        self._claimed = None
        if self._engine is not None:
            self._engine.dispose()
        self._release_lock()

    # one server a data folder

    def _take_lock(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "server.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise DatabaseInUse(
                f"another server (pid {holder}) already works on {folder}. Use it (`codespar status`), stop it, or give this one its own `data_dir`."
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _driven(error: BaseException) -> BaseException:
    """The driver's own error: what SQLAlchemy puts around it quotes our SQL, and what people said."""
    return error.orig or error if isinstance(error, DBAPIError) else error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _refusal(error: BaseException) -> StoreError:
    """What a driver's error means to whoever wanted the work done."""
    kind = StoreUnavailable if _passes(error) else StoreError
    return kind(f"the database refused: {_first_line(error)}")


def _passes(error: BaseException) -> bool:
    """Whether the database is away, full or busy, and not the statement wrong."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_PASSES
    state = getattr(error, "sqlstate", None)
    if state is None:  # the client's own: what it refuses to send, or a connection lost or never made
        return any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)
    return state[:2] in _POSTGRESQL_PASSES or state == _READ_ONLY


@contextmanager
def whole(engine: Engine) -> Generator[Connection]:
    """A transaction for a change of the schema: a crash in it leaves the schema as it was."""
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # its driver would commit each statement by itself
        yield connection


def create_extras(connection: Connection) -> None:
    """What the tables need beside their columns: the counters' rows, and the guards that keep the audit chain append-only."""
    present = set(connection.execute(select(tables.counters.c.name)).scalars())
    for name in COUNTERS:
        if name not in present:
            connection.execute(insert(tables.counters), {"name": name, "value": 0, "hash": ""})
    if connection.dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            connection.execute(
                text(
                    f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit BEGIN SELECT RAISE(ABORT, 'the audit chain is append-only'); END"
                )
            )
        return
    connection.execute(
        text(
            "CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit chain is append-only'; END $$"
        )
    )
    connection.execute(
        text(
            "CREATE TRIGGER audit_guard BEFORE UPDATE OR DELETE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
        )
    )
