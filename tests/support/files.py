"""The files of a server that goes on working: some are there at one moment and not at the next."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below it that is no link, with what is in it. What is taken away meanwhile is left out."""
    for top, _, names in os.walk(folder):
        for path in (Path(top, name) for name in names):
            with suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink():
                    yield path, path.read_bytes()
