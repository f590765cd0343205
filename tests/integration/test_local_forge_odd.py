"""The embedded forge where repositories, names and people are not as one thinks of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codespar.domain.builds import BuildJob, Conclusion, Run
from codespar.forges.base import MergeMethod, NotMergeable, PatchRefused, PullRequest, PullState
from codespar.forges.local import LocalForge

AT = datetime(2026, 1, 2, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class World:
    """A remote, a developer's clone of it, and the forge."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work, self.remote = folder, folder / "work", folder / "remote.git"
        self.work.mkdir()
        self.git("init", "-q", "-b", "main")
        self.commit("a.txt", "first")
        subprocess.run(["git", "clone", "-q", "--bare", str(self.work), str(self.remote)], check=True)
        self.git("remote", "add", "origin", str(self.remote))
        self.forge = LocalForge(folder / "forge", str(self.remote))

    def git(self, *arguments: str, cwd: Path | None = None, stdin: bytes | None = None) -> str:
        who = ("-c", "user.name=Ev\u2028e", "-c", "user.email=t@t")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=cwd or self.work, input=stdin, check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    def commit(self, name: str, message: str) -> str:
        (self.work / name).write_text(message)
        self.git("add", "-A")
        self.git("commit", "-qF", "-", stdin=message.encode())
        return self.git("rev-parse", "HEAD")

    async def pull(self, branch: str, name: str) -> PullRequest:
        """A pull request that adds a file."""
        default, base = await self.forge.sync()
        self.git("checkout", "-qB", branch, base)
        head = self.commit(name, f"add {name}")
        self.git("push", "-qf", "origin", branch)
        await self.forge.fetch_branch(branch)
        return await self.forge.open_pull(
            branch=branch,
            commit=head,
            base_branch=default,
            base_commit=base,
            title=f"add {name}",
            body="",
            author="Ada",
            at=AT,
        )

    async def merge(self, pull: PullRequest) -> PullRequest:
        return await self.forge.merge(
            pull.number, method=MergeMethod.SQUASH, head_commit=pull.head_commit, author="Ada", at=AT
        )

    def files(self) -> list[str]:
        return self.git("ls-tree", "--name-only", "HEAD", cwd=self.remote).split("\n")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("told", ["#12", "#1"])
async def test_a_merge_that_an_older_history_tells_of_is_not_taken_for_this_one(
    world: World, told: str
) -> None:
    pull = await world.pull("change", "c.txt")
    message = f"x\n\nMerged-pull-request: {told}\nMerged-by: Ada"
    other = world.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", message, cwd=world.remote)
    world.git("update-ref", "refs/heads/main", other, cwd=world.remote)
    merged = await world.merge(pull)
    assert merged.state is PullState.MERGED and "c.txt" in world.files()


async def test_what_was_pushed_to_a_pull_request_since_it_was_shown_voids_its_merge(world: World) -> None:
    pull = await world.pull("change", "c.txt")
    newer = world.commit("d.txt", "one more")
    world.git("push", "-q", "origin", "change")
    with pytest.raises(NotMergeable, match="as was shown"):
        await world.merge(pull)
    assert (await world.forge.get_pull(pull.number)).head_commit == newer and "c.txt" not in world.files()


async def test_two_pull_requests_merged_at_the_same_time_are_both_merged(world: World) -> None:
    pulls = [await world.pull("one", "1.txt"), await world.pull("two", "2.txt")]
    merged = await asyncio.gather(*(world.merge(pull) for pull in pulls))
    assert [pull.state for pull in merged] == [PullState.MERGED] * 2
    assert {"1.txt", "2.txt"} <= set(world.files())


async def test_a_branch_that_is_moved_to_and_fro_is_followed_and_told_each_time(world: World) -> None:
    pull = await world.pull("change", "c.txt")
    first, second = pull.head_commit, world.commit("d.txt", "one more")
    cursor = (await world.forge.poll({})).cursor
    delivered: list[str] = []
    for head in (second, first, second):
        world.git("push", "-qf", "origin", f"{head}:change")
        polled = await world.forge.poll(cursor)
        assert [news.delivery for news in (await world.forge.poll(cursor)).news] == [
            news.delivery for news in polled.news
        ]
        cursor = polled.cursor
        delivered += [news.delivery for news in polled.news]
        assert (await world.forge.get_pull(pull.number)).head_commit == head
    assert len(set(delivered)) == len(delivered) == 6


async def test_a_pull_request_that_did_not_move_costs_one_question_to_its_remote_and_no_fetch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = await world.pull("feature", "f.txt")
    asked, found = world.folder / "asked", shutil.which("git")
    counting = world.folder / "bin" / "git"
    counting.parent.mkdir()
    counting.write_text(f'#!/bin/sh\necho "$1" >> "{asked}"\nexec "{found}" "$@"\n')
    counting.chmod(0o755)
    monkeypatch.setenv("PATH", f"{counting.parent}:{os.environ['PATH']}")
    assert await world.forge.fetch_pull(1) == pull
    assert asked.read_text().split() == ["cat-file", "ls-remote", "rev-parse"]
    head = world.commit("f.txt", "more")
    world.git("push", "-q", "origin", "feature")
    assert (await world.forge.fetch_pull(1)).head_commit == head
    asked.unlink()
    world.git("checkout", "-q", "main")
    tip = world.commit("g.txt", "the base goes on")
    world.git("push", "-q", "origin", "main")
    assert (await world.forge.fetch_pull(1)).head_commit == head
    assert asked.read_text().split().count("fetch") == 1 and await world.forge.knows(tip)


async def test_branches_of_any_name_are_seen(world: World) -> None:
    cursor = (await world.forge.poll({})).cursor
    odd = ["a\u00a0b", "c\u2028d"]
    for name in odd:
        world.git("update-ref", f"refs/heads/{name}", "main", cwd=world.remote)
    subprocess.run(["git", "update-ref", b"refs/heads/caf\xe9", "main"], cwd=world.remote, check=True)
    polled = await world.forge.poll(cursor)
    assert {news.what.branch for news in polled.news} == {*odd, "caf\ufffd"}  # pyright: ignore
    assert polled.model_dump_json()
    assert all([await world.forge.fetch_branch(name) for name in odd])
    assert await world.forge.fetch_branch("caf\ufffd") is None


async def test_commits_are_listed_whatever_stands_in_their_messages(world: World) -> None:
    world.commit("a.txt", "ti\u2028tle\n\nbody \x1e\x1c of it")
    last = world.commit('q"u\to.txt', "last")
    world.git("push", "-q", "origin", "HEAD:main")
    await world.forge.sync()
    assert [line.title for line in await world.forge.log(None, last, 9)] == ["last", "ti\u2028tle", "first"]
    past = await world.forge.history(last, ["a.txt", 'q"u\to.txt'], LONG_AGO, 9)
    assert [(one.title, one.paths) for one in past] == [
        ("last", ('q"u\to.txt',)),
        ("ti\u2028tle", ("a.txt",)),
        ("first", ("a.txt",)),
    ]


async def test_paths_that_conflict_are_told_as_they_are(world: World) -> None:
    name = 'q"u\u2028o.txt'
    one, two = await world.pull("one", name), await world.pull("two", "b.txt")
    world.commit(name, "otherwise")
    world.git("push", "-q", "origin", "two")
    await world.forge.fetch_pull(two.number)
    assert [found.paths for found in await world.forge.conflicts(one.number)] == [(name,)]


@pytest.mark.parametrize("path", ["", ".", "folder/", "../x", ":(x)", ":/a.txt", "a\0b", "/a.txt"])
async def test_a_path_that_names_no_file_has_no_content(world: World, path: str) -> None:
    _, commit = await world.forge.sync()
    assert await world.forge.read_file(commit, path) is None
    assert await world.forge.read_file(commit, "a.txt") == b"first"


async def test_a_data_folder_that_was_moved_is_worked_on_where_it_is_now(world: World) -> None:
    pull = await world.pull("change", "c.txt")
    shutil.move(world.folder / "forge", world.folder / "moved")
    forge = LocalForge(world.folder / "moved", str(world.remote))
    await forge.sync()
    assert "c.txt" in await forge.diff(pull.base_commit, pull.head_commit)


async def test_a_default_branch_may_be_renamed_to_a_name_below_its_own(world: World) -> None:
    await world.forge.sync()
    for old, new in (("main", "passing"), ("passing", "main/v2")):
        world.git("branch", "-m", old, new, cwd=world.remote)
    branch, _ = await world.forge.sync()
    told = world.git("for-each-ref", "--format=%(refname)", cwd=world.forge.base_repository)
    assert (branch, told) == ("main/v2", "refs/heads/main/v2")


async def test_a_commit_is_commented_on_once_under_each_key(world: World) -> None:
    _, commit = await world.forge.sync()
    first = await world.forge.comment_commit(commit, "broken", "k")
    assert first == await world.forge.comment_commit(commit, "broken again", "k")


@pytest.mark.parametrize(
    "links",
    [{"d": ".", "e": "d/../etc"}, {"a/b": "..", "e": "a/b/../x"}],
)
async def test_no_link_leads_out_of_the_repository_by_way_of_another(
    world: World, links: dict[str, str]
) -> None:
    _, base = await world.forge.sync()
    for name, target in links.items():
        (world.work / name).parent.mkdir(exist_ok=True)
        os.symlink(target, world.work / name)
    world.git("add", "-A")
    command = ["git", "diff", "--cached", "--binary", "--full-index", "HEAD"]
    patch = subprocess.run(command, cwd=world.work, check=True, capture_output=True).stdout
    with pytest.raises(PatchRefused, match="out of the repository"):
        await world.forge.import_patch(
            base_commit=base, patch=patch, branch="x", message="x", author="Ada", at=AT
        )


async def test_logs_of_jobs_with_names_in_other_scripts_are_kept_apart(world: World) -> None:
    await world.forge.sync()
    run = Run(
        id="7",
        attempt=1,
        workflow="ci",
        branch="main",
        commit="a" * 40,
        conclusion=Conclusion.FAILURE,
        started_at=AT,
        updated_at=AT,
    )
    logs = {"构建": b"build", "测试": b"test"}
    jobs = [BuildJob(id=id, name=id, conclusion=Conclusion.FAILURE) for id in logs]
    await world.forge.report_run(run, jobs, logs)
    for id, text in logs.items():
        assert [piece async for piece in world.forge.job_log("7", id)] == [text]
