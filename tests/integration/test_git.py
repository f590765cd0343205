"""The `git` program as we run it: how it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from codespar import git

TICKS = 6  # of the loop, within which the end of a process reaches who waits for it


class Ending:
    """A process of `git` whose end comes when the test says."""

    returncode = 0

    def __init__(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()

    async def communicate(self, _stdin: bytes | None) -> tuple[bytes, bytes]:
        return await self.ended


@pytest.mark.parametrize("ticks", range(TICKS))
async def test_a_cancellation_that_comes_as_git_ends_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, ticks: int
) -> None:
    """Else what runs git again and again never stops, and the server with it."""
    started: asyncio.Queue[Ending] = asyncio.Queue()

    async def start(*_: Any, **__: Any) -> Ending:
        process = Ending()
        started.put_nowait(process)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)

    async def again_and_again() -> None:
        while True:
            await git.run("version")

    running = asyncio.create_task(again_and_again())
    process = await started.get()
    await asyncio.sleep(0)
    process.ended.set_result((b"git version", b""))
    for _ in range(ticks):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=2)
    assert done and running.cancelled()


async def test_git_that_takes_too_long_is_ended_and_says_so() -> None:
    with pytest.raises(git.GitError, match="no end after 0 seconds"):
        await git.run("-c", "alias.nap=!sleep 2", "nap", timeout=0.05)
