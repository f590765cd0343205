"""Lock files of a git that ended with its machine or container: while they lie in a repository, nothing can be written to it.

A git that is told to end takes its own away. Nobody else takes away those of one that could not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)
LEFT_BEHIND = 60.0  # seconds after which a lock file that was there before us is nobody's any more


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
            if removed := await asyncio.to_thread(_remove, repository):
                log.warning("forge.locks_left_behind", repository=str(repository), removed=removed)


def _remove(repository: Path) -> list[str]:
    removed: list[str] = []
    for folder, folders, files in os.walk(repository):
        if Path(folder) == repository:
            folders[:] = [name for name in folders if name != "objects"]
        for path in (Path(folder, name) for name in files if name.endswith(".lock")):
            with contextlib.suppress(FileNotFoundError):  # whose it was is done with it
                if time.time() - path.lstat().st_mtime > LEFT_BEHIND:
                    path.unlink()
                    removed.append(str(path.relative_to(repository)))
    return removed
