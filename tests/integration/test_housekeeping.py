"""What is removed from the data folder when its time has come, and what never is: real files, a real database."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar import git
from codespar.app import packing
from codespar.app.housekeeping import Housekeeping, empty
from codespar.channels.base import AttachmentRefused
from codespar.channels.locker import Locker
from codespar.config.housekeeping import HousekeepingSettings
from codespar.domain.messages import Attachment
from codespar.domain.reviews import ReviewRecord, ReviewState
from codespar.domain.tasks import Limits, Task, TaskKind, TaskStatus, Thread
from codespar.sandbox.docker import DockerSandbox
from codespar.store.base import Project, Unit
from codespar.store.database import Database

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
THREAD = Thread(channel="cli", conversation="here")
SHA = "ab" * 32


class Place:
    """A data folder with a store, and the housekeeping of it. No engine answers there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Database(f"sqlite:///{folder / 'codespar.sqlite'}")
        self.locker = Locker({}, folder / "attachments")
        self.now = NOW
        self.counted: list[tuple[str, int, int]] = []
        self.sandbox = DockerSandbox(f"unix://{folder / 'no-engine.sock'}", folder, "test")
        self._tickets = 0

    async def tidy(self, **after: Any) -> dict[str, int]:
        """Returns what was removed, by kind."""
        self.counted = []
        await self.house(**after).tidy()
        return {what: count for what, count, _ in self.counted}

    def house(self, **after: Any) -> Housekeeping:
        return Housekeeping(
            HousekeepingSettings(**after),
            self.folder,
            self.store,
            self.sandbox,
            self.locker,
            lambda: self.now,
            lambda what, count, size: self.counted.append((what, count, size)),
        )

    async def task(self, id: str, ended: int | None, *attached: str) -> Path:
        """A task with a folder, which ended so many days ago. Returns the folder."""
        self._tickets += 1
        files = tuple(
            Attachment(name="a.txt", media_type="text/plain", size=1, sha256=one) for one in attached
        )
        task = Task(
            id=id,
            project="shop",
            ticket=self._tickets,
            kind=TaskKind.INSTRUCT,
            instruction="x",
            requester="Ada",
            thread=THREAD,
            status=TaskStatus.QUEUED if ended is None else TaskStatus.FAILED,
            limits=Limits(),
            attachments=files,
            created_at=NOW,
            ended_at=None if ended is None else NOW - timedelta(days=ended),
        )
        await self.store.write(lambda unit: unit.add_task(task))
        return self._filled(self.folder / "tasks" / id / "1" / "out").parent.parent

    async def review(self, id: str, ended: int | None) -> Path:
        record = ReviewRecord(
            id=id,
            project="shop",
            number=len(id) + self._tickets,
            head_commit=id,
            state=ReviewState.RUNNING if ended is None else ReviewState.POSTED,
            started_at=NOW,
            ended_at=None if ended is None else NOW - timedelta(days=ended),
        )
        await self.store.write(lambda unit: unit.add_review(record))
        return self._filled(self.folder / "reviews" / id)

    def _filled(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        (folder / "changes.patch").write_text("x" * 5000)
        return folder

    def attach(self, sha256: str, days: int) -> Path:
        """A file that came so many days ago."""
        path = self.folder / "attachments" / sha256
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        at = (NOW - timedelta(days=days)).timestamp()
        os.utime(path, (at, at))
        return path


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    await made.store.open()

    def link(unit: Unit) -> None:
        unit.save_project(
            Project(name="shop", repository="/srv/shop", autonomy=1, paused=False, created_at=NOW)
        )

    await made.store.write(link)
    try:
        yield made
    finally:
        await made.sandbox.close()
        await made.store.close()


async def test_folders_of_what_ended_long_ago_go_and_all_others_stay(place: Place) -> None:
    gone = [
        await place.task("task-old111", 15),
        await place.task("task-old222", 400),
        await place.review("review-old111", 15),
    ]
    stay = [
        await place.task("task-new111", 13),
        await place.task("task-open11", None),
        await place.review("review-new111", 13),
        await place.review("review-run111", None),
    ]
    for name in ("task-unknown", "notes", "task-old111.kept"):
        (place.folder / "tasks" / name).mkdir()
        stay.append(place.folder / "tasks" / name)
    assert await place.tidy() == {"folders": 3}
    assert not any(one.exists() for one in gone)
    assert all(one.exists() for one in stay)
    assert place.counted[0][2] >= 3 * 4096
    assert list((place.folder / "trash").iterdir()) == []
    assert await place.tidy() == {}


async def test_what_is_never_to_be_removed_stays(place: Place) -> None:
    folder = await place.task("task-old111", 4000)
    file = place.attach(SHA, 4000)
    assert await place.tidy(folders="never", attachments="never", images="never") == {}
    assert folder.exists()
    assert file.exists()


async def test_a_review_that_is_asked_for_once_more_keeps_its_folder(place: Place) -> None:
    folder = await place.review("review-old111", 15)

    def again(unit: Unit) -> None:
        record = unit.review("review-old111")
        assert record is not None
        unit.update_review(record.evolve(state=ReviewState.RUNNING, ended_at=None, attempt=2))

    house = place.house()
    before = NOW - timedelta(days=14)
    await place.store.write(again)  # after it was seen that it had ended, and before it is put aside
    put_aside = await place.store.write(
        lambda unit: house._put_aside(unit, "reviews", ["review-old111"], before)  # pyright: ignore[reportPrivateUsage]
    )
    assert put_aside == 0
    assert folder.exists()


async def test_hundreds_of_folders_go_in_small_steps(place: Place) -> None:
    folders = [await place.task(f"task-a{number:05}", 20) for number in range(120)]
    assert await place.tidy() == {"folders": 120}
    assert not any(folder.exists() for folder in folders)


async def test_links_out_of_a_folder_are_removed_and_what_they_lead_to_is_not(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "precious").write_text("x")
    folder = await place.task("task-old111", 15)
    (folder / "1" / "out" / "link").symlink_to(outside)
    (folder / "1" / "out" / "file").symlink_to(outside / "precious")
    os.link(outside / "precious", folder / "1" / "hard")
    linked = await place.task("task-old222", 15)
    linked.rename(outside / "moved")
    linked.symlink_to(outside / "moved")
    assert await place.tidy() == {"folders": 2}
    assert not folder.exists()
    assert not linked.is_symlink()
    assert (outside / "precious").read_text() == "x"
    assert (outside / "moved" / "1" / "out" / "changes.patch").exists()


@pytest.mark.parametrize("what", ["tasks", "trash", "attachments"])
async def test_a_folder_that_is_a_link_elsewhere_is_left_alone(
    place: Place, tmp_path_factory: pytest.TempPathFactory, what: str
) -> None:
    await place.task("task-old111", 15)
    place.attach(SHA, 40)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / what
    if (place.folder / what).exists():
        (place.folder / what).rename(elsewhere)
    else:
        elsewhere.mkdir()
        (elsewhere / "precious").write_text("x")
    (place.folder / what).symlink_to(elsewhere)
    known = sorted(elsewhere.rglob("*"))
    await place.tidy()
    assert sorted(elsewhere.rglob("*")) == known


def test_a_tree_of_any_depth_with_forbidden_folders_is_emptied(tmp_path: Path) -> None:
    trash = tmp_path / "trash"
    (trash / "deep").mkdir(parents=True)
    here = os.open(trash / "deep", os.O_RDONLY)
    for _ in range(1500):  # deeper than a path may be long, and than Python recurses
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (trash / "locked" / "inner").mkdir(parents=True)
    (trash / "locked" / "inner" / "file").write_text("x")
    (trash / "locked" / "inner").chmod(0)
    (trash / "locked").chmod(0)
    rounds = 0
    while not empty(trash, 300, set())[1]:
        rounds += 1
    assert rounds >= 5, "each step is bounded"
    assert list(trash.iterdir()) == []


SHAPES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(["file", "link", "socket"]),
    lambda inner: st.dictionaries(st.sampled_from("abcde"), inner, max_size=4),
    max_leaves=20,
)


def lay(path: Path, shape: Any) -> None:
    if isinstance(shape, dict):
        path.mkdir()
        for name, inner in shape.items():
            lay(path / name, inner)
    elif shape == "link":
        path.symlink_to("/")
    elif shape == "socket":
        os.mkfifo(path)
    else:
        path.write_text("x")


@given(st.dictionaries(st.sampled_from("abcd"), SHAPES), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_whatever_lies_in_the_trash_is_gone_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, shape: dict[str, Any], most: int
) -> None:
    trash = tmp_path_factory.mktemp("one") / "trash"
    lay(trash, shape)
    for _ in range(1000):
        if empty(trash, most, set())[1]:
            break
    assert list(trash.iterdir()) == []


async def test_old_attachments_go_but_for_those_that_an_open_task_refers_to(place: Place) -> None:
    wanted, done, new = "aa" * 32, "bb" * 32, "cc" * 32
    await place.task("task-open11", None, wanted)
    await place.task("task-done11", 2, done)
    kept, removed, recent = place.attach(wanted, 40), place.attach(done, 31), place.attach(new, 29)
    part, foreign = place.attach(f"{done}.77.part", 31), place.attach("README", 4000)
    assert await place.tidy() == {"attachments": 2}
    assert kept.exists()
    assert recent.exists()
    assert foreign.exists()
    assert not removed.exists()
    assert not part.exists()
    assert place.locker.path(wanted) == kept
    with pytest.raises(AttachmentRefused, match=r"not kept here any more.*again"):
        place.locker.path(done)


def test_what_comes_again_while_it_is_being_removed_is_there_afterwards(tmp_path: Path) -> None:
    locker = Locker({}, tmp_path)
    stop, met = threading.Event(), threading.Event()

    def remove() -> int:
        removed = 0
        while not stop.is_set():
            removed += locker.remove_old(1000.0, ())[0]
            if removed:
                met.set()
        return removed

    with ThreadPoolExecutor(1) as pool:
        removing = pool.submit(remove)
        try:
            deadline, number = time.monotonic() + 60, 0
            while number < 1000 or not met.is_set():
                assert time.monotonic() < deadline or number < 1000, "nothing is ever removed"
                number += 1
                (tmp_path / SHA).write_bytes(b"x")
                os.utime(tmp_path / SHA, (1.0, 1.0))  # it came long ago
                locker._write(SHA, b"x")  # pyright: ignore[reportPrivateUsage]
                assert (tmp_path / SHA).exists(), number
        finally:
            stop.set()
        assert removing.result() > 0


async def test_a_repository_with_many_loose_references_is_packed_and_told_of(place: Place) -> None:
    repository = place.folder / "repos" / "shop" / "base.git"
    await git.run("init", "--quiet", "--bare", str(repository))
    tree = await git.run("mktree", cwd=repository, stdin=b"")
    commit = await git.commit_tree(repository, tree, (), "x", "Ada", NOW)
    names = "".join(f"create refs/heads/{number} {commit}\n" for number in range(packing.REFS + 1))
    await git.run("update-ref", "--stdin", cwd=repository, stdin=names.encode())
    assert await place.tidy(images="never") == {"repositories": packing.REFS}, (
        "one file is there for them all"
    )
    assert len((await git.run("for-each-ref", cwd=repository)).splitlines()) == packing.REFS + 1
    assert await place.tidy(images="never") == {}


async def test_an_engine_that_does_not_answer_keeps_nothing_else_from_being_removed(place: Place) -> None:
    folder = await place.task("task-old111", 15)
    assert await place.tidy(images="1d") == {"folders": 1}
    assert not folder.exists()


@pytest.mark.parametrize("wrong", ["12h", "0", "always", "14", -1, "99999d"])
def test_a_time_that_is_too_short_or_not_understood_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"1d|never"):
        HousekeepingSettings(images=wrong)


async def test_a_unit_beside_it_that_fails_keeps_no_folder_from_being_removed(place: Place) -> None:
    """The units of a commit are run again when one of them fails: what was moved the first time is not there the second."""
    await place.task("task-old", ended=20)
    held, go_on = threading.Event(), threading.Event()

    def hold(unit: Unit) -> None:
        held.set()
        assert go_on.wait(60)

    def fail(unit: Unit) -> None:
        raise ValueError("not this one")

    holding = asyncio.create_task(place.store.write(hold))
    await asyncio.to_thread(held.wait, 60)
    tidying = asyncio.create_task(place.tidy(images="never"))
    await asyncio.sleep(0.5)  # its unit waits for the one that is held
    failing = asyncio.create_task(place.store.write(fail))
    await asyncio.sleep(0)
    go_on.set()
    assert await tidying == {"folders": 1}
    assert not list((place.folder / "trash").iterdir())
    outcomes = await asyncio.gather(holding, failing, return_exceptions=True)
    assert [type(one) for one in outcomes] == [type(None), ValueError]
