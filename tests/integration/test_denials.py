"""Every command said by every role to a real server: allowed or denied exactly as the permission table says, and every denial on record.

The tables here are written out from the specification, not taken from the code. No task runs: the server is given no container engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from codespar.cli.client import Client, Refused, Server
from codespar.domain.commands import COMMANDS
from codespar.domain.people import Role
from codespar.scripted.script import Library
from support.house import House
from support.repositories import repository

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWNER, ADMIN, MAINTAINER, OPERATOR, REVIEWER, READER = (
    "owner",
    "emergency_admin",
    "maintainer",
    "operator",
    "reviewer",
    "read-only",
)
ROLES = (OWNER, ADMIN, MAINTAINER, OPERATOR, REVIEWER, READER)
EVERYBODY = frozenset(ROLES)
SEES = EVERYBODY - {READER}
WORKS = frozenset({OWNER, ADMIN, MAINTAINER, OPERATOR})
KEEPS = frozenset({OWNER, ADMIN, MAINTAINER})
RULES = frozenset({OWNER, ADMIN})

SAID: dict[str, dict[str, frozenset[str]]] = {
    "status": {
        "status": EVERYBODY,
        "status all": EVERYBODY,
        "all status": EVERYBODY,
        "one status": EVERYBODY,
    },
    "queue": {"queue": EVERYBODY},
    "help": {"help": EVERYBODY, "help kill": EVERYBODY},
    "whoami": {"whoami": EVERYBODY},
    "logs": {"logs": SEES, "logs 5": SEES},
    "diff": {"diff": SEES, "diff PR #1": SEES, "one diff": SEES},
    "prs": {"prs": SEES, "prs all": SEES, "prs stale": SEES},
    "search": {"search hello": SEES},
    "instruct": {"instruct say hello": WORKS, "Instruct\nsay hello\ntwice": WORKS},
    "fix": {"fix the hello": WORKS, "fix build": WORKS},
    "plan": {"plan a feature": WORKS},
    "cancel": {"cancel task-nothere": WORKS},
    "retry": {"retry task-nothere": WORKS},
    "review": {"review PR #1": SEES},
    "merge": {"merge PR #1": KEEPS, "merge PR #1 squash": KEEPS},
    "deploy": {
        "deploy": WORKS,
        "deploy staging": WORKS,
        "deploy prod": KEEPS,
        "deploy production": KEEPS,
        "deploy PROD v1": KEEPS,
        "deploy to prod": KEEPS,
        "deploy elsewhere": KEEPS,
        "one deploy prod": KEEPS,
        "deploy one then one to prod": KEEPS,
    },
    "rollback": {"rollback": KEEPS, "rollback prod": KEEPS, "rollback staging": WORKS},
    "approve": {
        "approve": EVERYBODY,
        "approve bg-7k2m9q": EVERYBODY,
        "approve PR #1": frozenset({OWNER, ADMIN, MAINTAINER, REVIEWER}),
    },
    "remember": {"remember tests go to tests/": WORKS},
    "forget": {"forget m-7k2m9q": WORKS},
    "reject": {"reject bg-7k2m9q too dear": EVERYBODY},
    "investigate": {"investigate the noise": EVERYBODY},
    "lens": {"lens what is hello": EVERYBODY},
    "scan": {"scan all": EVERYBODY},
    "autonomy": {
        "autonomy": WORKS,
        "autonomy L0": WORKS,
        "autonomy L2": WORKS,
        "autonomy L3": KEEPS,
        "autonomy L4": KEEPS,
        "autonomy L5": RULES,
        "one autonomy 5": RULES,
    },
    "link": {"link /tmp/x.git": KEEPS},
    "unlink": {"unlink": KEEPS},
    "alias": {"alias x /tmp/x.git": KEEPS},
    "list projects": {"list projects": EVERYBODY},
    "register": {"register Nina": RULES},
    "invite": {"invite Nina owner": RULES},
    "policy": {"policy show": KEEPS},
    "audit": {"audit": KEEPS, "audit verify": KEEPS},
    "memory": {"memory": EVERYBODY, "context": EVERYBODY},
    "kill": {"kill": RULES},
    "resume": {"resume": RULES},
}
"""What may be said, by command, and who may say it."""


def token(role: str) -> str:
    return f"token-of-{role}-0123456789"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    variables = {role: f"TOKEN_{role.upper().replace('-', '_')}" for role in ROLES}
    chosen: dict[str, Any] = {
        "people": [{"name": f"A {role}", "role": role, "token_env": variables[role]} for role in ROLES],
        "sandbox": {"docker_host": "unix:///nonexistent/docker.sock"},
        "projects": [{"name": "one", "repository": str(repository(folder / "one.git"))}],
    }
    environment = {variables[role]: token(role) for role in ROLES}
    async with House(folder, Library({}), settings=chosen, environment=environment) as house:
        yield house


def as_person(house: House, secret: str) -> Client:
    return Client(Server(f"http://127.0.0.1:{house.port}", secret))


async def denials(house: House) -> list[dict[str, Any]]:
    """Every denial on record, the oldest first."""
    found = (await house.client.get("/api/v1/audit", limit=1000))["entries"]
    return sorted((entry for entry in found if entry["action"] == "denied"), key=lambda entry: entry["seq"])


async def test_the_table_here_names_every_command_and_every_role() -> None:
    assert set(SAID) == {spec.name for spec in COMMANDS}
    assert set(ROLES) == {role.value for role in Role}


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_may_say_exactly_what_the_table_says(house: House, role: str) -> None:
    before = await denials(house)
    expected: list[tuple[str, str]] = []
    wrong: list[str] = []
    async with as_person(house, token(role)) as client:
        for command, forms in SAID.items():
            for text, able in forms.items():
                [answer] = (await client.say(text, project="one", thread=role))["responses"]
                response = answer["response"]
                denied = "is not yours to give" in response["title"]
                if denied != (role not in able):
                    wrong.append(f"{text!r} was {'denied' if denied else 'allowed'}: {response['title']}")
                if denied:
                    expected.append((f"A {role}", command))
                    assert response["title"] == f"❌ `{command}` is not yours to give", response
                    assert f"A {role} is {role}" in response["text"] and not response["blocks"]
                    told = response["fields"][-1]["value"].removeprefix("ask one of: ").split(", ")
                    assert set(told) == able, f"{text!r} names who holds the permission"
                else:
                    assert "did not understand" not in response["title"], text
                    assert "could not be handled" not in response["title"], text
    assert wrong == []
    recorded = (await denials(house))[len(before) :]
    assert [(entry["actor"], entry["subject"]) for entry in recorded] == expected
    assert all(entry["project"] == "one" and entry["detail"]["rule"] for entry in recorded)
    assert all(role in entry["detail"]["reason"] for entry in recorded)


@pytest.mark.parametrize("secret", ["", "token-of-nobody"])
async def test_an_unknown_person_says_nothing_that_is_heard(house: House, secret: str) -> None:
    async def taken_in() -> list[str]:
        page = await house.client.text("/metrics")
        return [line for line in page.splitlines() if line.startswith("codespar_deliveries_total")]

    before = await taken_in(), await denials(house)
    async with as_person(house, secret) as client:
        for forms in SAID.values():
            for text in forms:
                with pytest.raises(Refused) as refused:
                    await client.say(text, project="one")
                assert refused.value.status == 401
    assert (await taken_in(), await denials(house)) == before
    assert before[0], "deliveries are counted"


async def test_what_was_denied_has_changed_nothing(house: House) -> None:
    before = await house.client.get("/api/v1/tasks", limit=500)
    [known] = (await house.client.get("/api/v1/projects"))["projects"]
    for role in (REVIEWER, READER):
        async with as_person(house, token(role)) as client:
            for text in ("instruct write it", "fix it", "kill", "autonomy L5", "merge PR #1"):
                await client.say(text, project="one")
    after = await house.client.get("/api/v1/tasks", limit=500)
    assert [task["id"] for task in after["tasks"]] == [task["id"] for task in before["tasks"]]
    [project] = (await house.client.get("/api/v1/projects"))["projects"]
    assert project == known


async def test_a_person_cannot_claim_a_role_in_the_message(house: House) -> None:
    """Who speaks follows from the token alone."""
    body = {"content": "whoami", "project": "one", "role": "owner", "author": {"role": "owner"}}
    headers = {"Authorization": f"Bearer {token(READER)}"}
    url = f"http://127.0.0.1:{house.port}/api/v1/messages"
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answer:
        assert answer.status == 422


async def test_the_audit_chain_is_whole_after_all_that(house: House) -> None:
    report = await house.client.get("/api/v1/audit/verify")
    assert report["ok"] is True and report["entries"] > 100
