"""How fast a chat platform's messages are read and written: payloads to `Heard`, responses to the platform's messages. No network.

Inbound is measured from the bytes that the platform sends, as the played platforms of the tests make them; its floor is parsing the same
bytes as any program has to (for Telegram and Discord by their library). Outbound is `render`; its floor is `json.dumps` of the response.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import discord
from aiogram.types import Update
from tests.support.platforms.discord import FakeDiscord
from tests.support.platforms.slack import FakeSlack
from tests.support.platforms.telegram import BOT, USERNAME, FakeTelegram
from tests.support.platforms.whatsapp import NUMBER, FakeWhatsapp

from codespar.channels.base import Heard, HttpAnswer, HttpRequest, Part
from codespar.channels.discord import normalize as discord_in
from codespar.channels.discord import render as discord_out
from codespar.channels.slack import normalize as slack_in
from codespar.channels.slack import render as slack_out
from codespar.channels.telegram import normalize as telegram_in
from codespar.channels.telegram import render as telegram_out
from codespar.channels.whatsapp import normalize as whatsapp_in
from codespar.channels.whatsapp import render as whatsapp_out
from codespar.domain.messages import Action, Block, FieldLine, NormalizedResponse, Progress, Tone

SAID = "add rate limiting to POST /login, 5 attempts a minute & IP, and a test that fails without it"
ROUNDS = 5
SECONDS = 0.08  # of one round of one side
DIFF_BYTES = 20_000
FAST, LARGE = 1000, 100  # a second: at these, one message holds the server's loop for 1 and 10 ms

Reading = tuple[Callable[[], Heard], Callable[[], object], str]  # ours, the floor, and what the floor is
RENDERERS: dict[str, Callable[[NormalizedResponse], tuple[Part, ...]]] = {
    "slack": slack_out.render,
    "discord": discord_out.render,
    "telegram": telegram_out.render,
    "whatsapp": whatsapp_out.render,
}


def task_card(title: str = "Task Completed (task-a1b2c3)") -> NormalizedResponse:
    """What a finished task says: five lines and two buttons."""
    lines = (
        ("", 'PR #42 opened: "Rate limiting for POST /login (5 a minute)"'),
        ("", "Files changed: 6 | Lines: +184 / -23"),
        ("Tests", "passed in a second clean container (`pytest -q`, 12.4 s)"),
        ("Cost", "$0.37 (84210 tokens, 17 turns)"),
        ("Asked by", "Ada Lovelace"),
    )
    return NormalizedResponse(
        title=title,
        tone=Tone.SUCCESS,
        fields=tuple(FieldLine(name=name, value=value) for name, value in lines),
        actions=(
            Action(label="Show diff", command="diff PR #42"),
            Action(label="Merge", command="merge PR #42", style="primary"),
        ),
        agent="task-a1b2c3",
    )


def _progress() -> NormalizedResponse:
    """The card that is edited while a task runs."""
    lines = (
        ("Task", f'"{SAID}"'),
        ("Elapsed", "73 s"),
        ("Used", "9 turns, 41830 tokens, $0.18"),
    )
    return NormalizedResponse(
        title="🔧 task-a1b2c3: running tests",
        tone=Tone.PROGRESS,
        fields=tuple(FieldLine(name=name, value=value) for name, value in lines),
        progress=Progress(
            phase="running tests", elapsed_seconds=73, turns=9, tokens=41_830, cost_micros=180_000
        ),
        actions=(Action(label="Cancel", command="cancel task-a1b2c3", style="danger"),),
        agent="task-a1b2c3",
        replaces="card-task-a1b2c3",
    )


def _diff() -> NormalizedResponse:
    """A pull request's diff of 20 kB."""
    lines = [
        "diff --git a/src/app/login.py b/src/app/login.py",
        "--- a/src/app/login.py",
        "+++ b/src/app/login.py",
    ]
    size, number = sum(len(line) + 1 for line in lines), 0
    while size < DIFF_BYTES:
        lines += [
            f"@@ -{number},4 +{number},5 @@ def login_{number}(request: Request) -> Response:",
            "     user = await users.by_name(request.form['name'])",
            f"-    if user is None or not user.check({number}):",
            f"+    if not limiter.allows(request.client.host, key=f'<login>_{number}_*'):",
            "+        raise TooManyRequests(`retry_after`)",
        ]
        size, number = sum(len(line) + 1 for line in lines), number + 7
    text = "\n".join(lines)[:DIFF_BYTES]
    return NormalizedResponse(title="PR #42", blocks=(Block(language="diff", text=text, title="the change"),))


# reading


async def _slack() -> Reading:
    requests: list[HttpRequest] = []

    async def deliver(request: HttpRequest) -> HttpAnswer:
        requests.append(request)
        return HttpAnswer()

    fake = FakeSlack(http=True)
    fake.deliver = deliver
    await fake.say("ada", SAID)
    await fake.stop()
    raw, us = requests[0].body, slack_in.Us("T0SPAR", "U0BOT")
    return lambda: _whole(slack_in.message(json.loads(raw), us)), lambda: json.loads(raw), "json.loads"


async def _whatsapp() -> Reading:
    fake = FakeWhatsapp()
    value, _ = fake.inbound("ada", {"type": "text", "text": {"body": SAID}})
    raw, now = fake.delivery(value), datetime.now(UTC)

    def ours() -> Heard:
        change = next(whatsapp_in.changes(json.loads(raw), NUMBER))
        return _whole(whatsapp_in.heard(change.messages[0], change.contacts, NUMBER, now))

    return ours, lambda: json.loads(raw), "json.loads"


class _NothingSent:
    def where(self, chat: int, message: int) -> tuple[str, str | None] | None:
        return None


async def _telegram() -> Reading:
    fake = FakeTelegram()
    await fake.say("ada", SAID)
    raw, me, now = json.dumps(fake.waiting[0]).encode(), telegram_in.Myself(BOT, USERNAME), datetime.now(UTC)

    def ours() -> Heard:
        heard = telegram_in.normalize(Update.model_validate_json(raw), me, _NothingSent(), now)
        return _whole(heard if isinstance(heard, Heard) else None)

    return ours, lambda: Update.model_validate_json(raw), "aiogram's Update.model_validate_json"


class _DiscordWire(FakeDiscord):
    """Keeps what the gateway would bring."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []

    async def _dispatch(self, kind: str, data: dict[str, Any]) -> None:
        self.told.append({"op": 0, "s": len(self.told) + 1, "t": kind, "d": data})

    def server(self) -> dict[str, Any]:
        return self._guild()


class _DiscordReader(discord.Client):
    """The library, from what the gateway brings to its `Message`, without a connection."""

    def __init__(self) -> None:
        super().__init__(intents=discord.Intents(guilds=True, messages=True), max_messages=None)
        self.got: list[discord.Message] = []

    def dispatch(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        if event == "message":
            self.got.append(args[0])

    def read(self, raw: str) -> discord.Message:
        packet = json.loads(raw)
        self._connection.parsers[packet["t"]](packet["d"])
        return self.got.pop()

    def join(self, server: dict[str, Any]) -> None:
        self._connection.parsers["GUILD_CREATE"](server)


async def _discord() -> Reading:
    fake, reader = _DiscordWire(), _DiscordReader()
    await fake.say("ada", SAID)
    reader.join(fake.server())
    raw, us = json.dumps(fake.told[0]), discord_in.Ourselves(fake.bot, frozenset({fake.role}))

    def ours() -> Heard:
        message = reader.read(raw)
        guild = message.guild.id if message.guild else None
        place = discord_in.place_of(message.channel, message.channel.id, guild)
        return _whole(discord_in.from_message(message, place, us) if place else None)

    return ours, lambda: reader.read(raw), "discord.py from the gateway's text to its Message"


def _whole(heard: Heard | None) -> Heard:
    if heard is None or heard.content != SAID:
        raise RuntimeError(f"a message was not understood: {heard}")
    return heard


# measuring


def _rates(ours: Callable[[], object], floor: Callable[[], object]) -> tuple[float, float]:
    """Calls a second of both, which take turns; medians of the rounds, the first of each not counted."""
    rounds = [(_rate(ours), _rate(floor)) for _ in range(ROUNDS + 1)][1:]
    return statistics.median(one for one, _ in rounds), statistics.median(other for _, other in rounds)


def _rate(call: Callable[[], object]) -> float:
    calls, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < SECONDS:
        call()
        calls += 1
    return calls / spent


def _rendered(channel: str, response: NormalizedResponse) -> tuple[Part, ...]:
    """Rendered once, and nothing lost on the way: every button and all of a block."""
    parts = RENDERERS[channel](response)
    wire = json.dumps([part.payload for part in parts])
    if not all(action.label in wire for action in response.actions):
        raise RuntimeError(f"{channel} does not show every button: {wire}")
    files = [file.content.decode() for part in parts for file in part.files]
    if any(block.text not in files for block in response.blocks):
        raise RuntimeError(f"{channel} does not bring the whole diff")
    return parts


async def _measure() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    readings = {"slack": _slack, "discord": _discord, "telegram": _telegram, "whatsapp": _whatsapp}
    for channel, made in readings.items():
        ours, floor, what = await made()
        ours()
        mine, peer = _rates(ours, floor)
        rows.append(_row(f"channel_heard_{channel}", "messages/s", mine, peer, what, FAST))
    for kind, response, goal in (
        ("card", task_card(), FAST),
        ("progress", _progress(), FAST),
        ("diff", _diff(), LARGE),
    ):
        content = response.model_dump(mode="json", by_alias=True)
        for channel, render in RENDERERS.items():
            count = len(_rendered(channel, response))
            mine, peer = _rates(partial(render, response), partial(json.dumps, content))
            what = f"json.dumps of the same response (rendered: {count} message{'s' if count > 1 else ''})"
            rows.append(_row(f"channel_{kind}_{channel}", "responses/s", mine, peer, what, goal))
    return rows


def _row(name: str, unit: str, rate: float, peer: float, what: str, goal: int) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(rate),
        "unit": unit,
        "against": f"{what}: {peer:.0f}/s",
        "ratio": round(rate / peer, 3),
        "goal": f">= {goal}/s",
        "ok": rate >= goal,
    }


def run() -> list[dict[str, Any]]:
    """Measure every platform; ours and the floor take turns."""
    return asyncio.run(_measure())
