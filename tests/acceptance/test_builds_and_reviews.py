"""A broken build, told; the suggested fix, approved by a button; the task's pull request, reviewed on its lines; its merge. With real parts.

Git, the containers, Claude Code, the analysers and the server are the real ones; the models' answers are scripted, and Slack is played.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from codespar.domain.reviews import Fate
from codespar.forges.local import LocalForge
from support import story
from support.platforms.slack import FakeSlack
from support.team import Team

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture
async def team(tmp_path: Path, docker_engine: str) -> AsyncIterator[Team]:
    slack = FakeSlack()
    bare = story.shop(tmp_path / "shop.git")
    async with story.model() as model:
        settings = {
            "look_every": "1s",
            "model": {"base_url": model.url, "review": story.REVIEWER},
        }
        made = Team(tmp_path / "house", [slack], bare, engine=True, model_url=model.url, settings=settings)
        async with made as up:
            yield up
    assert slack.refusals == []


async def test_a_broken_build_is_told_fixed_reviewed_and_merged(team: Team) -> None:
    slack, forge = team.platforms["slack"], team.app.forge("shop")
    assert isinstance(forge, LocalForge)
    scene = story.InSlack(team, team.folder.parent / "shop.git")
    tale = story.Story(scene)
    await tale.begins()
    told = await tale.breaks()
    assert f"job {story.JOB}, step {story.STEP}" in told.text and "E   assert 5 == 6" in told.text
    assert story.BREAKING in told.text, "the commits since it last worked"
    suggestion = [one for one in slack.seen(None) if "Approve" in one.buttons][-1]
    assert "the build of main is broken" in suggestion.text or "fix build tests" in suggestion.text
    await tale.is_fixed()
    [task] = await team.app.store.read(lambda unit: unit.tasks("shop"))
    assert "assert 5 == 6" in task.failing_log
    reviewed = await tale.is_reviewed()
    assert "Risk" in reviewed.text
    pull = await forge.get_pull(1)
    [review] = pull.reviews
    assert review.verdict == "request_changes" and review.head_commit == pull.head_commit
    inline = {(one.path, one.line): one.body for one in pull.comments if one.path}
    assert "suggestion" in inline["cart.py", 9] and story.FOUND in inline["cart.py", 9]
    [record] = await team.app.store.read(lambda unit: unit.reviews("shop"))
    assert all(finding.fate is not None for finding in record.findings)
    assert any(one.source.startswith(("bandit:", "semgrep:")) for one in record.findings), record.findings
    assert {one.fate for one in record.findings} <= set(Fate)
    await tale.is_merged()
    fixed = await tale.works_again()
    assert fixed.id == told.id, "the message that told of it is changed in place"
    titles = [one.text for one in slack.seen(None)]
    assert sum("Build broken" in one or "Build fixed" in one for one in titles) == 1
