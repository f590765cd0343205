"""One command being carried out inside its unit of work: who asks, in which thread, on what facts, and a way to answer.

A turn begins with a message of the inbox, or with the approval of an earlier one; what carries it out does not need to know which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from codespar.agents.workshop import Workshop
from codespar.domain.approvals import Approval
from codespar.domain.base import Value
from codespar.domain.commands import Command
from codespar.domain.issues import QuotedIssue
from codespar.domain.messages import Attachment, FieldLine, NormalizedResponse
from codespar.domain.people import Person, Role
from codespar.domain.policy import Policy
from codespar.domain.tasks import Thread
from codespar.store.base import PULLED, Incoming, Unit

TELLING = frozenset({"status", "queue", "logs", "prs", "memory", "list projects", "policy", "audit", "help"})
"""The commands that change nothing: by the clock they need no more than that the agent may tell at all."""


class Facts(Value):
    """What was read from outside the store for one command."""

    text: str = ""
    title: str = ""
    problem: str = ""
    shown: tuple[FieldLine, ...] = ()  # what a request for approval shows of it
    paths: tuple[str, ...] = ()  # the files a change touches
    judged: tuple[str, ...] = ()  # the same, where the head commit alone is what a request shows
    attachments: tuple[Attachment, ...] = ()
    issue: QuotedIssue | None = None  # what a task is to mend, as others wrote it
    able: str = ""  # what to do about the problem
    about: str = ""  # the token of the approval whose command it was read for


@dataclass(frozen=True)
class Bench:
    """What turns work with, besides the store."""

    workshop: Callable[[str], Workshop]
    policy: Callable[[], Policy]
    aliases: Callable[[], Mapping[str, str]]  # lower-case names to projects


@dataclass
class Turn:
    unit: Unit
    bench: Bench
    now: datetime
    origin: str  # what makes its effects recognizable when it is done again: `in12`, or an approval's token
    seed: (
        str  # from which ids follow: the same message names the same work, here and on no other installation
    )
    project: str  # "": what was said belongs to no one project
    person: Person
    thread: Thread
    channel: str
    command: Command
    facts: Facts | None = None
    cause: int | None = None  # the inbox row it answers
    direct: bool = False  # nobody else reads the answer
    public: bool = False  # anybody on the internet can read and write there, and nothing there is direct
    identity: tuple[str, tuple[str, ...]] = ("", ())  # the channel, and the platform's ids of the person
    approval: str | None = None  # the token of the approval of exactly this
    alone: bool = False  # nobody gave it: a schedule did, and the agent acts by itself
    _answers: int = field(default=0, init=False)

    @classmethod
    def of(
        cls,
        unit: Unit,
        bench: Bench,
        now: datetime,
        incoming: Incoming,
        command: Command,
        facts: Facts | None = None,
    ) -> Turn:
        """The turn of a message. Who asks, our own records say, as they are now."""
        message = incoming.message
        also = message.metadata.get("also")
        others = tuple(str(one) for one in also) if isinstance(also, list) else ()
        return cls(
            unit=unit,
            bench=bench,
            now=now,
            origin=f"in{incoming.id}",
            seed=f"{message.channel}:{message.id}",
            project=command.project or incoming.project,
            person=who_asks(unit, incoming),
            thread=incoming.thread,
            channel=message.channel,
            command=command,
            facts=facts,
            cause=incoming.id,
            direct=message.channel in PULLED or message.metadata.get("direct") is True,
            public=message.metadata.get("public") is True,
            identity=(message.channel, (message.author.id, *others)),
            alone=acts_alone(incoming),
        )

    @classmethod
    def approved(
        cls,
        unit: Unit,
        bench: Bench,
        now: datetime,
        approval: Approval,
        command: Command,
        requester: Person,
        facts: Facts | None,
    ) -> Turn:
        """The turn of a command that waited for its approval: with the rights its requester has now, in the thread that asked."""
        return cls(
            unit=unit,
            bench=bench,
            now=now,
            origin=approval.token,
            seed=f"{approval.token}:{approval.created_at.isoformat()}",
            project=approval.project,
            person=requester,
            thread=approval.thread,
            channel=approval.thread.channel,
            command=command,
            facts=facts,
            approval=approval.token,
        )

    @property
    def max_tasks(self) -> int:
        """The project's task slots."""
        return self.bench.workshop(self.project).max_tasks

    def say(self, response: NormalizedResponse) -> None:
        self._answers += 1
        key = f"{self.origin}:{self._answers}"
        self.unit.say(self.project, self.thread, key, response, self.now, self.cause)

    def record(self, action: str, subject: str, detail: dict[str, Any]) -> None:
        self.unit.record(
            at=self.now,
            actor=self.person.name,
            action=action,
            project=self.project,
            subject=subject,
            detail=detail,
        )


def acts_alone(incoming: Incoming) -> bool:
    """Whether a schedule without a person gave it. Only our own clockwork writes that."""
    return "schedule" in incoming.message.metadata and incoming.person is None


def who_asks(unit: Unit, incoming: Incoming) -> Person:
    """Who a message is from: somebody we know, or an unknown person, who is read-only."""
    if acts_alone(incoming):
        agent = f"agent-{incoming.project}"
        return Person(id=agent, name=agent, role=Role.READ_ONLY)
    known = unit.person(incoming.person) if incoming.person else None
    if known is not None:
        return known
    author = incoming.message.author
    return Person(id=f"{incoming.message.channel}:{author.id}", name=author.name, role=Role.READ_ONLY)
