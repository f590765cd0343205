"""The connection to Discord's gateway: what comes in is committed, then answered; what was missed is read again.

Heartbeats, resuming and back-off are the library's. Nothing is acknowledged before it is committed: an interaction whose `hear` failed gets no
answer, so that Discord shows the person that it failed. A message cannot be refused at a gateway, so its `hear` is tried until it works, in the
order of its conversation, and the mark in `Memory` stays before it: after a restart it is read again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import discord
import structlog
from discord.http import Route

from codespar.channels.base import Heard, Reception
from codespar.channels.discord import limits
from codespar.channels.discord.markup import escape
from codespar.channels.discord.memory import Memory
from codespar.channels.discord.normalize import (
    Ourselves,
    Place,
    from_interaction,
    from_message,
    place_of,
    text_of,
)
from codespar.channels.discord.render import asked, form
from codespar.channels.text import split, utf16

log = structlog.get_logger(__name__)

COMMAND: dict[str, Any] = {
    "name": "codespar",
    "type": 1,
    "description": "Tell CodeSpar what to do, or ask it something",
    "options": [
        {
            "type": 3,
            "name": "text",
            "description": "A command such as: status, or what you want done",
            "required": True,
            "min_length": 1,
            "max_length": limits.OPTION,
        }
    ],
    "contexts": [0, 1],
    "integration_types": [0],
}
_REMEMBERED = 2000
_CATCH_UP_MESSAGES = 500  # of one channel
_ECHO = 300
_LET_GO_SECONDS = 5.0
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds between two tries of a hear that failed


class Refused(Exception):
    """Discord answered a request that changes something with 429 or a 5xx. Raised before the library tries again by itself."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"Discord answered {status}")
        self.status = status
        self.retry_after = retry_after


async def _no_second_try(_session: Any, _context: Any, done: aiohttp.TraceRequestEndParams) -> None:
    # The library would repeat the request up to four times and sleep in between; when a message is sent again is the Postman's to decide.
    if done.method != "GET" and (done.response.status == 429 or done.response.status >= 500):
        raise Refused(done.response.status, _seconds(done.response.headers.get("Retry-After")))


def _seconds(header: str | None) -> float | None:
    try:
        return None if header is None else max(0.0, float(header))
    except ValueError:
        return None


def intents(message_content: bool) -> discord.Intents:
    """What the gateway is asked to bring, and no more: no member lists, no presences, no reactions."""
    wanted = discord.Intents.none()
    wanted.guilds = wanted.guild_messages = wanted.dm_messages = True
    wanted.message_content = message_content
    return wanted


class Connection(discord.Client):
    """The bot's session. `ready_once` is set when the gateway took us for the first time."""

    def __init__(
        self,
        reception: Reception,
        memory: Memory,
        clock: Callable[[], datetime],
        *,
        message_content: bool = True,
        catch_up: timedelta = timedelta(hours=1),
    ) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(_no_second_try)
        super().__init__(
            intents=intents(message_content),
            http_trace=trace,
            max_messages=None,
            guild_ready_timeout=1.0,  # after the last server that was announced, before what was missed is read
            max_ratelimit_timeout=30.0,  # the shortest the library takes; what is longer is raised
            allowed_mentions=discord.AllowedMentions.none(),
        )
        self.ready_once = asyncio.Event()
        self.subjects: OrderedDict[str, str] = OrderedDict()  # message id -> its first words: a thread's name
        self.echoes: OrderedDict[str, str] = OrderedDict()  # nonce -> id of our own message that carried it
        self._reception = reception
        self._memory = memory
        self._clock = clock
        self._catch_up = catch_up
        self._turns: dict[int, asyncio.Lock] = {}
        self._waiting: dict[int, int] = {}
        self._stopping = asyncio.Event()
        self._working: set[asyncio.Task[Any]] = set()
        if memory.heard:
            memory.begins(memory.heard + 1)  # until READY: see `on_ready`

    # what the library calls

    async def setup_hook(self) -> None:
        """Before the gateway is opened: our slash command, when Discord's copy of it is not this one."""
        application = self.application_id
        try:
            there: list[dict[str, Any]] = await self.http.request(
                Route("GET", "/applications/{application_id}/commands", application_id=application)
            )
            if [_definition(one) for one in there] == [_definition(COMMAND)]:
                return
            await self.http.request(
                Route("PUT", "/applications/{application_id}/commands", application_id=application),
                json=[COMMAND],
            )
        except (discord.HTTPException, Refused, aiohttp.ClientError) as error:
            # Everything but the slash command works without it; the next start tries again.
            log.warning("discord.command_not_registered", error=str(error))

    async def on_connect(self) -> None:
        self.ready_once.set()

    async def on_ready(self) -> None:
        with self._work():
            await self._begin()

    async def _begin(self) -> None:
        since = self._missed_since()
        pin = self._memory.heard + 1
        self._memory.begins(pin)  # what comes in meanwhile must not move the mark past what is yet to be read
        if since is not None:
            await self._read_missed(since)
        elif not self._memory.heard:
            self._memory.ends(discord.utils.time_snowflake(self._clock()))
        self._memory.ends(pin)
        await self._memory.write()

    async def on_disconnect(self) -> None:
        log.info("discord.disconnected")

    async def on_message(self, message: discord.Message) -> None:
        with self._work():
            await self._take(message)

    async def on_interaction(self, interaction: discord.Interaction[Any]) -> None:
        with self._work():
            await self._take_interaction(interaction)

    async def _take_interaction(self, interaction: discord.Interaction[Any]) -> None:
        channel = interaction.channel_id
        if channel is None:
            return
        place = await self._place(interaction.channel, channel, interaction.guild_id)
        asking = _question(interaction)
        if asking is not None:
            await self._respond(interaction, {"type": 9, "data": asking})
            return
        heard = from_interaction(interaction, place)
        if heard is None:
            return
        if place.direct:
            self._memory.meets(place.channel)
        try:
            await self._reception.hear(heard)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is not committed: no answer, and Discord tells the person
            log.error("discord.not_heard", delivery=heard.delivery, error=repr(error))
            return
        await self._respond(interaction, _acknowledgement(interaction))

    async def on_error(self, event_method: str, /, *args: Any, **kwargs: Any) -> None:
        """What went wrong while an event was handled; without the event, which is people's words."""
        log.exception("discord.event_failed", event_name=event_method)

    def dispatch(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        if not self._stopping.is_set():
            super().dispatch(event, *args, **kwargs)

    async def let_go(self) -> None:
        """Take nothing more, and finish what is being committed; what cannot be committed now is read again after the next start."""
        self._stopping.set()
        if self._working:
            await asyncio.wait(self._working, timeout=_LET_GO_SECONDS)

    @contextlib.contextmanager
    def _work(self) -> Generator[None]:
        """Around what `let_go` waits for."""
        task = asyncio.current_task()
        assert task is not None
        self._working.add(task)
        try:
            yield
        finally:
            self._working.discard(task)

    # messages

    async def _take(self, message: discord.Message) -> None:
        if self.user is not None and message.author.id == self.user.id:
            if message.nonce is not None:
                _remember(self.echoes, str(message.nonce), str(message.id))
            return
        self._memory.begins(message.id)
        channel = message.channel.id
        # A lock's waiters are served in the order they came, so a conversation is heard in the order it was written.
        turn = self._turns.setdefault(channel, asyncio.Lock())
        self._waiting[channel] = self._waiting.get(channel, 0) + 1
        try:
            async with turn:
                place = await self._place(
                    message.channel, channel, message.guild.id if message.guild else None
                )
                heard = from_message(message, place, self._us(message.guild))
                if heard is not None:
                    await self._hear(heard)
        finally:
            self._waiting[channel] -= 1
            if not self._waiting[channel]:
                del self._waiting[channel], self._turns[channel]
        if heard is not None and place.direct:
            self._memory.meets(place.channel)
        self._memory.ends(message.id)
        await self._memory.write()

    async def _hear(self, heard: Heard) -> None:
        if heard.content:
            _remember(self.subjects, heard.message_id, heard.content)
        wait = _FIRST_WAIT
        while True:
            try:
                await self._reception.hear(heard)
            except Exception as error:  # noqa: BLE001 - a gateway cannot be told no: kept, and tried until it is committed
                log.error("discord.not_heard", delivery=heard.delivery, error=repr(error), again_in=wait)
            else:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stopping.wait()
                raise asyncio.CancelledError  # stopping: the mark stays before this message
            wait = min(wait * 2, _LONGEST_WAIT)

    def _us(self, guild: discord.Guild | None) -> Ourselves:
        assert self.user is not None  # known since the log-in
        role = guild.self_role if guild is not None else None
        return Ourselves(self.user.id, frozenset({role.id} if role is not None else ()))

    async def _place(self, channel: Any, channel_id: int, guild_id: int | None) -> Place:
        known = place_of(channel, channel_id, guild_id)
        if known is not None:
            return known
        found = self.get_channel(channel_id)
        try:
            found = found or await self.fetch_channel(channel_id)
        except (discord.Forbidden, discord.NotFound):
            return Place(channel_id)
        return place_of(found, channel_id, guild_id) or Place(channel_id)

    # what was missed

    def _missed_since(self) -> int | None:
        """The message id after which to read; None on the first start, or where reading is turned off."""
        if not self._memory.heard or not self._catch_up:
            return None
        earliest = discord.utils.time_snowflake(self._clock() - self._catch_up)
        return max(self._memory.heard, earliest)

    async def _read_missed(self, since: int) -> None:
        """Bring what was written while we were away. What was heard before is recognized by its delivery id."""
        missed: list[discord.Message] = []
        for channel in self._talked_in(since):
            try:
                async for message in channel.history(
                    limit=_CATCH_UP_MESSAGES, after=discord.Object(since), oldest_first=True
                ):
                    missed.append(message)
            except (discord.HTTPException, aiohttp.ClientError) as error:
                log.warning("discord.missed_not_read", conversation=channel.id, error=str(error))
        missed.sort(key=lambda message: message.id)
        for message in missed:
            self._memory.begins(message.id)
        await asyncio.gather(*(self._take(message) for message in missed))
        if missed:
            log.info("discord.missed_read", messages=len(missed))

    def _talked_in(self, since: int) -> list[Any]:
        """The channels, threads and direct conversations that have messages after `since`."""
        channels: list[Any] = [
            channel
            for guild in self.guilds
            for channel in [*guild.text_channels, *guild.voice_channels, *guild.threads]
            if (channel.last_message_id or 0) > since
        ]
        return [*channels, *(self.get_partial_messageable(one) for one in self._memory.direct)]

    # interactions

    async def _respond(self, interaction: discord.Interaction[Any], answer: dict[str, Any]) -> None:
        route = Route(
            "POST",
            "/interactions/{webhook_id}/{webhook_token}/callback",
            webhook_id=interaction.id,
            webhook_token=interaction.token,
        )
        try:
            await self.http.request(route, json=answer)
        except (discord.HTTPException, discord.RateLimited, Refused, aiohttp.ClientError) as error:
            # It is committed, and its answer goes out as a message; only the sign that it was taken came too late.
            log.warning(
                "discord.acknowledgement_failed", interaction=interaction.id, error=type(error).__name__
            )


def _question(interaction: discord.Interaction[Any]) -> dict[str, Any] | None:
    """The form that a pressed button opens, or None for a button that is its command."""
    if interaction.type is not discord.InteractionType.component:
        return None
    behind = dict(interaction.data or {}).get("custom_id", "")
    found = asked(str(behind))
    return None if found is None else form(*found, _label(interaction, str(behind)))


def _label(interaction: discord.Interaction[Any], behind: str) -> str:
    rows: list[Any] = list(interaction.message.components) if interaction.message is not None else []
    for row in rows:
        for one in getattr(row, "children", ()):
            if getattr(one, "custom_id", None) == behind:
                return str(one.label or "")
    return ""


def _acknowledgement(interaction: discord.Interaction[Any]) -> dict[str, Any]:
    """A button or form: taken, nothing to show. The slash command: what was asked, for everyone in the channel to see."""
    if interaction.type is not discord.InteractionType.application_command:
        return {"type": 6}
    pieces = split(escape(text_of(dict(interaction.data or {}))), _ECHO, utf16)
    shown = pieces[0] + ("…" if len(pieces) > 1 else "") if pieces else "…"
    return {
        "type": 4,
        "data": {"content": shown, "flags": 4, "allowed_mentions": {"parse": []}},
    }


def _definition(command: dict[str, Any]) -> dict[str, Any]:
    """What of a command is ours to say, without what Discord adds."""
    options: list[dict[str, Any]] = command.get("options") or []
    return {key: command.get(key) for key in ("name", "description", "contexts", "integration_types")} | {
        "options": [
            {
                key: one.get(key)
                for key in ("type", "name", "description", "required", "min_length", "max_length")
            }
            for one in options
        ]
    }


def _remember(kept: OrderedDict[str, str], key: str, value: str) -> None:
    kept[key] = value
    if len(kept) > _REMEMBERED:
        kept.popitem(last=False)
