"""The code index follows pushes: taken together, other branches read ahead, and no error that ends it."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from codespar.agents.following import Follower, pushed
from codespar.codeindex.base import IndexStats
from codespar.codeindex.index import SqliteCodeIndex
from codespar.domain.happenings import NO_COMMIT, Pushed
from codespar.forges.local import LocalForge
from codespar.store.base import Unit
from support.agency import Agency
from support.repositories import commit, git, repository


class CountingIndex(SqliteCodeIndex):
    """The real index, which says how often it was asked for what."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self.asked: list[str] = []

    async def update(self, repository: Path, commit: str) -> IndexStats:
        self.asked.append("update")
        return await super().update(repository, commit)

    async def take_in(self, repository: Path, branch: str, commit: str) -> IndexStats:
        self.asked.append(f"take in {branch}")
        return await super().take_in(repository, branch, commit)

    async def forget(self, branch: str) -> None:
        self.asked.append(f"forget {branch}")
        await super().forget(branch)


class Followed:
    def __init__(self, folder: Path) -> None:
        self.remote = repository(folder / "shop.git")
        self.forge = LocalForge(folder / "forge", str(self.remote))
        self.index = CountingIndex(folder / "index.sqlite")
        self.follower = Follower(lambda project: self.forge, lambda project: self.index)

    async def until(self, wanted: Callable[[], Any], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < deadline, self.index.asked
            await asyncio.sleep(0.02)

    async def shows(self, head: str) -> None:
        deadline = time.monotonic() + 60
        while (await self.index.state()).commit != head:
            assert time.monotonic() < deadline, self.index.asked
            await asyncio.sleep(0.02)


@pytest.fixture
async def followed(tmp_path: Path) -> AsyncIterator[Followed]:
    made = Followed(tmp_path)
    yield made
    await made.follower.stop()
    await made.index.close()


def is_open(path: Path) -> bool:
    return str(path) in {os.path.realpath(handle) for handle in Path("/proc/self/fd").iterdir()}


async def test_what_was_followed_is_kept_open_only_once_somebody_asks(followed: Followed) -> None:
    head = commit(followed.remote, {"a.py": "def found(): ...\n"})
    followed.follower.follow("shop")
    await followed.until(lambda: followed.index.path.exists() and not is_open(followed.index.path))
    assert followed.index.asked == ["update"]
    assert (await followed.index.state()).commit == head
    assert is_open(followed.index.path)


async def test_a_hundred_pushes_are_one_or_two_updates(followed: Followed) -> None:
    head = commit(followed.remote, {"a.py": "def found(): ...\n"})
    for number in range(100):
        followed.follower.follow("shop")
        if number == 50:
            await asyncio.sleep(0)  # one is under way
    await followed.shows(head)
    await asyncio.sleep(0.1)
    assert 1 <= followed.index.asked.count("update") <= 2


async def test_what_is_pushed_while_an_update_runs_is_not_missed(followed: Followed) -> None:
    followed.follower.follow("shop")
    await followed.until(lambda: followed.index.asked)
    head = commit(followed.remote, {"a.py": "a = 1\n"})
    followed.follower.follow("shop")
    await followed.shows(head)


async def test_other_branches_are_read_ahead_after_the_default_one_and_forgotten_with_their_end(
    followed: Followed,
) -> None:
    git("branch", "feature", "main", cwd=followed.remote)
    followed.follower.follow("shop", "feature")
    followed.follower.follow("shop")
    await followed.until(lambda: "take in feature" in followed.index.asked)
    assert followed.index.asked == ["update", "take in feature"]
    git("branch", "-D", "feature", cwd=followed.remote)
    followed.follower.follow("shop", "feature", gone=True)
    await followed.until(lambda: followed.index.asked[-1] == "forget feature")


async def test_a_branch_that_is_gone_before_it_was_read_is_forgotten(followed: Followed) -> None:
    followed.follower.follow("shop", "never-there")
    await followed.until(lambda: "forget never-there" in followed.index.asked)


async def test_a_branch_that_came_back_is_read(followed: Followed) -> None:
    git("branch", "feature", "main", cwd=followed.remote)
    followed.follower.follow("shop", "feature", gone=True)
    followed.follower.follow("shop", "feature")
    await followed.until(lambda: followed.index.asked == ["take in feature"])


async def test_after_an_unreachable_repository_the_next_push_works(
    followed: Followed, tmp_path: Path
) -> None:
    head = commit(followed.remote, {"a.py": "a = 1\n"})
    away = tmp_path / "away.git"
    followed.remote.rename(away)
    followed.follower.follow("shop")
    await asyncio.sleep(0.3)
    assert (await followed.index.state()).commit is None
    away.rename(followed.remote)
    followed.follower.follow("shop")
    await followed.shows(head)


async def test_after_an_index_that_cannot_be_written_the_next_push_works(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    head = commit(followed.remote, {"a.py": "a = 1\n"})
    (tmp_path / "index.sqlite").mkdir()  # no database can be there: an error that is none of ours
    git("branch", "feature", "main", cwd=followed.remote)
    followed.follower.follow("shop")
    followed.follower.follow("shop", "feature")
    await followed.until(lambda: len(followed.index.asked) == 2)  # the other branch was tried all the same
    await asyncio.sleep(0.2)
    shutil.rmtree(tmp_path / "index.sqlite")
    followed.follower.follow("shop")
    await followed.shows(head)
    await followed.follower.stop()
    await followed.index.close()


async def test_nothing_is_followed_after_the_stop(followed: Followed) -> None:
    followed.follower.follow("shop")
    followed.follower.follow("shop", "feature")
    await followed.follower.stop()
    before = list(followed.index.asked)
    followed.follower.follow("shop")
    await asyncio.sleep(0.3)
    assert followed.index.asked == before


async def test_a_push_is_recorded_and_followed_once_it_is_committed(tmp_path: Path) -> None:
    async with Agency(tmp_path / "data", repository(tmp_path / "shop.git")) as agency:
        heard: list[tuple[str, bool]] = []
        agency.listeners.append(
            lambda notice: (
                heard.append((notice.body["branch"], notice.body["gone"])) if notice.kind == "push" else None
            )
        )

        def write(unit: Unit) -> None:
            project = unit.project("shop")
            assert project is not None
            for branch, after, default in (
                ("main", "b" * 40, True),
                ("x", "c" * 40, False),
                ("x", NO_COMMIT, False),
            ):
                push = Pushed(branch=branch, before="a" * 40, after=after, default=default, author="ada")
                pushed(unit, project, push, agency.clock())

        await agency.store.write(write)
        assert heard == [("", False), ("x", False), ("x", True)]
        [entry] = await agency.audit("pushed")
        assert (entry["actor"], entry["subject"]) == ("ada", "main")
