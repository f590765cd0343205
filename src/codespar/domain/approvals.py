"""Approvals: who may vote, when a vote counts, and what it decides. Pure: the clock comes in as an argument.

One reject ends it; the requester never counts unless policy allows it; duplicates, late, forged and replayed votes change nothing and say
why; what is executed is what was shown, so an approval whose action changed meanwhile is void.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Self

from pydantic import Field, model_validator

from codespar.domain.autonomy import Risk
from codespar.domain.base import Value, short_id
from codespar.domain.commands import Command
from codespar.domain.messages import FieldLine, UtcDatetime
from codespar.domain.people import Permission, Person, may, who_could
from codespar.domain.tasks import Thread


class ApprovalKind(StrEnum):
    """What is asked for; the value is the token's prefix."""

    DEPLOY = "dp"
    ROLLBACK = "rb"
    TASK = "tk"
    MERGE = "mg"
    SUGGESTION = "sg"
    BUDGET = "bg"
    PLAN = "pl"
    CONFIGURATION = "cf"


class ApprovalState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    VOID = "void"
    EXECUTED = "executed"


class Verdict(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"


class Vote(Value):
    person: str
    verdict: Verdict
    channel: str
    reason: str = ""
    at: UtcDatetime


class Approval(Value):
    token: str
    kind: ApprovalKind
    project: str
    subject: str  # the id of what waits
    action_summary: str
    shown_digest: str  # of exactly what the request showed
    bound: bool = (
        True  # it is void when what it is about has changed since; else it is done on what is there then
    )
    requester: str  # person id
    permission: Permission
    quorum: int = Field(default=1, ge=1)  # distinct people
    self_approval_allowed: bool = False
    command: Command | None = (
        None  # what is carried out when it is approved; None: whoever waits for the answer goes on
    )
    shown: tuple[FieldLine, ...] = ()  # what the request showed beside the summary
    places: tuple[Thread, ...] = ()  # where the request stands
    votes: tuple[Vote, ...] = ()
    state: ApprovalState = ApprovalState.PENDING
    thread: Thread
    created_at: UtcDatetime
    expires_at: UtcDatetime
    untold: bool = False  # no place that may be disturbed was told yet: until then its time does not run

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.token.startswith(f"{self.kind.value}-"):
            raise ValueError(
                f"{self.token} is no token of a {self.kind.name.lower()}: those start with {self.kind.value}-"
            )
        if self.expires_at <= self.created_at:
            raise ValueError(f"{self.token} would expire before it is asked")
        return self

    def over(self, now: datetime) -> bool:
        """Whether its time is over."""
        return not self.untold and now >= self.expires_at

    @property
    def approvers(self) -> frozenset[str]:
        """The people whose approval counts so far."""
        return frozenset(
            vote.person
            for vote in self.votes
            if vote.verdict is Verdict.APPROVE
            and (self.self_approval_allowed or vote.person != self.requester)
        )


AT_ONCE = timedelta(minutes=1)  # what is told within it was not held back
DEFAULT_QUORUM: Mapping[ApprovalKind, int] = MappingProxyType(dict.fromkeys(ApprovalKind, 1))
PRODUCTION_QUORUM = 2  # of a deploy to production
DEFAULT_EXPIRY: Mapping[Risk, timedelta] = MappingProxyType(
    dict.fromkeys(Risk, timedelta(hours=1)) | {Risk.CRITICAL: timedelta(minutes=15)}
)


def default_quorum(kind: ApprovalKind, environment: str | None = None) -> int:
    """How many people must approve where policy says nothing."""
    if kind is ApprovalKind.DEPLOY and environment == "production":
        return PRODUCTION_QUORUM
    return DEFAULT_QUORUM[kind]


class VoteResult(Value):
    """What one vote did. `accepted`: it counts; `decided`: the waiting is over; `why` is for the voter."""

    approval: Approval
    accepted: bool
    why: str
    decided: bool = False


def new_approval(
    *,
    kind: ApprovalKind,
    seed: str,
    project: str,
    subject: str,
    action_summary: str,
    shown_digest: str,
    requester: str,
    permission: Permission,
    thread: Thread,
    now: datetime,
    expires_in: timedelta = DEFAULT_EXPIRY[Risk.LOW],
    quorum: int | None = None,
    self_approval_allowed: bool | None = None,
    attempt: int = 0,
    command: Command | None = None,
    shown: tuple[FieldLine, ...] = (),
    places: tuple[Thread, ...] = (),
    bound: bool = True,
    untold: bool = False,
) -> Approval:
    """A pending approval whose token follows from `seed`, so that asking again after a crash asks under the same token.

    When the token is taken by another approval, ask again with the next `attempt`. Left out, `quorum` is the kind's default, and only a
    budget question may be answered by the one whose task it is.
    """
    own = kind is ApprovalKind.BUDGET if self_approval_allowed is None else self_approval_allowed
    return Approval(
        token=short_id(kind.value, seed, attempt),
        kind=kind,
        project=project,
        subject=subject,
        action_summary=action_summary,
        shown_digest=shown_digest,
        requester=requester,
        permission=permission,
        quorum=default_quorum(kind) if quorum is None else quorum,
        self_approval_allowed=own,
        command=command,
        shown=shown,
        places=places,
        bound=bound,
        thread=thread,
        created_at=now,
        expires_at=now + expires_in,
        untold=untold,
    )


def first_told(approval: Approval, now: datetime) -> Approval:
    """The approval once a place was told of it at `now`: the time to answer it runs from then, where it was held back."""
    if not approval.untold:
        return approval
    late = now - approval.created_at
    return approval.evolve(
        untold=False, expires_at=approval.expires_at + late if late > AT_ONCE else approval.expires_at
    )


def expire(approval: Approval, now: datetime) -> Approval:
    """The approval as it is at `now`: expired when it still waits and its time is over, else unchanged."""
    if approval.state is ApprovalState.PENDING and approval.over(now):
        return approval.evolve(state=ApprovalState.EXPIRED)
    return approval


def vote(
    approval: Approval,
    person: Person,
    verdict: Verdict,
    channel: str,
    now: datetime,
    shown_digest: str,
    *,
    reason: str = "",
) -> VoteResult:
    """Count one vote. The answer says why it did or did not count.

    `shown_digest` is of what would be executed now, computed by the caller; it never comes from the voter. Where it is not what the
    request showed, the approval is void, whoever votes. An earlier approval of the same person does not stop them from rejecting.
    """
    token, allowed = approval.token, approval.permission

    def refuse(why: str) -> VoteResult:
        return VoteResult(approval=approval, accepted=False, why=why)

    if approval.state is not ApprovalState.PENDING:
        return refuse(f"{token} is {approval.state} already; nothing is changed by this vote")
    if approval.over(now):
        return refuse(f"{token} expired at {approval.expires_at:%Y-%m-%d %H:%M} UTC; ask for it again")
    if not may(person.role, allowed):
        able = ", ".join(who_could(allowed))
        return refuse(
            f"{person.name} is {person.role}, which does not include {allowed}; one of {able} may vote on {token}"
        )
    if shown_digest != approval.shown_digest:
        why = f"what {token} showed has changed since, so it is void; ask for it again"
        return VoteResult(
            approval=approval.evolve(state=ApprovalState.VOID), accepted=False, decided=True, why=why
        )
    if verdict is Verdict.APPROVE and person.id == approval.requester and not approval.self_approval_allowed:
        return refuse(
            f"{person.name} asked for {token}, and who asks does not count; somebody else with {allowed} must approve"
        )
    if verdict is Verdict.APPROVE and any(earlier.person == person.id for earlier in approval.votes):
        return refuse(
            f"{person.name} has voted on {token} already; a person counts once, whatever the channel"
        )
    cast = Vote(person=person.id, verdict=verdict, channel=channel, reason=reason, at=now)
    counted = approval.evolve(votes=(*approval.votes, cast))
    if verdict is Verdict.REJECT:
        ended = counted.evolve(state=ApprovalState.REJECTED)
        why = f"rejected by {person.name}" + (f": {reason}" if reason else "")
        return VoteResult(approval=ended, accepted=True, decided=True, why=why)
    have = f"{len(counted.approvers)}/{approval.quorum}"
    if len(counted.approvers) < approval.quorum:
        return VoteResult(approval=counted, accepted=True, why=f"{have} approvals")
    ended = counted.evolve(state=ApprovalState.APPROVED)
    return VoteResult(approval=ended, accepted=True, decided=True, why=f"approved by {person.name} ({have})")
