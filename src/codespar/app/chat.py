"""The chat platforms of an installation: their adapters connected, what they hear brought in, what is said brought out.

A platform that cannot be reached, or refuses our credentials, is tried again for as long as the server runs, and said to be down: it keeps
nothing else from working, and what is said to it waits in the outbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

import structlog

from codespar.agents import consent
from codespar.agents.announcer import Announcer
from codespar.agents.frontdesk import FrontDesk
from codespar.channels.base import ChannelAdapter, ChannelError, ChannelTools, HttpAnswer, HttpRequest
from codespar.channels.locker import Locker
from codespar.channels.platforms import platforms
from codespar.channels.postman import Postman
from codespar.config import Settings
from codespar.domain.notifications import QuietHours, Rules
from codespar.store.base import Notice, Store

log = structlog.get_logger(__name__)
FIRST, LONGEST = 1.0, 60.0  # seconds between tries to connect
EXPIRY = 2.0  # seconds between looks for approvals whose time is over


def rules_of(settings: Settings) -> Rules:
    """When people may be told what they did not ask for."""
    chosen = settings.notifications
    return Rules(
        per_hour=chosen.per_hour,
        per_hour_of={"whatsapp": chosen.whatsapp_per_hour},
        batch_seconds=chosen.batch,
        quiet=QuietHours.parse(chosen.quiet_hours),
        zone=chosen.time_zone or local_zone_name(),
    )


def local_zone_name() -> str | None:
    """The IANA name of this machine's zone, or None where it has none."""
    import tzlocal

    return tzlocal.get_localzone_name() or None


class Chat:
    """Every adapter, and what serves them all."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Callable[[], datetime],
        environment: Mapping[str, str],
        aliases: Callable[[], Mapping[str, str]],
        others: Mapping[str, ChannelAdapter],
    ) -> None:
        """`others` are channels that are set up by something else than `channels:`: a code host."""
        self._settings = settings
        self._store = store
        self._clock = clock
        self._environment = environment
        self.adapters: dict[str, ChannelAdapter] = dict(others)
        self.states: dict[str, str] = dict.fromkeys((*settings.channels.configured(), *others), "starting")
        self.desk = FrontDesk(store, aliases)
        self.locker = Locker(self.adapters, settings.data_dir / "attachments")
        self.announcer = Announcer(store, rules_of(settings), clock)
        self.postman: Postman | None = None
        self.on_delivered: Callable[[str, float], None] = lambda channel, seconds: None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Make the adapters and begin to connect them. Returns at once: platforms take their time."""
        sections = self._settings.channels.configured()
        known = platforms(sections) if sections else {}
        for name, section in sections.items():
            folder = self._settings.data_dir / "channels" / name
            tools = ChannelTools(self._clock, self._environment, folder)
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                # a platform's library takes up to a few seconds to import: requests are answered meanwhile
                self.adapters[name] = await asyncio.to_thread(known[name].make, section, tools)
            except Exception as error:  # that platform is down, and the others are not
                ours = isinstance(error, ChannelError)
                self.states[name] = str(error) if ours else f"{type(error).__name__}: {error}"
                log.error("channel.unusable", channel=name, error=str(error), exc_info=not ours)
        self.postman = Postman(self._store, self.adapters, self._clock)
        self.postman.on_delivered = self.on_delivered
        self.announcer.start()
        self._tasks = [
            asyncio.create_task(self._connect(name, adapter), name=f"connect-{name}")
            for name, adapter in self.adapters.items()
        ]
        self._tasks.append(asyncio.create_task(self._expire(), name="approvals"))
        self.postman.start()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.announcer.stop()
        if self.postman is not None:
            await self.postman.stop()
        await asyncio.gather(*(self._disconnect(name, adapter) for name, adapter in self.adapters.items()))

    async def _disconnect(self, name: str, adapter: ChannelAdapter) -> None:
        try:
            async with asyncio.timeout(4):  # within what the whole of chat is given
                await adapter.stop()
        except Exception as error:  # noqa: BLE001 - it ends with the process; the others are still to be stopped
            log.warning("channel.stop", channel=name, error=repr(error))

    def on_message(self, notice: Notice) -> None:
        """Something was put into the outbox."""
        if self.postman is not None:
            self.postman.wake(notice.body["message"].thread)

    def on_announcement(self, _notice: Notice) -> None:
        self.announcer.wake()

    async def answer(self, channel: str, request: HttpRequest) -> HttpAnswer:
        """A platform's request to one of our addresses."""
        adapter = self.adapters.get(channel)
        return await adapter.answer(request) if adapter is not None else HttpAnswer(status=404)

    async def _connect(self, name: str, adapter: ChannelAdapter) -> None:
        wait = FIRST
        while True:
            try:
                await adapter.start(self.desk)
            except ChannelError as error:
                self.states[name] = str(error)
                log.error("channel.not_connected", channel=name, error=str(error), again_in=wait)
            except (
                Exception
            ) as error:  # a library's own: the platform is down, and the rest of the server is not
                self.states[name] = f"{type(error).__name__}: {error}"
                log.error("channel.failed", channel=name, error=str(error), again_in=wait, exc_info=True)
            else:
                self.states[name] = "connected"
                log.info("channel.connected", channel=name)
                return
            await asyncio.sleep(wait)
            wait = min(LONGEST, wait * 2)

    async def _expire(self) -> None:
        while True:
            now = self._clock()
            try:
                if await self._store.read(lambda unit, now=now: consent.overdue(unit, now)):
                    await self._store.write(lambda unit, now=now: consent.expire_due(unit, now))
            except Exception as error:  # noqa: BLE001 - nothing counts after its time in any case; the next look tells it
                log.error("approvals.failed", error=str(error))
            await asyncio.sleep(EXPIRY)
