"""WhatsApp through Meta's Cloud API: deliveries come to a webhook, messages go out over HTTPS.

A delivery is checked over its raw bytes before anything of it is read, and acknowledged when all its messages are committed and not before.
WhatsApp has no edits, no threads and no groups here: each person is a conversation, `<phone number id>:<person>`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Coroutine
from datetime import datetime
from typing import Any

import structlog

from codespar.channels.base import (
    Capabilities,
    ChannelError,
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
from codespar.channels.whatsapp import limits
from codespar.channels.whatsapp.errors import CredentialsRefused
from codespar.channels.whatsapp.graph import Graph
from codespar.channels.whatsapp.memory import Memory
from codespar.channels.whatsapp.normalize import changes, heard, signed, statuses
from codespar.channels.whatsapp.outgoing import Outgoing
from codespar.channels.whatsapp.payloads import Change
from codespar.channels.whatsapp.render import render
from codespar.channels.whatsapp.settings import WhatsappSettings
from codespar.domain.messages import NormalizedResponse
from codespar.domain.tasks import Thread

log = structlog.get_logger(__name__)

_CHALLENGE = re.compile(r"[\w.-]{1,200}", re.ASCII)
_PERSON = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_CAPABILITIES = Capabilities(
    buttons=True,
    files=True,
    direct=True,
    max_text=limits.TEXT_BODY,
    text_unit="utf16",
    max_buttons=limits.LIST_ROWS,
    max_label=limits.BUTTON_TITLE,
    max_command=limits.ROW_ID,
    max_upload=limits.UPLOAD,
    # One number may write to one person every 6 seconds in the long run, up to 45 times at once on credit. A task's few messages live on
    # the credit; a talk without pauses meets error 131056 and waits as it says.
    messages_per_second=0.5,
    overall_per_second=20,  # a number that the phone app uses too has 20, every other 80 or more
    ack_seconds=5.0,
    # A status nearly always names a message whose answer was lost, and `send` asks for it itself; that it never came too late is not promised.
    resend="may_double",
)


class _Connection:
    """What is there between `start` and `stop`."""

    def __init__(
        self, settings: WhatsappSettings, tools: ChannelTools, token: str, reception: Reception
    ) -> None:
        self.reception = reception
        self.graph = Graph(
            settings.api_url, settings.api_version, settings.phone_number_id, token, settings.token_env
        )
        self.memory = Memory(tools.folder / f"whatsapp-{settings.phone_number_id}.db")
        self.outgoing = Outgoing(settings, self.graph, self.memory, tools.clock)

    async def close(self) -> None:
        await self.graph.close()
        await self.memory.close()


class WhatsappChannel:
    """One business phone number."""

    def __init__(self, settings: WhatsappSettings, tools: ChannelTools) -> None:
        self._settings = settings
        self._tools = tools
        self._token = tools.secret(settings.token_env, "WhatsApp's access token")
        self._app_secret = tools.secret(
            settings.app_secret_env, "the secret of the Meta app, which signs deliveries"
        )
        self._verify_token = tools.secret(
            settings.verify_token_env, "the word that Meta repeats when the webhook is set up"
        )
        self._connection: _Connection | None = None
        self._background: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        return "whatsapp"

    @property
    def capabilities(self) -> Capabilities:
        return _CAPABILITIES

    async def start(self, reception: Reception) -> None:
        """Check the token and the number. When Meta cannot be reached just now, deliveries are taken in all the same."""
        await self.stop()
        connection = _Connection(self._settings, self._tools, self._token, reception)
        try:
            await connection.graph.number()
        except (CredentialsRefused, ContentRefused, DeliveryRefused) as error:
            await connection.close()
            raise NotConnected(
                f"WhatsApp does not let us use number {self._settings.phone_number_id}: {error} "
                f"Check channels.whatsapp.phone_number_id and the token in {self._settings.token_env}."
            ) from error
        except DeliveryFailed as error:
            log.warning("whatsapp.unreachable", error=str(error))
        self._connection = connection
        self._spawn(connection.outgoing.resume())

    async def stop(self) -> None:
        """Disconnect. What waits stays in the file."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection:
            await connection.close()

    def render(self, response: NormalizedResponse, *, plain: bool = False) -> tuple[Part, ...]:
        return render(response, plain=plain)

    async def send(self, thread: Thread, part: Part, key: str) -> str:
        """Post a part. Outside a person's 24 hours the id is that of the template that announces it; the part follows when they write."""
        return await self._connected().outgoing.send(self._person(thread), part, key)

    async def edit(self, thread: Thread, external: str, part: Part) -> None:
        """WhatsApp has no edits: whoever asks for one is told to send anew."""
        raise MessageGone(f"WhatsApp cannot edit message {external}: send the new one.")

    async def delete(self, thread: Thread, external: str) -> None:
        """WhatsApp cannot take a message of a business away; it is left."""

    async def find(self, thread: Thread, key: str, since: datetime) -> str | None:
        return await self._connected().outgoing.find(key)

    async def fetch(self, ref: str, cap: int) -> bytes:
        return await self._connected().graph.media(ref, cap)

    async def answer(self, request: HttpRequest) -> HttpAnswer:
        """Meta's request to the webhook: the set-up check (GET) or a delivery (POST)."""
        if request.path.strip("/") != "webhook":
            return HttpAnswer(status=404)
        match request.method.upper():
            case "GET":
                return self._verified(request.query)
            case "POST":
                return await self._taken_in(request)
            case _:
                return HttpAnswer(status=405, headers={"allow": "GET, POST"})

    def _verified(self, query: dict[str, str]) -> HttpAnswer:
        given = query.get("hub.verify_token", "")
        right = hmac.compare_digest(given.encode("utf-8", "replace"), self._verify_token.encode())
        if query.get("hub.mode") != "subscribe" or not right:
            return HttpAnswer(status=401)
        challenge = query.get("hub.challenge", "")
        if not _CHALLENGE.fullmatch(challenge):
            return HttpAnswer(status=400)
        return HttpAnswer(
            body=challenge.encode(), content_type="text/plain", headers={"x-content-type-options": "nosniff"}
        )

    async def _taken_in(self, request: HttpRequest) -> HttpAnswer:
        if len(request.body) > limits.DELIVERY:
            return HttpAnswer(status=413)
        if not signed(request.body, request.headers.get("x-hub-signature-256", ""), self._app_secret):
            log.warning("whatsapp.forged", bytes=len(request.body))
            return HttpAnswer(status=401)
        connection = self._connection
        if connection is None:
            return HttpAnswer(status=503)
        try:
            payload: Any = json.loads(request.body)
        except (ValueError, RecursionError):
            return HttpAnswer(status=400)
        if not isinstance(payload, dict):
            return HttpAnswer(status=400)
        try:
            for change in changes(payload, self._settings.phone_number_id):
                await self._take(connection, change)
        except Exception:
            # Whatever it was, something of it is not committed: the platform brings the whole again, and what is committed is recognized.
            log.exception("whatsapp.not_taken_in")
            return HttpAnswer(status=500)
        return HttpAnswer(status=200)

    async def _take(self, connection: _Connection, change: Change) -> None:
        """One change: all of it committed when this returns. What people see of it is done behind."""
        if change.errors:
            log.error("whatsapp.account_errors", count=len(change.errors))
        to_announce = False
        for status in statuses(change):
            to_announce |= await connection.outgoing.status(status)
        if to_announce:
            self._spawn(connection.outgoing.announce_waiting())
        read: dict[str, str] = {}
        for raw in change.messages:
            said = heard(raw, change.contacts, self._settings.phone_number_id, self._tools.clock())
            if said is None:
                log.info("whatsapp.ignored", type=raw.get("type") if isinstance(raw, dict) else None)
                continue
            people = (said.sender, *said.also)
            if await connection.memory.last_written(said.sender) is None:
                log.info("whatsapp.new_conversation", conversation=said.conversation, also=said.also)
            await connection.memory.wrote(people, said.at.timestamp())
            await connection.reception.hear(said)
            read[said.sender] = said.message_id
            self._spawn(connection.outgoing.release(people))
        if self._settings.read_marks:
            for message in read.values():
                self._spawn(self._mark_read(connection, message))

    async def _mark_read(self, connection: _Connection, message: str) -> None:
        """Blue ticks: they also mark every earlier message. Not worth a second try."""
        try:
            await connection.graph.post(
                {"messaging_product": "whatsapp", "status": "read", "message_id": message}
            )
        except ChannelError as error:
            log.info("whatsapp.not_marked_read", error=str(error))

    def _person(self, thread: Thread) -> str:
        number, _, person = thread.conversation.partition(":")
        if number != self._settings.phone_number_id or not _PERSON.fullmatch(person):
            raise DeliveryRefused(
                f"{thread.conversation} is no conversation of number {self._settings.phone_number_id}: "
                "it must be <phone_number_id>:<user id or number>."
            )
        return person

    def _connected(self) -> _Connection:
        if self._connection is None:
            raise DeliveryFailed("WhatsApp is not connected yet: try again.", 1.0)
        return self._connection

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("whatsapp.background_failed", error=f"{type(error).__name__}: {error}")
