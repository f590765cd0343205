"""The port to what is remembered: one unit of work is one transaction.

A unit of work is a plain function over a `Unit`: it cannot wait for anything while it holds the transaction. The store may run several
in one commit; each is all or nothing. What was written is announced as `Notice`s after the commit, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar

from pydantic import JsonValue

from codespar.domain.agents import AgentKind, AgentState, Outcome
from codespar.domain.approvals import Approval
from codespar.domain.base import CodesparError, Value
from codespar.domain.builds import Run, Standing
from codespar.domain.happenings import News
from codespar.domain.memory import Memory
from codespar.domain.messages import NormalizedMessage, NormalizedResponse, UtcDatetime
from codespar.domain.notifications import AlertKind, Announcement, Place
from codespar.domain.people import Person
from codespar.domain.reviews import ReviewRecord
from codespar.domain.tasks import Task, Thread

T = TypeVar("T")
PULLED = ("cli", "web")  # their clients read the outbox themselves, so a committed message is a delivered one


class StoreError(CodesparError):
    """The root of what the store can refuse."""


class StoreUnavailable(StoreError):
    """The database cannot be worked with now: it is away, full or busy. Nothing was written, and the same may be done again."""


class DatabaseTooNew(StoreError):
    """The database was written by a newer release."""


class DatabaseInUse(StoreError):
    """Another server works on the same data."""


class Project(Value):
    name: str
    repository: str
    autonomy: int = 1
    paused: bool = False
    created_at: UtcDatetime


class Agent(Value):
    id: str
    kind: AgentKind
    project: str
    state: AgentState
    outcome: Outcome | None = None
    since: UtcDatetime


class Incoming(Value):
    """A message in the inbox."""

    id: int
    project: str
    message: NormalizedMessage
    person: str | None  # who it is, by our own records
    thread: Thread


class Happened(Value):
    """News of a code host in the inbox: a turn like any other, in its project's own order."""

    id: int
    project: str
    news: News


class Unreadable(Value):
    """What waits in the inbox and is nothing this release can read."""

    id: int
    project: str
    problem: str


class Watch(Value):
    """How far a project's code host was looked at. `cursor` is the forge's own."""

    project: str
    cursor: dict[str, Any] = {}
    polled_at: UtcDatetime | None = None
    heard_at: UtcDatetime | None = None  # of the last webhook
    problem: str = ""  # why the last look found nothing; empty when it did


class Outgoing(Value):
    """A message in the outbox. `seq` grows whenever the row changes."""

    seq: int
    key: str
    project: str
    thread: str
    created_at: UtcDatetime
    response: NormalizedResponse


class Posted(Value):
    """One message of a response as it stands at the platform."""

    id: str  # the platform's
    digest: str  # of what was shown


class Sending(Value):
    """A send that was begun and whose answer is not known."""

    part: int
    since: UtcDatetime


class Letter(Value):
    """A response on its way to a chat platform."""

    key: str
    seq: int
    project: str
    thread: str
    response: NormalizedResponse
    created_at: UtcDatetime
    attempts: int = 0
    next_attempt_at: UtcDatetime | None = None
    parts: tuple[Posted, ...] = ()
    sending: Sending | None = None


class Route(Value):
    """A place where a project's team talks to its agent. `source`: `file` (codespar.yaml) or `link` (a command)."""

    channel: str
    conversation: str
    project: str
    alerts: tuple[AlertKind, ...] = (AlertKind.ALL,)
    source: str = "link"

    @property
    def place(self) -> Place:
        return Place(channel=self.channel, conversation=self.conversation, alerts=self.alerts)


class Member(Value):
    """A person we know. `source`: `file` (codespar.yaml), `host` (this machine's command line) or `invite` (a command)."""

    person: Person
    source: str
    identities: tuple[tuple[str, str], ...] = ()  # (channel, the platform's id)


class Intent(Value):
    """What the engine shall do: start a workflow, or send to one."""

    id: str
    kind: Literal["start", "send"]
    target: str
    payload: dict[str, Any]


class Notice(Value):
    """What a commit changed: `kind` is inbox, message, announcement, task, intent or project; `key` names the row."""

    kind: str
    key: str
    project: str
    body: dict[str, Any] = {}


class Unit(Protocol):
    """One transaction."""

    notices: list[Notice]

    def said(self, since: int = 0) -> list[Outgoing]: ...

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
    ) -> tuple[int, bool]: ...
    def pending(self, project: str, limit: int) -> list[Incoming | Happened | Unreadable]: ...
    def projects_with_pending(self) -> list[str]: ...
    def is_pending(self, incoming: int) -> bool: ...
    def finish(self, incoming: int, at: UtcDatetime, error: str | None = None) -> None: ...

    # what is done and old
    def outlived(
        self, what: Literal["inbox", "announcements"], before: UtcDatetime, after: int, most: int
    ) -> tuple[list[int], int | None]: ...
    def let_go(
        self, what: Literal["inbox", "announcements"], ids: Sequence[int], before: UtcDatetime
    ) -> int: ...

    # outbox
    def say(
        self,
        project: str,
        thread: Thread,
        key: str,
        response: NormalizedResponse,
        at: UtcDatetime,
        cause: int | None = None,
    ) -> None: ...
    def letters(self, thread: str, limit: int) -> list[Letter]: ...
    def waiting_threads(self, channels: Collection[str]) -> list[str]: ...
    def sending(self, key: str, sending: Sending | None) -> None: ...
    def posted(self, key: str, parts: Sequence[Posted]) -> None: ...
    def delivered(self, letter: Letter, at: UtcDatetime, refused: str | None = None) -> bool: ...
    def put_off(self, letter: Letter, until: UtcDatetime) -> None: ...
    def was_said(self, key: str) -> bool: ...
    def answers(self, incoming: int) -> list[Outgoing]: ...
    def messages(self, thread: str | None, after: int, limit: int) -> list[Outgoing]: ...

    # what is told unasked
    def announce(
        self,
        project: str,
        place: str,
        key: str,
        kind: AlertKind,
        critical: bool,
        response: NormalizedResponse,
        at: UtcDatetime,
        standing: bool = False,
    ) -> None: ...
    def amend(self, key: str, response: NormalizedResponse, at: UtcDatetime) -> bool: ...
    def announcements(self, place: str, limit: int) -> list[Announcement]: ...
    def withdraw(self, announcements: Sequence[Announcement]) -> None: ...
    def places_waiting(self) -> list[str]: ...
    def told_at(self, place: str, since: UtcDatetime) -> list[datetime]: ...
    def tell(self, announcements: Sequence[Announcement], at: UtcDatetime) -> None: ...

    # people and places
    def route(self, channel: str, conversation: str) -> Route | None: ...
    def routes(self, project: str | None = None) -> list[Route]: ...
    def save_route(self, route: Route) -> None: ...
    def remove_route(self, channel: str, conversation: str) -> None: ...
    def aliases(self) -> dict[str, str]: ...
    def save_alias(self, alias: str, project: str) -> None: ...
    def member(self, id: str) -> Member | None: ...
    def person(self, id: str) -> Person | None: ...
    def members(self) -> list[Member]: ...
    def save_member(self, person: Person, source: str) -> None: ...
    def remove_member(self, id: str) -> None: ...
    def person_of(self, channel: str, externals: Sequence[str]) -> Person | None: ...
    def save_identity(
        self, channel: str, external: str, person: str, source: str, at: UtcDatetime
    ) -> None: ...
    def remove_identities(self, source: str) -> None: ...
    def save_code(
        self, hash: str, person: str, made_by: str, at: UtcDatetime, expires_at: UtcDatetime
    ) -> None: ...
    def redeem(self, hash: str, at: UtcDatetime) -> str | None: ...
    def count_try(self, channel: str, external: str, at: UtcDatetime, since: UtcDatetime) -> int: ...

    # intents
    def intend(self, intent: Intent, at: UtcDatetime) -> None: ...
    def open_intents(self, limit: int) -> list[Intent]: ...
    def close_intent(self, id: str, at: UtcDatetime) -> None: ...

    # projects and agents
    def lock_project(self, name: str) -> None: ...
    def project(self, name: str) -> Project | None: ...
    def projects(self) -> list[Project]: ...
    def save_project(self, project: Project) -> None: ...
    def agent(self, id: str) -> Agent | None: ...
    def agents(self, project: str | None = None, live_only: bool = True, limit: int = 200) -> list[Agent]: ...
    def create_agent(
        self, id: str, kind: AgentKind, project: str, cause: str, correlation: str, at: UtcDatetime
    ) -> None: ...
    def transition(
        self,
        id: str,
        wanted: AgentState,
        cause: str,
        correlation: str,
        at: UtcDatetime,
        outcome: Outcome | None = None,
    ) -> None: ...
    def transitions(self, id: str) -> list[dict[str, Any]]: ...

    # tasks
    def next_ticket(self) -> int: ...
    def add_task(self, task: Task) -> bool: ...
    def task(self, id: str) -> Task | None: ...
    def update_task(self, task: Task) -> None: ...
    def open_tasks(self, project: str) -> list[Task]: ...
    def tasks(
        self, project: str | None = None, status: str | None = None, limit: int = 100
    ) -> list[Task]: ...
    def record_usage(
        self, task: str, request: str, model: str, tokens: int, cost_micros: int, at: UtcDatetime
    ) -> None: ...
    def usage(self, task: str) -> tuple[int, int, int]: ...

    # approvals
    def save_approval(self, approval: Approval) -> None: ...
    def approval(self, token: str) -> Approval | None: ...
    def approvals(
        self, project: str | None = None, state: str | None = None, limit: int = 100
    ) -> list[Approval]: ...

    # code hosts: what is watched, builds, reviews, memory, schedules
    def watch(self, project: str) -> Watch: ...
    def problem(self, project: str) -> str: ...
    def save_watch(self, watch: Watch) -> None: ...
    def save_run(self, project: str, run: Run) -> bool: ...
    def runs(
        self,
        project: str,
        *,
        branch: str | None = None,
        workflow: str | None = None,
        commit: str | None = None,
        limit: int = 50,
    ) -> list[Run]: ...
    def standing(self, project: str, branch: str, workflow: str) -> Standing: ...
    def standings(self, project: str, branch: str | None = None) -> list[Standing]: ...
    def save_standing(self, project: str, standing: Standing) -> None: ...
    def add_review(self, record: ReviewRecord) -> bool: ...
    def review(self, id: str) -> ReviewRecord | None: ...
    def update_review(self, record: ReviewRecord) -> None: ...
    def reviews(self, project: str, number: int | None = None, limit: int = 50) -> list[ReviewRecord]: ...
    def running_reviews(self, project: str) -> list[ReviewRecord]: ...
    def review_of(self, project: str, number: int, head_commit: str) -> ReviewRecord | None: ...
    def reviews_at(self, project: str, head_commit: str) -> list[ReviewRecord]: ...
    def begun_unasked(self, project: str, number: int, since: datetime) -> tuple[int, int]: ...
    def remember(self, memory: Memory) -> None: ...
    def memories(self, project: str) -> list[Memory]: ...
    def forget(self, project: str, id: str) -> bool: ...
    def fired(self, project: str, schedule: str) -> datetime | None: ...
    def save_fired(self, project: str, schedule: str, at: UtcDatetime) -> None: ...

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
    ) -> None: ...
    def audit_entries(self, limit: int, project: str | None = None) -> list[dict[str, Any]]: ...
    def verify_audit(self) -> Any: ...


class Store(Protocol):
    async def write(self, work: Callable[[Unit], T]) -> T:
        """Run `work` in a transaction and return its answer once it is committed. Its exception rolls back its own writes only.

        When a unit of the same commit fails, `work` is run again: it may have no effect but on its `Unit`."""
        ...

    async def write_all(self, works: Sequence[Callable[[Unit], T]]) -> list[T | Exception]:
        """Run several units in order; each is all or nothing, and a failed one's exception stands in its place."""
        ...

    async def read(self, work: Callable[[Unit], T]) -> T:
        """Run `work` against a consistent view; it must not write."""
        ...
