"""Tells places what nobody there asked for: at the right time, gathered, and never too often.

What is to be told is kept in the transaction that made it news; when it is told is decided by the rules, from the store alone, so that a
restart forgets nothing and tells nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from codespar.agents import requests
from codespar.domain.messages import NormalizedResponse
from codespar.domain.notifications import AlertKind, Place, Plan, Rules, digest, due, told_key
from codespar.domain.tasks import Thread
from codespar.store.base import Store, Unit

log = structlog.get_logger(__name__)
HOUR = timedelta(hours=1)
LOOK = 30.0  # seconds between looks at what waits, when nothing new arrives
MOST = 500  # announcements of one place taken up together


def announce(
    unit: Unit,
    project: str,
    kind: AlertKind,
    card: NormalizedResponse,
    key: str,
    now: datetime,
    *,
    critical: bool = False,
    standing: bool = False,
    but: tuple[str, str] | None = None,
) -> None:
    """Have every place of the project that takes this kind told. `but` leaves out one conversation: the one that knows already.

    What is `standing` can be changed by `amend` under the same key.
    """
    for place in places_of(unit, project, kind):
        if (place.channel, place.conversation) != but:
            unit.announce(project, place.key, _key(key, place.key), kind, critical, card, now, standing)


def amend(unit: Unit, project: str, card: NormalizedResponse, key: str, now: datetime) -> bool:
    """Put a card in the place of a standing announcement wherever that was told. False when it was told nowhere."""
    places = {place.key for place in places_of(unit, project, AlertKind.ALL, whatever=True)}
    changed = [unit.amend(_key(key, place), card, now) for place in sorted(places)]
    return any(changed)


def places_of(unit: Unit, project: str, kind: AlertKind, *, whatever: bool = False) -> list[Place]:
    """Where the project's people are told of this kind: its conversations, and its channel in every terminal. `whatever`: all of them."""
    terminal = Place(channel="cli", conversation=project, alerts=(AlertKind.ALL,))
    places = [terminal, *(route.place for route in unit.routes(project) if route.source != "host")]
    return [place for place in places if whatever or place.takes(kind)]


def _key(key: str, place: str) -> str:
    return f"{key}:{hashlib.sha256(place.encode()).hexdigest()[:16]}"


class Announcer:
    def __init__(self, store: Store, rules: Rules, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._rules = rules
        self._clock = clock
        self._news = asyncio.Event()
        self._working: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._working = asyncio.create_task(self._work(), name="announcer")

    async def stop(self) -> None:
        if self._working:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    def wake(self) -> None:
        """There is something to be told."""
        self._news.set()

    async def _work(self) -> None:
        while True:
            self._news.clear()
            wait = LOOK
            try:
                for place in await self._store.read(lambda unit: unit.places_waiting()):
                    next_at = await self._tell(place)
                    if next_at is not None:
                        wait = min(wait, max(0.05, (next_at - self._clock()).total_seconds()))
            except Exception as error:
                log.error("announcer.failed", error=str(error), exc_info=True)
            try:
                async with asyncio.timeout(wait):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _tell(self, place: str) -> datetime | None:
        now = self._clock()
        thread = Thread.of(place)

        def write(unit: Unit) -> Plan:
            found = unit.announcements(place, MOST)
            moot = {one.id: one for one in found if requests.is_moot(unit, one, now)}
            unit.withdraw([*moot.values()])
            waiting = [one for one in found if one.id not in moot]
            plan = due(waiting, unit.told_at(place, now - HOUR), self._rules, thread.channel, now)
            for number, batch in enumerate(plan.messages):
                at = now + timedelta(microseconds=number)  # told apart, so that each counts under the limit
                unit.tell(batch, at)
                if batch[0].card is not None:
                    requests.tell_card(unit, batch[0], now)
                    continue
                card = digest(batch, self._rules.local)
                unit.say(batch[0].project, thread, told_key(batch[0].id), card, now)
            return plan

        return (await self._store.write(write)).next_at
