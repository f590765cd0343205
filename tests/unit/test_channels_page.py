"""The quality table of docs/channels.md: where a cell says what is data in an adapter's `Capabilities`, both say the same."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codespar.channels.base import Capabilities, ChannelTools
from codespar.channels.cli import CliChannel
from codespar.channels.platforms import PLATFORMS, Platform

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "channels.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## How well each platform is served\n")[2].partition("\n## ")[0]
FOOTNOTES = dict(re.findall(r"^\[\^([\w-]+)\]: (.+)$", SECTION, re.MULTILINE))
ROWS = [
    [cell.strip() for cell in line[1:-1].split("|")] for line in SECTION.splitlines() if line.startswith("|")
]
HEADINGS, TABLE = ROWS[0][1:], {row[0]: dict(zip(ROWS[0][1:], row[1:], strict=True)) for row in ROWS[2:]}
CELL = re.compile(r"(yes|no|partly|–)(?: \[\^([\w-]+)\])?")
CLIENTS = "cli/web"

SHOWN: dict[str, Callable[[Capabilities], bool]] = {
    "Threads": lambda able: able.threads,
    "Buttons": lambda able: able.buttons,
    "Reason asked with a reject (form)": lambda able: able.forms,
    "Long text as file": lambda able: able.files,
    "Edits in place": lambda able: able.edits,
}
"""Points that `Capabilities` answer for whoever shows a response."""


def capabilities(platform: Platform) -> Capabilities:
    """Where they stand apart from the adapter, without loading its library, which can take seconds."""
    limits = importlib.import_module(platform.adapter.replace(".adapter:", ".limits:").partition(":")[0])
    if isinstance(apart := getattr(limits, "CAPABILITIES", None), Capabilities):
        return apart
    needed = {"phone_number_id": "123456"} if "phone_number_id" in platform.settings.model_fields else {}
    settings = platform.settings.model_validate(needed)
    names = (name for name in platform.settings.model_fields if name.endswith("_env"))
    environment = {str(getattr(settings, name)): "none" for name in names}
    tools = ChannelTools(lambda: datetime(2026, 6, 10, tzinfo=UTC), environment, Path("none"))
    return platform.make(settings, tools).capabilities


ABLE = {platform.name: capabilities(platform) for platform in PLATFORMS} | {CLIENTS: CliChannel.capabilities}


def said(point: str, name: str) -> str:
    """`yes`, `no`, `partly` or `–`."""
    found = CELL.fullmatch(TABLE[point][name])
    assert found, f"{point}, {name}: {TABLE[point][name]!r}"
    return found[1]


def test_every_platform_of_the_product_has_a_column() -> None:
    assert list(ABLE) == HEADINGS


@pytest.mark.parametrize("name", list(ABLE))
def test_what_a_platform_shows_is_what_its_adapter_says(name: str) -> None:
    told = {point: said(point, name) for point in SHOWN}
    assert told == {point: "yes" if able(ABLE[name]) else "no" for point, able in SHOWN.items()}


@pytest.mark.parametrize("name", [platform.name for platform in PLATFORMS])
def test_whether_people_are_written_to_directly_and_lost_answers_found_is_what_the_adapter_says(
    name: str,
) -> None:
    assert said("Direct messages", name) == ("yes" if ABLE[name].direct else "no")
    assert (said("Lost answer found again", name) == "yes") is (ABLE[name].resend == "safe")


@pytest.mark.parametrize("point", list(TABLE))
def test_every_cell_is_an_answer_and_one_that_is_partly_says_how_far(point: str) -> None:
    for name, cell in TABLE[point].items():
        found = CELL.fullmatch(cell)
        assert found, f"{point}, {name}: {cell!r}"
        assert found[2] or found[1] != "partly", f"{point}, {name} has no footnote"


def test_every_footnote_is_used_once_and_every_one_used_is_there() -> None:
    used = re.findall(r"\[\^([\w-]+)\]", "".join("".join(row) for row in ROWS))
    assert sorted(used) == sorted(FOOTNOTES) and len(set(used)) == len(used)
