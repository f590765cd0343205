"""The code index on real git repositories."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from codespar.codeindex.extract import Source
from codespar.codeindex.index import SqliteCodeIndex, _batches  # pyright: ignore[reportPrivateUsage]
from codespar.codeindex.worker import Worker, WorkerLostError
from codespar.git import GitError


def commit(folder: Path, files: dict[str, str | None]) -> str:
    """Write (None: remove) the files and commit. Returns the commit."""
    if not (folder / ".git").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    subprocess.run(["git", *who, "commit", "-qm", "x", "--allow-empty"], cwd=folder, check=True)
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


FILES: dict[str, str | None] = {
    "src/limits.py": "class RateLimiter:\n    def allow(self, key): ...\n",
    "src/app.py": "from limits import RateLimiter\n\ndef serve_requests():\n    return RateLimiter().allow('x')\n",
    "docs/rate limit ö.md": "How throttling is configured.\n",
    "web/cart.ts": "export function addToCart(id: string) { return id; }\n",
}


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[SqliteCodeIndex]:
    made = SqliteCodeIndex(tmp_path / "cache" / "index.sqlite")
    yield made
    await made.close()


async def test_search_ranks_symbols_before_paths_before_text(tmp_path: Path, index: SqliteCodeIndex) -> None:
    stats = await index.update(tmp_path / "r", commit(tmp_path / "r", FILES))
    assert (stats.files, stats.changed, stats.symbols) == (4, 4, 4)
    assert next(h.symbol for h in await index.search("RateLimiter")) == "RateLimiter"
    hits = await index.search("rate limit")
    assert hits[0].path == "src/limits.py" and hits[0].line == 1 and hits[0].snippet == "class RateLimiter:"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert {"docs/rate limit ö.md", "src/app.py"} <= {hit.path for hit in hits}
    text = (await index.search("throttling"))[0]
    assert (text.path, text.line, text.kind) == ("docs/rate limit ö.md", 1, "text")
    assert len(await index.search("rate limit", limit=1)) == 1
    assert await index.search("") == [] and await index.search('"*^:-') == []


async def test_an_update_shows_changed_and_removed_files_and_reads_only_new_blobs(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    first = commit(tmp_path / "r", FILES)
    await index.update(tmp_path / "r", first)
    moved = {
        "src/limits.py": None,
        "lib/throttle.py": "class Throttle: ...\n",
        "web/cart.ts": "export function dropCart() {}\n",
    }
    stats = await index.update(tmp_path / "r", commit(tmp_path / "r", moved))
    assert (stats.files, stats.changed) == (4, 3)
    assert [h for h in await index.search("RateLimiter") if h.path == "src/limits.py"] == []
    assert (await index.search("Throttle"))[0].path == "lib/throttle.py"
    assert await index.search("addToCart") == [] or all(
        h.symbol != "addToCart" for h in await index.search("addToCart")
    )
    await index.update(tmp_path / "r", first)
    assert (await index.search("addToCart"))[0].symbol == "addToCart"


async def test_what_is_no_text_is_listed_and_not_parsed(tmp_path: Path, index: SqliteCodeIndex) -> None:
    commit(
        tmp_path / "r",
        {"a.py": "def a(): ...\n", "huge.py": "x = 1\n" * 200_000, "logo.png": "def png(): ..."},
    )
    (tmp_path / "r" / "bin.py").write_bytes(b"def b(): ...\0")
    os.symlink("/etc/passwd", tmp_path / "r" / "link.py")
    stats = await index.update(tmp_path / "r", commit(tmp_path / "r", {}))
    assert (stats.files, stats.symbols) == (5, 1)
    assert (await index.search("link"))[0].path == "link.py"


async def test_the_map_shows_what_matters_within_its_budget_and_always_alike(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    assert await index.repository_map("anything") == ""
    many: dict[str, str | None] = {f"pkg/m{n}.py": f"def helper_number_{n}(): ...\n" for n in range(60)}
    await index.update(tmp_path / "r", commit(tmp_path / "r", FILES | many))
    drawn = await index.repository_map("raise the rate limit for requests", 400)
    assert len(drawn) <= 400 and drawn.startswith("src/limits.py:\n  class RateLimiter:\n    def allow")
    assert "src/app.py:" in drawn
    assert drawn == await index.repository_map("raise the rate limit for requests", 400)


async def test_a_broken_file_is_rebuilt(tmp_path: Path) -> None:
    path, head = tmp_path / "index.sqlite", commit(tmp_path / "r", FILES)
    path.write_bytes(b"no database at all" * 100)
    index = SqliteCodeIndex(path)
    assert (await index.update(tmp_path / "r", head)).files == 4
    await index.close()
    with sqlite3.connect(path) as old:
        old.execute("PRAGMA user_version=99")
    old.close()
    assert (await index.update(tmp_path / "r", head)).changed == 4
    assert (await index.search("RateLimiter"))[0].symbol == "RateLimiter"
    await index.close()


async def test_concurrent_updates_take_turns_and_searches_go_on(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    heads = [commit(tmp_path / "r", FILES | {"n.py": f"def version_{n}(): ...\n"}) for n in range(4)]
    await index.update(tmp_path / "r", heads[0])
    results = await asyncio.gather(
        *(index.update(tmp_path / "r", head) for head in heads),
        *(index.search("RateLimiter") for _ in range(8)),
    )
    assert all(found for found in results[4:])
    assert (await index.search("version_3"))[0].symbol == "version_3"


async def test_an_unknown_commit_is_an_error_and_changes_nothing(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    await index.update(tmp_path / "r", commit(tmp_path / "r", FILES))
    for wrong in ("0" * 40, "--output=/tmp/x", "nowhere"):
        with pytest.raises(GitError):
            await index.update(tmp_path / "r", wrong)
    assert await index.search("RateLimiter")


async def test_a_rewritten_history_is_followed(tmp_path: Path, index: SqliteCodeIndex) -> None:
    await index.update(tmp_path / "r", commit(tmp_path / "r", FILES))
    stats = await index.update(
        tmp_path / "other", commit(tmp_path / "other", {"new.go": "package p\nfunc Fresh() {}\n"})
    )
    assert stats.files == 1 and (await index.search("Fresh"))[0].path == "new.go"
    assert await index.search("RateLimiter") == []


async def test_a_large_build_uses_processes_and_prunes_what_is_long_gone(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    for turn in range(3):
        files: dict[str, str | None] = {
            f"d{n % 9}/f{n}.py": f"def work_{turn}_{n}(): ...\n" for n in range(600)
        }
        stats = await index.update(tmp_path / "r", commit(tmp_path / "r", files))
    assert (stats.files, stats.symbols) == (600, 600)
    assert (await index.search("work_2_77"))[0].symbol == "work_2_77"
    await index.close()
    with sqlite3.connect(tmp_path / "cache" / "index.sqlite") as file:
        (blobs,) = file.execute("SELECT count(*) FROM blobs").fetchone()
        (names,) = file.execute("SELECT count(*) FROM name_words").fetchone()
    file.close()
    assert blobs == names == 600


async def test_a_build_killed_midway_leaves_the_old_commit_and_is_finished_later(tmp_path: Path) -> None:
    file, repository = tmp_path / "index.sqlite", tmp_path / "r"
    first = commit(repository, FILES)
    index = SqliteCodeIndex(file)
    await index.update(repository, first)
    await index.close()
    many: dict[str, str | None] = {f"m/f{n}.py": f"def work_{n}(): ...\n" * 30 for n in range(2500)}
    second = commit(repository, many)
    code = (
        "import asyncio, sys; from pathlib import Path; from codespar.codeindex.index import SqliteCodeIndex;"
        "asyncio.run(SqliteCodeIndex(Path(sys.argv[1])).update(Path(sys.argv[2]), sys.argv[3]))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(file), str(repository), second
    )
    while not await asyncio.to_thread(_blobs, file) > len(FILES):
        assert process.returncode is None
        await asyncio.sleep(0.02)
    process.kill()
    await process.wait()
    assert (await index.search("RateLimiter"))[0].symbol == "RateLimiter"
    assert all(not hit.path.startswith("m/") for hit in await index.search("work_7"))
    assert (await index.update(repository, second)).files == 2504
    assert (await index.search("work_2499"))[0].symbol == "work_2499"
    await index.close()


def _blobs(file: Path) -> int:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT count(*) FROM blobs").fetchone()[0]


async def test_a_parsing_process_that_dies_is_told_and_replaced() -> None:
    worker = Worker()
    sources = [Source("k", "python", b"def go(): ...\n")]
    assert (await worker.extract(sources))[0].symbols[0][0] == "go"
    assert worker._process is not None
    worker._process.kill()
    with pytest.raises(WorkerLostError):
        await worker.extract(sources)
    assert (await worker.extract(sources))[0].symbols[0][0] == "go"
    await worker.close()


async def test_content_read_in_part_is_left_at_once_though_git_waits_to_print_more(tmp_path: Path) -> None:
    many = {f"{number}.txt": f"word{number} \n" * 90_000 for number in range(30)}
    head = commit(tmp_path / "r", many)
    listed = subprocess.run(
        ["git", "ls-tree", head], cwd=tmp_path / "r", check=True, capture_output=True, text=True
    ).stdout
    batches = _batches(tmp_path / "r", [line.split()[2] + " " for line in listed.splitlines()])
    async with asyncio.timeout(60):
        await anext(batches)
        await asyncio.sleep(0.3)
        await batches.aclose()


async def test_a_file_on_which_a_grammar_does_not_end_costs_its_own_symbols_alone(
    tmp_path: Path, index: SqliteCodeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codespar.codeindex.index.PATIENCE", 4.0)
    head = commit(tmp_path / "r", {"slow.rs": 'r#"' * 200_000, "fine.py": "def quick(): ...\n"})
    assert (await index.update(tmp_path / "r", head)).files == 2
    assert [hit.path for hit in await index.search("quick")] == ["fine.py"]


async def test_a_corrupt_blob_is_gits_error(tmp_path: Path, index: SqliteCodeIndex) -> None:
    head = commit(tmp_path / "r", {"a.md": "".join(f"line {number}\n" for number in range(20_000))})
    blob = subprocess.run(
        ["git", "rev-parse", f"{head}:a.md"], cwd=tmp_path / "r", check=True, capture_output=True, text=True
    ).stdout.strip()
    path = tmp_path / "r" / ".git" / "objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(GitError):
        await index.update(tmp_path / "r", head)


async def test_words_that_are_no_words_are_searched_for_without_an_error(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    await index.update(tmp_path / "r", commit(tmp_path / "r", FILES))
    assert (await index.search("__ " * 12 + "RateLimiter"))[0].symbol == "RateLimiter"
