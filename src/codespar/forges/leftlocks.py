"""What a git left behind that ended with its machine or container: lock files, and while they lie in a repository, nothing can be written to
it; and half-made files, which only take room.

A git that is told to end takes its locks away. Nobody else takes away those of one that could not; half a pack is left by either.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)
LEFT_BEHIND = 60.0  # seconds after which a lock file that was there before us is nobody's any more
_LOCKS = re.compile(
    r".*\.lock|packed-refs\.new"
)  # where the latter lies, git writes no packed references either
_HALVES = re.compile(r"tmp_.*|\.tmp-.*")  # among the objects


class LeftLocks:
    """Those in repositories that are ours alone."""

    def __init__(self, *repositories: Path) -> None:
        self._repositories = repositories
        self._began = time.monotonic()
        self._looks = 0

    async def remove(self) -> None:
        """Remove them: at the first call, and at the first after all that lay there at our start are old enough to be known for left behind."""
        if self._looks == 2 or (self._looks == 1 and time.monotonic() - self._began < LEFT_BEHIND):
            return
        self._looks += 1
        for repository in self._repositories:
            await asyncio.to_thread(remove_left, repository, LEFT_BEHIND, objects=False)


def remove_left(repository: Path, age: float, *, objects: bool) -> bool:
    """Remove the lock files that are older than so many seconds; with `objects`, also the locks and half-made files among those. Returns
    whether there were any.

    Should a git still have been at work on one, it fails, and its reference or pack is not made.
    """
    removed: list[str] = []
    for folder, folders, files in os.walk(repository):
        if Path(folder) == repository and not objects:
            folders[:] = [name for name in folders if name != "objects"]
        inside = Path(folder).relative_to(repository)
        for name in files:
            half = inside.parts[:1] == ("objects",) and _HALVES.fullmatch(name)
            if not (half or _LOCKS.fullmatch(name)):
                continue
            path = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):  # whose it was is done with it
                if time.time() - path.lstat().st_mtime > age:
                    path.unlink()
                    removed.append(str(inside / name))
    if removed:
        log.warning("forge.left_behind", repository=str(repository), removed=removed[:20], count=len(removed))
    return bool(removed)
