"""The composition root: reads the settings, plugs adapters into ports, starts and stops everything.

Nothing but the command line imports this module, and nothing else knows which adapter is behind a port. What is not needed before messages
are taken in (the API's framework, the agents of the workflows, the sandbox, the engine) is imported while they are.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog

from codespar.agents import board
from codespar.agents.clockwork import Clockwork
from codespar.agents.following import Follower
from codespar.agents.gathering import Gathering
from codespar.agents.people import new_code
from codespar.agents.project import ProjectAgent
from codespar.agents.turn import Bench
from codespar.agents.turns import Turns
from codespar.agents.understanding import Understanding
from codespar.app import people
from codespar.app.chat import Chat
from codespar.app.hosts import Hosts
from codespar.app.projects import Projects
from codespar.app.sandbox import build_image, make_sandbox
from codespar.app.stopping import Part, cancelled, stop_each
from codespar.channels.base import ChannelAdapter, HttpAnswer, HttpRequest
from codespar.codeindex.base import CodeIndex
from codespar.config import Settings
from codespar.config.private import kept_private
from codespar.domain.base import CodesparError
from codespar.domain.messages import NormalizedMessage
from codespar.domain.people import Person
from codespar.domain.policy import Policy
from codespar.domain.tasks import Thread
from codespar.engine.base import Engine
from codespar.engine.starter import Starter
from codespar.forges.base import Forge
from codespar.models.base import Interpreter
from codespar.screening.screen import Screen
from codespar.store.base import Notice, Outgoing, Project, Unit
from codespar.store.database import Database
from codespar.web.bus import Bus
from codespar.web.metrics import Metrics

if TYPE_CHECKING:
    from codespar.app.housekeeping import Housekeeping
    from codespar.app.workers import Workers
    from codespar.engine.durable import DurableEngine

__all__ = ["App", "build_image", "make_sandbox", "now"]

log = structlog.get_logger(__name__)

OWNER_CODE = timedelta(hours=24)  # how long the code that a first start prints counts
PART_SECONDS = 5.0  # within which each part ends
STORE_SECONDS = 15.0  # the store commits what it was given before it ends


def now() -> datetime:
    return datetime.now(UTC)


class App:
    """The running platform: what `codespar.web` calls the house."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.data_dir.resolve()
        self.bus = Bus()
        url = settings.database_url or f"sqlite:///{self.folder / 'codespar.sqlite'}"
        self.store = Database(url, lock_folder=self.folder)
        self.store.on_commit = self.bus.publish
        self.screen = Screen(
            own_hosts=(socket.gethostname(),), allowed_hosts=settings.screening.allowed_hosts
        )
        self.store.screen = self.screen.screen_response
        self.hosts = Hosts(settings, self.store, self.folder, now, os.environ)
        self.projects = Projects(settings, self.store, self.hosts, self.folder, now)
        self.folder.mkdir(parents=True, exist_ok=True)
        own_token = kept_private(self.folder / "cli-token", lambda: f"cs_{secrets.token_urlsafe(32)}")
        self._people = people.token_holders(settings, os.environ, own_token)
        self._policy = settings.policies.policy()
        self._interpreter: Interpreter | None = None
        self.follower = Follower(self.forge, self.index)
        self.chat = Chat(settings, self.store, now, os.environ, self.projects.aliases, self._host_channels())
        self.clockwork = Clockwork(settings, self.store, now)
        bench = Bench(workshop=self.projects.workshop, policy=self.policy, aliases=self.projects.aliases)
        gathering = Gathering(
            self.store,
            self.forge,
            self.index,
            now,
            keep=self.chat.locker.keep,
            link=self.projects.link_from_chat,
            screening=self.screen,
        )
        self.project_agent = ProjectAgent(self.store, bench, gathering, self._understanding())
        self.turns = Turns(self.store, self.project_agent, now)
        self.metrics_page = Metrics()
        self.chat.desk.on_ignored = self.metrics_page.ignored
        self.chat.on_delivered = self.metrics_page.delivered
        self._workers: Workers | None = None
        self._engine: Engine | None = None
        self._starter: Starter | None = None
        self._image: asyncio.Task[None] | None = None
        self._housekeeping: Housekeeping | None = None
        self._chatting: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._why_not: str | None = "starting"

    def _host_channels(self) -> dict[str, ChannelAdapter]:
        """The code host's comments as a channel, where there is one."""
        if self.settings.github is None:
            return {}
        from codespar.channels.github.adapter import GithubChannel  # most installations that try it use none

        channel = GithubChannel(self.hosts.of_repository)
        self.hosts.hear = channel.take
        return {"github": channel}

    def _understanding(self) -> Understanding | None:
        """What turns plain language into commands, where a model is configured for it."""
        if self.settings.model.understanding is None:
            return None
        from codespar.models.interpreter import ModelInterpreter  # most installations use none

        self._interpreter = ModelInterpreter(
            self.settings.model,
            os.environ,
            on_use=lambda use: log.info("understanding.used", **use.model_dump(mode="json")),
        )
        return Understanding(self._interpreter)

    # the house, as the web sees it

    def person_of(self, token: str) -> Person | None:
        return self._people.get(people.hash_of(token)) if token else None

    def policy(self) -> Policy:
        return self._policy

    async def channel_request(self, channel: str, request: HttpRequest) -> HttpAnswer:
        return await self.chat.answer(channel, request)

    def channel_states(self) -> dict[str, str]:
        return dict(self.chat.states)

    def ready(self) -> str | None:
        return self._why_not

    def metrics(self) -> bytes:
        return self.metrics_page.render()

    def project_names(self) -> list[str]:
        return self.projects.names()

    def forge(self, project: str) -> Forge:
        return self.projects.forge(project)

    def index(self, project: str) -> CodeIndex:
        return self.projects.index(project)

    async def link(self, name: str, repository: str, by: Person) -> Project:
        return await self.projects.link(name, repository, by)

    async def webhook(self, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        return await self.hosts.webhook(headers, body)

    async def register_webhook(self, project: str, url: str) -> str:
        self.projects.settings_of(project)
        return await self.hosts.register_webhook(project, url)

    def how_watched(self, project: str) -> str:
        self.projects.settings_of(project)
        return self.hosts.how(project)

    async def take_in(
        self,
        project: str,
        person: Person,
        thread: Thread,
        message: NormalizedMessage,
        *,
        wait: bool = True,
    ) -> tuple[int, Sequence[Outgoing]]:
        self.projects.settings_of(project)
        body = {"message": message.wire(), "person": person.id, "thread": thread.wire()}

        def accept(unit: Unit) -> tuple[int, bool]:
            return unit.accept(message.channel, message.id, project, body, message.timestamp)

        incoming, new = await self.store.write(accept)
        if not wait:
            return incoming, ()
        if not new:
            return incoming, await self.turns.answered(incoming)
        return incoming, await self.turns.expect(incoming)

    async def record_delivery(self, source: str, delivery: str, body: str) -> bool:
        """Keep a webhook's delivery. Which agent acts on it comes with the source's own adapter."""
        at = now()

        def write(unit: Unit) -> bool:
            return unit.accept(f"webhook:{source}", delivery, "", body, at, done=True)[1]

        return await self.store.write(write)

    # life

    async def start(self) -> None:
        """Open everything. When this returns, messages are taken in."""
        await self.store.open()
        at = now()
        code = await self.store.write(lambda unit: self._set_up(unit, at))
        if code is not None:
            hours = int(OWNER_CODE.total_seconds() // 3600)
            sys.stderr.write(  # to whoever started the server, and not to a log: it makes its sender the owner
                f"\nNo owner is known on chat yet. Within {hours} h, send this to the bot in a direct message:\n\n    register {code}\n\n"
            )
        await self.projects.load()
        self._listen()
        await self.turns.start()
        self._chatting = asyncio.create_task(self.chat.start(), name="chat")
        for name in self.projects.names():
            self._open_host(name)
        self.hosts.start()
        self.clockwork.start()
        self._why_not = None

    async def start_engine(self) -> None:
        """Open the durable engine, which goes on with what was under way, and remove containers nobody answers for."""
        url = f"sqlite:///{self.folder / 'engine.sqlite'}"
        if ours := self.settings.database_url:
            from codespar.store.sibling import engine_database

            url = await engine_database(ours)
        # the imports take as long as the start before: requests are answered meanwhile
        make_workers, make_engine = await asyncio.to_thread(_import_workers)
        workers = self._workers = make_workers(
            self.settings, self.store, self.projects, self.screen, now, self.chat.locker.path
        )
        self.bus.on("task", lambda notice: workers.tasks.nudge(notice.key))
        self.bus.on("review", workers.reviews.on_review)
        engine = make_engine(url)
        workers.register(engine)
        await workers.sweep()
        await engine.open()
        self._engine = engine
        self._starter = Starter(self.store, engine, now)
        self._starter.start()
        await asyncio.to_thread(self.screen.load)
        self._image = asyncio.create_task(workers.prepare_image(), name="image")
        self._housekeeping = workers.housekeeping(self.chat.locker, self.metrics_page.removed)
        self._housekeeping.start(self._image)

    async def stop(self, seconds: float = PART_SECONDS) -> list[str]:
        """Stop everything, what brings work first and the store last; each part has so many seconds. Returns what did not end, which is
        logged."""
        self._why_not = "stopping"
        self.bus.close()
        parts: list[Part] = [
            ("clockwork", self.clockwork.stop),
            ("code hosts", self.hosts.stop),
            ("following", self.follower.stop),
            ("image", lambda: cancelled(self._image)),
            ("connecting", lambda: cancelled(self._chatting)),
            ("chat", self.chat.stop),
        ]
        if self._housekeeping:
            parts.append(("housekeeping", self._housekeeping.stop))
        if self._starter:
            parts.append(("starter", self._starter.stop))
        parts += [("turns", self.turns.stop), ("names", lambda: cancelled(self._refreshing))]
        if self._engine:
            parts.append(("engine", self._engine.close))
        if self._interpreter:
            parts.append(("understanding", self._interpreter.close))
        if self._workers:
            parts += self._workers.parts()
        parts += [(f"index of {name}", index.close) for name, index in self.projects.indexes.items()]
        left = await stop_each(parts, seconds)
        return left + await stop_each([("store", self.store.close)], STORE_SECONDS)

    def _set_up(self, unit: Unit, at: datetime) -> str | None:
        """Bring the store to what codespar.yaml says. Returns a code for the owner where no chat platform knows one yet."""
        self.projects.write_down(unit, at)
        people.write_down(unit, self.settings, at)
        board.restart(unit, at)
        if not self.settings.channels.configured() or people.owner_is_known_on_chat(unit):
            return None
        owner = people.host_owner(self.settings)
        return new_code(unit, owner.id, "codespar up", at, OWNER_CODE)

    def _listen(self) -> None:
        """From now on, every commit tells whom it concerns."""
        self.bus.on("inbox", lambda notice: None if notice.body["done"] else self.turns.wake(notice.project))
        self.bus.on("intent", lambda _notice: self._starter.wake() if self._starter else None)
        self.bus.on("message", self.chat.on_message)
        self.bus.on("announcement", self.chat.on_announcement)
        self.bus.on("names", self._refresh_names)
        self.bus.on("push", self.follower.on_push)
        self.bus.on("published", lambda notice: self.hosts.look_soon(notice.project))
        for kind in ("inbox", "message", "intent", "task"):
            self.bus.on(kind, lambda notice: self.metrics_page.count(notice.kind))
        self.projects.on_linked = self._begin_with

    def _refresh_names(self, _notice: Notice) -> None:
        self._refreshing = asyncio.create_task(self.projects.refresh_names(), name="names")

    def _begin_with(self, project: str) -> None:
        self.hosts.watch(project)
        self.follower.follow(project)

    def _open_host(self, name: str) -> None:
        """A project whose code host cannot be had (no credentials, say) keeps nothing else from working."""
        try:
            self.forge(name)
        except CodesparError as error:
            log.error("forge.unusable", project=name, error=str(error))


def _import_workers() -> tuple[type[Workers], type[DurableEngine]]:
    from codespar.app.workers import Workers
    from codespar.engine.durable import DurableEngine

    return Workers, DurableEngine
