"""What works in the engine's workflows: the Task and Review Agents, merges, the look at a broken build, and what these work with.

Its import takes as long as all the rest of the server's, and messages are taken in without it: it is imported when the engine is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import structlog

from codespar.agents import board, builds, pullwork, reviews
from codespar.agents.builds import BuildTools, BuildWatch
from codespar.agents.evidence import Sources
from codespar.agents.pullwork import PullWork
from codespar.agents.review import ReviewAgent, ReviewTools
from codespar.agents.task import TaskAgent
from codespar.agents.workshop import Tools
from codespar.app.housekeeping import Counted, Housekeeping
from codespar.app.projects import Projects
from codespar.app.sandbox import ensure_standard_image, make_sandbox
from codespar.app.stopping import Part
from codespar.channels.locker import Locker
from codespar.config import Settings
from codespar.domain.base import CodesparError
from codespar.domain.tasks import MICROS
from codespar.engine.base import Engine
from codespar.models.base import Reviewer
from codespar.sandbox.analysers import SandboxAnalysers, container_names
from codespar.sandbox.gateway import Gateway
from codespar.screening.base import Screening
from codespar.signals.base import Advisories
from codespar.store.base import Store, Unit

log = structlog.get_logger(__name__)


class Workers:
    """The agents of the workflows, made from the settings."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        projects: Projects,
        screen: Screening,
        clock: Callable[[], datetime],
        attachment: Callable[[str], Path],
    ) -> None:
        """`attachment` says where the content of that SHA-256 is kept."""
        self._settings = settings
        self._store = store
        self._projects = projects
        self._clock = clock
        folder, model = settings.data_dir.resolve(), settings.model
        self._sandbox = make_sandbox(settings)
        self._gateway = Gateway(
            model.base_url, model.api_key(os.environ), key_name=model.api_key_env if model.needs_key else None
        )
        self._reviewer = _make_reviewer(settings)
        self._advisories = _make_advisories(settings)
        policy = settings.policies.policy()
        self.tasks = TaskAgent(
            Tools(
                store=store,
                sandbox=self._sandbox,
                gateway=self._gateway,
                screening=screen,
                workshop=projects.workshop,
                clock=clock,
                folder=folder / "tasks",
                attachment=attachment,
            )
        )
        self.reviews = ReviewAgent(
            ReviewTools(
                store=store,
                forge=projects.forge,
                sources=self._sources,
                analysers=SandboxAnalysers(self._sandbox),
                sandbox=self._sandbox,
                reviewer=self._reviewer,
                advisories=self._advisories,
                screening=screen,
                settings=settings.reviews,
                policy=lambda: policy,
                clock=clock,
                folder=folder / "reviews",
            )
        )
        self._pulls = PullWork(store, projects.forge, clock)
        self._builds = BuildWatch(
            BuildTools(
                store=store,
                forge=projects.forge,
                workshop=projects.workshop,
                policy=lambda: policy,
                screening=screen,
                clock=clock,
            )
        )

    def register(self, engine: Engine) -> None:
        """Tell the engine its workflows, before it is opened."""
        engine.register(board.WORKFLOW, self.tasks.run)
        engine.register(pullwork.MERGE, self._pulls.merge)
        engine.register(reviews.WORKFLOW, self.reviews.run)
        engine.register(pullwork.APPROVAL, self._pulls.approve)
        engine.register(builds.WORKFLOW, self._builds.run)

    def parts(self) -> list[Part]:
        """What they hold open, in the order in which it is closed. Containers run on."""
        models: list[Part] = [("reviewer", self._reviewer.close)] if self._reviewer is not None else []
        signals: list[Part] = [("advisories", self._advisories.close)] if self._advisories is not None else []
        return [*models, *signals, ("gateway", self._gateway.close_all), ("sandbox", self._sandbox.close)]

    def _sources(self, project: str, conventions: tuple[str, ...]) -> Sources:
        """Where the facts of a review come from."""
        return Sources(
            forge=self._projects.forge(project),
            index=self._projects.index(project),
            conventions=conventions,
            own=lambda pull: pull.branch.startswith("codespar/task-") and not pull.fork,
            limits=self._projects.limits(project),
        )

    async def sweep(self) -> None:
        """Containers of what has ended are removed; those of running tasks and reviews stay, to be adopted."""

        def alive(unit: Unit) -> set[str]:
            names: set[str] = set()
            for project in unit.projects():
                for task in unit.open_tasks(project.name):
                    name = f"codespar-{task.id}-{task.attempt}"
                    names |= {name, f"{name}-verify"}
                for review in unit.running_reviews(project.name):
                    names |= {*container_names(reviews.container(review))}
            return names

        try:
            removed = await self._sandbox.sweep(await self._store.read(alive))
        except CodesparError as error:
            log.warning("sandbox.unavailable", error=str(error))
            return
        if removed:
            log.info("sandbox.swept", containers=removed)

    def housekeeping(self, locker: Locker, counted: Counted) -> Housekeeping:
        """What removes what nobody needs any more. `counted` hears of it."""
        return Housekeeping(
            self._settings.housekeeping,
            self._settings.data_dir.resolve(),
            self._store,
            self._sandbox,
            locker,
            self._clock,
            counted,
        )

    async def prepare_image(self) -> None:
        """Have the standard task image ready before the first task needs it."""
        try:
            await ensure_standard_image(self._sandbox, log.info)
        except CodesparError as error:
            log.warning("sandbox.unavailable", error=str(error))


def _make_reviewer(settings: Settings) -> Reviewer | None:
    """The model that reviews, where one is configured."""
    if settings.model.review is None:
        return None
    from codespar.models.reviewer import ModelReviewer  # most installations use none

    return ModelReviewer(
        settings.model,
        os.environ,
        on_use=lambda use: log.info("review.used", **use.model_dump(mode="json")),
        budget_micros=round(settings.reviews.budget * MICROS),
    )


def _make_advisories(settings: Settings) -> Advisories | None:
    if settings.reviews.advisories is None:
        return None
    from codespar.signals.osv import OsvAdvisories

    return OsvAdvisories(settings.reviews.advisories)
