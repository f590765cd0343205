"""The `git` program, run safely: the one way anything of ours calls git.

Repositories are data written by others. Hooks, filters, external diff and merge drivers, credential helpers,
submodule recursion, the user's own configuration and prompts are all off; arguments are never put through a shell.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
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
) -> tuple[int, bytes]:
    """Run git and return (exit code, stdout). Raises `GitError` for a code outside `ok_codes`, and on timeout (seconds)."""
    process = await asyncio.create_subprocess_exec(
        "git",
        *arguments,
        cwd=cwd,
        env=environment(extra_env),
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin)
    except BaseException as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, TimeoutError):
            raise GitError(arguments, -1, f"no end after {timeout:.0f} seconds") from error
        raise
    code = process.returncode or 0
    if code not in ok_codes:
        raise GitError(arguments, code, err.decode(errors="replace"))
    return code, out


async def run(
    *arguments: str,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    extra_env: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> str:
    """Run git and return its output as text without the last newline. Raises `GitError` when it fails."""
    _, out = await run_bytes(*arguments, cwd=cwd, stdin=stdin, extra_env=extra_env, timeout=timeout)
    return out.decode(errors="surrogateescape").rstrip("\n")


async def commit_tree(
    repository: Path, tree: str, parents: Sequence[str], message: str, author: str, at: datetime
) -> str:
    """Make a commit of a tree and return its id. The same arguments give the same id."""
    date = f"{int(at.timestamp())} +0000"
    name = re.sub(r"[<>\n\0]", "", author).strip() or "unknown"
    env = {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": "codespar@localhost",
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_DATE": date,
    }
    given = [argument for parent in parents for argument in ("-p", parent)]
    return await run("commit-tree", tree, *given, cwd=repository, stdin=message.encode(), extra_env=env)
