"""Discord over its own protocol: the real client library against the fake, and against `simcord`, which others wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import simcord

from codespar.channels.base import (
    AttachmentRefused,
    ChannelTools,
    ContentRefused,
    DeliveryFailed,
    DeliveryRefused,
    File,
    Heard,
    HttpRequest,
    MessageGone,
    NotConnected,
    Part,
)
from codespar.channels.discord.adapter import DiscordChannel
from codespar.channels.discord.settings import DiscordSettings
from codespar.channels.platforms import platforms
from codespar.domain.messages import Action, Block, FieldLine, NormalizedResponse
from codespar.domain.tasks import Thread
from support.platforms.discord import FakeDiscord


class Ear:
    """A reception that keeps what it hears, once a delivery, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.tries = 0
        self.fail = 0
        self.free = asyncio.Event()  # to go on hearing
        self.free.set()

    async def hear(self, heard: Heard) -> bool:
        self.tries += 1
        await self.free.wait()
        if self.fail:
            self.fail -= 1
            raise ConnectionError("the database is away")
        if any(one.delivery == heard.delivery for one in self.heard):
            return False
        self.heard.append(heard)
        return True

    @property
    def said(self) -> list[str]:
        return [one.content for one in self.heard]


async def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until it is true; fail when it does not become so."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for is on the other side of a socket
            await asyncio.sleep(0.01)


def adapter(fake: FakeDiscord, folder: Path, **changes: Any) -> DiscordChannel:
    settings = DiscordSettings.model_validate(fake.settings | changes)
    tools = ChannelTools(clock=lambda: datetime.now(UTC), environment=fake.environment, folder=folder)
    made = platforms()["discord"].make(settings, tools)
    assert isinstance(made, DiscordChannel)
    return made


@pytest.fixture
async def fake() -> AsyncIterator[FakeDiscord]:
    played = FakeDiscord()
    await played.start()
    yield played
    await played.stop()


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
async def discord(fake: FakeDiscord, ear: Ear, tmp_path: Path) -> AsyncIterator[DiscordChannel]:
    channel = adapter(fake, tmp_path)
    await channel.start(ear)
    yield channel
    await channel.stop()


def card(title: str, **more: Any) -> NormalizedResponse:
    return NormalizedResponse(title=title, **more)


def where(heard: Heard) -> Thread:
    return Thread(
        channel="discord", conversation=heard.conversation, thread_id=heard.thread_id, person=heard.sender
    )


def room(fake: FakeDiscord, thread: str | None = None) -> Thread:
    return Thread(channel="discord", conversation=fake.room, thread_id=thread)


async def send(
    channel: DiscordChannel, thread: Thread, response: NormalizedResponse, key: str = "k"
) -> list[str]:
    return [
        await channel.send(thread, part, f"{key}/{at}") for at, part in enumerate(channel.render(response))
    ]


# in


async def test_a_mention_is_heard_without_the_mention(
    fake: FakeDiscord, ear: Ear, discord: DiscordChannel
) -> None:
    """A mention in the channel is heard, mention stripped, and is to be answered in a thread of its own."""
    said = await fake.say("ada", "deploy staging")
    await until(lambda: ear.heard)
    (heard,) = ear.heard
    assert heard.content == "deploy staging"
    assert (heard.conversation, heard.thread_id, heard.message_id) == (fake.room, said, said)
    assert (heard.sender, heard.sender_name) == (fake.identity("ada"), "Ada")
    assert (heard.direct, heard.addressed, heard.via) == (False, True, "text")
    assert heard.delivery == f"discord:message:{said}"
    assert abs(heard.at - datetime.now(UTC)) < timedelta(seconds=30)


async def test_only_what_is_for_us_is_heard(fake: FakeDiscord, ear: Ear, discord: DiscordChannel) -> None:
    """Talk of others, bots, webhooks, joins, edits and deletions are ignored; each kind of mention and a direct message are not."""
    await fake.say("ada", "just talking", mention=False)
    await fake.say("robot", "status", bot=True)
    await fake.say("hook", "status", webhook=True)
    await fake.say("marcus", "joined", kind=7)
    await fake.say("ada", "to somebody else", mention="<@1234>")
    changed = await fake.say("ada", "one")
    await fake.edit(changed, f"<@{fake.bot}> changed")
    await fake.remove(changed)
    await fake.say("ada", "two", mention=f"<@!{fake.bot}>")
    await fake.say("ada", "three", mention=f"<@&{fake.role}>")
    await fake.say("marcus", "four", direct=True)
    await until(lambda: len(ear.heard) == 4)
    assert ear.said == ["one", "two", "three", "four"]
    direct = ear.heard[-1]
    assert (direct.direct, direct.thread_id, direct.conversation) == (
        True,
        None,
        str(fake.direct("marcus").id),
    )


async def test_a_reply_to_us_is_addressed(fake: FakeDiscord, ear: Ear, discord: DiscordChannel) -> None:
    """A reply to a message of ours needs no mention; a reply to somebody else does."""
    (ours,) = await send(discord, room(fake), card("Ready"))
    theirs = await fake.say("ada", "talk", mention=False)
    await fake.say("ada", "unheard", mention=False, reply_to=theirs)
    await fake.say("ada", "approve", mention=False, reply_to=ours)
    await until(lambda: ear.heard)
    assert [(one.content, one.reply_to) for one in ear.heard] == [("approve", ours)]


async def test_in_a_thread_we_are_spoken_to_as_anywhere(
    fake: FakeDiscord, ear: Ear, discord: DiscordChannel
) -> None:
    """In a thread a mention and a reply are heard, with the channel as conversation; other talk there is not."""
    started = await fake.say("ada", "plan login")
    await until(lambda: ear.heard)
    (ours,) = await send(discord, where(ear.heard[0]), card("Plan"))
    await fake.say("ada", "hm", thread=started, mention=False)
    await fake.say("ada", "status", thread=started)
    await fake.say("marcus", "yes", thread=started, mention=False, reply_to=ours)
    await until(lambda: len(ear.heard) == 3)
    assert [(one.content, one.conversation, one.thread_id) for one in ear.heard[1:]] == [
        ("status", fake.room, started),
        ("yes", fake.room, started),
    ]


async def test_a_button_is_its_command(fake: FakeDiscord, ear: Ear, discord: DiscordChannel) -> None:
    """A pressed button is heard as its command and answered at once, in a thread as in the channel."""
    await send(
        discord, room(fake), card("Deploy?", actions=(Action(label="Approve", command="approve dp-1"),))
    )
    (shown,) = fake.seen()
    assert shown.buttons == ["Approve"]
    await fake.press("marcus", shown, "Approve")
    (heard,) = ear.heard
    assert (heard.content, heard.via, heard.sender, heard.thread_id) == (
        "approve dp-1", "button", fake.identity("marcus"), None,
    )  # fmt: skip
    assert fake.failed == []


async def test_a_button_that_asks_opens_a_form(fake: FakeDiscord, ear: Ear, discord: DiscordChannel) -> None:
    """A button that asks opens a form; what is heard is the command with the answer, and opening it alone is nothing."""
    action = Action(label="Reject", command="reject dp-1", asks="Why?")
    await send(discord, room(fake), card("Deploy?", actions=(action,)))
    await fake.press("ada", fake.seen()[0], "Reject", answer="tests are red")
    assert [(one.content, one.via) for one in ear.heard] == [("reject dp-1 tests are red", "form")]
    assert fake.failed == [] and fake.refusals == []


async def test_a_press_that_was_not_committed_is_not_acknowledged(
    fake: FakeDiscord, ear: Ear, discord: DiscordChannel
) -> None:
    """When hearing fails, Discord gets no answer and tells the person that it failed."""
    await send(
        discord, room(fake), card("Deploy?", actions=(Action(label="Approve", command="approve dp-1"),))
    )
    ear.fail, fake.patience = 1, 0.3
    await fake.press("ada", fake.seen()[0], "Approve")
    assert (ear.heard, fake.failed) == ([], ["ada: approve dp-1"])
    assert not [path for _, path, _ in fake.requests if path.endswith("/callback")]
    fake.patience = 30.0
    await fake.press("ada", fake.seen()[0], "Approve")
    assert ear.said == ["approve dp-1"]


async def test_a_press_is_acknowledged_after_it_was_committed(
    fake: FakeDiscord, ear: Ear, discord: DiscordChannel
) -> None:
    """While hearing takes its time, Discord gets no answer; it comes when the press is committed."""
    await send(
        discord, room(fake), card("Deploy?", actions=(Action(label="Approve", command="approve dp-1"),))
    )
    ear.free.clear()
    press = asyncio.create_task(fake.press("ada", fake.seen()[0], "Approve"))
    await until(lambda: ear.tries)
    await asyncio.sleep(0.1)
    assert not [path for _, path, _ in fake.requests if path.endswith("/callback")]
    ear.free.set()
    await press
    assert (ear.said, fake.failed) == (["approve dp-1"], [])


async def test_the_slash_command(fake: FakeDiscord, ear: Ear, discord: DiscordChannel) -> None:
    """`/codespar` is registered once, heard as text, and what was asked is shown to everyone, harmless."""
    answered = await fake.slash("ada", "status **all** @everyone")
    (heard,) = ear.heard
    assert (heard.content, heard.via, heard.thread_id) == ("status **all** @everyone", "command", None)
    assert answered is not None and answered["type"] == 4
    assert answered["data"]["content"] == "status \\*\\*all\\*\\* \\@everyone"
    assert answered["data"]["allowed_mentions"] == {"parse": []}


async def test_the_slash_command_is_registered_only_when_it_changed(
    fake: FakeDiscord, ear: Ear, tmp_path: Path
) -> None:
    """The second start finds its own definition at Discord and leaves it; a different one is replaced."""
    for _ in range(2):
        channel = adapter(fake, tmp_path)
        await channel.start(ear)
        await channel.stop()
    assert [method for method, path, _ in fake.requests if path.endswith("/commands")] == [
        "GET",
        "PUT",
        "GET",
    ]
    fake.commands[0]["description"] = "old"
    channel = adapter(fake, tmp_path)
    await channel.start(ear)
    await channel.stop()
    assert fake.commands[0]["description"] != "old"


async def test_a_repeated_event_is_the_same_delivery(
    fake: FakeDiscord, ear: Ear, discord: DiscordChannel
) -> None:
    """What a gateway brings twice is brought on with the same delivery id."""
    await fake.say("ada", "status")
    await fake.replay("MESSAGE_CREATE")
    await until(lambda: ear.tries == 2)
    assert ear.said == ["status"]


async def test_a_message_is_kept_until_it_is_committed(
    fake: FakeDiscord, ear: Ear, discord: DiscordChannel
) -> None:
    """A message whose hearing fails is tried again until it is committed, before what was written after it there."""
    ear.fail = 1
    await fake.say("ada", "first")
    await fake.say("ada", "second")
    await until(lambda: len(ear.heard) == 2)
    assert ear.said == ["first", "second"]


async def test_after_a_restart_what_was_missed_is_read(fake: FakeDiscord, ear: Ear, tmp_path: Path) -> None:
    """What was written while the server was away, in channel, thread and direct, is heard once it is back; nothing is heard twice."""
    first = adapter(fake, tmp_path)
    await first.start(ear)
    started = await fake.say("ada", "before")
    await fake.say("marcus", "before, directly", direct=True)
    await until(lambda: len(ear.heard) == 2)
    await send(first, where(ear.heard[0]), card("Answer"))
    await first.stop()
    await fake.say("ada", "away")
    await fake.say("ada", "away, in the thread", thread=started)
    await fake.say("marcus", "away, directly", direct=True)
    second = adapter(fake, tmp_path)
    await second.start(ear)
    await until(lambda: len(ear.heard) == 5)
    await fake.say("ada", "back")
    await until(lambda: len(ear.heard) == 6)
    await second.stop()
    assert ear.said[2:] == ["away", "away, in the thread", "away, directly", "back"]
    assert "away" not in (tmp_path / "heard.json").read_text()
    assert (tmp_path / "heard.json").stat().st_mode & 0o077 == 0


async def test_what_was_not_committed_is_read_again_after_a_restart(
    fake: FakeDiscord, ear: Ear, tmp_path: Path
) -> None:
    """A server that stops before a message is committed hears it after its next start, though later ones were heard."""
    channel = adapter(fake, tmp_path)
    await channel.start(ear)
    ear.fail = 1_000
    await fake.say("ada", "stubborn")
    await until(lambda: ear.tries)
    ear.fail = 0
    other = fake.say("marcus", "direct", direct=True)
    await other
    await until(lambda: ear.said == ["direct"])
    await channel.stop()
    again = adapter(fake, tmp_path)
    await again.start(ear)
    await until(lambda: "stubborn" in ear.said)
    await again.stop()
    assert ear.said == ["direct", "stubborn"]


async def test_a_broken_connection_is_resumed(fake: FakeDiscord, ear: Ear, discord: DiscordChannel) -> None:
    """When the gateway's connection breaks, the session is resumed, and what was said meanwhile is heard once."""
    await fake.drop()
    await fake.say("ada", "meanwhile")
    await until(lambda: ear.heard)
    await fake.say("ada", "after")
    await until(lambda: len(ear.heard) == 2)
    assert (ear.said, fake.resumed, fake.identified) == (["meanwhile", "after"], 1, 1)


async def test_a_server_that_forgot_us_is_joined_again(
    fake: FakeDiscord, ear: Ear, discord: DiscordChannel
) -> None:
    """When Discord invalidates the session, a new one is opened, and what was said in between is read."""
    await fake.say("ada", "before")
    await until(lambda: ear.heard)
    await fake.invalidate()
    await fake.say("ada", "between")
    await until(lambda: len(ear.heard) == 2)
    assert (ear.said, fake.identified) == (["before", "between"], 2)


async def test_attachments_are_offered_and_fetched(
    fake: FakeDiscord, ear: Ear, discord: DiscordChannel
) -> None:
    """An attachment is offered with what Discord says of it, and fetched from Discord's own place alone, up to the cap."""
    await fake.say("ada", "read this", files={"log.txt": b"x" * 1000})
    await until(lambda: ear.heard)
    (offered,) = ear.heard[0].offered
    assert (offered.name, offered.media_type, offered.size) == ("log.txt", "text/plain", 1000)
    assert await discord.fetch(offered.ref, 1000) == b"x" * 1000
    with pytest.raises(AttachmentRefused, match="larger than 999"):
        await discord.fetch(offered.ref, 999)
    for elsewhere in (
        "https://evil.example/attachments/1/2/x",
        f"http://localhost:{fake.address.rpartition(':')[2]}/attachments/1",
    ):
        with pytest.raises(AttachmentRefused, match="only"):
            await discord.fetch(elsewhere, 1000)
    assert fake.refusals == []


async def test_an_expired_address_of_an_attachment_is_made_new(
    fake: FakeDiscord, ear: Ear, discord: DiscordChannel
) -> None:
    """The signed address of an attachment expires after a day: a new one is asked for. One that is gone is refused."""
    await fake.say("ada", "read this", files={"log.txt": b"late"})
    await until(lambda: ear.heard)
    ref = ear.heard[0].offered[0].ref
    fake.expired.add(ref.removeprefix(fake.address))
    assert await discord.fetch(ref, 1000) == b"late"
    fake.files.clear()
    with pytest.raises(AttachmentRefused, match="any more"):
        await discord.fetch(ref, 1000)


async def test_without_the_privileged_intent(fake: FakeDiscord, ear: Ear, tmp_path: Path) -> None:
    """Where the Message Content intent is off the start says so; with the setting off too, mentions and direct messages are heard."""
    fake.content_intent = False
    with pytest.raises(NotConnected, match="Message Content"):
        await adapter(fake, tmp_path).start(ear)
    fake.refusals.clear()
    channel = adapter(fake, tmp_path, message_content=False)
    await channel.start(ear)
    await fake.say("ada", "status")
    await fake.say("ada", "help", direct=True)
    await until(lambda: len(ear.heard) == 2)
    await channel.stop()
    assert (ear.said, fake.refusals) == (["status", "help"], [])


async def test_a_refused_token(fake: FakeDiscord, ear: Ear, tmp_path: Path) -> None:
    """A token that Discord refuses, or that is missing, is told by the name of its variable, never by its value."""
    channel = adapter(fake, tmp_path)
    fake.token = "another"
    with pytest.raises(NotConnected, match="CODESPAR_DISCORD_TOKEN") as refused:
        await channel.start(ear)
    assert "fake.discord.token" not in str(refused.value)
    fake.environment = {}
    with pytest.raises(NotConnected, match="CODESPAR_DISCORD_TOKEN is not set"):
        adapter(fake, tmp_path)


async def test_nobody_calls_us(discord: DiscordChannel) -> None:
    """Discord has no address at our server: every request there is unknown."""
    answer = await discord.answer(HttpRequest(method="POST", path="interactions", headers={}, body=b"{}"))
    assert answer.status == 404


# out


async def test_an_answer_opens_a_thread(fake: FakeDiscord, ear: Ear, discord: DiscordChannel) -> None:
    """The first answer to a mention opens a thread named by what was asked; the next goes into it."""
    said = await fake.say("ada", "add rate limiting to the gateway")
    await until(lambda: ear.heard)
    thread = where(ear.heard[0])
    await send(
        discord, thread, card("🔧 Task Agent Started", fields=(FieldLine(name="Agent", value="task-1"),)), "a"
    )
    await send(discord, thread, card("✅ Task Completed"), "b")
    assert fake.rooms[int(said)].name == "add rate limiting to the gateway"
    assert [(shown.thread, shown.text) for shown in fake.seen()] == [
        (said, "🔧 Task Agent Started\nAgent: task-1"),
        (said, "✅ Task Completed"),
    ]
    assert fake.refusals == []


async def test_a_new_adapter_writes_into_the_thread_that_is_there(
    fake: FakeDiscord, ear: Ear, tmp_path: Path
) -> None:
    """After a restart an answer goes into the thread of before, also when it went to the archive."""
    channel = adapter(fake, tmp_path)
    await channel.start(ear)
    said = await fake.say("ada", "task")
    await until(lambda: ear.heard)
    (first,) = await send(channel, where(ear.heard[0]), card("One"), "a")
    await channel.stop()
    fake.rooms[int(said)].archived = True
    channel = adapter(fake, tmp_path)
    await channel.start(ear)
    await send(channel, where(ear.heard[0]), card("Two"), "b")
    fake.rooms[int(said)].archived = True
    await channel.edit(where(ear.heard[0]), first, channel.render(card("One, edited"))[0])
    await channel.stop()
    assert [(shown.thread, shown.text) for shown in fake.seen()] == [(said, "One, edited"), (said, "Two")]


async def test_where_no_thread_can_be_made_the_answer_is_a_reply(
    fake: FakeDiscord, ear: Ear, discord: DiscordChannel
) -> None:
    """Without the permission for threads an answer stands in the channel as a reply, and can be edited there; its buttons keep the thread."""
    fake.may_thread = False
    said = await fake.say("ada", "status")
    await until(lambda: ear.heard)
    thread = where(ear.heard[0])
    (ours,) = await send(discord, thread, card("Status", actions=(Action(label="More", command="logs"),)))
    posted = fake.general.messages[int(ours)]
    assert posted["message_reference"]["message_id"] == said
    await fake.press("ada", fake.seen()[0], "More")
    assert ear.heard[-1].thread_id == said
    await discord.edit(thread, ours, discord.render(card("Status, newer"))[0])
    assert [shown.text for shown in fake.seen()] == ["Status, newer"]


async def test_edit_and_delete(fake: FakeDiscord, discord: DiscordChannel) -> None:
    """A card is edited in place, buttons and files with it; one that is gone is told as gone, and taking it away again is no error."""
    parts = discord.render(
        card("One", actions=(Action(label="Stop", command="cancel t"),), blocks=(Block(text="x\n" * 4000),))
    )
    external = await discord.send(room(fake), parts[0], "k")
    assert list(fake.seen()[0].files) == ["text-1.txt"]
    (changed,) = discord.render(card("Two"))
    await discord.edit(room(fake), external, changed)
    await discord.edit(room(fake), external, changed)
    (shown,) = fake.seen()
    assert (shown.text, shown.buttons, shown.files) == ("Two", [], {})
    await discord.delete(room(fake), external)
    await discord.delete(room(fake), external)
    assert fake.seen() == []
    with pytest.raises(MessageGone):
        await discord.edit(room(fake), external, changed)


async def test_a_long_diff_arrives_whole(fake: FakeDiscord, discord: DiscordChannel) -> None:
    """A long diff comes with its message, as a file, byte by byte."""
    diff = "".join(f"+line {at} 😀\n" for at in range(3000))
    await send(discord, room(fake), card("Diff", blocks=(Block(language="diff", text=diff),)))
    (shown,) = fake.seen()
    assert shown.files == {"change-1.diff": diff.encode()}
    assert fake.refusals == []


async def test_text_of_people_pings_nobody_and_stays_text(fake: FakeDiscord, discord: DiscordChannel) -> None:
    """What people and models write is read as they wrote it, and notifies nobody."""
    nasty = "@everyone <@1> [x](https://evil.example) **b** `c`\n```\nout"
    await send(discord, room(fake), card(nasty.replace("\n", " "), text=nasty, blocks=(Block(text=nasty),)))
    (shown,) = fake.seen()
    assert nasty in shown.text
    sent = next(
        body for method, path, body in fake.requests if method == "POST" and path.endswith("/messages")
    )
    assert sent["allowed_mentions"] == {"parse": [], "replied_user": False}


async def test_a_person_is_written_to_directly(fake: FakeDiscord, ear: Ear, discord: DiscordChannel) -> None:
    """A direct answer stands in the direct conversation; a person's id as the conversation opens one."""
    await fake.say("ada", "help", direct=True)
    await until(lambda: ear.heard)
    await send(discord, where(ear.heard[0]), card("Help"), "a")
    to_marcus = Thread(channel="discord", conversation=fake.identity("marcus"))
    (ours,) = await send(discord, to_marcus, card("Notice"), "b")
    await discord.edit(to_marcus, ours, discord.render(card("Notice, newer"))[0])
    assert [shown.text for shown in fake.seen("direct:ada")] == ["Help"]
    assert [shown.text for shown in fake.seen("direct:marcus")] == ["Notice, newer"]
    assert fake.seen() == []


async def test_too_many_requests(fake: FakeDiscord, discord: DiscordChannel) -> None:
    """429 is told with Discord's own waiting time, at once: the library neither sleeps nor sends again."""
    fake.fail_next(1, status=429, retry_after=3.5)
    with pytest.raises(DeliveryFailed) as refused:
        await send(discord, room(fake), card("One"))
    assert (refused.value.retry_after, refused.value.arrived_perhaps) == (3.5, False)
    assert (
        len([1 for method, path, _ in fake.requests if method == "POST" and path.endswith("/messages")]) == 1
    )
    await send(discord, room(fake), card("One"))
    assert [shown.text for shown in fake.seen()] == ["One"]


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_an_error_of_theirs(fake: FakeDiscord, discord: DiscordChannel, status: int) -> None:
    """A 5xx is told at once as perhaps arrived; the library does not send again by itself."""
    fake.fail_next(1, status=status)
    with pytest.raises(DeliveryFailed) as refused:
        await send(discord, room(fake), card("One"))
    assert refused.value.arrived_perhaps
    assert fake.seen() == []
    assert (
        len([1 for method, path, _ in fake.requests if method == "POST" and path.endswith("/messages")]) == 1
    )


async def test_a_lost_answer_doubles_nothing(fake: FakeDiscord, discord: DiscordChannel) -> None:
    """A message whose answer was lost is found by its key, and sending it again within minutes gives the same message."""
    before = datetime.now(UTC)
    fake.lose_next_answer()
    with pytest.raises(DeliveryFailed) as refused:
        await send(discord, room(fake), card("One"), "key")
    assert refused.value.arrived_perhaps
    (shown,) = fake.seen()
    await eventually(lambda: discord.find(room(fake), "key/0", before))
    assert await discord.find(room(fake), "key/0", before) == shown.id
    assert await discord.find(room(fake), "another", before) is None
    assert await send(discord, room(fake), card("One"), "key") == [shown.id]
    assert len(fake.seen()) == 1


async def test_after_minutes_a_lost_answer_is_still_found(fake: FakeDiscord, discord: DiscordChannel) -> None:
    """When Discord has forgotten the nonce, the gateway's echo of our own message still tells that it is there."""
    before = datetime.now(UTC)
    fake.lose_next_answer()
    with pytest.raises(DeliveryFailed):
        await send(discord, room(fake), card("One"), "key")
    fake.forget_nonces()
    assert await eventually(lambda: discord.find(room(fake), "key/0", before)) == fake.seen()[0].id


async def eventually(ask: Callable[[], Awaitable[str | None]]) -> str:
    """What is found, once it is; fail when it never is."""
    async with asyncio.timeout(60):
        while (found := await ask()) is None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
        return found


async def test_the_card_refused_for_want_of_a_permission(fake: FakeDiscord, discord: DiscordChannel) -> None:
    """Where the bot may not embed, the card is refused as content, and the same as text alone goes through."""
    fake.may_embed = False
    response = card("One", text="two")
    with pytest.raises(ContentRefused):
        await send(discord, room(fake), response)
    await discord.send(room(fake), discord.render(response, plain=True)[0], "k2")
    assert [shown.text for shown in fake.seen()] == ["One\ntwo"]


async def test_what_discord_refuses_is_told_as_refused(fake: FakeDiscord, discord: DiscordChannel) -> None:
    """A message over a limit is content refused; a channel that is not there is refused for good; so is what was sent and deleted."""
    with pytest.raises(ContentRefused, match="50035"):
        await discord.send(room(fake), Part(payload={"content": "x" * 2001}, text=""), "a")
    with pytest.raises(DeliveryRefused, match="10003"):
        await send(discord, Thread(channel="discord", conversation="42"), card("One"))
    (ours,) = await send(discord, room(fake), card("One"), "same")
    del fake.general.messages[int(ours)]
    with pytest.raises(DeliveryRefused, match="gone"):
        await send(discord, room(fake), card("One"), "same")


async def test_a_stopped_adapter(fake: FakeDiscord, ear: Ear, tmp_path: Path) -> None:
    """Stopping works before a start and twice; a send without a connection is for later; a new start works."""
    channel = adapter(fake, tmp_path)
    await channel.stop()
    with pytest.raises(DeliveryFailed):
        await send(channel, room(fake), card("One"))
    await channel.start(ear)
    await channel.stop()
    await channel.stop()
    await channel.start(ear)
    await send(channel, room(fake), card("One"))
    await channel.stop()
    assert len(fake.seen()) == 1


async def test_discord_away_at_the_start(ear: Ear, tmp_path: Path) -> None:
    """Where Discord cannot be reached the start says so, with the address it tried."""
    gone = FakeDiscord()
    gone.settings = {"api_url": "http://127.0.0.1:9/api/v10"}
    with pytest.raises(NotConnected, match=r"127\.0\.0\.1:9"):
        await adapter(gone, tmp_path).start(ear)


# against a Discord that others wrote


@asynccontextmanager
async def simulated(ear: Ear, folder: Path) -> AsyncIterator[tuple[DiscordChannel, simcord.Env]]:
    tools = ChannelTools(
        clock=lambda: datetime.now(UTC), environment={"CODESPAR_DISCORD_TOKEN": "t"}, folder=folder
    )
    channel = DiscordChannel(DiscordSettings(), tools)
    async with simcord.run(channel.connection(ear)) as env:
        yield channel, env


async def test_simcord_takes_the_whole_conversation(ear: Ear, tmp_path: Path) -> None:
    """A mention, its thread, a card with buttons, a press, an edit and the slash command, against another's Discord."""
    async with simulated(ear, tmp_path) as (channel, env):
        guild = env.create_guild()
        general = guild.create_text_channel("general")
        ada = guild.add_member(env.create_user("ada"))
        asked = await ada.send(general, f"<@{env.bot.user.id}> deploy staging")
        assert ear.said == ["deploy staging"]
        thread = where(ear.heard[0])
        assert thread.thread_id == str(asked.id)
        actions = (
            Action(label="Approve", command="approve dp-1"),
            Action(label="Reject", command="reject dp-1", asks="Why?"),
        )
        (ours,) = await send(channel, thread, card("Deploy?", text="to *staging*", actions=actions))
        await env.settle()
        opened = env.bot.get_channel(asked.id)
        shown = await opened.fetch_message(int(ours))
        assert (opened.name, shown.embeds[0].title) == ("deploy staging", "Deploy?")
        await ada.click(shown, custom_id="approve dp-1")
        assert (ear.said[-1], ear.heard[-1].via, ear.heard[-1].thread_id) == (
            "approve dp-1",
            "button",
            str(asked.id),
        )
        await channel.edit(thread, ours, channel.render(card("Approved"))[0])
        shown = await opened.fetch_message(int(ours))
        assert (shown.embeds[0].title, shown.components) == ("Approved", [])
        await ada.slash(general, "codespar", text="status")
        assert (ear.said[-1], ear.heard[-1].via) == ("status", "command")


async def test_simcord_takes_every_rendering(ear: Ear, tmp_path: Path) -> None:
    """Another's idea of Discord's limits agrees: long and nasty responses are taken, and one over a limit is not."""
    nasty = "@everyone [x](https://e.example) ``` 😀 " * 400
    responses = [
        card(
            "t" * 1000,
            text=nasty,
            fields=tuple(FieldLine(name=f"n{at}", value="v" * 900) for at in range(40)),
        ),
        card("many", actions=tuple(Action(label=f"Do {at}", command=f"do {at}") for at in range(40))),
        card("diff", blocks=(Block(language="diff", text=nasty), Block(text="short"))),
    ]
    async with simulated(ear, tmp_path) as (channel, env):
        general = env.create_guild().create_text_channel("general")
        thread = Thread(channel="discord", conversation=str(general.id))
        for at, response in enumerate(responses):
            assert await send(channel, thread, response, f"k{at}")
            for number, part in enumerate(channel.render(response, plain=True)):
                assert await channel.send(thread, part, f"p{at}/{number}")
        with pytest.raises(ContentRefused):
            await channel.send(thread, Part(payload={"content": "x" * 2001}, text=""), "over")
        env.check_errors = False


async def test_files_go_with_their_message(fake: FakeDiscord, discord: DiscordChannel) -> None:
    """Files of a part are in its message, in order, under their own names."""
    part = discord.render(card("Two files"))[0].evolve(
        files=(File(name="a ä.txt", content=b"1"), File(name="b.txt", content=b"2"))
    )
    await discord.send(room(fake), part, "k")
    assert list(fake.seen()[0].files.values()) == [b"1", b"2"]
