"""Keeps the code index at what was pushed: the default branch is shown, other branches are read ahead.

The index is a cache, so nothing here is durable: whoever needs it brings it up to date first. What comes while an update runs is taken
together, so that a hundred pushes are one update.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog

from codespar.codeindex.base import CodeIndex, IndexStats
from codespar.domain.base import CodesparError
from codespar.domain.happenings import NO_COMMIT, Pushed
from codespar.forges.base import Forge
from codespar.store.base import Notice, Project, Unit

log = structlog.get_logger(__name__)


def pushed(unit: Unit, project: Project, push: Pushed, now: datetime) -> None:
    """A branch moved. What follows from it begins after the commit."""
    if push.default:
        unit.record(
            at=now,
            actor=push.author or "somebody",
            action="pushed",
            project=project.name,
            subject=push.branch,
            detail={"before": push.before, "after": push.after, "forced": push.forced},
        )
    branch = "" if push.default else push.branch
    body = {"branch": branch, "gone": push.after == NO_COMMIT}
    unit.notices.append(Notice(kind="push", key=push.branch, project=project.name, body=body))


class Follower:
    """One for all projects; each project's index is updated by one task at a time."""

    def __init__(self, forge: Callable[[str], Forge], index: Callable[[str], CodeIndex]) -> None:
        self._forge = forge
        self._index = index
        # by project: branches ("" is the default one), and whether they are gone
        self._wanted: dict[str, dict[str, bool]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._stopped = False

    def on_push(self, notice: Notice) -> None:
        """A branch moved, and that it did is committed."""
        self.follow(notice.project, str(notice.body["branch"]), gone=bool(notice.body["gone"]))

    def follow(self, project: str, branch: str = "", *, gone: bool = False) -> None:
        """Bring the index to what stands at the code host now."""
        if self._stopped:
            return
        self._wanted.setdefault(project, {})[branch] = gone
        if project not in self._running:
            self._running[project] = asyncio.get_running_loop().create_task(
                self._run(project), name=f"index-{project}"
            )

    async def stop(self) -> None:
        """Nothing is followed any more: the forges and indexes may be closed."""
        self._stopped = True
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, project: str) -> None:
        """Until nothing is wanted. Between the last look and the end nothing is awaited, so nothing can come there unseen."""
        try:
            while wanted := self._wanted.get(project):
                branch = (
                    "" if "" in wanted else next(iter(wanted))
                )  # what is shown goes before what is read ahead
                await self._update(project, branch, wanted.pop(branch))
        finally:
            self._wanted.pop(project, None)
            self._running.pop(project, None)

    async def _update(self, project: str, branch: str, gone: bool) -> None:
        """What fails is told in the log: the next push, task or search tries again, and `memory` says how far it is behind."""
        shown = branch or "default"
        try:
            forge, index = self._forge(project), self._index(project)
            stats = await self._bring(forge, index, branch, gone)
        except CodesparError as error:
            log.warning("index.behind", project=project, branch=shown, error=str(error))
            return
        except (
            Exception
        ) as error:  # a defect, or a full disk: the other branches and pushes are followed all the same
            log.error("index.failed", project=project, branch=shown, error=str(error), exc_info=True)
            return
        if stats is None:
            log.info("index.forgotten", project=project, branch=shown)
            return
        seconds = round(stats.seconds, 3)
        log.info("index.followed", project=project, branch=shown, changed=stats.changed, seconds=seconds)

    async def _bring(self, forge: Forge, index: CodeIndex, branch: str, gone: bool) -> IndexStats | None:
        """None: there is no such branch, and what only it had was let go of."""
        if not branch:
            _, commit = await forge.sync()
            stats = await index.update(forge.base_repository, commit)
            await index.close()  # until somebody asks it: a quarter of a megabyte for each project
            return stats
        commit = None if gone else await forge.fetch_branch(branch)
        if commit is None:
            await index.forget(branch)
            return None
        return await index.take_in(forge.whole_repository, branch, commit)
