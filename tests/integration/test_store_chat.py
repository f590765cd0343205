"""The store's part for chat on both databases: letters and their parts, announcements, people, codes, routes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from codespar.domain.messages import NormalizedResponse
from codespar.domain.notifications import AlertKind
from codespar.domain.people import Person, Role
from codespar.domain.tasks import Thread
from codespar.store.base import Letter, Notice, Posted, Route, Sending, Unit
from codespar.store.database import Database

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
THREAD = Thread(channel="slack", conversation="T1:C1/a", thread_id="17.5")
ADA = Person(id="ada", name="Ada", role=Role.OWNER)


def say(unit: Unit, key: str, title: str, *, again: bool = False) -> None:
    response = NormalizedResponse(title=title, replaces=key if again else None)
    unit.say("shop", THREAD, key, response, AT)


async def letters(store: Database) -> list[Letter]:
    return await store.read(lambda unit: unit.letters(THREAD.key, 10))


def test_a_threads_key_leads_back_to_it() -> None:
    assert Thread.of(THREAD.key) == THREAD
    whole = THREAD.evolve(thread_id=None)
    assert Thread.of(whole.key) == whole


async def test_a_letter_waits_with_what_stands_at_the_platform(store: Database) -> None:
    await store.write(lambda unit: say(unit, "k", "one"))
    [letter] = await letters(store)
    assert (letter.response.title, letter.parts, letter.sending, letter.attempts) == ("one", (), None, 0)
    sending = Sending(part=0, since=AT)
    await store.write(lambda unit: unit.sending("k", sending))
    assert (await letters(store))[0].sending == sending
    parts = (Posted(id="1", digest="d"), Posted(id="2", digest="e"))
    await store.write(lambda unit: unit.posted("k", parts))
    await store.write(lambda unit: unit.put_off(letter, AT + timedelta(seconds=5)))
    [letter] = await letters(store)
    assert (letter.parts, letter.sending, letter.attempts) == (parts, None, 1)
    assert letter.next_attempt_at == AT + timedelta(seconds=5)
    assert await store.read(lambda unit: unit.waiting_threads(("slack", "discord"))) == [THREAD.key]
    assert await store.read(lambda unit: unit.waiting_threads(("discord",))) == []
    assert await store.write(lambda unit: unit.delivered(letter, AT)) is True
    assert await letters(store) == []


async def test_what_was_changed_while_it_was_delivered_waits_again_with_its_parts(store: Database) -> None:
    await store.write(lambda unit: say(unit, "k", "one"))
    [letter] = await letters(store)
    await store.write(lambda unit: unit.posted("k", (Posted(id="1", digest="d"),)))
    await store.write(lambda unit: say(unit, "k", "two", again=True))
    assert await store.write(lambda unit: unit.delivered(letter, AT)) is False
    [letter] = await letters(store)
    assert letter.response.title == "two" and letter.parts == (Posted(id="1", digest="d"),)


async def test_everything_said_is_screened_where_it_enters(store: Database) -> None:
    store.screen = lambda response: response.evolve(title=response.title.replace("hunter2", "***"))
    await store.write(lambda unit: say(unit, "k", "the password is hunter2"))
    assert (await letters(store))[0].response.title == "the password is ***"


async def test_announcements_wait_for_their_place_and_are_told_once(store: Database) -> None:
    seen: list[Notice] = []
    store.on_commit = seen.extend

    def announce(unit: Unit, key: str, critical: bool = False) -> None:
        card = NormalizedResponse(title=key)
        unit.announce("shop", THREAD.key, key, AlertKind.BUILDS, critical, card, AT)

    for key, critical in (("a", False), ("b", False), ("a", False), ("c", True)):
        await store.write(lambda unit, k=key, c=critical: announce(unit, k, c))
    assert [notice.kind for notice in seen] == ["announcement"] * 3
    waiting = await store.read(lambda unit: unit.announcements(THREAD.key, 10))
    assert [one.response.title for one in waiting] == ["c", "a", "b"], "what is critical is found first"
    assert await store.read(lambda unit: unit.places_waiting()) == [THREAD.key]
    await store.write(lambda unit: unit.tell(waiting[:1], AT))
    await store.write(lambda unit: unit.tell(waiting[1:], AT + timedelta(seconds=1)))
    assert await store.read(lambda unit: unit.places_waiting()) == []
    told = await store.read(lambda unit: unit.told_at(THREAD.key, AT))
    assert told == [AT, AT + timedelta(seconds=1)], "one entry a message"


async def test_an_announcement_that_is_withdrawn_was_never_told(store: Database) -> None:
    def announce(unit: Unit) -> None:
        for key in ("a", "b"):
            card = NormalizedResponse(title=key)
            unit.announce("shop", THREAD.key, key, AlertKind.BUILDS, False, card, AT)

    await store.write(announce)
    waiting = await store.read(lambda unit: unit.announcements(THREAD.key, 10))
    await store.write(lambda unit: unit.withdraw(waiting[:1]))
    await store.write(lambda unit: unit.withdraw([]))
    left = await store.read(lambda unit: unit.announcements(THREAD.key, 10))
    assert [one.response.title for one in left] == ["b"]
    assert await store.read(lambda unit: unit.told_at(THREAD.key, AT)) == []


async def test_a_person_is_found_by_any_of_their_ids(store: Database) -> None:
    def write(unit: Unit) -> None:
        unit.save_member(ADA, "file")
        unit.save_identity("slack", "T1:U1", "ada", "file", AT)
        unit.save_identity("whatsapp", "US.1", "ada", "code", AT)

    await store.write(write)
    assert await store.read(lambda unit: unit.person_of("whatsapp", ("1555", "US.1"))) == ADA
    assert await store.read(lambda unit: unit.person_of("discord", ("T1:U1",))) is None
    member = await store.read(lambda unit: unit.member("ada"))
    assert member is not None and member.identities == (("slack", "T1:U1"), ("whatsapp", "US.1"))
    await store.write(lambda unit: unit.remove_identities("file"))
    assert [one.identities for one in await store.read(lambda unit: unit.members())] == [
        (("whatsapp", "US.1"),)
    ]
    await store.write(lambda unit: unit.remove_member("ada"))
    assert await store.read(lambda unit: unit.person_of("whatsapp", ("US.1",))) is None


async def test_a_code_counts_once_in_time_and_replaces_the_one_before(store: Database) -> None:
    later = AT + timedelta(minutes=10)
    await store.write(lambda unit: unit.save_code("h1", "ada", "ada", AT, later))
    await store.write(lambda unit: unit.save_code("h2", "ada", "ada", AT, later))
    assert await store.write(lambda unit: unit.redeem("h1", AT)) is None
    assert await store.write(lambda unit: unit.redeem("h2", later)) is None, "its time is over"
    assert await store.write(lambda unit: unit.redeem("h2", AT)) == "ada"
    assert await store.write(lambda unit: unit.redeem("h2", AT)) is None
    tries = [
        await store.write(lambda unit: unit.count_try("slack", "T1:U9", AT, AT - timedelta(hours=1)))
        for _ in range(3)
    ]
    assert tries == [1, 2, 3]
    much_later = AT + timedelta(hours=2)
    again = lambda unit: unit.count_try("slack", "T1:U9", much_later, much_later - timedelta(hours=1))  # noqa: E731
    assert await store.write(again) == 1


async def test_a_conversation_serves_one_project(store: Database) -> None:
    route = Route(channel="slack", conversation="T1:C1", project="shop", alerts=(AlertKind.DEPLOYS,))
    await store.write(lambda unit: unit.save_route(route))
    moved = route.evolve(project="gateway", alerts=())
    await store.write(lambda unit: unit.save_route(moved))
    assert await store.read(lambda unit: unit.routes("shop")) == []
    assert await store.read(lambda unit: unit.route("slack", "T1:C1")) == moved
    await store.write(lambda unit: unit.remove_route("slack", "T1:C1"))
    assert await store.read(lambda unit: unit.routes()) == []
    await store.write(lambda unit: unit.save_alias("SH", "shop"))
    assert await store.read(lambda unit: unit.aliases()) == {"sh": "shop"}
