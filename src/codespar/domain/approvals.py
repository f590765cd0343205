"""Approvals: who may vote, when a vote counts, and what it decides. Pure.

One reject ends it; the requester never counts unless policy allows it; duplicates, late, forged and replayed votes change nothing and say
why; what is executed is what was shown, so a vote for anything else is void.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from codespar.domain.base import Value, short_id
from codespar.domain.messages import UtcDatetime
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
    requester: str  # person id
    permission: Permission
    quorum: int = 1
    self_approval_allowed: bool = False
    votes: tuple[Vote, ...] = ()
    state: ApprovalState = ApprovalState.PENDING
    thread: Thread
    created_at: UtcDatetime
    expires_at: UtcDatetime


class VoteResult(Value):
    """`decided`: this vote ended the waiting."""

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
    expires_in: timedelta,
    quorum: int = 1,
    self_approval_allowed: bool = False,
) -> Approval:
    """A pending approval whose token follows from `seed`, so that asking again after a crash asks under the same token."""
    return Approval(
        token=short_id(kind.value, seed),
        kind=kind,
        project=project,
        subject=subject,
        action_summary=action_summary,
        shown_digest=shown_digest,
        requester=requester,
        permission=permission,
        quorum=quorum,
        self_approval_allowed=self_approval_allowed,
        thread=thread,
        created_at=now,
        expires_at=now + expires_in,
    )


def vote(
    approval: Approval, person: Person, verdict: Verdict, channel: str, now: datetime, shown_digest: str, *, reason: str = ""
) -> VoteResult:
    """Count one vote. The answer says why it did or did not count."""

    def refuse(why: str, changed: Approval = approval) -> VoteResult:
        return VoteResult(approval=changed, accepted=False, why=why)

    if approval.state is not ApprovalState.PENDING:
        return refuse(f"{approval.token} is {approval.state} already")
    if now >= approval.expires_at:
        return refuse(f"{approval.token} expired at {approval.expires_at:%H:%M} UTC", approval.evolve(state=ApprovalState.EXPIRED))
    if shown_digest != approval.shown_digest:
        return refuse("what was shown has changed since: the approval is void", approval.evolve(state=ApprovalState.VOID))
    if not may(person.role, approval.permission):
        able = ", ".join(who_could(approval.permission))
        return refuse(f"{person.name} ({person.role}) lacks {approval.permission}; one of {able} may vote")
    if any(earlier.person == person.id for earlier in approval.votes):
        return refuse(f"{person.name} has voted already; a person counts once")
    cast = Vote(person=person.id, verdict=verdict, channel=channel, reason=reason, at=now)
    if verdict is Verdict.REJECT:
        ended = approval.evolve(votes=(*approval.votes, cast), state=ApprovalState.REJECTED)
        return VoteResult(approval=ended, accepted=True, decided=True, why=f"rejected by {person.name}" + (f": {reason}" if reason else ""))
    if person.id == approval.requester and not approval.self_approval_allowed:
        return refuse("the person who asked does not count for the approval")
    counted = approval.evolve(votes=(*approval.votes, cast))
    have = sum(one.verdict is Verdict.APPROVE for one in counted.votes)
    if have < approval.quorum:
        return VoteResult(approval=counted, accepted=True, why=f"{have}/{approval.quorum} approvals")
    ended = counted.evolve(state=ApprovalState.APPROVED)
    return VoteResult(approval=ended, accepted=True, decided=True, why=f"approved by {person.name} ({have}/{approval.quorum})")
