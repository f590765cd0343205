"""When a rule holds: weekly windows by the clock on the wall, and dated spans without gaps, whatever the clocks are changed to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.domain.windows import Span, Window, period, span, window

WITHIN_REASON = settings(max_examples=150, deadline=None)
LISBON, NEW_YORK = ZoneInfo("Europe/Lisbon"), ZoneInfo("America/New_York")


WEEKLY = [
    # what is written, a local time in it, a local time just outside
    ("Mon-Fri 09:00-17:00", "Mon 09:00", "Mon 08:59"),
    ("Mon-Fri 09:00-17:00", "Fri 16:59", "Fri 17:00"),
    ("Mon-Fri 09:00-17:00", "Wed 12:00", "Sat 12:00"),
    ("mon,WED-thu 10:00-11:00", "Thu 10:30", "Tue 10:30"),
    ("Sat-Mon 10:00-11:00", "Sun 10:00", "Tue 10:00"),
    ("Fri 22:00-06:00", "Sat 05:59", "Fri 05:59"),
    ("Sun 22:00-06:00", "Mon 05:59", "Mon 06:00"),
    ("Sat,Sun 00:00-24:00", "Sun 23:59", "Mon 00:00"),
    ("Mon-Sun 00:00-24:00", "Mon 00:00", ""),
    ("Fri 16:00-Mon 08:00", "Sun 03:00", "Fri 15:59"),
    ("Fri 16:00 - Mon 08:00", "Mon 07:59", "Mon 08:00"),
    ("Mon 10:00-Mon 09:00", "Mon 08:59", "Mon 09:30"),
]  # fmt: skip
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def local(text: str, zone: ZoneInfo) -> datetime:
    day, clock = text.split()
    hour, minute = map(int, clock.split(":"))
    return datetime(2026, 1, 5 + _DAYS.index(day), hour, minute, tzinfo=zone)  # 5 January 2026 is a Monday


@pytest.mark.parametrize(("text", "inside", "outside"), WEEKLY)
@pytest.mark.parametrize("zone", [ZoneInfo("UTC"), LISBON, NEW_YORK, ZoneInfo("Asia/Kathmandu")], ids=str)
def test_a_weekly_window_holds_by_the_local_clock(
    text: str, inside: str, outside: str, zone: ZoneInfo
) -> None:
    found = window(f"{text} {zone}")
    assert found.holds(local(inside, zone).astimezone(UTC))
    assert not outside or not found.holds(local(outside, zone).astimezone(UTC))


@pytest.mark.parametrize(
    "text",
    [
        "", "always", "Mon", "09:00-17:00", "Mon-Fry 09:00-17:00", "Mon 9:00-17:00", "Mon 09:00-25:00", "Mon 24:00-09:00",
        "Mon 09:00-17:00 Lisbon", "Mon 09:00-17:00 ../etc/passwd", "Mon 09:00-09:00", "Mon 09:00-Mon 09:00",
        "2026-13-01 to 2026-12-01", "2026-02-30 to 2026-03-01", "2026-01-02 to 2026-01-01", "0001-01-01 to 2026-01-01",
        "2026-01-01 10:00 to 2026-01-01 10:00", "2026-01-01 to 2026-01-02 Nowhere", "2026-01-01", "9999-12-31 to 9999-12-31",
    ],
)  # fmt: skip
def test_a_time_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|never holds|before it starts|no date"):
        period(text)


@WITHIN_REASON
@given(
    text=st.text(max_size=40) | st.from_regex(r"(Mon|Fri|\d{4}-\d\d-\d\d)[ -](to )?[\d:-]{0,12} ?\w*/?\w*")
)
def test_no_text_makes_reading_a_time_fail_otherwise(text: str) -> None:
    try:
        assert isinstance(period(text), Window | Span)
    except ValueError as error:
        assert str(error)


def test_an_hour_that_comes_twice_is_in_a_window_both_times() -> None:
    """In Lisbon, 25 October 2026, 01:00–02:00 comes twice: from 00:00 and from 01:00 UTC."""
    found = window("Sun 01:00-02:00 Europe/Lisbon")
    held = [
        minute
        for minute in range(240)
        if found.holds(datetime(2026, 10, 24, 23, tzinfo=UTC) + timedelta(minutes=minute))
    ]
    assert held == list(range(60, 180))


def test_an_hour_that_is_missing_is_in_no_window_and_the_next_one_is_not_shifted() -> None:
    """In New York, 8 March 2026, the clock goes from 02:00 to 03:00, at 07:00 UTC."""
    missing, after = window("Sun 02:00-03:00 America/New_York"), window("Sun 03:00-04:00 America/New_York")
    moments = [datetime(2026, 3, 8, 5, tzinfo=UTC) + timedelta(minutes=minute) for minute in range(300)]
    assert not any(missing.holds(moment) for moment in moments)
    assert [m for m in moments if after.holds(m)] == [m for m in moments if 7 <= m.hour < 8]


def test_office_hours_stay_at_nine_through_the_year() -> None:
    found = window("Mon-Fri 09:00-17:00 Europe/Lisbon")
    for day, first in ((datetime(2026, 3, 27, tzinfo=UTC), 9), (datetime(2026, 3, 30, tzinfo=UTC), 8)):
        assert found.holds(day.replace(hour=first)) and not found.holds(
            day.replace(hour=first - 1, minute=59)
        )


@WITHIN_REASON
@given(
    minutes=st.integers(0, 366 * 24 * 60),
    zone=st.sampled_from(["Europe/Lisbon", "America/New_York", "Australia/Lord_Howe", "UTC"]),
)
def test_a_window_and_its_complement_never_hold_at_once_and_one_always_does(minutes: int, zone: str) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    assert window(f"Fri 16:00-Mon 08:00 {zone}").holds(at) != window(f"Mon 08:00-Fri 16:00 {zone}").holds(at)
    assert window(f"Mon-Sun 01:30-02:30 {zone}").holds(at) != window(f"Mon-Sun 02:30-01:30 {zone}").holds(at)


def test_dates_include_both_days() -> None:
    found = span("2026-12-20 to 2027-01-02 Europe/Lisbon")
    first, end = datetime(2026, 12, 20, tzinfo=LISBON), datetime(2027, 1, 3, tzinfo=LISBON)
    assert (found.starts, found.ends) == (first, end)
    instant = timedelta(microseconds=1)
    assert [found.holds(at) for at in (first - instant, first, end - instant, end)] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "starts", "ends"),
    [
        # 01:30 comes twice in Lisbon on 25 October 2026: from its first to its second
        ("2026-10-25 01:30 to 2026-10-26 Europe/Lisbon", (2026, 10, 25, 0, 30), (2026, 10, 27, 0, 0)),
        ("2026-10-24 to 2026-10-25 01:30 Europe/Lisbon", (2026, 10, 23, 23, 0), (2026, 10, 25, 1, 30)),
        ("2026-10-25 01:30 to 2026-10-25 01:30 Europe/Lisbon", (2026, 10, 25, 0, 30), (2026, 10, 25, 1, 30)),
        # 02:30 does not come in New York on 8 March 2026
        ("2026-03-08 02:30 to 2026-03-09 America/New_York", (2026, 3, 8, 6, 30), (2026, 3, 10, 4, 0)),
        ("2026-03-07 to 2026-03-08 02:30 America/New_York", (2026, 3, 7, 5, 0), (2026, 3, 8, 7, 30)),
        ("2026-03-29 to 2026-03-29 Europe/Lisbon", (2026, 3, 29, 0, 0), (2026, 3, 29, 23, 0)),
    ],
)
def test_where_an_edge_of_dates_is_doubled_or_missing_the_longer_reading_holds(
    text: str, starts: tuple[int, ...], ends: tuple[int, ...]
) -> None:
    found = span(text)
    assert found.starts == datetime(*starts, tzinfo=UTC) and found.ends == datetime(*ends, tzinfo=UTC)  # pyright: ignore[reportArgumentType]
