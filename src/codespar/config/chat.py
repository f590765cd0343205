"""The settings of chat: which platforms are set up, which conversation serves which project, and what is told unasked.

A platform's own section stands beside its adapter; here they are put together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, create_model

from codespar.channels.platforms import PLATFORMS, Platform, platforms
from codespar.config.units import Duration
from codespar.domain.messages import ChannelName
from codespar.domain.notifications import AlertKind
from codespar.domain.settings import Filled, Section


def _quiet_hours(value: str) -> str:
    if value != "none" and not re.fullmatch(
        r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", value, re.ASCII
    ):
        raise ValueError("must be two times such as `22:00-08:00`, or `none`")
    return value


def known_zone(value: str) -> str:
    """The value, if it names a time zone. Raises ValueError."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # most installations name none

    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("must be a time zone such as Europe/Lisbon") from error
    return value


class ChannelRoute(Section):
    """A place where a project's team talks to its agent."""

    channel: ChannelName = Field(
        description="slack, discord, telegram, whatsapp, or another that is set up under `channels`"
    )
    conversation: Filled = Field(description="the platform's id of the channel, group or chat")
    alerts: tuple[AlertKind, ...] = Field(
        default=(AlertKind.ALL,),
        description="what this place is told of unasked: tasks, builds, deploys, errors, incidents, reviews, reports or all; [] for nothing",
    )


class NotificationSettings(Section):
    """How often people are told what they did not ask for."""

    per_hour: int = Field(
        default=10, ge=1, strict=True, description="unasked messages an hour and place at most"
    )
    whatsapp_per_hour: int = Field(default=5, ge=1, strict=True, description="the same on WhatsApp")
    batch: Duration = Field(
        default=300.0, description="how long what is not critical is gathered into one message"
    )
    quiet_hours: Annotated[str, AfterValidator(_quiet_hours)] = Field(
        default="22:00-08:00",
        description="local time in which only what is critical is told; `none` for no such time",
    )
    time_zone: Annotated[str, AfterValidator(known_zone)] | None = Field(
        default=None, description="the zone of local times, such as Europe/Lisbon; left out: the server's"
    )


class ScreeningSettings(Section):
    """What is looked for in everything that is said, besides secrets and hidden markup."""

    allowed_hosts: tuple[Filled, ...] = Field(
        default=(),
        description="internal hosts, or the domains above them, that may be named without a remark",
    )


class ChannelSections(Section):
    """`channels`: a section for each chat platform that is set up; the platforms' own settings stand beside their adapters."""

    def configured(self) -> dict[str, Section]:
        """The platforms that are set up, by name."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: section for name, section in sections.items() if section is not None}


def _channels_section(known: Iterable[Platform]) -> type[ChannelSections]:
    fields: dict[str, Any] = {
        one.name: (one.settings | None, Field(default=None, description=f"{one.name}; left out: not used"))
        for one in known
    }
    return create_model("ChannelsSettings", __base__=ChannelSections, **fields)


if TYPE_CHECKING:
    ChannelsSettings = ChannelSections
else:
    ChannelsSettings = _channels_section(PLATFORMS)


def section_for(document: Mapping[str, Any]) -> type[ChannelSections] | None:
    """`channels` with the platforms that the file names and another installed package brings; None where it names none of those."""
    named = document.get("channels")
    known = platforms(named) if isinstance(named, dict) else {}
    return _channels_section(known.values()) if len(known) > len(PLATFORMS) else None
