"""Files that are there whole or not at all, whenever the server ends: each is made beside its place and put there by one move."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Have the file hold `content`. One writer at a time for a path, in a folder that is there. It waits for the disk. Raises `OSError`."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_bytes(content)
    unfinished.replace(path)
