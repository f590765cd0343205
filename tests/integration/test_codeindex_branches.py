"""What the code index keeps of branches that are not shown."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from codespar.codeindex import database
from codespar.codeindex.index import SqliteCodeIndex
from codespar.git import GitError
from integration.test_codeindex import FILES, commit


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[SqliteCodeIndex]:
    made = SqliteCodeIndex(tmp_path / "index.sqlite")
    yield made
    await made.close()


def checkout(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "checkout", "-q", *arguments], cwd=folder, check=True)


def ask(tmp_path: Path, query: str) -> int:
    with contextlib.closing(sqlite3.connect(tmp_path / "index.sqlite")) as file:
        return file.execute(query).fetchone()[0]


async def test_a_branch_that_was_taken_in_is_parsed_once_and_not_shown(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    repository = tmp_path / "r"
    main = commit(repository, FILES)
    first = await index.update(repository, main)
    assert first.parsed == 4
    branch = commit(
        repository,
        {"new.py": "def fresh(): ...\n", "web/cart.ts": None, "src/limits.py": "class Limiter: ...\n"},
    )
    stats = await index.take_in(repository, "feature", branch)
    assert (stats.files, stats.changed, stats.symbols, stats.parsed) == (4, 3, 3, 2)
    assert (await index.state()).commit == main
    assert await index.search("fresh") == [] and await index.callers(["fresh"]) == []
    assert [d.name for d in await index.definitions("src/limits.py")] == ["RateLimiter", "allow"]
    again = await index.take_in(repository, "feature", branch)
    assert (again.files, again.changed, again.symbols, again.parsed) == (4, 3, 3, 0)
    merged = await index.update(repository, branch)
    assert (merged.files, merged.changed, merged.symbols, merged.parsed) == (4, 3, 3, 0)
    assert (await index.search("fresh"))[0].path == "new.py"
    assert (await index.update(repository, main)).parsed == 0


async def test_a_branch_can_be_taken_in_before_anything_is_shown(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    repository = tmp_path / "r"
    head = commit(repository, FILES)
    stats = await index.take_in(repository, "main", "HEAD")
    assert (stats.files, stats.parsed, (await index.state()).commit) == (4, 4, None)
    assert (await index.update(repository, head)).parsed == 0


async def test_what_a_branch_needs_is_not_pruned_until_the_branch_is_forgotten(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    repository = tmp_path / "r"
    base = commit(repository, FILES)
    await index.update(repository, base)
    branch = commit(repository, {"kept.py": "def kept(): ...\n"})
    await index.take_in(repository, "feature", branch)
    checkout(repository, base)
    many = commit(repository, {f"f{n}.txt": f"x {n}\n" for n in range(database.MIN_SPARE_BLOBS + 100)})

    async def long_gone() -> None:
        await index.update(repository, many)
        await index.update(repository, base)

    await long_gone()
    assert ask(tmp_path, "SELECT count(*) FROM blobs") == len(FILES) + 1  # pruned, but for the branch's own
    assert (await index.take_in(repository, "feature", branch)).parsed == 0
    await index.forget("feature")
    await index.forget("never seen")
    assert (
        ask(tmp_path, "SELECT count(*) FROM branches")
        == ask(tmp_path, "SELECT count(*) FROM branch_blobs")
        == 0
    )
    await long_gone()
    assert (await index.take_in(repository, "feature", branch)).parsed == 1


async def test_only_so_many_branches_are_kept_and_the_one_longest_not_seen_goes_first(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    repository = tmp_path / "r"
    await index.update(repository, commit(repository, FILES))
    head = commit(repository, {"b.py": "def b(): ...\n"})
    for number in range(database.MAX_BRANCHES):
        await index.take_in(repository, f"b{number}", head)
    await index.take_in(repository, "b0", head)
    await index.take_in(repository, "more", head)
    assert ask(tmp_path, "SELECT count(*) FROM branches") == database.MAX_BRANCHES
    assert ask(tmp_path, "SELECT count(*) FROM branches WHERE name IN ('b0', 'more', 'b2')") == 3
    assert ask(tmp_path, "SELECT count(*) FROM branches WHERE name = 'b1'") == 0


async def test_an_unknown_commit_is_an_error_and_nothing_is_kept(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    repository = tmp_path / "r"
    head = commit(repository, FILES)
    await index.update(repository, head)
    for wrong in ("0" * 40, "--output=/tmp/x", "nowhere", ""):
        with pytest.raises(GitError):
            await index.take_in(repository, "feature", wrong)
    assert ask(tmp_path, "SELECT count(*) FROM branches") == 0
    assert (await index.take_in(repository, "bad \udcff'; name", head)).changed == 0
    await index.forget("bad \udcff'; name")
    assert ask(tmp_path, "SELECT count(*) FROM branches") == 0


async def test_a_branch_that_shares_no_history_and_a_rewritten_one_are_taken_in(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    repository = tmp_path / "r"
    await index.update(repository, commit(repository, FILES))
    checkout(repository, "--orphan", "pages")
    subprocess.run(["git", "rm", "-rqf", "."], cwd=repository, check=True)
    orphan = commit(repository, {"index.html": "<p>hi</p>\n"})
    stats = await index.take_in(repository, "pages", orphan)
    assert (stats.files, stats.changed, stats.parsed) == (1, 5, 1)
    rewritten = commit(repository, {"index.html": "<p>new</p>\n"})
    assert (await index.take_in(repository, "pages", rewritten)).parsed == 1
    assert ask(tmp_path, "SELECT count(*) FROM branch_blobs") == 1


async def test_a_broken_file_found_while_taking_in_shows_again_what_it_showed(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    repository = tmp_path / "r"
    main = commit(repository, FILES)
    await index.update(repository, main)
    branch = commit(repository, {"new.py": "def fresh(): ...\n"})
    await index.close()
    (tmp_path / "index.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 9000)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"index.sqlite{suffix}").unlink(missing_ok=True)
    stats = await index.take_in(repository, "feature", branch)
    assert (stats.files, stats.changed) == (5, 1)
    assert (await index.state()).commit == main
    assert (await index.search("RateLimiter"))[0].symbol == "RateLimiter"


async def test_updates_and_branches_taken_in_together_take_turns(
    tmp_path: Path, index: SqliteCodeIndex
) -> None:
    repository = tmp_path / "r"
    heads = [commit(repository, FILES | {"n.py": f"def version_{n}(): ...\n"}) for n in range(4)]
    await asyncio.gather(
        index.update(repository, heads[0]),
        *(index.take_in(repository, f"b{n}", head) for n, head in enumerate(heads)),
        *(index.callers(["RateLimiter"]) for _ in range(4)),
        index.forget("b1"),
    )
    assert (await index.state()).commit == heads[0]
    assert [(await index.update(repository, head)).parsed for head in heads] == [0, 0, 0, 0]
