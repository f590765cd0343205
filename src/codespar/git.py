"""The `git` program, run safely: the one way anything of ours calls git.

Repositories are data written by others. Hooks, filters, external diff and merge drivers, credential helpers,
submodule recursion, the user's own configuration and prompts are all off; arguments are never put through a shell.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from codespar.domain.base import CodesparError

SAFE_CONFIG = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.symlinks", "true"),
    ("core.quotePath", "false"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("diff.external", ""),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("protocol.ext.allow", "never"),
    ("safe.directory", "*"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("commit.gpgSign", "false"),
    ("advice.detachedHead", "false"),
    ("init.defaultBranch", "main"),
    ("merge.conflictStyle", "merge"),
    ("user.name", "CodeSpar"),
    ("user.email", "codespar@localhost"),
)
GRACE = (
    10.0  # seconds for a git that is told to end: on a busy machine one that is in no hurry hears of it late
)


def without_credentials(text: str) -> str:
    """The text with `user:password@` taken out of every URL in it, also where the password has an `@` of its own."""
    return re.sub(r"://[^/\s'\"]*@", "://", text)


class GitError(CodesparError):
    """git refused. `stderr` is what it said. Neither it nor the message shows credentials of a URL."""

    def __init__(self, arguments: tuple[str, ...], code: int, stderr: str) -> None:
        self.code = code
        self.stderr = without_credentials(stderr.strip())
        shown = without_credentials(" ".join(arguments[:6]))
        super().__init__(f"git {shown} ended with {code}: {self.stderr[-2000:]}")

    @property
    def said(self) -> str:
        """git's own words on one line, for people; of very many the last."""
        return " ".join(self.stderr.split())[-600:]


class OutputTooLarge(GitError):
    """git printed more than was to be read of it, and was ended."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment git runs in: ours alone, whatever the caller's configuration says."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK")
        if name in os.environ
    }
    made = {
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_CONFIG_COUNT": str(len(SAFE_CONFIG)),
    }
    for index, (key, value) in enumerate(SAFE_CONFIG):
        made[f"GIT_CONFIG_KEY_{index}"] = key
        made[f"GIT_CONFIG_VALUE_{index}"] = value
    return kept | made | dict(extra or {})


async def run_bytes(
    *arguments: str,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    extra_env: Mapping[str, str] | None = None,
    ok_codes: tuple[int, ...] = (0,),
    timeout: float = 600,
    cap: int | None = None,
    idle: bool = False,
) -> tuple[int, bytes]:
    """Run git and return (exit code, stdout); `idle` has it use what processor time nobody else wants. Raises `GitError` for a code outside
    `ok_codes` and after `timeout` seconds, and `OutputTooLarge` beyond `cap` bytes of output, of which no more are held than that."""
    process = await _start(
        asyncio.create_subprocess_exec(
            *(("nice", "-n", "19") if idle else ()),
            "git",
            *arguments,
            cwd=cwd,
            env=environment(extra_env),
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # what git starts can be ended with it, and finds no terminal to ask at
        )
    )
    try:
        async with asyncio.timeout(timeout):
            if cap is None:
                out, err = await process.communicate(stdin)
            else:
                out, err = await _communicate(process, stdin, cap)
    except BaseException as error:
        await asyncio.shield(asyncio.ensure_future(_end(process)))  # to its end, whoever cancels us once more
        if isinstance(error, TimeoutError):
            raise GitError(arguments, -1, f"no end after {timeout:.0f} seconds") from error
        if isinstance(error, _Beyond):
            raise OutputTooLarge(arguments, -1, f"it printed more than {cap} bytes") from error
        raise
    code = process.returncode or 0
    if code not in ok_codes:
        raise GitError(arguments, code, err.decode(errors="replace"))
    return code, out


async def _start(starting: Coroutine[None, None, asyncio.subprocess.Process]) -> asyncio.subprocess.Process:
    """The process, started. A cancellation meanwhile ends it by our own hand: git runs already before asyncio has
    its pipes, and asyncio, cancelled there, would kill it with its lock files held and what it started alive."""
    begun = asyncio.ensure_future(starting)
    try:
        return await asyncio.shield(begun)
    except asyncio.CancelledError:

        async def end_begun() -> None:
            await asyncio.wait([begun])
            if not begun.cancelled() and begun.exception() is None:
                await _end(begun.result())

        await asyncio.shield(asyncio.ensure_future(end_begun()))  # to its end, whoever cancels us once more
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    """End git if it runs, so that it takes its lock files with it: killed, it leaves them, and the repository takes no more changes.

    With it ends what it started: a helper that lived on would hold the pipes, and us, open."""
    for what in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, what)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                return await drained(process)


async def drained(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of a process that was told to end, and let go of what it still printed. Nobody else may read its pipes.

    Waiting alone is not enough: until Python 3.13 asyncio tells of no end while a pipe is full of what nobody reads."""
    for pipe in (process.stdout, process.stderr):
        while pipe is not None and await pipe.read(1 << 20):
            pass
    await process.wait()


class _Beyond(Exception):
    """There is more output than was to be read."""


async def _communicate(
    process: asyncio.subprocess.Process, stdin: bytes | None, cap: int
) -> tuple[bytes, bytes]:
    """`process.communicate` that raises `_Beyond` as soon as stdout has more than `cap` bytes."""
    assert process.stdout is not None and process.stderr is not None
    out = bytearray()

    async def read(stdout: asyncio.StreamReader) -> None:
        while piece := await stdout.read(1 << 16):
            out.extend(piece)
            if len(out) > cap:
                raise _Beyond

    async def write() -> None:
        if process.stdin is None or stdin is None:
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may end without reading all
            process.stdin.write(stdin)
            await process.stdin.drain()
        process.stdin.close()

    at_once = [asyncio.ensure_future(one) for one in (read(process.stdout), write(), process.stderr.read())]
    try:
        *_, err = await asyncio.gather(*at_once)
    finally:
        for one in at_once:
            one.cancel()
        await asyncio.wait(at_once)  # whoever ends the process reads its pipes out
    await process.wait()
    return bytes(out), err or b""


async def run(
    *arguments: str,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    extra_env: Mapping[str, str] | None = None,
    timeout: float = 600,
    idle: bool = False,
) -> str:
    """Run git and return its output as text without the last newline; bytes that are no UTF-8 become lone surrogates.

    Raises `GitError` when it fails, and after `timeout` seconds."""
    _, out = await run_bytes(
        *arguments, cwd=cwd, stdin=stdin, extra_env=extra_env, timeout=timeout, idle=idle
    )
    return out.decode(errors="surrogateescape").rstrip("\n")


async def commit_tree(
    repository: Path, tree: str, parents: Sequence[str], message: str, author: str, at: datetime
) -> str:
    """Make a commit of a tree and return its id. The same arguments give the same id."""
    date = f"@{max(0, int(at.timestamp()))} +0000"  # without the sign, git takes a small number for something else
    name = re.sub(r"[<>\n\0]", "", author)
    if all(character <= " " or character in ".,:;\"\\'" for character in name):  # what git makes nothing of
        name = "unknown"
    env = {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": "codespar@localhost",
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_DATE": date,
    }
    given = [argument for parent in parents for argument in ("-p", parent)]
    return await run(
        "commit-tree",
        tree,
        *given,
        cwd=repository,
        stdin=message.replace("\0", "").encode(errors="surrogateescape"),
        extra_env=env,
    )
