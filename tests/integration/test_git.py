"""The `git` program as we run it: how it ends."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from codespar import git

TICKS = 6  # of the loop, within which the end of a process reaches who waits for it


class Ending:
    """A process of `git` whose end comes when the test says."""

    returncode = 0
    stdout = stderr = None

    def __init__(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()

    async def communicate(self, _stdin: bytes | None) -> tuple[bytes, bytes]:
        return await self.ended

    async def wait(self) -> int:
        return self.returncode


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
    done, _ = await asyncio.wait({running}, timeout=30)
    assert done and running.cancelled()


async def test_git_that_takes_too_long_is_ended_with_what_it_started_and_says_so() -> None:
    begun = time.monotonic()
    with pytest.raises(git.GitError, match="no end after 0 seconds"):
        await git.run("-c", "alias.nap=!sleep 100", "nap", timeout=0.05)
    assert time.monotonic() - begun < 60


async def test_output_up_to_the_cap_is_given_and_one_byte_more_is_refused() -> None:
    given = b"x" * 300_000
    echo = ("-c", "alias.echo=!cat; echo said >&2", "echo")
    assert await git.run_bytes(*echo, stdin=given, cap=len(given)) == (0, given)
    with pytest.raises(git.OutputTooLarge, match="printed more than 299999 bytes"):
        await git.run_bytes(*echo, stdin=given, cap=len(given) - 1)


async def test_git_that_would_print_without_end_is_ended_at_the_cap() -> None:
    async with asyncio.timeout(60):
        with pytest.raises(git.OutputTooLarge):
            await git.run_bytes("-c", "alias.flood=!exec yes", "flood", cap=1000)


async def test_with_a_cap_a_failure_is_told_in_gits_words_and_input_may_be_left_unread() -> None:
    with pytest.raises(git.GitError, match="unknown-option") as failed:
        await git.run_bytes("version", "--unknown-option", stdin=b"x" * 1_000_000, cap=10)
    assert "unknown-option" in failed.value.said and "\n" not in failed.value.said
    with pytest.raises(git.GitError, match="no end after 0 seconds"):
        await git.run_bytes("-c", "alias.nap=!sleep 20", "nap", timeout=0.05, cap=10)


@pytest.mark.parametrize("already_read", [True, False], ids=["read", "being-started"])
async def test_git_that_is_cancelled_while_it_holds_a_lock_takes_the_lock_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, already_read: bool
) -> None:
    """Else a repository whose server was stopped at that moment could never be changed again."""
    bare, holding = tmp_path / "bare.git", tmp_path / "holding"
    await git.run("init", "--quiet", "--bare", str(bare))
    tree = (await git.run("mktree", cwd=bare, stdin=b"")).strip()
    commit = await git.run(
        "-c", "user.name=a", "-c", "user.email=a@example.org", "commit-tree", "-m", "x", tree, cwd=bare
    )
    hook = bare / "hooks" / "reference-transaction"  # runs while the ref is locked
    hook.write_text(f"#!/bin/sh\nexec >/dev/null 2>&1\ntouch {holding}\nexec sleep 100\n")
    hook.chmod(0o755)
    if not already_read:  # git is as far before asyncio has made its pipes, as on a busy machine
        loop, cancelled = asyncio.get_running_loop(), asyncio.Event()
        connect = loop.connect_read_pipe

        async def slowly(*arguments: Any) -> Any:
            await cancelled.wait()
            return await connect(*arguments)

        monkeypatch.setattr(loop, "connect_read_pipe", slowly)
    change = ("-c", f"core.hooksPath={bare / 'hooks'}", "update-ref", "refs/heads/main", commit)
    changing = asyncio.create_task(git.run(*change, cwd=bare))
    async with asyncio.timeout(60):
        while not holding.exists() or not list(bare.rglob("*.lock")):  # noqa: ASYNC110 - git tells nobody
            await asyncio.sleep(0.01)
        changing.cancel()
        if not already_read:
            asyncio.get_running_loop().call_later(0.1, cancelled.set)
        with pytest.raises(asyncio.CancelledError):
            await changing
    assert list(bare.rglob("*.lock")) == []


async def test_git_that_is_cancelled_twice_is_ended_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it works on while whoever started it believes that it does not."""
    loop, begun = asyncio.get_running_loop(), tmp_path / "pid"
    connect = loop.connect_read_pipe
    held = asyncio.Event()

    async def slowly(*arguments: Any) -> Any:
        await held.wait()
        return await connect(*arguments)

    monkeypatch.setattr(loop, "connect_read_pipe", slowly)
    napping = asyncio.create_task(git.run("-c", f"alias.nap=!echo $$ >{begun}; exec sleep 100", "nap"))
    async with asyncio.timeout(60):
        while not begun.exists() or not begun.read_text():  # noqa: ASYNC110 - git tells nobody
            await asyncio.sleep(0.01)
        for _ in range(2):
            napping.cancel()
            await asyncio.sleep(0.05)
        held.set()
        with pytest.raises(asyncio.CancelledError):
            await napping
        while Path("/proc", begun.read_text().strip()).exists():  # noqa: ASYNC110 - nor does the system
            await asyncio.sleep(0.01)


async def test_git_that_printed_what_nobody_read_is_cancelled_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio tells of no end while a pipe is full."""
    monkeypatch.setattr(git, "GRACE", 200.0)
    flood = ("-c", f"alias.flood=!head -c 300000 /dev/zero; touch {tmp_path}/full; sleep 300", "flood")
    process = await asyncio.create_subprocess_exec(
        "git", *flood, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    await asyncio.sleep(0.3)
    begun = time.monotonic()
    await git._end(process)  # pyright: ignore[reportPrivateUsage]
    assert process.returncode and time.monotonic() - begun < 60


@pytest.mark.parametrize("author", ["...", "'", "", "<>", "\x01", " Ada "])
@pytest.mark.parametrize("seconds", [0, 5, 99_999_999, 1_700_000_000])
async def test_a_commit_can_be_made_for_anybody_at_any_time(
    tmp_path: Path, author: str, seconds: int
) -> None:
    await git.run("init", "--quiet", "--bare", str(tmp_path))
    tree = await git.run("mktree", cwd=tmp_path, stdin=b"")
    at = datetime.fromtimestamp(seconds, UTC)
    commit = await git.commit_tree(tmp_path, tree, [], "caf\udce9\0", author, at)
    name = "Ada" if "Ada" in author else "unknown"
    assert await git.run("log", "-1", "--format=%an %at", commit, cwd=tmp_path) == f"{name} {seconds}"
