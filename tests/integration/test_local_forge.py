"""The embedded forge on real git repositories."""

from __future__ import annotations

import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codespar.forges.base import (
    Check,
    MergeMethod,
    NotMergeable,
    PatchRefused,
    PullState,
    PushRefused,
    RepositoryUnusable,
)
from codespar.forges.local import LocalForge

AT = datetime(2026, 1, 2, tzinfo=UTC)


def sh(cwd: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    return subprocess.run(["git", *arguments], cwd=cwd, input=stdin, check=True, capture_output=True).stdout


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A bare repository whose default branch is not called main, with an odd file name in it."""
    work, bare = tmp_path / "seed", tmp_path / "remote.git"
    work.mkdir()
    sh(work, "init", "-q", "-b", "trunk")
    (work / "a.txt").write_text("one\n")
    (work / "ode to\tjoy é.txt").write_text("x\n")
    sh(work, "add", "-A")
    sh(work, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "first")
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    return bare


@pytest.fixture
def forge(tmp_path: Path, remote: Path) -> LocalForge:
    return LocalForge(tmp_path / "forge", str(remote))


def patch_of(tmp_path: Path, remote: Path, edit) -> bytes:
    """The patch a task would bring out."""
    work = tmp_path / f"work-{len(list(tmp_path.iterdir()))}"
    subprocess.run(["git", "clone", "-q", str(remote), str(work)], check=True)
    edit(work)
    sh(work, "add", "-A")
    return sh(work, "diff", "--cached", "--binary", "--full-index", "HEAD")


async def opened(forge: LocalForge, patch: bytes, branch: str):
    base_branch, base = await forge.sync()
    commit = await forge.import_patch(
        base_commit=base, patch=patch, branch=branch, message="feat: x\n", author="Ada", at=AT
    )
    await forge.push(branch=branch, commit=commit)
    return await forge.open_pull(
        branch=branch,
        commit=commit,
        base_branch=base_branch,
        base_commit=base,
        title="feat: x",
        body="",
        author="Ada",
        at=AT,
    )


async def test_a_change_becomes_a_branch_and_a_numbered_pull_request(
    tmp_path: Path, remote: Path, forge: LocalForge
) -> None:
    patch = patch_of(tmp_path, remote, lambda w: (w / "b c.txt").write_text("1\n2\n"))
    pull = await opened(forge, patch, "codespar/task-1-x")
    assert (pull.number, pull.additions, pull.base_branch, pull.files[0].path) == (1, 2, "trunk", "b c.txt")
    assert sh(remote, "rev-parse", "refs/heads/codespar/task-1-x").decode().strip() == pull.head_commit
    assert "+2" in await forge.diff(pull.base_commit, pull.head_commit)


async def test_everything_done_twice_leaves_one_trace(
    tmp_path: Path, remote: Path, forge: LocalForge
) -> None:
    patch = patch_of(tmp_path, remote, lambda w: (w / "b.txt").write_text("1\n"))
    first, second = await opened(forge, patch, "codespar/t"), await opened(forge, patch, "codespar/t")
    assert first == second
    check = Check(name="tests", passed=True, at=AT)
    await forge.set_check(1, check)
    assert (await forge.set_check(1, check)).checks == (check,)
    assert len(await forge.list_pulls()) == 1


@pytest.mark.parametrize("method", list(MergeMethod))
async def test_each_way_to_merge_lands_on_the_default_branch_once(
    tmp_path: Path, remote: Path, forge: LocalForge, method: MergeMethod
) -> None:
    pull = await opened(
        forge, patch_of(tmp_path, remote, lambda w: (w / "b.txt").write_text("1\n")), "codespar/t"
    )
    merged = await forge.merge(1, method=method, head_commit=pull.head_commit, author="Grace", at=AT)
    again = await forge.merge(1, method=method, head_commit=pull.head_commit, author="Grace", at=AT)
    assert merged.state is PullState.MERGED and again.merge_commit == merged.merge_commit
    assert sh(remote, "rev-parse", "trunk").decode().strip() == merged.merge_commit
    assert sh(remote, "show", "trunk:b.txt") == b"1\n"


async def test_a_head_that_moved_is_not_merged(tmp_path: Path, remote: Path, forge: LocalForge) -> None:
    await opened(forge, patch_of(tmp_path, remote, lambda w: (w / "b.txt").write_text("1\n")), "codespar/t")
    with pytest.raises(NotMergeable, match="look at it again"):
        await forge.merge(1, method=MergeMethod.MERGE, head_commit="f" * 40, author="G", at=AT)


async def test_conflicting_pull_requests_are_predicted(
    tmp_path: Path, remote: Path, forge: LocalForge
) -> None:
    await opened(forge, patch_of(tmp_path, remote, lambda w: (w / "a.txt").write_text("two\n")), "codespar/a")
    await opened(
        forge, patch_of(tmp_path, remote, lambda w: (w / "a.txt").write_text("three\n")), "codespar/b"
    )
    await opened(forge, patch_of(tmp_path, remote, lambda w: (w / "z.txt").write_text("z\n")), "codespar/c")
    assert [(c.other, c.paths) for c in await forge.conflicts(2)] == [(1, ("a.txt",))]
    assert await forge.conflicts(3) == []


async def test_unmerged_work_is_not_in_what_tasks_see(
    tmp_path: Path, remote: Path, forge: LocalForge
) -> None:
    pull = await opened(
        forge, patch_of(tmp_path, remote, lambda w: (w / "b.txt").write_text("1\n")), "codespar/t"
    )
    assert (
        subprocess.run(["git", "cat-file", "-e", pull.head_commit], cwd=forge.base_repository).returncode != 0
    )


@pytest.mark.parametrize(
    ("name", "target"), [("link", "/etc/passwd"), ("link", "../../outside"), ("sub/link", "../../x")]
)
async def test_links_out_of_the_tree_are_refused(
    tmp_path: Path, remote: Path, forge: LocalForge, name: str, target: str
) -> None:
    def edit(work: Path) -> None:
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).symlink_to(target)

    with pytest.raises(PatchRefused, match="link out of"):
        await opened(forge, patch_of(tmp_path, remote, edit), "codespar/t")


async def test_a_patch_that_does_not_apply_or_changes_nothing_is_refused(forge: LocalForge) -> None:
    bad = b"diff --git a/a.txt b/a.txt\n--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-nine\n+ten\n"
    with pytest.raises(PatchRefused, match="does not apply"):
        await opened(forge, bad, "codespar/t")


async def test_a_refused_push_tells_the_remotes_own_words(
    tmp_path: Path, remote: Path, forge: LocalForge
) -> None:
    hook = remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'no pushes on Friday' >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(PushRefused, match="no pushes on Friday"):
        await opened(
            forge, patch_of(tmp_path, remote, lambda w: (w / "b.txt").write_text("1\n")), "codespar/t"
        )


async def test_unusable_repositories_say_what_to_do(tmp_path: Path) -> None:
    empty = tmp_path / "empty.git"
    subprocess.run(["git", "init", "-q", "--bare", str(empty)], check=True)
    with pytest.raises(RepositoryUnusable, match="first file"):
        await LocalForge(tmp_path / "f1", str(empty)).sync()
    with pytest.raises(RepositoryUnusable, match="Check the path"):
        await LocalForge(tmp_path / "f2", str(tmp_path / "nowhere")).sync()


async def test_the_base_branch_may_move_between_tasks(
    tmp_path: Path, remote: Path, forge: LocalForge
) -> None:
    _, before = await forge.sync()
    pull = await opened(
        forge, patch_of(tmp_path, remote, lambda w: (w / "b.txt").write_text("1\n")), "codespar/t"
    )
    await forge.merge(1, method=MergeMethod.SQUASH, head_commit=pull.head_commit, author="G", at=AT)
    assert (await forge.sync())[1] != before


async def test_lock_files_that_a_power_cut_left_are_removed_and_those_in_use_are_not(
    tmp_path: Path, remote: Path, forge: LocalForge
) -> None:
    await forge.sync()
    left = [
        forge.base / "HEAD.lock",
        forge.base / "packed-refs.new",
        forge.full / "packed-refs.lock",
        forge.full / "refs" / "heads" / "a.lock",
    ]
    used = forge.full / "shallow.lock"
    for lock in (*left, used):
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    for lock in left:
        os.utime(lock, (time.time() - 120, time.time() - 120))
    sh(remote, "branch", "-q", "next")
    sh(remote, "symbolic-ref", "HEAD", "refs/heads/next")
    after = LocalForge(forge.folder, str(remote))
    assert (await after.sync())[0] == "next"
    assert not any(lock.exists() for lock in left)
    assert used.exists()
