"""What people are told without having asked: its kinds, where it goes, and when it may be told.

Pure: the clock is an argument and nothing is sent from here. Nothing that waits is ever dropped; it is told later, in one message.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from codespar.domain.base import Value
from codespar.domain.messages import (
    Action,
    Block,
    ChannelName,
    FieldLine,
    Link,
    NormalizedResponse,
    Tone,
    UtcDatetime,
)
from codespar.domain.tasks import Thread

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MOST_LINES = 50  # of a digest; the rest is folded into a block
MOST_ACTIONS = 10  # of a digest; the commands of the rest are written out
_TIMES = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


class AlertKind(StrEnum):
    """What a place may be told of unasked."""

    TASKS = "tasks"
    BUILDS = "builds"
    DEPLOYS = "deploys"
    ERRORS = "errors"
    INCIDENTS = "incidents"
    REVIEWS = "reviews"
    REPORTS = "reports"  # what a schedule brings
    ALL = "all"


class Place(Value):
    """Where unasked messages of a project go, and which."""

    channel: ChannelName
    conversation: str
    thread_id: str | None = None
    alerts: tuple[AlertKind, ...]  # () takes nothing, not even what is critical

    def takes(self, kind: AlertKind) -> bool:
        return AlertKind.ALL in self.alerts or kind in self.alerts

    @property
    def thread(self) -> Thread:
        return Thread(channel=self.channel, conversation=self.conversation, thread_id=self.thread_id)

    @property
    def key(self) -> str:
        """The same as its thread's."""
        return self.thread.key


class QuietHours(Value):
    """A span of the local day, in minutes since midnight; it may go over midnight. `start` is quiet, `end` is not any more.

    It goes by what the clock on the wall shows. Equal ends mean that it is never quiet.
    """

    start: int = Field(ge=0, lt=24 * 60)
    end: int = Field(ge=0, lt=24 * 60)

    @classmethod
    def parse(cls, text: str) -> QuietHours | None:
        """`22:00-08:00`, or None for `none`. Raises ValueError for anything else."""
        if text == "none":
            return None
        found = _TIMES.fullmatch(text)
        if found is None:
            raise ValueError(f"quiet hours must be two times such as `22:00-08:00`, or `none`; not {text!r}")
        from_hour, from_minute, to_hour, to_minute = (int(part) for part in found.groups())
        return cls(start=from_hour * 60 + from_minute, end=to_hour * 60 + to_minute)

    def contains(self, at: datetime, zone: tzinfo) -> bool:
        """Whether it is quiet at `at` (aware)."""
        if at.tzinfo is None:
            raise ValueError(f"{at} has no time zone; give an aware time")
        local = at.astimezone(zone)
        minute = local.hour * 60 + local.minute
        if self.start <= self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end

    def ends(self, at: datetime, zone: tzinfo) -> datetime:
        """The first instant at `at` or later, in UTC, at which it is not quiet: `at` itself when it is not quiet then.

        The clock leaves the span by reaching `end`, or by being set to a time outside. Where it is set back into the span after it had
        reached `end`, it is quiet once more.
        """
        moment = at.astimezone(UTC)
        while self.contains(moment, zone):
            local = moment.astimezone(zone)
            shown = timedelta(
                hours=local.hour, minutes=local.minute, seconds=local.second, microseconds=local.microsecond
            )
            reached = moment + (timedelta(minutes=self.end) - shown) % DAY
            if reached.astimezone(zone).utcoffset() == local.utcoffset():
                return reached
            moment = _clock_change(moment, reached, zone)
        return moment


def _clock_change(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """The instant between two at which the offset of `zone` becomes another."""
    old = before.astimezone(zone).utcoffset()
    while after - before > timedelta.resolution:
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == old:
            before = middle
        else:
            after = middle
    return after


class Rules(Value):
    """When people may be told what they did not ask for."""

    per_hour: int = Field(ge=1)  # unasked messages an hour and place
    per_hour_of: dict[ChannelName, Annotated[int, Field(ge=1)]] = {"whatsapp": 5}  # channels with their own
    batch_seconds: float = Field(ge=0)  # for which what is not critical is gathered
    quiet: QuietHours | None
    zone: str | None = None  # an IANA name; None: UTC
    pulled: frozenset[str] = frozenset({"cli", "web"})  # their clients read for themselves: nothing waits

    def limit(self, channel: str) -> int:
        """How many unasked messages an hour a place on this channel gets."""
        return self.per_hour_of.get(channel, self.per_hour)

    @property
    def local(self) -> tzinfo:
        """The zone of local times. Raises `ZoneInfoNotFoundError` for a name that is none."""
        return local_zone(self.zone)


def local_zone(name: str | None) -> tzinfo:
    """The zone of that IANA name; UTC without one."""
    if name is None:
        return UTC
    from zoneinfo import ZoneInfo  # most installations name none

    return ZoneInfo(name)


class Announcement(Value):
    """Something one place shall be told unasked."""

    id: int  # order of arrival; smaller first
    project: str
    kind: AlertKind
    critical: bool = False
    place: str  # the key of the place: channel/conversation/thread
    response: NormalizedResponse
    created_at: UtcDatetime
    standing: bool = False  # told alone: something else may be put in its place later

    @property
    def card(self) -> str | None:
        """The outbox key under which it is told, where it is a message of its own that is not gathered: a request for approval."""
        return self.response.replaces


def told_key(announcement: int) -> str:
    """The outbox key of the message by which an announcement was told; of several at once, the first of them."""
    return f"told:{announcement}"


class Plan(Value):
    """What goes to a place now, and when to look again unless something new arrives. Each entry of `messages` is one message."""

    messages: tuple[tuple[Announcement, ...], ...] = ()
    next_at: UtcDatetime | None = None  # None: nothing waits


def due(
    waiting: Sequence[Announcement],
    sent_at: Sequence[datetime],
    rules: Rules,
    channel: str,
    now: datetime,
) -> Plan:
    """What of `waiting`, all of one place on `channel`, is told at `now`.

    `sent_at` has the time of every unasked message the place was sent in the last hour, critical or not; older ones do not matter.
    Critical ones go at once, each alone, and so do standing ones when the others go. Cards are not gathered: each goes alone as soon as it is
    not quiet and a place under the limit is free, after the others. The others are gathered until `batch_seconds` after the oldest of them, the end of quiet hours
    and a free place under the limit of the hour, whichever is last, and go as one. Raises ValueError for announcements of several places.
    """
    if len({one.place for one in waiting}) > 1:
        places = ", ".join(sorted({one.place for one in waiting}))
        raise ValueError(f"a plan is made for one place at a time; these announcements are for {places}")
    ordered = sorted(waiting, key=lambda one: one.id)
    if channel in rules.pulled:
        return Plan(messages=tuple((one,) for one in ordered))
    alone = tuple((one,) for one in ordered if one.critical)
    gathered = tuple(one for one in ordered if not one.critical and one.card is None)
    messages = [*alone]
    later: list[datetime] = []

    def opens(earliest: datetime) -> datetime:
        told = [*sent_at, *(now for _ in messages)]
        free = max(now, earliest, _free_at(told, rules.limit(channel), now))
        return free if rules.quiet is None else rules.quiet.ends(free, rules.local)

    if gathered:
        at = opens(min(one.created_at for one in gathered) + timedelta(seconds=rules.batch_seconds))
        if at > now:
            later.append(at)
        else:
            messages += [(one,) for one in gathered if one.standing]
            rest = tuple(one for one in gathered if not one.standing)
            messages += [rest] if rest else []
    for card in (one for one in ordered if not one.critical and one.card is not None):
        at = opens(now)
        if at > now:
            later.append(at)
            break
        messages.append((card,))
    return Plan(messages=tuple(messages), next_at=min(later, default=None))


def _free_at(told: Sequence[datetime], limit: int, now: datetime) -> datetime:
    """When fewer than `limit` messages lie in the hour before. What was sent exactly an hour ago counts no more."""
    recent = sorted((at for at in told if at > now - HOUR), reverse=True)
    return now if len(recent) < limit else recent[limit - 1] + HOUR


def digest(batch: Sequence[Announcement], zone: tzinfo = UTC) -> NormalizedResponse:
    """The announcements as one message: a single one as it is, several as one card with a line each, by project and time in `zone`.

    Raises ValueError when there is none.
    """
    if not batch:
        raise ValueError("there is nothing to tell: an empty batch has no digest")
    if len(batch) == 1:
        return batch[0].response
    ordered = sorted(batch, key=lambda one: (one.project, one.created_at, one.id))
    lines = _lines(ordered, zone)
    shown, folded = lines[:MOST_LINES], lines[MOST_LINES:]
    blocks: list[Block] = []
    if folded:
        shown = [*shown, FieldLine(name="", value=f"and {len(folded)} more: `logs`")]
        text = "\n".join(f"{line.name} {line.value}" for line in folded)
        blocks.append(Block(title=f"{len(folded)} more updates", text=text))
    actions = _actions(ordered)
    if more := actions[MOST_ACTIONS:]:
        blocks.append(Block(title="More commands", text="\n".join(action.command for action in more)))
    projects = sorted({one.project for one in ordered})
    responses = [one.response for one in ordered]
    return NormalizedResponse(
        title=f"📋 {len(ordered)} updates of {_named(projects)}",
        tone=_tone(responses),
        fields=tuple(shown),
        blocks=tuple(blocks),
        links=_links(responses),
        actions=tuple(actions[:MOST_ACTIONS]),
        attachments=tuple(dict.fromkeys(file for one in responses for file in one.attachments)),
        agent=f"agent-{projects[0]}" if len(projects) == 1 else None,
    )


def _lines(ordered: Sequence[Announcement], zone: tzinfo) -> list[FieldLine]:
    times = [one.created_at for one in ordered]
    written = "%H:%M" if max(times) - min(times) < DAY else "%Y-%m-%d %H:%M"  # no time of day stands for two
    several = len({one.project for one in ordered}) > 1
    return [
        FieldLine(
            name=one.created_at.astimezone(zone).strftime(written),
            value=f"{one.project}: {_gist(one.response)}" if several else _gist(one.response),
        )
        for one in ordered
    ]


def _gist(response: NormalizedResponse) -> str:
    """The title and the first thing said below it, on one line."""
    below = [
        *response.text.splitlines(),
        *(f"{one.name}: {one.value}".removeprefix(": ") for one in response.fields),
    ]
    said = next((line for line in below if line.strip()), "")
    return " · ".join(" ".join(part.split()) for part in (response.title, said) if part)


def _named(projects: Sequence[str]) -> str:
    names = [*projects] if len(projects) <= 4 else [*projects[:3], f"{len(projects) - 3} more projects"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _tone(responses: Sequence[NormalizedResponse]) -> Tone:
    tones = {response.tone for response in responses}
    if len(tones) == 1:
        return responses[0].tone
    return next((tone for tone in (Tone.FAILURE, Tone.WARNING) if tone in tones), Tone.INFO)


def _actions(ordered: Sequence[Announcement]) -> list[Action]:
    """Each command once. A label that several would bear says what each acts on: `Merge PR #51`."""
    found: dict[str, Action] = {}
    for action in (action for one in ordered for action in one.response.actions):
        found.setdefault(action.command, action)
    borne = Counter(action.label for action in found.values())
    return [
        action.evolve(label=f"{action.label} {action.command.partition(' ')[2] or action.command}")
        if borne[action.label] > 1
        else action
        for action in found.values()
    ]


def _links(responses: Sequence[NormalizedResponse]) -> tuple[Link, ...]:
    """Each address once. A label that several would bear is told apart by the end of the address."""
    found: dict[str, Link] = {}
    for link in (link for response in responses for link in response.links):
        found.setdefault(link.url, link)
    borne = Counter(link.label for link in found.values())
    return tuple(
        link.evolve(label=f"{link.label} {link.url.rstrip('/').rpartition('/')[2]}")
        if borne[link.label] > 1
        else link
        for link in found.values()
    )
