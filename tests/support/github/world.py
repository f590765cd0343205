"""A repository at emulate, what is pushed to it, and forges on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codespar.forges.base import PullRequest
from codespar.forges.github.client import GithubClient
from codespar.forges.github.credentials import TokenCredentials
from codespar.forges.github.forge import GithubForge
from support.github.emulate import BOT, BOT_TOKEN, Emulate, Repository

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PATCH = """diff --git a/hello.txt b/hello.txt
--- a/hello.txt
+++ b/hello.txt
@@ -1 +1,2 @@
-hello
+hello {0}
+more of {0}
"""


def now() -> datetime:
    return datetime.now(UTC)


class World:
    """A repository at emulate, and forges on it."""

    def __init__(self, host: Emulate, github: Repository, folder: Path) -> None:
        self.github = github
        self.front = host.front
        self.front.forget()
        self._folder = folder
        self._clients: list[GithubClient] = []
        self.forge = self.new_forge()

    def new_forge(self, token: str = BOT_TOKEN, bot: str = BOT) -> GithubForge:
        """As after a restart on a new machine: nothing is remembered."""
        credentials = TokenCredentials(token, variable="CODESPAR_GITHUB_TOKEN", clock=now)
        client = GithubClient(api_url=self.front.url, credentials=credentials, clock=now, write_spacing=0.0)
        self._clients.append(client)
        folder = self._folder / f"forge{len(self._clients)}"
        folder.mkdir()
        return GithubForge(
            folder,
            self.github.full_name,
            client,
            credentials,
            git_url=self.github.git_url,
            bot=bot,
            clock=now,
        )

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    async def pushed(self, branch: str = "task/one", word: str = "Ada") -> tuple[str, str]:
        """A task's commit on its branch at GitHub. Returns (base commit, commit)."""
        _, base = await self.forge.sync()
        commit = await self.forge.import_patch(
            base_commit=base,
            patch=PATCH.format(word).encode(),
            branch=branch,
            message=f"feat: greet {word}\n",
            author="Ada",
            at=AT,
        )
        await self.forge.push(branch=branch, commit=commit)
        return base, commit

    async def opened(self, branch: str = "task/one", word: str = "Ada", **more: Any) -> PullRequest:
        base, commit = await self.pushed(branch, word)
        return await opening(branch, base, commit, **more)(self.forge)


def opening(
    branch: str, base: str, commit: str, **more: Any
) -> Callable[[GithubForge], Awaitable[PullRequest]]:
    return lambda forge: forge.open_pull(
        branch=branch,
        commit=commit,
        base_branch="main",
        base_commit=base,
        title="feat: greet",
        body="Closes #7",
        author="ada",
        at=AT,
        **more,
    )
