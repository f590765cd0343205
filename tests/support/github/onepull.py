"""One pull request at a strict GitHub of our own, and its reviews, for what emulate does not play.

What it refuses, and in which words, is what GitHub documents and what people report of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codespar.forges.github.client import GithubClient
from codespar.forges.github.credentials import TokenCredentials
from codespar.forges.github.forge import GithubForge
from codespar.forges.github.marks import LONGEST
from support.githttp import GitServer
from support.github.api import Asked, GithubApi, Says
from support.repositories import git, repository

BOT = {"login": "codespar[bot]", "id": 7, "type": "Bot"}
EVE = {"login": "eve", "id": 66, "type": "User"}
PULL = "/repos/acme/gateway/pulls/1"
LINES = 40


class OnePull(GithubApi):
    """One pull request, whose diff adds `src/new.py` of 40 lines, and its reviews under GitHub's rules."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        bare = repository(folder / "acme" / "gateway.git", {"src/app.py": "x = 1\n"})
        self.base = git("rev-parse", "main", cwd=bare)
        tree = folder / "work"
        git("clone", "-q", str(bare), str(tree), cwd=folder)
        (tree / "src" / "new.py").write_text("".join(f"line_{i} = {i}\n" for i in range(1, LINES + 1)))
        git("add", "-A", cwd=tree)
        git("commit", "-q", "-m", "feat: new", cwd=tree)
        git("push", "-q", "origin", "HEAD:refs/heads/task/one", "HEAD:refs/pull/1/head", cwd=tree)
        self.head = git("rev-parse", "HEAD", cwd=tree)
        self.unplaced: set[int] = set()  # lines that GitHub cannot hold though the diff has them
        self.author = EVE
        self.commits = {self.head}
        self.reviews: dict[int, dict[str, Any]] = {}
        self.comments: dict[int, list[dict[str, Any]]] = {}
        self.drafts_made = 0
        self.pull: dict[str, Any] = {
            "number": 1,
            "node_id": "PR_1",
            "state": "open",
            "title": "feat: new",
            "user": self.author,
            "head": {"ref": "task/one", "sha": self.head, "repo": {"id": 1}},
            "base": {"ref": "main", "sha": self.base, "repo": {"id": 1}},
            "mergeable_state": "clean",
        }
        self.on("GET", PULL, lambda asked: Says(self.pull))
        self.on("GET", f"{PULL}/reviews", lambda asked: Says(list(self.reviews.values())))
        self.on("POST", f"{PULL}/reviews", self._review)

    def _review(self, asked: Asked) -> Says:
        body = asked.body
        event = body.get("event")
        if any(one["state"] == "PENDING" for one in self.reviews.values()):
            return _refused("User can only have one pending review per pull request")
        if self.author == BOT and event in ("APPROVE", "REQUEST_CHANGES"):
            words = "approve" if event == "APPROVE" else "request changes on"
            return _refused(f"Review Can not {words} your own pull request")
        if body["commit_id"] not in self.commits:
            return _refused("The commit is not part of the pull request")
        if len(body["body"]) > LONGEST:
            return _refused("body is too long (maximum is 65536 characters)")
        comments = body.get("comments", [])
        for one in comments:
            if one["path"] != "src/new.py":
                return _refused("Path could not be resolved")
            if one["side"] != "RIGHT" or not 1 <= one["line"] <= LINES or one["line"] in self.unplaced:
                return _refused("Line could not be resolved")
            if one.get("start_line", 0) >= one["line"]:
                return _refused("start_line must precede the end line")
        id = 100 + len(self.requests)
        states = {"APPROVE": "APPROVED", "REQUEST_CHANGES": "CHANGES_REQUESTED", "COMMENT": "COMMENTED"}
        self.drafts_made += event is None
        self.reviews[id] = {
            "id": id,
            "state": states.get(event, "PENDING"),
            "body": body["body"],
            "user": BOT,
            "html_url": f"https://github.com/acme/gateway/pull/1#pullrequestreview-{id}",
        }
        self.comments[id] = [one | {"id": id * 1000 + n, "user": BOT} for n, one in enumerate(comments)]
        self.on("DELETE", f"{PULL}/reviews/{id}", lambda asked: self._take_back(id))
        self.lists(f"{PULL}/reviews/{id}/comments", list(reversed(self.comments[id])))
        return Says(self.reviews[id])

    def _take_back(self, id: int) -> Says:
        if self.reviews[id]["state"] != "PENDING":
            return _refused("Can not delete a non-pending pull request review")
        return Says(self.reviews.pop(id))

    def lines_of(self, method: str) -> list[str]:
        return [f"{one.method} {one.path}" for one in self.requests if one.method == method]


def _refused(why: str, status: int = 422) -> Says:
    return Says({"message": "Unprocessable Entity", "errors": [why]}, status)


@asynccontextmanager
async def one_pull(folder: Path) -> AsyncIterator[tuple[OnePull, GithubForge]]:
    """That GitHub, and a forge on it, which acts as the bot."""

    def clock() -> datetime:
        return datetime.now(UTC)

    for name in ("host", "forge"):
        (folder / name).mkdir()
    github = OnePull(folder / "host")
    credentials = TokenCredentials(github.token, variable="CODESPAR_GITHUB_TOKEN", clock=clock)
    async with github.running():
        client = GithubClient(api_url=github.url, credentials=credentials, clock=clock, write_spacing=0.0)
        with GitServer(folder / "host", "x-access-token", github.token) as server:
            yield (
                github,
                GithubForge(
                    folder / "forge",
                    "acme/gateway",
                    client,
                    credentials,
                    git_url=f"http://{server.address}/acme/gateway.git",
                    bot=BOT["login"],
                    clock=clock,
                ),
            )
        await client.close()
