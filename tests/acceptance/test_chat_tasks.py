"""Tasks that were asked for in chat, with a real container: what was attached reaches it, and the kill switch ends it at once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from codespar.scripted.script import Library, Script, Turn, bash, pause
from codespar.scripted.server import ScriptedModel
from support.platforms.slack import FakeSlack
from support.repositories import git, repository
from support.team import Team

pytestmark = [pytest.mark.docker, pytest.mark.slow]
TRACE = b"Traceback: the shop is closed\n"
TAKE = Script(
    (
        Turn("I keep what came.", (bash("cp /run/codespar/attachments/01-trace.txt kept.txt"),)),
        Turn("fix: keep the trace"),
    )
)
SLOW = Script((Turn("I take my time.", (pause(50),)), Turn("done")))


@pytest.fixture
async def team(tmp_path: Path, docker_engine: str) -> AsyncIterator[Team]:
    model = ScriptedModel(Library({"trace": TAKE, "slow": SLOW}))
    await model.start()
    slack = FakeSlack()
    made = Team(
        tmp_path / "house", [slack], repository(tmp_path / "shop.git"), engine=True, model_url=model.url
    )
    async with made as up:
        yield up
    await model.stop()
    assert slack.refusals == []


def containers(task: str) -> str:
    found = subprocess.run(
        ["docker", "ps", "-q", "--filter", f"name=codespar-{task}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


def signals(container: str, since: float) -> list[str]:
    """What the engine has sent to the container since that time, by number."""
    span = ("--since", f"{since:.3f}", "--until", f"{time.time():.3f}")
    shown = ("--filter", f"container={container}", "--filter", "event=kill")
    told = subprocess.run(
        ["docker", "events", *span, *shown, "--format", "{{.Actor.Attributes.signal}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.split()


async def test_what_was_attached_reaches_the_container(team: Team) -> None:
    slack = team.platforms["slack"]
    assert isinstance(slack, FakeSlack)
    await slack.say("grace", "fix what this trace shows", files={"trace.txt": TRACE})
    await team.sees("slack", "Task Completed", seconds=180)
    shown = git(
        "show", "refs/heads/codespar/" + branch(team) + ":kept.txt", cwd=team.folder.parent / "shop.git"
    )
    assert shown == TRACE.decode().strip()


def branch(team: Team) -> str:
    found = git("branch", "--list", "codespar/*", cwd=team.folder.parent / "shop.git")
    return found.split("codespar/")[1].split()[0]


async def test_the_kill_switch_ends_a_running_container_at_once(team: Team) -> None:
    slack = team.platforms["slack"]
    await slack.say("grace", "instruct be slow about it")
    await team.sees("slack", "running python3", seconds=180)
    [task] = await team.app.store.read(lambda unit: unit.open_tasks("shop"))
    container, began = containers(task.id), time.time()
    assert container
    await slack.say("ada", "kill")
    await team.sees("slack", "Stopped: shop")
    await team.until(lambda: not containers(task.id))
    assert signals(container, began)[-1] == "9", "no ten seconds to end by itself"
    shown = await team.sees("slack", "Task Cancelled")
    assert task.id in shown.text
    await slack.say("ada", "resume")
    await team.sees("slack", "Working again")
