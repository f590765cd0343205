"""The composition root: reads the settings, plugs adapters into ports, starts and stops everything.

Nothing but the command line imports this module, and nothing else knows which adapter is behind a port.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import secrets
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from codespar.agents import board, builds, reviews
from codespar.agents.builds import BuildTools, BuildWatch
from codespar.agents.clockwork import Clockwork
from codespar.agents.evidence import Sources
from codespar.agents.following import Follower
from codespar.agents.people import new_code
from codespar.agents.project import ProjectAgent
from codespar.agents.pullwork import PullWork
from codespar.agents.review import ReviewAgent, ReviewTools
from codespar.agents.task import TaskAgent
from codespar.agents.turn import Bench
from codespar.agents.turns import Turns
from codespar.agents.understanding import Understanding
from codespar.agents.workshop import Tools, Workshop
from codespar.app import people
from codespar.app.chat import Chat
from codespar.app.hosts import Hosts
from codespar.app.linked import github_name, is_full_name
from codespar.channels.base import HttpAnswer, HttpRequest
from codespar.channels.github.adapter import GithubChannel
from codespar.codeindex.base import CodeIndex
from codespar.codeindex.index import SqliteCodeIndex
from codespar.config import ProjectSettings, Settings
from codespar.domain.agents import AgentKind, AgentState
from codespar.domain.base import CodesparError
from codespar.domain.messages import NormalizedMessage
from codespar.domain.people import Person
from codespar.domain.policy import Policy
from codespar.domain.reviews import ReviewState
from codespar.domain.tasks import MICROS, Thread
from codespar.engine.base import Engine
from codespar.engine.starter import Starter
from codespar.forges.base import Forge
from codespar.git import without_credentials
from codespar.models.base import Interpreter, Reviewer
from codespar.sandbox.analysers import SandboxAnalysers
from codespar.sandbox.base import EnvironmentSetup
from codespar.sandbox.docker import DockerSandbox
from codespar.sandbox.gateway import Gateway
from codespar.screening.screen import Screen
from codespar.signals.base import Advisories
from codespar.store.base import Notice, Outgoing, Project, Route, Unit
from codespar.store.database import Database
from codespar.web.base import NoSuchProject
from codespar.web.bus import Bus
from codespar.web.metrics import Metrics

log = structlog.get_logger(__name__)


OWNER_CODE = timedelta(hours=24)  # how long the code that a first start prints counts


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
        self._forges: dict[str, Forge] = {}
        self._indexes: dict[str, CodeIndex] = {}
        self._workshops: dict[str, Workshop] = {}
        self._projects: dict[str, ProjectSettings] = {project.name: project for project in settings.projects}
        self._aliases = settings.aliases()
        self.folder.mkdir(parents=True, exist_ok=True)
        own_token = _kept(self.folder / "cli-token", lambda: f"cs_{secrets.token_urlsafe(32)}")
        self._people = people.token_holders(settings, os.environ, own_token)
        self.sandbox = make_sandbox(settings)
        model = settings.model
        self.gateway = Gateway(
            model.base_url, model.api_key(os.environ), key_name=model.api_key_env if model.needs_key else None
        )
        tools = Tools(
            store=self.store,
            sandbox=self.sandbox,
            gateway=self.gateway,
            screening=self.screen,
            workshop=self.workshop,
            clock=now,
            folder=self.folder / "tasks",
            attachment=lambda sha256: self.chat.locker.path(sha256),
        )
        self.task_agent = TaskAgent(tools)
        self._policy = settings.policies.policy()
        self._interpreter: Interpreter | None = None
        self._reviewer = self._make_reviewer()
        self._advisories = self._make_advisories()
        self.review_agent = ReviewAgent(
            ReviewTools(
                store=self.store,
                forge=self.forge,
                sources=self._sources,
                analysers=SandboxAnalysers(self.sandbox),
                sandbox=self.sandbox,
                reviewer=self._reviewer,
                advisories=self._advisories,
                screening=self.screen,
                settings=settings.reviews,
                policy=self.policy,
                clock=now,
                folder=self.folder / "reviews",
            )
        )
        self.pull_work = PullWork(self.store, self.forge, now)
        self.build_watch = BuildWatch(
            BuildTools(
                store=self.store,
                forge=self.forge,
                workshop=self.workshop,
                policy=self.policy,
                screening=self.screen,
                clock=now,
            )
        )
        self.follower = Follower(self.forge, self.index)
        self.github_channel = GithubChannel(self.hosts.of_repository)
        extra = {"github": self.github_channel} if settings.github is not None else {}
        self.chat = Chat(settings, self.store, now, os.environ, lambda: self._aliases, extra)
        self.clockwork = Clockwork(settings, self.store, now)
        self.project_agent = ProjectAgent(
            self.store,
            Bench(workshop=self.workshop, policy=self.policy, aliases=lambda: self._aliases),
            self.forge,
            self.index,
            now,
            keep=self.chat.locker.keep,
            link=self._link_from_chat,
            understanding=self._understanding(),
        )
        self.turns = Turns(self.store, self.project_agent, now)
        self.metrics_page = Metrics()
        self.chat.desk.on_ignored = self.metrics_page.ignored
        self.chat.on_delivered = self.metrics_page.delivered
        self._engine: Engine | None = None
        self._starter: Starter | None = None
        self._image: asyncio.Task[None] | None = None
        self._chatting: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._why_not: str | None = "starting"

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
        return sorted(self._projects)

    def forge(self, project: str) -> Forge:
        if project not in self._forges:
            self._forges[project] = self.hosts.make(self._settings_of(project))
        return self._forges[project]

    def index(self, project: str) -> CodeIndex:
        if project not in self._indexes:
            self._settings_of(project)
            folder = self.folder / "index"
            folder.mkdir(parents=True, exist_ok=True)
            self._indexes[project] = SqliteCodeIndex(folder / f"{project}.sqlite")
        return self._indexes[project]

    def workshop(self, project: str) -> Workshop:
        if project not in self._workshops:
            self._workshops[project] = self._furnish(project)
        return self._workshops[project]

    def _furnish(self, project: str) -> Workshop:
        settings = self._settings_of(project)
        return Workshop(
            name=project,
            repository=without_credentials(settings.repository),
            model=self.settings.model.name,
            max_tasks=settings.max_concurrent_tasks,
            limits=settings.task_limits(self.settings),
            cap=self.settings.task_caps(),
            answer_seconds=self.settings.policies.budget.answer_within,
            blocked_paths=settings.blocked_paths,
            forge=self.forge(project),
            index=self.index(project),
        )

    async def link(self, name: str, repository: str, by: Person) -> Project:
        """Link a repository: check that it can be worked on, then keep it."""
        known = await self.store.read(lambda unit: unit.project(name))
        shown = without_credentials(repository)
        if known is not None:
            if known.repository == repository:
                return known
            if known.repository != shown:
                raise CodesparError(
                    f"project {name} is linked to {known.repository}; choose another name, or unlink it first"
                )
        if self.settings.github is None and is_full_name(repository):
            raise CodesparError(
                f"{repository} is no path here, and GitHub is not set up: add `github:` to codespar.yaml (docs/github.md), or give a path or a URL"
            )
        settings = ProjectSettings(name=name, repository=shown)
        try:
            forge = self.hosts.make(settings, repository)
            await forge.sync()
        except CodesparError:
            if name not in self._projects:
                self.hosts.drop(name)
            raise
        self._projects[name] = settings
        self._forges[name] = forge
        self._workshops.pop(name, None)
        self._aliases = {**self._aliases, name: name}
        at = now()

        def write(unit: Unit) -> Project:
            project = self._link(unit, settings, at)
            unit.record(
                at=at,
                actor=by.name,
                action="project.linked",
                project=name,
                subject=name,
                detail={"repository": shown},
            )
            return project

        project = await self.store.write(write)
        self.hosts.watch(name)
        self.follower.follow(name)
        return project

    async def webhook(self, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        return await self.hosts.webhook(headers, body)

    async def register_webhook(self, project: str, url: str) -> str:
        self._settings_of(project)
        return await self.hosts.register_webhook(project, url)

    def how_watched(self, project: str) -> str:
        self._settings_of(project)
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
        if project not in self._projects:
            raise NoSuchProject(f"there is no project {project}")
        body = {"message": message.wire(), "person": person.id, "thread": thread.wire()}

        def accept(unit: Unit) -> tuple[int, bool]:
            return unit.accept(message.channel, message.id, project, body, message.timestamp)

        incoming, new = await self.store.write(accept)
        if not wait:
            return incoming, ()
        if not new:
            return incoming, await self.turns.answered(incoming)
        return incoming, await self.turns.expect(incoming)

    async def _link_from_chat(self, named: str, by: Person) -> tuple[str, str]:
        """A project by any of its names, or a repository by its address, which is made a project if it is none yet."""
        known = await self.store.read(self._know_names)
        if found := known.get(named.lower()):
            return found, self._settings_of(found).repository
        if not re.fullmatch(r"(https?|ssh)://\S+|[\w.-]+@[\w.-]+:\S+", named) and not github_name(
            named, self.settings
        ):
            names = ", ".join(sorted(set(known.values()))) or "none yet"
            raise CodesparError(
                f"`{named[:100]}` is neither a project ({names}) nor the address of a repository; a path on the server is linked in "
                "codespar.yaml or with `codespar link` there"
            )
        name = re.sub(
            r"[^a-z0-9]+", "-", named.rstrip("/").removesuffix(".git").rsplit("/", 1)[-1].lower()
        ).strip("-")[:60]
        project = await self.link(name or "project", named, by)
        return project.name, project.repository

    def _refresh_names(self, _notice: Notice) -> None:
        async def refresh() -> None:
            self._aliases = await self.store.read(self._know_names)

        self._refreshing = asyncio.create_task(refresh(), name="names")

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

    def _make_reviewer(self) -> Reviewer | None:
        """The model that reviews, where one is configured."""
        if self.settings.model.review is None:
            return None
        from codespar.models.reviewer import ModelReviewer  # most installations use none

        return ModelReviewer(
            self.settings.model,
            os.environ,
            on_use=lambda use: log.info("review.used", **use.model_dump(mode="json")),
            budget_micros=round(self.settings.reviews.budget * MICROS),
        )

    def _make_advisories(self) -> Advisories | None:
        if self.settings.reviews.advisories is None:
            return None
        from codespar.signals.osv import OsvAdvisories

        return OsvAdvisories(self.settings.reviews.advisories)

    def _sources(self, project: str, conventions: tuple[str, ...]) -> Sources:
        """Where the facts of a review come from."""
        return Sources(
            forge=self.forge(project),
            index=self.index(project),
            conventions=conventions,
            own=lambda pull: pull.branch.startswith("codespar/task-") and not pull.fork,
            limits=self._settings_of(project).task_limits(self.settings),
        )

    async def record_delivery(self, source: str, delivery: str, body: str) -> bool:
        """Keep a webhook's delivery. Which agent acts on it comes with the source's own adapter."""
        at = now()

        def write(unit: Unit) -> bool:
            return unit.accept(f"webhook:{source}", delivery, "", body, at, done=True)[1]

        return await self.store.write(write)

    # life

    async def start(self) -> None:
        """Open everything. When this returns, messages are taken in."""
        self.folder.mkdir(parents=True, exist_ok=True)
        await self.store.open()
        at = now()
        code = await self.store.write(lambda unit: self._set_up(unit, at))
        if code is not None:
            hours = int(OWNER_CODE.total_seconds() // 3600)
            sys.stderr.write(  # to whoever started the server, and not to a log: it makes its sender the owner
                f"\nNo owner is known on chat yet. Within {hours} h, send this to the bot in a direct message:\n\n    register {code}\n\n"
            )
        self._aliases = await self.store.read(self._know_names)
        for project in await self.store.read(lambda unit: unit.projects()):
            if project.name not in self._projects:
                self._projects[project.name] = ProjectSettings(
                    name=project.name, repository=project.repository
                )
        self.bus.on("inbox", lambda notice: None if notice.body["done"] else self.turns.wake(notice.project))
        self.bus.on("task", lambda notice: self.task_agent.nudge(notice.key))
        self.bus.on("intent", self._wake_starter)
        self.bus.on("message", self.chat.on_message)
        self.bus.on("announcement", self.chat.on_announcement)
        self.bus.on("names", self._refresh_names)
        self.bus.on("push", self.follower.on_push)
        self.bus.on("review", self.review_agent.on_review)
        self.bus.on("published", lambda notice: self.hosts.look_soon(notice.project))
        for kind in ("inbox", "message", "intent", "task"):
            self.bus.on(kind, lambda notice: self.metrics_page.count(notice.kind))
        await self.turns.start()
        self._chatting = asyncio.create_task(self.chat.start(), name="chat")
        for name in self._projects:
            self._open_host(name)
        self.hosts.hear = self.github_channel.take
        self.hosts.start()
        self.clockwork.start()
        self._why_not = None

    def _open_host(self, name: str) -> None:
        """A project whose code host cannot be had (no credentials, say) keeps nothing else from working."""
        try:
            self.forge(name)
        except CodesparError as error:
            log.error("forge.unusable", project=name, error=str(error))

    async def start_engine(self) -> None:
        """Open the durable engine, which goes on with what was under way, and remove containers nobody answers for."""
        url = f"sqlite:///{self.folder / 'engine.sqlite'}"
        if ours := self.settings.database_url:
            from codespar.store.sibling import engine_database

            url = await engine_database(ours)
        # its import takes half a second: requests are answered meanwhile
        durable = await asyncio.to_thread(importlib.import_module, "codespar.engine.durable")
        engine: Engine = durable.DurableEngine(url)
        engine.register(board.WORKFLOW, self.task_agent.run)
        engine.register("merge", self.pull_work.merge)
        engine.register(reviews.WORKFLOW, self.review_agent.run)
        engine.register(reviews.APPROVAL, self.pull_work.approve)
        engine.register(builds.WORKFLOW, self.build_watch.run)
        await self._sweep()
        await engine.open()
        self._engine = engine
        self._starter = Starter(self.store, engine, now)
        self._starter.start()
        await asyncio.to_thread(self.screen.load)
        self._image = asyncio.create_task(self.prepare_image(), name="image")

    async def prepare_image(self) -> None:
        """Have the standard task image ready before the first task needs it."""
        try:
            await self.sandbox.ensure_image(
                project="", base_commit="", setup=EnvironmentSetup(), read_file=no_file, say=log.info
            )
        except CodesparError as error:
            log.warning("sandbox.unavailable", error=str(error))

    async def stop(self) -> None:
        self._why_not = "stopping"
        self.bus.close()
        await self.clockwork.stop()
        await self.hosts.stop()
        await self.follower.stop()
        if self._image:
            self._image.cancel()
            await asyncio.gather(self._image, return_exceptions=True)
        if self._chatting:
            await asyncio.gather(self._chatting, return_exceptions=True)
            await self.chat.stop()
        if self._starter:
            await self._starter.stop()
        await self.turns.stop()
        if self._engine:
            await self._engine.close()
        if self._interpreter is not None:
            await self._interpreter.close()
        if self._reviewer is not None:
            await self._reviewer.close()
        if self._advisories is not None:
            await self._advisories.close()
        await self.gateway.close_all()
        await self.sandbox.close()
        for index in self._indexes.values():
            await index.close()
        await self.store.close()

    async def _sweep(self) -> None:
        """Containers of tasks that have ended are removed; those of running tasks stay, to be adopted."""

        def alive(unit: Unit) -> set[str]:
            names: set[str] = set()
            for project in unit.projects():
                for task in unit.open_tasks(project.name):
                    names |= {
                        f"codespar-{task.id}-{task.attempt}",
                        f"codespar-{task.id}-{task.attempt}-verify",
                    }
                for review in unit.reviews(project.name, limit=500):
                    if review.state is ReviewState.RUNNING:
                        names |= {reviews.container(review), f"{reviews.container(review)}-own"}
            return names

        try:
            removed = await self.sandbox.sweep(await self.store.read(alive))
        except CodesparError as error:
            log.warning("sandbox.unavailable", error=str(error))
            return
        if removed:
            log.info("sandbox.swept", containers=removed)

    def _wake_starter(self, _notice: Notice) -> None:
        if self._starter:
            self._starter.wake()

    def _set_up(self, unit: Unit, at: datetime) -> str | None:
        """Bring the store to what codespar.yaml says. Returns a code for the owner where no chat platform knows one yet."""
        for settings in self.settings.projects:
            self._link(unit, settings, at)
        people.write_down(unit, self.settings, at)
        board.restart(unit, at)
        if not self.settings.channels.configured() or people.owner_is_known_on_chat(unit):
            return None
        owner = people.host_owner(self.settings)
        return new_code(unit, owner.id, "codespar up", at, OWNER_CODE)

    def _know_names(self, unit: Unit) -> dict[str, str]:
        """Every name by which a project can be called: from the file, from commands, and its own."""
        own = {project.name.lower(): project.name for project in unit.projects()}
        return unit.aliases() | own | self.settings.aliases()

    def _link(self, unit: Unit, settings: ProjectSettings, at: datetime) -> Project:
        known = unit.project(settings.name)
        project = Project(
            name=settings.name,
            repository=without_credentials(settings.repository),
            autonomy=known.autonomy if known else settings.autonomy,
            paused=known.paused if known else False,
            created_at=known.created_at if known else at,
        )
        if known != project:
            unit.save_project(project)
        if repository := github_name(settings.repository, self.settings):
            unit.save_route(
                Route(
                    channel="github", conversation=repository, project=settings.name, alerts=(), source="host"
                )
            )
        agent = board.project_agent(settings.name)
        if unit.agent(agent) is None:
            unit.create_agent(agent, AgentKind.PROJECT, settings.name, "project linked", settings.name, at)
            unit.transition(agent, AgentState.IDLE, "ready", settings.name, at)
        return project

    def _settings_of(self, project: str) -> ProjectSettings:
        try:
            return self._projects[project]
        except KeyError:
            raise NoSuchProject(f"there is no project {project}") from None


def _kept(path: Path, make: Callable[[], str]) -> str:
    """What stands in a small file that only this user may read; made when it is not there."""
    try:
        if found := path.read_text().strip():
            return found
    except FileNotFoundError:
        pass
    made = make()
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(made + "\n")
    unfinished.replace(path)
    return made


def make_sandbox(settings: Settings) -> DockerSandbox:
    """The sandbox of this installation, whose containers are told from others' by a name made at first start."""
    folder = settings.data_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = settings.sandbox
    installation = _kept(folder / "installation", lambda: secrets.token_hex(8))
    return DockerSandbox(
        chosen.docker_host, folder, installation, base_image=chosen.base_image, ca_bundle=chosen.ca_bundle
    )


async def build_image(settings: Settings, say: Callable[[str], None]) -> None:
    """Have the standard task image, built if need be. Raises `EngineUnavailable`, `ImageMissing`."""
    sandbox = make_sandbox(settings)
    try:
        await sandbox.ensure_image(
            project="", base_commit="", setup=EnvironmentSetup(), read_file=no_file, say=say
        )
    finally:
        await sandbox.close()


async def no_file(commit: str, path: str) -> bytes | None:
    """The standard image is made from no file of any repository."""
    return None
