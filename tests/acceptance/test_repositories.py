"""Every kind of repository: what comes out is a correct pull request, or an error that says what to do and loses nothing.

The tasks of all kinds run side by side in one server, started by the first test that needs one; each test then looks at its own.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio

from codespar.cli.client import Refused
from codespar.scripted.script import Library
from support.files import contents
from support.githttp import GitServer
from support.house import House
from support.kinds import (
    GITLINK,
    KINDS,
    LFS,
    ODD_BYTES,
    WRITES,
    Kind,
    Outcome,
    changed,
    content,
    does,
    one_file,
    raw,
    snapshot,
    worktree,
)
from support.repositories import branches, commit, git, repository

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

PASSWORD = "s3kret/p@ss word"
SIDE_BY_SIDE = 5  # tasks of the kinds at a time

SCRIPTS = Library(
    {f"kind {name}:": kind.script for name, kind in KINDS.items()}
    | {
        "one way": does("echo one > hello.txt"),
        "other way": does("echo other > hello.txt"),
        "while the branch moves": does("echo new > new.txt", seconds=4),
        "write a file": WRITES,
    }
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, docker_engine: str) -> AsyncIterator[House]:
    async with House(tmp_path_factory.mktemp("house"), SCRIPTS) as house:
        yield house


Finished = Callable[[str], Awaitable[Outcome]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def finished(house: House, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Finished]:
    """Run all kinds side by side; the function waits for the one named."""
    folder = tmp_path_factory.mktemp("kinds")
    gate = asyncio.Semaphore(SIDE_BY_SIDE)

    async def run(name: str, kind: Kind) -> Outcome:
        async with gate:
            place = folder / name
            place.mkdir()
            path = await asyncio.to_thread(kind.make, place)
            await house.link(name, kind.url(path))
            id = await house.instruct(name, f"kind {name}: do it")
            deadline = asyncio.get_running_loop().time() + 480
            while (task := await house.task(id))["status"] not in (
                "completed",
                "failed",
                "cancelled",
                "waiting",
            ):
                assert asyncio.get_running_loop().time() < deadline, (name, task["phase"])
                await asyncio.sleep(0.1)
            return Outcome(path, task)

    runs = {name: asyncio.create_task(run(name, kind)) for name, kind in KINDS.items()}

    async def wait(name: str) -> Outcome:
        return await runs[name]

    yield wait
    for task in runs.values():
        task.cancel()
    await asyncio.gather(*runs.values(), return_exceptions=True)


# what cannot be linked says so


async def refused_link(house: House, name: str, source: Path | str) -> str:
    with pytest.raises(Refused) as refusal:
        await house.link(name, source)
    known = [project["name"] for project in (await house.client.get("/api/v1/projects"))["projects"]]
    assert name not in known, "a repository that was refused is not linked"
    return str(refusal.value)


async def test_an_empty_repository_is_refused_until_it_has_a_commit(house: House, tmp_path: Path) -> None:
    path = tmp_path / "empty.git"
    git("init", "-q", "--bare", str(path), cwd=tmp_path)
    assert "is empty: commit and push a first file, then try again" in await refused_link(
        house, "empty", path
    )
    tree = worktree(tmp_path / "tree", one_file)
    git("push", "-q", str(path), "HEAD:refs/heads/trunk", cwd=tree)
    told = await refused_link(house, "empty", path)
    assert "names a branch that does not exist; it has trunk" in told and "git symbolic-ref HEAD" in told
    git("symbolic-ref", "HEAD", "refs/heads/trunk", cwd=path)
    await house.link("empty", path)


async def test_a_folder_that_is_no_repository_is_refused(house: House, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for name, path in (("plain", tmp_path / "plain"), ("missing", tmp_path / "missing")):
        told = await refused_link(house, name, path)
        assert str(path) in told and "is not a git repository" in told and "Check the path" in told


async def test_a_detached_head_is_refused_with_the_way_out(house: House, tmp_path: Path) -> None:
    tree = worktree(tmp_path / "detached", one_file)
    git("checkout", "-q", "--detach", cwd=tree)
    assert "is detached: check out its default branch" in await refused_link(house, "detached", tree)
    git("checkout", "-q", "main", cwd=tree)
    await house.link("detached", tree)


# every kind


async def test_a_path_with_spaces_and_unicode_and_a_branch_called_trunk(finished: Finished) -> None:
    for kind in ("odd-path", "file-url"):
        done = await finished(kind)
        assert done.changed == {b"new.txt"}
        base = git("rev-parse", "trunk", cwd=done.repository)
        assert git("rev-parse", f"{done.head}~", cwd=done.repository) == base


async def test_a_persons_own_work_tree_stays_exactly_as_it_is(
    finished: Finished, house: House, tmp_path: Path
) -> None:
    done = await finished("own-tree")
    tree = done.repository
    assert done.changed == {b"new.txt"} and not (tree / "new.txt").exists()
    expected = ["A  staged.txt", " M hello.txt", "?? .gitattributes", "?? untracked.txt"]
    assert list(tree.parent.glob("ran*")) == [], "a hook, filter or monitor of the person's ran"
    for key in ("core.fsmonitor", "filter.mine.clean", "filter.mine.smudge"):
        git("config", "--unset", key, cwd=tree)
    assert sorted(raw("status", "--porcelain", cwd=tree).decode().splitlines()) == sorted(expected)
    before = snapshot(tree)
    await house.until(await house.instruct("own-tree", "write a file"), "completed")
    assert snapshot(tree) == before and (tree / "hello.txt").read_text() == "hello, unfinished\n"


async def test_attributes_change_no_file_the_task_did_not(finished: Finished) -> None:
    done = await finished("attributes")
    assert done.changed == {b"hello.txt", b"x.secret", b"new.bin"}
    assert done.content(b"hello.txt") == b"one\r\ntwo\r\nthree\r\n"
    assert done.content(b"mixed.dos") == b"a\r\nb\nc\r\n", "it was so before, too"
    assert done.content(b"big.bin") == LFS
    assert done.content(b"version.txt") == b"$Format:%H$\n"


async def test_submodules_are_left_alone_reachable_or_not(finished: Finished) -> None:
    done = await finished("submodules")
    assert done.changed == {b"new.txt"}
    assert done.new[b"lib/gone"] == (GITLINK, "1" * 40)


async def test_links_inside_the_tree_are_kept_and_a_new_one_out_of_it_is_refused(finished: Finished) -> None:
    done = await finished("links")
    assert done.changed == {b"docs/second", b"nowhere", b"hello.txt"}
    assert done.new[b"docs/second"][0] == "120000" and done.content(b"passwd") == b"/etc/passwd"
    refused = await finished("link-out")
    assert "stolen would be a link out of the repository (/etc/shadow)" in refused.refusal
    assert "good.txt" in Path(refused.task["result"]["patch"]).read_text(), "the work is kept"


async def test_file_names_of_any_bytes(finished: Finished) -> None:
    done = await finished("names")
    expected = {b"at " + name for name in ODD_BYTES} | {b"new " + name for name in ODD_BYTES}
    assert done.changed == expected | {b"-rf", b"\xff\xfe"}
    assert b"-rf" not in done.new and b"\xff\xfe" not in done.new
    for name in ODD_BYTES:
        assert done.content(b"new " + name) == name and done.content(b"at " + name) == name + b" changed"


async def test_modes_binaries_renames_deletions_and_changes_of_kind(finished: Finished) -> None:
    done = await finished("changes")
    data = bytes(range(256)) * 20
    assert done.new[b"run.sh"][0] == "100755" and done.new[b"tool"][0] == "100644"
    assert done.content(b"image.bin") == data[:100] + b"\0new\0" + data[100:]
    assert done.content(b"new.bin") == bytes(range(255, -1, -1))
    assert done.content(b"deep/new name.txt") == b"moved\n" * 20
    assert done.new.keys().isdisjoint(
        {b"old name.txt", b"gone.txt", b"empty", b"folder-then-file/a", b"pipe"}
    )
    assert done.content(b"file-then-folder/b") == b"b" and done.content(b"folder-then-file") == b"now a file"
    assert done.content(b"folder-then-link") == b"deep" and done.content(b"link-then-folder/c") == b"c"
    assert done.content(b"no-newline") == b"no newline still" and done.content(b"empty too") == b""
    assert done.content(b"unreadable") == b"secret of the task" and done.content(b"closed/in") == b"in"


async def test_five_thousand_files_and_one_of_forty_megabytes(finished: Finished) -> None:
    done = await finished("big")
    assert done.changed == {b"src/p7/m7.py"}


async def test_a_work_tree_larger_than_the_limit_says_which_limit(finished: Finished) -> None:
    failed = await finished("too-big")
    assert "64 MiB of /tmp" in failed.refusal
    assert "limits.tmp" in failed.task["result"]["nextStep"]


async def test_what_a_task_does_to_its_git_directory_has_no_effect(finished: Finished, house: House) -> None:
    done = await finished("hostile")
    assert done.changed == {
        b".gitattributes",
        b"fake/x.txt",
        b"good.txt",
        b"hooks/pre-commit",
        b"nested/in.txt",
    }
    assert not [path for path, _ in contents(house.folder / "data") if path.name == "pwned"]


async def test_a_shallow_clone(finished: Finished) -> None:
    done = await finished("shallow")
    assert done.changed == {b"new.txt"} and done.content(b"new.txt").strip() == b"1"


async def test_sha256_objects(finished: Finished) -> None:
    done = await finished("sha256")
    assert done.changed == {b"new.txt"} and len(done.task["result"]["commit"]) == 64
    assert done.task["result"]["prNumber"] == 1


async def test_a_codespar_yaml_that_is_wrong_is_named_by_file_line_and_key(finished: Finished) -> None:
    broken = (await finished("broken-yaml")).refusal
    assert ".codespar.yaml at" in broken and ":2:" in broken
    unknown = (await finished("unknown-key")).refusal
    assert ".codespar.yaml at" in unknown and ":2:" in unknown and "tset" in unknown and "test" in unknown


async def test_a_task_that_changes_ignored_files_alone_is_told_so(finished: Finished) -> None:
    failed = await finished("ignored")
    assert failed.refusal == "the task changed nothing"
    assert ".gitignore" in failed.task["result"]["nextStep"]


async def test_a_task_that_deletes_everything_is_shown_with_its_failed_tests(finished: Finished) -> None:
    done = await finished("nothing-left")
    assert done.new == {} and done.task["result"]["tests"]["exitCode"] == 1
    assert done.task["result"]["deletions"] == 2


# what happens to a repository while it is worked on


async def test_a_push_that_is_refused_keeps_the_commit_and_a_retry_works(
    house: House, tmp_path: Path
) -> None:
    path = repository(tmp_path / "hooked.git", config=None)
    hook = path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'no pushes on Friday' >&2\nexit 1\n")
    hook.chmod(0o755)
    await house.link("hooked", path)
    id = await house.instruct("hooked", "write a file")
    result = (await house.until(id, "failed"))["result"]
    assert "no pushes on Friday" in result["summary"] and "then retry" in result["summary"]
    assert "new.txt" in Path(result["patch"]).read_text() and branches(path) == []
    kept = git(
        "for-each-ref", f"refs/heads/codespar/{id}-*", cwd=house.folder / "data/repos/hooked/forge.git"
    )
    assert kept, "the commit is kept"
    told = await house.message("hooked", f"Task Failed ({id})")
    assert "no pushes on Friday" in told.model_dump_json()
    hook.unlink()
    second = (await house.say("hooked", f"retry {id}"))[0].agent or ""
    done = await house.until(second, "completed")
    assert branches(path) == [done["result"]["branch"]]


async def test_a_base_branch_that_moves_meanwhile(house: House, tmp_path: Path) -> None:
    """The pull request stands on the commit its task started from; it merges where it can, and its thread is told where it cannot."""
    path = repository(tmp_path / "moving.git", config=None)
    await house.link("moving", path)
    start = git("rev-parse", "main", cwd=path)
    id = await house.instruct("moving", "write while the branch moves")
    await house.phase(id, "time.sleep")
    moved = await asyncio.to_thread(commit, path, {"hello.txt": "moved on\n"})
    task = await house.until(id, "completed")
    branch = task["result"]["branch"]
    assert git("rev-parse", f"{branch}~", cwd=path) == start and changed(path, start, branch) == {b"new.txt"}
    await house.say("moving", f"merge PR #{task['result']['prNumber']}")
    await house.message("moving", "PR #1 merged")
    assert (
        changed(path, moved, "main") == {b"new.txt"} and content(path, "main", b"hello.txt") == b"moved on\n"
    )

    clash = await house.until(await house.instruct("moving", "go one way"), "completed")
    await asyncio.to_thread(commit, path, {"hello.txt": "moved elsewhere\n"})
    await house.say("moving", f"merge PR #{clash['result']['prNumber']}")
    told = await house.message("moving", "PR #2 was not merged")
    assert "conflicts with the default branch in hello.txt" in told.model_dump_json()
    assert content(path, "main", b"hello.txt") == b"moved elsewhere\n"


async def test_two_open_changes_that_conflict_are_told_in_both_threads(house: House, tmp_path: Path) -> None:
    path = repository(tmp_path / "clash.git", config=None)
    await house.link("clash", path)

    async def ask(thread: str, text: str) -> str:
        answer = await house.client.say(f"instruct {text}", project="clash", thread=thread)
        return str(answer["responses"][0]["response"]["agent"])

    ids = await asyncio.gather(ask("left", "go one way"), ask("right", "go the other way"))
    ended = await asyncio.gather(*(house.until(id, "completed") for id in ids))
    assert len(branches(path)) == 2 and {task["result"]["prNumber"] for task in ended} == {1, 2}
    for thread in ("left", "right"):
        told = await house.message("clash", "conflict", thread)
        shown = told.model_dump_json()
        assert "hello.txt" in shown and "#1" in shown and "#2" in shown


async def test_credentials_of_a_url_are_seen_nowhere(house: House, tmp_path: Path) -> None:
    path = repository(tmp_path / "served" / "private.git", config=None)
    secret = quote(PASSWORD, safe="")
    spellings = (PASSWORD, secret, PASSWORD.replace("/", "%2F"), "s3kret")
    with GitServer(path.parent, "ada", PASSWORD) as server:
        url = f"http://ada:{secret}@{server.address}/private.git"
        wrong = f"http://ada:{secret}x@{server.address}/private.git"
        unreachable = f"http://ada:{secret}@127.0.0.1:1/private.git"
        for name, source in (("wrong", wrong), ("unreachable", unreachable)):
            told = await refused_link(house, name, source)
            assert not any(spelling in told for spelling in spellings), told
        await house.link("private", url)
        id = await house.instruct("private", "write a file")
        done = await house.until(id, "completed")
        assert branches(path) == [done["result"]["branch"]]
        await house.link("private", f"http://{server.address}/private.git")
        await house.down()
        await house.up()
        await house.until(await house.instruct("private", "write a file again"), "completed")
        assert len(branches(path)) == 2, "the credentials are kept over a restart"
        failing = path / "hooks" / "pre-receive"
        failing.parent.mkdir(exist_ok=True)
        failing.write_text("#!/bin/sh\nexit 1\n")
        failing.chmod(0o755)
        refused = await house.until(await house.instruct("private", "write a file once more"), "failed")
        assert server.address in refused["result"]["summary"]
    asked = ("projects", "tasks?project=private", f"tasks/{id}", "prs?project=private", "audit", "agents")
    answers = [await house.client.text(f"/api/v1/{one}") for one in asked]
    answers += [sent.model_dump_json() for sent in await house.messages("private")]
    answers += [sent.model_dump_json() for sent in await house.say("private", "list projects")]
    for spelling in spellings:
        assert not any(spelling in answer for answer in answers)
        assert spelling not in house.log
    for file, inside in contents(house.folder / "data"):
        if b"s3kret" in inside:
            assert (file.name, stat.S_IMODE(file.stat().st_mode)) == ("source", 0o600), file
