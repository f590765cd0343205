"""The whole way at GitHub: a broken build, told; its fix, approved by a button, pushed by git over HTTP and reviewed; merged by a comment.

Git, the containers, Claude Code, the analysers and the server are the real ones; the models' answers are scripted and Slack is played. GitHub is
emulate with git's own server. What emulate cannot do stands in tests/support/github/site.py: the runs of GitHub Actions, their jobs and logs are
served there. News are found by polling: nothing is registered at GitHub.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from codespar.scripted.reviews import Reviewed, Reviews, finds, found
from codespar.scripted.script import Library, Script, Turn, read, write
from codespar.scripted.server import ScriptedModel
from support.github.emulate import BOT, BOT_TOKEN, Emulate, Repository
from support.github.site import Site
from support.platforms.slack import FakeSlack
from support.repositories import commit, git, repository
from support.team import PEOPLE, Team

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(240)]
BROKEN = "def total(prices):\n    return sum(prices) - 1\n"
MENDED = """import subprocess


def total(prices):
    return sum(prices)


def show(name):
    subprocess.call("echo " + name, shell=True)
"""
FIX = Script(
    (
        Turn("I look at it.", (read("cart.py"),)),
        Turn("I mend it.", (write("cart.py", MENDED),)),
        Turn("fix: count every price once"),
    )
)
LOG = b"""2026-11-21T10:00:00.0000000Z ##[group]Run pytest -q
2026-11-21T10:00:01.0000000Z ##[endgroup]
2026-11-21T10:00:02.0000000Z \x1b[31mE   assert 5 == 6\x1b[0m
2026-11-21T10:00:02.1000000Z FAILED test_cart.py::test_total - assert 5 == 6
2026-11-21T10:00:03.0000000Z ##[error]Process completed with exit code 1.
"""
FINDING = found(
    "cart.py",
    9,
    "A name with a quote breaks the command",
    severity="high",
    suggestion="    print(name)",
)
REVIEWS = Reviews((Reviewed("correctness", finds(FINDING, summary="Counts every price and shows a name.")),))


@dataclass
class Flow:
    team: Team
    site: Site
    github: Repository

    def look(self) -> None:
        """Not to wait for the next look, which comes every ten seconds."""
        self.team.app.hosts.look_soon("shop")

    async def at_github(self, path: str) -> Any:
        return await self.site.as_ada(self.github, "GET", path)


@pytest.fixture
async def flow(tmp_path: Path, docker_engine: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Flow]:
    monkeypatch.setenv("CODESPAR_GITHUB_TOKEN", BOT_TOKEN)
    monkeypatch.delenv("CODESPAR_GITHUB_WEBHOOK_SECRET", raising=False)
    model, slack = ScriptedModel(Library({"The build of main": FIX}), reviews=REVIEWS), FakeSlack()
    seed = repository(tmp_path / "seed.git", {"cart.py": "def total(prices):\n    return sum(prices)\n"})
    (tmp_path / "github").mkdir()
    await model.start()
    with Emulate(tmp_path / "github") as host:
        async with Site(host).running() as site:
            github = await asyncio.to_thread(host.repository, "shop", seed)
            settings: dict[str, Any] = {
                "github": {"api_url": site.url, "poll": 10},
                "model": {"base_url": model.url, "review": "anthropic:claude-sonnet-4-5"},
                "people": [
                    {
                        "name": name.capitalize(),
                        "id": name,
                        "role": role,
                        "identities": {"slack": slack.identity(name)}
                        | ({"github": site.ada} if name == "ada" else {}),
                    }
                    for name, role in PEOPLE.items()
                ],
                "projects": [
                    {
                        "name": "shop",
                        "repository": github.full_name,
                        "channels": [{"channel": "slack", "conversation": slack.room}],
                    }
                ],
            }
            team = Team(
                tmp_path / "house", [slack], seed, engine=True, model_url=model.url, settings=settings
            )
            async with team as up:
                yield Flow(up, site, github)
    await model.stop()
    assert slack.refusals == []


async def test_a_broken_build_at_github_is_told_fixed_reviewed_and_merged(flow: Flow) -> None:
    team, site, bare = flow.team, flow.site, flow.github.bare
    slack = team.platforms["slack"]
    assert isinstance(slack, FakeSlack)
    await slack.say("ada", "autonomy L3")
    await team.sees("slack", "L3")
    site.run(1, git("rev-parse", "main", cwd=bare), "success")
    bad = await asyncio.to_thread(commit, bare, {"cart.py": BROKEN}, "feat: totals")
    site.run(2, bad, "failure", minutes=5)
    site.failed_job(2, 21, "unit", "Run pytest -q", LOG)
    flow.look()
    told = await team.sees("slack", "Build broken: tests on main")
    assert "job unit, step Run pytest -q" in told.text
    assert "E   assert 5 == 6" in told.text
    assert site.log_requests == 1, "the real log was read, where GitHub keeps it"

    await team.sees("slack", "fix build tests")
    [suggestion] = [one for one in slack.seen(None) if "Approve" in one.buttons]
    await slack.press("grace", suggestion, "Approve")
    await team.sees("slack", "Task Completed", seconds=90)
    done = await team.sees("slack", "Task Completed")
    assert "Files changed: 1 | Lines: +8 / -1" in done.text
    [pull] = await flow.at_github("/pulls?state=all")
    assert (pull["state"], pull["user"]["login"], pull["base"]["ref"]) == ("open", BOT, "main")
    head = git("rev-parse", pull["head"]["ref"], cwd=bare)
    assert head == pull["head"]["sha"], "pushed by git"
    assert git("show", f"{head}:cart.py", cwd=bare) == MENDED.rstrip()

    flow.look()
    await team.sees("slack", f"Changes requested: PR #{pull['number']}", seconds=90)
    reviews = await flow.at_github(f"/pulls/{pull['number']}/reviews")
    comments = await flow.at_github(f"/issues/{pull['number']}/comments")
    said = "\n".join(one["body"] for one in (*reviews, *comments))
    assert {one["commit_id"] for one in reviews} == {head}
    assert "A name with a quote breaks the command" in said, (
        "emulate refuses it on its line: it is told all the same"
    )
    assert said.count("Call it with an empty list.") == 1, "whole, and once"
    [record] = await team.app.store.read(lambda unit: unit.reviews("shop"))
    assert all(finding.fate is not None for finding in record.findings)

    await site.as_ada(
        flow.github, "POST", f"/issues/{pull['number']}/comments", {"body": "Thank you.\n\n@codespar merge"}
    )
    flow.look()

    def merged() -> bool:
        return git("rev-parse", "main", cwd=bare) != bad

    await team.until(merged, 40)
    assert git("show", "main:cart.py", cwd=bare) == MENDED.rstrip()
    assert (await flow.at_github(f"/pulls/{pull['number']}"))["merged"]

    site.run(3, git("rev-parse", "main", cwd=bare), "success", minutes=30)
    flow.look()
    fixed = await team.sees("slack", "Build fixed: tests on main")
    assert fixed.id == told.id, "the message that told of it is changed in place"
    for _ in range(100):
        said = [one["body"] for one in await flow.at_github(f"/issues/{pull['number']}/comments")]
        if answers := [body for body in said if body.startswith("**✅") and " merged**" in body]:
            break
        await asyncio.sleep(0.2)
    assert len(answers) == 1, "the comment is answered where it was written"
    assert not [line for line, _ in site.asked if "/hooks" in line], "nothing was registered at GitHub"
    assert BOT_TOKEN not in await asyncio.to_thread(_everything_in, team.folder)


def _everything_in(folder: Path) -> str:
    return "\n".join(
        path.read_bytes().decode("latin-1")
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
