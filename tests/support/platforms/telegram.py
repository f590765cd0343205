"""Telegram, played: the Bot API over HTTP with long polling and webhooks, and the people of two groups. It is ours; nobody else's is there.

What it takes as a message is in `telegram_rules`. It is stricter than Telegram in one thing: a parameter that a method does not have is
refused. It does not play flood control by itself (`fail_next` does), albums, or the rights of a group's members.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from codespar.channels.base import HttpAnswer, HttpRequest
from support.platforms.base import Shown
from support.platforms.telegram_rules import (
    JOINER,
    METHODS,
    Refused,
    check_message,
    found_entities,
    pings,
    read,
)

__all__ = ["FakeTelegram", "check_message", "pings"]
BOT, USERNAME = 700100, "codespar_bot"
TOKEN = f"{BOT}:played-by-the-tests"
SECRET = "a-secret-of-the-tests"
ROOM, FORUM, TOPIC = -1001234567890, -1009876543210, 7
BEGINNING = 1_795_000_000  # the date of the first message; each is a second later


@dataclass
class Said:
    """A message of anybody."""

    id: int
    chat: int
    topic: int | None
    author: dict[str, Any]
    text: str
    entities: list[dict[str, Any]]
    date: int
    reply_to: Said | None = None
    markup: dict[str, Any] | None = None
    document: dict[str, Any] | None = None
    edits: int = 0
    gone: bool = False
    more: dict[str, Any] = field(default_factory=dict[str, Any])

    def wire(self, *, nested: bool = False) -> dict[str, Any]:
        kind = "private" if self.chat > 0 else "supergroup"
        told: dict[str, Any] = {
            "message_id": self.id,
            "date": self.date,
            "chat": {"id": self.chat, "type": kind},
        }
        told |= {"from": self.author} | self.more
        names = ("caption", "caption_entities") if self.document else ("text", "entities")
        told |= {names[0]: self.text} if self.text else {}
        told |= {names[1]: self.entities} if self.entities else {}
        told |= {"document": self.document} if self.document else {}
        told |= {"message_thread_id": self.topic, "is_topic_message": True} if self.topic else {}
        told |= {"reply_markup": self.markup} if self.markup and "inline_keyboard" in self.markup else {}
        if self.reply_to is not None and not nested:
            told["reply_to_message"] = self.reply_to.wire(nested=True)
        return told


class FakeTelegram:
    name = "telegram"
    room = str(ROOM)
    forum = f"{FORUM}/{TOPIC}"

    def __init__(self, *, webhook: str | None = None) -> None:
        self.settings: dict[str, Any] = {"poll_seconds": 5} | ({"webhook": webhook} if webhook else {})
        self.environment = {"CODESPAR_TELEGRAM_TOKEN": TOKEN, "CODESPAR_TELEGRAM_SECRET": SECRET}
        self.refusals: list[str] = []
        self.deliver: Callable[[HttpRequest], Awaitable[HttpAnswer]] | None = None
        self.messages: list[Said] = []
        self.toasts: list[str] = []  # answers to button presses
        self.calls: list[str] = []  # methods called, getUpdates left out
        self.offsets: list[int] = []  # that getUpdates asked for, in order
        self.blocked: set[int] = set()  # people who blocked the bot
        self.failing: dict[str, list[Refused]] = {}  # by method: the next answers
        self.files: dict[str, bytes] = {}
        self.waiting: list[dict[str, Any]] = []  # updates that were not acknowledged
        self.webhook: dict[str, Any] = {}
        self._people: dict[str, int] = {}
        self._last: dict[int, int] = {}
        self._updates = 500_000
        self._presses = 0
        self._losing = False
        self._news = asyncio.Event()
        self._poll: asyncio.Future[None] | None = None
        self._pushing: asyncio.Task[None] | None = None
        self._runner: web.AppRunner | None = None
        for person in ("ada", "marcus"):
            self.identity(person)

    async def start(self) -> None:
        application = web.Application(client_max_size=60_000_000)
        application.router.add_route("*", "/bot{token}/{method}", self._called)
        application.router.add_get("/file/bot{token}/{path:.+}", self._file)
        self._runner = web.AppRunner(application, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.settings["api_url"] = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._pushing:
            self._pushing.cancel()
        if self._poll is not None and not self._poll.done():
            self._poll.cancel()
        if self._runner:
            await self._runner.cleanup()

    def identity(self, person: str) -> str:
        return str(self._people.setdefault(person, 1001 + len(self._people)))

    def user(self, person: str) -> dict[str, Any]:
        return {
            "id": int(self.identity(person)),
            "is_bot": False,
            "first_name": person.capitalize(),
            "username": f"{person}_x",
        }

    # people

    async def say(self, person: str, text: str, *, direct: bool = False, thread: str | None = None) -> str:
        chat = int(self.identity(person)) if direct else ROOM
        answered = self._answered(chat, thread) if thread else None
        return self.post(person, text if direct else f"@{USERNAME} {text}", chat, reply_to=answered)

    def post(
        self,
        person: str,
        text: str,
        chat: int = ROOM,
        *,
        topic: int | None = None,
        reply_to: Said | None = None,
        **more: Any,
    ) -> str:
        """Exactly this text, as a person writes it, with the entities Telegram finds in it. `more` goes into the message as it is."""
        said = self._add(
            chat, self.user(person) | more.pop("author", {}), text, found_entities(text, []), topic, reply_to
        )
        said.document, said.more = more.pop("document", None), more
        self.emit({"message": said.wire()})
        return str(said.id)

    async def press(self, person: str, shown: Shown, label: str, *, answer: str | None = None) -> None:
        chat = int(shown.conversation.split("/")[0])
        message = self.message(chat, int(shown.id))
        rows = (message.markup or {}).get("inline_keyboard", [])
        data = next(button["callback_data"] for row in rows for button in row if button["text"] == label)
        before = len(self.messages)
        self._presses += 1
        press = {
            "id": f"press-{self._presses}",
            "from": self.user(person),
            "chat_instance": "1",
            "data": data,
        }
        self.emit({"callback_query": press | {"message": message.wire()}})
        if answer is None:
            return
        deadline = asyncio.get_running_loop().time() + 60
        while asyncio.get_running_loop().time() < deadline:
            for said in self.messages[before:]:
                if said.chat == chat and "force_reply" in (said.markup or {}):
                    self.post(person, answer, chat, topic=said.topic, reply_to=said)
                    return
            await asyncio.sleep(0.01)
        raise AssertionError(f"nothing asked {person} anything after pressing {label}")

    def seen(self, conversation: str | None = None) -> list[Shown]:
        where = conversation or self.room
        if where.startswith("direct:"):
            where = self.identity(where.removeprefix("direct:"))
        ours = [
            one for one in self.messages if one.author["id"] == BOT and not one.gone and _where(one) == where
        ]
        return [self._shown(one) for one in ours]

    def _shown(self, said: Said) -> Shown:
        rows = (said.markup or {}).get("inline_keyboard", [])
        return Shown(
            id=str(said.id),
            conversation=_where(said),
            thread=str(said.reply_to.id) if said.reply_to else None,
            text=said.text.replace(JOINER, ""),
            buttons=[button["text"] for row in rows for button in row],
            files={said.document["file_name"]: self.files[said.document["file_id"]]} if said.document else {},
            edits=said.edits,
        )

    def fail_next(self, times: int, *, status: int = 500, retry_after: float | None = None) -> None:
        parameters = {"retry_after": max(1, round(retry_after))} if retry_after is not None else {}
        said = {429: f"Too Many Requests: retry after {retry_after}", 403: "Forbidden: bot was kicked"}
        for method in ("sendMessage", "sendDocument"):
            self.failing[method] = [
                Refused(said.get(status, "Internal Server Error"), status, **parameters)
            ] * times

    def lose_next_answer(self) -> None:
        self._losing = True

    def message(self, chat: int, id: int) -> Said:
        found = [one for one in self.messages if one.chat == chat and one.id == id and not one.gone]
        if not found:
            raise Refused("Bad Request: message to be replied not found")
        return found[0]

    def _answered(self, chat: int, thread: str) -> Said:
        """In a thread people answer what we said last in it."""
        ours = [one for one in self.messages if one.chat == chat and one.author["id"] == BOT and not one.gone]
        said = [one for one in ours if one.reply_to and str(one.reply_to.id) == thread]
        return said[-1] if said else self.message(chat, int(thread))

    def _add(
        self,
        chat: int,
        author: dict[str, Any],
        text: str,
        entities: list[dict[str, Any]],
        topic: int | None,
        reply_to: Said | None,
    ) -> Said:
        self._last[chat] = self._last.get(chat, 10) + 1
        date = BEGINNING + len(self.messages)
        said = Said(self._last[chat], chat, topic, author, text, entities, date, reply_to)
        self.messages.append(said)
        return said

    def emit(self, update: dict[str, Any]) -> int:
        """An update for the bot: it waits until it is acknowledged."""
        self._updates += 1
        self.waiting.append({"update_id": self._updates} | update)
        self._news.set()
        if self.webhook and self.deliver and (self._pushing is None or self._pushing.done()):
            self._pushing = asyncio.create_task(self._push(self.deliver))
        return self._updates

    async def _push(self, deliver: Callable[[HttpRequest], Awaitable[HttpAnswer]]) -> None:
        while self.waiting:
            body = json.dumps(self.waiting[0]).encode()
            headers = {
                "content-type": "application/json",
                "x-telegram-bot-api-secret-token": self.webhook["secret_token"],
            }
            answer = await deliver(HttpRequest(method="POST", path="webhook", headers=headers, body=body))
            if 200 <= answer.status < 300:
                self.waiting.pop(0)
            else:
                await asyncio.sleep(0.05)

    # the Bot API

    async def _called(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        if method != "getUpdates":
            self.calls.append(method)
        try:
            if request.match_info["token"] != TOKEN:
                raise Refused("Unauthorized", 401)
            if method not in METHODS:
                raise Refused("Not Found: method not found", 404)
            if self.failing.get(method):
                planned = self.failing[method].pop(0)
                return _failed(planned)
            given, files = await _parameters(request)
            if unknown := set(given) - METHODS[method] - set(files):
                raise Refused(f"Bad Request: {method} has no {sorted(unknown)}")
            result = await getattr(self, f"_{method}")(given, files)
        except Refused as refused:
            if request.transport is not None:
                self.refusals.append(f"{method}: {refused.description}")
            return _failed(refused)
        if self._losing and method.startswith("send"):
            self._losing = False
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"ok": True, "result": result})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        content = self.files.get(request.match_info["path"].rpartition("/")[2])
        if request.match_info["token"] != TOKEN or content is None:
            return web.json_response({"ok": False, "error_code": 404, "description": "Not Found"}, status=404)
        return web.Response(body=content)

    async def _getMe(self, given: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:
        return {"id": BOT, "is_bot": True, "first_name": "CodeSpar", "username": USERNAME}

    async def _getChat(self, given: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:
        return {"id": self._chat(given), "type": "private" if self._chat(given) > 0 else "supergroup"}

    async def _setWebhook(self, given: dict[str, Any], files: dict[str, Any]) -> bool:
        if not re.fullmatch(r"https://[^/\s:]+(:(443|80|88|8443))?(/\S*)?", given.get("url", "")):
            raise Refused("Bad Request: bad webhook: an HTTPS URL must be provided for webhook")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", given.get("secret_token", "")):
            raise Refused("Bad Request: secret token contains unallowed characters")
        self.webhook = given
        return True

    async def _deleteWebhook(self, given: dict[str, Any], files: dict[str, Any]) -> bool:
        self.webhook = {}
        return True

    async def _getUpdates(self, given: dict[str, Any], files: dict[str, Any]) -> list[dict[str, Any]]:
        if self.webhook:
            raise Refused(
                "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first",
                409,
            )
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)
        if "offset" in given:
            self.offsets.append(int(given["offset"]))
            self.waiting = [one for one in self.waiting if one["update_id"] >= int(given["offset"])]
        ended = self._poll = asyncio.get_running_loop().create_future()
        until = asyncio.get_running_loop().time() + int(given.get("timeout", 0))
        while not self.waiting and (left := until - asyncio.get_running_loop().time()) > 0:
            self._news.clear()
            news = asyncio.ensure_future(self._news.wait())
            await asyncio.wait([news, ended], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
            if ended.done():
                raise Refused(
                    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
                    409,
                )
        return self.waiting[: int(given.get("limit", 100))]

    async def _sendMessage(self, given: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:
        return self._sent(given, None)

    async def _sendDocument(self, given: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:
        return self._sent(given, self._stored(given["document"], files))

    def _stored(self, reference: str, files: dict[str, Any]) -> dict[str, Any]:
        name, content = files[reference.removeprefix("attach://")]
        if not content:
            raise Refused("Bad Request: file must be non-empty")
        if not re.fullmatch(r"[^\x00-\x1f\"/\\]{1,255}", name):
            raise Refused("Bad Request: wrong file name")
        id = f"file{len(self.files) + 1}"
        self.files[id] = content
        return {"file_id": id, "file_unique_id": id, "file_name": name, "file_size": len(content)}

    def _sent(self, given: dict[str, Any], document: dict[str, Any] | None) -> dict[str, Any]:
        chat = self._chat(given)
        shape = {name: given[name] for name in given if name not in ("chat_id", "document")}
        self._check({**shape, **({} if document is None else {"caption": given.get("caption", "")})})
        topic = int(given["message_thread_id"]) if "message_thread_id" in given else None
        if topic is not None and (chat, topic) != (FORUM, TOPIC):
            raise Refused("Bad Request: message thread not found")
        answers = given.get("reply_parameters", {})
        try:
            reply_to = self.message(chat, answers["message_id"]) if answers else None
        except Refused:
            if not answers.get("allow_sending_without_reply"):
                raise
            reply_to = None
        text, entities = read(given)
        bot = {"id": BOT, "is_bot": True, "first_name": "CodeSpar", "username": USERNAME}
        said = self._add(chat, bot, text, entities, topic, reply_to)
        said.markup, said.document = given.get("reply_markup"), document
        return said.wire()

    def _check(self, payload: dict[str, Any]) -> None:
        if wrong := check_message(payload):
            raise Refused(wrong[0])

    def _chat(self, given: dict[str, Any]) -> int:
        chat = int(given["chat_id"])
        if chat in self.blocked:
            raise Refused("Forbidden: bot was blocked by the user", 403)
        if chat not in (ROOM, FORUM, *self._people.values()):
            raise Refused("Bad Request: chat not found")
        return chat

    def _ours(self, given: dict[str, Any], act: str) -> Said:
        try:
            said = self.message(self._chat(given), int(given["message_id"]))
        except Refused as refused:
            raise (
                Refused(f"Bad Request: message to {act} not found")
                if "replied" in refused.description
                else refused
            ) from None
        if said.author["id"] != BOT:
            raise Refused(f"Bad Request: message can't be {act}ed")
        return said

    async def _editMessageText(self, given: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:
        said = self._ours(given, "edit")
        self._check({name: given[name] for name in given if name not in ("chat_id", "message_id")})
        if said.document is not None:
            raise Refused("Bad Request: there is no text in the message to edit")
        return self._edited(said, given, read(given))

    async def _editMessageMedia(self, given: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:
        said, media = self._ours(given, "edit"), given["media"]
        if media["type"] != "document" or set(media) - {"type", "media", "caption", "parse_mode"}:
            raise Refused("Bad Request: can't parse InputMedia")
        self._check({name: media[name] for name in ("caption", "parse_mode") if name in media})
        said.document = self._stored(media["media"], files)
        return self._edited(said, given, read(media))

    def _edited(
        self, said: Said, given: dict[str, Any], now: tuple[str, list[dict[str, Any]]]
    ) -> dict[str, Any]:
        if (said.text, said.entities, said.markup) == (*now, given.get("reply_markup")) and "text" in given:
            raise Refused(
                "Bad Request: message is not modified: specified new message content and reply markup are exactly the same"
            )
        (said.text, said.entities), said.markup, said.edits = now, given.get("reply_markup"), said.edits + 1
        return said.wire()

    async def _deleteMessage(self, given: dict[str, Any], files: dict[str, Any]) -> bool:
        self._ours(given, "delete").gone = True
        return True

    async def _answerCallbackQuery(self, given: dict[str, Any], files: dict[str, Any]) -> bool:
        if len(given.get("text", "")) > 200:
            raise Refused("Bad Request: MESSAGE_TOO_LONG")
        self.toasts.append(given.get("text", ""))
        return True

    async def _getFile(self, given: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:
        content = self.files.get(given["file_id"])
        if content is None:
            raise Refused("Bad Request: wrong file_id or the file is temporarily unavailable")
        if len(content) > 20_000_000:
            raise Refused("Bad Request: file is too big")
        return {
            "file_id": given["file_id"],
            "file_unique_id": "u",
            "file_size": len(content),
            "file_path": f"documents/{given['file_id']}",
        }


def _where(said: Said) -> str:
    return f"{said.chat}/{said.topic}" if said.topic else str(said.chat)


def _failed(refused: Refused) -> web.Response:
    body = {"ok": False, "error_code": refused.status, "description": refused.description}
    return web.json_response(
        body | ({"parameters": refused.parameters} if refused.parameters else {}), status=refused.status
    )


async def _parameters(request: web.Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters, objects read from their JSON, and the files by the name they are attached as."""
    given: dict[str, Any] = {}
    files: dict[str, Any] = {}
    for name, value in (await request.post()).items():
        if isinstance(value, web.FileField):
            files[name] = (value.filename, value.file.read())
        elif name in ("reply_markup", "reply_parameters", "link_preview_options", "allowed_updates", "media"):
            given[name] = json.loads(str(value))
        else:
            given[name] = str(value)
    return given, files
