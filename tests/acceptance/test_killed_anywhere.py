"""A broken build, told, fixed, reviewed and merged, while the server is killed again and again: everything happens once, nothing is lost.

The server is a process that gets SIGKILL and is started again at once; whoever speaks to it sends what was not answered again under the same
id. Shown are the embedded forge on SQLite with ten kills, and GitHub (emulate, and git over HTTP) on PostgreSQL with seven. Some kills come at
any time, also while the server starts. The others come as soon as it has done something outside of its database: pushed a branch, written a
record of the embedded forge or a file of a review; at GitHub a push, a pull request, a check, a review, a comment or a merge, and there the
answer to it has mostly not reached the server. What was asked of GitHub is done there whole or not at all.

The moments are drawn from a seed, which is printed: `CODESPAR_SEED` gives another, and `CODESPAR_EXPLORE=1` a new one each time.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from codespar.cli.client import Json
from codespar.domain.reviews import Fate, ReviewRecord, ReviewState
from codespar.forges.base import PullState
from codespar.forges.local import LocalForge
from codespar.store.database import Database
from support import story
from support.github.emulate import BOT, BOT_TOKEN, Emulate, Repository
from support.house import House
from support.mortal import Answers, Databases, Files, Mortal
from support.repositories import branches, git

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]
EMBEDDED = {"begins": 1, "breaks": 2, "works": 3, "reviews": 2, "merges": 1, "is green": 1}
AT_GITHUB = {"begins": 0, "breaks": 1, "works": 2, "reviews": 2, "merges": 1, "is green": 1}
WITHIN = {"begins": 0.6, "breaks": 1.5, "works": 4.0, "reviews": 5.0, "merges": 0.6, "is green": 1.5}
"""In how many seconds of each part a kill comes, by how long the part takes."""


@dataclass
class Ended:
    """What there is when all is said and done, and the server is down."""

    said: list[Json]
    task: Json
    records: list[ReviewRecord]
    done: Counter[str]  # what the audit trail says, by action
    databases: Databases


@pytest.fixture
async def house(tmp_path: Path, docker_engine: str) -> AsyncIterator[House]:
    environment = {"CODESPAR_GITHUB_TOKEN": BOT_TOKEN, "CODESPAR_GITHUB_WEBHOOK_SECRET": ""}
    made = House(tmp_path / "house", lambda _: story.FIX, environment=environment)
    made.model = story.model()
    await made.model.start()
    yield made
    await made.down()
    await made.model.stop()


async def test_killed_ten_times_everything_happens_once_and_nothing_is_lost(
    house: House, tmp_path: Path
) -> None:
    bare = story.shop(tmp_path / "shop.git")
    data = await _up(house, {"repository": str(bare)})
    forge = data / "repos" / "shop" / "forge.git" / "refs" / "codespar"
    outside, databases = Files(bare / "refs", forge, data / "reviews"), Databases(data)
    async with Mortal(house, _seed(), outside, databases, bare) as server:
        ended = await _killed(server, EMBEDDED)
    _said_once(ended.said)
    _all_is_answered(databases)
    _merged_once(bare, ended.task, f"{story.MENDING} (#1)")
    await _the_forge_has_each_once(data, bare, ended)


class AtGithub(Mortal):
    """The builds are GitHub's own, and the merge is asked for in a comment."""

    site: Answers
    github: Repository

    async def built(self, build: story.Build) -> None:
        build.at(self.site)

    async def merges(self, number: int) -> None:
        asked = {"body": "Thank you.\n\n@codespar merge squash"}
        await self.site.as_ada(self.github, "POST", f"/issues/{number}/comments", asked)


async def test_killed_seven_times_github_is_asked_for_everything_once_and_nothing_is_lost(
    house: House, tmp_path: Path, postgres_database: str
) -> None:
    (tmp_path / "github").mkdir()
    with Emulate(tmp_path / "github") as host:
        async with Answers(host).running() as site:
            assert isinstance(site, Answers)
            github = await asyncio.to_thread(host.repository, "shop", story.shop(tmp_path / "seed.git"))
            story.Build(1, git("rev-parse", "main", cwd=github.bare), 0).at(site)
            data = await _up(
                house,
                {"repository": github.full_name},
                database_url=postgres_database,
                github={"api_url": site.url, "poll": 10},
                people=[{"name": "Ada", "id": "ada", "role": "owner", "identities": {"github": site.ada}}],
            )
            databases = Databases(data, postgres_database)
            async with AtGithub(house, _seed(), site, databases, github.bare) as server:
                server.site, server.github = site, github
                ended = await _killed(server, AT_GITHUB)
            _said_once(ended.said)
            _all_is_answered(databases)
            emulated = (
                f"Merge pull request #1 from acme:{ended.task['result']['branch']}"  # also when it squashes
            )
            _merged_once(github.bare, ended.task, emulated)
            await _github_has_each_once(site, github, ended)


async def _up(house: House, project: Mapping[str, Any], **settings: Any) -> Path:
    """The server's first start. Returns its data folder."""
    house.write_config(
        look_every="1s",
        model={"base_url": house.model.url, "review": story.REVIEWER},
        projects=[{"name": "shop", **project}],
        notifications={"batch": "1s", "quiet_hours": "none"},
        **settings,
    )
    await house.up()
    return house.folder / "data"


def _seed() -> int:
    explored = random.randrange(2**32) if os.environ.get("CODESPAR_EXPLORE") else 1
    seed = int(os.environ.get("CODESPAR_SEED") or explored)
    _note(f"CODESPAR_SEED={seed}")
    return seed


def _note(*lines: str) -> None:
    """For whoever reads the output of a test that failed."""
    sys.stdout.write("\n  ".join(lines) + "\n")


async def _killed(server: Mortal, kills: dict[str, int]) -> Ended:
    """The story, with kills spread over its parts; then once more, when all is over: what is found again at a start is found then."""
    tale = story.Story(server)
    parts = {
        "begins": tale.begins,
        "breaks": tale.breaks,
        "works": tale.is_fixed,
        "reviews": tale.is_reviewed,
        "merges": tale.is_merged,
        "is green": tale.works_again,
    }
    try:
        for name, part in parts.items():
            await server.through(name, kills[name], WITHIN[name], part())
        await server.settled()
        await server.house.kill()
        await server.house.launch()
        await asyncio.sleep(2)
        await server.settled()
    finally:
        _note("killed:", *server.kills)
    said = await server.messages()
    _note("said:", *(f"{one['thread']} | {one['response']['title']}" for one in said))
    audit = await server.ask(lambda client: client.get("/api/v1/audit/verify"))
    asked = await server.ask(lambda client: client.get("/api/v1/approvals", project="shop"))
    tasks = await server.ask(lambda client: client.get("/api/v1/tasks", project="shop"))
    assert await server.house.down() == 0
    assert len(server.kills) == sum(kills.values())
    assert audit["ok"], audit
    [suggestion], [task] = asked["approvals"], tasks["tasks"]
    assert suggestion["state"] == "executed" and len(suggestion["votes"]) == 1
    assert (task["status"], task["kind"], task["result"]["prNumber"]) == ("completed", "fix", 1)
    assert server.containers() == []
    database = Database(server.databases.address)
    await database.open()
    try:
        records = await database.read(lambda unit: unit.reviews("shop"))
        standing = await database.read(lambda unit: unit.standing("shop", "main", "tests"))
        trail = await database.read(lambda unit: unit.audit_entries(500))
    finally:
        await database.close()
    assert standing.broken_by is None and standing.green is not None and standing.green.id == "3"
    done = Counter(one["action"] for one in trail)
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
    return Ended(said, task, records, done, server.databases)


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


def _all_is_answered(databases: Databases) -> None:
    """The inbox, the intents, what is to be told, and the workflows: all done, and none with an error."""
    assert databases.ours("SELECT * FROM inbox WHERE done_at IS NULL OR error IS NOT NULL") == []
    answered = databases.ours("SELECT DISTINCT cause FROM outbox WHERE cause IS NOT NULL")
    messages = databases.ours("SELECT id FROM inbox WHERE CAST(body AS TEXT) LIKE '{\"message\":%'")
    assert len(messages) == 3 and set(messages) <= set(answered)
    assert databases.ours("SELECT id FROM intents WHERE done_at IS NULL") == []
    assert databases.ours("SELECT key FROM announcements WHERE told_at IS NULL") == []
    states = databases.engines("SELECT name, status FROM workflow_status")
    assert Counter(states) == Counter((name, "SUCCESS") for name in ("build", "task", "review", "merge"))


def _merged_once(bare: Path, task: Json, title: str) -> None:
    """Git itself: one branch with one commit, and one commit of it on main."""
    [branch] = branches(bare)
    assert branch == task["result"]["branch"]
    subjects = git("log", "--format=%s", "main", cwd=bare).splitlines()
    assert subjects == [title, story.BREAKING, "chore: first commit"]
    assert git("log", "--format=%s", "main~1.." + branch, cwd=bare) == story.MENDING
    assert git("show", "main:cart.py", cwd=bare) == git("show", f"{branch}:cart.py", cwd=bare)


async def _the_forge_has_each_once(data: Path, bare: Path, ended: Ended) -> None:
    """What the embedded forge keeps in git."""
    forge = LocalForge(data / "repos" / "shop", str(bare))
    kept = ("refs/codespar/pulls", "refs/codespar/runs")
    names = git("for-each-ref", "--format=%(refname)", *kept, cwd=forge.full).split()
    assert names == [f"{kept[0]}/1", *(f"{kept[1]}/{id}" for id in (1, 2, 3))]
    pull = await forge.get_pull(1)
    assert pull.state is PullState.MERGED and pull.merge_commit == git("rev-parse", "main", cwd=bare)
    [review], [record] = pull.reviews, ended.records
    assert review.verdict == "request_changes" and review.head_commit == pull.head_commit
    assert record.state is ReviewState.POSTED and record.posted == review.id and record.id == review.id
    inline = Counter((one.path, one.line, one.body) for one in pull.comments)
    assert len(inline) >= 2 and set(inline.values()) == {1}, pull.comments
    shown = [one.comment for one in record.findings if one.fate is Fate.INLINE]
    assert sorted(shown) == sorted(one.id for one in pull.comments if one.path)
    assert {("cart.py", 5), ("cart.py", 9)} <= {(path, line) for path, line, _ in inline}
    assert any(one.source.startswith(("bandit:", "semgrep:")) for one in record.findings), record.findings


async def _github_has_each_once(site: Answers, github: Repository, ended: Ended) -> None:
    """What stands at GitHub, and what made it."""

    async def read(path: str) -> Any:
        return await site.as_ada(github, "GET", path)

    [pull] = await read("/pulls?state=all")
    assert (pull["number"], pull["user"]["login"], pull["head"]["ref"]) == (
        1,
        BOT,
        ended.task["result"]["branch"],
    )
    assert (await read("/pulls/1"))["merged"]
    [review], [record] = await read("/pulls/1/reviews"), ended.records
    assert (review["user"]["login"], review["commit_id"]) == (BOT, pull["head"]["sha"])
    assert record.state is ReviewState.POSTED and record.posted == f"pullrequestreview-{review['id']}"
    ours = [one["body"] for one in await read("/issues/1/comments") if one["user"]["login"] == BOT]
    marks = [re.findall(r"<!-- codespar:.* -->", body) for body in ours]
    assert all(len(each) == 1 for each in marks), ours
    assert len({each[0] for each in marks}) == len(marks), "each thing that was said is said in one comment"
    assert sum(" merged**" in body for body in ours) == 1, ours
    told = "\n".join((review["body"], *ours))
    assert told.count(story.WHEN) == 1 and told.count(story.FOUND) >= 1, "whole, and once"
    checks = Counter(
        one["name"] for one in (await read(f"/commits/{pull['head']['sha']}/check-runs"))["check_runs"]
    )
    assert checks and set(checks.values()) == {1}, checks
    made = Counter(line for line, status in site.asked if status in (200, 201) and not line.startswith("GET"))
    for once in ("POST /repos/acme/shop/pulls", "PUT /repos/acme/shop/pulls/1/merge"):
        assert made[once] == 1, made
    assert made["POST /repos/acme/shop/issues/1/comments"] == len(ours), made
    assert not [line for line, _ in site.asked if "/hooks" in line], "nothing was registered at GitHub"
