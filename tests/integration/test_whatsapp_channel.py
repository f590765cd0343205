"""The WhatsApp channel over a real socket against the played platform: what is heard, what is sent, and what happens when something breaks."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pywa import WhatsApp
from pywa.types import CallbackButton, CallbackSelection, Message, MessageStatus, RawUpdate

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
from codespar.channels.platforms import PLATFORMS
from codespar.channels.whatsapp.adapter import WhatsappChannel
from codespar.channels.whatsapp.settings import WhatsappSettings
from codespar.domain.messages import Action, Block, NormalizedResponse
from codespar.domain.tasks import Thread
from support.platforms.whatsapp import NUMBER, FakeWhatsapp


class Inbox:
    """A reception that commits in memory, and can refuse."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.refuse = 0

    async def hear(self, heard: Heard) -> bool:
        if self.refuse:
            self.refuse -= 1
            raise OSError("the disk is full")
        new = heard.delivery not in {one.delivery for one in self.heard}
        if new:
            self.heard.append(heard)
        return new


class Bench:
    """The fake, the channel and a clock that can be put forward."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakeWhatsapp()
        self.inbox = Inbox()
        self.folder = folder
        self.ahead = timedelta()
        self.channel: WhatsappChannel

    def clock(self) -> datetime:
        return datetime.fromtimestamp(self.fake.now + 60, UTC) + self.ahead

    async def connect(self, **changes: Any) -> WhatsappChannel:
        settings = WhatsappSettings.model_validate(self.fake.settings | changes)
        tools = ChannelTools(self.clock, self.fake.environment, self.folder)
        self.channel = WhatsappChannel(settings, tools)
        await self.channel.start(self.inbox)
        self.fake.deliver = self.channel.answer
        return self.channel

    async def send(self, key: str = "k1", person: str = "ada", **response: Any) -> list[str]:
        parts = self.channel.render(NormalizedResponse.model_validate({"title": "Hello", **response}))
        thread = Thread(channel="whatsapp", conversation=f"{NUMBER}:{self.fake.identity(person)}")
        return [await self.channel.send(thread, part, f"{key}.{place}") for place, part in enumerate(parts)]

    async def until(self, what: Any) -> None:
        async with asyncio.timeout(60):
            while not what():  # noqa: ASYNC110 - the other side is a socket
                await asyncio.sleep(0.01)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    await bench.fake.start()
    await bench.connect()
    yield bench
    await bench.fake.settled()
    await bench.channel.stop()
    await bench.fake.stop()


def thread(person: str) -> Thread:
    return Thread(channel="whatsapp", conversation=f"{NUMBER}:{person}")


# --- in


async def test_a_text_is_heard_with_who_wrote_it_and_marked_as_read(bench: Bench) -> None:
    wamid = await bench.fake.say("ada", "  status *gw*  ", thread="wamid.OUT9")
    (heard,) = bench.inbox.heard
    assert heard.delivery == f"message:{wamid}" and heard.message_id == wamid
    assert (heard.sender, heard.also) == ("US.1001", ("15550001001",))
    assert heard.conversation == f"{NUMBER}:US.1001" == bench.fake.room
    assert heard.content == "status *gw*" and heard.sender_name == "Ada"
    assert heard.direct and heard.addressed and heard.via == "text" and heard.thread_id is None
    assert heard.reply_to == "wamid.OUT9"
    assert heard.at == datetime.fromtimestamp(bench.fake.now, UTC)
    await bench.until(lambda: bench.fake.read == [wamid])


@pytest.mark.parametrize(
    ("phone", "user", "sender", "also"),
    [
        (False, True, "US.1001", ()),
        (True, False, "15550001001", ()),
        (True, True, "US.1001", ("15550001001",)),
    ],
)
async def test_a_person_is_known_by_user_id_or_number_whichever_the_payload_has(
    bench: Bench, phone: bool, user: bool, sender: str, also: tuple[str, ...]
) -> None:
    value, _ = bench.fake.inbound("ada", {"type": "text", "text": {"body": "hi"}}, phone=phone, user=user)
    assert await bench.fake.post(bench.fake.delivery(value)) == 200
    assert [(one.sender, one.also) for one in bench.inbox.heard] == [(sender, also)]


async def test_a_press_and_a_choice_are_heard_as_their_commands(bench: Bench) -> None:
    two = [
        Action(label="Approve", command="approve dp-7k2m9q"),
        Action(label="Reject", command="reject dp-7k2m9q"),
    ]
    await bench.send("a", actions=two)
    await bench.send("b", actions=[Action(label=f"Go {n}", command=f"go {n}") for n in range(5)])
    buttons, choices = bench.fake.seen()
    assert buttons.buttons == ["Approve", "Reject"] and len(choices.buttons) == 5
    await bench.fake.press("marcus", buttons, "Reject")
    await bench.fake.press("ada", choices, "Go 3")
    await bench.fake.message("ada", {"type": "button", "button": {"payload": "status", "text": "Show"}})
    said = [(one.content, one.via, one.sender, one.reply_to) for one in bench.inbox.heard]
    assert said == [
        ("reject dp-7k2m9q", "button", "US.1002", buttons.id),
        ("go 3", "button", "US.1001", choices.id),
        ("status", "button", "US.1001", None),
    ]


async def test_media_are_offered_with_their_caption_and_fetched_with_the_token(bench: Bench) -> None:
    media = await bench.fake.offer(
        "ada",
        "document",
        b"log line\n" * 10,
        mime_type="text/plain",
        filename="../../etc/pass\u202ewd",
        caption="fix this",
    )
    await bench.fake.offer("ada", "audio", b"OggS", mime_type="audio/ogg; codecs=opus")
    document, voice = bench.inbox.heard
    assert document.content == "fix this" and voice.content == ""
    assert [(one.name, one.ref, one.media_type) for one in document.offered] == [
        ("passwd", media, "text/plain")
    ]
    assert voice.offered[0].name.startswith("audio-") and voice.offered[0].name.endswith(".ogg")
    assert await bench.channel.fetch(media, 1000) == b"log line\n" * 10


async def test_an_attachment_is_refused_when_too_large_gone_or_elsewhere(bench: Bench) -> None:
    media = await bench.fake.offer("ada", "image", b"x" * 5000, mime_type="image/png")
    with pytest.raises(AttachmentRefused, match="5000 bytes"):
        await bench.channel.fetch(media, 4999)
    assert bench.fake.downloads == []
    for ref in ("8123", "../me", "a" * 500):
        with pytest.raises(AttachmentRefused):
            await bench.channel.fetch(ref, 5000)
    bases = [
        "http://evil.example/",
        "https://evil.example/fbcdn.net/",
        "https://lookaside.fbsbx.com.evil.example/",
    ]
    bases += [
        "https://user@lookaside.fbsbx.com/",
        "http://lookaside.fbsbx.com/",
        "https://notfbcdn.net/",
        "file:///",
    ]
    for base in bases:
        bench.fake.media_base = base
        with pytest.raises(AttachmentRefused, match="host of Meta"):
            await bench.channel.fetch(media, 5000)
    bench.fake.refusals.clear()  # of the id that does not exist


async def test_everything_of_a_delivery_is_heard_before_it_is_acknowledged(bench: Bench) -> None:
    first, _ = bench.fake.inbound("ada", {"type": "text", "text": {"body": "one"}})
    more, _ = bench.fake.inbound("ada", {"type": "text", "text": {"body": "two"}})
    first["messages"] += more["messages"]
    other, _ = bench.fake.inbound("marcus", {"type": "text", "text": {"body": "three"}})
    body = bench.fake.delivery(first, other)
    assert await bench.fake.post(body) == 200
    assert [one.content for one in bench.inbox.heard] == ["one", "two", "three"]
    assert await bench.fake.post(body) == 200  # a repeat is acknowledged and changes nothing
    assert len(bench.inbox.heard) == 3


async def test_what_could_not_be_committed_is_not_acknowledged_and_comes_again(bench: Bench) -> None:
    bench.inbox.refuse = 1
    await bench.fake.say("ada", "status")
    assert bench.fake.answers == [500, 200]
    assert [one.content for one in bench.inbox.heard] == ["status"]


async def test_a_forged_oversized_or_malformed_request_is_refused_and_nothing_is_heard(bench: Bench) -> None:
    value, _ = bench.fake.inbound("ada", {"type": "text", "text": {"body": "deploy production"}})
    body = bench.fake.delivery(value)
    for signature in ("", "sha256=", "sha256=" + "0" * 64, "sha1=abc", "é"):
        assert await bench.fake.post(body, signature=signature) == 401
    assert await bench.fake.post(b" " * 3_000_001) == 413
    for malformed in (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000):
        assert await bench.fake.post(malformed) == 400
    assert bench.inbox.heard == []
    for method, path, status in (("POST", "other", 404), ("PUT", "webhook", 405)):
        answer = await bench.channel.answer(HttpRequest(method=method, path=path, headers={}, body=b""))
        assert answer.status == status


async def test_the_largest_delivery_is_taken(bench: Bench) -> None:
    value, _ = bench.fake.inbound("ada", {"type": "text", "text": {"body": "hi"}})
    value["padding"] = "x" * (3_000_000 - len(bench.fake.delivery(value)) - 15)
    assert 2_999_900 < len(bench.fake.delivery(value)) <= 3_000_000
    assert await bench.fake.post(bench.fake.delivery(value)) == 200
    assert len(bench.inbox.heard) == 1


async def test_what_is_not_for_us_is_acknowledged_and_ignored(bench: Bench) -> None:
    text = {"type": "text", "text": {"body": "hi"}}
    other, _ = bench.fake.inbound("ada", text)
    other["metadata"]["phone_number_id"] = "999999"
    echo, _ = bench.fake.inbound("ada", text)
    group, _ = bench.fake.inbound("ada", {**text, "group_id": "G1"})
    kinds: list[dict[str, Any]] = [
        {"type": "reaction", "reaction": {"message_id": "wamid.1", "emoji": "👍"}},
        {"type": "location", "location": {"latitude": 1, "longitude": 2}},
        {"type": "unsupported", "errors": [{"code": 131051}]},
        {"type": "system", "system": {"body": "changed", "type": "user_changed_number"}},
        {"type": "edit", "edit": {"original_message_id": "wamid.1", "message": text}},
        {"type": "revoke", "revoke": {"original_message_id": "wamid.1"}},
        {"type": "something_new", "something_new": {"body": "x"}},
        {"type": "text", "text": "not an object"},
    ]
    values = [other, group, *(bench.fake.inbound("ada", kind)[0] for kind in kinds)]
    assert await bench.fake.post(bench.fake.delivery(*values)) == 200
    assert await bench.fake.post(bench.fake.delivery(echo, field="smb_message_echoes")) == 200
    assert (
        await bench.fake.post(b'{"entry": [null, {"changes": [1, {"field": "messages", "value": "x"}]}]}')
        == 200
    )
    assert bench.inbox.heard == []


async def test_a_message_that_cannot_be_read_does_not_hide_its_neighbour(bench: Bench) -> None:
    value, _ = bench.fake.inbound("ada", {"type": "text", "text": {"body": "hi"}})
    value["messages"].insert(0, {"id": 5, "type": ["x"]})
    value["statuses"] = ["x", {"status": 1}]
    assert await bench.fake.post(bench.fake.delivery(value)) == 200
    assert [one.content for one in bench.inbox.heard] == ["hi"]


async def test_the_name_of_a_person_is_only_data(bench: Bench) -> None:
    value, _ = bench.fake.inbound("ada", {"type": "text", "text": {"body": "hi"}})
    value["contacts"][0]["profile"]["name"] = "Bo\u202ess\n\0 " + "x" * 200
    await bench.fake.post(bench.fake.delivery(value))
    assert bench.inbox.heard[0].sender_name == "Boss " + "x" * 75


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 200),
        ({"hub.verify_token": "wrong"}, 401),
        ({"hub.mode": "unsubscribe"}, 401),
        ({"hub.challenge": "<script>"}, 400),
    ],
)
async def test_the_set_up_check_is_answered_only_with_the_right_word(
    bench: Bench, query: dict[str, str], status: int
) -> None:
    right = {
        "hub.mode": "subscribe",
        "hub.verify_token": "verify-word-of-the-fake",
        "hub.challenge": "1158201444",
    }
    answer = await bench.channel.answer(
        HttpRequest(method="GET", path="webhook", query=right | query, headers={}, body=b"")
    )
    assert answer.status == status
    assert answer.body == (b"1158201444" if status == 200 else b"")


async def test_pywas_own_parsers_read_what_the_fake_delivers(bench: Bench) -> None:
    client = WhatsApp(phone_id=NUMBER, token="x")

    def update(value: dict[str, Any]) -> RawUpdate:
        return RawUpdate(bench.fake.delivery(value), hmac_header=None, update_hash="x")

    text, wamid = bench.fake.inbound("ada", {"type": "text", "text": {"body": "hi"}}, answers="wamid.1")
    read = Message.from_update(client, update(text))
    assert (read.id, read.text, read.from_user.bsuid, read.from_user.wa_id) == (
        wamid,
        "hi",
        "US.1001",
        "15550001001",
    )
    assert read.reply_to_message and read.reply_to_message.id == "wamid.1"
    reply = {"id": "go", "title": "Go"}
    press, _ = bench.fake.inbound(
        "ada", {"type": "interactive", "interactive": {"type": "button_reply", "button_reply": reply}}
    )
    assert CallbackButton.from_update(client, update(press)).data == "go"
    choice, _ = bench.fake.inbound(
        "ada",
        {"type": "interactive", "interactive": {"type": "list_reply", "list_reply": reply}},
        answers="wamid.1",
    )
    assert CallbackSelection.from_update(client, update(choice)).data == "go"
    status = MessageStatus.from_update(client, update(bench.fake.status("wamid.9", "ada", "failed", "m:k")))
    assert status.tracker == "m:k" and status.error and status.error.code == 131047


async def test_pywa_answers_200_and_drops_a_message_without_a_user_id_which_is_why_it_does_not_receive(
    bench: Bench,
) -> None:
    client = WhatsApp(phone_id=NUMBER, token="x", server=None, verify_token="v", app_secret="s")
    got: list[str] = []
    client.on_message()(lambda _, message: got.append(message.id))  # pyright: ignore
    value, _ = bench.fake.inbound("ada", {"type": "text", "text": {"body": "hi"}}, user=False)
    assert client.webhook_update_handler(bench.fake.delivery(value)) == ("ok", 200) and got == []
    assert await bench.fake.post(bench.fake.delivery(value)) == 200 and len(bench.inbox.heard) == 1


# --- out


async def test_a_response_is_seen_with_its_buttons_and_its_file(bench: Bench) -> None:
    diff = "+line\n" * 9000
    await bench.send(
        title="✅ *Done*",
        blocks=[Block(language="diff", text=diff)],
        actions=[Action(label="Merge", command="merge PR #1")],
    )
    text, document, question = bench.fake.seen()
    assert text.text == "✅ *Done*\n📎 change-1.diff"
    assert document.files == {"change-1.diff": diff.encode()}
    assert question.buttons == ["Merge"] and question.text == "✅ *Done*"
    assert bench.fake.refusals == []


async def test_a_person_known_by_number_gets_to_and_one_known_by_user_id_gets_recipient(bench: Bench) -> None:
    (part,) = bench.channel.render(NormalizedResponse(title="Hi"))
    await bench.channel.send(thread("15550001001"), part, "a")
    await bench.channel.send(thread("US.1001"), part, "b")
    assert [(one.get("to"), one.get("recipient")) for one in bench.fake.posted] == [
        ("15550001001", None),
        (None, "US.1001"),
    ]


@pytest.mark.parametrize(
    ("status", "code", "kind", "retry"),
    [
        (429, None, DeliveryFailed, 7.0),
        (400, 130429, DeliveryFailed, 7.0),
        (400, 131056, DeliveryFailed, 7.0),
        (503, None, DeliveryFailed, 7.0),
        (401, 190, DeliveryFailed, 300.0),
        (403, 10, DeliveryFailed, 300.0),
        (400, 131026, DeliveryRefused, None),
        (400, 131021, DeliveryRefused, None),
        (400, 131009, ContentRefused, None),
        (400, 100, ContentRefused, None),
        (400, 131008, ContentRefused, None),
    ],
)
async def test_each_refusal_of_the_platform_means_what_it_says(
    bench: Bench, status: int, code: int | None, kind: type[Exception], retry: float | None
) -> None:
    bench.fake.fail_next(1, status=status, retry_after=7, code=code)
    with pytest.raises(kind) as caught:
        await bench.send()
    assert getattr(caught.value, "retry_after", None) == retry
    assert getattr(caught.value, "arrived_perhaps", False) == (status == 503)
    assert "EAAG" not in str(caught.value)
    bench.fake.statuses = False
    if status != 503:
        assert await bench.channel.find(thread("US.1001"), "k1.0", bench.clock()) is None
        await bench.send()  # the next try with the same key is posted at once
        assert len(bench.fake.seen()) == 1


async def test_the_pair_limit_waits_six_seconds_where_the_platform_names_no_time(bench: Bench) -> None:
    bench.fake.fail_next(1, status=400, code=131056)
    with pytest.raises(DeliveryFailed) as caught:
        await bench.send()
    assert caught.value.retry_after == 6.0


async def test_a_message_whose_answer_was_lost_is_found_by_its_status_and_not_sent_twice(
    bench: Bench,
) -> None:
    bench.fake.lose_next_answer()
    with pytest.raises(DeliveryFailed) as caught:
        await bench.send()
    assert caught.value.arrived_perhaps
    (shown,) = bench.fake.seen()
    assert await bench.channel.find(thread("US.1001"), "k1.0", bench.clock()) == shown.id
    assert await bench.send() == [shown.id]
    assert len(bench.fake.seen()) == 1


async def test_what_was_sent_is_still_known_after_a_restart(bench: Bench) -> None:
    bench.fake.lose_next_answer()
    with pytest.raises(DeliveryFailed):
        await bench.send()
    await bench.fake.settled()
    await bench.channel.stop()
    await bench.connect()
    (shown,) = bench.fake.seen()
    assert await bench.send() == [shown.id] and len(bench.fake.seen()) == 1
    (file,) = [path for path in bench.folder.iterdir() if path.suffix == ".db"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_without_a_status_a_lost_message_is_sent_again(bench: Bench) -> None:
    bench.fake.statuses = False
    bench.fake.lose_next_answer()
    with pytest.raises(DeliveryFailed):
        await bench.send()
    await bench.send()
    assert len(bench.fake.seen()) == 2  # which is why `resend` is may_double
    assert bench.channel.capabilities.resend == "may_double"


async def test_the_network_being_gone_is_no_perhaps(bench: Bench) -> None:
    await bench.channel.stop()
    await bench.connect(
        api_url="http://127.0.0.1:9"
    )  # nothing listens there; deliveries are taken in all the same
    with pytest.raises(DeliveryFailed) as caught:
        await bench.send()
    assert not caught.value.arrived_perhaps
    await bench.fake.say("ada", "status")
    assert len(bench.inbox.heard) == 1


async def test_an_edit_is_sent_anew_and_a_strange_conversation_is_refused(bench: Bench) -> None:
    (part,) = bench.channel.render(NormalizedResponse(title="Hi"))
    with pytest.raises(MessageGone):
        await bench.channel.edit(thread("US.1001"), "wamid.1", part)
    for conversation in ("999999:US.1001", "US.1001", f"{NUMBER}:", f"{NUMBER}:a/b"):
        with pytest.raises(DeliveryRefused, match="no conversation"):
            await bench.channel.send(Thread(channel="whatsapp", conversation=conversation), part, "k")


# --- the 24 hours


async def test_after_24_hours_a_template_tells_and_the_whole_comes_when_the_person_writes(
    bench: Bench,
) -> None:
    await bench.fake.say("ada", "hi")
    bench.ahead = timedelta(hours=24)
    bench.fake.closed.add("ada")
    ids = await bench.send("a", title="Tests failed", text="on\nmain  " + "x" * 5000)
    assert len(ids) == 2 and len(set(ids)) == 1  # the continuation needs no template of its own
    (told,) = bench.fake.seen()
    assert told.text.startswith("News: Tests failed on main xxx")
    await bench.channel.stop()
    await bench.connect()
    bench.fake.now += 24 * 3600
    bench.ahead = timedelta()
    await bench.fake.say("ada", "what?")
    await bench.until(lambda: len(bench.fake.seen()) == 3)
    assert sum(shown.text.count("x") for shown in bench.fake.seen()[1:]) == 5000
    await bench.fake.say("ada", "and?")
    await bench.fake.settled()
    assert len(bench.fake.seen()) == 3 and bench.fake.refusals == []
    with sqlite3.connect(next(bench.folder.glob("*.db"))) as file:
        assert file.execute("SELECT count(*) FROM held").fetchone() == (0,)


async def test_a_template_that_was_sent_before_a_crash_is_not_sent_again_and_its_message_waits(
    bench: Bench,
) -> None:
    await bench.fake.say("ada", "hi")
    bench.ahead = timedelta(hours=25)
    bench.fake.lose_next_answer()
    with pytest.raises(DeliveryFailed):
        await bench.send("a", title="Deployed")
    await bench.fake.settled()
    await bench.channel.stop()
    await bench.connect()
    assert await bench.channel.find(thread("US.1001"), "a.0", bench.clock()) is None  # nothing waits yet
    (told,) = bench.fake.seen()
    assert await bench.send("a", title="Deployed") == [told.id]
    assert await bench.channel.find(thread("US.1001"), "a.0", bench.clock()) == told.id
    bench.ahead = timedelta()
    await bench.fake.say("ada", "ok")
    await bench.until(lambda: len(bench.fake.seen()) == 2)
    assert [shown.text for shown in bench.fake.seen()] == ["News: Deployed", "Deployed"]


async def test_a_full_disk_makes_a_send_fail_and_a_delivery_come_again(bench: Bench) -> None:
    await bench.channel.stop()
    bench.folder = bench.folder / "file"
    bench.folder.write_text("not a folder")
    await bench.connect()
    with pytest.raises(DeliveryFailed, match="cannot be read or written"):
        await bench.send()
    await bench.fake.say("ada", "hi")
    assert bench.fake.answers == [500, 500] and bench.inbox.heard == []


@pytest.mark.parametrize("in_the_answer", [True, False])
async def test_when_only_the_platform_knows_that_the_window_is_closed_nothing_vanishes(
    bench: Bench, in_the_answer: bool
) -> None:
    bench.fake.closed.add("ada")
    bench.fake.closed_in_the_answer = in_the_answer
    await bench.send("a", title="Deployed")
    await bench.until(lambda: bench.fake.seen())
    assert [shown.text for shown in bench.fake.seen()] == ["News: Deployed"]
    await bench.fake.say("ada", "ok")
    await bench.until(lambda: len(bench.fake.seen()) == 2)
    assert bench.fake.seen()[1].text == "Deployed"


async def test_without_a_template_the_refusal_says_what_to_configure(bench: Bench) -> None:
    await bench.channel.stop()
    await bench.connect(template=None)
    await bench.fake.say("ada", "hi")
    bench.ahead = timedelta(hours=25)
    with pytest.raises(DeliveryRefused, match=r"set channels\.whatsapp\.template"):
        await bench.send()
    await bench.send("b", person="marcus")  # of whom we know nothing: the platform decides
    assert len(bench.fake.seen("direct:marcus")) == 1


async def test_a_template_that_does_not_exist_is_named(bench: Bench) -> None:
    await bench.channel.stop()
    await bench.connect(template="gone")
    bench.fake.closed.add("ada")
    bench.fake.closed_in_the_answer = True
    with pytest.raises(DeliveryRefused, match=r"channels\.whatsapp\.template"):
        await bench.send()
    assert bench.fake.refusals == ["132001: (#132001) Template name does not exist in the translation"]


async def test_more_than_can_wait_is_counted_and_told(bench: Bench) -> None:
    await bench.fake.say("ada", "hi")
    bench.ahead = timedelta(hours=25)
    for number in range(104):
        tone = "info" if number < 3 else "progress"
        await bench.send(f"n{number}", title=f"Step {number}", tone=tone)
    assert len(bench.fake.seen()) == 3  # progress is not announced once something waits
    bench.ahead = timedelta()
    await bench.fake.say("ada", "back")
    await bench.until(lambda: len(bench.fake.seen()) == 104)
    texts = [shown.text for shown in bench.fake.seen()]
    assert texts[3:6] == ["Step 0", "Step 1", "Step 2"]
    assert "4 more messages waited" in texts[-1]


# --- connecting


async def test_a_wrong_token_or_a_missing_secret_is_named_at_the_start(bench: Bench) -> None:
    environment = bench.fake.environment
    settings = WhatsappSettings.model_validate(bench.fake.settings)
    for variable in environment:
        without = {name: value for name, value in environment.items() if name != variable}
        with pytest.raises(NotConnected, match=variable):
            WhatsappChannel(settings, ChannelTools(bench.clock, without, bench.folder))
    wrong = environment | {"CODESPAR_WHATSAPP_TOKEN": "EAAG-wrong"}
    channel = WhatsappChannel(settings, ChannelTools(bench.clock, wrong, bench.folder))
    with pytest.raises(NotConnected, match="CODESPAR_WHATSAPP_TOKEN") as caught:
        await channel.start(bench.inbox)
    assert "EAAG" not in str(caught.value)
    await channel.stop()
    bench.fake.refusals.clear()


async def test_before_the_start_nothing_is_acknowledged_or_sent(bench: Bench) -> None:
    await bench.channel.stop()
    value, _ = bench.fake.inbound("ada", {"type": "text", "text": {"body": "hi"}})
    assert await bench.fake.post(bench.fake.delivery(value)) == 503
    with pytest.raises(DeliveryFailed):
        await bench.send()


def test_the_platform_is_registered_with_these_settings() -> None:
    (platform,) = [one for one in PLATFORMS if one.name == "whatsapp"]
    assert platform.settings is WhatsappSettings
    assert json.dumps(WhatsappSettings.model_json_schema())
