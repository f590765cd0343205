"""What `codespar doctor` says of chat platforms: from a settings file and an environment alone, and from a server that runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from codespar.cli.doctor import Check, examine, report, retiring
from codespar.config import ModelSettings
from codespar.scripted.script import Library
from support.house import House
from support.platforms.slack import FakeSlack
from support.ports import free_port
from support.repositories import repository

SECRETS = {
    "slack": {"CODESPAR_SLACK_BOT_TOKEN": "xoxb-1", "CODESPAR_SLACK_APP_TOKEN": "xapp-1"},
    "discord": {"CODESPAR_DISCORD_TOKEN": "one.two.three"},
    "telegram": {"CODESPAR_TELEGRAM_TOKEN": "123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11"},
    "whatsapp": {
        "CODESPAR_WHATSAPP_TOKEN": "t",
        "CODESPAR_WHATSAPP_APP_SECRET": "s",
        "CODESPAR_WHATSAPP_VERIFY_TOKEN": "v",
    },
}
NEEDED = {"whatsapp": {"phone_number_id": "123456"}}  # settings without a default


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    fake = FakeSlack()
    await fake.start()
    yield fake
    await fake.stop()


async def looked_at(
    folder: Path, environment: dict[str, str] | None = None, **settings: Any
) -> dict[str, Check]:
    """Doctor's checks of this codespar.yaml (JSON is YAML), by name, where no server runs and no engine answers."""
    path = folder / "codespar.yaml"
    body: dict[str, Any] = {"data_dir": "data", "server": {"port": free_port()}}
    path.write_text(json.dumps(body | settings), encoding="utf-8")
    checks = await examine(path, {"DOCKER_HOST": f"unix://{folder}/none.sock"} | (environment or {}))
    named = {check.name: check for check in checks}
    assert named["configuration"].ok, named["configuration"].detail
    assert len(named) == len(checks), "two checks of one name"
    return named


async def codespar(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the program where the codespar.yaml is, with no secret in its environment. Returns exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "codespar", *arguments),
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("CODESPAR_")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 180)
    return process.returncode or 0, out.decode()


@pytest.mark.parametrize("name", list(SECRETS))
async def test_a_platform_with_its_secrets_is_fine_and_one_without_is_told_which_is_missing(
    name: str, tmp_path: Path
) -> None:
    channels = {name: NEEDED.get(name, {})}
    check = (await looked_at(tmp_path, SECRETS[name], channels=channels))[name]
    assert check.ok and check.required, check
    for missing in SECRETS[name]:
        rest = {key: value for key, value in SECRETS[name].items() if key != missing}
        check = (await looked_at(tmp_path, rest, channels=channels))[name]
        assert not check.ok and check.required and missing in check.detail
        assert check.fix == f"# docs/channels/{name}.md says where each secret comes from"
        assert (Path(__file__).parents[2] / "docs" / "channels" / f"{name}.md").exists()


async def test_the_name_that_the_settings_give_a_secret_is_the_one_that_is_asked_for(tmp_path: Path) -> None:
    channels = {"discord": {"token_env": "OUR_BOT"}}
    check = (await looked_at(tmp_path, SECRETS["discord"], channels=channels))["discord"]
    assert not check.ok and "OUR_BOT is not set" in check.detail
    check = (await looked_at(tmp_path, {"OUR_BOT": "one.two.three"}, channels=channels))["discord"]
    assert check.ok and "one.two.three" not in check.detail


async def test_keys_tokens_and_repositories_that_the_settings_name_and_that_are_not_there_are_told(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {
        "github": {},
        "model": {"understanding": "openai:gpt-5", "review": "anthropic:claude-sonnet-5-5"},
        "people": [{"name": "Ada", "role": "owner", "token_env": "CODESPAR_TOKEN_ADA"}],
        "projects": [
            {"name": "shop", "repository": "acme/shop"},
            {"name": "gone", "repository": str(tmp_path / "gone.git")},
            {"name": "here", "repository": str(repository(tmp_path / "here.git", {"a": "a\n"}))},
        ],
    }
    found = await looked_at(tmp_path, None, **settings)
    assert not found["GitHub"].ok and "CODESPAR_GITHUB_TOKEN" in found["GitHub"].detail
    assert not found["understanding model"].ok and "OPENAI_API_KEY" in found["understanding model"].detail
    assert not found["review model"].ok and "ANTHROPIC_API_KEY" in found["review model"].detail
    assert "projects[1].repository" in found["repository of gone"].detail
    assert "repository of here" not in found
    assert not found["API token of Ada"].required and "CODESPAR_TOKEN_ADA" in found["API token of Ada"].detail
    names = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "CODESPAR_GITHUB_TOKEN", "CODESPAR_TOKEN_ADA")
    found = await looked_at(tmp_path, dict.fromkeys(names, "something"), **settings)
    assert [name for name, check in found.items() if not check.ok and name != "Docker"] == [
        "repository of gone"
    ]
    assert "something" not in repr(found)


async def test_nothing_is_said_of_chat_where_no_platform_is_set_up_and_nothing_is_left_behind(
    tmp_path: Path,
) -> None:
    plain = await looked_at(tmp_path)
    assert not any(name in told for told in plain for name in SECRETS)
    await looked_at(tmp_path, SECRETS["whatsapp"], channels={"whatsapp": NEEDED["whatsapp"]})
    assert [path.name for path in tmp_path.iterdir()] == ["codespar.yaml"]


async def test_an_owner_is_looked_for_on_every_platform_by_itself(tmp_path: Path) -> None:
    people = [
        {"name": "Ada", "role": "owner", "identities": {"slack": "T1:U1"}},
        {"name": "Bo", "role": "maintainer", "identities": {"telegram": "4711"}},
    ]
    checks = await looked_at(tmp_path, channels={"slack": {}, "telegram": {}}, people=people)
    assert checks["owner on slack"].ok and "Ada" in checks["owner on slack"].detail
    telegram = checks["owner on telegram"]
    assert not telegram.ok and not telegram.required, "a maintainer is no owner; a code may have linked one"
    assert "codespar send register" in telegram.fix and "{telegram: <the id>}" in telegram.fix
    assert "codespar up" not in telegram.fix, "it prints a code only while no owner is known anywhere"
    nobody = (await looked_at(tmp_path, channels={"telegram": {}}))["owner on telegram"]
    assert "`codespar up` prints such a code" in nobody.fix


async def test_a_route_to_a_platform_that_is_not_set_up_is_a_warning_that_names_file_and_key(
    tmp_path: Path,
) -> None:
    projects = [
        {"name": "one", "repository": "one.git"},
        {
            "name": "two",
            "repository": "two.git",
            "channels": [
                {"channel": "slack", "conversation": "T1:C1"},
                {"channel": "discord", "conversation": "77"},
            ],
        },
    ]
    checks = await looked_at(tmp_path, SECRETS["slack"], channels={"slack": {}}, projects=projects)
    check = checks["two on discord"]
    assert not check.ok and not check.required and "two on slack" not in checks
    assert (
        "codespar.yaml: projects[1].channels[1].channel: discord is not set up under `channels`"
        in check.detail
    )


async def test_two_routes_of_a_project_to_one_missing_platform_are_two_warnings(tmp_path: Path) -> None:
    routes = [{"channel": "slack", "conversation": room} for room in ("T1:C1", "T1:C2")]
    path = tmp_path / "codespar.yaml"
    projects = [{"name": "one", "repository": "one.git", "channels": routes}]
    path.write_text(json.dumps({"server": {"port": free_port()}, "projects": projects}), encoding="utf-8")
    told = [check.detail for check in await examine(path, {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})]
    assert sum("T1:C1" in one for one in told) == sum("T1:C2" in one for one in told) == 1


async def test_missing_secrets_fail_doctor_and_a_missing_owner_alone_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = await looked_at(tmp_path, channels={"slack": {}})
    chat = [checks["slack"], checks["owner on slack"]]
    assert not report(chat, as_json=False)
    said = capsys.readouterr().out
    assert said.startswith("✗ slack: CODESPAR_SLACK_BOT_TOKEN is not set")
    assert "– owner on slack:" in said and "    codespar send register" in said
    assert report(chat[1:], as_json=False)


async def test_with_a_server_its_live_state_is_shown_and_the_code_of_send_register_links_an_owner(
    tmp_path: Path, slack: FakeSlack
) -> None:
    projects = [
        {"name": name, "repository": str(repository(tmp_path / f"{name}.git"))} for name in ("one", "two")
    ]
    channels = {"slack": slack.settings, "whatsapp": NEEDED["whatsapp"]}
    settings = {"channels": channels, "projects": projects}
    async with House(tmp_path, Library({}), settings=settings, environment=slack.environment) as house:
        await until_state(house, "slack", "connected")
        await until_state(house, "whatsapp", "CODESPAR_WHATSAPP_TOKEN is not set")
        house.write_config(channels=channels | {"discord": {}})
        code, said = await codespar(tmp_path, "doctor")
        assert code == 1
        assert "✓ slack: the server that runs here is connected" in said
        assert "✗ whatsapp: the server that runs here cannot use it: CODESPAR_WHATSAPP_TOKEN is not" in said
        assert "✗ discord: the server that runs here was started before it was set up" in said
        assert "– owner on slack: codespar.yaml names no owner's id there" in said

        shown = re.search(r"^    codespar (send register --project one) ", said, re.MULTILINE)
        assert shown, said
        code, answer = await codespar(tmp_path, *shown[1].split())
        found = re.search(r"register ([0-9A-Z]{4}-[0-9A-Z]{4})", answer)
        assert code == 0 and found, answer
        await slack.say("ada", f"register {found[1]}", direct=True)
        deadline = time.monotonic() + 60
        while not any("Role: owner" in one.text for one in slack.seen(slack.direct("ada"))):
            assert time.monotonic() < deadline, slack.seen()
            await asyncio.sleep(0.05)

        (tmp_path / "data" / "cli-token").write_text("somebody else's")  # who is not told its state
        code, said = await codespar(tmp_path, "doctor")
        assert "– slack: CODESPAR_SLACK_BOT_TOKEN is not set" in said
        assert "The server that runs may have it" in said


async def until_state(house: House, name: str, state: str) -> None:
    deadline = time.monotonic() + 60
    while not (found := (await house.client.get("/api/v1/channels"))["channels"][name]).startswith(state):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("today", "told"),
    [
        (date(2026, 9, 30), None),
        (date(2026, 10, 1), "will be retired on 30 November 2026"),
        (date(2026, 11, 29), "will be retired on 30 November 2026"),
        (date(2026, 11, 30), "was retired on 30 November 2026"),
        (date(2027, 3, 1), "was retired on 30 November 2026"),
    ],
)
def test_a_model_that_is_retired_within_sixty_days_is_told_with_the_day_and_what_to_set(
    today: date, told: str | None
) -> None:
    of_all_three = ModelSettings(
        name="claude-sonnet-4-5-20250929",
        understanding="anthropic:claude-sonnet-4-5",
        review="anthropic:claude-sonnet-4-5",
    )
    checks = {check.name: check for check in retiring(of_all_three, "codespar.yaml", today)}
    if told is None:
        assert checks == {}
        return
    assert list(checks) == ["model.name", "model.understanding", "model.review"]
    assert all(told in check.detail and not check.ok for check in checks.values())
    assert "`model.name: claude-sonnet-5-5` in codespar.yaml" in checks["model.name"].fix
    assert "`model.review: anthropic:claude-sonnet-5-5`" in checks["model.review"].fix
    assert [check.name for check in checks.values() if check.required] == (
        ["model.name"] if told.startswith("was") else []
    ), "without it no task can run"


@pytest.mark.parametrize(
    "model",
    [
        ModelSettings(),
        ModelSettings(name="our-own", understanding="openai:claude-sonnet-4-5", review="openai:gpt-5-mini"),
        ModelSettings(name="us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ],
)
def test_of_other_models_and_those_of_other_services_nothing_is_said(model: ModelSettings) -> None:
    assert retiring(model, "codespar.yaml", date(2026, 12, 24)) == []


async def test_a_retired_model_behind_another_address_is_told_and_nothing_more(tmp_path: Path) -> None:
    model = {"name": "claude-opus-4-1", "base_url": "http://127.0.0.1:9"}
    check = (await looked_at(tmp_path, model=model))["model.name"]
    assert "claude-opus-4-1 was retired on 5 August 2026" in check.detail and not check.required
    assert "model.name" not in await looked_at(tmp_path)
