"""Our repositories stay quick through the months: what fetches, pushes and records leave loose is packed when there is much of it.

Nothing in them is ever thrown away, whether anything refers to it or not: not what a task's container reads, not what a git has written
whose reference is not set yet. Git packs a copy first and then takes away only what is in it, so that killed anywhere, all is there; who reads
meanwhile finds it in the one place or the other. No lock is held that a task waits for: git's own are enough, and are held for moments.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from codespar import git
from codespar.forges.leftlocks import remove_left

log = structlog.get_logger(__name__)

LOOSE = 2000  # objects with a file of their own, above which they are packed
PACKS = 30  # above which the smaller ones are made one: geometric packing leaves about log2(objects) at most
REFS = 500  # references with a file of their own, above which they are packed
LEFT = 3600.0  # seconds after which no git of ours can be at work on a lock or a half-made file
MOST = 3600.0  # seconds for the packing of one repository
ROOM = 2 * 1024**3  # bytes that stay free on the disk while a pack is made
_GRAPH = Path("objects", "info", "commit-graph")
_PACKS = Path("objects", "pack")


@dataclass(frozen=True)
class Look:
    """What there is in a repository."""

    loose: int  # objects
    packs: int
    refs: int  # with a file of their own
    files: int
    bytes: int


async def pack_repositories(repos: Path) -> tuple[int, int]:
    """Pack those of the projects' repositories in which there is much loose; `repos` has a folder a project. Returns by how many files and
    about how many bytes they are smaller. What cannot be packed is logged, and stays as it is."""
    files = freed = 0
    with _alone(repos) as alone:
        for repository in await asyncio.to_thread(_repositories, repos) if alone else ():
            try:
                before, after = await _pack(repository)
            except (git.GitError, OSError) as error:
                log.warning("housekeeping.not_packed", repository=str(repository), error=str(error))
                continue
            files += max(0, before.files - after.files)
            freed += max(0, before.bytes - after.bytes)
    return files, freed


async def _pack(repository: Path) -> tuple[Look, Look]:
    """How it was, and how it is now."""
    before = await asyncio.to_thread(look, repository)
    changed = await asyncio.to_thread(remove_left, repository, LEFT, objects=True)
    if before.refs > REFS:
        await _git(repository, "pack-refs", "--all")
        changed = True
    if much := before.loose > LOOSE or before.packs > PACKS:
        if shutil.disk_usage(repository).free - before.bytes < ROOM:
            wanted = (before.bytes + ROOM) // 1024**2
            raise OSError(f"to pack it safely takes {wanted} MiB of free disk: make room there")
        await _roll_up(repository, before.loose)
        changed = True
    # what borrows objects uses the lender's graph as well, and has few commits of its own
    if not _lender(repository) and (much or (before.packs and not (repository / _GRAPH).exists())):
        await _git(repository, "commit-graph", "write", "--reachable", "--no-progress")
    return before, (await asyncio.to_thread(look, repository) if changed else before)


async def _roll_up(repository: Path, loose: int) -> None:
    """Make one pack of the loose objects and the smaller packs, so many of these that each that stays is at least twice as large as all smaller
    ones together: as `git repack --geometric=2` does, which gives up for good where a pack and its like at the lender's have one name (2.39)."""
    taken, kept = await asyncio.to_thread(_divided, repository / _PACKS, loose)
    lent = _lender(repository)
    others = {*kept, *(await asyncio.to_thread(_sizes, lent / "pack") if lent else ())} - {*taken}
    asked = "".join(f"{name}.pack\n" for name in taken) + "".join(f"^{name}.pack\n" for name in others)
    how = ("--unpacked", "--delta-base-offset", "--threads=1", "--window-memory=64m", "-q", "--non-empty")
    packing = ("-c", "core.bigFileThreshold=16m", "pack-objects", "--stdin-packs", *how, str(_PACKS / "pack"))
    made = {f"pack-{id}" for id in (await _git(repository, *packing, stdin=asked.encode())).split()}
    await asyncio.to_thread(_remove_packs, repository / _PACKS, {*taken} - made)
    await _git(repository, "prune-packed", "-q")


def _divided(folder: Path, loose: int) -> tuple[list[str], list[str]]:
    """The names of the packs to roll up with so many loose objects, and of those that stay."""
    sizes = sorted((size, name) for name, size in _sizes(folder).items())
    names, together, count = [name for _, name in sizes], loose, 0
    for place, (size, _) in enumerate(sizes):
        if size < 2 * together:
            count = place + 1
        together += size
    return names[:count], names[count:]


def _sizes(folder: Path) -> dict[str, int]:
    """The number of objects in each pack that git sees, but for those that somebody set aside."""
    found: dict[str, int] = {}
    for index in folder.glob("pack-*.idx"):
        if not any(index.with_suffix(special).exists() for special in (".keep", ".promisor", ".mtimes")):
            with suppress(FileNotFoundError), index.with_suffix(".pack").open("rb") as pack:
                found[index.stem] = int.from_bytes(pack.read(12)[8:])
    return found


def _remove_packs(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        # the index first: git does not look at a pack without one
        for suffix in (".idx", ".rev", ".bitmap", ".pack"):
            (folder / name).with_suffix(suffix).unlink(missing_ok=True)


def _lender(repository: Path) -> Path | None:
    """The folder of the objects that it borrows."""
    try:
        borrowed = (repository / "objects" / "info" / "alternates").read_text().strip()
    except FileNotFoundError:
        return None
    return repository / "objects" / borrowed


async def _git(repository: Path, *arguments: str, stdin: bytes | None = None) -> str:
    return await git.run(*arguments, cwd=repository, stdin=stdin, timeout=MOST, idle=True)


@contextmanager
def _alone(repos: Path) -> Generator[bool]:
    """Whether nobody else packs there meanwhile: `codespar clean` may run beside a server. False also where nothing is there."""
    try:
        opened = os.open(repos, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            log.warning("housekeeping.not_packed", repository=str(repos), error=str(error))
        yield False
        return
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    except BlockingIOError:
        alone = False
    try:
        yield alone
    finally:
        os.close(opened)


def _repositories(repos: Path) -> list[Path]:
    """Those that a mirror made, a lender before who borrows from it. No link is followed."""
    return [
        Path(repository)
        for project in _folders(repos)
        for repository in _folders(project)
        if repository.endswith(".git") and Path(repository, "HEAD").is_file()
    ]


def _folders(folder: str | Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError as error:
        log.warning("housekeeping.not_packed", repository=str(folder), error=str(error))
        return []


def look(repository: Path) -> Look:
    """Count what is in a repository."""
    loose = packs = refs = count = size = 0
    for folder, _, files in os.walk(repository):
        kind, _, below = os.path.relpath(folder, repository).partition(os.sep)
        for name in files:
            try:
                found = Path(folder, name).lstat()
            except FileNotFoundError:  # git took it away just now
                continue
            count += 1
            size += found.st_blocks * 512
            loose += kind == "objects" and len(below) == 2
            packs += kind == "objects" and below == "pack" and name.endswith(".pack")
            refs += kind == "refs"
    return Look(loose, packs, refs, count, size)
