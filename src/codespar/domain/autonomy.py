"""What an agent may do by itself, and the one question every action passes: `authorize`. Pure."""

from __future__ import annotations

from enum import StrEnum

from codespar.domain.base import Value
from codespar.domain.people import Permission, Person, Role, may, who_could


class Risk(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Level(Value):
    level: int
    name: str
    means: str


LEVELS: tuple[Level, ...] = (
    Level(level=0, name="Passive", means="answers when addressed; events are recorded, nothing is said"),
    Level(level=1, name="Notify", means="monitors and tells"),
    Level(level=2, name="Suggest", means="proposes, with a one-tap approval"),
    Level(level=3, name="Auto-Low", means="does low-risk work itself, tells after"),
    Level(level=4, name="Auto-Med", means="medium-risk work too"),
    Level(level=5, name="Full", means="high-risk work too, except what always needs a human"),
)
_NEEDED = {Risk.LOW: 3, Risk.MEDIUM: 4, Risk.HIGH: 5}


class AuthorizationVerdict(StrEnum):
    ALLOW = "allow"
    NEEDS_APPROVAL = "needs_approval"
    DENY = "deny"


class Decision(Value):
    verdict: AuthorizationVerdict
    rule: str
    reason: str
    who_could: tuple[Role, ...] = ()


def authorize(
    person: Person | None, permission: Permission | None, *, risk: Risk, autonomy: int, by_agent: bool, paused: bool
) -> Decision:
    """May this be done? `person` is who asks (None for an agent acting by itself, with `by_agent`)."""
    allow, ask, deny = AuthorizationVerdict.ALLOW, AuthorizationVerdict.NEEDS_APPROVAL, AuthorizationVerdict.DENY
    if by_agent:
        if paused:
            return Decision(verdict=deny, rule="paused", reason="the project is paused")
        needed = _NEEDED.get(risk)
        if needed is None or permission in (Permission.DEPLOY_PRODUCTION, Permission.SET_AUTONOMY, Permission.CONFIGURE_POLICIES):
            return Decision(verdict=ask, rule="always-a-human", reason="this never happens without a human")
        if autonomy >= needed:
            return Decision(verdict=allow, rule=f"autonomy-L{autonomy}", reason=f"L{autonomy} covers {risk} risk")
        if autonomy >= 2:
            return Decision(verdict=ask, rule=f"autonomy-L{autonomy}", reason=f"{risk} risk needs L{needed}; the project is at L{autonomy}")
        return Decision(verdict=deny, rule=f"autonomy-L{autonomy}", reason=f"at L{autonomy} the agent does nothing by itself")
    if permission is None:
        return Decision(verdict=allow, rule="anyone", reason="anyone may")
    if person is None:
        return Decision(verdict=deny, rule="unknown-person", reason="nobody is known to ask", who_could=who_could(permission))
    if not may(person.role, permission):
        reason = f"{person.name} is {person.role}, which does not include {permission}."
        return Decision(verdict=deny, rule=f"role:{person.role}", reason=reason, who_could=who_could(permission))
    if paused and risk is not Risk.LOW:
        return Decision(verdict=deny, rule="paused", reason="the project is paused; `resume` brings it back")
    return Decision(verdict=allow, rule=f"role:{person.role}", reason=f"{person.role} includes {permission}")
