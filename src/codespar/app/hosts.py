"""The code hosts of an installation: the forge of each project, and what happens there found by looking.

A project is looked at from where the last look ended: so what no webhook told, while we were away or because none is set up, is found all the
same. A host that cannot be read, or a project that has no credentials for it, keeps nothing else from working.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from codespar.agents import watcher
from codespar.app.linked import Linked
from codespar.app.webhooks import Answer, Hear, Webhooks, accept_news
from codespar.config import ProjectSettings, Settings
from codespar.domain.base import CodesparError
from codespar.forges.base import AccessLost, Forge, ForgeError, ForgeUnavailable, Polled
from codespar.forges.local import LocalForge
from codespar.store.base import Store, Unit, Watch
from codespar.web.base import GITHUB_WEBHOOKS

log = structlog.get_logger(__name__)
HEARD_WITHIN = timedelta(hours=24)  # a webhook in that time shows that they reach us
SELDOM = 900.0  # seconds between looks where webhooks reach us
REFUSED = 300.0  # seconds until a host that refused us is asked again
AT_ONCE = 4  # looks at repositories that are no host's: each is several processes of git's


class Hosts:
    """Every project's code host. `hear` takes what people wrote there to the front desk."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        folder: Path,
        clock: Callable[[], datetime],
        environment: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._policy = settings.policies.policy()
        self._store = store
        self._folder = folder
        self._clock = clock
        self._environment = environment
        self._linked = Linked(settings)
        self._webhooks = Webhooks(self._linked, store, folder / "webhooks", clock, environment)
        self._forges: dict[str, Forge] = {}
        self._unusable: dict[str, str] = {}  # why a project has no forge
        self._clients: list[Any] = []  # GitHub's, to be closed
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, str] = {}  # why a project's last call was refused; empty: it was not
        self._noting: dict[str, asyncio.Task[None]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._local = asyncio.Semaphore(AT_ONCE)
        self.hear: Hear | None = None

    # forges

    def forge(self, project: ProjectSettings) -> Forge:
        """The project's forge. Raises `AccessLost` where no credentials are set for GitHub."""
        if project.name not in self._forges:
            self._linked.projects[project.name] = project
            try:
                self._forges[project.name] = self._make(project, project.repository)
            except CodesparError as error:
                self._unusable[project.name] = str(error)
                raise
            self._unusable.pop(project.name, None)
        return self._forges[project.name]

    async def link(self, project: ProjectSettings, source: str) -> None:
        """Take on a project whose repository can be read. `source` is its URL, with the credentials that it may carry.

        Raises `CodesparError`, and then nothing is taken on.
        """
        forge = self._make(project, source)
        await forge.sync()
        self._linked.projects[project.name] = project
        self._forges[project.name] = forge
        self._unusable.pop(project.name, None)

    def _make(self, project: ProjectSettings, source: str) -> Forge:
        folder = self._folder / "repos" / project.name
        name = self._settings.github_name(project.repository)
        return self._github(project.name, folder, name) if name else LocalForge(folder, source)

    def _github(self, project: str, folder: Path, name: str) -> Forge:
        from codespar.forges.github.client import GithubClient  # most installations that try it use none
        from codespar.forges.github.credentials import make_credentials
        from codespar.forges.github.forge import GithubForge
        from codespar.forges.github.transport import Credentials, Heard

        chosen = self._settings.github
        assert chosen is not None, "a repository is GitHub's only where GitHub is set up"

        def client(credentials: Credentials, heard: Heard = lambda problem: None) -> GithubClient:
            return GithubClient(
                api_url=chosen.api_url, credentials=credentials, clock=self._clock, heard=heard
            )

        credentials = make_credentials(
            chosen, self._environment, name, client_factory=client, clock=self._clock
        )
        made = client(credentials, partial(self._heard, project))
        self._clients.append(made)
        return GithubForge(folder, name, made, credentials, api_url=chosen.api_url, clock=self._clock)

    def of_repository(self, repository: str) -> Forge:
        """The forge of a GitHub repository that a project is linked to. Raises `CodesparError`."""
        for project in self._linked.of(repository):
            if project in self._forges:
                return self._forges[project]
            raise CodesparError(self._unusable.get(project, f"{project} has no forge"))
        raise CodesparError(f"no project is linked to {repository}")

    def how(self, project: str) -> str:
        """How news of the project reach us, for people."""
        if self._linked.name(project) is None:
            return f"its repository is looked at every {self._settings.look_every:.0f} s"
        every = f"{self._poll():.0f} s"
        if not self._webhooks.secrets(project):
            return (
                f"polling: it is looked at every {every}; no webhook secret is set, so webhooks are refused"
            )
        return (
            f"webhooks at POST {GITHUB_WEBHOOKS}; until the first of them comes it is looked at every {every}"
        )

    # webhooks

    async def webhook(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """One delivery of GitHub's, with lower-case header names. Raises `ApiError` for what is refused, `StoreError`."""
        return await self._webhooks.take(headers, body, self.hear, self.look_soon)

    async def register_webhook(self, project: str, url: str) -> str:
        """Have the project's repository send its webhooks to `url`. Returns what was done. Raises `CodesparError`."""
        if project in self._unusable:
            raise CodesparError(self._unusable[project])
        return await self._webhooks.register(project, url, self._forges[project])

    # looking

    def start(self) -> None:
        """Look at every project from now on, beginning at where the last look ended."""
        for project in self._linked.projects:
            self.watch(project)

    def watch(self, project: str) -> None:
        """Begin to look at a project. No error when it is being looked at."""
        running = self._looking.get(project)
        if running is None or running.done():
            self._news[project] = asyncio.Event()
            self._looking[project] = asyncio.create_task(self._look_on(project), name=f"watch-{project}")

    def look_soon(self, project: str) -> None:
        """Something changed there: look at once."""
        if project in self._news:
            self._news[project].set()

    async def stop(self) -> None:
        tasks = [*self._looking.values(), *self._noting.values()]
        self._looking.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in self._clients))

    async def _look_on(self, project: str) -> None:
        while True:
            wait = self._poll()
            try:
                if project in self._unusable:
                    await self._note_trouble(project, self._unusable[project])
                    return  # it has what it needs after the next start at the earliest
                wait = await self.look(project)
            except CodesparError as error:  # the store's, say: the next look begins where this one did
                log.error("forge.not_kept", project=project, error=str(error))
            except Exception as error:  # a defect of ours must not end the looking
                log.error("forge.failed", project=project, error=str(error), exc_info=True)
            try:
                async with asyncio.timeout(wait):
                    await self._news[project].wait()
                self._news[project].clear()
                await asyncio.sleep(0.2)  # what belongs together comes together
            except TimeoutError:
                continue

    async def look(self, project: str) -> float:
        """Look once. Returns in how many seconds to look again. Raises `StoreError`, after which nothing was brought in."""
        watch = await self._store.read(lambda unit: unit.watch(project))
        self._learn_id(project, watch.cursor)
        wait = self._wait(project, watch)
        try:
            polled = await self._poll_forge(project, watch)
        except ForgeUnavailable as error:  # not told: it passes, and the next look finds what there was
            log.info("forge.later", project=project, error=str(error))
            return max(wait, error.retry_after or 0.0)
        except AccessLost as error:
            await self._note_trouble(project, str(error))
            return max(wait, REFUSED)
        except ForgeError as error:
            await self._note_trouble(project, str(error))
            return wait
        self._learn_id(project, polled.cursor)
        await self._bring_in(project, watch, polled)
        return wait

    async def _poll_forge(self, project: str, watch: Watch) -> Polled:
        if self._linked.name(project) is not None:
            return await self._forges[project].poll(watch.cursor)
        async with self._local:
            return await self._forges[project].poll(watch.cursor)

    def _learn_id(self, project: str, cursor: dict[str, Any]) -> None:
        """GitHub's cursor holds the repository's id, by which webhooks are known after a rename."""
        if self._linked.name(project) is not None and isinstance(id := cursor.get("id"), int):
            self._linked.ids[project] = id

    async def _bring_in(self, project: str, before: Watch, polled: Polled) -> None:
        """Comments first, since their cursor is kept with the rest: a crash in between brings them again under the same ids."""
        for comment in polled.comments:
            if self.hear is not None:
                await self.hear(self._linked.conversation(project), comment)
        now = self._clock()
        if not polled.news and polled.cursor == before.cursor and not before.problem and before.polled_at:
            return
        # A look that found the repository out of reach brings that as news, and is no sign that it can be read; nor is one that asked
        # before a call was refused.
        out_of_reach = bool(polled.cursor.get("lost") or self._refused.get(project))

        def write(unit: Unit) -> None:
            for one in polled.news:
                accept_news(unit, project, one)
            watch = unit.watch(project)
            problem = watch.problem if out_of_reach else ""
            watcher.trouble(unit, project, self._policy, watch.problem, problem, now)
            unit.save_watch(watch.evolve(cursor=polled.cursor, polled_at=now, problem=problem))

        await self._store.write(write)

    def _heard(self, project: str, problem: str) -> None:
        """A call of whomever showed whether GitHub takes our credentials: what changed is noted at once, and waits for no look."""
        if project not in self._looking or bool(problem) == bool(self._refused.get(project)):
            return
        self._refused[project] = problem
        if project not in self._noting:
            self._noting[project] = asyncio.create_task(self._note_access(project), name=f"access-{project}")

    async def _note_access(self, project: str) -> None:
        """Until what is known is what was heard last."""
        try:
            noted: str | None = None
            while (heard := self._refused[project]) != noted:
                await self._note_trouble(project, heard)
                noted = heard
        except CodesparError as error:  # the store's: the next call is heard again
            self._refused.pop(project)
            log.error("forge.not_kept", project=project, error=str(error))
        finally:
            self._noting.pop(project)

    async def _note_trouble(self, project: str, problem: str) -> None:
        """Keep why the repository cannot be read, or by an empty text that it can: told when that changes."""
        now = self._clock()

        def write(unit: Unit) -> bool:
            watch = unit.watch(project)
            if watch.problem == problem:
                return False
            watcher.trouble(unit, project, self._policy, watch.problem, problem, now)
            unit.save_watch(watch.evolve(problem=problem))
            return True

        if await self._store.write(write):
            if problem:
                log.warning("forge.trouble", project=project, error=problem)
            else:
                log.info("forge.found", project=project)

    def _poll(self) -> float:
        return self._settings.github.poll if self._settings.github else 60.0

    def _wait(self, project: str, watch: Watch) -> float:
        if self._linked.name(project) is None:
            return self._settings.look_every
        heard = watch.heard_at is not None and self._clock() - watch.heard_at < HEARD_WITHIN
        return SELDOM if heard and self._webhooks.secrets(project) else self._poll()
