"""A broken build, told; the suggested fix, approved by a button; the task's pull request, reviewed on its lines; its merge. With real parts.

Git, the containers, Claude Code, the analysers and the server are the real ones; the models' answers are scripted, and Slack is played.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from codespar.domain.builds import BuildJob, Conclusion, Run, Step
from codespar.domain.reviews import Fate
from codespar.forges.local import LocalForge
from codespar.scripted.reviews import Reviewed, Reviews, finds, found
from codespar.scripted.script import Library, Script, Turn, bash
from codespar.scripted.server import ScriptedModel
from support.platforms.slack import FakeSlack
from support.repositories import commit, git, repository
from support.team import Team

pytestmark = [pytest.mark.docker, pytest.mark.slow]
BROKEN = "def total(prices):\n    return sum(prices) - 1\n"
MENDED = """import subprocess


def total(prices):
    return sum(prices)


def show(name):
    subprocess.call("echo " + name, shell=True)
"""
FIX = Script(
    (Turn("I mend it.", (bash(f"cat > cart.py <<'END'\n{MENDED}END"),)), Turn("fix: count every price once"))
)
LOG = b"""2026-11-21T10:00:00.0000000Z ##[group]Run pytest -q
2026-11-21T10:00:01.0000000Z ##[endgroup]
2026-11-21T10:00:02.0000000Z \x1b[31mE   assert 5 == 6\x1b[0m
2026-11-21T10:00:02.1000000Z FAILED test_cart.py::test_total - assert 5 == 6
2026-11-21T10:00:03.0000000Z ##[error]Process completed with exit code 1.
"""
REVIEWS = Reviews(
    (
        Reviewed(
            "correctness",
            finds(
                found(
                    "cart.py",
                    9,
                    "A name with a quote breaks the command",
                    severity="high",
                    suggestion="    print(name)",
                ),
                summary="Counts every price and shows a name.",
            ),
        ),
    )
)


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


FAILED_JOB = BuildJob(
    id="1",
    name="unit",
    conclusion=Conclusion.FAILURE,
    steps=(Step(number=1, name="Run pytest -q", conclusion=Conclusion.FAILURE),),
)


@pytest.fixture
async def team(tmp_path: Path, docker_engine: str) -> AsyncIterator[Team]:
    model = ScriptedModel(Library({"build of main": FIX}), reviews=REVIEWS)
    await model.start()
    slack = FakeSlack()
    bare = repository(tmp_path / "shop.git", {"cart.py": "def total(prices):\n    return sum(prices)\n"})
    settings: dict[str, Any] = {
        "look_every": "1s",
        "model": {"base_url": model.url, "review": "anthropic:claude-sonnet-4-5"},
    }
    made = Team(tmp_path / "house", [slack], bare, engine=True, model_url=model.url, settings=settings)
    async with made as up:
        yield up
    await model.stop()
    assert slack.refusals == []


async def test_a_broken_build_is_told_fixed_reviewed_and_merged(team: Team) -> None:
    slack, bare = team.platforms["slack"], team.folder.parent / "shop.git"
    assert isinstance(slack, FakeSlack)
    forge = team.app.forge("shop")
    assert isinstance(forge, LocalForge)
    await slack.say("ada", "autonomy L3")
    await team.sees("slack", "L3")
    good = git("rev-parse", "main", cwd=bare)
    await forge.report_run(a_run(good, "1", Conclusion.SUCCESS, 0), [], {})
    bad = commit(bare, {"cart.py": BROKEN}, "feat: totals")
    await forge.report_run(a_run(bad, "2", Conclusion.FAILURE, 5), [FAILED_JOB], {"1": LOG})
    told = await team.sees("slack", "Build broken: tests on main")
    assert "job unit, step Run pytest -q" in told.text and "E   assert 5 == 6" in told.text
    assert "feat: totals" in told.text, "the commits since it last worked"
    suggested = await team.sees("slack", "fix build tests")
    suggestion = [one for one in slack.seen(None) if "Approve" in one.buttons][-1]
    assert "the build of main is broken" in suggestion.text or suggested
    await slack.press("grace", suggestion, "Approve")
    await team.sees("slack", "Task Completed", seconds=90)
    [task] = await team.app.store.read(lambda unit: unit.tasks("shop"))
    assert task.failing_log.startswith("E   assert 5 == 6") or "assert 5 == 6" in task.failing_log
    reviewed = await team.sees("slack", "Changes requested: PR #1", seconds=120)
    assert "Risk" in reviewed.text
    pull = await forge.get_pull(1)
    [review] = pull.reviews
    assert review.verdict == "request_changes" and review.head_commit == pull.head_commit
    inline = {(one.path, one.line): one.body for one in pull.comments if one.path}
    assert "suggestion" in inline["cart.py", 9] and "A name with a quote" in inline["cart.py", 9]
    [record] = await team.app.store.read(lambda unit: unit.reviews("shop"))
    assert all(finding.fate is not None for finding in record.findings)
    assert any(one.source.startswith(("bandit:", "semgrep:")) for one in record.findings), record.findings
    assert {one.fate for one in record.findings} <= set(Fate)
    await slack.say("marcus", "merge PR #1 squash")
    await team.sees("slack", "PR #1 merged", seconds=20)
    merged = git("rev-parse", "main", cwd=bare)
    await forge.report_run(a_run(merged, "3", Conclusion.SUCCESS, 30), [], {})
    fixed = await team.sees("slack", "Build fixed: tests on main")
    assert fixed.id == told.id, "the message that told of it is changed in place"
    titles = [one.text for one in slack.seen(None)]
    assert sum("Build broken" in one or "Build fixed" in one for one in titles) == 1
