"""How a message reaches a person: once, and whether or not WhatsApp lets us write to them now.

Free text is taken only within 24 hours of a person's last message. Outside, an approved template tells them what it is about, and the whole
waits until they write. Each post carries a key of ours that comes back in the platform's status deliveries, so a message whose answer was
lost is recognized. Nothing is posted before it is noted, and nothing that was refused in silence (a `failed` status) passes without a word.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable
from datetime import datetime

import structlog
from pydantic import JsonValue

from codespar.channels.base import ChannelError, ContentRefused, DeliveryFailed, DeliveryRefused, Part
from codespar.channels.text import split, utf16
from codespar.channels.whatsapp import limits
from codespar.channels.whatsapp.errors import WINDOW_CLOSED, WindowClosed
from codespar.channels.whatsapp.graph import Graph
from codespar.channels.whatsapp.memory import Held, Memory
from codespar.channels.whatsapp.payloads import Status
from codespar.channels.whatsapp.render import escape, visible
from codespar.channels.whatsapp.settings import WhatsappSettings

log = structlog.get_logger(__name__)

PATIENCE = 3.0  # seconds in which a status of a message whose answer was lost usually comes
_MARGIN = 60.0  # seconds before the window's end in which it counts as closed: a message takes a while
_TRIES = 5
_LONGEST_WAIT = 30.0  # seconds; who waits longer gets it with their next message
_KEY = re.compile(r"[\x21-\x7e]{1,400}")
# What a key of ours stands for when it comes back: a message, a template that announces it, or a message that had to wait.
MESSAGE, TEMPLATE, RELEASED = "m", "t", "h"


def short_key(key: str) -> str:
    """The key as it goes to the platform and comes back: at most 512 characters with its kind."""
    return (
        key if _KEY.fullmatch(key) else "sha256-" + hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
    )


def envelope(person: str, message: dict[str, JsonValue], opaque: str) -> dict[str, JsonValue]:
    """A message with its recipient. A user id goes into `recipient`: in `to` it would be dropped without a word."""
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        ("to" if person.isdigit() else "recipient"): person,
        **message,
        "biz_opaque_callback_data": opaque,
    }


def template(name: str, language: str, brief: str) -> dict[str, JsonValue]:
    """The template with its one parameter."""
    parameters: list[JsonValue] = [{"type": "text", "text": brief}]
    components: list[JsonValue] = [{"type": "body", "parameters": parameters}]
    return {
        "type": "template",
        "template": {"name": name, "language": {"code": language}, "components": components},
    }


class Outgoing:
    """What goes out through one number."""

    def __init__(
        self, settings: WhatsappSettings, graph: Graph, memory: Memory, clock: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._graph = graph
        self._memory = memory
        self._clock = clock
        self._news = asyncio.Event()  # replaced whenever a status came
        self._releasing = asyncio.Lock()

    async def send(self, person: str, part: Part, key: str) -> str:
        """Post a part, or the template that announces it. The id of what was posted."""
        key = short_key(key)
        if known := await self._arrived(key):
            return known
        payload = await self._whole(part)
        if await self._accepted(TEMPLATE, key) or await self._window_is_closed(person):
            return await self._announce(person, key, payload)
        try:
            return await self._post(MESSAGE, key, person, payload)
        except WindowClosed:
            await self._memory.window_closed(person, self._now() - limits.WINDOW_SECONDS)
            return await self._announce(person, key, payload)

    async def find(self, key: str) -> str | None:
        """The id of what was posted under a key, as soon as a status names it."""
        key = short_key(key)
        if known := await self._arrived(key):
            return known
        if (told := await self._accepted(TEMPLATE, key)) and await self._memory.is_held(key):
            return told  # a template alone is not the message: only with what waits behind it
        return await self._status_of(f"{MESSAGE}:{key}")

    async def status(self, status: Status) -> bool:
        """Note what has become of a message. Whether something now waits to be announced; committed when this returns."""
        opaque, state = status.biz_opaque_callback_data, status.status
        if not status.id or not state:
            return False
        kind, _, key = (opaque or "").partition(":")
        ours = opaque is not None and key != "" and kind in (MESSAGE, TEMPLATE, RELEASED)
        before = await self._memory.status(f"{kind}:{key}", status.id, state, self._now()) if ours else None
        news, self._news = self._news, asyncio.Event()
        news.set()
        if state != "failed" or (before and before.state == "failed"):
            return False
        codes = [problem.code for problem in status.errors]
        log.error(
            "whatsapp.undelivered",
            message=status.id,
            codes=codes,
            why=[problem.title for problem in status.errors],
        )
        if WINDOW_CLOSED not in codes or kind not in (MESSAGE, RELEASED):
            return False
        person = (before.person if before else "") or status.recipient_user_id or status.recipient_id or ""
        if person:
            await self._memory.window_closed(person, self._now() - limits.WINDOW_SECONDS)
        if not (self._settings.template and person and before and before.payload):
            log.error(
                "whatsapp.lost",
                message=status.id,
                why=_no_template() if before else "its content is not known any more",
            )
            return False
        await self._memory.hold(key, person, before.payload, None, self._now())
        return True

    async def announce_waiting(self) -> None:
        """Send the templates of what waits without its person having been told."""
        for held in await self._memory.held(await self._memory.waiting()):
            if held.announced is None and await self._window_is_closed(held.person):
                try:
                    await self._announce(held.person, held.key, held.payload)
                except ChannelError as error:
                    log.error("whatsapp.not_announced", key=held.key, error=str(error))

    async def resume(self) -> None:
        """After a start: what could not be told or delivered before."""
        await self.announce_waiting()
        for person in await self._memory.waiting():
            await self.release([person])

    async def release(self, people: Iterable[str]) -> None:
        """Deliver what waits for a person who has written, oldest first. What fails waits for their next message."""
        ids = list(people)
        async with self._releasing:
            for held in await self._memory.held(ids):
                if await self._window_is_closed(held.person):
                    return
                if not await self._deliver(held):
                    return
                await self._memory.released(held.key)
                await self._memory.forget(f"{TEMPLATE}:{held.key}")
            for person in ids:
                if dropped := await self._memory.take_dropped(person):
                    log.warning("whatsapp.dropped", count=dropped)
                    note = (
                        f"{dropped} more messages waited for you than could be kept; the oldest were dropped."
                    )
                    payload: dict[str, JsonValue] = {"message": _text(note)}
                    await self._deliver(Held(f"dropped-{person}-{self._now():.0f}", person, payload, None))

    async def _deliver(self, held: Held) -> bool:
        for attempt in range(_TRIES):
            try:
                await self._post(RELEASED, held.key, held.person, held.payload)
                return True
            except WindowClosed:
                await self._memory.window_closed(held.person, self._now() - limits.WINDOW_SECONDS)
                return False
            except ContentRefused as error:
                text = str(held.payload.get("text") or "")
                if not visible(text):
                    log.error("whatsapp.held_refused", key=held.key, error=str(error))
                    return True
                await self._in_plain(held, text)
                return True
            except DeliveryRefused as error:
                log.error("whatsapp.held_refused", key=held.key, error=str(error))
                return False
            except DeliveryFailed as error:
                log.warning("whatsapp.held_later", key=held.key, error=str(error))
                wish = error.retry_after if error.retry_after is not None else 2.0**attempt
                await asyncio.sleep(min(wish, _LONGEST_WAIT))
        return False

    async def _in_plain(self, held: Held, text: str) -> None:
        """A message that waited and is refused now (its file is gone after 30 days, say): what it said, as text."""
        for place, piece in enumerate(split(escape(text), limits.TEXT_BODY, utf16)):
            if visible(piece):
                await self._post(RELEASED, f"{held.key}.{place}", held.person, {"message": _text(piece)})

    async def _arrived(self, key: str) -> str | None:
        """The id of the message itself, however it got there."""
        return await self._accepted(MESSAGE, key) or await self._accepted(RELEASED, key)

    async def _accepted(self, kind: str, key: str) -> str | None:
        sent = await self._memory.sent(f"{kind}:{key}")
        return sent.wamid if sent and sent.state != "failed" else None

    async def _status_of(self, opaque: str) -> str | None:
        """The id of a message whose posting began, once a status names it; None when none comes in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while True:
            news = self._news
            sent = await self._memory.sent(opaque)
            if sent is None or sent.state == "failed":
                return None
            if sent.wamid:
                return sent.wamid
            if loop.time() >= deadline:
                return None
            try:
                async with asyncio.timeout_at(deadline):
                    await news.wait()
            except TimeoutError:
                continue

    async def _post(self, kind: str, key: str, person: str, payload: dict[str, JsonValue]) -> str:
        opaque = f"{kind}:{key}"
        before = await self._memory.sent(opaque)
        if before and before.state != "failed" and (found := before.wamid or await self._status_of(opaque)):
            return found
        message = payload.get("message")
        if not isinstance(message, dict):
            raise ContentRefused(f"Nothing to post is kept under {opaque}; it is rendered again.")
        await self._memory.trying(opaque, person, payload, self._now())
        try:
            answer = await self._graph.post(envelope(person, message, opaque))
        except ChannelError as error:
            if not (isinstance(error, DeliveryFailed) and error.arrived_perhaps):
                await self._memory.forget(opaque)
            raise
        match answer:
            case {"messages": [{"id": str(wamid)}, *_]}:
                await self._memory.accepted(opaque, wamid)
                return wamid
            case _:
                raise DeliveryFailed("WhatsApp took a message without naming its id.", arrived_perhaps=True)

    async def _announce(self, person: str, key: str, payload: dict[str, JsonValue]) -> str:
        """Tell a person outside their window by the template, and keep the whole for when they write.

        Continuations and progress are kept without a template of their own where something already waits: a template costs money and attention.
        """
        if self._settings.template is None:
            raise DeliveryRefused(_no_template())
        brief = str(payload.get("brief") or "")
        told = [held.announced for held in await self._memory.held([person]) if held.announced]
        if told and (not brief or payload.get("progress")):
            announced = told[-1]
        else:
            short = brief or " ".join(escape(str(payload.get("text") or "")).split())[:200] or "…"
            words = template(self._settings.template, self._settings.template_language, short)
            announced = await self._post(TEMPLATE, key, person, {"message": words})
        await self._memory.hold(key, person, payload, announced, self._now())
        if not await self._window_is_closed(person):
            await self.release([person])  # they wrote while this was on its way
        return announced

    async def _whole(self, part: Part) -> dict[str, JsonValue]:
        """The part's payload with its file uploaded and named, and its text."""
        payload = {**part.payload, "text": part.text}
        message = payload.get("message")
        if not isinstance(message, dict):
            raise ContentRefused("A part without a message was given to WhatsApp; it is rendered again.")
        document = message.get("document")
        if part.files and isinstance(document, dict):
            media = await self._graph.upload(part.files[0])
            payload["message"] = {**message, "document": {**document, "id": media}}
        return payload

    async def _window_is_closed(self, person: str) -> bool:
        """Whether we know that it is. Of a person who has not written since we remember, the platform knows."""
        last = await self._memory.last_written(person)
        return last is not None and self._now() - last >= limits.WINDOW_SECONDS - _MARGIN

    def _now(self) -> float:
        return self._clock().timestamp()


def _text(body: str) -> dict[str, JsonValue]:
    return {"type": "text", "text": {"body": body, "preview_url": False}}


def _no_template() -> str:
    return (
        "WhatsApp takes nothing but a template more than 24 hours after a person's last message, and none is configured: "
        "set channels.whatsapp.template to an approved template with one body parameter, or let the person write first."
    )
