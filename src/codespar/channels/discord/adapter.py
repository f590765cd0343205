"""Discord as a `ChannelAdapter`: a connection to the gateway to hear, the REST API to speak.

A message's id is Discord's; where it stands (the thread, or the channel where there can be no thread) is found from the `Thread` it belongs to.
A send carries a nonce made of its key that Discord enforces, so that a repeat within a few minutes gives the same message.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import discord
import structlog
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

from codespar.channels.base import (
    AttachmentRefused,
    Capabilities,
    ChannelTools,
    ContentRefused,
    DeliveryFailed,
    DeliveryRefused,
    HttpAnswer,
    HttpRequest,
    MessageGone,
    NotConnected,
    Part,
    Reception,
)
from codespar.channels.discord.client import Connection
from codespar.channels.discord.limits import CAPABILITIES, NONCE, THREAD_NAME
from codespar.channels.discord.memory import Memory
from codespar.channels.discord.render import render
from codespar.channels.discord.requests import calling
from codespar.channels.discord.settings import DiscordSettings
from codespar.channels.text import split, utf16
from codespar.domain.messages import NormalizedResponse
from codespar.domain.tasks import Thread

log = structlog.get_logger(__name__)

_START_SECONDS = 60.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0  # seconds between two tries to reach the gateway
_FETCH_SECONDS = 60.0
_CHUNK = 64 * 1024
_REMEMBERED = 1000
_UNKNOWN_CHANNEL = 10003
_THREAD_THERE = 160004
_ARCHIVED = 50083


class DiscordChannel:
    """Discord, for one bot. One in a process: the library keeps the addresses it talks to per process."""

    name = "discord"

    def __init__(self, settings: DiscordSettings, tools: ChannelTools) -> None:
        self._settings = settings
        self._tools = tools
        self._token = tools.secret(settings.token_env, "the token of the Discord bot")
        self._memory = Memory(tools.folder)
        self._connection: Connection | None = None
        self._running: asyncio.Task[None] | None = None
        self._flat: OrderedDict[str, None] = OrderedDict()  # messages under which Discord takes no thread
        self._made: OrderedDict[str, None] = (
            OrderedDict()
        )  # threads that are there, whether the gateway said so yet or not
        self._direct: OrderedDict[str, str] = OrderedDict()  # person -> their direct conversation

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def connection(self, reception: Reception) -> Connection:
        """A connection that brings what it hears to `reception`, and through which this adapter speaks. `start` opens it."""
        self._memory = Memory(self._tools.folder)
        self._connection = Connection(
            reception,
            self._memory,
            self._tools.clock,
            message_content=self._settings.message_content,
            catch_up=timedelta(minutes=self._settings.catch_up_minutes),
        )
        return self._connection

    async def start(self, reception: Reception) -> None:
        await self.stop()
        connection = self.connection(reception)
        Route.BASE = self._settings.api_url
        try:
            async with asyncio.timeout(_START_SECONDS):
                await connection.login(self._token)
                _, gateway, _ = await connection.http.get_bot_gateway()
                DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway)
                self._running = asyncio.create_task(self._listen(connection), name="discord: gateway")
                await self._until_ready(connection, self._running)
        except discord.LoginFailure as error:
            await self.stop()
            raise NotConnected(
                f"Discord refuses the token in {self._settings.token_env}: reset it in the Developer Portal (Bot, Reset Token) and set it anew."
            ) from error
        except discord.PrivilegedIntentsRequired as error:
            await self.stop()
            raise NotConnected(
                "Discord refuses the Message Content intent: turn it on in the Developer Portal (Bot, Privileged Gateway Intents), "
                "or set channels.discord.message_content to false."
            ) from error
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            await self.stop()
            raise NotConnected(
                f"Discord cannot be reached at {self._settings.api_url}: {_brief(error)}"
            ) from error
        log.info("discord.connected", bot=connection.user.id if connection.user else None)

    async def _listen(self, connection: Connection) -> None:
        """The gateway, made again with back-off for as long as Discord takes us. What ends it for good is logged, and raised to `start`."""
        wait = _FIRST_WAIT
        while True:
            try:
                await connection.connect(reconnect=True)
                return
            except (discord.PrivilegedIntentsRequired, discord.ConnectionClosed) as error:
                log.error("discord.refused", error=_brief(error), ready=connection.ready_once.is_set())
                raise
            except Exception as error:  # noqa: BLE001 - the library gave up for a reason it does not know: a new connection, not silence
                log.warning("discord.reconnecting", error=_brief(error), again_in=wait)
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    @staticmethod
    async def _until_ready(connection: Connection, running: asyncio.Task[None]) -> None:
        ready = asyncio.create_task(connection.ready_once.wait())
        try:
            await asyncio.wait({ready, running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if not connection.ready_once.is_set():
            await running  # raises what ended it
            raise discord.ClientException("the gateway closed before it was ready")

    async def stop(self) -> None:
        connection, running = self._connection, self._running
        self._connection = self._running = None
        if connection is not None:
            await connection.let_go()
            await connection.close()
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await self._memory.write()

    def render(self, response: NormalizedResponse, *, plain: bool = False) -> tuple[Part, ...]:
        return render(response, plain=plain)

    # speaking

    async def send(self, thread: Thread, part: Part, key: str) -> str:
        """As the port says. `thread.conversation` may be a person's id too: then it goes to them directly."""
        payload = dict(part.payload) | {"nonce": nonce(key), "enforce_nonce": True}
        where = await self._where(thread, part)
        if where == thread.conversation and thread.thread_id is not None:
            payload["message_reference"] = {
                "message_id": thread.thread_id,
                "channel_id": thread.conversation,
                "fail_if_not_exists": False,
            }
        path = "/channels/{channel_id}/messages"
        try:
            try:
                sent = await self._revived(where, "POST", path, payload, part)
            except MessageGone as error:
                person = await self._person(thread, error)
                if person is None:
                    raise
                sent = await self._request("POST", path, payload, part, channel_id=person)
        except MessageGone as error:
            # With a nonce that Discord remembers this also means: it was sent, and somebody deleted it since.
            raise DeliveryRefused(
                f"{error}: the conversation, or what was sent under this key, is gone"
            ) from error
        return str(sent["id"])

    async def edit(self, thread: Thread, external: str, part: Part) -> None:
        payload = dict(part.payload) | {"attachments": []}
        await self._at(thread, "PATCH", external, payload, part)

    async def delete(self, thread: Thread, external: str) -> None:
        try:
            await self._at(thread, "DELETE", external, None, None)
        except MessageGone:
            return

    async def find(self, thread: Thread, key: str, since: datetime) -> str | None:
        """From what the gateway brought back of our own messages; and from the latest messages, where Discord shows their nonces."""
        wanted = nonce(key)
        if self._connection is not None and wanted in self._connection.echoes:
            return self._connection.echoes[wanted]
        for channel in self._places(thread):
            connection = self._connected()
            try:
                async with calling(f"GET {channel}", rich=False):
                    latest: list[Any] = await connection.http.logs_from(channel, 100)
            except (DeliveryRefused, MessageGone):
                continue
            for one in latest:
                written = discord.utils.snowflake_time(int(one["id"]))
                if str(one.get("nonce")) == wanted and written >= since - timedelta(seconds=5):
                    return str(one["id"])
        return None

    async def _at(
        self, thread: Thread, method: str, external: str, payload: dict[str, Any] | None, part: Part | None
    ) -> None:
        """Change a message where it stands: in the thread, or in the channel where there was no thread."""
        path = "/channels/{channel_id}/messages/{message_id}"
        for channel in self._places(thread):
            try:
                await self._revived(channel, method, path, payload, part, message_id=external)
                return
            except MessageGone as error:
                person = await self._person(thread, error)
                if person is not None and person not in self._places(thread):
                    await self._revived(person, method, path, payload, part, message_id=external)
                    return
        raise MessageGone(f"message {external} in {thread.key} is not there any more")

    async def _revived(
        self, channel: str, method: str, path: str, payload: Any, part: Part | None, **ids: str
    ) -> Any:
        """The request; in a thread that went to the archive, once more after it was taken out of it."""
        try:
            return await self._request(method, path, payload, part, channel_id=channel, **ids)
        except DeliveryRefused as error:
            if _code(error) != _ARCHIVED:
                raise
        await self._request("PATCH", "/channels/{channel_id}", {"archived": False}, None, channel_id=channel)
        return await self._request(method, path, payload, part, channel_id=channel, **ids)

    async def _where(self, thread: Thread, part: Part) -> str:
        """The channel to write in: the thread, which is made when it is the id of a message that has none yet."""
        start = thread.thread_id
        if start is None or start in self._flat:
            return self._direct.get(thread.conversation, thread.conversation)
        if start in self._made or self._connected().get_channel(int(start)) is not None:
            return start
        subject = self._connected().subjects.get(start) or part.text
        try:
            await self._request(
                "POST",
                "/channels/{channel_id}/messages/{message_id}/threads",
                {"name": thread_name(subject)},
                None,
                channel_id=thread.conversation,
                message_id=start,
            )
        except MessageGone:
            return await self._lone(thread.conversation, start)
        except (DeliveryRefused, ContentRefused) as error:
            if _code(error) == _THREAD_THERE:
                return self._thread_there(start)
            log.info("discord.no_thread", conversation=thread.conversation, error=str(error))
            return self._stays_flat(thread.conversation, start)
        return self._thread_there(start)

    async def _lone(self, conversation: str, start: str) -> str:
        """A thread that began with no message, or with one that was deleted since; or neither, and the answer goes into the channel."""
        try:
            await self._request("GET", "/channels/{channel_id}", None, None, channel_id=start)
        except (DeliveryRefused, MessageGone):
            return self._stays_flat(conversation, start)
        return self._thread_there(start)

    def _stays_flat(self, conversation: str, start: str) -> str:
        _remember(self._flat, start, None)
        return conversation

    def _thread_there(self, start: str) -> str:
        _remember(self._made, start, None)
        return start

    async def _person(self, thread: Thread, error: MessageGone) -> str | None:
        """The direct conversation with the person whose id stands for a conversation; None when it is no person's."""
        if _code(error) != _UNKNOWN_CHANNEL or thread.thread_id is not None:
            return None
        if thread.conversation in self._direct:
            return None  # it was tried there
        try:
            opened = await self._request(
                "POST", "/users/@me/channels", {"recipient_id": thread.conversation}, None
            )
        except (ContentRefused, DeliveryRefused, MessageGone):
            return None
        _remember(self._direct, thread.conversation, str(opened["id"]))
        return str(opened["id"])

    def _places(self, thread: Thread) -> list[str]:
        """Where a message of a thread may stand, the likeliest first."""
        conversation = self._direct.get(thread.conversation, thread.conversation)
        return [thread.thread_id, conversation] if thread.thread_id else [conversation]

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            raise DeliveryFailed("not connected to Discord now")
        return self._connection

    async def _request(
        self, method: str, path: str, payload: dict[str, Any] | None, part: Part | None, **ids: str
    ) -> Any:
        connection = self._connected()
        route = Route(method, path, **ids)
        body: dict[str, Any] = {} if payload is None else {"json": payload}
        if part is not None and part.files:
            body = _multipart(payload or {}, part)
        async with calling(f"{method} {ids.get('channel_id')}", rich=bool(payload and payload.get("embeds"))):
            return await connection.http.request(route, **body)

    # attachments

    async def fetch(self, ref: str, cap: int) -> bytes:
        """An attachment, from Discord's own place for them alone. Its signed address is made new when it has expired."""
        try:
            return await self._download(ref, cap)
        except _Expired:
            fresh = await self._refreshed(ref)
        try:
            return await self._download(fresh, cap)
        except _Expired as error:
            raise AttachmentRefused("the attachment is not at Discord any more: send it again") from error

    async def _download(self, address: str, cap: int) -> bytes:
        home = urlsplit(self._settings.cdn_url)
        asked = urlsplit(address)
        if (asked.scheme, asked.netloc) != (home.scheme, home.netloc):
            raise AttachmentRefused(
                f"attachments are fetched from {home.netloc} only, not from {asked.hostname}"
            )
        timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(yarl.URL(address, encoded=True), allow_redirects=False) as answer,
            ):
                if answer.status in (403, 404, 410):
                    raise _Expired
                if answer.status == 429 or answer.status >= 500:
                    raise DeliveryFailed(f"Discord did not give the attachment: {answer.status}")
                if answer.status != 200:
                    raise AttachmentRefused(f"Discord did not give the attachment: {answer.status}")
                content = bytearray()
                async for chunk in answer.content.iter_chunked(_CHUNK):
                    content += chunk
                    if len(content) > cap:
                        raise AttachmentRefused(f"the attachment is larger than {cap:,} bytes: send less")
                return bytes(content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise DeliveryFailed(f"the attachment could not be fetched: {_brief(error)}") from error

    async def _refreshed(self, address: str) -> str:
        body = {"attachment_urls": [address]}
        answer = await self._request("POST", "/attachments/refresh-urls", body, None)
        for one in answer.get("refreshed_urls", []):
            if one.get("original") == address and one.get("refreshed"):
                return str(one["refreshed"])
        raise AttachmentRefused("the attachment is not at Discord any more: send it again")

    async def answer(self, request: HttpRequest) -> HttpAnswer:
        """Discord calls nobody: everything comes through the gateway."""
        return HttpAnswer(status=404)


class _Expired(Exception):
    """The signed address of an attachment is not good any more."""


def nonce(key: str) -> str:
    """What stands for the key of a send at Discord."""
    return hashlib.sha256(key.encode()).hexdigest()[:NONCE]


def thread_name(subject: str) -> str:
    """A thread's name: the first words of what it is about."""
    line = " ".join(subject.split())
    return split(line, THREAD_NAME, utf16)[0].strip() if line else "CodeSpar"


def _code(error: BaseException) -> int | None:
    """Discord's own number of what was wrong."""
    return getattr(error.__cause__, "code", None)


def _remember(kept: OrderedDict[str, Any], key: str, value: Any) -> None:
    kept[key] = value
    if len(kept) > _REMEMBERED:
        kept.popitem(last=False)


def _multipart(payload: dict[str, Any], part: Part) -> dict[str, Any]:
    """The message and its files in one request."""
    files = [discord.File(io.BytesIO(file.content), filename=file.name) for file in part.files]
    listed = [{"id": number, "filename": file.filename} for number, file in enumerate(files)]
    form: list[dict[str, Any]] = [
        {
            "name": "payload_json",
            "value": json.dumps(payload | {"attachments": listed}),
            "content_type": "application/json",
        }
    ]
    form += [
        {
            "name": f"files[{number}]",
            "value": file.fp,
            "filename": file.filename,
            "content_type": part.files[number].media_type,
        }
        for number, file in enumerate(files)
    ]
    return {"form": form, "files": files}


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]
