"""The linked projects: what each is called, where its code is, and what its agents work with; linking one more."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from codespar.agents import board
from codespar.agents.workshop import Workshop
from codespar.app.hosts import Hosts
from codespar.app.linked import is_full_name
from codespar.codeindex.base import CodeIndex
from codespar.codeindex.index import SqliteCodeIndex
from codespar.config import ProjectSettings, Settings
from codespar.domain.agents import AgentKind, AgentState
from codespar.domain.base import CodesparError
from codespar.domain.people import Person
from codespar.domain.tasks import Limits
from codespar.forges.base import Forge
from codespar.git import without_credentials
from codespar.store.base import Project, Route, Store, Unit
from codespar.web.base import NoSuchProject

_ADDRESS = re.compile(r"(https?|ssh)://\S+|[\w.-]+@[\w.-]+:\S+")


class Projects:
    """Those of codespar.yaml, and those that were linked by command. `on_linked` hears of one that was linked just now."""

    def __init__(
        self, settings: Settings, store: Store, hosts: Hosts, folder: Path, clock: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._store = store
        self._hosts = hosts
        self._folder = folder / "index"
        self._clock = clock
        self._known: dict[str, ProjectSettings] = {project.name: project for project in settings.projects}
        self._aliases = settings.aliases()
        self._workshops: dict[str, Workshop] = {}
        self.indexes: dict[str, CodeIndex] = {}
        self.on_linked: Callable[[str], None] = lambda project: None

    # names

    def names(self) -> list[str]:
        return sorted(self._known)

    def aliases(self) -> dict[str, str]:
        """Lower-case names by which people call the projects."""
        return self._aliases

    def settings_of(self, project: str) -> ProjectSettings:
        """Raises `NoSuchProject`."""
        try:
            return self._known[project]
        except KeyError:
            raise NoSuchProject(f"there is no project {project}") from None

    async def load(self) -> None:
        """Read what was linked and named by command."""
        for project in await self._store.read(lambda unit: unit.projects()):
            if project.name not in self._known:
                self._known[project.name] = ProjectSettings(name=project.name, repository=project.repository)
        await self.refresh_names()

    async def refresh_names(self) -> None:
        self._aliases = await self._store.read(self._names)

    def _names(self, unit: Unit) -> dict[str, str]:
        """Every name by which a project can be called: from the file, from commands, and its own."""
        own = {project.name.lower(): project.name for project in unit.projects()}
        return unit.aliases() | own | self._settings.aliases()

    # what agents work with

    def forge(self, project: str) -> Forge:
        """Raises `NoSuchProject`, `AccessLost`."""
        return self._hosts.forge(self.settings_of(project))

    def index(self, project: str) -> CodeIndex:
        """Raises `NoSuchProject`."""
        if project not in self.indexes:
            self.settings_of(project)
            self._folder.mkdir(parents=True, exist_ok=True)
            self.indexes[project] = SqliteCodeIndex(self._folder / f"{project}.sqlite")
        return self.indexes[project]

    def limits(self, project: str) -> Limits:
        """Of the project's tasks. Raises `NoSuchProject`."""
        return self.settings_of(project).task_limits(self._settings)

    def workshop(self, project: str) -> Workshop:
        """Raises `NoSuchProject`, `AccessLost`."""
        if project not in self._workshops:
            self._workshops[project] = self._furnish(self.settings_of(project))
        return self._workshops[project]

    def _furnish(self, project: ProjectSettings) -> Workshop:
        return Workshop(
            name=project.name,
            repository=without_credentials(project.repository),
            model=self._settings.model.name,
            max_tasks=project.max_concurrent_tasks,
            limits=project.task_limits(self._settings),
            cap=self._settings.task_caps(),
            answer_seconds=self._settings.policies.budget.answer_within,
            blocked_paths=project.blocked_paths,
            forge=self.forge(project.name),
            index=self.index(project.name),
        )

    # linking

    async def link(self, name: str, repository: str, by: Person) -> Project:
        """Link a repository: check that it can be worked on, then keep it. Raises `CodesparError`, after which all is as before."""
        known = await self._store.read(lambda unit: unit.project(name))
        shown = without_credentials(repository)
        if known is not None:
            if known.repository == repository:
                return known
            if known.repository != shown:
                raise CodesparError(
                    f"project {name} is linked to {known.repository}; choose another name, or unlink it first"
                )
        if self._settings.github is None and is_full_name(repository):
            raise CodesparError(
                f"{repository} is no path here, and GitHub is not set up: add `github:` to codespar.yaml (docs/github.md), or give a path or a URL"
            )
        settings = ProjectSettings(name=name, repository=shown)
        await self._hosts.link(settings, repository)
        self._known[name] = settings
        self._workshops.pop(name, None)
        self._aliases = {**self._aliases, name: name}
        at = self._clock()

        def write(unit: Unit) -> Project:
            project = self._keep(unit, settings, at)
            unit.record(
                at=at,
                actor=by.name,
                action="project.linked",
                project=name,
                subject=name,
                detail={"repository": shown},
            )
            return project

        project = await self._store.write(write)
        self.on_linked(name)
        return project

    def _of_github(self, repository: str) -> str | None:
        """The project that is linked to this repository of GitHub's; of several the first."""
        wanted = (self._settings.github_name(repository) or "").lower()
        for name, project in self._known.items():
            known = self._settings.github_name(project.repository) or ""
            if wanted and known.lower() == wanted:
                return name
        return None

    async def link_from_chat(self, named: str, by: Person) -> tuple[str, str]:
        """A project by any of its names, or a repository by its address, which is made a project if it is none yet.

        Returns the project's name and repository. Raises `CodesparError`.
        """
        known = await self._store.read(self._names)
        if found := known.get(named.lower()):
            return found, self.settings_of(found).repository
        if found := self._of_github(named):
            return found, self.settings_of(found).repository
        if not _ADDRESS.fullmatch(named) and not self._settings.github_name(named):
            names = ", ".join(sorted(set(known.values()))) or "none yet"
            raise CodesparError(
                f"`{named[:100]}` is neither a project ({names}) nor the address of a repository; a path on the server is linked in "
                "codespar.yaml or with `codespar link` there"
            )
        last = named.rstrip("/").removesuffix(".git").rsplit("/", 1)[-1].lower()
        name = re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:60]
        project = await self.link(name or "project", named, by)
        return project.name, project.repository

    def write_down(self, unit: Unit, at: datetime) -> None:
        """Bring the store's projects to what codespar.yaml says. What was linked by command stays."""
        for settings in self._settings.projects:
            self._keep(unit, settings, at)

    def _keep(self, unit: Unit, settings: ProjectSettings, at: datetime) -> Project:
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
        if repository := self._settings.github_name(settings.repository):
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
