"""Telegram as a channel: hears by long polling or a webhook, says by the Bot API. Every platform rule is in the modules beside it.

It acknowledges nothing to Telegram before `hear` has returned, and sends every message once: what to do about a lost answer is the
Postman's to decide, as Telegram has no idempotency key and cannot be asked what we sent.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections import OrderedDict
from datetime import datetime
from typing import Any

import structlog
from aiogram import Bot
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    AiogramError,
    TelegramBadRequest,
    TelegramNotFound,
    TelegramUnauthorizedError,
)
from aiogram.methods import EditMessageMedia, EditMessageText, SendDocument, SendMessage
from aiogram.types import BufferedInputFile, InputMediaDocument, Message, Update
from aiogram.utils.token import TokenValidationError
from aiohttp import ClientError, ClientTimeout
from pydantic import ValidationError

from codespar.channels.base import (
    AttachmentRefused,
    Capabilities,
    ChannelError,
    ChannelTools,
    DeliveryFailed,
    DeliveryRefused,
    Heard,
    HttpAnswer,
    HttpRequest,
    MessageGone,
    NotConnected,
    Part,
    Reception,
)
from codespar.channels.telegram import limits
from codespar.channels.telegram.failures import UNCHANGED, described, failure, is_other_kind
from codespar.channels.telegram.normalize import NAME, Myself, Pressed, normalize
from codespar.channels.telegram.polling import WANTED, Polling, RawUpdate
from codespar.channels.telegram.render import render
from codespar.channels.telegram.sent import SentMessages
from codespar.channels.telegram.session import Session
from codespar.channels.telegram.settings import TelegramSettings
from codespar.domain.messages import NormalizedResponse
from codespar.domain.tasks import Thread

log = structlog.get_logger(__name__)
BODY = 1_000_000  # bytes of a webhook's request; an update has some thousand
SECONDS = 30  # until a request to Telegram counts as lost
TRANSFER_SECONDS = 120  # for a file
ASKED = 1000  # presses remembered whose question stands already
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}")
_CONVERSATION = re.compile(r"(-?[0-9]{1,19})(?:/([0-9]{1,10}))?", re.ASCII)
_FILE_PATH = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_.-]+)*")


class TelegramChannel:
    """One bot. Raises `NotConnected` when a secret that the settings name is missing or cannot be one."""

    name = NAME

    def __init__(self, settings: TelegramSettings, tools: ChannelTools) -> None:
        self._settings = settings
        self._clock = tools.clock
        token = tools.secret(settings.token_env, "the Telegram bot's token, as @BotFather gave it")
        self._secret = ""
        if settings.webhook:
            what = "the secret that Telegram sends with every request to the webhook"
            self._secret = tools.secret(settings.secret_env, what)
            if not _SECRET.fullmatch(self._secret):
                raise NotConnected(
                    f"{settings.secret_env} cannot be a webhook's secret: Telegram takes 1 to 256 letters, digits, _ and -"
                )
        server = TelegramAPIServer.from_base(settings.api_url)
        self._session = Session(api=server, timeout=SECONDS)
        try:
            self._bot = Bot(token, session=self._session)
        except TokenValidationError:
            raise NotConnected(
                f"{settings.token_env} does not hold a Telegram token: it looks like 123456:ABC-DEF. Get it from @BotFather"
            ) from None
        self._token = token
        self._sent = SentMessages(tools.folder / "sent.txt")
        self._me: Myself | None = None
        self._reception: Reception | None = None
        self._polling: Polling | None = None
        self._task: asyncio.Task[None] | None = None
        self._asked: OrderedDict[str, None] = OrderedDict()

    @property
    def capabilities(self) -> Capabilities:
        return limits.CAPABILITIES

    async def start(self, reception: Reception) -> None:
        await self.stop()
        await self._sent.load()
        try:
            me = await self._bot.get_me()
            self._me = Myself(me.id, me.username or "")
            self._reception = reception
            if self._settings.webhook:
                await self._bot.set_webhook(
                    self._settings.webhook, secret_token=self._secret, allowed_updates=WANTED
                )
            else:
                await self._bot.delete_webhook(drop_pending_updates=False)
        except AiogramError as error:
            await self._session.close()
            raise self._not_started(error) from None  # what lies behind it may name the token
        log.info("telegram.connected", bot=f"@{self._me.username}", webhook=bool(self._settings.webhook))
        if not self._settings.webhook:
            self._polling = Polling(self._bot, self._take, self._settings.poll_seconds)
            self._task = asyncio.create_task(self._polling.run(), name="telegram-polling")

    def _not_started(self, error: AiogramError) -> ChannelError:
        text = described(error, self._token)
        match error:
            case TelegramUnauthorizedError() | TelegramNotFound():
                return NotConnected(
                    f"Telegram refuses the token in {self._settings.token_env} ({text}). Get a valid one from @BotFather"
                )
            case TelegramBadRequest():
                return NotConnected(
                    f"Telegram refuses channels.telegram.webhook ({text}). Correct the address"
                )
            case _:
                return DeliveryFailed(f"Telegram at {self._settings.api_url} cannot be reached: {text}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._polling is not None:
            await self._polling.farewell()
            self._polling = None
        await self._session.close()

    # in

    async def answer(self, request: HttpRequest) -> HttpAnswer:
        if not self._settings.webhook or request.path.strip("/") != "webhook" or request.method != "POST":
            return HttpAnswer(status=404)
        given = request.headers.get("x-telegram-bot-api-secret-token", "")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._secret.encode()):
            log.warning("telegram.forged", bytes=len(request.body))
            return HttpAnswer(status=401)
        if len(request.body) > BODY:
            return HttpAnswer(status=413)
        try:
            update = Update.model_validate_json(request.body)
        except ValidationError as error:  # no JSON, no UTF-8, no update
            log.warning("telegram.malformed", errors=error.error_count())
            return HttpAnswer(status=400)
        try:
            await self._hear(update)
        except Exception as error:  # not committed: Telegram sends it again
            log.error("telegram.not_heard", update=update.update_id, error=str(error), exc_info=True)
            return HttpAnswer(status=503)
        return HttpAnswer()

    async def _take(self, raw: RawUpdate) -> None:
        try:
            update = Update.model_validate(raw.model_dump())
        except ValidationError as error:  # it will not be read the next time either
            log.error("telegram.unreadable", update=raw.update_id, errors=error.error_count())
            return
        await self._hear(update)

    async def _hear(self, update: Update) -> None:
        if self._me is None or self._reception is None:
            raise NotConnected("Telegram is not started yet")
        done = normalize(update, self._me, self._sent, self._clock())
        match done:
            case Heard():
                await self._reception.hear(done)
            case Pressed():
                await self._answer_press(done, self._reception)
            case None:
                log.debug("telegram.ignored", update=update.update_id)

    async def _answer_press(self, press: Pressed, reception: Reception) -> None:
        toast = "This button is from an earlier version. Write the command instead."
        if press.heard is not None:
            await reception.hear(press.heard)
            toast = f"Sent: {press.heard.content}"
        elif press.question is not None:
            toast = await self._ask(press)
        try:
            await self._bot.answer_callback_query(press.id, text=_short(toast, limits.ANSWER))
        except AiogramError as error:  # pressed too long ago: the person's app has stopped waiting
            log.info("telegram.press_not_answered", error=described(error, self._token))

    async def _ask(self, press: Pressed) -> str:
        """Put the question of a button, once a press. Raises `DeliveryFailed` when it is to be tried again."""
        question = press.question
        if question is None or press.id in self._asked:
            return ""
        answers = press.message_id if press.thread_id else None
        thread = Thread(channel=NAME, conversation=press.conversation, thread_id=press.thread_id)
        try:
            await self._post(thread, question.part(), answers)
        except DeliveryFailed as error:
            if error.retry_after is not None:  # nobody else's message has to wait for it
                log.warning("telegram.question_put_off", error=str(error))
                return f"Telegram is busy. Press again in a while, or write: {question.command} …"
            if not error.arrived_perhaps:
                raise
            log.warning("telegram.question_lost", error=str(error))
        except ChannelError as error:
            log.warning("telegram.question_refused", error=str(error))
            return f"Write instead: {question.command} …"
        self._asked[press.id] = None
        while len(self._asked) > ASKED:
            self._asked.popitem(last=False)
        return "Reply to the question in the chat."

    # out

    def render(self, response: NormalizedResponse, *, plain: bool = False) -> tuple[Part, ...]:
        return render(response, plain=plain)

    async def send(self, thread: Thread, part: Part, key: str) -> str:
        """`key` has no use: Telegram takes none."""
        return await self._post(thread, part, thread.thread_id)

    async def _post(self, thread: Thread, part: Part, answers: str | None) -> str:
        """Send a message into `thread`, as an answer to the message `answers`."""
        chat, topic = _address(thread.conversation)
        common: dict[str, Any] = {"chat_id": chat, "message_thread_id": topic}
        if answers is not None:
            if not answers.isascii() or not answers.isdecimal():
                raise DeliveryRefused(f"{answers} is no id of a Telegram message to answer")
            common["reply_parameters"] = {"message_id": int(answers), "allow_sending_without_reply": True}
        if part.files:
            method = SendDocument.model_validate({**part.payload, **common, "document": _upload(part)})
        else:
            method = SendMessage.model_validate({**part.payload, **common})
        try:
            message: Message = await self._bot(
                method, request_timeout=TRANSFER_SECONDS if part.files else None
            )
        except AiogramError as error:
            raise failure(error, thread.conversation, self._token) from None
        if chat < 0:
            await self._sent.remember(chat, message.message_id, thread.conversation, thread.thread_id)
        return str(message.message_id)

    async def edit(self, thread: Thread, external: str, part: Part) -> None:
        chat, _ = _address(thread.conversation)
        common: dict[str, Any] = {"chat_id": chat, "message_id": _message_id(external)}
        method: EditMessageText | EditMessageMedia
        if part.files:
            media = InputMediaDocument.model_validate({**part.payload, "media": _upload(part)})
            method = EditMessageMedia(**common, media=media)
        else:
            method = EditMessageText.model_validate({**part.payload, **common})
        try:
            await self._bot(method, request_timeout=TRANSFER_SECONDS if part.files else None)
        except TelegramBadRequest as error:
            if UNCHANGED in error.message.lower():
                return
            if is_other_kind(
                error.message
            ):  # a file cannot become a text: the text is sent anew in its place
                await self.delete(thread, external)
            raise failure(error, thread.conversation, self._token) from None
        except AiogramError as error:
            raise failure(error, thread.conversation, self._token) from None

    async def delete(self, thread: Thread, external: str) -> None:
        """Messages older than 48 hours cannot be taken away: they are left."""
        chat, _ = _address(thread.conversation)
        try:
            await self._bot.delete_message(chat, _message_id(external))
        except TelegramBadRequest as error:
            log.info("telegram.not_deleted", message=external, error=described(error, self._token))
        except AiogramError as error:
            raise failure(error, thread.conversation, self._token) from None

    async def find(self, thread: Thread, key: str, since: datetime) -> str | None:
        """Nothing: a bot cannot read what it has sent."""
        return None

    async def fetch(self, ref: str, cap: int) -> bytes:
        try:
            file = await self._bot.get_file(ref)
        except TelegramBadRequest as error:  # gone, or more than 20 MB
            raise AttachmentRefused(
                f"Telegram does not give the attachment: {described(error, self._token)}"
            ) from None
        except AiogramError as error:
            problem = failure(error, "of the attachment", self._token)
            raise (
                problem if isinstance(problem, DeliveryFailed) else AttachmentRefused(str(problem))
            ) from None
        path = file.file_path or ""
        if not _FILE_PATH.fullmatch(path) or ".." in path:
            raise AttachmentRefused("Telegram names no file that can be fetched from its server")
        if (file.file_size or 0) > cap:
            raise AttachmentRefused(f"the attachment has {file.file_size} bytes, more than the {cap} allowed")
        return await self._download(path, cap)

    async def _download(self, path: str, cap: int) -> bytes:
        """From the Bot API server alone. Errors of the connection are not chained: they may hold the address, which holds the token."""
        url = self._session.api.file_url(self._token, path)
        content = bytearray()
        try:
            session = await self._session.create_session()
            timeout = ClientTimeout(total=TRANSFER_SECONDS)
            async with session.get(url, timeout=timeout, allow_redirects=False) as answer:
                if answer.status in (429, 500, 502, 503, 504):
                    raise DeliveryFailed(f"Telegram does not give the attachment now: status {answer.status}")
                if answer.status != 200:
                    raise AttachmentRefused(f"Telegram does not give the attachment: status {answer.status}")
                async for chunk in answer.content.iter_chunked(65_536):
                    content += chunk
                    if len(content) > cap:
                        raise AttachmentRefused(f"the attachment has more than the {cap} bytes allowed")
        except (ClientError, TimeoutError) as error:
            raise DeliveryFailed(f"the attachment's transfer broke off: {type(error).__name__}") from None
        return bytes(content)


def _address(conversation: str) -> tuple[int, int | None]:
    """The chat, and the topic in it. Raises `DeliveryRefused` when it is no conversation of Telegram."""
    found = _CONVERSATION.fullmatch(conversation)
    if found is None:
        raise DeliveryRefused(
            f"{conversation} is no Telegram chat: it is a number such as -1001234567890, or -1001234567890/7 for a topic"
        )
    return int(found[1]), int(found[2]) if found[2] else None


def _message_id(external: str) -> int:
    if not external.isascii() or not external.isdecimal():
        raise MessageGone(f"{external} is no id of a Telegram message")
    return int(external)


def _upload(part: Part) -> BufferedInputFile:
    """The part's one file. The name goes into a header as it is, so it has nothing there that could end it."""
    file = part.files[0]
    return BufferedInputFile(file.content, re.sub(r"[^A-Za-z0-9._-]", "_", file.name)[-100:] or "file")


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
