"""One team on every chat platform: who is who, what each may do, approvals that cross platforms, and the kill switch."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from codespar.agents.announcer import announce
from codespar.channels.base import HttpAnswer, HttpRequest
from codespar.domain.approvals import ApprovalState
from codespar.domain.messages import Author, NormalizedMessage, NormalizedResponse
from codespar.domain.notifications import AlertKind
from codespar.domain.people import Person, Role
from codespar.domain.tasks import Thread
from codespar.store.base import Unit
from codespar.web.api import create_app
from support.modelapi import KEY, ModelApi, command
from support.platforms.all import FAKES
from support.repositories import git, repository
from support.team import Team

QUIET = "-".join(f"{datetime.now(UTC) + timedelta(hours=hours):%H:%M}" for hours in (-6, 12))
"""Now, and for hours to come."""
CODE = re.compile(r"\b([0-9A-Z]{4}-[0-9A-Z]{4})\b")


@pytest.fixture
async def team(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Team]:
    wanted: dict[str, Any] = getattr(request, "param", {})
    names = wanted.get("platforms", ("slack", "whatsapp"))
    made = Team(
        tmp_path / "house",
        [FAKES[name]() for name in names],
        repository(tmp_path / "shop.git"),
        settings=wanted.get("settings"),
        known=wanted.get("known", True),
        engine=wanted.get("engine", False),
        routed=wanted.get("routed", True),
    )
    async with made as up:
        yield up
        refusals = {name: list(platform.refusals) for name, platform in up.platforms.items()}
    assert not any(refusals.values()), refusals


def on(*names: str, **more: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("team", [{"platforms": names, **more}], indirect=True)


TWO_FOR_MERGE = {
    "policies": {"rules": [{"name": "two-for-merge", "effect": "ask", "what": ["merge"], "approvals": 2}]}
}


async def state(team: Team, token: str) -> ApprovalState:
    approval = await team.app.store.read(lambda unit: unit.approval(token))
    assert approval is not None
    return approval.state


def token_in(text: str, kind: str) -> str:
    found = re.search(rf"\b{kind}-[0-9a-z]{{6}}\b", text)
    assert found, text
    return found[0]


async def audit(team: Team) -> list[dict[str, Any]]:
    return await team.app.store.read(lambda unit: unit.audit_entries(500))


@on("slack", "discord", "telegram", "whatsapp")
async def test_everybody_is_answered_where_they_are(team: Team) -> None:
    for name, platform in team.platforms.items():
        await platform.say("ada", "status", direct=name == "whatsapp")
        where = "direct:ada" if name == "whatsapp" else None
        shown = await team.sees(name, "0/3 tasks", where)
        assert "agent-shop" in shown.text


@on("slack", "discord", "telegram")
async def test_what_is_not_addressed_or_not_from_a_person_is_left_alone(team: Team) -> None:
    for platform in team.platforms.values():
        before = len(platform.seen())
        await platform.say("ada", "status", direct=False)
        await team.sees(platform.name, "0/3 tasks")
        assert len(platform.seen()) == before + 1


@on("slack", settings={"projects": []})
async def test_a_conversation_that_serves_no_project_is_not_listened_to(team: Team) -> None:
    slack = team.platforms["slack"]
    await slack.say("rex", "status")
    await slack.say("rex", "link shop")
    await asyncio.sleep(0.5)
    assert slack.seen() == []
    assert await team.app.store.read(lambda unit: unit.projects_with_pending()) == []


@on("slack", "telegram", routed=False)
async def test_a_conversation_is_linked_and_unlinked_by_who_may(team: Team) -> None:
    for platform in team.platforms.values():
        await platform.say("grace", "link shop")
        await asyncio.sleep(0.5)
        assert platform.seen() == [], "the operator is not listened to"
        await platform.say("marcus", "link shop")
        await team.sees(platform.name, "This conversation serves shop")
        await platform.say("grace", "status")
        await team.sees(platform.name, "0/3 tasks")
        await platform.say("marcus", "unlink")
        await team.sees(platform.name, "does not serve shop any more")
        before = len(platform.seen())
        await platform.say("marcus", "status")
        await asyncio.sleep(0.3)
        assert len(platform.seen()) == before


@on("slack", routed=False)
async def test_a_path_on_the_server_is_not_linked_from_chat(team: Team) -> None:
    slack = team.platforms["slack"]
    await slack.say("marcus", "link /etc")
    shown = await team.sees("slack", "Nothing was linked")
    assert "neither a project" in shown.text and "shop" in shown.text


async def test_the_first_owner_comes_by_the_code_that_the_first_start_prints(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    slack = FAKES["slack"]()
    async with Team(
        tmp_path / "house", [slack], repository(tmp_path / "shop.git"), known=False, settings={"people": []}
    ) as team:
        code = CODE.search(capfd.readouterr().err)
        assert code
        await slack.say("olga", f"register {code[1]}", direct=True)
        await team.sees("slack", "here too", "direct:olga")
        await slack.say("olga", "whoami", direct=True)
        assert "Role: owner" in (await team.sees("slack", "Known on", "direct:olga")).text
        await team.down()
        await team.up()
        assert not CODE.search(capfd.readouterr().err), "the owner is known now"
    assert slack.refusals == []


@on("telegram", known=False)
async def test_a_stranger_who_writes_directly_learns_nothing(team: Team) -> None:
    """A bot can be written to by the whole world."""
    telegram = team.platforms["telegram"]
    for text in ("status", "shop status", "all status", "list projects", "approve", "queue", "link shop"):
        before = len(telegram.seen("direct:rex"))
        await telegram.say("rex", text, direct=True)
        await team.until(lambda before=before: len(telegram.seen("direct:rex")) > before)
    told = [one.text for one in telegram.seen("direct:rex")]
    assert all("You are not known here" in text for text in told)
    assert not any("shop.git" in text or "0/3" in text for text in told)
    await telegram.say("rex", "whoami", direct=True)
    await team.sees("telegram", "Role: read-only", "direct:rex")


@on("slack")
async def test_a_message_that_is_too_long_is_refused_whole(team: Team) -> None:
    slack = team.platforms["slack"]
    await slack.say("grace", "instruct " + "x" * 33_000)
    shown = await team.sees("slack", "too long")
    assert "33009" in shown.text and "attach it" in shown.text
    assert await team.app.store.read(lambda unit: unit.tasks("shop")) == []


@on("slack", "whatsapp", known=False)
async def test_a_person_is_linked_across_channels_by_one_time_codes(team: Team) -> None:
    """The owner at the command line invites Ada; she is known on Slack by the code, and on WhatsApp by one made on Slack."""
    slack, whatsapp = team.platforms["slack"], team.platforms["whatsapp"]
    await slack.say("ada", "instruct do something")
    refused = await team.sees("slack", "is not yours to give")
    assert "role:read-only" in refused.text
    code = CODE.search(await at_the_command_line(team, "invite Ada Lovelace maintainer"))
    assert code
    await slack.say("ada", f"register {code[1]}", direct=True)
    await team.sees("slack", "You are Ada Lovelace here too", "direct:ada")
    await slack.say("ada", "register", direct=True)
    second = CODE.search((await team.sees("slack", "Your one-time code", "direct:ada")).text)
    assert second
    await whatsapp.say("ada", f"register {second[1]}", direct=True)
    await team.sees("whatsapp", "You are Ada Lovelace here too", "direct:ada")
    await whatsapp.say("ada", "whoami", direct=True)
    shown = await team.sees("whatsapp", "Known on", "direct:ada")
    assert "slack, whatsapp" in shown.text and "maintainer" in shown.text
    entries = [entry["action"] for entry in await audit(team)]
    assert entries.count("identity.linked") == 2
    assert second[1] not in str(await audit(team)), "a code stands nowhere"


@on("slack", known=False)
async def test_a_code_counts_once_in_private_and_not_for_guessers(team: Team) -> None:
    slack = team.platforms["slack"]
    code = CODE.search(await at_the_command_line(team, "invite Marcus maintainer"))
    assert code
    await slack.say("marcus", f"register {code[1]}")
    await team.sees("slack", "A one-time code is for one person's eyes")
    await slack.say("marcus", f"register {code[1]}", direct=True)
    await team.sees("slack", "You are Marcus here too", "direct:marcus")
    await slack.say("rex", f"register {code[1]}", direct=True)
    await team.sees("slack", "That code does not count", "direct:rex")
    for _ in range(5):
        await slack.say("rex", "register AAAA-AAAA", direct=True)
    await team.sees("slack", "Too many tries", "direct:rex")
    fresh = CODE.search(await at_the_command_line(team, "invite Victor owner"))
    assert fresh
    await slack.say("rex", f"register {fresh[1]}", direct=True)
    await asyncio.sleep(0.5)
    members = await team.app.store.read(lambda unit: unit.members())
    assert not any(member.identities for member in members if member.person.name == "Victor")


async def at_the_command_line(team: Team, text: str) -> str:
    """What the owner at the server's own machine is answered."""
    owner = team.app.person_of((team.folder / "data" / "cli-token").read_text().strip())
    assert owner is not None
    thread = Thread(channel="cli", conversation="shop", thread_id=owner.id, person=owner.id)
    message = NormalizedMessage(
        id=f"cli:{text}:{datetime.now(UTC).timestamp()}",
        channel="cli",
        author=Author(id=owner.id, name=owner.name, role=owner.role),
        content=text,
        thread_id=owner.id,
        timestamp=datetime.now(UTC),
    )
    _, answers = await team.app.take_in("shop", owner, thread, message)
    return "\n".join(answer.response.plain() for answer in answers)


async def open_pull(team: Team, line: str = "hello again", branch: str = "codespar/task-abc123-hello") -> int:
    """A pull request of `shop`, made as a task makes it. Again for the same branch, it gets a new head."""
    forge, at = team.app.forge("shop"), datetime.now(UTC)
    base_branch, base = await forge.sync()
    patch = (
        "diff --git a/hello.txt b/hello.txt\n--- a/hello.txt\n+++ b/hello.txt\n"
        f"@@ -1 +1 @@\n-hello\n+{line}\n"
    )
    commit = await forge.import_patch(
        base_commit=base, patch=patch.encode(), branch=branch, message="feat: hello", author="Ada", at=at
    )
    await forge.push(branch=branch, commit=commit)
    pull = await forge.open_pull(
        branch=branch,
        commit=commit,
        base_branch=base_branch,
        base_commit=base,
        title="feat: hello",
        body="",
        author="Ada",
        at=at,
    )
    return pull.number


def main(team: Team) -> str:
    return git("show", "main:hello.txt", cwd=team.folder.parent / "shop.git")


@on("slack", "discord", "whatsapp", settings=TWO_FOR_MERGE, engine=True)
async def test_what_is_asked_for_on_one_platform_is_approved_on_others(team: Team) -> None:
    """Asked for on Slack, approved by a button on Discord and by text on WhatsApp, shown live everywhere, carried out once."""
    slack, discord, whatsapp = (team.platforms[name] for name in ("slack", "discord", "whatsapp"))
    number = await open_pull(team)
    await slack.say("ada", f"merge PR #{number}")
    request = await team.sees("discord", "Approval needed")
    token = token_in(request.text, "mg")
    assert "0/2" in request.text and "feat: hello" in request.text and "Asked by" in request.text
    await slack.press("ada", await team.sees("slack", "Approval needed"), "Approve")
    await team.sees("slack", "who asks does not count")
    await discord.press("marcus", request, "Approve")
    for name in ("slack", "discord"):
        shown = await team.sees(name, "Approvals: 1/2")
        assert "Marcus via Discord" in shown.text and shown.edits >= 1
    assert main(team) == "hello", "one of two is not enough"
    await discord.press("marcus", await team.sees("discord", "Approvals: 1/2"), "Approve")
    await team.sees("discord", "has voted on")
    # the operator on WhatsApp may not; an owner of another identity may
    await whatsapp.say("grace", f"approve {token}", direct=True)
    await team.sees("whatsapp", "The vote does not count", "direct:grace")
    await at_the_command_line(team, "whoami")
    owner = await at_the_command_line(team, "invite Olga owner")
    code = CODE.search(owner)
    assert code
    await whatsapp.say("olga", f"register {code[1]}", direct=True)
    await team.sees("whatsapp", "You are Olga here too", "direct:olga")
    await whatsapp.say("olga", f"approve {token}", direct=True)
    for name in ("slack", "discord"):
        shown = await team.sees(name, "Approved and carried out")
        assert "2/2" in shown.text and "Olga via Whatsapp" in shown.text and not shown.buttons
    await team.sees("slack", "merged")
    assert main(team) == "hello again"
    await whatsapp.say("olga", f"approve {token}", direct=True)
    await team.sees("whatsapp", "already", "direct:olga")


@on("slack", "telegram", settings=TWO_FOR_MERGE, engine=True)
async def test_one_reject_ends_it_with_its_reason(team: Team) -> None:
    slack, telegram = team.platforms["slack"], team.platforms["telegram"]
    number = await open_pull(team)
    await telegram.say("ada", f"merge #{number}")
    request = await team.sees("slack", "Approval needed")
    await slack.press("marcus", request, "Reject", answer="not on a Friday")
    for name in ("slack", "telegram"):
        shown = await team.sees(name, "Rejected")
        assert "not on a Friday" in shown.text and "Marcus via Slack" in shown.text and not shown.buttons
    assert await state(team, token_in(request.text, "mg")) is ApprovalState.REJECTED
    assert main(team) == "hello"


@on("slack", settings=TWO_FOR_MERGE, engine=True)
async def test_an_approval_is_void_when_what_it_showed_has_changed(team: Team) -> None:
    slack = team.platforms["slack"]
    number = await open_pull(team)
    await slack.say("ada", f"merge #{number}")
    request = await team.sees("slack", "Approval needed")
    await team.app.forge("shop").close(number, at=datetime.now(UTC))
    await slack.press("marcus", request, "Approve")
    shown = await team.sees("slack", "Void")
    assert not shown.buttons
    assert await state(team, token_in(request.text, "mg")) is ApprovalState.VOID
    assert main(team) == "hello"


@on("slack", settings=TWO_FOR_MERGE, engine=True)
async def test_a_request_nobody_decides_expires_and_says_so(team: Team) -> None:
    slack = team.platforms["slack"]
    number = await open_pull(team)
    await slack.say("ada", f"merge #{number}")
    token = token_in((await team.sees("slack", "Approval needed")).text, "mg")

    def let_time_pass(unit: Unit) -> None:
        waiting = unit.approval(token)
        assert waiting is not None
        asked = datetime.now(UTC) - timedelta(days=2)
        unit.save_approval(waiting.evolve(created_at=asked, expires_at=asked + timedelta(days=1)))

    await team.app.store.write(let_time_pass)
    shown = await team.sees("slack", "Expired")
    assert token in shown.text and not shown.buttons
    await slack.say("marcus", f"approve {token}")
    await team.sees("slack", "expired already")


@on("slack", settings=TWO_FOR_MERGE, engine=True)
async def test_an_approval_waits_through_restarts(team: Team) -> None:
    slack = team.platforms["slack"]
    number = await open_pull(team)
    await slack.say("ada", f"merge #{number}")
    request = await team.sees("slack", "Approval needed")
    await slack.press("marcus", request, "Approve")
    await team.sees("slack", "Approvals: 1/2")
    await team.down()
    await team.up()
    code = CODE.search(await at_the_command_line(team, "invite Olga owner"))
    assert code
    await slack.say("olga", f"register {code[1]}", direct=True)
    await team.sees("slack", "You are Olga here too", "direct:olga")
    await slack.press("olga", await team.sees("slack", "Approvals: 1/2"), "Approve")
    await team.sees("slack", "merged")
    assert main(team) == "hello again"


@on("slack", "discord", "telegram", "whatsapp", settings=TWO_FOR_MERGE, engine=True)
async def test_a_hundred_votes_that_race_carry_it_out_once(team: Team) -> None:
    """Three people, five channels, a hundred votes at once: one merge, and two votes that count."""
    number = await open_pull(team)
    slack = team.platforms["slack"]
    await slack.say("ada", f"merge #{number}")
    token = token_in((await team.sees("slack", "Approval needed")).text, "mg")
    people = ("ada", "marcus", "rex", "grace")
    votes = [
        platform.say(people[turn % 4], f"approve {token}", direct=True)
        for turn in range(20)
        for platform in team.platforms.values()
    ]
    own = [at_the_command_line(team, f"approve {token}") for _ in range(20)]
    await give_role(team, "grace", "maintainer")
    await asyncio.gather(*votes, *own)
    await team.until(lambda: main(team) == "hello again")
    await asyncio.sleep(1)
    entries = await audit(team)
    counted = [e for e in entries if e["action"] == "approval.approve" and e["detail"]["accepted"]]
    assert len(counted) == 2
    assert [e["action"] for e in entries].count("pr.merge") == 1
    assert [e["action"] for e in entries].count("approval.executed") == 1
    merges = git("log", "--oneline", "--merges", "main", cwd=team.folder.parent / "shop.git").splitlines()
    assert len(merges) == 1


async def give_role(team: Team, person: str, role: str) -> None:
    """Have somebody's role be another one, as an edit of codespar.yaml and a restart would."""
    changed = Person(id=person, name=person.capitalize(), role=Role(role))
    await team.app.store.write(lambda unit: unit.save_member(changed, "file"))


@on("slack", "discord")
async def test_the_kill_switch_empties_the_queue_and_pauses_at_once(team: Team) -> None:
    slack, discord = team.platforms["slack"], team.platforms["discord"]
    for number in range(5):
        await slack.say("grace", f"instruct task number {number}")
    await team.sees("slack", "Task Queued (position 2)")
    await slack.say("marcus", "kill")
    await team.sees("slack", "is not yours to give")
    await slack.say("ada", "kill")
    shown = await team.sees("slack", "Stopped: shop")
    assert "Running tasks stopped: 3" in shown.text and "Queued tasks cancelled: 2" in shown.text
    await team.sees("discord", "shop was stopped by Ada")
    project = await team.app.store.read(lambda unit: unit.project("shop"))
    assert project is not None and project.paused
    open_tasks = await team.app.store.read(lambda unit: unit.open_tasks("shop"))
    assert all(task.killed for task in open_tasks) and len(open_tasks) == 3
    await discord.say("grace", "instruct one more")
    await team.sees("discord", "the project is paused")
    await discord.say("ada", "resume")
    await team.sees("discord", "Working again: shop")
    await team.sees("slack", "shop works again")


@on("slack")
async def test_autonomy_is_set_up_to_each_roles_own_level(team: Team) -> None:
    slack = team.platforms["slack"]
    await slack.say("grace", "autonomy L3")
    assert "autonomy-cap:operator" in (await team.sees("slack", "is not yours to give")).text
    await slack.say("grace", "autonomy L2")
    assert "Before: L1: Notify" in (await team.sees("slack", "Autonomy L2: Suggest")).text
    project = await team.app.store.read(lambda unit: unit.project("shop"))
    assert project is not None and project.autonomy == 2


@on("slack", "telegram")
async def test_a_channel_is_linked_and_unlinked_by_who_may(team: Team) -> None:
    """`codespar.yaml` links the rooms of this test: what a command did not make, a command does not undo."""
    slack = team.platforms["slack"]
    await slack.say("marcus", "unlink")
    await team.sees("slack", "codespar.yaml says that it serves shop")
    await slack.say("grace", "alias sh shop")
    await team.sees("slack", "is not yours to give")
    await slack.say("marcus", "alias sh shop")
    await team.sees("slack", "is shop")
    await slack.say("grace", "sh status")
    await team.sees("slack", "0/3 tasks")


@on("slack", settings=TWO_FOR_MERGE)
async def test_the_rules_in_force_are_shown_by_name(team: Team) -> None:
    slack = team.platforms["slack"]
    await slack.say("marcus", "policy show")
    assert "two-for-merge" in (await team.sees("slack", "The rules in force")).text


# what comes over HTTP


@on("whatsapp")
async def test_forged_stale_replayed_and_oversized_requests_store_nothing(team: Team) -> None:
    """Through the server's own front door, as the internet would."""
    whatsapp = team.platforms["whatsapp"]
    kept: list[HttpRequest] = []
    inner = whatsapp.deliver  # type: ignore[attr-defined]

    async def keep(request: HttpRequest) -> HttpAnswer:
        kept.append(request)
        return await inner(request)

    whatsapp.deliver = keep  # type: ignore[attr-defined]
    await whatsapp.say("ada", "whoami", direct=True)
    await team.sees("whatsapp", "Role: owner", "direct:ada")
    genuine = kept[0]
    stored = inbox(team)
    transport = httpx.ASGITransport(app=create_app(team.app, lambda: datetime.now(UTC)))
    async with httpx.AsyncClient(transport=transport, base_url="http://codespar.test") as internet:
        path = "/channels/whatsapp/webhook"
        forged = genuine.headers | {"x-hub-signature-256": "sha256=" + "0" * 64}
        assert (await internet.post(path, content=genuine.body, headers=forged)).status_code == 401
        changed = genuine.body.replace(b"whoami", b"kill!!")
        assert (await internet.post(path, content=changed, headers=genuine.headers)).status_code == 401
        bare = {k: v for k, v in genuine.headers.items() if not k.startswith("x-hub")}
        assert (await internet.post(path, content=genuine.body, headers=bare)).status_code == 401
        huge = b"x" * (3 * 1024**2 + 1)
        assert (await internet.post(path, content=huge, headers=genuine.headers)).status_code == 413
        assert (await internet.post("/channels/nowhere/webhook", content=b"{}")).status_code == 404
        assert inbox(team) == stored
        again = await internet.post(path, content=genuine.body, headers=genuine.headers)
        assert again.status_code == 200, "a repeat is answered alike"
    assert inbox(team) == stored, "and changes nothing"


def inbox(team: Team) -> int:
    with sqlite3.connect(team.folder / "data" / "codespar.sqlite") as connection:
        return int(connection.execute("SELECT count(*) FROM inbox").fetchone()[0])


# what is told unasked


@on("slack", "discord", settings={"notifications": {"batch": "2s", "quiet_hours": "none", "per_hour": 10}})
async def test_what_nobody_asked_for_is_gathered_into_one_message(team: Team) -> None:
    slack = team.platforms["slack"]

    def tell(unit: Unit) -> None:
        for number in range(3):
            card = NormalizedResponse(title=f"Build {number} is red", agent="agent-shop")
            announce(unit, "shop", AlertKind.BUILDS, card, f"build:{number}", datetime.now(UTC))

    await team.app.store.write(tell)
    shown = await team.sees("slack", "3 updates of shop")
    assert all(f"Build {number} is red" in shown.text for number in range(3))
    await team.sees("discord", "3 updates of shop")
    assert len(slack.seen()) == 1


@on("slack", settings={"notifications": {"batch": "1s", "quiet_hours": QUIET, "time_zone": "UTC"}})
async def test_quiet_hours_are_broken_only_by_what_is_critical(team: Team) -> None:
    def tell(unit: Unit) -> None:
        for kind, critical in ((AlertKind.BUILDS, False), (AlertKind.INCIDENTS, True)):
            card = NormalizedResponse(title=f"{kind} news", agent="agent-shop")
            announce(unit, "shop", kind, card, f"news:{kind}", datetime.now(UTC), critical=critical)

    await team.app.store.write(tell)
    await team.sees("slack", "incidents news")
    await asyncio.sleep(2)
    assert len(team.platforms["slack"].seen()) == 1
    assert len(await team.app.store.read(lambda unit: unit.places_waiting())) == 1, (
        "it waits, and is not lost"
    )


# plain language


async def test_plain_language_becomes_a_command_that_is_shown_before_it_changes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_KEY", KEY)
    lines = ("status", "instruct tidy up the readme", "autonomy L5", "kill")
    async with ModelApi(*(command(line) for line in lines)) as api:
        model = {
            "understanding": "anthropic:claude-haiku-5-5",
            "understanding_base_url": api.url,
            "understanding_api_key_env": "TEAM_KEY",
        }
        slack = FAKES["slack"]()
        made = Team(tmp_path / "house", [slack], repository(tmp_path / "shop.git"), settings={"model": model})
        async with made as team:
            await slack.say("grace", "how are things going?")
            await team.sees("slack", "Understood as", seconds=240)  # the first question loads a client
            await team.sees("slack", "0/3 tasks")
            await slack.say("grace", "could you please tidy up the readme")
            shown = await team.sees("slack", "instruct tidy up the readme")
            assert "Approve" in shown.buttons
            assert await team.app.store.read(lambda unit: unit.open_tasks("shop")) == []
            await slack.press("grace", shown, "Approve")
            await team.sees("slack", "Task Agent Started")
            await slack.say("grace", "let me have all the power")
            assert "autonomy-cap:operator" in (await team.sees("slack", "is not yours to give")).text
            await slack.say("ada", "stop the world")
            await team.sees("slack", "I did not understand that")
            project = await team.app.store.read(lambda unit: unit.project("shop"))
            assert project is not None and not project.paused and project.autonomy == 1
    assert slack.refusals == []
