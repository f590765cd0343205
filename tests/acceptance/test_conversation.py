"""One scenario through all five channels, and what people see of it in each, compared with what is kept under `conversation/`.

A task is instructed, a second one waits in the queue, both are carried out by Claude Code in containers; the merge is asked for, approved
by a button on one platform and by text on another, and done. `CODESPAR_UPDATE_SNAPSHOTS=1` writes what is seen now; read it before you
keep it.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from codespar.channels.cli import render
from codespar.domain.messages import Author, NormalizedMessage
from codespar.domain.tasks import Thread
from codespar.scripted.script import Library, Script, Turn, bash, pause, write
from codespar.scripted.server import ScriptedModel
from support.platforms.all import FAKES
from support.platforms.base import Shown
from support.repositories import git, repository
from support.team import Team

pytestmark = [pytest.mark.docker, pytest.mark.slow]
KEPT = Path(__file__).parent / "conversation"
CHANNELS = ("slack", "discord", "telegram", "whatsapp", "cli")
GREET = Script(
    (
        Turn("I look at what came with it.", (bash("cat /run/codespar/attachments/* 2>/dev/null || true"),)),
        Turn("I write the greeting.", (write("greeting.txt", "hello, world\n"), pause(1.5))),
        Turn("feat: greet the world\n\nThe greeting stands in greeting.txt."),
    )
)
PART = Script(
    (
        Turn("I write the farewell.", (write("farewell.txt", "goodbye\n"),)),
        Turn("feat: say goodbye\n\nThe farewell stands in farewell.txt."),
    )
)
APPROVALS = {
    "policies": {"rules": [{"name": "two-for-merge", "effect": "ask", "what": ["merge"], "approvals": 2}]}
}


@pytest.fixture
async def team(tmp_path: Path, docker_engine: str) -> AsyncIterator[Team]:
    model = ScriptedModel(Library({"greet": GREET, "goodbye": PART}))
    await model.start()
    made = Team(
        tmp_path / "house",
        [FAKES[name]() for name in CHANNELS if name in FAKES],
        repository(tmp_path / "shop.git"),
        engine=True,
        model_url=model.url,
        settings=APPROVALS,
        slots=1,
    )
    async with made as up:
        yield up
        refusals = {name: list(platform.refusals) for name, platform in up.platforms.items()}
    await model.stop()
    assert not any(refusals.values()), refusals


class Seat:
    """Where Ada sits: one channel, spoken to alike."""

    def __init__(self, team: Team, channel: str) -> None:
        self.team = team
        self.channel = channel
        self.direct = channel == "whatsapp"
        self._said = 0

    async def say(self, text: str, person: str = "ada") -> None:
        if self.channel != "cli":
            await self.team.platforms[self.channel].say(person, text, direct=self.direct)
            return
        known = await self.team.app.store.read(lambda unit: unit.person(person))
        assert known is not None
        self._said += 1
        message = NormalizedMessage(
            id=f"{person}:{self._said}",
            channel="cli",
            author=Author(id=known.id, name=known.name, role=known.role),
            content=text,
            thread_id=known.id,
            timestamp=datetime.now(UTC),
        )
        thread = Thread(channel="cli", conversation="shop", thread_id=known.id, person=known.id)
        await self.team.app.take_in("shop", known, thread, message)

    async def shown(self, person: str = "ada") -> list[Shown]:
        if self.channel != "cli":
            where = f"direct:{person}" if self.direct else None
            return self.team.platforms[self.channel].seen(where)
        sent = await self.team.app.store.read(lambda unit: unit.messages(f"cli/shop/{person}", 0, 500))
        return [
            Shown(id=one.key, conversation="shop", thread=None, text=str(render(one.response, plain=True)))
            for one in sent
        ]

    async def until(self, words: str, seconds: float = 180) -> Shown:
        deadline = time.monotonic() + seconds
        while True:
            found = [one for one in await self.shown() if re.search(words, one.text)]
            if found:
                return found[-1]
            assert time.monotonic() < deadline, (
                self.channel,
                words,
                [one.text for one in await self.shown()],
                self.team.everything(),
            )
            await asyncio.sleep(0.05)


def readable(shown: list[Shown]) -> str:
    """What people see, with what differs from run to run replaced: ids by their order, times, durations, counts and costs by dots."""
    lines: list[str] = []
    threads = list(dict.fromkeys(one.thread for one in shown))
    for before, one in pairwise([None, *sorted(shown, key=lambda one: threads.index(one.thread))]):
        assert one is not None
        if len(threads) > 1 and (before is None or before.thread != one.thread):
            lines += [
                f"======== {f'thread {threads.index(one.thread) + 1}' if one.thread else 'the room'}",
                "",
            ]
        lines.append(one.text.rstrip())
        lines += [f"[{' | '.join(one.buttons)}]"] if one.buttons else []
        lines += [f"(file {name}, {len(content)} bytes)" for name, content in sorted(one.files.items())]
        lines.append("")
    text = "\n".join(lines)
    for kind in ("task", "mg"):
        for place, found in enumerate(dict.fromkeys(re.findall(rf"\b{kind}-[0-9a-z]{{6}}\b", text)), start=1):
            text = text.replace(found, f"{kind}-<{place}>")
    text = re.sub(r"\b[0-9a-f]{12}\b", "<commit>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "<time>", text)
    text = re.sub(r"\d+(\.\d+)? s\b", "<n> s", text)
    text = re.sub(r"🔧 (task-<\d>): .*", r"🔧 \1: <phase>", text)
    text = re.sub(r"(task-<\d> · )?[^·\n]+( · <n> s · )", r"\1<phase>\2", text)
    text = re.sub(r"\$\d+\.\d+", "$<n>", text)
    return re.sub(r"\d+( turns|[\d,]* tokens)", r"<n>\1", text)


def compare(name: str, text: str) -> None:
    path = KEPT / f"{name}.txt"
    if os.environ.get("CODESPAR_UPDATE_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path} shows what people saw before"


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_conversation_reads_well_in_every_channel(team: Team, channel: str) -> None:
    seat = Seat(team, channel)
    slack, discord = team.platforms["slack"], team.platforms["discord"]
    await seat.say("instruct greet the world")
    await seat.until("Task Agent Started")
    await seat.say("instruct say goodbye")
    await seat.until("Task Queued")
    await seat.until(r"Task Completed \(task-[0-9a-z]{6}\)\W[^✅]*greet")
    await seat.until(r"Task Completed \(task-[0-9a-z]{6}\)\W[^✅]*goodbye")
    await seat.say("merge PR #1")
    asked = await seat.until("Approval needed")
    token = re.search(r"mg-[0-9a-z]{6}", asked.text)
    assert token
    button, text = (discord, slack) if channel != "discord" else (slack, discord)
    await button.press("marcus", await team.sees(button.name, "Approval needed"), "Approve")
    await seat.until("Approvals: 1/2|1/2 — Marcus")
    await text.say("rex", f"approve {token[0]}")
    await seat.until("Approved and carried out")
    await seat.until("PR #1 merged")
    merged = git("show", "main:greeting.txt", cwd=team.folder.parent / "shop.git")
    assert merged == "hello, world"
    seen = await seat.shown()
    if channel == "whatsapp":  # progress is told in messages there, and which of it depends on the moment
        seen = [one for one in seen if not one.text.startswith("🔧 task-")]
    compare(channel, readable(seen))
