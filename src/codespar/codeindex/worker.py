"""The processes that parse: started for a large build, each answering batches over its pipes until they close.

They are our own and not a `ProcessPoolExecutor`, whose processes import the caller's main module again: the whole of CodeSpar, which takes
longer than parsing a thousand files. They see no environment of ours, for grammars are run on files written by others. What such a process
itself does stands in `parsing`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys

from codespar.codeindex.extract import Content, Source
from codespar.codeindex.parsing import HEAD


class WorkerLostError(Exception):
    """A parsing process ended within a batch."""


class Worker:
    """One parsing process, that has `patience` seconds for a batch. Batches given while it is busy wait."""

    def __init__(self, patience: float = 30.0) -> None:
        self._patience = patience
        self._process: asyncio.subprocess.Process | None = None
        self._busy = asyncio.Lock()

    async def extract(self, sources: list[Source]) -> list[Content]:
        """`extract_all` in the process. Raises `WorkerLostError` when it dies of it or takes too long; the next batch gets a new process."""
        async with self._busy:
            process = self._process = self._process or await _start()
            assert process.stdin is not None and process.stdout is not None
            try:
                data = pickle.dumps(sources)
                process.stdin.write(len(data).to_bytes(HEAD, "big") + data)
                async with asyncio.timeout(self._patience):
                    await process.stdin.drain()
                    length = int.from_bytes(await process.stdout.readexactly(HEAD), "big")
                    answer = await process.stdout.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
                await self.close()
                raise WorkerLostError("a parsing process ended within a batch, or not at all") from error
            return await asyncio.to_thread(pickle.loads, answer)

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # `git.drained` says why; what this process imports has to be little
            while process.stdout is not None and await process.stdout.read(1 << 20):
                pass
            await process.wait()


async def _start() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "codespar.codeindex.parsing",
        env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=4 << 20,
    )
