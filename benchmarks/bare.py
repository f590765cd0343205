"""The peer of the ingress: an ASGI handler that keeps each body it gets in SQLite and answers. Nothing is checked, parsed or decided.

It has the same HTTP server, loop, database settings and grouping of commits as CodeSpar, and a table with the same columns and index.
Run as `python -m benchmarks.bare <folder> <port>`.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

ROOT = Path(__file__).resolve().parent.parent
GROUP = 64
TABLE = (
    "CREATE TABLE inbox (id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, delivery TEXT NOT NULL, "
    "body TEXT NOT NULL, received_at TEXT NOT NULL, UNIQUE (source, delivery))"
)
INSERT = "INSERT INTO inbox (source, delivery, body, received_at) VALUES (?, ?, ?, ?)"
Row = tuple[str, str, str, str]
Job = tuple[Row, "asyncio.Future[None]"]


class Writer:
    """One thread, one connection: what waits when it comes round is one commit."""

    def __init__(self, path: Path) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._path = path
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, daemon=True).start()

    async def insert(self, row: Row) -> None:
        done: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put((row, done))
        await done

    def _run(self) -> None:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(TABLE)
            while True:
                group = [self._jobs.get()]
                while len(group) < GROUP and not self._jobs.empty():
                    group.append(self._jobs.get())
                connection.execute("BEGIN IMMEDIATE")
                for row, _ in group:
                    connection.execute(INSERT, row)
                connection.execute("COMMIT")
                self._loop.call_soon_threadsafe(_settle, [done for _, done in group])


def _settle(group: list[asyncio.Future[None]]) -> None:
    for done in group:
        if not done.done():
            done.set_result(None)


async def _serve(folder: Path, port: int) -> None:
    writer, seen = Writer(folder / "bare.sqlite"), 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal seen
        body, more = b"", True
        while more:
            part = await receive()
            body += part.get("body", b"")
            more = part.get("more_body", False)
        seen += 1
        await writer.insert(("bare", str(seen), body.decode(), str(time.time())))
        answer = b'{"accepted":true}'
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(answer)).encode()),
        ]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    config = uvicorn.Config(
        app, port=port, http="httptools", log_config=None, access_log=False, lifespan="off"
    )
    await uvicorn.Server(config).serve()


@contextmanager
def bare_handler(folder: Path, port: int) -> Generator[Path]:
    """The handler in a process of its own, ready. Gives the path of its database."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.bare", str(folder), str(port)], cwd=ROOT)
    try:
        for _ in range(600):
            with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 1)):
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"the bare handler does not answer on port {port}")
        yield folder / "bare.sqlite"
    finally:
        process.terminate()
        process.wait(10)


def rows(database: Path) -> int:
    """The rows that are in the bare handler's database."""
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM inbox").fetchone()[0])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
