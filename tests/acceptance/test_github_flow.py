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

from support import story
from support.files import contents
from support.github.emulate import BOT, BOT_TOKEN, Emulate, Repository
from support.github.site import Site
from support.platforms.slack import FakeSlack
from support.repositories import git
from support.team import PEOPLE, Team

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@dataclass
class Flow:
    team: Team
    site: Site
    github: Repository

    async def at_github(self, path: str) -> Any:
        return await self.site.as_ada(self.github, "GET", path)


@pytest.fixture
async def flow(tmp_path: Path, docker_engine: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Flow]:
    monkeypatch.setenv("CODESPAR_GITHUB_TOKEN", BOT_TOKEN)
    monkeypatch.delenv("CODESPAR_GITHUB_WEBHOOK_SECRET", raising=False)
    slack, seed = FakeSlack(), story.shop(tmp_path / "seed.git")
    (tmp_path / "github").mkdir()
    async with story.model() as model:
        with Emulate(tmp_path / "github") as host:
            async with Site(host).running() as site:
                github = await asyncio.to_thread(host.repository, "shop", seed)
                settings: dict[str, Any] = {
                    "github": {"api_url": site.url, "poll": 10},
                    "model": {"base_url": model.url, "review": story.REVIEWER},
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
    assert slack.refusals == []


async def test_a_broken_build_at_github_is_told_fixed_reviewed_and_merged(flow: Flow) -> None:
    team, site, bare = flow.team, flow.site, flow.github.bare
    scene = story.InSlack(team, bare, site)
    tale = story.Story(scene)
    await tale.begins()
    told = await tale.breaks()
    bad = tale.main
    assert f"job {story.JOB}, step {story.STEP}" in told.text
    assert "E   assert 5 == 6" in told.text
    assert site.log_requests == 1, "the real log was read, where GitHub keeps it"

    done = await tale.is_fixed()
    assert "Files changed: 1 | Lines: +8 / -1" in done.text
    [pull] = await flow.at_github("/pulls?state=all")
    assert (pull["state"], pull["user"]["login"], pull["base"]["ref"]) == ("open", BOT, "main")
    head = git("rev-parse", pull["head"]["ref"], cwd=bare)
    assert head == pull["head"]["sha"], "pushed by git"
    assert git("show", f"{head}:cart.py", cwd=bare) == story.MENDED.rstrip()

    scene.looks()
    await tale.is_reviewed(pull["number"])
    reviews = await flow.at_github(f"/pulls/{pull['number']}/reviews")
    comments = await flow.at_github(f"/issues/{pull['number']}/comments")
    said = "\n".join(one["body"] for one in (*reviews, *comments))
    assert {one["commit_id"] for one in reviews} == {head}
    assert story.FOUND in said, "emulate refuses it on its line: it is told all the same"
    assert said.count(story.WHEN) == 1, "whole, and once"
    [record] = await team.app.store.read(lambda unit: unit.reviews("shop"))
    assert all(finding.fate is not None for finding in record.findings)

    asked = {"body": "Thank you.\n\n@codespar merge"}
    await site.as_ada(flow.github, "POST", f"/issues/{pull['number']}/comments", asked)
    scene.looks()
    await team.until(lambda: tale.main != bad, 120)
    assert git("show", "main:cart.py", cwd=bare) == story.MENDED.rstrip()
    assert (await flow.at_github(f"/pulls/{pull['number']}"))["merged"]

    fixed = await tale.works_again()
    assert fixed.id == told.id, "the message that told of it is changed in place"
    answers: list[str] = []
    for _ in range(300):
        said = [one["body"] for one in await flow.at_github(f"/issues/{pull['number']}/comments")]
        if answers := [body for body in said if body.startswith("**✅") and " merged**" in body]:
            break
        await asyncio.sleep(0.2)
    assert len(answers) == 1, "the comment is answered where it was written"
    assert not [line for line, _ in site.asked if "/hooks" in line], "nothing was registered at GitHub"
    assert BOT_TOKEN not in await asyncio.to_thread(_everything_in, team.folder)


def _everything_in(folder: Path) -> str:
    return "\n".join(content.decode("latin-1") for _, content in contents(folder))
