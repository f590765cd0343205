"""Repositories that live for months are packed: real git, nothing lost, nobody disturbed, killed anywhere and gone on with."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codespar import git as ours
from codespar.app import packing
from codespar.app.packing import look, pack_repositories
from codespar.domain.builds import Conclusion, Run
from codespar.forges.local import LocalForge

AT = datetime(2026, 1, 2, tzinfo=UTC)


def git(*arguments: str, cwd: Path, stdin: str | None = None) -> str:
    return subprocess.run(
        ["git", *arguments],
        cwd=cwd,
        env=ours.environment(),
        input=stdin,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def write_commits(
    repository: Path, first: int, count: int, *, loose: bool, ref: str = "refs/heads/main"
) -> None:
    """Commits in a row, each of three objects; without a file of its own each, they are in one pack."""
    stream = ""
    for number in range(first, first + count):
        after = f"from {ref}^0\n" if number == first and number else ""
        stream += (
            f"commit {ref}\ncommitter t <t@t> {number} +0000\ndata 1\nx\n{after}"
            f"M 100644 inline f{number % 7}\ndata {len(str(number))}\n{number}\n"
        )
    limit = f"fastimport.unpackLimit={10**9 if loose else 0}"
    git("-c", limit, "fast-import", "--quiet", "--force", cwd=repository, stdin=stream)


def objects(repository: Path) -> set[str]:
    """Every object that is there, whether anything refers to it or not."""
    listed = git(
        "cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectname)", cwd=repository
    )
    return set(listed.split())


def references(repository: Path) -> str:
    return git("for-each-ref", cwd=repository)


class Shop:
    """A linked project: its remote, and its repositories in a data folder."""

    def __init__(self, folder: Path) -> None:
        self.repos = folder / "repos"
        self.remote = folder / "remote.git"
        git("init", "-q", "--bare", str(self.remote), cwd=folder)
        write_commits(self.remote, 0, 5, loose=True)
        self.forge = LocalForge(self.repos / "shop", str(self.remote))
        self.base, self.full = self.forge.base, self.forge.full

    def age(self) -> None:
        """Months: more loose objects in the one, more packs and references in the other, than there should be. Some packs are in both."""
        write_commits(self.base, 5, packing.LOOSE // 3 + 50, loose=True)
        git("hash-object", "-w", "--stdin", cwd=self.base, stdin="nothing refers to this")
        for number in range(packing.PACKS + 2):
            write_commits(self.full, 0, 2 + number, loose=False, ref=f"refs/codespar/heads/{number}")
        for index in sorted((self.full / "objects" / "pack").glob("*.idx"))[::3]:
            for path in (index, index.with_suffix(".pack")):
                (self.base / "objects" / "pack" / path.name).hardlink_to(path)
        git("hash-object", "-w", "--stdin", cwd=self.full, stdin="nor to this")
        tip = git("rev-parse", "main", cwd=self.base)
        self._refer(*(f"create refs/codespar/commits/{n} {tip}" for n in range(packing.REFS + 1)))

    def _refer(self, *changes: str) -> None:
        git("update-ref", "--stdin", cwd=self.full, stdin="\n".join(changes) + "\n")

    def known(self) -> tuple[set[str], set[str], str, str]:
        return objects(self.base), objects(self.full), references(self.base), references(self.full)


@pytest.fixture(autouse=True)
def _sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is much: what is shown is the same, and made in a tenth of the time."""
    monkeypatch.setattr(packing, "LOOSE", 200)
    monkeypatch.setattr(packing, "REFS", 50)


@pytest.fixture
async def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path)
    await made.forge.sync()
    return made


async def test_what_became_many_files_is_few_and_nothing_is_lost(shop: Shop) -> None:
    shop.age()
    known, before = shop.known(), (look(shop.base), look(shop.full))
    assert before[0].loose > packing.LOOSE
    assert before[1].packs > packing.PACKS
    assert before[1].refs > packing.REFS
    files, freed = await pack_repositories(shop.repos)
    base, full = look(shop.base), look(shop.full)
    assert (base.loose, full.loose) == (0, 0)
    assert base.packs <= 3
    assert full.packs <= 3
    assert full.refs <= 1
    assert files == before[0].files + before[1].files - base.files - full.files > 250
    assert freed > 1_000_000
    assert shop.known() == known
    git("fsck", "--full", "--strict", cwd=shop.full)
    assert (shop.base / "objects" / "info" / "commit-graph").exists()
    git("commit-graph", "verify", cwd=shop.base)
    assert await pack_repositories(shop.repos) == (0, 0)


async def test_where_there_is_little_nothing_is_packed(shop: Shop) -> None:
    write_commits(shop.base, 5, 30, loose=True)
    before = look(shop.base)
    assert await pack_repositories(shop.repos) == (0, 0)
    assert look(shop.base) == before


async def test_a_repository_that_is_cloned_in_one_pack_has_its_history_indexed(shop: Shop) -> None:
    write_commits(shop.base, 5, 100, loose=False)
    assert await pack_repositories(shop.repos) == (0, 0)
    git("commit-graph", "verify", cwd=shop.base)
    assert not (shop.full / "objects" / "info" / "commit-graph").exists(), "it uses its lender's"


async def test_a_broken_repository_keeps_no_other_from_being_packed(shop: Shop) -> None:
    broken = shop.repos / "broken" / "base.git"
    git("init", "-q", "--bare", str(broken), cwd=shop.repos)
    write_commits(broken, 0, packing.LOOSE, loose=True)
    (broken / "HEAD").write_text("no reference\n")
    shop.age()
    before = look(broken)
    assert (await pack_repositories(shop.repos))[0] > 250
    assert look(shop.base).loose == 0
    assert look(broken) == before


async def test_objects_that_cannot_be_read_stay_and_all_others_are_packed(shop: Shop) -> None:
    write_commits(shop.base, 5, packing.LOOSE, loose=True)
    damaged = sorted((shop.base / "objects").glob("?[0-3]/*"))
    for file in damaged:
        file.chmod(0o600)
        file.write_bytes(b"a disk that lies")
    await pack_repositories(shop.repos)
    assert sorted((shop.base / "objects").glob("??/*")) == damaged
    assert look(shop.base).packs == 1


async def test_no_link_out_of_the_data_folder_is_followed(shop: Shop, tmp_path: Path) -> None:
    shop.age()
    elsewhere = tmp_path / "elsewhere"
    shop.repos.rename(elsewhere)
    shop.repos.mkdir()
    (shop.repos / "shop").symlink_to(elsewhere / "shop")
    (shop.repos / "other").mkdir()
    (shop.repos / "other" / "base.git").symlink_to(elsewhere / "shop" / "base.git")
    assert await pack_repositories(shop.repos) == (0, 0)
    shop.repos.rename(tmp_path / "links")
    shop.repos.symlink_to(elsewhere)
    assert await pack_repositories(shop.repos) == (0, 0)
    assert look(elsewhere / "shop" / "base.git").loose > packing.LOOSE


async def test_where_nothing_was_linked_there_is_nothing_to_pack(tmp_path: Path) -> None:
    assert await pack_repositories(tmp_path / "repos") == (0, 0)


async def test_where_a_pack_would_fill_the_disk_none_is_made(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.age()
    monkeypatch.setattr(packing, "ROOM", 1 << 60)
    before = look(shop.base)
    await pack_repositories(shop.repos)
    assert look(shop.base) == before
    assert look(shop.full).packs > packing.PACKS


async def test_who_reads_and_writes_meanwhile_notices_nothing(shop: Shop) -> None:
    """A task's git that borrows the objects, one that reads on for long, a forge that syncs, fetches and keeps records."""
    shop.age()
    reader = await asyncio.create_subprocess_exec(
        *("git", "cat-file", "--batch-check"),
        cwd=shop.full,
        env=ours.environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert reader.stdin is not None and reader.stdout is not None
    wanted = sorted(objects(shop.full) | objects(shop.base))
    random.Random(1).shuffle(wanted)
    done = asyncio.Event()

    async def read(asked: asyncio.StreamWriter, answers: asyncio.StreamReader) -> None:
        for name in wanted * 3:
            asked.write(f"{name}\n".encode())
            said = await answers.readline()
            assert said.startswith(name.encode())
            assert not said.endswith(b" missing\n")

    async def write() -> int:
        number = 0
        while not done.is_set() or number < 3:
            write_commits(shop.remote, 1000 + 2 * number, 2, loose=True)
            tip = git("rev-parse", "main", cwd=shop.remote)
            git("update-ref", f"refs/heads/b{number}", tip, cwd=shop.remote)
            assert (await shop.forge.sync())[1] == tip
            assert await shop.forge.fetch_branch(f"b{number}") == tip
            run = Run(id=f"r{number}", workflow="t", branch="main", commit=tip, started_at=AT, updated_at=AT)
            await shop.forge.report_run(run, [], {})
            await shop.forge.set_status(tip, context="ci", state=Conclusion.SUCCESS, description="")
            assert [one.name for one in await shop.forge.checks(tip)] == ["ci", "t"]
            number += 1
        return number

    async def pack() -> None:
        try:
            assert (await pack_repositories(shop.repos))[0] > 250
        finally:
            done.set()

    _, written, _ = await asyncio.gather(read(reader.stdin, reader.stdout), write(), pack())
    reader.stdin.close()
    await reader.wait()
    git("fsck", "--full", "--strict", cwd=shop.full)
    assert len(await shop.forge.runs(limit=10_000)) == written


def children(process: int) -> Iterator[int]:
    try:
        found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has ended just now
        return
    for child in found:
        yield from children(int(child))
        yield int(child)


async def test_killed_anywhere_nothing_is_lost_and_the_next_goes_on(shop: Shop) -> None:
    shop.age()
    known = shop.known()
    alive = {*children(os.getpid())}
    chance = random.Random(7)
    for _ in range(8):
        attempt = asyncio.create_task(pack_repositories(shop.repos))
        await asyncio.sleep(chance.uniform(0, 0.3))
        attempt.cancel()  # with the server
        for process in {*children(os.getpid())} - alive:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)  # and at once
        with suppress(asyncio.CancelledError):
            await attempt
        assert shop.known() == known
    for name in ("packed-refs.lock", "packed-refs.new", "objects/info/commit-graph.lock"):
        for repository in (shop.base, shop.full):
            (repository / name).touch()
    (shop.full / "objects" / "pack" / "tmp_pack_a1b2c3").write_bytes(b"x" * 100_000)
    (shop.full / "objects" / "pack" / ".tmp-12-pack-ab.idx").touch()
    (shop.full / "objects" / "pack" / "tmp_pack_d4e5f6").write_bytes(b"of a fetch that is under way")
    long_ago = time.time() - packing.LEFT - 60
    for pattern in (
        "**/*.lock",
        "packed-refs.new",
        "objects/**/tmp_*",
        "objects/**/.tmp-*",
    ):
        for repository in (shop.base, shop.full):
            for left in repository.glob(pattern):
                if not left.name.endswith("d4e5f6"):
                    os.utime(left, (long_ago, long_ago))
    await pack_repositories(shop.repos)
    # one that was killed as it cleared up may have left too little to begin with again
    assert max(look(shop.base).loose, look(shop.full).loose) <= packing.LOOSE
    assert look(shop.full).refs <= packing.REFS
    assert shop.known() == known
    lying = {path.name for path in shop.repos.rglob("*") if path.name.startswith(("tmp_", ".tmp-"))}
    assert lying == {"tmp_pack_d4e5f6"}
    for pattern in ("*.lock", "packed-refs.new"):
        assert not [*shop.repos.rglob(pattern)]


async def test_at_shutdown_git_is_ended_and_nothing_is_lost(shop: Shop) -> None:
    shop.age()
    known = shop.known()
    alive = {*children(os.getpid())}
    packing_up = asyncio.create_task(pack_repositories(shop.repos))
    while not (running := {*children(os.getpid())} - alive) and not packing_up.done():  # noqa: ASYNC110 - git tells nobody
        await asyncio.sleep(0)
    packing_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await packing_up
    assert running
    assert not [process for process in running if Path(f"/proc/{process}/exe").exists()]
    assert shop.known() == known


async def test_two_at_once_do_it_once(shop: Shop) -> None:
    shop.age()
    (one, _), (other, _) = await asyncio.gather(pack_repositories(shop.repos), pack_repositories(shop.repos))
    assert min(one, other) == 0
    assert max(one, other) > 250


async def test_git_that_is_in_no_hurry_runs_at_the_lowest_priority() -> None:
    assert await ours.run("-c", "alias.how=!nice", "how", idle=True) == "19"
