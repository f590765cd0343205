"""What is told unasked: where, when, and as how many messages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codespar.config import ChannelRoute, NotificationSettings, load_settings
from codespar.domain.messages import (
    Action,
    Attachment,
    Block,
    FieldLine,
    Link,
    NormalizedResponse,
    Tone,
)
from codespar.domain.notifications import (
    AlertKind,
    Announcement,
    Place,
    QuietHours,
    Rules,
    digest,
    due,
    local_zone,
)

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "notifications.md").read_text(encoding="utf-8")
NOON = datetime(2026, 6, 10, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
NIGHT = QuietHours(start=22 * 60, end=8 * 60)
LISBON = ZoneInfo("Europe/Lisbon")
NEW_YORK = ZoneInfo("America/New_York")
ROOM = "slack/C1/"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def news(
    id: int,
    at: datetime = NOON,
    *,
    critical: bool = False,
    title: str = "",
    project: str = "shop",
    response: NormalizedResponse | None = None,
    place: str = ROOM,
) -> Announcement:
    return Announcement(
        id=id,
        project=project,
        kind=AlertKind.TASKS,
        critical=critical,
        place=place,
        response=response or NormalizedResponse(title=title or f"news {id}"),
        created_at=at,
    )


def rules(
    per_hour: int = 10, batch: float = 300, quiet: QuietHours | None = None, zone: str | None = None
) -> Rules:
    return Rules(per_hour=per_hour, batch_seconds=batch, quiet=quiet, zone=zone)


def ids(messages: Sequence[Sequence[Announcement]]) -> list[list[int]]:
    return [[one.id for one in message] for message in messages]


# places


@pytest.mark.parametrize("kind", AlertKind)
def test_a_place_takes_what_it_names_all_takes_everything_and_an_empty_list_nothing(kind: AlertKind) -> None:
    def place(*alerts: AlertKind) -> Place:
        return Place(channel="slack", conversation="C1", alerts=alerts)

    assert place(AlertKind.ALL).takes(kind)
    assert place(kind).takes(kind)
    assert not place().takes(kind)
    others = [one for one in AlertKind if one not in (kind, AlertKind.ALL)]
    if kind is not AlertKind.ALL:
        assert not place(*others).takes(kind)


def test_a_places_key_is_its_threads() -> None:
    assert Place(channel="slack", conversation="C1", alerts=()).key == "slack/C1/"
    assert Place(channel="slack", conversation="C1", thread_id="17.1", alerts=()).key == "slack/C1/17.1"


# quiet hours


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [("22:00-08:00", 1320, 480), ("00:00-23:59", 0, 1439), ("09:05-09:05", 545, 545)],
)
def test_quiet_hours_are_read_as_minutes_of_the_day(text: str, start: int, end: int) -> None:
    assert QuietHours.parse(text) == QuietHours(start=start, end=end)


def test_none_means_no_quiet_hours() -> None:
    assert QuietHours.parse("none") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "22-08",
        "22:00",
        "24:00-08:00",
        "22:60-08:00",
        "22:00-8:00",
        " 22:00-08:00",
        "22:00-08:00\n",
        "٢٢:٠٠-٠٨:٠٠",
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match="22:00-08:00"):
        QuietHours.parse(text)


@given(minute=st.integers(0, 1439), start=st.integers(0, 1439), end=st.integers(0, 1439))
def test_quiet_are_the_minutes_counted_from_the_start_up_to_the_end(
    minute: int, start: int, end: int
) -> None:
    at = datetime(2026, 6, 10, tzinfo=UTC) + minute * MINUTE
    counted = {(start + step) % 1440 for step in range((end - start) % 1440)}
    assert QuietHours(start=start, end=end).contains(at, UTC) == (minute in counted)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        NIGHT.contains(datetime(2026, 6, 10), UTC)


CHANGES = [
    # (zone, span, at, the end), all in UTC
    pytest.param(LISBON, "22:00-08:00", "2026-03-27T23:00", "2026-03-28T08:00", id="lisbon-the-night-before"),
    pytest.param(LISBON, "22:00-08:00", "2026-03-28T23:00", "2026-03-29T07:00", id="lisbon-spring-is-9-hours"),
    pytest.param(LISBON, "22:00-08:00", "2026-10-24T22:00", "2026-10-25T08:00", id="lisbon-autumn-is-11-hours"),
    pytest.param(LISBON, "22:00-01:30", "2026-03-28T23:00", "2026-03-29T01:00", id="lisbon-an-end-that-never-is"),
    pytest.param(LISBON, "22:00-01:30", "2026-10-24T22:00", "2026-10-25T00:30", id="lisbon-an-end-that-is-twice-first"),
    pytest.param(LISBON, "22:00-01:30", "2026-10-25T01:10", "2026-10-25T01:30", id="lisbon-an-end-that-is-twice-again"),
    pytest.param(LISBON, "01:15-01:45", "2026-10-25T00:20", "2026-10-25T00:45", id="lisbon-a-span-that-is-twice"),
    pytest.param(LISBON, "01:30-08:00", "2026-10-25T00:40", "2026-10-25T01:00", id="lisbon-the-clock-leaves-by-going-back"),
    pytest.param(NEW_YORK, "22:00-08:00", "2026-03-08T03:00", "2026-03-08T12:00", id="new-york-spring"),
    pytest.param(NEW_YORK, "22:00-08:00", "2026-11-01T02:00", "2026-11-01T13:00", id="new-york-autumn"),
    pytest.param(NEW_YORK, "22:00-02:30", "2026-03-08T05:00", "2026-03-08T07:00", id="new-york-an-end-that-never-is"),
    pytest.param(NEW_YORK, "22:00-01:30", "2026-11-01T04:00", "2026-11-01T05:30", id="new-york-an-end-that-is-twice-first"),
    pytest.param(NEW_YORK, "22:00-01:30", "2026-11-01T06:10", "2026-11-01T06:30", id="new-york-an-end-that-is-twice-again"),
    pytest.param(UTC, "22:00-08:00", "2026-06-10T12:00", "2026-06-10T12:00", id="not-quiet-now"),
    pytest.param(UTC, "22:00-08:00", "2026-06-10T22:00", "2026-06-11T08:00", id="the-start-is-quiet"),
    pytest.param(UTC, "22:00-08:00", "2026-06-10T08:00", "2026-06-10T08:00", id="the-end-is-not"),
    pytest.param(UTC, "08:00-08:00", "2026-06-10T08:00", "2026-06-10T08:00", id="equal-ends-never"),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "span", "at", "end"), CHANGES)
def test_quiet_hours_end_when_the_clock_on_the_wall_says_so(
    zone: ZoneInfo, span: str, at: str, end: str
) -> None:
    hours = QuietHours.parse(span)
    assert hours is not None
    assert hours.ends(utc(at), zone) == utc(end)
    assert hours.ends(utc(at).astimezone(NEW_YORK), zone).tzinfo is UTC


ZONES = ["UTC", "Europe/Lisbon", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]
AROUND = [  # clock changes of these zones; the last one leaves out a whole day
    utc(text)
    for text in ("2026-03-29T01:00", "2026-10-25T01:00", "2026-03-08T07:00", "2026-11-01T06:00", "2026-04-04T15:00", "2026-10-03T15:30", "2011-12-30T10:00")
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    start=st.integers(0, 1439),
    end=st.integers(0, 1439),
    around=st.sampled_from(AROUND),
    offset=st.integers(-1500, 300),
    seconds=st.integers(0, 59),
)
def test_the_end_is_the_first_instant_that_is_not_quiet_as_a_search_by_minutes_finds_it(
    zone: str, start: int, end: int, around: datetime, offset: int, seconds: int
) -> None:
    local, hours = local_zone(zone), QuietHours(start=start, end=end)
    at = around + offset * MINUTE + timedelta(seconds=seconds)
    found = at
    while hours.contains(found, local):
        found = (
            found.replace(second=0) + MINUTE
        )  # every end and every change of the clock is on a full minute
    assert hours.ends(at, local) == found


# when: single moments


def test_nothing_waits_nothing_is_planned() -> None:
    plan = due([], [], rules(), "slack", NOON)
    assert plan.messages == () and plan.next_at is None


def test_what_is_not_critical_is_gathered_from_the_oldest_on_and_goes_as_one() -> None:
    waiting = [news(1, NOON), news(2, NOON + 4 * MINUTE)]
    early = due(waiting, [], rules(), "slack", NOON + 4 * MINUTE)
    assert early.messages == () and early.next_at == NOON + 5 * MINUTE
    late = due(waiting, [], rules(), "slack", NOON + 5 * MINUTE)
    assert ids(late.messages) == [[1, 2]] and late.next_at is None


def test_what_is_critical_goes_at_once_alone_in_quiet_hours_and_over_the_limit_ahead_of_the_rest() -> None:
    night = utc("2026-06-10T23:00")
    waiting = [news(1, night), news(2, night, critical=True), news(3, night, critical=True)]
    plan = due(waiting, [night - MINUTE] * 9, rules(per_hour=1, quiet=NIGHT), "slack", night)
    assert ids(plan.messages) == [[2], [3]]
    assert plan.next_at == utc("2026-06-11T08:00")


def test_what_is_critical_takes_a_place_under_the_limit_even_in_the_same_moment() -> None:
    waiting = [news(1, NOON - HOUR), news(2, NOON, critical=True)]
    sent = [NOON - 20 * MINUTE]
    assert ids(due(waiting, sent, rules(per_hour=3), "slack", NOON).messages) == [[2], [1]]
    plan = due(waiting, sent, rules(per_hour=2), "slack", NOON)
    assert ids(plan.messages) == [[2]]
    assert plan.next_at == NOON + 40 * MINUTE, "when the first of the two is an hour old"


def test_at_the_limit_everything_waits_until_the_oldest_message_is_an_hour_old() -> None:
    sent = [NOON - timedelta(minutes=59), NOON - 30 * MINUTE]
    waiting = [news(1, NOON - 10 * MINUTE)]
    plan = due(waiting, sent, rules(per_hour=2), "slack", NOON)
    assert plan.messages == () and plan.next_at == NOON + MINUTE
    assert ids(due(waiting, sent, rules(per_hour=2), "slack", NOON + MINUTE).messages) == [[1]]


def test_whatsapp_has_a_limit_of_its_own() -> None:
    sent = [NOON - MINUTE * minute for minute in range(1, 6)]
    waiting = [news(1, NOON - 10 * MINUTE)]
    assert due(waiting, sent, rules(), "whatsapp", NOON).messages == ()
    assert ids(due(waiting, sent, rules(), "slack", NOON).messages) == [[1]]


def test_the_moment_a_limit_frees_in_quiet_hours_is_their_end() -> None:
    at = utc("2026-06-10T21:50")
    plan = due([news(1, at)], [at - 40 * MINUTE], rules(per_hour=1, quiet=NIGHT), "slack", at)
    assert plan.next_at == utc("2026-06-11T08:00")


def card(id: int, at: datetime = NOON) -> Announcement:
    return news(id, at, response=NormalizedResponse(title=f"Approval {id}", replaces=f"sg-{id}:at:1"))


def test_a_card_is_not_gathered_and_goes_alone_at_once_by_day() -> None:
    plan = due([news(1), card(2), card(3)], [], rules(), "slack", NOON)
    assert ids(plan.messages) == [[2], [3]] and plan.next_at == NOON + 5 * MINUTE


def test_cards_wait_for_the_end_of_quiet_hours_and_go_after_the_rest() -> None:
    night = utc("2026-06-10T23:00")
    waiting = [card(1, night), news(2, night)]
    plan = due(waiting, [], rules(quiet=NIGHT), "slack", night)
    assert plan.messages == () and plan.next_at == utc("2026-06-11T08:00")
    assert ids(due(waiting, [], rules(quiet=NIGHT), "slack", utc("2026-06-11T08:00")).messages) == [[2], [1]]


def test_each_card_needs_a_place_under_the_limit_of_the_hour() -> None:
    sent = [NOON - 20 * MINUTE]
    waiting = [card(1), card(2), card(3), news(4, NOON - HOUR)]
    plan = due(waiting, sent, rules(per_hour=3), "slack", NOON)
    assert ids(plan.messages) == [[4], [1]] and plan.next_at == NOON + 40 * MINUTE
    plan = due(waiting[:3], sent, rules(per_hour=1), "slack", NOON)
    assert plan.messages == () and plan.next_at == NOON + 40 * MINUTE


@pytest.mark.parametrize("channel", ["cli", "web"])
def test_whoever_reads_for_themselves_is_never_limited_batched_or_silenced(channel: str) -> None:
    night = utc("2026-06-10T23:00")
    waiting = [news(2, night), news(1, night), news(3, night, critical=True)]
    plan = due(waiting, [night] * 99, rules(per_hour=1, quiet=NIGHT), channel, night)
    assert ids(plan.messages) == [[1], [2], [3]] and plan.next_at is None


def test_the_order_is_that_of_arrival_however_they_are_given() -> None:
    waiting = [news(3), news(1), news(5, critical=True), news(2), news(4, critical=True)]
    assert ids(due(waiting, [], rules(batch=0), "slack", NOON).messages) == [[4], [5], [1, 2, 3]]


def test_announcements_of_several_places_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="slack/C1/, slack/C2/"):
        due([news(1), news(2, place="slack/C2/")], [], rules(), "slack", NOON)


@pytest.mark.parametrize(
    ("zone", "closed", "opens"),
    [
        ("Europe/Lisbon", "2026-03-28T23:30", "2026-03-29T07:00"),
        ("Europe/Lisbon", "2026-10-24T22:30", "2026-10-25T08:00"),
        ("America/New_York", "2026-03-08T04:00", "2026-03-08T12:00"),
        ("America/New_York", "2026-11-01T03:00", "2026-11-01T13:00"),
    ],
)
def test_what_waited_overnight_is_told_at_eight_on_the_clock_also_when_the_clock_was_changed(
    zone: str, closed: str, opens: str
) -> None:
    waiting = [news(1, utc(closed)), news(2, utc(closed) + 3 * HOUR)]
    plan = due(waiting, [], rules(quiet=NIGHT, zone=zone), "slack", utc(closed) + 3 * HOUR)
    assert plan.messages == () and plan.next_at == utc(opens)
    assert utc(opens).astimezone(ZoneInfo(zone)).strftime("%H:%M") == "08:00"
    assert ids(due(waiting, [], rules(quiet=NIGHT, zone=zone), "slack", utc(opens)).messages) == [[1, 2]]


# when: whole days, minute by minute


@dataclass
class Told:
    """What one place was told in a simulated span."""

    sent: list[tuple[datetime, tuple[Announcement, ...]]] = field(
        default_factory=list[tuple[datetime, tuple[Announcement, ...]]]
    )

    def times(self) -> list[datetime]:
        return [at for at, _ in self.sent]


def simulate(
    arrivals: Sequence[Announcement], rules: Rules, channel: str, start: datetime, *, every_minute: bool
) -> Told:
    """Look every minute while something waits, or only when something arrives and when the plan says, until all is told."""
    told, coming = Told(), sorted(arrivals, key=lambda one: one.id)
    waiting: list[Announcement] = []
    now, steps, promised = start, 0, None
    while coming or waiting:
        steps += 1
        assert steps < 20_000, "what waits is told some time"
        while coming and coming[0].created_at <= now:
            waiting.append(coming.pop(0))
        plan = due(waiting, told.times(), rules, channel, now)
        for message in plan.messages:
            told.sent.append((now, message))
            waiting = [one for one in waiting if one not in message]
        assert (plan.next_at is not None) == bool(waiting), "it looks again exactly while something waits"
        assert plan.next_at is None or plan.next_at > now
        assert now != promised or plan.messages, "it does not look in vain"
        promised = plan.next_at
        moments = [*([coming[0].created_at] if coming else []), *([plan.next_at] if plan.next_at else [])]
        if moments:
            now = now + MINUTE if every_minute and waiting else min(moments)
    return told


@st.composite
def days(draw: st.DrawFn) -> tuple[list[Announcement], Rules, str, datetime]:
    """Bursts and trickles over two days around a change of the clock, and the rules of a place."""
    start = draw(st.sampled_from(AROUND[:4])) - timedelta(hours=draw(st.integers(1, 30)))
    bursts = draw(
        st.lists(st.tuples(st.integers(0, 2 * 1440), st.integers(1, 12), st.booleans()), max_size=8)
    )
    trickle = draw(st.lists(st.tuples(st.integers(0, 2 * 1440), st.booleans()), max_size=30))
    minutes = [(at, critical and number == 0) for at, many, critical in bursts for number in range(many)]
    minutes = sorted([*minutes, *trickle])
    arrivals = [
        news(number, start + at * MINUTE, critical=critical)
        for number, (at, critical) in enumerate(minutes, 1)
    ]
    quiet = draw(
        st.one_of(
            st.none(),
            st.just(NIGHT),
            st.builds(QuietHours, start=st.integers(0, 1439), end=st.integers(0, 1439)),
        )
    )
    chosen = Rules(
        per_hour=draw(st.integers(1, 5)),
        batch_seconds=60 * draw(st.integers(0, 15)),
        quiet=quiet,
        zone=draw(st.sampled_from([None, "Europe/Lisbon", "America/New_York"])),
    )
    return arrivals, chosen, draw(st.sampled_from(["slack", "whatsapp"])), start


def assert_rules_held(arrivals: Sequence[Announcement], rules: Rules, channel: str, told: Told) -> None:
    flat = [(at, one) for at, message in told.sent for one in message]
    assert sorted(one.id for _, one in flat) == [one.id for one in arrivals], "each is told exactly once"
    for critical in (True, False):
        order = [one.id for _, one in flat if one.critical is critical]
        assert order == sorted(order), "in the order of arrival"
    for number, (at, message) in enumerate(told.sent):
        if message[0].critical:
            assert len(message) == 1 and at == message[0].created_at, "alone and without delay"
            continue
        assert not any(one.critical for one in message)
        hour = [earlier for earlier, _ in told.sent[: number + 1] if earlier > at - HOUR]
        assert len(hour) <= rules.limit(channel), "with it, no hour has more than the limit"
        assert rules.quiet is None or not rules.quiet.contains(at, rules.local)
        oldest = min(one.created_at for one in message)
        ready = oldest + timedelta(seconds=rules.batch_seconds)
        before = [earlier for earlier, _ in told.sent[:number] if earlier > ready - HOUR]
        if len(before) < rules.limit(channel) and not (
            rules.quiet and rules.quiet.contains(ready, rules.local)
        ):
            assert at == ready, "when nothing forbids it, it waits for the batch and no longer"


@settings(max_examples=100, deadline=None)
@given(day=days())
def test_every_rule_holds_for_any_arrivals(day: tuple[list[Announcement], Rules, str, datetime]) -> None:
    arrivals, chosen, channel, start = day
    told = simulate(arrivals, chosen, channel, start, every_minute=False)
    assert_rules_held(arrivals, chosen, channel, told)


@settings(max_examples=25, deadline=None)
@given(day=days())
@example(day=([news(1), news(2, NOON + 5 * MINUTE)], rules(per_hour=1, batch=300), "slack", NOON))
def test_looking_every_minute_tells_the_same_at_the_same_time_as_looking_when_the_plan_says(
    day: tuple[list[Announcement], Rules, str, datetime],
) -> None:
    arrivals, chosen, channel, start = day
    told = simulate(arrivals, chosen, channel, start, every_minute=True)
    assert_rules_held(arrivals, chosen, channel, told)
    assert simulate(arrivals, chosen, channel, start, every_minute=False).sent == told.sent


@settings(max_examples=25, deadline=None)
@given(day=days(), random=st.randoms(use_true_random=False))
def test_the_same_facts_in_any_order_give_the_same_plan(
    day: tuple[list[Announcement], Rules, str, datetime], random: Random
) -> None:
    arrivals, chosen, channel, start = day
    now = start + timedelta(days=1)
    sent = [now - MINUTE * minute for minute in (3, 30, 59, 60, 61)]
    mixed, mixed_sent = [*arrivals], [*sent]
    random.shuffle(mixed)
    random.shuffle(mixed_sent)
    assert due(mixed, mixed_sent, chosen, channel, now) == due(arrivals, sent, chosen, channel, now)


# what: the digest


def test_a_single_announcement_is_told_as_it_is() -> None:
    response = NormalizedResponse(title="✅ Done", text="one\ntwo", thread="17.1", tone=Tone.SUCCESS)
    assert digest([news(1, response=response)]) is response


def test_several_become_one_card_with_a_line_each() -> None:
    done = NormalizedResponse(
        title="✅ Task Completed (task-abc123)",
        tone=Tone.SUCCESS,
        fields=(
            FieldLine(name="", value='PR #51 opened: "feat: limits"'),
            FieldLine(name="Cost", value="$1"),
        ),
        actions=(Action(label="Merge", command="merge PR #51"),),
    )
    failed = NormalizedResponse(title="❌ Build Failed", tone=Tone.FAILURE, text="\nmain is red\nsee the log")
    card = digest([news(2, NOON + MINUTE, response=failed), news(1, NOON, response=done)], LISBON)
    assert card.plain() == (
        "📋 2 updates of shop\n"
        '13:00: ✅ Task Completed (task-abc123) · PR #51 opened: "feat: limits"\n'
        "13:01: ❌ Build Failed · main is red\n"
        "Reply: `merge PR #51`"
    )
    assert (card.tone, card.agent, card.replaces) == (Tone.FAILURE, "agent-shop", None)


def test_a_line_of_a_digest_is_one_line_whatever_the_announcement_holds() -> None:
    torn = NormalizedResponse(title='Task dequeued: "first\n\tsecond"', text="\r\n  third  \nfourth")
    card = digest([news(1, response=torn), news(2)])
    assert card.fields[0].value == 'Task dequeued: "first second" · third'


def test_lines_stand_by_project_then_time_and_say_whose_they_are() -> None:
    batch = [
        news(1, NOON + 2 * MINUTE, project="shop"),
        news(2, NOON, project="web"),
        news(3, NOON, project="shop"),
    ]
    card = digest(batch)
    assert card.title == "📋 3 updates of shop and web" and card.agent is None
    assert [line.value for line in card.fields] == ["shop: news 3", "shop: news 1", "web: news 2"]
    assert [line.name for line in card.fields] == ["12:00", "12:02", "12:00"]


def test_many_projects_are_counted_in_the_title() -> None:
    def title(*projects: str) -> str:
        return digest([news(number, project=name) for number, name in enumerate(projects)]).title

    assert title("d", "c", "b", "a") == "📋 4 updates of a, b, c and d"
    assert title("e", "d", "c", "b", "a") == "📋 5 updates of a, b, c and 2 more projects"


def test_a_digest_over_more_than_a_day_says_the_day() -> None:
    card = digest([news(1, NOON), news(2, NOON + timedelta(days=1))])
    assert [line.name for line in card.fields] == ["2026-06-10 12:00", "2026-06-11 12:00"]
    night = digest([news(1, NOON), news(2, NOON + timedelta(hours=23))])
    assert [line.name for line in night.fields] == ["12:00", "11:00"]


def test_after_fifty_lines_the_rest_is_counted_and_folded_into_a_block() -> None:
    batch = [news(number, NOON + number * MINUTE, title=f"title {number}") for number in range(62)]
    card = digest(batch)
    assert card.title == "📋 62 updates of shop" and len(card.fields) == 51
    assert card.fields[-1] == FieldLine(name="", value="and 12 more: `logs`")
    (block,) = card.blocks
    assert block.title == "12 more updates"
    assert block.text.splitlines() == [f"{(NOON + n * MINUTE):%H:%M} title {n}" for n in range(50, 62)]
    assert len(digest(batch[:50]).fields) == 50 and digest(batch[:50]).blocks == ()


def test_each_command_stands_once_and_a_label_of_several_says_what_it_acts_on() -> None:
    one = NormalizedResponse(
        title="one",
        actions=(Action(label="Diff", command="diff PR #1"), Action(label="Queue", command="queue")),
    )
    two = NormalizedResponse(
        title="two",
        actions=(
            Action(label="Queue", command="queue"),
            Action(label="Diff", command="diff PR #2", style="primary"),
        ),
    )
    card = digest([news(1, response=one), news(2, response=two)])
    assert card.actions == (
        Action(label="Diff PR #1", command="diff PR #1"),
        Action(label="Queue", command="queue"),
        Action(label="Diff PR #2", command="diff PR #2", style="primary"),
    )


def test_ten_actions_are_buttons_and_the_commands_of_the_others_are_written_out() -> None:
    batch = [
        news(n, response=NormalizedResponse(title="t", actions=(Action(label=f"Go {n}", command=f"go {n}"),)))
        for n in range(12)
    ]
    card = digest(batch)
    assert [action.command for action in card.actions] == [f"go {n}" for n in range(10)]
    assert card.blocks == (Block(title="More commands", text="go 10\ngo 11"),)


def test_links_and_attachments_of_all_are_kept_once() -> None:
    file = Attachment(name="log.txt", media_type="text/plain", size=3, sha256="0" * 64)
    first = NormalizedResponse(
        title="a", links=(Link(label="Pull request", url="https://x.test/pr/1"),), attachments=(file,)
    )
    second = NormalizedResponse(
        title="b",
        links=(
            Link(label="Pull request", url="https://x.test/pr/1"),
            Link(label="Pull request", url="https://x.test/pr/2"),
            Link(label="Run", url="https://x.test/run/2"),
        ),
        attachments=(file,),
    )
    card = digest([news(1, response=first), news(2, response=second)])
    assert card.links == (
        Link(label="Pull request 1", url="https://x.test/pr/1"),
        Link(label="Pull request 2", url="https://x.test/pr/2"),
        Link(label="Run", url="https://x.test/run/2"),
    )
    assert card.attachments == (file,)


@pytest.mark.parametrize(
    ("tones", "told"),
    [
        ([Tone.SUCCESS, Tone.SUCCESS], Tone.SUCCESS),
        ([Tone.SUCCESS, Tone.PROGRESS], Tone.INFO),
        ([Tone.SUCCESS, Tone.WARNING, Tone.INFO], Tone.WARNING),
        ([Tone.WARNING, Tone.FAILURE], Tone.FAILURE),
    ],
)
def test_a_digest_is_as_serious_as_the_worst_in_it(tones: list[Tone], told: Tone) -> None:
    batch = [news(n, response=NormalizedResponse(title="t", tone=tone)) for n, tone in enumerate(tones)]
    assert digest(batch).tone is told


def test_there_is_no_digest_of_nothing() -> None:
    with pytest.raises(ValueError, match="empty batch"):
        digest([])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=20), st.sampled_from(["shop", "web"])), min_size=2, max_size=70
    )
)
def test_every_title_of_a_batch_is_somewhere_in_its_digest(entries: list[tuple[str, str]]) -> None:
    batch = [news(n, title=f"<{n}> {title}", project=project) for n, (title, project) in enumerate(entries)]
    plain = digest(batch).plain()
    for one in batch:
        assert " ".join(one.response.title.split()) in plain
    assert digest(batch) == digest(batch[::-1])


# the page


def test_the_example_of_the_page_is_a_valid_settings_file_with_every_setting(tmp_path: Path) -> None:
    (example_file,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "codespar.yaml").write_text(example_file, encoding="utf-8")
    read = load_settings(tmp_path / "codespar.yaml", {})
    assert read.notifications.model_fields_set == set(NotificationSettings.model_fields)
    routes = [route for project in read.projects for route in project.channels]
    assert {field for route in routes for field in route.model_fields_set} == set(ChannelRoute.model_fields)
    assert any(route.alerts == () for route in routes)


def test_the_page_names_every_setting_with_its_default_and_every_kind() -> None:
    shown = {
        "per_hour": "10",
        "whatsapp_per_hour": "5",
        "batch": "5m",
        "quiet_hours": "22:00-08:00",
        "time_zone": "none",
    }
    assert set(shown) == set(NotificationSettings.model_fields)
    for name, default in shown.items():
        assert re.search(rf"^\| `{name}` \| `?{default}`? \|", PAGE, re.MULTILINE), name
    for kind in AlertKind:
        assert re.search(rf"^\| `{kind.value}` \|", PAGE, re.MULTILINE), kind
    defaults = NotificationSettings()
    assert (defaults.per_hour, defaults.whatsapp_per_hour, defaults.batch) == (10, 5, 300.0)
    assert (defaults.quiet_hours, defaults.time_zone) == ("22:00-08:00", None)
