"""The registration: which chat platforms there are. A platform is one folder and one line here.

A platform that is not part of the product registers itself under the entry point group `codespar.channels`, with a `Platform` behind it.
Importing this is cheap: an adapter and its platform's library are loaded when they are configured.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from codespar.channels.base import ChannelAdapter, ChannelTools
from codespar.channels.discord.settings import DiscordSettings
from codespar.channels.slack.settings import SlackSettings
from codespar.channels.telegram.settings import TelegramSettings
from codespar.channels.whatsapp.settings import WhatsappSettings
from codespar.domain.settings import Section

ENTRY_POINTS = "codespar.channels"


@dataclass(frozen=True)
class Platform:
    """A chat platform: its name in settings and messages, its section of `channels:`, and where its adapter is (`module:Class`)."""

    name: str
    settings: type[Section]
    adapter: str

    def make(self, settings: Section, tools: ChannelTools) -> ChannelAdapter:
        """The adapter, not yet connected. Raises `NotConnected` when a secret that the settings name is not set."""
        module, _, name = self.adapter.partition(":")
        adapter: Any = getattr(importlib.import_module(module), name)
        return adapter(settings, tools)


PLATFORMS = (
    Platform("slack", SlackSettings, "codespar.channels.slack.adapter:SlackChannel"),
    Platform("discord", DiscordSettings, "codespar.channels.discord.adapter:DiscordChannel"),
    Platform("telegram", TelegramSettings, "codespar.channels.telegram.adapter:TelegramChannel"),
    Platform("whatsapp", WhatsappSettings, "codespar.channels.whatsapp.adapter:WhatsappChannel"),
)


def platforms(named: Collection[str] = ()) -> dict[str, Platform]:
    """The platforms of the product, and those of `named` that other installed packages bring."""
    known = {platform.name: platform for platform in PLATFORMS}
    if set(named) - set(known):
        from importlib.metadata import entry_points  # reads every installed package: only when it is needed

        for point in entry_points(group=ENTRY_POINTS):
            if point.name not in known:
                known[point.name] = point.load()
    return known
