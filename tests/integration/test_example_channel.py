"""The example of docs/channels.md, installed and used as it stands on the page."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from codespar.channels.base import (
    AttachmentRefused,
    Capabilities,
    ChannelAdapter,
    ChannelTools,
    DeliveryFailed,
    Heard,
    HttpRequest,
    MessageGone,
    NotConnected,
)
from codespar.channels.platforms import PLATFORMS, Platform, platforms
from codespar.config import ConfigError, Settings, load_settings
from codespar.domain.messages import Action, FieldLine, NormalizedResponse
from codespar.domain.tasks import Thread

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "channels.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
NOW = datetime(2026, 6, 10, 12, 0, tzinfo=UTC)
ROOM = Thread(channel="spool", conversation="team")
CARD = NormalizedResponse(
    title="🔧 Task Agent Started",
    fields=(FieldLine(name="Agent", value="task-abc123"),),
    actions=(Action(label="Cancel", command="cancel task-abc123"),),
)


class Desk:
    """A `Reception` that collects; `refusing` stands for a store that is down."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.asked = 0
        self.refusing = False
        self.present: Callable[[], list[str]] = list
        self.still_there: list[bool] = []

    async def hear(self, heard: Heard) -> bool:
        self.asked += 1
        if self.refusing:
            raise ConnectionError("the store is down")
        self.still_there.append(f"{heard.delivery}.json" in self.present())
        self.heard.append(heard)
        return True


def install(folder: Path) -> None:
    """The package as an installer lays it out: its folder, and beside it what is known about it."""
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    for name, text in FILES.items():
        if name.endswith(".py"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    known = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    known.mkdir()
    (known / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    points = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (known / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages with the example in it, which Python looks into."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    install(folder)
    for module in [name for name in sys.modules if name.partition(".")[0] == "codespar_spool"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def written(folder: Path, spool: Path, extra: str = "") -> Path:
    path = folder / "codespar.yaml"
    shown = "    folder: /var/spool/codespar\n"
    assert shown in FILES["codespar.yaml"]
    mine = f"    folder: {spool}\n    every: 0.02\n{extra}"
    path.write_text(FILES["codespar.yaml"].replace(shown, mine), encoding="utf-8")
    return path


def made(settings: Settings, folder: Path) -> ChannelAdapter:
    (section,) = settings.channels.configured().values()
    return platforms(settings.channels.configured())["spool"].make(
        section, ChannelTools(clock=lambda: NOW, environment={}, folder=folder)
    )


@pytest.fixture
async def channel(site: Path, spool: Path, tmp_path: Path) -> AsyncIterator[ChannelAdapter]:
    adapter = made(load_settings(written(tmp_path, spool), {}), tmp_path)
    yield adapter
    await adapter.stop()


@pytest.fixture
async def desk(channel: ChannelAdapter, spool: Path) -> Desk:
    desk = Desk()
    desk.present = lambda: sorted(path.name for path in (spool / "in").iterdir())
    await channel.start(desk)
    return desk


def drop(spool: Path, id: str, text: str = "status", **more: Any) -> None:
    said = {"room": "team", "person": "ada", "text": text} | more
    (spool / "in" / f"{id}.tmp").write_text(json.dumps(said), encoding="utf-8")
    (spool / "in" / f"{id}.tmp").rename(spool / "in" / f"{id}.json")


def shown(spool: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((spool / "out").glob("*.json"))}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - what is waited for is in the file system
            await asyncio.sleep(0.01)


# the registration


def test_an_installed_package_brings_its_platform_and_its_settings(
    site: Path, spool: Path, tmp_path: Path
) -> None:
    settings = load_settings(written(tmp_path, spool), {})
    assert set(settings.channels.configured()) == {"spool"}
    known = platforms(["spool"])
    assert list(known) == [*(one.name for one in PLATFORMS), "spool"]
    assert isinstance(known["spool"], Platform)
    assert type(settings.channels.configured()["spool"]) is known["spool"].settings
    assert [route.channel for route in settings.projects[0].channels] == ["spool"]
    assert settings.people[0].identities == {"spool": "ada"}


def test_its_adapter_is_loaded_only_when_it_is_made(site: Path, spool: Path, tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, spool), {})
    assert "codespar_spool" in sys.modules and "codespar_spool.adapter" not in sys.modules
    made(settings, tmp_path)
    assert "codespar_spool.adapter" in sys.modules


def test_a_misspelt_key_of_its_section_is_told_with_its_line(site: Path, spool: Path, tmp_path: Path) -> None:
    path = written(tmp_path, spool, extra="    foldr: /tmp\n")
    line = path.read_text("utf-8").splitlines().index("    foldr: /tmp") + 1
    with pytest.raises(ConfigError, match=rf"codespar.yaml:{line}: channels.spool.foldr: .*`folder`"):
        load_settings(path, {})


def test_without_the_package_the_section_is_an_unknown_key(spool: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"codespar.yaml:\d+: channels.spool: unknown key"):
        load_settings(written(tmp_path, spool), {})


# in


async def test_what_is_dropped_is_heard_and_acknowledged_only_after_it_was_heard(
    desk: Desk, spool: Path
) -> None:
    drop(spool, "m1", "deploy staging\nnow", mention=True)
    await until(lambda: not desk.present())
    assert desk.heard == [
        Heard(
            delivery="m1",
            channel="spool",
            conversation="team",
            sender="ada",
            sender_name="ada",
            content="deploy staging\nnow",
            direct=False,
            addressed=True,
            at=NOW,
        )
    ]
    assert desk.still_there == [True]


async def test_only_mentions_and_direct_messages_are_addressed_to_us(desk: Desk, spool: Path) -> None:
    drop(spool, "m1")
    drop(spool, "m2", direct=True)
    await until(lambda: len(desk.heard) == 2)
    assert [(heard.delivery, heard.direct, heard.addressed) for heard in desk.heard] == [
        ("m1", False, False),
        ("m2", True, True),
    ]


async def test_what_could_not_be_committed_stays_and_is_brought_again(desk: Desk, spool: Path) -> None:
    desk.refusing = True
    drop(spool, "m1")
    await until(lambda: desk.asked >= 2)
    assert desk.present() == ["m1.json"]
    desk.refusing = False
    await until(lambda: not desk.present())
    assert [heard.delivery for heard in desk.heard] == ["m1"]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"room": "team"}', '{"room": "", "person": "a", "text": "x"}']
)
async def test_what_is_no_message_is_set_aside_and_holds_up_nothing(
    desk: Desk, spool: Path, content: str
) -> None:
    (spool / "in" / "m1.json").write_text(content, encoding="utf-8")
    drop(spool, "m2")
    await until(lambda: desk.present() == ["m1.bad"])
    assert [heard.delivery for heard in desk.heard] == ["m2"]


async def test_what_came_while_it_was_stopped_is_heard_when_it_starts_again(
    channel: ChannelAdapter, desk: Desk, spool: Path
) -> None:
    await channel.stop()
    await channel.stop()
    drop(spool, "m1")
    await asyncio.sleep(0.1)
    assert desk.heard == []
    await channel.start(desk)
    await until(lambda: [heard.delivery for heard in desk.heard] == ["m1"])


async def test_a_folder_that_cannot_be_used_is_told_with_the_setting_that_names_it(
    channel: ChannelAdapter, spool: Path
) -> None:
    spool.write_text("a file stands here")
    with pytest.raises(NotConnected, match=r"channels\.spool\.folder"):
        await channel.start(Desk())
    spool.unlink()
    await channel.start(Desk())


# out


async def test_an_answer_is_written_once_however_often_it_is_sent(
    channel: ChannelAdapter, desk: Desk, spool: Path
) -> None:
    (part,) = channel.render(CARD)
    ids = [await channel.send(ROOM, part, "task-abc123:started#0") for _ in range(3)]
    assert set(shown(spool)) == set(ids) and len(set(ids)) == 1
    assert shown(spool)[ids[0]] == {"room": "team", "thread": None, "text": CARD.plain()}
    other = await channel.send(ROOM.evolve(conversation="else"), part, "task-abc123:started#0")
    assert other not in ids


async def test_an_answer_is_edited_in_place_and_taken_away(
    channel: ChannelAdapter, desk: Desk, spool: Path
) -> None:
    (part,) = channel.render(CARD)
    id = await channel.send(ROOM, part, "k")
    (changed,) = channel.render(CARD.evolve(title="✅ Done"))
    await channel.edit(ROOM, id, changed)
    await channel.edit(ROOM, id, changed)
    assert [one["text"].splitlines()[0] for one in shown(spool).values()] == ["✅ Done"]
    await channel.delete(ROOM, id)
    await channel.delete(ROOM, id)
    assert shown(spool) == {}
    with pytest.raises(MessageGone):
        await channel.edit(ROOM, id, changed)


def test_a_long_answer_becomes_several_messages_and_nothing_is_lost(channel: ChannelAdapter) -> None:
    long = CARD.evolve(text="\n".join(f"line {number}" for number in range(2000)))
    for plain in (False, True):
        parts = channel.render(long, plain=plain)
        assert len(parts) > 1
        assert all(len(part.text) <= channel.capabilities.max_text for part in parts)
        assert "".join(str(part.payload["text"]) for part in parts) == long.plain()


async def test_what_cannot_be_written_is_to_be_tried_again(
    channel: ChannelAdapter, desk: Desk, spool: Path
) -> None:
    (part,) = channel.render(CARD)
    (spool / "out").rmdir()
    with pytest.raises(DeliveryFailed):
        await channel.send(ROOM, part, "k")
    (spool / "out").mkdir()
    assert await channel.send(ROOM, part, "k") in shown(spool)


async def test_what_it_does_not_have_it_refuses(channel: ChannelAdapter) -> None:
    with pytest.raises(AttachmentRefused):
        await channel.fetch("x", 100)
    answer = await channel.answer(HttpRequest(method="POST", path="events", headers={}, body=b""))
    assert answer.status == 404
    assert await channel.find(ROOM, "k", NOW) is None


# the page


def test_the_example_has_every_method_of_the_port_with_the_same_arguments(site: Path) -> None:
    adapter = importlib.import_module("codespar_spool.adapter").SpoolChannel
    for name, method in inspect.getmembers(ChannelAdapter, inspect.isfunction):
        if not name.startswith("_"):
            wanted = list(inspect.signature(method).parameters)
            assert list(inspect.signature(getattr(adapter, name)).parameters) == wanted, name


USE = """
from codespar.channels.base import ChannelAdapter, ChannelTools
from codespar_spool import SpoolSettings
from codespar_spool.adapter import SpoolChannel

def make(settings: SpoolSettings, tools: ChannelTools) -> ChannelAdapter:
    return SpoolChannel(settings, tools)
"""


@pytest.mark.slow
def test_the_example_passes_our_linter_and_the_type_checker_in_its_strictest_mode(site: Path) -> None:
    (site / "use.py").write_text(USE, encoding="utf-8")
    rules = {
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "extraPaths": [str(ROOT / "src")],
        "include": ["codespar_spool", "use.py"],
    }
    (site / "pyrightconfig.json").write_text(json.dumps(rules), encoding="utf-8")
    asking = ["check", "--config", str(ROOT / "pyproject.toml"), "codespar_spool"]
    linted = subprocess.run(
        [Path(sys.executable).with_name("ruff"), *asking],
        cwd=site,
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout
    checked = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", str(site)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )
    assert checked.returncode == 0, checked.stdout


def capabilities(platform: Platform, folder: Path) -> Capabilities:
    """What its adapter can show; where that stands apart from the platform's library, without loading it: one takes many seconds."""
    limits: Any = importlib.import_module(platform.adapter.replace(".adapter:", ".limits:").partition(":")[0])
    if isinstance(apart := getattr(limits, "CAPABILITIES", None), Capabilities):
        return apart
    assert platform.name == "whatsapp"
    secrets = dict.fromkeys(("TOKEN", "APP_SECRET", "VERIFY_TOKEN"), "none")
    environment = {f"CODESPAR_WHATSAPP_{name}": value for name, value in secrets.items()}
    tools = ChannelTools(clock=lambda: NOW, environment=environment, folder=folder)
    return platform.make(platform.settings.model_validate({"phone_number_id": "123456"}), tools).capabilities


@pytest.mark.parametrize("platform", PLATFORMS, ids=[one.name for one in PLATFORMS])
def test_the_page_says_of_each_platform_what_its_adapter_says(platform: Platform, tmp_path: Path) -> None:
    row = re.search(rf"^\| {platform.name} \|(.*)\|$", PAGE, re.MULTILINE)
    assert row, f"docs/channels.md has no row for {platform.name}"
    able = capabilities(platform, tmp_path)
    told = [cell.strip() for cell in row[1].split("|")]
    facts = (able.threads, able.edits, able.buttons, able.forms, able.files)
    assert told[1:] == ["yes" if fact else "no" for fact in facts]
    assert f"(channels/{platform.name}.md)" in PAGE
