"""The Slack adapter against a Slack that is played: real client library, real sockets, both ways in."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

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
from codespar.channels.slack.adapter import SlackChannel
from codespar.channels.slack.settings import SlackSettings
from codespar.domain.messages import Action, Block, FieldLine, NormalizedResponse
from codespar.domain.tasks import Thread
from support.platforms.slack import FakeSlack


class Reception:
    """Commits what it hears once, as the real one does; can be told to fail."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.asked: list[str] = []
        self.failures = 0

    async def hear(self, heard: Heard) -> bool:
        self.asked.append(heard.delivery)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the store is away")
        if any(known.delivery == heard.delivery for known in self.heard):
            return False
        self.heard.append(heard)
        return True


class Stage:
    """A played Slack, the adapter and what it heard."""

    def __init__(self, slack: FakeSlack, channel: SlackChannel, reception: Reception) -> None:
        self.slack = slack
        self.channel = channel
        self.reception = reception
        self.room = Thread(channel="slack", conversation=slack.room)

    async def until(self, found: Callable[[], bool], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not found():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def send(
        self, response: NormalizedResponse, key: str = "k1", thread: Thread | None = None
    ) -> list[str]:
        parts = self.channel.render(response)
        return [
            await self.channel.send(thread or self.room, part, f"{key}/{n}") for n, part in enumerate(parts)
        ]


def made(slack: FakeSlack, folder: Path, **changes: Any) -> SlackChannel:
    environment = {**slack.environment, **changes.pop("environment", {})}
    tools = ChannelTools(clock=lambda: datetime.now(UTC), environment=environment, folder=folder)
    return SlackChannel(SlackSettings(**{**slack.settings, **changes}), tools)


@asynccontextmanager
async def staged(folder: Path, slack: FakeSlack, **changes: Any) -> AsyncIterator[Stage]:
    await slack.start()
    channel, reception = made(slack, folder, **changes), Reception()
    slack.deliver = channel.answer
    try:
        await channel.start(reception)
        yield Stage(slack, channel, reception)
    finally:
        await channel.stop()
        await slack.stop()


@pytest.fixture(params=[False, True], ids=["socket", "http"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path, FakeSlack(http=request.param)) as found:
        yield found


@pytest.fixture
async def over_socket(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path, FakeSlack()) as found:
        yield found


@pytest.fixture
async def over_http(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path, FakeSlack(http=True)) as found:
        yield found


CARD = NormalizedResponse(
    title="Deploy to staging?",
    fields=(FieldLine(name="Commit", value="abc"),),
    actions=(
        Action(label="Approve", command="approve dp-1 & <go>", style="primary"),
        Action(label="Reject", command="reject dp-1", style="danger", asks="Why?"),
    ),
)


# in


async def test_a_mention_is_heard_once_though_slack_tells_it_twice(stage: Stage) -> None:
    """Slack sends a message event and a mention event; both are the same delivery, and the mention is stripped."""
    ts = await stage.slack.say("ada", "fix the <b> & link https://x.example")
    (heard,) = stage.reception.heard
    assert heard.content == "fix the <b> & link https://x.example"
    assert (heard.conversation, heard.sender, heard.sender_name) == (
        stage.slack.room,
        "T0SPAR:U0ADA",
        "Ada Lovelace",
    )
    assert (heard.thread_id, heard.message_id, heard.direct, heard.addressed) == (ts, ts, False, True)
    assert len(stage.reception.asked) == 2
    assert stage.slack.unacknowledged == stage.slack.refusals == []


async def test_a_direct_message_needs_no_mention(stage: Stage) -> None:
    """What is said directly is heard, and answered without a thread."""
    await stage.slack.say("marcus", "status", direct=True)
    (heard,) = stage.reception.heard
    assert (heard.content, heard.direct, heard.thread_id) == ("status", True, None)
    assert heard.conversation == stage.slack.direct("marcus")


async def test_an_answer_in_a_thread_stays_in_its_thread(stage: Stage) -> None:
    """A mention inside a thread names the thread, and what it answers."""
    first = await stage.slack.say("ada", "plan it")
    await stage.slack.say("marcus", "and tests", thread=first)
    heard = stage.reception.heard[-1]
    assert (heard.thread_id, heard.reply_to) == (first, first)


@pytest.mark.parametrize(
    "more",
    [
        {"bot_id": "B1"},
        {"subtype": "bot_message"},
        {"subtype": "message_changed", "hidden": True},
        {"subtype": "message_deleted"},
        {"subtype": "channel_join"},
        {"edited": {"user": "U0ADA", "ts": "1.1"}},
        {"user": "U0BOT"},
    ],
    ids=str,
)
async def test_bots_edits_deletions_and_joins_are_not_heard(over_http: Stage, more: dict[str, Any]) -> None:
    """They are acknowledged and left alone."""
    await over_http.slack.say("ada", "status", **more)
    assert over_http.reception.asked == over_http.slack.unacknowledged == []


async def test_what_names_nobody_in_a_room_is_not_heard(over_http: Stage) -> None:
    """People talk to each other: only what names us is ours."""
    await over_http.slack.say("ada", "status <@U0MARCUS>", mention=False)
    assert over_http.reception.asked == []


async def test_a_button_says_its_command(stage: Stage) -> None:
    """Pressing is heard as the command, whatever signs are in it, by whoever pressed, in the message's thread."""
    (ts,) = await stage.send(CARD)
    await stage.slack.press("ada", stage.slack.seen()[0], "Approve")
    (heard,) = stage.reception.heard
    assert (heard.content, heard.via, heard.sender) == ("approve dp-1 & <go>", "button", "T0SPAR:U0ADA")
    assert (heard.thread_id, heard.reply_to, heard.addressed) == (ts, ts, True)
    assert stage.slack.refusals == []


async def test_a_button_that_asks_opens_a_form(stage: Stage) -> None:
    """The answer comes behind the command; nothing is heard before."""
    (ts,) = await stage.send(CARD)
    await stage.slack.press("marcus", stage.slack.seen()[0], "Reject", answer="not on a <Friday>")
    (heard,) = stage.reception.heard
    assert (heard.content, heard.via) == ("reject dp-1 not on a <Friday>", "form")
    assert (heard.thread_id, heard.conversation) == (ts, stage.slack.room)
    assert stage.slack.refusals == []


async def test_an_empty_answer_sends_the_command_alone(over_http: Stage) -> None:
    """What is asked may be left out, as on platforms without forms."""
    await over_http.send(CARD)
    await over_http.slack.press("marcus", over_http.slack.seen()[0], "Reject", answer="")
    assert over_http.reception.heard[0].content == "reject dp-1"


async def test_two_presses_are_two_deliveries(over_http: Stage) -> None:
    """Two people press the same button: both are heard."""
    await over_http.send(CARD)
    for person in ("ada", "marcus"):
        await over_http.slack.press(person, over_http.slack.seen()[0], "Approve")
    assert [heard.sender for heard in over_http.reception.heard] == ["T0SPAR:U0ADA", "T0SPAR:U0MARCUS"]


async def test_a_slash_command_is_heard(stage: Stage) -> None:
    """`/codespar status` says status, addressed to us."""
    await stage.slack.slash("ada", "deploy staging > now")
    (heard,) = stage.reception.heard
    assert (heard.content, heard.via, heard.thread_id) == ("deploy staging > now", "command", None)


async def test_a_slash_command_between_two_people_is_answered_directly(over_http: Stage) -> None:
    """We are not in that conversation: the answer goes to ours with the one who asked."""
    over_http.slack.direct("ada")
    await over_http.slack.slash("ada", "status", channel="D0SOMEBODY")
    assert over_http.reception.heard[0].conversation == over_http.slack.direct("ada")


async def test_what_was_not_committed_is_not_acknowledged_and_comes_again(stage: Stage) -> None:
    """The store fails once: Slack brings the same delivery again, and it is heard."""
    stage.slack.hurried = [0.3]
    stage.reception.failures = 1
    await stage.slack.say("ada", "status", direct=True)
    assert len(stage.reception.asked) == 2
    assert len(set(stage.reception.asked)) == len(stage.reception.heard) == 1


async def test_what_is_never_committed_is_never_acknowledged(stage: Stage) -> None:
    """Slack is told of a failure each time, and not once that all is well."""
    stage.slack.ack_seconds, stage.slack.retries, stage.reception.failures = 0.2, 1, 9
    await stage.slack.say("ada", "status", direct=True)
    assert stage.slack.unacknowledged == ["events_api event_callback"]


async def test_a_name_that_cannot_be_had_is_the_id(over_http: Stage) -> None:
    """A message is heard whether or not Slack tells the person's name."""
    over_http.slack.no_names = True
    await over_http.slack.say("ada", "status")
    assert over_http.reception.heard[0].sender_name == "U0ADA"


async def test_messages_of_a_conversation_keep_their_order(over_socket: Stage) -> None:
    """The first message waits for a name; the second, behind it, does not overtake it."""
    over_socket.slack.slow_names = [0.2]
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(over_socket.slack.say("ada", f"step {number}", direct=True))
    assert [heard.content for heard in over_socket.reception.heard] == [
        f"step {number}" for number in range(5)
    ]


async def test_an_attachment_is_offered_and_fetched_with_our_token(over_http: Stage) -> None:
    """The file is named, and its content comes from Slack, never more than asked for."""
    await over_http.slack.say("ada", "look", files={"trace.txt": b"x" * 1000})
    (offered,) = over_http.reception.heard[0].offered
    assert (offered.name, offered.size) == ("trace.txt", 1000)
    assert await over_http.channel.fetch(offered.ref, 1000) == b"x" * 1000
    with pytest.raises(AttachmentRefused):
        await over_http.channel.fetch(offered.ref, 999)
    file = offered.ref.rpartition("/")[2]
    assert await over_http.channel.fetch(f"T0SPAR {file}", 1000) == b"x" * 1000


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/f",
        "http://files.slack.com/f",
        "https://files.slack.com.evil.example/f",
        "https://files.slack.com@evil.example/f",
        "https://files.slack.com:8443/f",
        "file:///etc/passwd",
        "https://evilslack.com/f",
    ],
)
async def test_the_token_goes_to_slack_only(over_http: Stage, address: str) -> None:
    """An attachment anywhere else is refused before anything is asked."""
    with pytest.raises(AttachmentRefused, match="does not lie at Slack"):
        await over_http.channel.fetch(f"T0SPAR {address}", 1000)


# requests


async def test_slack_verifies_the_address(over_http: Stage) -> None:
    """A signed url_verification is answered with its challenge."""
    body = json.dumps({"type": "url_verification", "challenge": "c-1", "token": "t"}).encode()
    answer = await over_http.channel.answer(over_http.slack.signed(body, "application/json"))
    assert (answer.status, json.loads(answer.body)) == (200, {"challenge": "c-1"})


async def test_forged_stale_and_oversized_requests_are_refused(over_http: Stage) -> None:
    """Nothing of them is heard, whatever is wrong with them."""
    slack, answer = over_http.slack, over_http.channel.answer
    await slack.say("ada", "status", direct=True)
    genuine = slack.requests[-1]
    over_http.reception.asked.clear()

    def with_headers(**changes: str) -> HttpRequest:
        return genuine.evolve(
            headers=genuine.headers | {f"x-slack-{k.replace('_', '-')}": v for k, v in changes.items()}
        )

    signature = genuine.headers["x-slack-signature"]
    refused = [
        genuine.evolve(body=genuine.body + b" "),
        with_headers(signature=signature[:-1] + ("0" if signature[-1] != "0" else "1")),
        with_headers(signature="v0=ÄÖÜ"),
        with_headers(signature=""),
        with_headers(request_timestamp="soon"),
        with_headers(request_timestamp="-1"),
        with_headers(request_timestamp="9" * 12),
        genuine.evolve(headers={"content-type": "application/json"}),
        slack.signed(genuine.body, "application/json", datetime.now(UTC) - timedelta(minutes=6)),
        slack.signed(genuine.body, "application/json", datetime.now(UTC) + timedelta(minutes=6)),
        genuine.evolve(body=b"\xff\xfe"),
    ]
    assert [(await answer(request)).status for request in refused] == [401] * len(refused)
    assert (await answer(slack.signed(b"x" * 3_000_000, "application/json"))).status == 413
    assert (await answer(slack.signed(b"[1]", "application/json"))).status == 400
    assert (await answer(slack.signed(b"{", "application/json"))).status == 400
    assert (await answer(genuine.evolve(path="elsewhere"))).status == 404
    assert (await answer(genuine.evolve(path="install", method="GET"))).status == 404
    assert (await answer(genuine.evolve(method="GET"))).status == 405
    assert over_http.reception.asked == []


async def test_a_replayed_request_is_the_same_delivery(over_http: Stage) -> None:
    """A copy of a genuine request, sent within the window, changes nothing."""
    await over_http.slack.say("ada", "status", direct=True)
    await over_http.slack.slash("ada", "status")
    for request in list(over_http.slack.requests):
        assert (await over_http.channel.answer(request)).status == 200
    assert (len(over_http.reception.asked), len(over_http.reception.heard)) == (4, 2)


async def test_a_workspace_without_the_app_is_not_heard(over_http: Stage) -> None:
    """Even when its request is genuine."""
    event = {"type": "app_mention", "user": "U9", "channel": "C9", "ts": "1.1", "text": "status"}
    assert await over_http.slack.emit_event(event, team="T0STRANGER")
    assert over_http.reception.asked == []


async def test_over_socket_mode_there_is_no_door_for_requests(over_socket: Stage) -> None:
    """Where requests are not expected, none is taken."""
    request = over_socket.slack.signed(b"{}", "application/json")
    assert (await over_socket.channel.answer(request)).status == 404


# connections


async def test_a_lost_connection_is_made_again(tmp_path: Path) -> None:
    """The connection breaks without a word; what is said then is heard over the next."""
    async with staged(tmp_path, FakeSlack(), ping_seconds=0.2) as stage:
        stage.slack.drop()
        await stage.until(lambda: stage.slack.calls["apps.connections.open"] >= 2)
        await stage.slack.say("ada", "status", direct=True)
        assert len(stage.reception.heard) == 1


async def test_slack_can_ask_for_a_new_connection(over_socket: Stage) -> None:
    """A refresh makes one new connection, and nothing is lost over it."""
    await over_socket.slack.refresh()
    await over_socket.slack.say("ada", "status", direct=True)
    await over_socket.until(lambda: over_socket.slack.calls["apps.connections.open"] == 2)
    await over_socket.until(lambda: over_socket.slack.connections == 1)
    assert len(over_socket.reception.heard) == 1


async def test_a_slack_that_is_away_for_a_while_is_found_again(tmp_path: Path) -> None:
    """Every connection address is refused for a time: a new client is made in the end."""
    async with staged(tmp_path, FakeSlack(), ping_seconds=0.1) as stage:
        stage.slack.refuse_links = True
        stage.slack.drop()
        await stage.until(lambda: stage.slack.calls["apps.connections.open"] >= 3)
        stage.slack.refuse_links = False
        await stage.until(lambda: stage.slack.connections > 0)
        await stage.slack.say("ada", "status", direct=True)
        assert len(stage.reception.heard) == 1


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("CODESPAR_SLACK_BOT_TOKEN", "xoxb-wrong", "CODESPAR_SLACK_BOT_TOKEN"),
        ("CODESPAR_SLACK_APP_TOKEN", "xapp-wrong", "CODESPAR_SLACK_APP_TOKEN"),
    ],
)
async def test_wrong_tokens_are_named_at_the_start(
    tmp_path: Path, variable: str, value: str, said: str
) -> None:
    """Which variable holds the wrong one is said, the token itself is not."""
    slack = FakeSlack()
    await slack.start()
    channel = made(slack, tmp_path, environment={variable: value})
    with pytest.raises(NotConnected, match=said) as refused:
        await channel.start(Reception())
    assert value not in str(refused.value)
    await slack.stop()


@pytest.mark.parametrize("missing", ["CODESPAR_SLACK_BOT_TOKEN", "CODESPAR_SLACK_APP_TOKEN"])
def test_a_missing_secret_is_named_when_the_adapter_is_made(tmp_path: Path, missing: str) -> None:
    """Before any connection is tried."""
    with pytest.raises(NotConnected, match=missing):
        made(FakeSlack(), tmp_path, environment={missing: ""})


# out


async def test_a_card_stands_in_the_room_as_it_is_meant(stage: Stage) -> None:
    """Text and buttons, in the thread of the request."""
    asked = await stage.slack.say("ada", "deploy")
    await stage.send(CARD, thread=Thread(channel="slack", conversation=stage.slack.room, thread_id=asked))
    (shown,) = stage.slack.seen()
    assert (shown.text, shown.buttons, shown.thread) == (
        "Deploy to staging?\nCommit: abc",
        ["Approve", "Reject"],
        asked,
    )
    assert stage.slack.refusals == []


@pytest.mark.parametrize("conversation", ["C0ROOM", "T0SPAR:C0ROOM"])
async def test_a_channel_may_be_named_without_its_workspace(over_http: Stage, conversation: str) -> None:
    """As long as there is one workspace."""
    await over_http.send(CARD, thread=Thread(channel="slack", conversation=conversation))
    assert len(over_http.slack.seen()) == 1


async def test_a_person_is_written_to_directly(over_http: Stage) -> None:
    """A person's id is a conversation: ours with them, which can be edited like any other."""
    thread = Thread(channel="slack", conversation=over_http.slack.identity("ada"))
    (ts,) = await over_http.send(CARD, thread=thread)
    await over_http.channel.edit(thread, ts, over_http.channel.render(NormalizedResponse(title="Later"))[0])
    assert [shown.text for shown in over_http.slack.seen("direct:ada")] == ["Later"]


@pytest.mark.parametrize("conversation", ["T0SPAR:C0NOWHERE", "T0NOBODY:C0ROOM", "T0SPAR:#general", ""])
async def test_a_conversation_that_is_not_there_is_refused_for_good(
    over_http: Stage, conversation: str
) -> None:
    """And the error says what to do."""
    with pytest.raises(DeliveryRefused):
        await over_http.send(CARD, thread=Thread(channel="slack", conversation=conversation))


async def test_a_message_is_edited_in_place(over_http: Stage) -> None:
    """Its buttons go with it; an edit that changes nothing is fine; a plain one takes the blocks away."""
    (ts,) = await over_http.send(CARD)
    done = NormalizedResponse(title="✅ Deployed")
    for _ in range(2):
        await over_http.channel.edit(over_http.room, ts, over_http.channel.render(done)[0])
    (shown,) = over_http.slack.seen()
    assert (shown.text, shown.buttons, shown.edits) == ("✅ Deployed", [], 2)
    await over_http.channel.edit(over_http.room, ts, over_http.channel.render(done, plain=True)[0])
    assert over_http.slack.seen()[0].text == "✅ Deployed"
    assert over_http.slack.refusals == []


async def test_a_message_that_is_gone_says_so(over_http: Stage) -> None:
    """Editing a deleted message is MessageGone; deleting it again is no error."""
    (ts,) = await over_http.send(CARD)
    await over_http.channel.delete(over_http.room, ts)
    assert over_http.slack.seen() == []
    await over_http.channel.delete(over_http.room, ts)
    with pytest.raises(MessageGone):
        await over_http.channel.edit(over_http.room, ts, over_http.channel.render(CARD)[0])


async def test_slack_says_how_long_to_wait(over_http: Stage) -> None:
    """429: tried once, and its Retry-After is handed on; nothing arrived."""
    over_http.slack.fail_next(1, status=429, retry_after=7)
    with pytest.raises(DeliveryFailed) as failed:
        await over_http.send(CARD)
    assert (failed.value.retry_after, failed.value.arrived_perhaps) == (7.0, False)
    assert (over_http.slack.calls["chat.postMessage"], over_http.slack.seen()) == (1, [])


async def test_a_slack_in_trouble_may_have_taken_the_message(over_http: Stage) -> None:
    """A 500 is tried by nobody here, and says that the message may be there."""
    over_http.slack.fail_next(1, status=503)
    with pytest.raises(DeliveryFailed) as failed:
        await over_http.send(CARD)
    assert failed.value.arrived_perhaps
    assert over_http.slack.calls["chat.postMessage"] == 1


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_message_whose_answer_was_lost_is_found_again(over_http: Stage, in_thread: bool) -> None:
    """By its key, in the room and in a thread, among many others; another key is not there."""
    asked = await over_http.slack.say("ada", "deploy")
    thread = over_http.room.evolve(thread_id=asked if in_thread else None)
    began = datetime.now(UTC)
    over_http.slack.lose_next_answer()
    with pytest.raises(DeliveryFailed) as failed:
        await over_http.send(CARD, key="lost", thread=thread)
    assert failed.value.arrived_perhaps
    for number in range(230):
        over_http.slack._post("C0ROOM", "U0ADA", f"talk {number}", asked if in_thread else None)
    assert await over_http.channel.find(thread, "lost/0", began) == over_http.slack.seen()[0].id
    assert await over_http.channel.find(thread, "other/0", began) is None
    assert await over_http.channel.find(thread, "lost/0", datetime.now(UTC) + timedelta(hours=1)) is None


async def test_a_message_that_slack_refuses_is_refused_as_content(over_http: Stage) -> None:
    """So that it is tried as plain text."""
    with pytest.raises(ContentRefused, match="invalid_blocks"):
        await over_http.channel.send(
            over_http.room, Part(payload={"blocks": [{"type": "odd"}]}, text="x"), "k"
        )


async def test_a_file_follows_its_message(over_http: Stage) -> None:
    """A long diff: the message with its beginning, and the whole as a file in the same thread."""
    asked = await over_http.slack.say("ada", "diff")
    diff = "+x\n" * 17_000
    thread = over_http.room.evolve(thread_id=asked)
    await over_http.send(
        NormalizedResponse(title="Diff", blocks=(Block(language="diff", text=diff),)), thread=thread
    )
    (shown,) = over_http.slack.seen()
    assert (shown.files, shown.thread) == ({"change-1.diff": diff.encode()}, asked)
    assert over_http.slack.refusals == []


async def test_a_file_whose_message_arrived_is_not_lost(over_http: Stage) -> None:
    """The connection broke before the file was shown: finding the message shows it, once."""
    part = Part(payload={"text": "see the file"}, text="", files=(File(name="a.txt", content=b"all of it"),))
    began = datetime.now(UTC)
    over_http.slack.lose_next_answer("chat.postMessage")
    with pytest.raises(DeliveryFailed):
        await over_http.channel.send(over_http.room, part, "k")
    assert over_http.slack.seen()[0].files == {}
    for _ in range(2):
        assert await over_http.channel.find(over_http.room, "k", began) == over_http.slack.seen()[0].id
    assert [shown.files for shown in over_http.slack.seen()] == [{"a.txt": b"all of it"}]
    assert over_http.slack.calls["files.completeUploadExternal"] == 1


async def test_the_same_files_are_not_shown_twice_by_edits(over_http: Stage) -> None:
    """An edit that is tried again brings no second copy; a new file is shown."""
    (ts,) = await over_http.send(NormalizedResponse(title="Working"))
    for content in (b"one", b"one", b"two"):
        part = Part(payload={"text": "done"}, text="", files=(File(name="a.txt", content=content),))
        await over_http.channel.edit(over_http.room, ts, part)
    assert over_http.slack.calls["files.completeUploadExternal"] == 2


async def test_an_unreachable_slack_has_taken_nothing(tmp_path: Path) -> None:
    """Where no connection was made, the message cannot be there."""
    async with staged(tmp_path, FakeSlack(http=True)) as stage:
        await stage.slack.stop()
        with pytest.raises(DeliveryFailed):
            await stage.send(CARD)  # over a connection that was open: who knows
        with pytest.raises(DeliveryFailed) as failed:
            await stage.send(CARD)
        assert not failed.value.arrived_perhaps


# several workspaces

OAUTH = {
    "CODESPAR_SLACK_BOT_TOKEN": "",
    "CODESPAR_SLACK_CLIENT_ID": "100.200",
    "CODESPAR_SLACK_CLIENT_SECRET": "fake-client-secret",
}


def page(path: str, cookie: str = "", **query: str) -> HttpRequest:
    return HttpRequest(method="GET", path=path, query=query, headers={"cookie": cookie}, body=b"")


async def installed(channel: SlackChannel, team: str) -> int:
    """A browser goes through the whole flow; the status of its last page."""
    first = await channel.answer(page("install"))
    assert first.status == 302
    state = parse_qs(urlsplit(first.headers["location"]).query)["state"][0]
    cookie = first.headers["set-cookie"].partition(";")[0]
    return (await channel.answer(page("oauth_redirect", cookie, state=state, code=f"code-{team}"))).status


async def test_workspaces_install_the_app_and_are_served_with_their_own_tokens(tmp_path: Path) -> None:
    """Two workspaces: each is heard and written to as itself, also after a restart; their files are ours alone."""
    async with staged(tmp_path, FakeSlack(http=True), environment=OAUTH) as stage:
        assert [await installed(stage.channel, team) for team in ("T0SPAR", "T0OTHER")] == [200, 200]
        await stage.slack.say("ada", "status")
        assert stage.reception.heard[0].conversation == "T0SPAR:C0ROOM"
        with pytest.raises(DeliveryRefused, match="T024BE7LD"):
            await stage.send(CARD, thread=Thread(channel="slack", conversation="C0ROOM"))
        kept = sorted((tmp_path / "workspaces").iterdir())
        assert [file.name for file in kept] == ["T0OTHER.json", "T0SPAR.json"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in kept} == {0o600}

        again = made(stage.slack, tmp_path, environment=OAUTH)
        await again.start(stage.reception)
        part = again.render(CARD)[0]
        await again.send(Thread(channel="slack", conversation="T0OTHER:C0ELSE"), part, "k")
        assert len(stage.slack.seen("T0OTHER:C0ELSE")) == 1
        await again.stop()


async def test_an_installation_needs_the_browser_that_began_it(tmp_path: Path) -> None:
    """A strange state, another browser, a used state and a wrong code install nothing."""
    async with staged(tmp_path, FakeSlack(http=True), environment=OAUTH) as stage:
        first = await stage.channel.answer(page("install"))
        state = parse_qs(urlsplit(first.headers["location"]).query)["state"][0]
        cookie = first.headers["set-cookie"].partition(";")[0]
        forged = f"{state[:-1]}{'0' if state[-1] != '0' else '1'}"
        tries = [
            page("oauth_redirect", "", state=state, code="code-T0SPAR"),
            page("oauth_redirect", f"slack-app-oauth-state={forged}", state=forged, code="code-T0SPAR"),
            page("oauth_redirect", cookie, state=state, code="wrong"),
            page("oauth_redirect", cookie, state=state, code="code-T0SPAR"),
            page("oauth_redirect", error="<script>alert(1)</script>"),
        ]
        answers = [await stage.channel.answer(request) for request in tries]
        assert [answer.status for answer in answers] == [400, 401, 401, 401, 400]
        assert b"<script>" not in answers[-1].body
        assert not (tmp_path / "workspaces").exists()


async def test_only_the_workspaces_that_are_named_may_install(tmp_path: Path) -> None:
    """A stranger's workspace is turned away with a reason."""
    async with staged(tmp_path, FakeSlack(http=True), environment=OAUTH, workspaces=("T0SPAR",)) as stage:
        assert await installed(stage.channel, "T0OTHER") == 500
        assert await installed(stage.channel, "T0SPAR") == 200
        assert [file.name for file in (tmp_path / "workspaces").iterdir()] == ["T0SPAR.json"]


async def test_a_workspace_that_takes_the_app_away_is_forgotten(tmp_path: Path) -> None:
    """Its token is gone from the disk, and nothing more is heard of it."""
    async with staged(tmp_path, FakeSlack(http=True), environment=OAUTH) as stage:
        await installed(stage.channel, "T0SPAR")
        await stage.slack.emit_event({"type": "tokens_revoked", "tokens": {"oauth": ["U0ADA"]}})
        await stage.slack.say("ada", "status")
        assert len(stage.reception.heard) == 1
        await stage.slack.emit_event({"type": "app_uninstalled"})
        await stage.slack.say("ada", "status")
        assert (len(stage.reception.heard), list((tmp_path / "workspaces").iterdir())) == (1, [])


async def test_an_interaction_that_is_not_ours_is_left_alone(over_http: Stage) -> None:
    """Strange buttons, other commands and unknown payloads are acknowledged and not heard."""
    strange = [
        {
            "type": "block_actions",
            "team": {"id": "T0SPAR"},
            "user": {"id": "U0ADA"},
            "actions": [{"action_id": "x"}],
        },
        {"type": "view_closed", "team": {"id": "T0SPAR"}},
        {"type": "shortcut", "team": {"id": "T0SPAR"}},
    ]
    bodies = [urlencode({"payload": json.dumps(body)}).encode() for body in strange]
    bodies.append(urlencode({"command": "/other", "team_id": "T0SPAR", "text": "x"}).encode())
    for body in bodies:
        request = over_http.slack.signed(body, "application/x-www-form-urlencoded")
        assert (await over_http.channel.answer(request)).status == 200
    assert over_http.reception.asked == []
