"""A broken build, told, fixed, reviewed and merged, while the server is killed ten times: everything happens once, and nothing is lost.

The server is a process that gets SIGKILL and is started again at once; whoever speaks to it sends what was not answered again under the same id.
The moments are drawn from a seed, which is printed: `CODESPAR_SEED` runs the same ones again.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import connect
from typing import Any, TypeVar

import pytest

from codespar.cli.client import Client, Json, Refused, Server, ServerUnreachable
from codespar.domain.builds import BuildJob, Conclusion, Run, Step
from codespar.domain.messages import NormalizedResponse
from codespar.domain.reviews import Fate, ReviewState
from codespar.forges.base import PullState
from codespar.forges.local import LocalForge
from codespar.scripted.reviews import Reviewed, Reviews, finds, found
from codespar.scripted.script import Library, Script, Turn, bash
from codespar.scripted.server import ScriptedModel
from codespar.store.database import Database
from support.house import House
from support.repositories import branches, commit, git, repository

T = TypeVar("T")
pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]
SUM = "def total(prices):\n    return sum(prices)\n"
BROKEN = "def total(prices):\n    return sum(prices) - 1\n"
MENDED = SUM + '\n\ndef show(name):\n    subprocess.call("echo " + name, shell=True)\n'
FIX = Script(
    (
        Turn(
            "I mend it.", (bash(f"(echo import subprocess; echo; echo; cat) > cart.py <<'END'\n{MENDED}END"),)
        ),
        Turn("fix: count every price once"),
    )
)
REVIEWS = Reviews(
    (
        Reviewed(
            "correctness",
            finds(
                found("cart.py", 9, "A name with a quote breaks the command", severity="high", suggestion="    print(name)"),
                found("cart.py", 5, "Nothing is said of no prices", severity="medium"),
            ),
        ),
    )
)  # fmt: skip
OPEN = "SELECT workflow_uuid, status FROM workflow_status WHERE status IN ('ENQUEUED', 'PENDING')"
LOG = """2026-11-21T10:00:00.0000000Z ##[group]Run pytest -q
2026-11-21T10:00:02.0000000Z \x1b[31mE   assert 5 == 6\x1b[0m
2026-11-21T10:00:02.1000000Z FAILED test_cart.py::test_total - assert 5 == 6
2026-11-21T10:00:03.0000000Z ##[error]Process completed with exit code 1.
"""
FAILED_JOB = BuildJob(
    id="1",
    name="unit",
    conclusion=Conclusion.FAILURE,
    steps=(Step(number=1, name="Run pytest -q", conclusion=Conclusion.FAILURE),),
)


class Mortal:
    """A server that is killed at moments of a seed, and whoever speaks to it nevertheless."""

    def __init__(self, house: House, seed: int) -> None:
        self.house = house
        self.kills: list[str] = []
        self._random = random.Random(seed)
        token = (house.folder / "data" / "cli-token").read_text().strip()
        self._client = Client(Server(f"http://127.0.0.1:{house.port}", token))

    async def __aenter__(self) -> Mortal:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.__aexit__(None, None, None)

    async def through(self, name: str, kills: int, within: float, stage: Awaitable[T]) -> T:
        """The stage, with that many kills, each some time after the server stood again (or while it starts), or as soon as it has done
        something outside of its database. Ends when both have."""
        went = asyncio.ensure_future(stage)
        try:
            for _ in range(kills):
                standing, delicate = self._random.random() < 0.8, self._random.random() < 0.5
                after = self._random.uniform(0.02, within)
                if standing:
                    await self._ready()
                why = await self._done_outside(within) if delicate else ""
                await asyncio.sleep(after / 50 if why else after)
                self.kills.append(f"{name}{' (over)' if went.done() else ''} +{after:.2f} {why}")
                await self.house.kill()
                await self.house.launch()
            return await went
        finally:
            went.cancel()

    async def _done_outside(self, seconds: float) -> str:
        """Wait for a branch that moves, a record of the forge's or a file of a review's, and name it. Empty: there was none in time."""
        before, until = self._outside(), time.monotonic() + seconds
        while time.monotonic() < until:
            if changed := self._outside() - before:
                return min(path for path, _ in changed)
            await asyncio.sleep(0.002)
        return ""

    def _outside(self) -> set[tuple[str, int]]:
        data, bare = self.house.folder / "data", self.house.folder.parent / "shop.git"
        forge = data / "repos" / "shop" / "forge.git" / "refs" / "codespar"
        found: set[tuple[str, int]] = set()
        for top in (bare / "refs", forge, data / "reviews"):
            for folder, _, names in os.walk(top):
                for path in (Path(folder, name) for name in names):
                    with suppress(FileNotFoundError):
                        found.add((str(path.relative_to(top.parent)), path.stat().st_mtime_ns))
        return found

    async def ask(self, call: Callable[[Client], Awaitable[T]], seconds: float = 120) -> T:
        """What the server answers, asked until it does."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return await call(self._client)
            except ServerUnreachable:
                pass
            except Refused as refused:
                assert refused.status == 503, refused
            assert time.monotonic() < deadline, self.house.log[-3000:]
            await asyncio.sleep(0.03)

    async def _ready(self) -> None:
        await self.ask(lambda client: client.get("/readyz"))

    async def say(self, text: str) -> list[NormalizedResponse]:
        """The answers to a message, which is sent under one id until it is answered."""
        id = "-".join(text.replace("#", "").split())
        body = await self.ask(lambda client: client.say(text, project="shop", thread="t", id=id))
        return [NormalizedResponse.model_validate(sent["response"]) for sent in body["responses"]]

    async def report(self, run: Run, *jobs: Json) -> None:
        posted = run.model_dump(mode="json", by_alias=True) | {"jobs": jobs}
        await self.ask(lambda client: client.report_run("shop", posted))

    async def messages(self) -> list[Json]:
        """Everything that stands in any conversation."""

        async def read(client: Client) -> list[Json]:
            sent: dict[str, Json] = {}
            after = 0
            while (page := await client.get("/api/v1/messages", after=after, limit=500))["cursor"] != after:
                sent |= {one["key"]: one for one in page["messages"]}
                after = page["cursor"]
            return list(sent.values())

        return await self.ask(read)

    async def sees(self, words: str, seconds: float = 240) -> NormalizedResponse:
        """The message with these words in its title, as soon as it stands somewhere."""
        deadline = time.monotonic() + seconds
        while True:
            told = [NormalizedResponse.model_validate(one["response"]) for one in await self.messages()]
            if fitting := [one for one in told if words in one.title]:
                return fitting[-1]
            assert not any("failed" in one.title.lower() for one in told), told
            assert time.monotonic() < deadline, (words, [one.title for one in told], self.house.log[-3000:])
            await asyncio.sleep(0.1)

    async def settled(self, seconds: float = 120) -> None:
        """Every workflow has ended, also those that only repeat what was done, and for a while nothing more was said."""
        deadline, quiet, before = time.monotonic() + seconds, 0, -1
        while quiet < 5:
            open_ = _asked(self.house.folder / "data" / "engine.sqlite", OPEN)
            newest = max(one["seq"] for one in await self.messages())
            quiet = quiet + 1 if newest == before and not open_ else 0
            before = newest
            assert time.monotonic() < deadline, (open_, self.house.log[-3000:])
            await asyncio.sleep(0.3)


def _asked(database: Path, query: str) -> list[Any]:
    with closing(connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as db:
        return db.execute(query).fetchall()


@pytest.fixture
async def house(tmp_path: Path, docker_engine: str) -> AsyncIterator[House]:
    made = House(tmp_path / "house", Library({"build of main": FIX}))
    made.model = ScriptedModel(Library({"build of main": FIX}), reviews=REVIEWS)
    await made.model.start()
    bare = repository(tmp_path / "shop.git", {"cart.py": SUM}, config="test: test -f cart.py\n")
    made.write_config(
        look_every="1s",
        model={"base_url": made.model.url, "review": "anthropic:claude-sonnet-4-5"},
        projects=[{"name": "shop", "repository": str(bare)}],
        notifications={"batch": "1s", "quiet_hours": "none"},
    )
    await made.up()
    yield made
    await made.down()
    await made.model.stop()


def a_run(sha: str, id: str, conclusion: Conclusion, minutes: int) -> Run:
    at = datetime.now(UTC) - timedelta(hours=1) + timedelta(minutes=minutes)
    return Run(
        id=id,
        workflow="tests",
        branch="main",
        commit=sha,
        title="feat: totals",
        conclusion=conclusion,
        started_at=at,
        updated_at=at,
    )


async def test_killed_ten_times_everything_happens_once_and_nothing_is_lost(
    house: House, tmp_path: Path
) -> None:
    seed = int(os.environ.get("CODESPAR_SEED") or random.randrange(2**32))
    _note(f"CODESPAR_SEED={seed}")
    bare = tmp_path / "shop.git"
    async with Mortal(house, seed) as server:
        await _the_flow(server, bare)
        await server.settled()
        await house.kill()
        await house.launch()  # what is found again at a start is found now
        await asyncio.sleep(2)
        await server.settled()
        _note("killed:", *server.kills)
        assert len(server.kills) == 10
        said = await server.messages()
        audit = await server.ask(lambda client: client.get("/api/v1/audit/verify"))
        approvals = (await server.ask(lambda client: client.get("/api/v1/approvals", project="shop")))[
            "approvals"
        ]
        tasks = (await server.ask(lambda client: client.get("/api/v1/tasks", project="shop")))["tasks"]
    assert await house.down() == 0
    _note("said:", *(f"{one['thread']} | {one['response']['title']}" for one in said))
    assert audit["ok"], audit
    _said_once(said)
    [suggestion], [task] = approvals, tasks
    assert suggestion["state"] == "executed" and len(suggestion["votes"]) == 1
    assert (task["status"], task["kind"], task["result"]["prNumber"]) == ("completed", "fix", 1)
    _all_is_answered(house.folder / "data")
    await _the_forge_has_each_once(house.folder / "data", bare, task)
    assert _containers(house.folder / "data") == []


async def _the_flow(server: Mortal, bare: Path) -> None:
    """Ten kills, spread over its stages by how long these take."""

    async def begins() -> str:
        await server.say("autonomy L3")
        good = git("rev-parse", "main", cwd=bare)
        await server.report(a_run(good, "1", Conclusion.SUCCESS, 0))
        return commit(bare, {"cart.py": BROKEN}, "feat: totals")

    bad = await server.through("begins", 1, 0.6, begins())
    failed = a_run(bad, "2", Conclusion.FAILURE, 5)

    async def breaks() -> NormalizedResponse:
        await server.report(failed, FAILED_JOB.wire() | {"log": LOG})
        await server.sees("Build broken: tests on main")
        return await server.sees("sg-")

    suggestion = await server.through("breaks", 2, 1.5, breaks())
    [approve] = [action.command for action in suggestion.actions if action.command.startswith("approve")]

    async def is_fixed() -> None:
        await server.say(approve)
        await server.sees("Task Completed")

    await server.through("works", 3, 4.0, is_fixed())
    await server.through("reviews", 2, 5.0, server.sees("Changes requested: PR #1"))

    async def is_merged() -> None:
        await server.say("merge PR #1 squash")
        await server.sees("PR #1 merged")

    await server.through("merges", 1, 0.6, is_merged())

    async def is_green() -> None:
        await server.report(a_run(git("rev-parse", "main", cwd=bare), "3", Conclusion.SUCCESS, 30))
        await server.sees("Build fixed: tests on main")

    await server.through("is green", 1, 1.5, is_green())


def _note(*lines: str) -> None:
    """For whoever reads the output of a test that failed."""
    sys.stdout.write("\n  ".join(lines) + "\n")


def _said_once(said: list[Json]) -> None:
    titles = [one["response"]["title"] for one in said]
    for words in (
        "Build fixed",
        "PR #1 merged",
        "Merging PR #1",
        "Changes requested: PR #1",
        "Task Completed",
        "sg-",
    ):
        assert Counter(words in title for title in titles)[True] == (2 if words == "sg-" else 1), (
            words,
            titles,
        )
    assert not any("Build broken" in title for title in titles), "the message that told of it was changed"
    assert len({one["key"] for one in said}) == len(said)


def _all_is_answered(data: Path) -> None:
    """The inbox, the intents, what is to be told, and the workflows: all done, and none with an error."""
    ours, engine = data / "codespar.sqlite", data / "engine.sqlite"
    assert _asked(ours, "SELECT * FROM inbox WHERE done_at IS NULL OR error IS NOT NULL") == []
    messages = _asked(ours, "SELECT id FROM inbox WHERE source = 'cli'")
    answered = _asked(ours, "SELECT DISTINCT cause FROM outbox WHERE cause IS NOT NULL")
    assert len(messages) == 3 and set(messages) <= set(answered)
    assert _asked(ours, "SELECT id FROM intents WHERE done_at IS NULL") == []
    assert _asked(ours, "SELECT key FROM announcements WHERE told_at IS NULL") == []
    states = _asked(engine, "SELECT name, status FROM workflow_status")
    assert Counter(states) == Counter((name, "SUCCESS") for name in ("build", "task", "review", "merge"))


async def _the_forge_has_each_once(data: Path, bare: Path, task: Json) -> None:
    """Git itself, and what the embedded forge keeps in it."""
    [branch] = branches(bare)
    assert branch == task["result"]["branch"]
    subjects = git("log", "--format=%s", "main", cwd=bare).splitlines()
    assert subjects == ["fix: count every price once (#1)", "feat: totals", "chore: first commit"]
    assert git("log", "--format=%s", "main~1.." + branch, cwd=bare) == "fix: count every price once"
    assert git("show", "main:cart.py", cwd=bare) == git("show", f"{branch}:cart.py", cwd=bare)
    forge = LocalForge(data / "repos" / "shop", str(bare))
    kept = ("refs/codespar/pulls", "refs/codespar/runs")
    records = git("for-each-ref", "--format=%(refname)", *kept, cwd=forge.full).split()
    assert records == [f"{kept[0]}/1", *(f"{kept[1]}/{id}" for id in (1, 2, 3))]
    pull = await forge.get_pull(1)
    assert pull.state is PullState.MERGED and pull.merge_commit == git("rev-parse", "main", cwd=bare)
    [review] = pull.reviews
    assert review.verdict == "request_changes" and review.head_commit == pull.head_commit
    database = Database(f"sqlite:///{data / 'codespar.sqlite'}")
    await database.open()
    try:
        [record] = await database.read(lambda unit: unit.reviews("shop"))
        standing = await database.read(lambda unit: unit.standing("shop", "main", "tests"))
        usage = await database.read(lambda unit: unit.audit_entries(500))
    finally:
        await database.close()
    assert record.state is ReviewState.POSTED and record.posted == review.id and record.id == review.id
    inline = Counter((one.path, one.line, one.body) for one in pull.comments)
    assert len(inline) >= 2 and set(inline.values()) == {1}, pull.comments
    shown = [one.comment for one in record.findings if one.fate is Fate.INLINE]
    assert sorted(shown) == sorted(one.id for one in pull.comments if one.path)
    assert {("cart.py", 5), ("cart.py", 9)} <= {(path, line) for path, line, _ in inline}
    assert any(one.source.startswith(("bandit:", "semgrep:")) for one in record.findings), record.findings
    assert standing.broken_by is None and standing.green is not None and standing.green.id == "3"
    done = Counter(one["action"] for one in usage)
    for once in (
        "build.broke",
        "build.fixed",
        "review.begun",
        "review.posted",
        "pr.merge",
        "approval.asked",
        "approval.approve",
    ):
        assert done[once] == 1, (once, done)


def _containers(data: Path) -> list[str]:
    ours = (data / "installation").read_text().strip()
    command = ["docker", "ps", "-aq", "--filter", f"label=codespar.installation={ours}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
