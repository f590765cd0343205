"""What nobody needs any more is removed: unused container images, old attachments, the folders of what has ended, old messages; and our
repositories are packed.

It works at start, when the task image is ready, and once a day. It must never remove what an open task, a running review, a pending approval
or a container needs, never follow a link, and never remove anything outside the data folder. What cannot be removed is logged and stays.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import structlog

from codespar.app.packing import pack_repositories
from codespar.app.sandbox import make_sandbox
from codespar.app.stopping import cancelled
from codespar.channels.locker import Locker
from codespar.config import Settings
from codespar.config.housekeeping import NEVER, HousekeepingSettings
from codespar.domain.approvals import ApprovalState
from codespar.domain.base import CodesparError
from codespar.domain.reviews import ReviewRecord
from codespar.domain.tasks import Task
from codespar.sandbox.analysersimage import AnalysersImage
from codespar.sandbox.docker import DockerSandbox
from codespar.sandbox.imageuse import remove_unused
from codespar.store.base import Store, Unit

log = structlog.get_logger(__name__)
EVERY = 86400.0  # seconds
AT_ONCE = 50  # folders that one transaction puts aside
ENTRIES = 2000  # that one step in a thread removes
ROWS = 1000  # that one transaction looks at and removes: others wait for it
TRASH = "trash"
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
_OWN = {"tasks": re.compile(r"task-[0-9a-z]+"), "reviews": re.compile(r"review-[0-9a-z]+")}
"""By folder of the data folder: what may be removed there."""

Counted = Callable[[str, int, int], None]  # of what, how many, bytes


class Housekeeping:
    """One for an installation."""

    def __init__(
        self,
        settings: HousekeepingSettings,
        folder: Path,
        store: Store,
        sandbox: DockerSandbox,
        locker: Locker,
        clock: Callable[[], datetime],
        counted: Counted,
    ) -> None:
        """`folder` is the data folder. `counted` hears of what was removed."""
        self._settings = settings
        self._folder = folder
        self._store = store
        self._sandbox = sandbox
        self._locker = locker
        self._clock = clock
        self._counted = counted
        self._working: asyncio.Task[None] | None = None

    def start(self, ready: asyncio.Task[None]) -> None:
        """Begin when `ready`, which makes the task image, is done."""
        self._working = asyncio.create_task(self._work(ready), name="housekeeping")

    async def stop(self) -> None:
        await cancelled(self._working)

    async def _work(self, ready: asyncio.Task[None]) -> None:
        await asyncio.wait({ready})
        while True:
            try:
                await self.tidy()
            except Exception as error:  # a defect of ours: tomorrow it is tried again
                log.error("housekeeping.failed", error=str(error), exc_info=True)
            await asyncio.sleep(EVERY)

    async def tidy(self) -> None:
        """Remove what it is time for, and pack what there is much of."""
        parts = {
            "images": self._images,
            "attachments": self._attachments,
            "folders": self._folders,
            "messages": self._messages,
        }
        for what, part in parts.items():
            after: float | str = getattr(self._settings, what)
            if isinstance(after, str):
                assert after == NEVER
                continue
            await self._tell(what, part(self._clock() - timedelta(seconds=after)))
        await self._tell("repositories", pack_repositories(self._folder / "repos"))

    async def _tell(self, what: str, removing: Awaitable[tuple[int, int]]) -> None:
        try:
            removed, freed = await removing
        except (CodesparError, OSError) as error:
            log.warning("housekeeping.failed", of=what, error=str(error))
            return
        if removed:
            log.info("housekeeping.removed", of=what, count=removed, bytes=freed)
            self._counted(what, removed, freed)

    async def _images(self, before: datetime) -> tuple[int, int]:
        open_tasks = await self._store.read(_images_of_open_tasks)
        return await remove_unused(
            self._sandbox.image.engine, before, {*open_tasks, *await standard_images(self._sandbox)}
        )

    async def _attachments(self, before: datetime) -> tuple[int, int]:
        keep = await self._store.read(_referred_to)
        return await asyncio.to_thread(self._locker.remove_old, before.timestamp(), keep)

    async def _folders(self, before: datetime) -> tuple[int, int]:
        """Put aside the folders of what ended before then, and remove what lies aside."""
        put_aside = 0
        for kind, own in _OWN.items():
            names = await asyncio.to_thread(_names, self._folder / kind, own)
            for start in range(0, len(names), AT_ONCE):
                some = names[start : start + AT_ONCE]
                over = await self._store.read(lambda unit, some=some: _ended(unit, some, before))
                if over:
                    # looked at again where nothing can begin meanwhile: a review can be asked for once more
                    put_aside += await self._store.write(
                        lambda unit, over=over, kind=kind: self._put_aside(unit, kind, over, before)
                    )
        freed, failed = 0, set[str]()
        while True:
            some_freed, done = await asyncio.to_thread(empty, self._folder / TRASH, ENTRIES, failed)
            freed += some_freed
            if done:
                return put_aside, freed

    async def _messages(self, before: datetime) -> tuple[int, int]:
        """Their room in the database's files is used again; the files stay as large as they are."""
        removed = 0
        for what in ("inbox", "announcements"):
            place: int | None = 0
            while place is not None:
                over, place = await self._store.read(
                    lambda unit, what=what, place=place: unit.outlived(what, before, place or 0, ROWS)
                )
                if over:
                    removed += await self._store.write(
                        lambda unit, what=what, over=over: unit.let_go(what, over, before)
                    )
        return removed, 0

    def _put_aside(self, unit: Unit, kind: str, names: Sequence[str], before: datetime) -> int:
        (self._folder / TRASH).mkdir(mode=0o700, exist_ok=True)
        for project in {record.project for name in names if (record := _record(unit, name)) is not None}:
            unit.lock_project(project)
        over = _ended(unit, names, before)
        with _opened(self._folder / kind) as source, _opened(self._folder / TRASH) as trash:
            for name in over:
                with suppress(FileNotFoundError):  # a unit may be run twice
                    os.rename(name, f"{name}.{uuid4().hex}", src_dir_fd=source, dst_dir_fd=trash)
        return len(over)


async def standard_images(sandbox: DockerSandbox) -> tuple[str, ...]:
    """The names of the images that this release uses whatever the project."""
    return *await sandbox.image.names(), *await AnalysersImage(sandbox.image).names()


async def remove_unused_images(settings: Settings, after: timedelta) -> tuple[int, int]:
    """Remove the images of ours that nobody has used for so long, without a server. Returns how many, and about how many bytes.

    Raises `SandboxError`.
    """
    sandbox = make_sandbox(settings)
    try:
        before = datetime.now(UTC) - after
        return await remove_unused(sandbox.image.engine, before, await standard_images(sandbox))
    finally:
        await sandbox.close()


def _images_of_open_tasks(unit: Unit) -> set[str]:
    tasks = [task for project in unit.projects() for task in unit.open_tasks(project.name)]
    return {str(task.spec["environment"]["image"]) for task in tasks if task.spec}


def _referred_to(unit: Unit) -> set[str]:
    """Every SHA-256 that stands in an open task or a pending approval."""
    documents = [
        task.model_dump_json() for project in unit.projects() for task in unit.open_tasks(project.name)
    ]
    pending = unit.approvals(state=ApprovalState.PENDING.value, limit=1_000_000)
    documents += [approval.model_dump_json() for approval in pending]
    return {found for document in documents for found in _SHA256.findall(document)}


def _ended(unit: Unit, ids: Sequence[str], before: datetime) -> list[str]:
    """Those of these tasks and reviews that ended before then. What the store does not know has not ended."""
    known = ((id, _record(unit, id)) for id in ids)
    return [id for id, record in known if record and record.ended_at and record.ended_at < before]


def _record(unit: Unit, id: str) -> Task | ReviewRecord | None:
    return unit.review(id) if id.startswith("review-") else unit.task(id)


def _names(folder: Path, own: re.Pattern[str]) -> list[str]:
    try:
        with _opened(folder) as opened:
            return [name for name in _entries(opened) if own.fullmatch(name)]
    except FileNotFoundError:
        return []


@contextmanager
def _opened(folder: Path | str, within: int | None = None) -> Generator[int]:
    """A folder that is no link, opened."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=within)
    try:
        yield opened
    finally:
        os.close(opened)


def empty(trash: Path, most: int, failed: set[str]) -> tuple[int, bool]:
    """Remove up to about `most` entries of what lies in `trash`. Returns the bytes freed, and whether nothing is left to do.

    A folder in a folder is moved up into `trash` first, so that no depth is too deep; a link is removed, and never followed. What cannot be
    removed goes into `failed` and is passed over. Stopped anywhere, the next call goes on.
    """
    freed = steps = 0
    with ExitStack() as stack:
        try:
            top = stack.enter_context(_opened(trash))
        except FileNotFoundError:
            return 0, True
        while waiting := [name for name in _entries(top) if name not in failed]:
            for name in waiting:
                if steps >= most:
                    return freed, False
                try:
                    some, entries = _remove(top, name, most - steps)
                except OSError as error:
                    log.warning("housekeeping.stays", path=str(trash / name), error=error.strerror)
                    failed.add(name)
                    continue
                freed += some
                steps += entries
    return freed, True


def _remove(top: int, name: str, most: int) -> tuple[int, int]:
    """Remove one entry of the trash, or up to `most` of what is in it. Returns the bytes freed, and the number of entries."""
    found = os.stat(name, dir_fd=top, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=top)
        return _bytes(found), 1
    _unlock(name, top)
    freed = entries = 0
    with _opened(name, top) as folder, os.scandir(folder) as scanned:
        for entry in scanned:
            if entries >= most:
                return freed, entries
            entries += 1
            if entry.is_dir(follow_symlinks=False):
                _unlock(entry.name, folder)
                os.rename(entry.name, uuid4().hex, src_dir_fd=folder, dst_dir_fd=top)
            else:
                freed += _bytes(entry.stat(follow_symlinks=False))
                os.unlink(entry.name, dir_fd=folder)
    os.rmdir(name, dir_fd=top)
    return freed, entries + 1


def _entries(folder: int) -> list[str]:
    with os.scandir(folder) as scanned:
        return [entry.name for entry in scanned]


def _unlock(name: str, within: int) -> None:
    """What a container made may forbid its owner to look into it."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=within)
    try:
        if os.fstat(handle).st_mode & 0o700 != 0o700:
            Path(f"/proc/self/fd/{handle}").chmod(0o700)
    finally:
        os.close(handle)


def _bytes(found: os.stat_result) -> int:
    return found.st_blocks * 512 if found.st_nlink == 1 else 0
