"""Commands that come by the clock: each fires once for a time, and once for all the times that were missed.

What fires is a message in its project's inbox like any other: it is authorized, answered and recorded. Without a person it has the agent's
own rights, which are those of the autonomy level.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from pydantic import JsonValue

from codespar.agents.announcer import places_of
from codespar.agents.turn import TELLING
from codespar.config import Settings
from codespar.config.work import ScheduleSettings
from codespar.domain.commands import Command, parse
from codespar.domain.messages import Author, NormalizedMessage
from codespar.domain.notifications import AlertKind, Place
from codespar.domain.people import Role
from codespar.domain.schedules import due, next_time
from codespar.store.base import PULLED, Store, Unit

log = structlog.get_logger(__name__)
SOURCE = "schedule"  # of what it puts into the inbox
LONGEST = 3600.0  # seconds between two looks at the clock: somebody may set it
AGAIN = 15.0  # seconds after which a look that failed is made again
ASTRAY = timedelta(days=1)  # two servers' clocks do not differ by more; one that was set wrong may


class Clockwork:
    """One for all projects."""

    def __init__(self, settings: Settings, store: Store, clock: Callable[[], datetime]) -> None:
        self._schedules = [
            (project.name, schedule) for project in settings.projects for schedule in project.schedules
        ]
        self._zone = settings.notifications.time_zone
        self._aliases = settings.aliases()
        self._store = store
        self._clock = clock
        self._working: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on. What was missed since a schedule fired last is made up for, once."""
        if self._schedules:
            self._working = asyncio.create_task(self._work(), name="clockwork")

    async def stop(self) -> None:
        if self._working:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    async def look(self) -> float:
        """Fire what is due now. Returns in how many seconds to look again."""
        now = self._clock()
        await self._store.write(lambda unit: self._fire_due(unit, now))
        following = [next_time(one.cron, one.time_zone or self._zone, now) for _, one in self._schedules]
        waits = [(at - self._clock()).total_seconds() for at in following if at is not None]
        return min(LONGEST, max(0.05, min(waits, default=LONGEST)))

    async def _work(self) -> None:
        while True:
            try:
                wait = await self.look()
            except Exception as error:  # what is due stays due; the next look fires it
                log.error("clockwork.failed", error=str(error), exc_info=True)
                wait = AGAIN
            await asyncio.sleep(wait)

    def _fire_due(self, unit: Unit, now: datetime) -> None:
        for project, schedule in self._schedules:
            fired = unit.fired(project, schedule.name)
            if fired is None or fired - now > ASTRAY:
                # new, or the clock was set back: it begins now, and owes nothing of the time before
                unit.save_fired(project, schedule.name, now)
                continue
            found = due(schedule.cron, schedule.time_zone or self._zone, fired, now)
            if found is None:
                continue
            unit.save_fired(project, schedule.name, found.at)
            if found.missed:
                log.info("schedule.made_up_for", project=project, schedule=schedule.name, missed=found.missed)
            self._fire(unit, project, schedule, found.at, now)

    def _fire(
        self, unit: Unit, project: str, schedule: ScheduleSettings, at: datetime, now: datetime
    ) -> None:
        person = unit.person(schedule.by) if schedule.by else None
        if schedule.by and person is None:  # never with the agent's rights instead: those may be more
            log.error("schedule.nobody", project=project, schedule=schedule.name, by=schedule.by)
            detail: dict[str, JsonValue] = {
                "why": f"{schedule.by} is not known any more",
                "run": schedule.run,
            }
            unit.record(
                at=now,
                actor=f"agent-{project}",
                action="schedule.left-out",
                project=project,
                subject=schedule.name,
                detail=detail,
            )
            return
        delivery = f"{project}:{schedule.name}:{at:%Y-%m-%dT%H:%MZ}"
        for number, place in enumerate(self._places(unit, project, schedule.run)):
            message = NormalizedMessage(
                id=delivery if not number else f"{delivery}:{number}",
                channel=place.channel,
                author=Author(
                    id=person.id if person else f"agent-{project}",
                    name=person.name if person else f"agent-{project}",
                    role=person.role if person else Role.READ_ONLY,
                ),
                content=schedule.run,
                timestamp=now,
                metadata={"schedule": schedule.name, "at": at.isoformat()},
            )
            thread = place.thread.evolve(person=person.id if person else None)
            body = {
                "message": message.wire(),
                "person": person.id if person else None,
                "thread": thread.wire(),
            }
            unit.accept(SOURCE, message.id[:200], project, body, now + timedelta(microseconds=number))

    def _places(self, unit: Unit, project: str, run: str) -> list[Place]:
        """Where it is given. What changes something is done once, wherever it is told: where the team talks rather than in the terminal."""
        places = places_of(unit, project, AlertKind.REPORTS)
        command = parse(run, aliases=self._aliases)
        if isinstance(command, Command) and command.name in TELLING:
            return places
        return [min(places, key=lambda place: place.channel in PULLED)]
