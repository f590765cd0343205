"""The index's file: its tables, what is written in one transaction each, and opening or replacing it.

Content (`blobs`, `symbols`, `blob_words`) is keyed by git's blob hash (and the language it is read as) and is true for ever; `paths` is the tree of one commit and changes
together with the commit's name; `branches` names what other branches need, so that it is kept. So a process killed at any point leaves either the old commit or the new
one, and never a mixture.
"""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import structlog

from codespar.codeindex.extract import Content, parts, tokens, words_of

log = structlog.get_logger(__name__)

SCHEMA = (
    2  # raise it whenever the tables or the words that `extract` makes change: old files are then rebuilt
)
MAX_BRANCHES = 50  # the one not taken in for longest is let go first
MAX_BRANCH_BLOBS = (
    20_000  # of all branches together, or as many as there are paths: older branches are let go
)
MIN_SPARE_BLOBS = (
    1000  # content no longer in the tree is kept up to this many blobs, or as many as the tree has
)
_TABLES = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE blobs(id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, language TEXT, symbols INTEGER NOT NULL, identifiers TEXT NOT NULL,
  text BLOB NOT NULL);
CREATE TABLE names(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, lower TEXT NOT NULL);
CREATE INDEX names_lower ON names(lower);
CREATE TABLE symbols(blob INTEGER NOT NULL, name INTEGER NOT NULL, kind TEXT NOT NULL, line INTEGER NOT NULL, signature TEXT NOT NULL,
  above INTEGER NOT NULL, below INTEGER NOT NULL);
CREATE INDEX symbols_blob ON symbols(blob);
CREATE INDEX symbols_name ON symbols(name);
CREATE TABLE paths(id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, blob INTEGER);
CREATE INDEX paths_blob ON paths(blob);
CREATE TABLE branches(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE branch_blobs(branch INTEGER NOT NULL, blob INTEGER NOT NULL, PRIMARY KEY(branch, blob)) WITHOUT ROWID;
CREATE VIRTUAL TABLE blob_words USING fts5(words, content='', detail=none, tokenize='unicode61');
CREATE VIRTUAL TABLE name_words USING fts5(words, content='', detail=none, tokenize='unicode61');
CREATE VIRTUAL TABLE path_words USING fts5(words, content='', detail=none, tokenize='unicode61');
"""
_NEEDED = "SELECT blob FROM paths WHERE blob NOT NULL UNION SELECT blob FROM branch_blobs"


class Tree:
    """The change from one tree to another: paths to set to content's keys (None: listed only), paths to drop, or everything anew."""

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.present: dict[str, str | None] = {}
        self.gone: list[str] = []


def path_words(path: str) -> str:
    """The words a path is found by."""
    return words_of(tokens(path.encode()))


class IndexFile:
    """One index file with one connection for writing and one for reading. Every method blocks: call it in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write_lock = threading.Lock()
        self.read_lock = threading.Lock()
        self.rebuilt = 0  # how often
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    def writer(self) -> sqlite3.Connection:
        """The writing connection, opened (and the file made, or made again) when needed. Hold `write_lock`."""
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._writer = _open(self.path)
            except sqlite3.DatabaseError as error:
                if not broken(error):
                    raise
                self._replace(str(error))
                self._writer = _open(self.path)
        return self._writer

    def reader(self) -> sqlite3.Connection:
        """The reading connection. Hold `read_lock`."""
        if self._reader is None:
            with self.write_lock:
                self.writer()
            self._reader = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            self._reader.execute("PRAGMA query_only=ON")
            self._reader.execute("PRAGMA cache_size=-16384")
        return self._reader

    def rebuild(self, why: str) -> None:
        """Throw the file away and start an empty one."""
        with self.read_lock, self.write_lock:
            self._shut()
            self._replace(why)
            self.rebuilt += 1
            self.writer()

    def close(self) -> None:
        """Close both connections; the next use opens them again."""
        with self.read_lock, self.write_lock:
            self._shut()

    def _shut(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    def _replace(self, why: str) -> None:
        log.warning("code index is rebuilt", file=str(self.path), why=why)
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def commit(self) -> str | None:
        """The commit that is indexed."""
        with self.write_lock:
            row = self.writer().execute("SELECT value FROM meta WHERE name='commit'").fetchone()
            return row[0] if row else None

    def unseen(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys whose content is not known yet, in the given order, each once."""
        wanted = list(dict.fromkeys(keys))
        with self.write_lock:
            connection = self.writer()
            if len(wanted) > 5000:
                known = {row[0] for row in connection.execute("SELECT key FROM blobs")}
                return [key for key in wanted if key not in known]
            ask = "SELECT 1 FROM blobs WHERE key=?"
            return [key for key in wanted if connection.execute(ask, (key,)).fetchone() is None]

    def add(self, contents: list[Content]) -> None:
        """Keep new content, in one transaction. Content that is already known is passed over."""
        with self.write_lock, _transaction(self.writer()) as connection:
            next_id = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM blobs").fetchone()[0]
            named = _name_ids(connection, {symbol[0] for content in contents for symbol in content.symbols})
            for content in contents:
                row = (
                    next_id,
                    content.key,
                    content.language,
                    len(content.symbols),
                    content.identifiers,
                    content.text,
                )
                if connection.execute("INSERT OR IGNORE INTO blobs VALUES (?,?,?,?,?,?)", row).rowcount < 1:
                    continue
                connection.executemany(
                    "INSERT INTO symbols VALUES (?,?,?,?,?,?,?)",
                    [(next_id, named[name], *rest) for name, *rest in content.symbols],
                )
                if content.words:
                    connection.execute(
                        "INSERT INTO blob_words(rowid, words) VALUES (?,?)", (next_id, content.words)
                    )
                next_id += 1

    def show(self, tree: Tree, commit: str) -> tuple[int, int]:
        """Make `commit` the one that is shown, in one transaction. Returns how many (files, symbols) it has."""
        with self.write_lock, _transaction(self.writer()) as connection:
            if tree.whole:
                connection.execute("DELETE FROM paths")
                connection.execute("INSERT INTO path_words(path_words) VALUES ('delete-all')")
            ids = dict(connection.execute("SELECT key, id FROM blobs")) if len(tree.present) > 5000 else None
            for path in tree.gone:
                row = connection.execute("DELETE FROM paths WHERE path=? RETURNING id", (path,)).fetchone()
                if row:
                    connection.execute(
                        "INSERT INTO path_words(path_words, rowid, words) VALUES ('delete',?,?)",
                        (row[0], path_words(path)),
                    )
            for path, key in tree.present.items():
                blob = _blob_id(connection, ids, key)
                if (
                    not tree.whole
                    and connection.execute("UPDATE paths SET blob=? WHERE path=?", (blob, path)).rowcount
                ):
                    continue
                made = connection.execute(
                    "INSERT INTO paths(path, blob) VALUES (?,?)", (path, blob)
                ).lastrowid
                connection.execute(
                    "INSERT INTO path_words(rowid, words) VALUES (?,?)", (made, path_words(path))
                )
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('commit', ?)", (commit,))
            return counts(connection)

    def counts(self) -> tuple[int, int]:
        """How many (files, symbols) the shown commit has."""
        with self.write_lock:
            return counts(self.writer())

    def keep(self, branch: str, tree: Tree) -> tuple[int, int]:
        """Keep what a branch has beside the shown commit, in one transaction. Returns how many (files, symbols) the branch has.

        `tree` is how the branch's commit differs from the one that is shown, or the whole of it.
        """
        with self.write_lock, _transaction(self.writer()) as connection:
            files, symbols = (0, 0) if tree.whole else counts(connection)
            needed: set[int] = set()
            for path in () if tree.whole else (*tree.gone, *tree.present):
                for (gone,) in connection.execute(_SYMBOLS_AT, (path,)):
                    files, symbols = files - 1, symbols - gone
            for key in tree.present.values():
                row = connection.execute("SELECT id, symbols FROM blobs WHERE key=?", (key,)).fetchone()
                files += 1
                if row:
                    needed.add(row[0])
                    symbols += row[1]
            _let_go(connection, branch)
            made = connection.execute("INSERT INTO branches(name) VALUES (?)", (branch,)).lastrowid
            connection.executemany("INSERT INTO branch_blobs VALUES (?,?)", [(made, blob) for blob in needed])
            (paths,) = connection.execute("SELECT count(*) FROM paths").fetchone()
            allowed, held = max(MAX_BRANCH_BLOBS, paths), len(needed)
            newest_first = "SELECT id, name FROM branches WHERE id <> ? ORDER BY id DESC"
            for place, (number, name) in enumerate(connection.execute(newest_first, (made,)).fetchall(), 2):
                held += connection.execute(
                    "SELECT count(*) FROM branch_blobs WHERE branch=?", (number,)
                ).fetchone()[0]
                if place > MAX_BRANCHES or held > allowed:
                    _let_go(connection, name)
            return files, symbols

    def let_go(self, branch: str) -> None:
        """No longer keep content for a branch's sake. It stays spare for a while: a branch is often deleted just before its merge is pushed."""
        with self.write_lock, _transaction(self.writer()) as connection:
            _let_go(connection, branch)

    def prune(self) -> int:
        """Forget content that no path and no branch has: only when there is more of it than of what they have. Returns how many blobs."""
        with self.write_lock, _transaction(self.writer()) as connection:
            (total,) = connection.execute("SELECT count(*) FROM blobs").fetchone()
            (used,) = connection.execute(f"SELECT count(*) FROM ({_NEEDED})").fetchone()
            if total - used <= max(MIN_SPARE_BLOBS, used):
                return 0
            spare = connection.execute(f"SELECT id FROM blobs WHERE id NOT IN ({_NEEDED})").fetchall()
            for (number,) in spare:
                (packed,) = connection.execute("SELECT text FROM blobs WHERE id=?", (number,)).fetchone()
                # What has no words was never put into the full text: taking it out would break that table.
                if packed and (words := words_of(tokens(zlib.decompress(packed)))):
                    connection.execute(
                        "INSERT INTO blob_words(blob_words, rowid, words) VALUES ('delete',?,?)",
                        (number, words),
                    )
                connection.execute("DELETE FROM symbols WHERE blob=?", (number,))
                connection.execute("DELETE FROM blobs WHERE id=?", (number,))
            unused = "SELECT id, name FROM names WHERE id NOT IN (SELECT name FROM symbols)"
            for number, name in connection.execute(unused).fetchall():
                connection.execute(
                    "INSERT INTO name_words(name_words, rowid, words) VALUES ('delete',?,?)",
                    (number, words_of({name})),
                )
                connection.execute("DELETE FROM names WHERE id=?", (number,))
            return len(spare)


def broken(error: sqlite3.DatabaseError) -> bool:
    """Whether an error means that the file itself is of no use, and not that it is busy or the disk is full."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, _Unfit) or (
        code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    )


class _Unfit(sqlite3.DatabaseError):
    """The file is a database, but not one of this version's."""


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-32768")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version == 0 and tables == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={SCHEMA}; COMMIT")
        elif version != SCHEMA:
            raise _Unfit(f"its schema is {version}, this version's is {SCHEMA}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[sqlite3.Connection, None, None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _name_ids(connection: sqlite3.Connection, names: set[str]) -> dict[str, int]:
    """The ids of the names, given to those that have none yet."""
    ids: dict[str, int] = {}
    for name in sorted(names):
        row = connection.execute("SELECT id FROM names WHERE name=?", (name,)).fetchone()
        if row is None:
            made = connection.execute(
                "INSERT INTO names(name, lower) VALUES (?,?)", (name, "".join(parts(name)))
            ).lastrowid
            connection.execute("INSERT INTO name_words(rowid, words) VALUES (?,?)", (made, words_of({name})))
            row = (made or 0,)
        ids[name] = row[0]
    return ids


def _blob_id(connection: sqlite3.Connection, ids: dict[str, int] | None, key: str | None) -> int | None:
    if key is None or ids is not None:
        return (ids or {}).get(key or "")
    row = connection.execute("SELECT id FROM blobs WHERE key=?", (key,)).fetchone()
    return row[0] if row else None


_SYMBOLS_AT = (
    "SELECT coalesce(blobs.symbols, 0) FROM paths LEFT JOIN blobs ON blobs.id = paths.blob WHERE path = ?"
)


def _let_go(connection: sqlite3.Connection, branch: str) -> None:
    row = connection.execute("DELETE FROM branches WHERE name=? RETURNING id", (branch,)).fetchone()
    if row:
        connection.execute("DELETE FROM branch_blobs WHERE branch=?", row)


def counts(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many (files, symbols) the shown commit has."""
    files, symbols = connection.execute(
        "SELECT count(*), coalesce(sum(blobs.symbols), 0) FROM paths LEFT JOIN blobs ON blobs.id = paths.blob"
    ).fetchone()
    return files, symbols
