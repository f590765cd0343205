"""When a rule holds: weekly windows of local time, and dated spans.

Pure: the moment comes in as an argument; the rules of the time zone come from the system's tables. A weekly window follows the clock on
the wall: an hour that does not exist in spring never comes, one that comes twice in autumn counts both times. A dated span is one stretch
of time without gaps; where its edge falls into a doubled or missing hour, the longer reading holds.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from pydantic import AwareDatetime

from codespar.domain.base import Value
from codespar.domain.messages import UtcDatetime

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
WEEKLY = "`Mon-Fri 09:00-17:00 Europe/Lisbon` or `Fri 16:00-Mon 08:00 UTC`"
DATED = "`2026-12-20 to 2027-01-02 Europe/Lisbon` or `2026-12-20 18:00 to 2026-12-21 06:00 UTC`"

_DAY = "|".join(DAYS)
_START = r"(?:[01]\d|2[0-3]):[0-5]\d"
_END = rf"{_START}|24:00"
_DAILY = re.compile(
    rf"(?P<days>(?:(?:{_DAY})(?:-(?:{_DAY}))?)(?:,(?:{_DAY})(?:-(?:{_DAY}))?)*) (?P<starts>{_START})-(?P<ends>{_END})(?: (?P<zone>\S+))?",
    re.IGNORECASE | re.ASCII,
)
_STRETCH = re.compile(
    rf"(?P<first>{_DAY}) (?P<starts>{_START}) ?- ?(?P<last>{_DAY}) (?P<ends>{_END})(?: (?P<zone>\S+))?",
    re.IGNORECASE | re.ASCII,
)
_SPAN = re.compile(
    r"(?P<first>\d{4}-\S+(?: \d\d:\d\d)?) to (?P<last>\d{4}-\S+(?: \d\d:\d\d)?)(?: (?P<zone>\S+))?", re.ASCII
)
_MOMENT = re.compile(rf"(2\d{{3}}-\d{{2}}-\d{{2}})(?:[ T]({_START}))?", re.ASCII)


class Window(Value):
    """A weekly window. `spans` are minutes of the local week, from inclusive, to exclusive; one may run over Sunday's midnight."""

    text: str  # as written
    spans: tuple[tuple[int, int], ...]
    zone: str = "UTC"

    def holds(self, at: AwareDatetime) -> bool:
        from zoneinfo import ZoneInfo  # most installations name none

        local = at.astimezone(UTC if self.zone == "UTC" else ZoneInfo(self.zone))
        minute = local.weekday() * DAY_MINUTES + local.hour * 60 + local.minute
        return any(
            starts <= minute < ends or starts <= minute + WEEK_MINUTES < ends for starts, ends in self.spans
        )


def window(text: str) -> Window:
    """Read `Mon-Fri 09:00-17:00 Europe/Lisbon` or `Fri 16:00-Mon 08:00`. Raises ValueError that says what would be right."""
    plain = " ".join(text.split())
    if found := _DAILY.fullmatch(plain):
        starts, ends = _minutes(found["starts"]), _minutes(found["ends"])
        length = (ends - starts) % DAY_MINUTES or (DAY_MINUTES if (starts, ends) == (0, DAY_MINUTES) else 0)
        places = [day * DAY_MINUTES + starts for day in _days(found["days"])]
    elif found := _STRETCH.fullmatch(plain):
        starts = _day(found["first"]) * DAY_MINUTES + _minutes(found["starts"])
        ends = _day(found["last"]) * DAY_MINUTES + _minutes(found["ends"])
        length, places = (ends - starts) % WEEK_MINUTES, [starts]
    else:
        raise ValueError(f"must be a time such as {WEEKLY}, or dates such as {DATED}")
    if length == 0:
        raise ValueError("starts when it ends, so it never holds; give two different times")
    zone = checked_zone(found["zone"] or "UTC")
    return Window(text=plain, spans=tuple((place, place + length) for place in places), zone=zone)


class Span(Value):
    """A dated stretch of time: from `starts` on, until `ends` and not after."""

    text: str  # as written
    starts: UtcDatetime
    ends: UtcDatetime

    def holds(self, at: AwareDatetime) -> bool:
        return self.starts <= at < self.ends


def period(text: str) -> Window | Span:
    """Read a weekly window or a dated span, as people write them. Raises ValueError that says what would be right."""
    return span(text) if _SPAN.fullmatch(" ".join(text.split())) else window(text)


def span(text: str) -> Span:
    """Read `2026-12-20 to 2027-01-02 Europe/Lisbon`: a date alone means its first moment as a start and its last as an end.

    Raises ValueError that says what would be right.
    """
    plain = " ".join(text.split())
    found = _SPAN.fullmatch(plain)
    if found is None:
        raise ValueError(f"must be two dates and a time zone, such as {DATED}")
    zone = checked_zone(found["zone"] or "UTC")
    first, last = _moments(found["first"], zone)[0], _moments(found["last"], zone)[1]
    if last <= first:
        raise ValueError("ends before it starts")
    return Span(text=plain, starts=first, ends=last)


def checked_zone(name: str) -> str:
    """The name, when it is a time zone's. Raises ValueError."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if name.upper() in ("UTC", "Z"):
        return "UTC"
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("must name a time zone such as Europe/Lisbon or UTC") from error
    return name


def _moments(text: str, zone: str) -> tuple[datetime, datetime]:
    """The earliest start and the latest end that a written moment can mean."""
    from zoneinfo import ZoneInfo

    found = _MOMENT.fullmatch(text.strip())
    try:
        day = date.fromisoformat(found[1]) if found else None
        after = day + timedelta(days=1) if day else None
    except (ValueError, OverflowError):
        day = after = None
    if found is None or day is None or after is None:
        shown = text.encode("ascii", "replace").decode()
        raise ValueError(
            f"`{shown}` is no date; it must be such as `2026-12-20`, or with a time, `2026-12-20 18:00`"
        )
    clock = time.fromisoformat(found[2]) if found[2] else None
    local = ZoneInfo(zone)
    first = datetime.combine(day, clock or time())
    last = first if clock else datetime.combine(after, time())
    return (
        min(first.replace(tzinfo=local, fold=fold).astimezone(UTC) for fold in (0, 1)),
        max(last.replace(tzinfo=local, fold=fold).astimezone(UTC) for fold in (0, 1)),
    )


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def _day(name: str) -> int:
    return DAYS.index(name.title())


def _days(text: str) -> list[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        length = (_day(last or first) - _day(first)) % 7
        found.update((_day(first) + step) % 7 for step in range(length + 1))
    return sorted(found)
