"""The whole server in this process, stopped while it still starts and while a part of it hangs or fails."""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from codespar.app import App
from codespar.app.stopping import cancelled
from codespar.codeindex.index import SqliteCodeIndex
from codespar.config import load_settings
from codespar.store.base import StoreError

SEED = random.randrange(10**6) if os.environ.get("CODESPAR_EXPLORE") else 1


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "shop"
    path.mkdir()
    (path / "a.py").write_text("a = 1\n")
    for words in ("init -q", "add .", "-c user.name=a -c user.email=a@example.org commit -qm start"):
        subprocess.run(["git", *words.split()], cwd=path, check=True)
    return path


def make(folder: Path, repository: Path) -> App:
    folder.mkdir(exist_ok=True)
    document = {"data_dir": "data", "projects": [{"name": "shop", "repository": str(repository)}]}
    (folder / "codespar.yaml").write_text(json.dumps(document))
    return App(load_settings(folder / "codespar.yaml", os.environ))


async def test_a_stop_at_any_moment_of_the_start_ends_soon(tmp_path: Path, repository: Path) -> None:
    """With the engine on its way in every second one. Each start finds what the stop before it left."""
    chance, took = random.Random(SEED), list[float]()
    for number in range(20):
        delay = chance.random() * 0.2
        app = make(tmp_path / "house", repository)
        await app.start()
        engine = asyncio.create_task(app.start_engine()) if number % 2 else None
        await asyncio.sleep(delay)
        began = time.monotonic()
        async with asyncio.timeout(60):
            await cancelled(engine)
            left = await app.stop()
        assert not left, f"{left} did not end; seed {SEED}, {number}, after {delay:.3f} s"
        took.append(time.monotonic() - began)
    assert statistics.median(took) < 2, f"seed {SEED}: {took}"


async def test_a_server_that_was_never_started_is_stopped_as_any(tmp_path: Path, repository: Path) -> None:
    assert await make(tmp_path / "house", repository).stop() == []


class Refusing(SqliteCodeIndex):
    """An index whose end fails."""

    async def close(self) -> None:
        raise OSError("the disk is gone")


class Endless(SqliteCodeIndex):
    """An index that never ends."""

    async def close(self) -> None:
        await asyncio.Event().wait()


async def test_what_fails_and_what_hangs_is_told_and_the_store_is_closed_all_the_same(
    tmp_path: Path, repository: Path
) -> None:
    app = make(tmp_path / "house", repository)
    await app.start()
    app.projects.indexes["bad"] = Refusing(tmp_path / "bad.sqlite")
    app.projects.indexes["other"] = Endless(tmp_path / "other.sqlite")
    with capture_logs() as logged:
        left = await app.stop(0.3)
    assert left == ["index of other"]
    told = [(one["event"], one["part"]) for one in logged if one["event"].startswith("stop.")]
    assert told == [("stop.failed", "index of bad"), ("stop.not_ended", "index of other")]
    with pytest.raises(StoreError, match="closed"):
        await app.store.write(lambda unit: unit.projects())
