"""Sees to it that the engine has the container images of this release: the one that tasks run in, and the analysers'.

Takes a second when they are there, and minutes on an engine that never had them. One process builds at a time; the others wait for it. What
the builds need again is kept in `CODESPAR_TEST_CACHE`, else in /var/tmp/codespar-test-cache.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from pathlib import Path

from codespar.app.sandbox import ensure_standard_image, make_sandbox
from codespar.config import Settings
from codespar.domain.base import CodesparError
from codespar.sandbox.analysersimage import AnalysersImage


def say(line: str) -> None:
    sys.stdout.write(f"codespar: {line}\n")
    sys.stdout.flush()


async def build(folder: Path) -> None:
    """Raises `SandboxError`."""
    sandbox = make_sandbox(Settings(data_dir=folder))
    try:
        await ensure_standard_image(sandbox, say)
        await AnalysersImage(sandbox.image).ensure(say)
    finally:
        await sandbox.close()


def main() -> int:
    folder = Path(os.environ.get("CODESPAR_TEST_CACHE", "/var/tmp/codespar-test-cache"))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "building").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        try:
            asyncio.run(build(folder))
        except CodesparError as error:
            sys.stderr.write(f"codespar: the container images could not be built: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
