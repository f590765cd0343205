"""The Telegram channel over a socket: what it hears, what it says, and what happens when either goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from codespar.channels.base import (
    AttachmentRefused,
    ChannelTools,
    ContentRefused,
    DeliveryFailed,
    DeliveryRefused,
    Heard,
    HttpRequest,
    MessageGone,
    NotConnected,
)
from codespar.channels.telegram.questions import asked
from codespar.channels.telegram.sent import SentMessages
from codespar.channels.telegram.settings import TelegramSettings
from codespar.domain.messages import Action, Block, NormalizedResponse
from codespar.domain.tasks import Thread
from support.platforms.telegram import BOT, FORUM, ROOM, SECRET, TOKEN, TOPIC, USERNAME, FakeTelegram, Refused

if TYPE_CHECKING:  # its library takes seconds to load, and every process of a test run collects this file
    from codespar.channels.telegram.adapter import TelegramChannel

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
WEBHOOK = "https://codespar.example.com/channels/telegram/webhook"
GROUP = Thread(channel="telegram", conversation=str(ROOM))
QUESTION = NormalizedResponse(
    title="Budget used up",
    actions=(
        Action(label="Go on", command="approve bg-7k2m9q"),
        Action(label="Stop", command="reject bg-7k2m9q", asks="Why?"),
    ),
)


class Ear:
    """Commits what it hears, once each; `failing` times it cannot."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.failing = 0
        self.tries = 0

    async def hear(self, heard: Heard) -> bool:
        self.tries += 1
        if self.failing:
            self.failing -= 1
            raise RuntimeError("the database is away")
        if heard.delivery in [one.delivery for one in self.heard]:
            return False
        self.heard.append(heard)
        return True

    async def wait(self, count: int) -> list[Heard]:
        await until(lambda: len(self.heard) >= count)
        return self.heard


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - the other side is a socket
            await asyncio.sleep(0.01)


def channel(fake: FakeTelegram, folder: Path, **environment: str) -> TelegramChannel:
    from codespar.channels.telegram.adapter import TelegramChannel

    tools = ChannelTools(lambda: AT, {**fake.environment, **environment}, folder / "telegram")
    return TelegramChannel(TelegramSettings.model_validate(fake.settings), tools)


@pytest.fixture
async def fake() -> AsyncIterator[FakeTelegram]:
    platform = FakeTelegram()
    await platform.start()
    yield platform
    await platform.stop()


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
async def bot(fake: FakeTelegram, ear: Ear, work_folder: Path) -> AsyncIterator[TelegramChannel]:
    adapter = channel(fake, work_folder)
    await adapter.start(ear)
    yield adapter
    await adapter.stop()


async def send(bot: TelegramChannel, thread: Thread, response: NormalizedResponse) -> list[str]:
    return [await bot.send(thread, part, "k") for part in bot.render(response)]


def said(text: str) -> NormalizedResponse:
    return NormalizedResponse(title=text)


# what is heard


async def test_a_mention_in_a_group_is_heard_without_it_and_begins_a_thread(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    id = await fake.say("ada", "deploy staging\nnow")
    (heard,) = await ear.wait(1)
    assert heard == Heard(
        delivery=f"{BOT}:500001",
        channel="telegram",
        conversation=str(ROOM),
        thread_id=id,
        message_id=id,
        sender="1001",
        sender_name="Ada",
        content="deploy staging\nnow",
        direct=False,
        addressed=True,
        at=datetime.fromtimestamp(1_795_000_000, UTC),
    )


async def test_everything_is_heard_in_a_private_chat_and_start_is_help(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    for text in ("status", "/status build", "/start", "/start kill"):
        await fake.say("marcus", text, direct=True)
    heard = await ear.wait(4)
    assert [one.content for one in heard] == ["status", "status build", "help", "help"]
    assert [one.via for one in heard] == ["text", "command", "command", "command"]
    assert {(one.conversation, one.thread_id, one.direct) for one in heard} == {("1002", None, True)}


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (f"@{USERNAME.upper()} status", "status"),
        (f"👩‍👩‍👧 hey @{USERNAME} status 👍", "👩‍👩‍👧 hey status 👍"),
        (f"status @{USERNAME}", "status"),
        (f"@{USERNAME}", ""),
        ("/codespar deploy staging", "deploy staging"),
        (f"/codespar@{USERNAME} status", "status"),
        (f"/Deploy@{USERNAME} staging", "Deploy staging"),
        (f"/start@{USERNAME} kill", "help"),
    ],
)
async def test_these_address_the_bot_in_a_group(
    text: str, content: str, fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    fake.post("ada", text)
    assert [one.content for one in await ear.wait(1)] == [content]


async def test_nothing_else_of_a_group_is_heard_but_all_of_it_is_acknowledged(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    unheard = [
        "hello all",
        f"@{USERNAME}2 status",
        f"mail{USERNAME}",
        "/deploy staging",
        "/status@other_bot",
        f"/status@other_bot @{USERNAME}",
        "/start",
    ]
    for text in unheard:
        fake.post("ada", text)
    fake.post("ada", f"@{USERNAME} kill", author={"is_bot": True})
    fake.post("ada", f"@{USERNAME} kill", sender_chat={"id": ROOM, "type": "supergroup"})
    fake.post("ada", "", new_chat_members=[fake.user("marcus")])
    message = fake.messages[0].wire() | {
        "text": f"@{USERNAME} kill",
        "entities": [{"type": "mention", "offset": 0, "length": len(USERNAME) + 1}],
    }
    for kind in ("edited_message", "channel_post", "edited_channel_post", "business_message"):
        fake.emit({kind: message})
    fake.emit({"my_chat_member": {"unknown": "shape"}})
    await fake.say("ada", "status")
    assert [one.content for one in await ear.wait(1)] == ["status"]
    await until(lambda: not fake.waiting)


async def test_an_answer_to_one_of_ours_goes_on_in_its_thread_even_after_a_restart(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel, work_folder: Path
) -> None:
    first = await fake.say("ada", "fix the login")
    thread = GROUP.evolve(thread_id=first)
    (answer,) = await send(bot, thread, said("Which one?"))
    fake.post("marcus", "the second", reply_to=fake.message(ROOM, int(answer)))
    heard = (await ear.wait(2))[1]
    assert (heard.thread_id, heard.reply_to, heard.content) == (first, answer, "the second")
    await bot.stop()
    again = channel(fake, work_folder)
    await again.start(ear)
    await fake.say("ada", "and the third", thread=first)
    assert (await ear.wait(3))[2].thread_id == first
    await again.stop()


async def test_an_answer_to_an_announcement_begins_a_thread_of_its_own(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    (announced,) = await send(bot, GROUP, said("Deployed"))
    id = fake.post("ada", "roll it back", reply_to=fake.message(ROOM, int(announced)))
    (heard,) = await ear.wait(1)
    assert (heard.thread_id, heard.content, heard.addressed) == (id, "roll it back", True)
    assert fake.seen()[0].thread is None


async def test_a_topic_is_a_conversation_of_its_own_and_answers_stay_in_it(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    opened = fake._add(FORUM, {"id": BOT, "is_bot": True, "first_name": "CodeSpar"}, "", [], TOPIC, None)
    opened.more = {"forum_topic_created": {"name": "builds", "icon_color": 1}}
    fake.post("ada", "unaddressed", FORUM, topic=TOPIC, reply_to=opened)
    id = fake.post("ada", f"@{USERNAME} status", FORUM, topic=TOPIC, reply_to=opened)
    (heard,) = await ear.wait(1)
    assert (heard.conversation, heard.thread_id, heard.reply_to) == (fake.forum, id, None)
    await send(
        bot,
        Thread(channel="telegram", conversation=heard.conversation, thread_id=heard.thread_id),
        said("All is well"),
    )
    shown = fake.seen(fake.forum)[-1]
    assert shown.thread == id and fake.messages[-1].topic == TOPIC


async def test_a_press_is_its_command_and_is_answered_after_it_was_heard(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    first = await fake.say("ada", "fix the login")
    await send(bot, GROUP.evolve(thread_id=first), QUESTION)
    ear.failing = 1
    await fake.press("marcus", fake.seen()[0], "Go on")
    heard = (await ear.wait(2))[1]
    assert (heard.content, heard.via, heard.sender, heard.thread_id, heard.at) == (
        "approve bg-7k2m9q",
        "button",
        "1002",
        first,
        AT,
    )
    assert heard.message_id == fake.seen()[0].id
    await until(lambda: fake.toasts == ["Sent: approve bg-7k2m9q"])


async def test_a_press_under_an_announcement_begins_a_thread_there(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    (id,) = await send(bot, GROUP, QUESTION)
    await fake.press("ada", fake.seen()[0], "Go on")
    assert (await ear.wait(1))[0].thread_id == id


async def test_a_press_is_placed_by_what_it_answers_when_nothing_is_remembered(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel, work_folder: Path
) -> None:
    first = await fake.say("ada", "fix the login")
    await send(bot, GROUP.evolve(thread_id=first), QUESTION)
    await ear.wait(1)
    await bot.stop()
    other = channel(fake, work_folder / "elsewhere")
    await other.start(ear)
    await fake.press("ada", fake.seen()[0], "Go on")
    assert (await ear.wait(2))[1].thread_id == first
    await other.stop()


async def test_a_button_that_asks_becomes_command_and_answer(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    first = await fake.say("ada", "fix the login")
    await send(bot, GROUP.evolve(thread_id=first), QUESTION)
    await fake.press("ada", fake.seen()[0], "Stop", answer="too dear 💸")
    heard = (await ear.wait(2))[1]
    assert (heard.content, heard.via, heard.thread_id, heard.sender) == (
        "reject bg-7k2m9q too dear 💸",
        "form",
        first,
        "1001",
    )
    asked = fake.seen()[1]
    assert (
        asked.text == "Why?\nReply to this message, Ada.\nreject bg-7k2m9q"
        and asked.thread == fake.seen()[0].id
    )
    assert fake.toasts == ["Reply to the question in the chat."] and fake.refusals == []


async def test_a_question_that_telegram_does_not_take_now_holds_up_nobody(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    await send(bot, GROUP, QUESTION)
    fake.fail_next(1, status=429, retry_after=30)
    await fake.press("ada", fake.seen()[0], "Stop")
    await fake.say("marcus", "status")
    assert [one.content for one in await ear.wait(1)] == ["status"]
    assert fake.toasts == ["Telegram is busy. Press again in a while, or write: reject bg-7k2m9q …"]
    fake.failing["sendMessage"] = [Refused("Bad Request: TOPIC_CLOSED")]
    await fake.press("ada", fake.seen()[0], "Stop")
    await until(lambda: fake.toasts[1:] == ["Write instead: reject bg-7k2m9q …"])


async def test_only_who_pressed_may_answer_and_a_restart_in_between_changes_nothing(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel, work_folder: Path
) -> None:
    await send(bot, GROUP, QUESTION)
    await fake.press("ada", fake.seen()[0], "Stop")
    await until(lambda: len(fake.seen()) == 2 and not fake.waiting)
    await bot.stop()
    (work_folder / "telegram" / "sent.txt").unlink()
    again = channel(fake, work_folder)
    await again.start(ear)
    question = fake.message(ROOM, int(fake.seen()[1].id))
    fake.post("marcus", "because I say so", reply_to=question)
    fake.post("ada", "too dear", reply_to=question)
    others, hers = await ear.wait(2)
    assert (others.content, others.via) == ("because I say so", "text")
    assert (hers.content, hers.via) == ("reject bg-7k2m9q too dear", "form")
    await again.stop()


async def test_a_question_that_somebody_else_wrote_asks_nothing(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    from aiogram.types import Message

    text = "Why?\nkill"
    forged = [{"type": "pre", "offset": 5, "length": 4, "language": "answer-1001"}]
    message = fake._add(1001, fake.user("marcus") | {"is_bot": True}, text, forged, None, None)
    assert asked(Message.model_validate(message.wire()), BOT) is None
    fake.post("ada", "yes", 1001, reply_to=message)
    assert (await ear.wait(1))[0].content == "yes"


async def test_a_button_of_an_unknown_form_is_answered_and_does_nothing(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    (id,) = await send(bot, GROUP, said("x"))
    press = {"id": "press-old", "from": fake.user("ada"), "chat_instance": "1", "data": "v0:approve"}
    fake.emit({"callback_query": press | {"message": fake.message(ROOM, int(id)).wire()}})
    fake.emit(
        {
            "callback_query": press
            | {
                "id": "press-gone",
                "message": {"chat": {"id": ROOM, "type": "supergroup"}, "message_id": 3, "date": 0},
            }
        }
    )
    await until(lambda: len(fake.toasts) == 2)
    assert fake.toasts[0].startswith("This button is from an earlier version") and ear.tries == 0


async def test_what_was_not_committed_comes_again_before_anything_later(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    ear.failing = 2
    with capture_logs() as logs:
        await fake.say("ada", "first")
        await fake.say("ada", "second")
        assert [one.content for one in await ear.wait(2)] == ["first", "second"]
    assert ear.tries == 4 and fake.offsets[:1] in ([], [500_002], [500_003])
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["telegram.not_heard"] * 2
    await until(lambda: not fake.waiting)


async def test_nothing_is_acknowledged_while_it_is_being_committed(
    fake: FakeTelegram, work_folder: Path
) -> None:
    going_on = asyncio.Event()

    class Slow(Ear):
        async def hear(self, heard: Heard) -> bool:
            await going_on.wait()
            return await super().hear(heard)

    slow = Slow()
    adapter = channel(fake, work_folder)
    await adapter.start(slow)
    await fake.say("ada", "status")
    await asyncio.sleep(0.2)
    assert len(fake.waiting) == 1 and fake.offsets == []
    going_on.set()
    await slow.wait(1)
    await until(lambda: fake.offsets == [500_002] and not fake.waiting)
    await adapter.stop()


async def test_what_was_heard_last_is_acknowledged_on_the_way_out(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    await fake.say("ada", "status")
    await ear.wait(1)
    await bot.stop()
    assert fake.waiting == []


async def test_an_update_that_cannot_be_read_hides_no_other(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    fake.emit({"message": {"message_id": "no number"}})
    await fake.say("ada", "status")
    assert [one.content for one in await ear.wait(1)] == ["status"]


async def test_a_connection_that_breaks_is_made_again(
    fake: FakeTelegram, ear: Ear, work_folder: Path
) -> None:
    fake.failing["getUpdates"] = [
        Refused("Bad Gateway", 502),
        Refused("Too Many Requests: retry after 1", 429, retry_after=1),
    ]
    adapter = channel(fake, work_folder)
    await adapter.start(ear)
    await fake.say("ada", "status")
    assert [one.content for one in await ear.wait(1)] == ["status"]
    await adapter.stop()


async def test_a_second_process_with_the_same_token_is_told_clearly(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel, work_folder: Path
) -> None:
    other = channel(fake, work_folder / "other")
    await until(lambda: fake._poll is not None)
    with capture_logs() as logs:
        await other.start(Ear())
        await until(lambda: any(line["event"] == "telegram.conflict" for line in logs))
        await other.stop()
    (line,) = [line for line in logs if line["event"] == "telegram.conflict"][:1]
    assert "stop it, or give each its own bot" in line["hint"]
    await fake.say("ada", "status")
    await ear.wait(1)


async def test_a_webhook_that_somebody_set_meanwhile_is_taken_away(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    fake.webhook = {"url": "https://elsewhere.example.com", "secret_token": "x"}
    fake.emit({"my_chat_member": {}})
    await until(lambda: fake.webhook == {})
    await fake.say("ada", "status")
    await ear.wait(1)


async def test_a_display_name_is_data(fake: FakeTelegram, ear: Ear, bot: TelegramChannel) -> None:
    fake.post("ada", "hi", 1001, author={"first_name": "Ada\n\u202e\x00<b>", "last_name": "x" * 100})
    name = (await ear.wait(1))[0].sender_name
    assert name.startswith("Ada<b> xxx") and len(name) == 80


# attachments


def document(fake: FakeTelegram, content: bytes, name: str = "trace.log") -> dict[str, Any]:
    id = f"file{len(fake.files) + 1}"
    fake.files[id] = content
    return {
        "file_id": id,
        "file_unique_id": id,
        "file_name": name,
        "mime_type": "text/plain",
        "file_size": len(content),
    }


async def test_an_attachment_is_offered_and_fetched_within_the_cap(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    fake.post("ada", f"@{USERNAME} look", document=document(fake, b"x" * 100_000, "../../tr\x00ace.log"))
    (heard,) = await ear.wait(1)
    (offered,) = heard.offered
    assert (heard.content, offered.name, offered.media_type, offered.size) == (
        "look",
        "_.._trace.log",
        "text/plain",
        100_000,
    )
    assert await bot.fetch(offered.ref, 100_000) == b"x" * 100_000
    with pytest.raises(AttachmentRefused, match="more than the 99999"):
        await bot.fetch(offered.ref, 99_999)


async def test_the_cap_holds_whatever_size_the_platform_told(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    async def lying(given: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:
        return {"file_id": "f", "file_unique_id": "f", "file_path": "documents/big"}

    fake.files["big"] = b"x" * 1_000_000
    fake._getFile = lying
    with pytest.raises(AttachmentRefused, match="more than the 1000 bytes"):
        await bot.fetch("f", 1000)


@pytest.mark.parametrize(
    "path",
    [
        "../../../bot",
        "//evil.example.com/x",
        "http://evil.example.com/x",
        "/var/lib/x",
        "a/../../b",
        "a?b",
        "",
    ],
)
async def test_only_files_of_the_bot_api_server_are_fetched(
    path: str, fake: FakeTelegram, bot: TelegramChannel
) -> None:
    async def elsewhere(given: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:
        return {"file_id": "f", "file_unique_id": "f", "file_path": path}

    fake._getFile = elsewhere
    with pytest.raises(AttachmentRefused):
        await bot.fetch("f", 1000)


async def test_an_attachment_that_is_gone_or_too_large_for_bots_is_refused_without_the_token(
    fake: FakeTelegram, bot: TelegramChannel
) -> None:
    with pytest.raises(AttachmentRefused, match="wrong file_id") as refused:
        await bot.fetch("unknown", 1000)
    fake.files["half"] = b"x"
    fake.failing["getFile"] = [Refused("Bad Request: file is too big")]
    with pytest.raises(AttachmentRefused, match="too big"):
        await bot.fetch("half", 1000)
    assert TOKEN not in str(refused.value) + repr(refused.value.__cause__)


# the webhook


@pytest.fixture
async def hooked(ear: Ear, work_folder: Path) -> AsyncIterator[tuple[FakeTelegram, TelegramChannel]]:
    platform = FakeTelegram(webhook=WEBHOOK)
    await platform.start()
    adapter = channel(platform, work_folder)
    platform.deliver = adapter.answer
    await adapter.start(ear)
    yield platform, adapter
    await adapter.stop()
    await platform.stop()


def update(fake: FakeTelegram, text: str, number: int = 900) -> bytes:
    said = fake._add(1001, fake.user("ada"), text, [], None, None)
    return json.dumps({"update_id": number, "message": said.wire()}).encode()


def posted(body: bytes, path: str = "webhook", method: str = "POST", **headers: str) -> HttpRequest:
    return HttpRequest(
        method=method,
        path=path,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=body,
    )


async def test_a_webhook_hears_and_is_registered_with_its_secret(
    hooked: tuple[FakeTelegram, TelegramChannel], ear: Ear
) -> None:
    fake, bot = hooked
    assert fake.webhook["url"] == WEBHOOK and fake.webhook["allowed_updates"] == ["message", "callback_query"]
    await fake.say("ada", "status")
    assert [one.content for one in await ear.wait(1)] == ["status"]
    await until(lambda: fake.waiting == [])
    await send(bot, GROUP, QUESTION)
    await fake.press("ada", fake.seen()[0], "Stop", answer="no")
    assert (await ear.wait(2))[1].content == "reject bg-7k2m9q no"


async def test_a_webhook_request_is_not_acknowledged_when_it_was_not_committed(
    hooked: tuple[FakeTelegram, TelegramChannel], ear: Ear
) -> None:
    fake, bot = hooked
    ear.failing = 1
    body = update(fake, "status")
    secret = {"x_telegram_bot_api_secret_token": SECRET}
    assert (await bot.answer(posted(body, **secret))).status == 503
    assert [(await bot.answer(posted(body, **secret))).status for _ in range(2)] == [200, 200]
    assert [one.delivery for one in ear.heard] == [f"{BOT}:900"]


async def test_a_repeated_press_asks_its_question_once(hooked: tuple[FakeTelegram, TelegramChannel]) -> None:
    fake, bot = hooked
    await send(bot, GROUP, QUESTION)
    fake.deliver = None
    await fake.press("ada", fake.seen()[0], "Stop")
    body = json.dumps(fake.waiting[0]).encode()
    for _ in range(3):
        assert (await bot.answer(posted(body, x_telegram_bot_api_secret_token=SECRET))).status == 200
    assert len(fake.seen()) == 2


async def test_forged_malformed_and_oversized_requests_are_refused_and_heard_by_nobody(
    hooked: tuple[FakeTelegram, TelegramChannel], ear: Ear
) -> None:
    fake, bot = hooked
    body = update(fake, "status")
    secret = {"x_telegram_bot_api_secret_token": SECRET}
    statuses = {
        "no secret": (await bot.answer(posted(body))).status,
        "a wrong one": (await bot.answer(posted(body, x_telegram_bot_api_secret_token=SECRET + "x"))).status,
        "one that is no ASCII": (await bot.answer(posted(body, x_telegram_bot_api_secret_token="é"))).status,
        "too large": (await bot.answer(posted(b" " * 1_000_001 + body, **secret))).status,
        "no JSON": (await bot.answer(posted(body[:-2], **secret))).status,
        "no UTF-8": (await bot.answer(posted(b"\xff" + body, **secret))).status,
        "no update": (await bot.answer(posted(b'{"update_id": "x"}', **secret))).status,
        "a list": (await bot.answer(posted(b"[1]", **secret))).status,
        "deep": (await bot.answer(posted(b"[" * 100_000, **secret))).status,
        "a broken message": (
            await bot.answer(posted(b'{"update_id": 1, "message": {"message_id": 1}}', **secret))
        ).status,
        "another path": (await bot.answer(posted(body, path="other", **secret))).status,
        "another method": (await bot.answer(posted(body, method="GET", **secret))).status,
    }
    assert list(statuses.values()) == [401, 401, 401, 413, 400, 400, 400, 400, 400, 400, 404, 404], statuses
    assert ear.tries == 0


async def test_without_a_webhook_there_is_no_address(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    body = update(fake, "status")
    assert (await bot.answer(posted(body, x_telegram_bot_api_secret_token=""))).status == 404
    assert ear.tries == 0


# connecting


async def test_missing_and_unusable_secrets_are_told_by_name(fake: FakeTelegram, work_folder: Path) -> None:
    with pytest.raises(NotConnected, match="CODESPAR_TELEGRAM_TOKEN is not set"):
        channel(fake, work_folder, CODESPAR_TELEGRAM_TOKEN="")
    with pytest.raises(NotConnected, match="does not hold a Telegram token") as refused:
        channel(fake, work_folder, CODESPAR_TELEGRAM_TOKEN="no-token-at-all")
    assert "no-token-at-all" not in str(refused.value)
    hooked = FakeTelegram(webhook=WEBHOOK)
    with pytest.raises(NotConnected, match="CODESPAR_TELEGRAM_SECRET is not set"):
        channel(hooked, work_folder, CODESPAR_TELEGRAM_SECRET="")
    with pytest.raises(NotConnected, match="1 to 256 letters"):
        channel(hooked, work_folder, CODESPAR_TELEGRAM_SECRET="with blanks")


async def test_a_webhook_needs_https() -> None:
    with pytest.raises(ValueError, match="must be an https:// address"):
        TelegramSettings(webhook="http://codespar.example.com/channels/telegram/webhook")


async def test_a_refused_token_is_told_without_the_token(fake: FakeTelegram, work_folder: Path) -> None:
    adapter = channel(fake, work_folder, CODESPAR_TELEGRAM_TOKEN=f"{BOT}:revoked")
    with pytest.raises(
        NotConnected, match="Telegram refuses the token in CODESPAR_TELEGRAM_TOKEN"
    ) as refused:
        await adapter.start(Ear())
    assert "revoked" not in str(refused.value)
    await adapter.stop()


async def test_starting_while_telegram_is_away_can_be_tried_again(
    fake: FakeTelegram, ear: Ear, work_folder: Path
) -> None:
    fake.failing["getMe"] = [Refused("Bad Gateway", 502)]
    adapter = channel(fake, work_folder)
    with pytest.raises(DeliveryFailed, match="cannot be reached"):
        await adapter.start(ear)
    await adapter.start(ear)
    await fake.say("ada", "status")
    await ear.wait(1)
    await adapter.stop()
    await adapter.stop()


# what is said


async def test_a_message_answers_in_its_thread_and_a_vanished_request_does_not_stop_it(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    first = await fake.say("ada", "status")
    await send(bot, GROUP.evolve(thread_id=first), said("All is <well> & good"))
    await send(bot, GROUP.evolve(thread_id="9999"), said("still said"))
    await send(bot, Thread(channel="telegram", conversation="1001"), said("privately"))
    assert [(one.text, one.thread) for one in fake.seen()] == [
        ("All is <well> & good", first),
        ("still said", None),
    ]
    assert [one.text for one in fake.seen("direct:ada")] == ["privately"]
    assert fake.refusals == []


async def test_a_long_block_is_a_message_and_a_file_in_the_same_thread(
    fake: FakeTelegram, ear: Ear, bot: TelegramChannel
) -> None:
    first = await fake.say("ada", "diff")
    text = "\n".join(f"+{n} é" for n in range(5000))
    await send(
        bot,
        GROUP.evolve(thread_id=first),
        NormalizedResponse(title="Diff", blocks=(Block(language="diff", text=text),)),
    )
    message, file = fake.seen()
    assert message.files == {} and file.files == {"change-1.diff": text.encode()}
    assert (message.thread, file.thread) == (first, first) and fake.refusals == []


async def test_a_message_is_edited_in_place_and_an_edit_that_changes_nothing_is_no_error(
    fake: FakeTelegram, bot: TelegramChannel
) -> None:
    (id,) = await send(bot, GROUP, QUESTION)
    (done,) = bot.render(said("Stopped"))
    await bot.edit(GROUP, id, done)
    await bot.edit(GROUP, id, done)
    (shown,) = fake.seen()
    assert (shown.text, shown.buttons, shown.edits) == ("Stopped", [], 1)


async def test_a_file_is_edited_in_place_and_never_left_where_a_text_should_be(
    fake: FakeTelegram, bot: TelegramChannel
) -> None:
    long, longer = ("\n".join(f"{word} {n}" for n in range(900)) for word in ("line", "row"))
    _, file = await send(bot, GROUP, NormalizedResponse(title="A", blocks=(Block(text=long),)))
    _, part = bot.render(NormalizedResponse(title="A", blocks=(Block(text=longer),)))
    await bot.edit(GROUP, file, part)
    assert fake.seen()[1].files == {"text-1.txt": longer.encode()}
    with pytest.raises(MessageGone):
        await bot.edit(GROUP, file, bot.render(said("text"))[0])
    assert [one.text.split("\n")[0] for one in fake.seen()] == ["A"]


async def test_editing_what_is_gone_is_told_and_deleting_it_is_no_error(
    fake: FakeTelegram, bot: TelegramChannel
) -> None:
    (id,) = await send(bot, GROUP, said("x"))
    await bot.delete(GROUP, id)
    await bot.delete(GROUP, id)
    with pytest.raises(MessageGone):
        await bot.edit(GROUP, id, bot.render(said("y"))[0])
    theirs = await fake.say("ada", "mine")
    with pytest.raises(MessageGone):
        await bot.edit(GROUP, theirs, bot.render(said("y"))[0])
    assert fake.seen() == []


async def test_a_limit_is_honoured_with_the_platforms_own_wish(
    fake: FakeTelegram, bot: TelegramChannel
) -> None:
    fake.fail_next(1, status=429, retry_after=7)
    with pytest.raises(DeliveryFailed) as failed:
        await send(bot, GROUP, said("x"))
    assert (failed.value.retry_after, failed.value.arrived_perhaps) == (7.0, False)


async def test_a_lost_answer_is_told_as_perhaps_arrived_and_nothing_is_sent_twice_by_itself(
    fake: FakeTelegram, bot: TelegramChannel
) -> None:
    fake.lose_next_answer()
    with pytest.raises(DeliveryFailed) as failed:
        await send(bot, GROUP, said("once"))
    assert failed.value.arrived_perhaps and [one.text for one in fake.seen()] == ["once"]
    assert await bot.find(GROUP, "k", AT) is None and bot.capabilities.resend == "may_double"
    fake.fail_next(1, status=500)
    with pytest.raises(DeliveryFailed) as broken:
        await send(bot, GROUP, said("x"))
    assert broken.value.arrived_perhaps and fake.calls.count("sendMessage") == 2


async def test_a_server_that_is_not_there_has_certainly_not_got_it(
    fake: FakeTelegram, bot: TelegramChannel
) -> None:
    await fake.stop()
    with pytest.raises(DeliveryFailed) as failed:
        await send(bot, GROUP, said("x"))
    assert not failed.value.arrived_perhaps and TOKEN not in str(failed.value)


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refused("Forbidden: bot was blocked by the user", 403), DeliveryRefused),
        (Refused("Bad Request: not enough rights to send text messages to the chat"), DeliveryRefused),
        (Refused("Bad Request: TOPIC_CLOSED"), DeliveryRefused),
        (
            Refused("Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=-100777),
            DeliveryRefused,
        ),
        (Refused("Bad Request: can't parse entities: Unexpected end tag"), ContentRefused),
        (Refused("Bad Request: BUTTON_DATA_INVALID"), ContentRefused),
        (Refused("Request Entity Too Large", 413), ContentRefused),
        (Refused("Unauthorized", 401), DeliveryFailed),
        (Refused("Too Many Requests", 429), DeliveryFailed),
    ],
)
async def test_each_refusal_is_told_for_what_it_is(
    refusal: Refused, error: type[Exception], fake: FakeTelegram, bot: TelegramChannel
) -> None:
    fake.failing["sendMessage"] = [refusal]
    with pytest.raises(error) as told:
        await send(bot, GROUP, said("x"))
    assert str(ROOM) in str(told.value) and TOKEN not in str(told.value)
    if refusal.parameters:
        assert "put -100777 in the place of" in str(told.value)


@pytest.mark.parametrize(
    "conversation", ["@somebody", "general", "12345", f"{ROOM}/9", f"{ROOM}/7/8", "１２", ""]
)
async def test_a_conversation_that_is_none_of_telegrams_is_refused(
    conversation: str, bot: TelegramChannel
) -> None:
    with pytest.raises(DeliveryRefused):
        await send(bot, Thread(channel="telegram", conversation=conversation), said("x"))


async def test_the_token_is_in_no_log(fake: FakeTelegram, ear: Ear, bot: TelegramChannel) -> None:
    with capture_logs() as logs:
        fake.failing["getUpdates"] = [Refused(f"Bad Request: https://api.telegram.org/bot{TOKEN}/getUpdates")]
        await fake.say("ada", "status")
        await fake.say("ada", "again")
        await until(lambda: any(line["event"] == "telegram.reconnecting" for line in logs))
    assert TOKEN not in json.dumps(logs, default=str)


# what is remembered


async def test_the_newest_places_are_kept_and_a_torn_line_loses_only_itself(work_folder: Path) -> None:
    file = work_folder / "sent.txt"
    sent = SentMessages(file, kept=5)
    await sent.load()
    for number in range(30):
        await sent.remember(-1, number, "-1/7", None if number % 2 else str(number))
    with file.open("a") as torn:
        torn.write("-1 99")
    again = SentMessages(file, kept=5)
    await again.load()
    await again.remember(-1, 30, "-1", "8")
    last = SentMessages(file, kept=5)
    await last.load()
    assert [last.where(-1, number) for number in (25, 26, 27, 28, 29, 30)] == [
        None,
        ("-1/7", "26"),
        ("-1/7", None),
        ("-1/7", "28"),
        ("-1/7", None),
        ("-1", "8"),
    ]
    assert len(file.read_text().splitlines()) <= 12
