"""What the Project Agent may do by itself: the one question, asked without a person."""

from __future__ import annotations

from datetime import datetime

from codespar.domain.autonomy import (
    Action,
    AuthorizationVerdict,
    Context,
    Decision,
    Resource,
    Risk,
    Sensitive,
    authorize,
)
from codespar.domain.people import Permission
from codespar.domain.policy import Policy, effective_autonomy
from codespar.store.base import Project

TELLS_FROM = 1  # the autonomy level below which nothing is said unasked


def by_itself(
    project: Project,
    policy: Policy,
    name: str,
    permission: Permission,
    risk: Risk,
    now: datetime,
    *,
    paths: tuple[str, ...] = (),
    sensitive: frozenset[Sensitive] = frozenset(),
) -> Decision:
    """Whether the agent does it (`allow`), proposes it (`needs_approval`), or leaves it (`deny`)."""
    return authorize(
        None,
        Action(name=name, permission=permission, risk=risk, sensitive=sensitive),
        Resource(project=project.name, autonomy=project.autonomy, paused=project.paused, paths=paths),
        Context(at=now, policy=policy, by_agent=True),
    )


def may_tell(project: Project, policy: Policy) -> bool:
    """Whether the project's places are told of what was not asked for."""
    cap, _ = policy.cap(project.name)
    return effective_autonomy(project.autonomy, cap) >= TELLS_FROM


def proposes(decision: Decision) -> bool:
    """Whether it is to be suggested."""
    return decision.verdict is AuthorizationVerdict.NEEDS_APPROVAL


def does(decision: Decision) -> bool:
    """Whether it is done without asking."""
    return decision.verdict is AuthorizationVerdict.ALLOW
