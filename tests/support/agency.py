"""A Project Agent at work without a server: the real store, git, forge and index, and a clock that a test sets.

Turns run as they do in the server, so that what a test sees is what people would be told.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from codespar.agents import board
from codespar.agents.gathering import Gathering
from codespar.agents.project import ProjectAgent
from codespar.agents.turn import Bench
from codespar.agents.turns import Turns
from codespar.agents.workshop import Workshop
from codespar.channels.base import Offered
from codespar.codeindex.index import SqliteCodeIndex
from codespar.domain.agents import AgentKind, AgentState
from codespar.domain.base import CodesparError
from codespar.domain.messages import Attachment, Author, NormalizedMessage, NormalizedResponse
from codespar.domain.notifications import AlertKind
from codespar.domain.people import Person, Role
from codespar.domain.policy import Policy
from codespar.domain.tasks import Limits, Thread
from codespar.forges.local import LocalForge
from codespar.screening.screen import Screen
from codespar.store.base import Notice, Project, Route, Unit
from codespar.store.database import Database

AT = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)  # a Monday
PEOPLE = (
    Person(id="ada", name="Ada", role=Role.OWNER),
    Person(id="rex", name="Rex", role=Role.REVIEWER),
)
ROOM = "T1:C1"  # where the team of `shop` talks


class Clock:
    """The time is what the test says."""

    def __init__(self, at: datetime = AT) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def move(self, **by: float) -> datetime:
        self.at += timedelta(**by)
        return self.at


class Agency:
    """One installation with the project `shop`."""

    def __init__(
        self, folder: Path, repository: Path, *, autonomy: int = 1, clock: Clock | None = None
    ) -> None:
        self.folder = folder
        self.clock = clock or Clock()
        self.store = Database(f"sqlite:///{folder / 'codespar.sqlite'}")
        self.store.on_commit = self._hear
        self.forge = LocalForge(folder / "repos" / "shop", str(repository))
        self.index = SqliteCodeIndex(folder / "index.sqlite")
        self.policy = Policy()
        self._autonomy = autonomy
        self._workshop = Workshop(
            name="shop",
            repository=str(repository),
            model="none",
            max_tasks=3,
            limits=Limits(),
            cap=Limits(),
            answer_seconds=3600,
            blocked_paths=(),
            forge=self.forge,
            index=self.index,
        )
        bench = Bench(
            workshop=lambda project: self._workshop,
            policy=lambda: self.policy,
            aliases=lambda: {"shop": "shop"},
        )
        gathering = Gathering(
            self.store,
            lambda project: self.forge,
            lambda project: self.index,
            self.clock,
            keep=self._keep,
            link=self._link,
            screening=Screen(),
        )
        self.agent = ProjectAgent(self.store, bench, gathering)
        self.turns = Turns(self.store, self.agent, self.clock)
        self.listeners: list = []

    async def __aenter__(self) -> Agency:
        (self.folder / "repos").mkdir(parents=True, exist_ok=True)
        await self.store.open()
        await self.store.write(self._set_up)
        await self.turns.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.turns.stop()
        await self.index.close()
        await self.store.close()

    def _set_up(self, unit: Unit) -> None:
        now = self.clock()
        if unit.project("shop") is None:
            unit.save_project(
                Project(name="shop", repository="/srv/shop", autonomy=self._autonomy, created_at=now)
            )
            agent = board.project_agent("shop")
            unit.create_agent(agent, AgentKind.PROJECT, "shop", "project linked", "shop", now)
            unit.transition(agent, AgentState.IDLE, "ready", "shop", now)
            for person in PEOPLE:
                unit.save_member(person, "file")

    async def route(
        self, conversation: str = ROOM, *alerts: AlertKind, channel: str = "slack", source: str = "file"
    ) -> Thread:
        """A place of the project, and its thread."""
        made = Route(channel=channel, conversation=conversation, project="shop", alerts=alerts, source=source)
        await self.store.write(lambda unit: unit.save_route(made))
        return Thread(channel=channel, conversation=conversation)

    def _hear(self, notices: list[Notice]) -> None:
        for notice in notices:
            if notice.kind == "inbox" and not notice.body["done"]:
                self.turns.wake(notice.project)
            for listener in self.listeners:
                listener(notice)

    async def _keep(self, channel: str, offered: tuple[Offered, ...]) -> tuple[Attachment, ...]:
        return ()

    async def _link(self, named: str, by: Person) -> tuple[str, str]:
        raise CodesparError(f"{named} is not linked here")

    async def quiet(self) -> None:
        """Wait until every message that was committed has had its turn."""
        while await self.store.read(lambda unit: unit.projects_with_pending()):  # noqa: ASYNC110 - the store is asked
            await asyncio.sleep(0.01)

    async def say(self, text: str, *, by: str = "ada", id: str | None = None) -> list[NormalizedResponse]:
        """A person gives a command in a terminal; its answers."""
        self._said = getattr(self, "_said", 0) + 1
        person = next(one for one in PEOPLE if one.id == by)
        message = NormalizedMessage(
            id=id or f"said-{self._said}",
            channel="cli",
            author=Author(id=by, name=person.name, role=person.role),
            content=text,
            timestamp=self.clock(),
        )
        thread = Thread(channel="cli", conversation="shop", thread_id="t", person=by)
        body = {"message": message.wire(), "person": by, "thread": thread.wire()}
        incoming, _ = await self.store.write(
            lambda unit: unit.accept("cli", message.id, "shop", body, self.clock())
        )
        return [sent.response for sent in await self.turns.answered(incoming)]

    async def told(self, thread: Thread | None = None) -> list[NormalizedResponse]:
        """Everything that was put into the outbox for a thread, or for all."""
        found = await self.store.read(lambda unit: unit.messages(thread.key if thread else None, 0, 1000))
        return [sent.response for sent in found]

    async def audit(self, action: str) -> list[dict]:
        entries = await self.store.read(lambda unit: unit.audit_entries(1000, "shop"))
        return [entry for entry in entries if entry["action"] == action]
