"""How the references of a repository on this machine stand, read from its files: to look again and again costs no process while nothing changes.

It never says what a reference is, only whether one may have changed: git writes a new file for each change, so that its inode, size and
times tell. Whatever is not understood is said to be unknown, and git is asked instead.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_FILES = ("HEAD", "packed-refs", "reftable/tables.list", "config", "shallow")


def stand_of(repository: Path) -> str | None:
    """A digest of how the references of a repository (bare, or a work tree) stand; None where that cannot be told."""
    try:
        folder = _git_folder(repository)
        if folder is None:
            return None
        common = _common(folder)
        seen = [_of(folder / "HEAD"), *(_of(common / name) for name in _FILES)]
        pending = [common / "refs"]
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in sorted(entries, key=lambda one: one.name):
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
                    else:
                        seen.append(_told(entry.path, entry.stat()))
    except (OSError, ValueError):
        return None
    return hashlib.sha256("\n".join(seen).encode("utf-8", "surrogateescape")).hexdigest()


def _git_folder(repository: Path) -> Path | None:
    inside = repository / ".git"
    if inside.is_file():
        said = inside.read_text().strip()
        return (repository / said.removeprefix("gitdir: ")).resolve() if said.startswith("gitdir: ") else None
    found = inside if inside.is_dir() else repository
    return found if (found / "HEAD").is_file() and (found / "objects").is_dir() else None


def _common(folder: Path) -> Path:
    """Where the references of a work tree are that has only its HEAD for itself."""
    named = folder / "commondir"
    return (folder / named.read_text().strip()).resolve() if named.is_file() else folder


def _of(path: Path) -> str:
    try:
        return _told(str(path), path.stat())
    except FileNotFoundError:
        return f"{path} -"


def _told(path: str, found: os.stat_result) -> str:
    return f"{path} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
