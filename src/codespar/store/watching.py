"""The unit's part for code hosts: how far each was looked at, builds, reviews, what was to be remembered, when schedules fired."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update

from codespar.domain.builds import Run, Standing
from codespar.domain.memory import Memory
from codespar.domain.messages import UtcDatetime
from codespar.domain.reviews import ReviewRecord
from codespar.store import statements as q
from codespar.store import tables as t
from codespar.store.base import Notice, Watch
from codespar.store.rows import Rows, stamp, time_of

_INDEXED = 255  # characters of a name by which rows are found: a database's index has a limit


class Watching(Rows):
    """Watches, runs, standings, reviews, memories and schedules."""

    def watch(self, project: str) -> Watch:
        """How far the project was looked at; a new one where it never was."""
        row = self._db.execute(select(t.watches).where(t.watches.c.project == project)).first()
        if row is None:
            return Watch(project=project)
        return Watch(
            project=project,
            cursor=json.loads(row.cursor),
            polled_at=time_of(row.polled_at) if row.polled_at else None,
            heard_at=time_of(row.heard_at) if row.heard_at else None,
            problem=row.problem,
        )

    def problem(self, project: str) -> str:
        """Why the project's repository cannot be read, as far as is known; empty where it can."""
        row = q.PROBLEM.first(self._db, project=project)
        return str(row[0]) if row else ""

    def save_watch(self, watch: Watch) -> None:
        values = {
            "project": watch.project,
            "cursor": json.dumps(watch.cursor),
            "polled_at": stamp(watch.polled_at) if watch.polled_at else None,
            "heard_at": stamp(watch.heard_at) if watch.heard_at else None,
            "problem": watch.problem,
        }
        self._upsert(t.watches, "project", values)

    def save_run(self, project: str, run: Run) -> bool:
        """Keep what is known of a run's attempt. False when as much or more was known already: news come in any order, and twice."""
        here = (t.runs.c.project == project, t.runs.c.run == run.id, t.runs.c.attempt == run.attempt)
        body = self._db.execute(select(t.runs.c.body).where(*here)).scalar()
        if body is not None:
            known = Run.model_validate_json(body)
            if (known.conclusion is None) != (run.conclusion is None):
                if run.conclusion is None:  # an end stands, and comes as one whatever time it bears
                    return False
            elif known.updated_at > run.updated_at or (
                known.conclusion == run.conclusion and known.pulls == run.pulls
            ):
                return False
        values = {
            "project": project,
            "run": run.id,
            "attempt": run.attempt,
            "branch": run.branch[:_INDEXED],
            "workflow": run.workflow[:_INDEXED],
            "commit": run.commit,
            "started_at": stamp(run.started_at),
            "body": run.model_dump_json(by_alias=True),
        }
        self._upsert(t.runs, ("project", "run", "attempt"), values)
        return True

    def runs(
        self,
        project: str,
        *,
        branch: str | None = None,
        workflow: str | None = None,
        commit: str | None = None,
        limit: int = 50,
    ) -> list[Run]:
        """The newest first, every attempt for itself."""
        query = select(t.runs.c.body).where(t.runs.c.project == project)
        for column, wanted in (
            (t.runs.c.branch, branch),
            (t.runs.c.workflow, workflow),
            (t.runs.c.commit, commit),
        ):
            if wanted is not None:
                query = query.where(column == wanted[:_INDEXED])
        newest = query.order_by(t.runs.c.started_at.desc(), t.runs.c.attempt.desc()).limit(limit)
        return [Run.model_validate_json(row[0]) for row in self._db.execute(newest)]

    def standing(self, project: str, branch: str, workflow: str) -> Standing:
        """How a workflow stands on a branch; an empty standing where nothing is known."""
        body = self._db.execute(
            select(t.standings.c.body).where(
                t.standings.c.project == project,
                t.standings.c.branch == branch[:_INDEXED],
                t.standings.c.workflow == workflow[:_INDEXED],
            )
        ).scalar()
        return Standing.model_validate_json(body) if body else Standing(branch=branch, workflow=workflow)

    def standings(self, project: str, branch: str | None = None) -> list[Standing]:
        query = select(t.standings.c.body).where(t.standings.c.project == project)
        if branch is not None:
            query = query.where(t.standings.c.branch == branch[:_INDEXED])
        ordered = query.order_by(t.standings.c.branch, t.standings.c.workflow)
        return [Standing.model_validate_json(row[0]) for row in self._db.execute(ordered)]

    def save_standing(self, project: str, standing: Standing) -> None:
        values = {
            "project": project,
            "branch": standing.branch[:_INDEXED],
            "workflow": standing.workflow[:_INDEXED],
            "body": standing.model_dump_json(by_alias=True),
        }
        self._upsert(t.standings, ("project", "branch", "workflow"), values)

    # reviews

    def add_review(self, record: ReviewRecord) -> bool:
        """Keep a new review; False when its id is taken, or its head commit has one already."""
        values = {
            "id": record.id,
            "project": record.project,
            "number": record.number,
            "head": record.head_commit,
            "started_at": stamp(record.started_at),
        }
        return self._insert_new(t.reviews, values | _changing(record))

    def review(self, id: str) -> ReviewRecord | None:
        body = self._db.execute(select(t.reviews.c.body).where(t.reviews.c.id == id)).scalar()
        return ReviewRecord.model_validate_json(body) if body else None

    def update_review(self, record: ReviewRecord) -> None:
        self._db.execute(update(t.reviews).where(t.reviews.c.id == record.id).values(**_changing(record)))
        self.notices.append(Notice(kind="review", key=record.id, project=record.project))

    def reviews(self, project: str, number: int | None = None, limit: int = 50) -> list[ReviewRecord]:
        """The newest first: of one pull request, or of all."""
        query = select(t.reviews.c.body).where(t.reviews.c.project == project)
        if number is not None:
            query = query.where(t.reviews.c.number == number)
        newest = query.order_by(t.reviews.c.started_at.desc()).limit(limit)
        return [ReviewRecord.model_validate_json(row[0]) for row in self._db.execute(newest)]

    def running_reviews(self, project: str) -> list[ReviewRecord]:
        """The newest first."""
        rows = q.RUNNING_REVIEWS.all(self._db, project=project)
        return [ReviewRecord.model_validate_json(row[0]) for row in rows]

    def review_of(self, project: str, number: int, head_commit: str) -> ReviewRecord | None:
        """The one review of that head commit of that pull request."""
        row = q.REVIEW_OF.first(self._db, project=project, number=number, head=head_commit)
        return ReviewRecord.model_validate_json(row[0]) if row else None

    def reviews_at(self, project: str, head_commit: str) -> list[ReviewRecord]:
        """Those of that commit: one for every pull request whose head it was."""
        rows = q.REVIEWS_AT.all(self._db, project=project, head=head_commit)
        return [ReviewRecord.model_validate_json(row[0]) for row in rows]

    def begun_unasked(self, project: str, number: int, since: datetime) -> tuple[int, int]:
        """How many reviews were begun after `since` that nobody asked for: of the project, and of that pull request alone."""
        row = q.BEGUN_UNASKED.first(self._db, project=project, number=number, since=stamp(since))
        return (row[0], row[1]) if row else (0, 0)

    # memory

    def remember(self, memory: Memory) -> None:
        values = {
            "id": memory.id,
            "project": memory.project,
            "body": memory.model_dump_json(by_alias=True),
        }
        self._insert_new(t.memories, values)

    def memories(self, project: str) -> list[Memory]:
        """The oldest first."""
        rows = self._db.execute(select(t.memories.c.body).where(t.memories.c.project == project))
        return sorted((Memory.model_validate_json(row[0]) for row in rows), key=lambda one: (one.at, one.id))

    def forget(self, project: str, id: str) -> bool:
        """Let go of what was to be remembered. False when there is nothing of that id."""
        gone = delete(t.memories).where(t.memories.c.project == project, t.memories.c.id == id)
        return self._db.execute(gone.returning(t.memories.c.id)).first() is not None

    # schedules

    def fired(self, project: str, schedule: str) -> datetime | None:
        """The time for which a schedule fired last."""
        at = self._db.execute(
            select(t.schedules.c.fired_at).where(
                t.schedules.c.project == project, t.schedules.c.name == schedule
            )
        ).scalar()
        return time_of(at) if at else None

    def save_fired(self, project: str, schedule: str, at: UtcDatetime) -> None:
        values = {"project": project, "name": schedule, "fired_at": stamp(at)}
        self._upsert(t.schedules, ("project", "name"), values)


def _changing(record: ReviewRecord) -> dict[str, Any]:
    """The columns of a review that change in its life."""
    return {
        "state": record.state.value,
        "unasked": int(not record.by),
        "body": record.model_dump_json(by_alias=True),
    }
