"""The code index kept in one SQLite file: incremental from git, searched with full text and symbols.

Only blobs never seen before are read and parsed, whatever the history. The repository is data written by others: it is only read, through
`git ls-tree`, `diff-tree` and `cat-file`, and nothing in it is ever run.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from codespar import git
from codespar.codeindex.base import Definition, Hit, IndexState, IndexStats
from codespar.codeindex.covering import tests_for
from codespar.codeindex.database import IndexFile, Tree, broken
from codespar.codeindex.extract import MAX_BYTES, Content, Source, extract_all
from codespar.codeindex.languages import language_of, opaque
from codespar.codeindex.lookup import look_up
from codespar.codeindex.outline import Graph, outline
from codespar.codeindex.usage import definitions_of, shown, uses_of
from codespar.codeindex.worker import Worker, WorkerLostError

log = structlog.get_logger(__name__)
T = TypeVar("T")

BATCH_BYTES = 512 * 1024
BATCH_FILES = 100
COMMIT_FILES = 300  # content is committed in such portions, so that a killed build goes on where it was
POOL_FROM = 300  # fewer new blobs than this are parsed by one process: starting more would take longer
PROCESSES = 2
PATIENCE = 30.0  # seconds for a batch
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FILES = ("100644", "100755", "100664")


class SqliteCodeIndex:
    """A `CodeIndex` in a file of its own. A broken file, or one of another version, is rebuilt, and the log says so."""

    def __init__(self, path: Path) -> None:
        self._file = IndexFile(path)
        self._updating = asyncio.Lock()
        self._last: tuple[Path, str] | None = None
        self._graph: Graph | None = None

    async def update(self, repository: Path, commit: str) -> IndexStats:
        async with self._updating:
            stats = await self._mending(lambda: self._update(repository, commit), lost=None)
            self._last = (repository, commit)
            return stats

    async def take_in(self, repository: Path, branch: str, commit: str) -> IndexStats:
        async with self._updating:
            return await self._mending(lambda: self._take_in(repository, branch, commit), self._last)

    async def forget(self, branch: str) -> None:
        async with self._updating:
            await self._mending(lambda: asyncio.to_thread(self._file.let_go, _plain(branch)), self._last)
            await asyncio.to_thread(self._file.prune)

    async def search(self, words: str, limit: int = 20) -> list[Hit]:
        return await self._reading(lambda connection: look_up(connection, words, limit))

    async def repository_map(self, instruction: str, budget_chars: int = 6000) -> str:
        def drawn(connection: sqlite3.Connection) -> str:
            self._graph = Graph.current(connection, self._graph)
            return outline(connection, self._graph, instruction, budget_chars)

        return await self._reading(drawn)

    async def state(self) -> IndexState:
        return await self._reading(shown)

    async def definitions(self, path: str) -> list[Definition]:
        return await self._reading(lambda connection: definitions_of(connection, path))

    async def callers(self, names: Sequence[str], limit: int = 20) -> list[Hit]:
        return await self._reading(lambda connection: uses_of(connection, names, limit))

    async def tests_of(self, paths: Sequence[str], names: Sequence[str], limit: int = 20) -> list[Hit]:
        return await self._reading(lambda connection: tests_for(connection, paths, names, limit))

    async def close(self) -> None:
        async with self._updating:
            self._graph = None
            await asyncio.to_thread(self._file.close)

    async def _reading(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read one consistent state in a thread. A file found broken is rebuilt from the last update's commit, and read again."""
        found = self._file.rebuilt

        def within() -> T:
            with self._file.read_lock:
                connection = self._file.reader()
                connection.execute("BEGIN")
                try:
                    return read(connection)
                finally:
                    connection.execute("ROLLBACK")

        try:
            return await asyncio.to_thread(within)
        except sqlite3.DatabaseError as error:
            if not broken(error):
                raise
            async with self._updating:  # an update must not go on in an empty file as if it were the old one
                if self._file.rebuilt == found:
                    await asyncio.to_thread(self._file.rebuild, str(error))
                    if self._last is not None:
                        await self._update(*self._last)
            return await asyncio.to_thread(within)

    async def _mending(self, change: Callable[[], Awaitable[T]], lost: tuple[Path, str] | None) -> T:
        """Make a change to the file. One found broken is rebuilt, and the change made anew; where `lost` was shown, it is shown again before."""

        async def attempt() -> T:
            if lost is not None and await asyncio.to_thread(self._file.commit) is None:
                await self._update(*lost)
            return await change()

        try:
            return await attempt()
        except sqlite3.DatabaseError as error:
            if not broken(error):
                raise
            await asyncio.to_thread(self._file.rebuild, str(error))
            return await attempt()

    async def _update(self, repository: Path, commit: str) -> IndexStats:
        started = time.perf_counter()
        commit = await _resolved(repository, commit)
        before = await asyncio.to_thread(self._file.commit)
        if before == commit:
            files, symbols = await asyncio.to_thread(self._file.counts)
            return IndexStats(files, 0, symbols, time.perf_counter() - started)
        tree = await _difference(repository, before, commit) or await _whole(repository, commit)
        parsed = await self._read_new(repository, tree)
        files, symbols = await asyncio.to_thread(self._file.show, tree, commit)
        if not tree.whole or before:
            await asyncio.to_thread(self._file.prune)
        changed = len(tree.present) + len(tree.gone)
        return IndexStats(files, changed, symbols, time.perf_counter() - started, parsed)

    async def _take_in(self, repository: Path, branch: str, commit: str) -> IndexStats:
        started = time.perf_counter()
        commit = await _resolved(repository, commit)
        before = await asyncio.to_thread(self._file.commit)
        tree = await _difference(repository, before, commit) or await _whole(repository, commit)
        parsed = await self._read_new(repository, tree)
        files, symbols = await asyncio.to_thread(self._file.keep, _plain(branch), tree)
        await asyncio.to_thread(self._file.prune)
        changed = len(tree.present) + len(tree.gone)
        return IndexStats(files, changed, symbols, time.perf_counter() - started, parsed)

    async def _read_new(self, repository: Path, tree: Tree) -> int:
        """Read the content a tree has that is not known yet. Returns how many blobs that was."""
        unseen = await asyncio.to_thread(self._file.unseen, [key for key in tree.present.values() if key])
        if unseen:
            await self._read(repository, unseen)
        return len(unseen)

    async def _read(self, repository: Path, wanted: list[str]) -> None:
        """Read, parse and keep the blobs. Parsing is always in other processes: on somebody's file a grammar may crash, or never end."""
        parsed = any(not key.endswith(" ") for key in wanted)
        workers = [Worker(PATIENCE) for _ in range((PROCESSES if len(wanted) >= POOL_FROM else 1) * parsed)]
        kept: list[Content] = []
        running: list[tuple[list[Source], asyncio.Task[list[Content]]]] = []
        given = 0
        adding: asyncio.Task[None] | None = None  # one portion is written while the next is parsed

        async def keep(until: int) -> None:
            nonlocal adding
            while len(running) > until:
                sources, future = running.pop(0)
                try:
                    kept.extend(await future)
                except WorkerLostError:
                    for source in sources:
                        kept.extend(await _alone(workers[0], source))
                if len(kept) >= COMMIT_FILES or not running:
                    if adding is not None:
                        await adding
                    adding = asyncio.create_task(asyncio.to_thread(self._file.add, list(kept)))
                    kept.clear()

        try:
            async with contextlib.aclosing(_batches(repository, wanted)) as batches:
                async for sources in batches:
                    work = (
                        workers[given % len(workers)].extract(sources)
                        if workers
                        else asyncio.to_thread(extract_all, sources)
                    )
                    running.append((sources, asyncio.create_task(work)))
                    given += 1
                    await keep(PROCESSES * 3)
            await keep(0)
            if adding is not None:
                await adding
        finally:
            if adding is not None:
                await asyncio.gather(adding, return_exceptions=True)
            for _, task in running:
                task.cancel()
            await asyncio.gather(*(task for _, task in running), return_exceptions=True)
            for worker in workers:
                await worker.close()


async def _alone(worker: Worker, source: Source) -> list[Content]:
    """What is kept of one file of a batch on which a grammar crashed, or took too long."""
    try:
        return await worker.extract([source])
    except WorkerLostError:  # Words need no grammar, and are safe to take here.
        log.warning("a parser crashed or did not end; a file is indexed without symbols", blob=source.key)
        return await asyncio.to_thread(extract_all, [source], False)


async def _resolved(repository: Path, commit: str) -> str:
    """The full name of a commit. Raises `GitError` when there is none of that name."""
    if _HASH.fullmatch(commit):
        return commit
    return await git.run("rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}", cwd=repository)


def _plain(name: str) -> str:
    """A name as it can be kept: git allows bytes in it that are no text."""
    return name.encode(errors="backslashreplace").decode()


async def _whole(repository: Path, commit: str) -> Tree:
    """The whole tree of a commit. What is no regular file is listed without content."""
    tree = Tree(whole=True)
    _, out = await git.run_bytes("ls-tree", "-r", "-z", "--full-tree", commit, cwd=repository)
    for entry in out.split(b"\0"):
        if entry:
            facts, _, path = entry.partition(b"\t")
            mode, _, name = facts.decode().split(" ")
            tree.present[_text(path)] = _key(_text(path), mode, name)
    return tree


async def _difference(repository: Path, before: str | None, commit: str) -> Tree | None:
    """What changed between two commits; None when the earlier one is not known here (any more)."""
    if before is None:
        return None
    code, out = await git.run_bytes(
        "diff-tree",
        "-r",
        "-z",
        "--raw",
        "--no-renames",
        "--no-abbrev",
        before,
        commit,
        cwd=repository,
        ok_codes=(0, 128),
    )
    if code != 0:
        return None
    tree = Tree(whole=False)
    fields = out.split(b"\0")
    for facts, path in zip(fields[::2], fields[1::2], strict=False):
        _, mode, _, name, status = facts.decode().split(" ")
        if status == "D":
            tree.gone.append(_text(path))
        else:
            tree.present[_text(path)] = _key(_text(path), mode, name)
    return tree


def _text(path: bytes) -> str:
    return path.decode("utf-8", errors="backslashreplace")


def _key(path: str, mode: str, name: str) -> str | None:
    """What a path's content is kept under; None when it is no regular file, or never text."""
    return f"{name} {language_of(path) or ''}" if mode in _FILES and not opaque(path) else None


async def _batches(repository: Path, wanted: list[str]) -> AsyncGenerator[list[Source], None]:
    """The blobs' content, read through one `git cat-file --batch`, in portions fit for a worker."""
    process = await asyncio.create_subprocess_exec(
        "git",
        "cat-file",
        "--batch",
        "--buffer",
        cwd=repository,
        env=git.environment({"GIT_NO_LAZY_FETCH": "1"}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=1 << 20,
    )
    assert process.stdin is not None and process.stdout is not None
    asking = asyncio.create_task(_ask(process.stdin, wanted))
    batch: list[Source] = []
    size = 0
    try:
        for key in wanted:
            name, _, language = key.partition(" ")
            known, data = await _one(process.stdout, name)
            if not known:
                continue
            batch.append(Source(key, language or None, data))
            size += len(data or b"")
            if size >= BATCH_BYTES or len(batch) >= BATCH_FILES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        asking.cancel()
        await asyncio.gather(asking, git.drained(process), return_exceptions=True)


async def _ask(stdin: asyncio.StreamWriter, keys: list[str]) -> None:
    for start in range(0, len(keys), 1000):
        stdin.write("".join(key.partition(" ")[0] + "\n" for key in keys[start : start + 1000]).encode())
        await stdin.drain()
    stdin.close()


async def _one(stdout: asyncio.StreamReader, name: str) -> tuple[bool, bytes | None]:
    """The next blob: whether the repository has it, and its content unless it is too big to be read."""
    header = (await stdout.readline()).decode().split()
    if len(header) == 2 and header[1] == "missing":
        return False, None
    if len(header) != 3:
        raise git.GitError(
            ("cat-file", "--batch"), -1, f"it ended, or answered {header!r}, where the blob {name} was due"
        )
    size = int(header[2])
    held = bytearray()
    left = size + 1
    while left:
        chunk = await stdout.read(min(left, 1 << 20))
        if not chunk:
            raise git.GitError(("cat-file", "--batch"), -1, f"it ended within the blob {name}")
        left -= len(chunk)
        if size <= MAX_BYTES:
            held += chunk
    return True, bytes(held[:-1]) if size <= MAX_BYTES else None
