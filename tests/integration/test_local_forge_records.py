"""What the embedded forge keeps in git: many of it, kept by several writers, and as it was kept before."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from codespar.domain.builds import BuildJob, Conclusion, Run
from codespar.domain.happenings import PullAction, PullChanged, Ran
from codespar.domain.reviews import ReviewVerdict
from codespar.forges import documents
from codespar.forges.base import (
    Check,
    ForgeError,
    Gone,
    InlineComment,
    MergeMethod,
    PullRequest,
    PullState,
    ReviewDraft,
)
from codespar.forges.local import LocalForge

AT = datetime(2026, 1, 2, tzinfo=UTC)


def git(*arguments: str, cwd: Path, stdin: str | None = None) -> str:
    ran = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
        cwd=cwd,
        input=stdin,
        check=True,
        capture_output=True,
        text=True,
    )
    return ran.stdout.strip()


class World:
    """A remote with one change on a branch, and the forge's own folder."""

    def __init__(self, folder: Path) -> None:
        self.remote, self.folder, work = folder / "remote.git", folder / "forge", folder / "work"
        git("init", "-q", "--bare", "-b", "main", str(self.remote), cwd=folder)
        git("clone", "-q", str(self.remote), str(work), cwd=folder)
        for name, ref in (("a.py", "main"), ("b.py", "change")):
            (work / name).write_text("one\ntwo\n")
            git("add", "-A", cwd=work)
            git("commit", "-qm", name, cwd=work)
            git("push", "-q", "origin", f"HEAD:refs/heads/{ref}", cwd=work)
        self.base, self.head = git("rev-parse", "HEAD~", "HEAD", cwd=work).split()

    def forge(self) -> LocalForge:
        return LocalForge(self.folder, str(self.remote))

    @property
    def kept(self) -> Path:
        return self.folder / "forge.git"

    def branch(self, name: str, commit: str | None = None) -> None:
        git("update-ref", f"refs/heads/{name}", commit or self.head, cwd=self.remote)

    def put(self, ref: str, files: dict[str, Any]) -> None:
        """A record as the first release put it: blobs, a tree, a commit on the last one, a reference."""
        entries = ""
        for name, content in sorted(files.items()):
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=1)
            entries += (
                f"100644 blob {git('hash-object', '-w', '--stdin', cwd=self.kept, stdin=text)}\t{name}\n"
            )
        tree = git("mktree", cwd=self.kept, stdin=entries)
        before = git("for-each-ref", "--format=%(objectname)", ref, cwd=self.kept)
        parent = ("-p", before) if before else ()
        commit = git("commit-tree", tree, *parent, "-m", ref.removeprefix("refs/codespar/"), cwd=self.kept)
        git("update-ref", ref, commit, before, cwd=self.kept)

    async def open(self, forge: LocalForge, branch: str, commit: str | None = None) -> PullRequest:
        return await forge.open_pull(
            branch=branch,
            commit=commit or self.head,
            base_branch="main",
            base_commit=self.base,
            title=f"feat: {branch}",
            body="",
            author="Ada",
            at=AT,
        )

    def run(self, id: str, at: datetime = AT, **changes: Any) -> Run:
        known = {"id": id, "workflow": "tests", "branch": "main", "commit": self.base}
        return Run.model_validate(known | {"started_at": at, "updated_at": at} | changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world, made once: each test has a copy of it."""
    folder = tmp_path_factory.mktemp("made")
    World(folder)
    return folder


@pytest.fixture
async def world(tmp_path: Path, made: Path) -> World:
    world = World.__new__(World)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    world.remote, world.folder = tmp_path / "remote.git", tmp_path / "forge"
    world.base, world.head = git("rev-parse", "main", "change", cwd=world.remote).split()
    forge = world.forge()
    await forge.sync()
    await forge.fetch_branch("change")
    return world


def old_pull(world: World, number: int, state: str, **more: Any) -> dict[str, Any]:
    """A pull request as the first release wrote it, key for key."""
    return {
        "number": number,
        "title": "feat: größer ✕",
        "body": "",
        "branch": f"codespar/task-{number}-x",
        "baseBranch": "main",
        "headCommit": world.head,
        "baseCommit": world.base,
        "author": "Ada",
        "state": state,
        "mergeCommit": None,
        "files": [{"path": "b.py", "additions": 2, "deletions": 0}],
        "checks": [
            {
                "name": "lint",
                "passed": True,
                "summary": "",
                "at": "2026-01-02T00:00:00Z",
                "title": "",
                "text": "",
                "url": "",
                "annotations": [],
                "conclusion": None,
            }
        ],
        "comments": [],
        "reviews": [],
        "createdAt": "2026-01-02T00:00:00Z",
        "updatedAt": "2026-01-02T00:00:00Z",
        "draft": False,
        "labels": [],
        "url": "",
        "fork": False,
        "bot": False,
        "queued": False,
    } | more


def old_repository(world: World) -> None:
    """What the first release left of two pull requests, a build and a status."""
    world.put("refs/codespar/pulls/1", {"pull.json": {"pull": old_pull(world, 1, "open"), "keys": []}})
    merged = {"pull": old_pull(world, 2, "merged", mergeCommit=world.base), "keys": ["merged"]}
    world.put("refs/codespar/pulls/2", {"pull.json": merged})
    said = {
        "author": "codespar",
        "body": "hello",
        "path": None,
        "line": None,
        "at": "2026-01-02T00:00:00Z",
        "id": "1.k",
        "startLine": None,
        "side": "new",
        "authorId": "",
    }
    told = {"pull": old_pull(world, 1, "open", comments=[said]), "keys": ["comment:k"]}
    world.put("refs/codespar/pulls/1", {"pull.json": told})
    run = {
        "id": "ci/7",
        "attempt": 1,
        "workflow": "tests",
        "branch": "main",
        "commit": world.base,
        "event": "",
        "title": "",
        "url": "",
        "pulls": [],
        "conclusion": "failure",
        "startedAt": "2026-01-02T00:00:00Z",
        "updatedAt": "2026-01-02T00:00:00Z",
    }
    job = {"id": "unit 1", "name": "unit", "conclusion": "failure", "steps": [], "url": ""}
    world.put(
        "refs/codespar/runs/ci_7", {"run.json": {"run": run, "jobs": [job]}, "unit_1.log": "E 1 == 2\n"}
    )
    status = {"name": "deploy", "passed": False, "at": "2026-01-02T00:00:00Z", "conclusion": "failure"}
    commit = {"statuses": {"deploy": status}, "comments": {"comment-aaaaaa": "well"}}
    world.put(f"refs/codespar/commits/{world.base}", {"commit.json": commit})


async def test_a_repository_of_the_first_release_goes_on_working(world: World) -> None:
    old_repository(world)
    forge = world.forge()
    one, two = await forge.get_pull(1), await forge.get_pull(2)
    assert [pull.number for pull in await forge.list_pulls()] == [2, 1]
    assert await forge.list_pulls(PullState.OPEN) == [one] and await forge.list_pulls(PullState.MERGED) == [
        two
    ]
    assert (one.title, one.comments[0].body, two.merge_commit) == ("feat: größer ✕", "hello", world.base)
    assert await forge.comment(1, "hello", "k") == "1.k"
    assert await forge.get_pull(1) == one, "what was said under a key is said once"
    assert (await forge.comment(1, "more", "l"), (await world.open(forge, "new")).number) == ("1.l", 3)

    assert {check.name: check.passed for check in await forge.checks(world.base)} == {
        "deploy": False,
        "tests": False,
    }
    assert [job.name for job in await forge.jobs("ci/7", 1)] == ["unit"]
    assert b"".join([piece async for piece in forge.job_log("ci/7", "unit 1")]) == b"E 1 == 2\n"
    assert (await forge.report_run(world.run("ci/7"), [], {})).conclusion is Conclusion.FAILURE
    again = world.run("ci/7", attempt=2, conclusion="success")
    assert await forge.report_run(again, [], {}) == again
    assert await forge.runs(commit=world.base) == [again]


async def test_what_is_kept_is_a_readable_document_whose_history_is_the_references(world: World) -> None:
    forge = world.forge()
    await world.open(forge, "change")
    await forge.comment(1, "ünï", "k")
    text = git("show", "refs/codespar/pulls/1:pull.json", cwd=world.kept)
    kept = json.loads(text)
    assert (kept["pull"]["comments"][0]["body"], kept["keys"]) == ("ünï", ["comment:k"])
    assert '\n "pull": {' in text and "ünï" in text
    assert git("log", "--format=%s", "refs/codespar/pulls/1", cwd=world.kept) == "pulls/1\npulls/1"


async def test_a_look_with_the_cursor_of_the_first_release_tells_only_what_is_new(world: World) -> None:
    old_repository(world)
    world.branch("codespar/task-1-x")
    tips = {"main": world.base, "change": world.head, "codespar/task-1-x": world.head}
    seen = {"1": [world.head, "open"], "2": [world.head, "merged"]}
    cursor: dict[str, Any] = {"branches": tips, "pulls": seen, "runs": {"ci/7": "1:failure"}}
    forge = world.forge()
    polled = await forge.poll(cursor)
    assert polled.news == () and polled.cursor == {**cursor, "pulls": {"1": [world.head, "open"]}}

    await forge.close(1, at=AT)
    await forge.report_run(world.run("new"), [], {})
    told = await forge.poll(polled.cursor)
    assert [getattr(one.what, "action", None) or one.what.run.id for one in told.news] == [
        PullAction.CLOSED,
        "new",
    ]
    assert (await forge.poll(told.cursor)).news == ()


async def test_a_merge_is_told_once_and_forgotten(world: World) -> None:
    forge = world.forge()
    world.branch("work")
    pull = await world.open(forge, "work")
    first = await forge.poll({})
    assert first.news == () and first.cursor["pulls"] == {"1": [world.head, "open"]}
    await forge.merge(1, method=MergeMethod.MERGE, head_commit=pull.head_commit, author="G", at=AT)
    told = await forge.poll(first.cursor)
    changes = [one.what.action for one in told.news if isinstance(one.what, PullChanged)]
    assert (changes, told.cursor["pulls"]) == ([PullAction.MERGED], {})
    assert (await forge.poll(told.cursor)).news == ()


async def test_a_push_to_an_open_pull_request_is_told_with_its_new_head(world: World) -> None:
    forge = world.forge()
    world.branch("work")
    await world.open(forge, "work")
    await forge.set_check(1, a_check())
    seen = (await forge.poll({})).cursor
    tree = git("rev-parse", f"{world.base}^{{tree}}", cwd=world.remote)
    moved = git("commit-tree", tree, "-p", world.head, "-m", "next", cwd=world.remote)
    world.branch("work", moved)
    told = await forge.poll(seen)
    pushed, changed = (one.what for one in told.news)
    assert pushed.after == moved and isinstance(changed, PullChanged)
    assert (changed.action, changed.head_commit) == (PullAction.UPDATED, moved)
    assert (await forge.get_pull(1)).checks == (), "what was said of another commit is not said of this one"
    assert (await forge.poll(told.cursor)).news == ()


def a_check() -> Check:
    return Check(name="tests", passed=True, at=AT)


async def test_two_forges_over_one_repository_see_each_others_changes_at_once(world: World) -> None:
    one, other = world.forge(), world.forge()
    for place in range(3):
        pull = await world.open((one, other)[place % 2], f"b{place}")
        for forge in (one, other):
            assert (await forge.list_pulls())[0] == pull == await forge.get_pull(place + 1)
        await one.comment(pull.number, "from one", f"k{place}")
        await other.comment(pull.number, "from other", f"o{place}")
        said = {comment.body for comment in (await one.list_pulls(PullState.OPEN))[0].comments}
        assert said == {"from one", "from other"}
        run = world.run(f"run-{place}", AT + timedelta(minutes=place))
        await one.report_run(run, [], {})
        assert (await other.runs())[0] == run == (await one.runs())[0]
    await other.close(2, at=AT)
    assert [pull.number for pull in await one.list_pulls(PullState.OPEN)] == [3, 1]


async def test_what_is_opened_at_once_by_two_forges_gets_numbers_of_its_own_and_a_branch_one(
    world: World,
) -> None:
    forges = (world.forge(), world.forge())
    branches = ["a", "b", "c", "d", "same", "same"]
    opened = await asyncio.gather(
        *(world.open(forges[place % 2], branch) for place, branch in enumerate(branches))
    )
    numbers = {pull.branch: pull.number for pull in opened}
    assert sorted(numbers.values()) == [1, 2, 3, 4, 5] and opened[4] == opened[5]
    assert len(await forges[0].list_pulls()) == 5


async def test_many_references_are_packed_and_nothing_is_lost_while_others_write(world: World) -> None:
    count = documents.MOST_LOOSE + 20
    put_runs(world, count)
    writer, reader = world.forge(), world.forge()

    async def write() -> None:
        for place in range(6):
            await writer.report_run(world.run(f"w{place}", AT + timedelta(days=1, seconds=place)), [], {})

    async def read() -> None:
        cursor: dict[str, Any] = {}
        for _ in range(6):
            cursor = (await reader.poll(cursor)).cursor

    await asyncio.gather(write(), read())
    loose = [path for path in (world.kept / "refs/codespar/runs").rglob("*") if path.is_file()]
    assert len(loose) <= 6 < len((world.kept / "packed-refs").read_text().splitlines())
    assert [run.id for run in (await reader.runs())[:6]] == [f"w{place}" for place in range(5, -1, -1)]
    assert len(await reader.runs(limit=10_000)) == 500
    newest = next(run for run in await reader.runs() if run.id == f"r{count - 1}")
    again = newest.evolve(attempt=2)
    await writer.report_run(again, [], {})  # a packed reference is changed like any other
    assert again in await reader.runs()


async def test_a_lock_that_a_killed_git_left_is_no_obstacle(world: World) -> None:
    put_runs(world, documents.MOST_LOOSE + 1)
    (world.kept / "packed-refs.lock").touch()
    forge = world.forge()
    assert len((await forge.poll({})).news) == 500 == len(await forge.runs(limit=10_000))
    run = world.run("new", AT + timedelta(days=1))
    await forge.report_run(run, [], {})
    assert (await forge.runs(limit=1)) == [run]
    assert (await world.open(forge, "change")).number == 1


def put_runs(world: World, count: int) -> None:
    """Many runs at once, each under a reference with a file of its own."""
    stream = ""
    for place in range(count):
        run = world.run(f"r{place}", AT + timedelta(seconds=place))
        text = json.dumps({"run": run.wire(), "jobs": []})
        stream += (
            f"commit refs/codespar/runs/r{place}\ncommitter t <t@t> {place} +0000\ndata 1\nx\n"
            f"M 100644 inline run.json\ndata {len(text)}\n{text}\n"
        )
    git("fast-import", "--quiet", cwd=world.kept, stdin=stream)


async def test_a_reference_that_is_no_record_is_named(world: World) -> None:
    git("update-ref", "refs/codespar/pulls/9", world.head, cwd=world.kept)
    with pytest.raises(ForgeError, match=f"{world.head}:pull.json is not there.*delete that reference"):
        await world.forge().list_pulls()


async def test_what_fits_no_memory_is_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_REMEMBERED", 2_500)
    forge = world.forge()
    for place in range(5):
        await world.open(forge, f"b{place}")
    for _ in range(2):
        assert [pull.number for pull in await forge.list_pulls()] == [5, 4, 3, 2, 1]
    shelf = forge._pulls._shelf
    assert 0 < shelf._held == sum(size for size, _ in shelf._wholes.values()) <= 2_500


async def test_a_review_is_posted_once_and_what_no_line_holds_is_refused(world: World) -> None:
    forge = world.forge()
    await world.open(forge, "change")
    draft = ReviewDraft(
        head_commit=world.head,
        verdict=ReviewVerdict.COMMENT,
        body="well",
        comments=(
            InlineComment(path="b.py", line=2, body="hm"),
            InlineComment(path="b.py", line=9, body="?"),
        ),
    )
    posted = await forge.submit_review(1, draft, "k")
    assert (posted.comments, posted.refused) == (("1.k.0", ""), (1,))
    assert await forge.submit_review(1, draft, "k") == posted
    assert len((await forge.get_pull(1)).comments) == 1


async def test_before_anything_was_linked_there_is_nothing(tmp_path: Path) -> None:
    forge = LocalForge(tmp_path / "forge", str(tmp_path / "nowhere"))
    assert await forge.list_pulls() == [] and await forge.runs() == [] and await forge.checks("a" * 40) == []
    with pytest.raises(Gone, match="no run"):
        await forge.jobs("ci", 1)


async def test_the_newest_runs_are_told_by_branch_and_commit_newest_first(world: World) -> None:
    forge = world.forge()
    job = BuildJob(id="unit", name="unit")
    for place, branch in enumerate(["main", "other", "main"]):
        run = world.run(f"r{place}", AT + timedelta(minutes=place), branch=branch, commit=str(place) * 40)
        await forge.report_run(run, [job], {})
    assert [run.id for run in await forge.runs(branch="main")] == ["r2", "r0"]
    assert [run.id for run in await forge.runs(branch="main", limit=1)] == ["r2"]
    assert [run.id for run in await forge.runs(commit="1" * 40)] == ["r1"]
    first = await forge.poll({})
    assert [one.what.run.id for one in first.news if isinstance(one.what, Ran)] == ["r0", "r1", "r2"]
