"""Which of our images are in use, and the removal of those that are not.

Every use of an image marks it: a second name, `codespar/used:<id>-<day>`, which every installation and release that shares the engine sees.
Removing takes away the names that were seen, one by one and never forced: a mark that was set meanwhile keeps the image alive, so whoever
has marked an image can start from it. It must never remove an image without our label, one that somebody gave another name, or one that a
container has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import structlog

from codespar.sandbox.base import ImageMissing, SandboxError
from codespar.sandbox.dockerengine import INPUTS_LABEL, LOST, EngineClient, find, no_engine

if TYPE_CHECKING:
    from aiodocker import Docker, DockerError

log = structlog.get_logger(__name__)
MARK = "codespar/used"
OURS = frozenset(
    {
        MARK,
        "codespar/task-agent",
        "codespar/task-agent-tools",
        "codespar/environment",
        "codespar/project",
        "codespar/analysers",
        "codespar/analysis-tools",
    }
)
"""The names we give. An image that has any other is somebody's own, whatever it was made from."""


async def take(docker: Docker, name: str, inputs: str) -> str | None:
    """The id of the image `name` made from `inputs`, marked as used today; None when there is none."""
    found = await find(docker, name, inputs)
    return found if found is not None and await mark(docker, found) else None


async def mark(docker: Docker, image: str) -> bool:
    """Mark an image, by its id, as used today. False when the engine does not have it."""
    from aiodocker import DockerError

    try:
        async with _one_by_one(docker):
            await docker.images.tag(image, MARK, tag=f"{_short(image)}-{datetime.now(UTC):%Y%m%d}")
    except DockerError as error:
        if error.status == 404 or LOST.match(error.message):
            return False
        if error.status == 900:
            raise no_engine("its address", error) from error
        raise ImageMissing(f"the engine does not mark {image} as used: {error}") from error
    return True


_guards: WeakKeyDictionary[Docker, asyncio.Lock] = WeakKeyDictionary()


def _one_by_one(docker: Docker) -> asyncio.Lock:
    """Marking and removing do not meet: the engine gives an image a name while it takes away its last one, and removes it all the same."""
    return _guards.setdefault(docker, asyncio.Lock())


@dataclass(frozen=True)
class Listed:
    """An image as the engine lists it."""

    id: str
    parent: str  # id, or empty: the engine does not know it
    labelled: bool
    names: tuple[str, ...]  # but for marks
    marks: tuple[str, ...]
    size: int  # bytes, with all it stands on
    created_at: datetime

    @classmethod
    def of(cls, shown: Mapping[str, Any]) -> Listed:
        tags = [str(tag) for tag in shown.get("RepoTags") or () if tag != "<none>:<none>"]
        return cls(
            id=str(shown["Id"]),
            parent=str(shown.get("ParentId") or ""),
            labelled=INPUTS_LABEL in (shown.get("Labels") or {}),
            names=tuple(tag for tag in tags if _repository(tag) != MARK),
            marks=tuple(sorted(tag for tag in tags if _repository(tag) == MARK)),
            size=int(shown["Size"]),
            created_at=datetime.fromtimestamp(shown["Created"], UTC),
        )

    @property
    def ours(self) -> bool:
        return self.labelled and OURS.issuperset(map(_repository, self.names))

    @property
    def used_at(self) -> datetime:
        """When it was used last, at the latest: the end of the day of its newest mark."""
        days = [day for name in self.marks if (day := _day(name)) is not None]
        return max(days) + timedelta(days=1) if days else self.created_at


def unused(
    images: Sequence[Listed], running: Collection[str], keep: Collection[str], before: datetime
) -> list[Listed]:
    """Those of no use any more: ours, not used since `before`, with no container (`running`: ids of images) and no image that stands on
    them, and not named in `keep` by name or id."""
    stood_on = {image.parent for image in images}
    return [
        image
        for image in images
        if image.ours
        and image.used_at < before
        and image.id not in stood_on
        and image.id not in running
        and not {image.id, *image.names}.intersection(keep)
    ]


async def remove_unused(engine: EngineClient, before: datetime, keep: Collection[str]) -> tuple[int, int]:
    """Remove our images that were not used since `before`. Returns how many, and about how many bytes that freed.

    One that cannot be removed is logged and stays. Raises `SandboxError` when the engine does not answer.
    """
    docker = await engine.get()
    from aiodocker import DockerError

    removed = freed = 0
    tried: set[str] = set()
    try:
        while True:  # what the removed ones stood on has its turn in the next round
            images = [Listed.of(one) for one in await docker.images.list(all="true")]
            running = {str(one["ImageID"]) for one in await docker.containers.list(all=True)}
            found = [one for one in unused(images, running, keep, before) if one.id not in tried]
            if not found:
                return removed, freed
            for image in found:
                tried.add(image.id)
                gone = await remove_one(docker, image, before)
                removed += bool(gone)
                freed += _freed(image, gone, images)
    except DockerError as error:
        raise _trouble(error) from error


async def remove_one(docker: Docker, image: Listed, before: datetime) -> set[str]:
    """The ids of what went with it: itself and the nameless images that only it stood on; nothing where it turned out to be in use."""
    async with _one_by_one(docker):
        return await _remove(docker, image, before)


async def _remove(docker: Docker, image: Listed, before: datetime) -> set[str]:
    from aiodocker import DockerError

    try:
        shown = await docker.images.inspect(image.id)
    except DockerError as error:
        if error.status == 404 or LOST.match(error.message):
            return set()
        raise
    known = {*image.names, *image.marks}
    if set(shown.get("RepoTags") or ()) != known or (not image.marks and _tagged_at(shown) >= before):
        return set()
    gone: set[str] = set()
    lost: list[str] = []
    for name in (*image.marks, *image.names) or (image.id,):
        try:
            answers: list[dict[str, str]] = await docker.images.delete(name)
        except DockerError as error:
            if error.status == 404:  # another server is at it, too
                continue
            if error.status not in (409, 500):
                raise
            log.info("image.stays", image=_short(image.id), names=image.names, error=error.message)
            break
        lost.append(name)
        gone |= {one["Deleted"] for one in answers if "Deleted" in one}
    if image.id in gone:
        return gone
    await _name_again(docker, image.id, [name for name in lost if name in image.names])
    return set()


async def _name_again(docker: Docker, image: str, names: Iterable[str]) -> None:
    """It was taken into use while its names were taken away."""
    from aiodocker import DockerError

    for name in names:
        repository, _, tag = name.rpartition(":")
        try:
            await docker.images.tag(image, repository, tag=tag)
        except DockerError as error:
            if error.status != 404 and not LOST.match(error.message):
                raise


def _freed(image: Listed, gone: Collection[str], images: Sequence[Listed]) -> int:
    """Its bytes, but for those of the nearest image it stood on that is still there."""
    if image.id not in gone:
        return 0
    by_id = {one.id: one for one in images}
    below = by_id.get(image.parent)
    while below is not None and below.id in gone:
        below = by_id.get(below.parent)
    return max(0, image.size - (below.size if below else 0))


def _trouble(error: DockerError) -> SandboxError:
    if error.status == 900:
        return no_engine("its address", error)
    return SandboxError(f"the engine does not remove images: {error.message}")


def _short(image: str) -> str:
    return image.removeprefix("sha256:")[:12]


def _repository(name: str) -> str:
    return name.rpartition(":")[0]


def _day(mark: str) -> datetime | None:
    try:
        return datetime.strptime(mark.rpartition("-")[2], "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None


def _tagged_at(shown: Mapping[str, Any]) -> datetime:
    """When the engine saw it given a name last; long ago where that never was."""
    told = str((shown.get("Metadata") or {}).get("LastTagTime") or "0001-01-01T00:00:00")
    return datetime.fromisoformat(told[:19]).replace(tzinfo=UTC)
