"""`codespar init`: a commented `codespar.yaml`. An existing file is never overwritten: it is refused, or kept under another name."""

from __future__ import annotations

from pathlib import Path

from codespar.domain.base import CodesparError

NEXT = """\
Name your repository under `projects:`, then run `codespar doctor` and `codespar up`.
To talk to it in chat, set a platform up under `channels:` (docs/channels/ has a page for each). At its first start with one, `codespar up`
prints a one-time code: send it to the bot in a direct message, as `register <code>`, and you are its owner there."""


def write_example(path: Path, *, force: bool) -> tuple[Path, Path | None]:
    """Write the example there. Returns it and, with `force`, the name the old file is kept under. Raises `CodesparError`."""
    from codespar.config import example_config

    kept = _set_aside(path) if force and path.exists() else None
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(example_config())
    except FileExistsError as error:
        raise CodesparError(
            f"{path} exists and is not touched. `codespar doctor` checks it; `codespar init --force` sets it aside and writes a new one."
        ) from error
    except OSError as error:
        raise CodesparError(
            f"{path} cannot be written: {error.strerror}. Run this in a folder you may write to."
        ) from error
    return path, kept


def _set_aside(path: Path) -> Path:
    number = 1
    while (kept := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    return path.rename(kept)
