"""The one implementation of `Unit`: SQL over a connection that is inside a transaction.

What is letters, people, watching or ageing has a file of its own. The rest stays together, and is a little longer than others, because inbox,
outbox, tasks and the audit chain count by the same counters and announce by the same notices.
"""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

from pydantic import JsonValue, ValidationError
from sqlalchemy import func, insert, select, update

from codespar.domain.agents import AgentKind, AgentState, Outcome, check_transition
from codespar.domain.approvals import Approval
from codespar.domain.messages import NormalizedResponse, UtcDatetime
from codespar.domain.notifications import told_key
from codespar.domain.tasks import Task, Thread
from codespar.store import audit as chain
from codespar.store import statements as q
from codespar.store import tables as t
from codespar.store.ageing import Outliving
from codespar.store.base import (
    PULLED,
    Agent,
    Happened,
    Incoming,
    Intent,
    Notice,
    Outgoing,
    Project,
    StoreError,
    Unreadable,
)
from codespar.store.letters import Letters
from codespar.store.people import People
from codespar.store.rows import stamp, time_of
from codespar.store.watching import Watching


class SqlUnit(Letters, People, Watching, Outliving):
    """One transaction's work. Collects the notices of what it changed."""

    def said(self, since: int = 0) -> list[Outgoing]:
        """What this unit has put into the outbox, after its first `since` notices."""
        return [notice.body["message"] for notice in self.notices[since:] if notice.kind == "message"]

    def _bump(self, counter: str) -> int:
        return self._bump_hashed(counter)[0]

    def _bump_hashed(self, counter: str) -> tuple[int, str]:
        row = q.BUMP.first(self._db, counter=counter)
        if row is None:
            raise StoreError(
                f"the counter {counter} is missing: the database was not set up by `codespar up`"
            )
        return int(row[0]), str(row[1])

    # inbox

    def accept(
        self,
        source: str,
        delivery: str,
        project: str,
        body: dict[str, Any] | str,
        at: UtcDatetime,
        *,
        done: bool = False,
    ) -> tuple[int, bool]:
        """Keep a delivery; a repeat returns the first one's id and False. `body` is JSON, or its text as it came.

        With `done` there is no turn to be taken over it. A message so old that it may have been here and was forgotten counts as a repeat,
        of the id 0: who has recorded what was signed cannot have it carried out again.
        """
        if isinstance(body, dict) and "message" in body and self._is_forgotten(at):
            return 0, False
        row = q.ACCEPT.first(
            self._db,
            source=source,
            delivery=delivery,
            project=project,
            body=body if isinstance(body, str) else json.dumps(body),
            received_at=stamp(at),
            done_at=stamp(at) if done else None,
        )
        if row is None:
            known = q.DELIVERED.first(self._db, source=source, delivery=delivery)
            assert known is not None, "a row that conflicts is there"
            return int(known[0]), False
        self.notices.append(Notice(kind="inbox", key=str(row[0]), project=project, body={"done": done}))
        return int(row[0]), True

    def pending(self, project: str, limit: int) -> list[Incoming | Happened | Unreadable]:
        """What waits for its turn, oldest first: messages, and news of the project's code host."""
        return [_waiting(*row) for row in q.PENDING.all(self._db, project=project, most=limit)]

    def projects_with_pending(self) -> list[str]:
        return [
            row[0]
            for row in self._db.execute(
                select(t.inbox.c.project).where(t.inbox.c.done_at.is_(None)).distinct()
            )
        ]

    def is_pending(self, incoming: int) -> bool:
        row = q.DONE_AT.first(self._db, row=incoming)
        return row is not None and row[0] is None

    def finish(self, incoming: int, at: UtcDatetime, error: str | None = None) -> None:
        # an error may quote anything, and neither database takes every character
        why = error.replace("\0", "?").encode(errors="replace").decode() if error is not None else None
        q.FINISH.run(self._db, row=incoming, at=stamp(at), why=why)

    # outbox

    def say(
        self,
        project: str,
        thread: Thread,
        key: str,
        response: NormalizedResponse,
        at: UtcDatetime,
        cause: int | None = None,
    ) -> None:
        """Queue a response for its thread. Said again under the same key it changes nothing, unless it `replaces` that key.

        This is the one way out: whatever is said is screened here.
        """
        response = self._screen(response)
        if response.thread is None:
            response = response.evolve(thread=thread.key)
        body = response.model_dump_json(by_alias=True)
        row_key = response.replaces or key
        delivered = stamp(at) if thread.channel in PULLED else None
        if response.replaces is not None:
            seq = self._bump("outbox")
            changed = q.SAY_AGAIN.first(
                self._db,
                row=row_key,
                new_seq=seq,
                new_body=body,
                new_created=stamp(at),
                new_delivered=delivered,
            )
            if changed is not None:
                self._announce(seq, row_key, project, thread, response, at)
                return
        elif self.was_said(key):
            return
        seq = self._bump("outbox")
        q.SAY.run(
            self._db,
            seq=seq,
            key=row_key,
            cause=cause,
            project=project,
            channel=thread.channel,
            thread=thread.key,
            body=body,
            created_at=stamp(at),
            delivered_at=delivered,
            attempts=0,
        )
        self._announce(seq, row_key, project, thread, response, at)

    def amend(self, key: str, response: NormalizedResponse, at: UtcDatetime) -> bool:
        """Put a response in the place of a standing announcement: of the message that was told, or of what still waits to be.

        False when there is none of that key.
        """
        row = self._db.execute(
            select(t.announcements).where(t.announcements.c.key == key, t.announcements.c.standing == 1)
        ).first()
        if row is None:
            return False
        body = response.model_dump_json(by_alias=True)
        self._db.execute(update(t.announcements).where(t.announcements.c.id == row.id).values(body=body))
        if row.told_at is not None:
            said = told_key(row.id)
            self.say(row.project, Thread.of(row.place), said, response.evolve(replaces=said), at)
        return True

    def was_said(self, key: str) -> bool:
        return q.SAID.first(self._db, key=key) is not None

    def _announce(
        self, seq: int, key: str, project: str, thread: Thread, response: NormalizedResponse, at: UtcDatetime
    ) -> None:
        sent = Outgoing(
            seq=seq, key=key, project=project, thread=thread.key, created_at=at, response=response
        )
        self.notices.append(Notice(kind="message", key=key, project=project, body={"message": sent}))

    def _outgoing(self, rows: Any) -> list[Outgoing]:
        return [
            Outgoing(
                seq=row.seq,
                key=row.key,
                project=row.project,
                thread=row.thread,
                created_at=time_of(row.created_at),
                response=NormalizedResponse.model_validate_json(row.body),
            )
            for row in rows
        ]

    def answers(self, incoming: int) -> list[Outgoing]:
        return self._outgoing(
            self._db.execute(select(t.outbox).where(t.outbox.c.cause == incoming).order_by(t.outbox.c.id))
        )

    def messages(self, thread: str | None, after: int, limit: int) -> list[Outgoing]:
        query = select(t.outbox).where(t.outbox.c.seq > after).order_by(t.outbox.c.seq).limit(limit)
        if thread is not None:
            query = query.where(t.outbox.c.thread == thread)
        return self._outgoing(self._db.execute(query))

    # intents

    def intend(self, intent: Intent, at: UtcDatetime) -> None:
        values = {
            "id": intent.id,
            "kind": intent.kind,
            "target": intent.target,
            "payload": json.dumps(intent.payload),
            "created_at": stamp(at),
        }
        if self._insert_new(t.intents, values):
            self.notices.append(Notice(kind="intent", key=intent.id, project="", body={"intent": intent}))

    def open_intents(self, limit: int) -> list[Intent]:
        rows = self._db.execute(
            select(t.intents)
            .where(t.intents.c.done_at.is_(None))
            .order_by(t.intents.c.created_at, t.intents.c.id)
            .limit(limit)
        )
        return [
            Intent(id=row.id, kind=row.kind, target=row.target, payload=json.loads(row.payload))
            for row in rows
        ]

    def close_intent(self, id: str, at: UtcDatetime) -> None:
        self._db.execute(update(t.intents).where(t.intents.c.id == id).values(done_at=stamp(at)))

    # projects and agents

    def lock_project(self, name: str) -> None:
        """Serialize decisions about one project between processes. Within one, units never run beside each other."""
        if not self._sqlite:
            self._db.execute(select(t.projects.c.name).where(t.projects.c.name == name).with_for_update())

    def _project(self, row: Any) -> Project:
        name, repository, autonomy, paused, created_at = row
        return Project(
            name=name,
            repository=repository,
            autonomy=autonomy,
            paused=bool(paused),
            created_at=time_of(created_at),
        )

    def project(self, name: str) -> Project | None:
        row = q.PROJECT.first(self._db, name=name)
        return self._project(row) if row else None

    def projects(self) -> list[Project]:
        return [
            self._project(row) for row in self._db.execute(select(t.projects).order_by(t.projects.c.name))
        ]

    def save_project(self, project: Project) -> None:
        values = {
            "name": project.name,
            "repository": project.repository,
            "autonomy": project.autonomy,
            "paused": int(project.paused),
            "created_at": stamp(project.created_at),
        }
        self._upsert(t.projects, "name", values)
        self.notices.append(Notice(kind="project", key=project.name, project=project.name))

    def _agent(self, row: Any) -> Agent:
        id, kind, project, state, outcome, since = row
        return Agent(id=id, kind=kind, project=project, state=state, outcome=outcome, since=time_of(since))

    def agent(self, id: str) -> Agent | None:
        row = q.AGENT.first(self._db, id=id)
        return self._agent(row) if row else None

    def agents(self, project: str | None = None, live_only: bool = True, limit: int = 200) -> list[Agent]:
        query = select(t.agents).order_by(t.agents.c.since.desc()).limit(limit)
        if project is not None:
            query = query.where(t.agents.c.project == project)
        if live_only:
            query = query.where(t.agents.c.state != AgentState.TERMINATED.value)
        return [self._agent(row) for row in self._db.execute(query)]

    def create_agent(
        self, id: str, kind: AgentKind, project: str, cause: str, correlation: str, at: UtcDatetime
    ) -> None:
        values = {
            "id": id,
            "kind": kind.value,
            "project": project,
            "state": AgentState.INITIALIZING.value,
            "since": stamp(at),
        }
        if self._insert_new(t.agents, values):
            self._log_transition(id, None, AgentState.INITIALIZING, cause, correlation, at)

    def transition(
        self,
        id: str,
        wanted: AgentState,
        cause: str,
        correlation: str,
        at: UtcDatetime,
        outcome: Outcome | None = None,
    ) -> None:
        """Take one step of the state machine and store it. Raises `TransitionRefused` for a step outside the table."""
        agent = self.agent(id)
        if agent is None:
            raise StoreError(f"there is no agent {id}")
        check_transition(id, agent.state, wanted)
        self._db.execute(
            update(t.agents)
            .where(t.agents.c.id == id)
            .values(state=wanted.value, since=stamp(at), outcome=outcome.value if outcome else None)
        )
        self._log_transition(id, agent.state, wanted, cause, correlation, at)

    def _log_transition(
        self,
        id: str,
        before: AgentState | None,
        after: AgentState,
        cause: str,
        correlation: str,
        at: UtcDatetime,
    ) -> None:
        self._db.execute(
            insert(t.transitions),
            {
                "agent": id,
                "before": before.value if before else None,
                "after": after.value,
                "cause": cause,
                "correlation": correlation,
                "at": stamp(at),
            },
        )

    def transitions(self, id: str) -> list[dict[str, Any]]:
        rows = self._db.execute(
            select(t.transitions).where(t.transitions.c.agent == id).order_by(t.transitions.c.id)
        )
        return [dict(row) for row in rows.mappings()]

    # tasks

    def next_ticket(self) -> int:
        return self._bump("ticket")

    def add_task(self, task: Task) -> bool:
        """Keep a new task; False when its id is taken."""
        values = {
            "id": task.id,
            "project": task.project,
            "status": task.status.value,
            "ticket": task.ticket,
            "body": task.model_dump_json(by_alias=True),
        }
        added = self._insert_new(t.tasks, values)
        if added:
            self.notices.append(Notice(kind="task", key=task.id, project=task.project))
        return added

    def task(self, id: str) -> Task | None:
        row = q.TASK.first(self._db, id=id)
        return Task.model_validate_json(row[0]) if row else None

    def update_task(self, task: Task) -> None:
        self._db.execute(
            update(t.tasks)
            .where(t.tasks.c.id == task.id)
            .values(status=task.status.value, body=task.model_dump_json(by_alias=True))
        )
        self.notices.append(Notice(kind="task", key=task.id, project=task.project))

    def open_tasks(self, project: str) -> list[Task]:
        return [Task.model_validate_json(row[0]) for row in q.OPEN_TASKS.all(self._db, project=project)]

    def tasks(self, project: str | None = None, status: str | None = None, limit: int = 100) -> list[Task]:
        query = select(t.tasks.c.body).order_by(t.tasks.c.ticket.desc()).limit(limit)
        if project is not None:
            query = query.where(t.tasks.c.project == project)
        if status is not None:
            query = query.where(t.tasks.c.status == status)
        return [Task.model_validate_json(row[0]) for row in self._db.execute(query)]

    def record_usage(
        self, task: str, request: str, model: str, tokens: int, cost_micros: int, at: UtcDatetime
    ) -> None:
        """Count one answer of the model once, however often it is reported."""
        values = {
            "task": task,
            "request": request,
            "model": model,
            "tokens": tokens,
            "cost_micros": cost_micros,
            "at": stamp(at),
        }
        self._insert_new(t.usage, values)

    def usage(self, task: str) -> tuple[int, int, int]:
        """(cost in micro-dollars, tokens, model turns) of a task so far."""
        row = self._db.execute(
            select(
                func.coalesce(func.sum(t.usage.c.cost_micros), 0),
                func.coalesce(func.sum(t.usage.c.tokens), 0),
                func.count(),
            ).where(t.usage.c.task == task)
        ).one()
        return int(row[0]), int(row[1]), int(row[2])

    # approvals

    def save_approval(self, approval: Approval) -> None:
        values = {
            "token": approval.token,
            "project": approval.project,
            "state": approval.state.value,
            "body": approval.model_dump_json(by_alias=True),
        }
        self._upsert(t.approvals, "token", values)

    def approval(self, token: str) -> Approval | None:
        body = self._db.execute(select(t.approvals.c.body).where(t.approvals.c.token == token)).scalar()
        return Approval.model_validate_json(body) if body else None

    def approvals(
        self, project: str | None = None, state: str | None = None, limit: int = 100
    ) -> list[Approval]:
        query = select(t.approvals.c.body).limit(limit)
        if project is not None:
            query = query.where(t.approvals.c.project == project)
        if state is not None:
            query = query.where(t.approvals.c.state == state)
        return [Approval.model_validate_json(row[0]) for row in self._db.execute(query)]

    # audit

    def record(
        self,
        *,
        at: UtcDatetime,
        actor: str,
        action: str,
        project: str,
        subject: str,
        detail: dict[str, JsonValue],
    ) -> None:
        """Append to the audit chain. The head row is locked first, so entries cannot fork."""
        seq, head = self._bump_hashed("audit")
        previous = head or chain.GENESIS
        body = chain.canonical(
            {
                "seq": seq,
                "at": stamp(at),
                "actor": actor,
                "action": action,
                "project": project,
                "subject": subject,
                "detail": detail,
            }
        )
        found = chain.chain_hash(body, previous)
        self._db.execute(insert(t.audit), {"seq": seq, "body": body, "previous": previous, "hash": found})
        self._db.execute(update(t.counters).where(t.counters.c.name == "audit").values(hash=found))

    def audit_entries(self, limit: int, project: str | None = None) -> list[dict[str, Any]]:
        """The newest entries, newest last."""
        newest = select(t.audit).order_by(t.audit.c.seq.desc()).execution_options(yield_per=200)
        if project is None:
            newest = newest.limit(limit)
        with self._db.execute(newest) as rows:
            found = (json.loads(row.body) | {"hash": row.hash} for row in rows)
            entries = list(islice((one for one in found if project in (None, one["project"])), limit))
        return entries[::-1]

    def verify_audit(self) -> chain.AuditReport:
        """Recompute the whole chain."""
        head = self._db.execute(
            select(t.counters.c.value, t.counters.c.hash).where(t.counters.c.name == "audit")
        ).one()
        rows = self._db.execute(select(t.audit).order_by(t.audit.c.seq).execution_options(yield_per=1000))
        return chain.verify(
            ((row.seq, row.body, row.previous, row.hash) for row in rows), int(head[0]), str(head[1])
        )


def _waiting(id: int, project: str, text: str) -> Incoming | Happened | Unreadable:
    try:
        body = json.loads(text)
        kind = Happened if "news" in body else Incoming
        return kind.model_validate({"id": id, "project": project, **body})
    except ValidationError as error:
        where = {".".join(str(part) for part in one["loc"]) for one in error.errors(include_input=False)}
        problem = f"{error.title} does not fit at {', '.join(sorted(where)[:5])}"
    except (ValueError, TypeError) as error:
        problem = str(error)
    return Unreadable(id=id, project=project, problem=problem)


__all__ = ["SqlUnit", "stamp"]
