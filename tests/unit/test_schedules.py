"""When a schedule is due: by the clock on the wall, once for all that was missed, and never for what cannot come."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.config import ConfigError, load_settings
from codespar.domain.schedules import MOST_COUNTED, check_cron, due, next_time

LISBON = "Europe/Lisbon"  # 2026: forward on 29 March at 01:00 UTC, back on 25 October at 01:00 UTC


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fires(cron: str, zone: str | None, first: str, last: str) -> list[str]:
    """Every time between two moments, found by looking every five minutes, as a server would."""
    fired, now, found = at(first), at(first), list[str]()
    while now <= at(last):
        if one := due(cron, zone, fired, now):
            fired = one.at
            found.append(f"{one.at:%d %H:%M}" + (f"+{one.missed}" if one.missed else ""))
        now += timedelta(minutes=5)
    return found


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        ("30 0 * * *", ["28 00:30", "29 00:30", "29 23:30"]),
        ("30 1 * * *", ["28 01:30", "29 01:00", "30 00:30"]),  # 01:30 is left out on the 29th: right after
        ("0,30 1 29 3 *", ["29 01:00"]),  # both are left out: once
        ("30 2 * * *", ["28 02:30", "29 01:30", "30 01:30"]),
    ],
)
def test_a_time_that_the_clock_leaves_out_in_spring_comes_right_after_and_once(
    cron: str, told: list[str]
) -> None:
    assert fires(cron, LISBON, "2026-03-27T23:45", "2026-03-30T02:00") == told


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        ("30 0 * * *", ["23 23:30", "24 23:30", "26 00:30"]),
        ("30 1 * * *", ["24 00:30", "25 00:30", "26 01:30"]),  # 01:30 comes twice on the 25th: the first
        ("*/30 1 25 10 *", ["25 00:00", "25 00:30", "25 01:00", "25 01:30"]),  # by the clock as it runs
    ],
)
def test_a_time_that_comes_twice_in_autumn_is_taken_once(cron: str, told: list[str]) -> None:
    assert fires(cron, LISBON, "2026-10-23T22:45", "2026-10-26T02:00") == told


@pytest.mark.parametrize(
    "begun", ["2026-10-25T01:00", "2026-10-25T01:10", "2026-10-25T01:31", "2026-10-25T01:59"]
)
def test_what_begins_in_the_hour_that_comes_twice_is_not_due_for_the_first_of_them(begun: str) -> None:
    assert due("30 1 * * *", LISBON, at(begun), at("2026-10-25T12:00")) is None
    assert next_time("30 1 * * *", LISBON, at(begun)) == at("2026-10-26T01:30")


def test_what_was_missed_is_due_once_at_its_newest_time() -> None:
    found = due("0 9 * * *", None, at("2026-01-01T09:00"), at("2026-01-31T10:00"))
    assert found is not None and (found.at, found.missed) == (at("2026-01-31T09:00"), 29)
    assert due("0 9 * * *", None, found.at, at("2026-01-31T10:00")) is None
    assert due("0 9 * * *", None, found.at, at("2026-02-01T08:59:59")) is None
    assert due("0 9 * * *", None, found.at, at("2026-02-01T09:00")) is not None


@pytest.mark.parametrize(
    ("cron", "newest"),
    [
        ("* * * * *", "2026-06-15T12:34"),
        ("*/5 9 * * 1", "2026-06-15T09:55"),
        ("0 0 1 1 *", "2026-01-01T00:00"),
        ("* * * 1 *", "2026-01-31T23:59"),
        ("0 0 29 2 *", "2024-02-29T00:00"),
        ("0 12 * * *", "2026-06-15T12:00"),
    ],
)
def test_however_far_back_it_fired_last_the_newest_time_is_found_at_once(cron: str, newest: str) -> None:
    began = time.process_time()
    found = due(cron, None, at("1999-12-31T00:00"), at("2026-06-15T12:34:56"))
    assert found is not None and found.at == at(newest)
    assert found.missed <= MOST_COUNTED
    assert time.process_time() - began < 3.0


def test_a_leap_day_is_waited_for() -> None:
    check_cron("0 0 29 2 *")
    assert next_time("0 0 29 2 *", None, at("2024-02-29T00:00")) == at("2028-02-29T00:00")
    assert due("0 0 29 2 *", None, at("2024-02-29T00:00"), at("2028-02-28T23:59")) is None


def test_a_clock_that_was_set_back_makes_nothing_due() -> None:
    assert due("* * * * *", None, at("2026-06-15T12:00"), at("2026-06-15T11:00")) is None


CRONS = st.sampled_from(
    ["* * * * *", "*/7 * * * *", "30 1 * * *", "0,30 1-2 * * *", "0 3 * * 0", "15 */2 * * *", "0 0 31 * *", "59 23 * * 1-5"]
)  # fmt: skip
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)).map(lambda one: one.replace(tzinfo=UTC))


@given(
    CRONS,
    st.sampled_from([None, LISBON, "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    MOMENTS,
)
@settings(max_examples=150, deadline=None)
def test_the_next_time_lies_ahead_and_is_due_then_and_not_before(
    cron: str, zone: str | None, moment: datetime
) -> None:
    found = next_time(cron, zone, moment)
    assert found is not None and found > moment
    assert due(cron, zone, moment, found - timedelta(microseconds=1)) is None
    one = due(cron, zone, moment, found)
    assert one is not None and one.at == found and one.missed == 0
    assert found.astimezone(ZoneInfo(zone or "UTC")).second == 0


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "* * * * * *", "@daily", "60 * * * *", "0 24 * * *", "0 0 32 * *", "0 0 30 2 *", "0 0 31 4,6 *", "0 0 * 13 *",
     "0 0 * * 8", "*/0 * * * *", "5-1 * * * *", "a b c d e", "1,,2 * * * *", "99999999999999999999 * * * *", "-1 * * * *", "0 0 ١ * *"],
)  # fmt: skip
def test_what_never_comes_is_no_schedule(expression: str) -> None:
    with pytest.raises(ValueError, match=r"five fields|not a time that ever comes"):
        check_cron(expression)


# through the settings


def faults(tmp_path: Path, *schedules: str, alias: str = "[sh]") -> list[str]:
    """What is wrong with a project of these schedules, each written on one line from line 6 on."""
    lines = [
        "people: [{name: Ada, role: owner}]",
        "projects:",
        "  - name: shop",
        f"    alias: {alias}",
        "    repository: /srv/shop.git",
    ]
    written = "\n".join([*lines, "    schedules:", *(f"      - {one}" for one in schedules)])
    other = "\n  - {name: api, repository: /srv/api.git}\n"
    path = tmp_path / "codespar.yaml"
    path.write_text(written + other, encoding="utf-8")
    try:
        load_settings(path, {})
    except ConfigError as error:
        return str(error).splitlines()
    return []


def test_a_right_schedule_is_taken(tmp_path: Path) -> None:
    right = (
        '{name: morning, cron: "0 9 * * 1-5", time_zone: Europe/Lisbon, run: status build}',
        '{name: tidy, cron: "@nothing", run: x}'.replace("@nothing", "0 17 * * 5").replace("run: x", "run: instruct tidy up, by: ada"),
        '{name: named, cron: "0 9 * * *", run: sh prs stale}',
        '{name: object, cron: "0 9 * * *", run: status shop}',
        '{name: everything, cron: "0 9 * * *", run: all status}',
    )  # fmt: skip
    assert faults(tmp_path, *right) == []


@pytest.mark.parametrize(
    ("schedule", "where", "told"),
    [
        ('{name: a, cron: "0 9 * *", run: status}', "schedules[0].cron", "must have five fields"),
        ('{name: a, cron: "0 0 30 2 *", run: status}', "schedules[0].cron", "is not a time that ever comes"),
        ('{name: a, cron: "0 25 * * *", run: status}', "schedules[0].cron", "bad hour"),
        (
            '{name: a, cron: "* * * * *", time_zone: Europe/Lissabon, run: status}',
            "schedules[0].time_zone",
            "zone",
        ),
        ('{name: a, cron: "* * * * *", run: statsu}', "schedules[0].run", "is no command"),
        ('{name: a, cron: "* * * * *", run: review}', "schedules[0].run", "is no command"),
        ('{name: a, cron: "* * * * *", run: api status}', "schedules[0].run", "put it under api"),
        ('{name: a, cron: "* * * * *", run: status api}', "schedules[0].run", "put it under api"),
        ('{name: a, cron: "* * * * *", run: kill}', "schedules[0].run", "is for people alone"),
        ('{name: a, cron: "* * * * *", run: approve PR 3}', "schedules[0].run", "is for people alone"),
        ('{name: a, cron: "* * * * *", run: status, by: eve}', "schedules[0].by", "`people` has ada"),
        (
            '{name: A b, cron: "* * * * *", run: status}',
            "schedules[0].name",
            "must be lower-case letters, digits and dashes",
        ),
        ('{name: a, cron: "* * * * *"}', "schedules[0].run", "is missing"),
        ('{name: a, cron: "* * * * *", run: ""}', "schedules[0].run", "must not be empty"),
        ('{name: a, cron: "* * * * *", runs: status}', "schedules[0].runs", "did you mean `run`?"),
    ],
)
def test_a_wrong_schedule_is_told_with_file_line_and_key(
    tmp_path: Path, schedule: str, where: str, told: str
) -> None:
    found = faults(tmp_path, schedule)
    assert [
        one for one in found if one.startswith(f"codespar.yaml:7: projects[0].{where}") and told in one
    ], found


def test_two_schedules_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one = '{name: a, cron: "* * * * *", run: status}'
    [found] = faults(tmp_path, one, one)
    assert found.startswith("codespar.yaml:8: projects[0].schedules[1].name") and "already" in found


@pytest.mark.parametrize("schedules", ["5", "[5]", "{}", "[{name: [a], run: [b], by: [c], cron: 5}]"])
def test_schedules_of_another_shape_are_told_and_nothing_breaks(tmp_path: Path, schedules: str) -> None:
    path = tmp_path / "codespar.yaml"
    path.write_text(
        f"projects:\n  - {{name: shop, repository: /x, alias: 5, schedules: {schedules}}}\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"projects\[0\]\.schedules"):
        load_settings(path, {})
