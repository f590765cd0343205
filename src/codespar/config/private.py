"""Small files that their owner alone may read: tokens, secrets, and what tells one installation from another.

Such a file is there whole or not at all, and no other user can ever read a byte of it. What lies in its place, a link that somebody laid there
included, is replaced and never written through.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Have the file hold `text`, with mode 0600; its folder is made with mode 0700 where it is missing.

    Raises `OSError`, and then the file is as it was before. It waits for the disk: on the loop it is called in a thread.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)  # mode 0600
    unfinished = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def kept_private(path: Path, make: Callable[[], str]) -> str:
    """The one line that stands in the file; where there is none, what `make` gives, which stands there from now on. Raises `OSError`."""
    try:
        if found := path.read_text(encoding="utf-8").strip():
            return found
    except FileNotFoundError:
        pass
    made = make()
    write_private(path, made + "\n")
    return made
