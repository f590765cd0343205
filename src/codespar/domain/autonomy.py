"""What an agent may do by itself, and the one question every action passes: `authorize`.

Pure: it decides and says why; it never acts, and it knows no clock and no store. There is no second path to an action.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from codespar.domain.base import Value
from codespar.domain.people import AUTONOMY_CAP, Permission, Person, Role, may, who_could


class Risk(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Sensitive(StrEnum):
    """What a change may touch that no agent does by itself, at any level."""

    DATA_MIGRATION = "data_migration"
    SECURITY = "security"
    INFRASTRUCTURE = "infrastructure"


class Level(Value):
    level: int = Field(ge=0, le=5)
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
DEFAULT_LEVEL = 1
SUGGESTS_FROM = 2  # below, an agent by itself does not even propose
AUTO_FROM: dict[Risk, int] = {Risk.LOW: 3, Risk.MEDIUM: 4, Risk.HIGH: 5}  # critical: never

ALWAYS_A_HUMAN: frozenset[Permission] = frozenset(
    {
        Permission.DEPLOY_PRODUCTION,
        Permission.SET_AUTONOMY,
        Permission.CONFIGURE_POLICIES,
        Permission.INVITE_MEMBERS,
        Permission.LINK_CHANNEL,
        Permission.KILL_SWITCH,
    }
)
"""The permissions no agent uses by itself: production, and whatever would widen its own or somebody's rights."""


class AuthorizationVerdict(StrEnum):
    ALLOW = "allow"
    NEEDS_APPROVAL = "needs_approval"
    DENY = "deny"


class Decision(Value):
    """The answer: `rule` is short and stable (it goes to the audit trail), `reason` is for people and names who could."""

    verdict: AuthorizationVerdict
    rule: str
    reason: str
    who_could: tuple[Role, ...] = ()


def authorize(
    person: Person | None,
    permission: Permission | None,
    *,
    risk: Risk,
    autonomy: int,
    by_agent: bool,
    paused: bool,
    level: int | None = None,
    sensitive: frozenset[Sensitive] = frozenset(),
    approval: str | None = None,
) -> Decision:
    """May this be done?

    `person` asks, or invoked the agent that asks (`by_agent`): it acts with that person's rights and no others. With `by_agent` and no
    person the agent acts by itself, within the project's `autonomy`. `level` is the level that `set_autonomy` would set. `approval` is the
    token of an approved approval of exactly this action (an automatic rollback is covered by its deploy's); it settles what needs one,
    and never what is denied. Raises ValueError for an autonomy level outside 0 to 5.
    """
    if not 0 <= autonomy <= 5:
        raise ValueError(f"autonomy level {autonomy} does not exist; levels are 0 to 5")
    if person is None and by_agent:
        return _by_itself(permission, risk, autonomy, paused, sensitive, approval)
    return _for_person(person, permission, risk, paused, level, approval)


def _for_person(
    person: Person | None,
    permission: Permission | None,
    risk: Risk,
    paused: bool,
    level: int | None,
    approval: str | None,
) -> Decision:
    if permission is None:
        return _allow("anyone", "anyone may")
    able = who_could(permission)
    if person is None:
        return _deny("unknown-person", "nobody known asks for this", able)
    if not may(person.role, permission):
        return _deny(
            f"role:{person.role}",
            f"{person.name} is {person.role}, which does not include {permission}",
            able,
        )
    if permission is Permission.SET_AUTONOMY and level is not None and level > AUTONOMY_CAP[person.role]:
        higher = tuple(role for role in Role if AUTONOMY_CAP.get(role, -1) >= level)
        reason = f"{person.name} is {person.role}, which sets autonomy up to L{AUTONOMY_CAP[person.role]}, not L{level}"
        return _deny(f"autonomy-cap:{person.role}", reason, higher)
    if permission is Permission.KILL_SWITCH:  # stopping and resuming never wait for anybody
        return _allow(f"role:{person.role}", f"{person.role} includes {permission}")
    if paused and risk is not Risk.LOW:
        return _deny(
            "paused", "the project is paused; `resume` brings it back", who_could(Permission.KILL_SWITCH)
        )
    if risk in (Risk.HIGH, Risk.CRITICAL):
        return _with_approval(approval, f"risk:{risk}", f"{risk} risk needs an approval", able)
    return _allow(f"role:{person.role}", f"{person.role} includes {permission}; asking confirms {risk} risk")


def _by_itself(
    permission: Permission | None,
    risk: Risk,
    autonomy: int,
    paused: bool,
    sensitive: frozenset[Sensitive],
    approval: str | None,
) -> Decision:
    able = who_could(permission) if permission else tuple(Role)
    if paused:
        return _deny(
            "paused", "the project is paused; `resume` brings it back", who_could(Permission.KILL_SWITCH)
        )
    if approval:
        return _allow(f"approved:{approval}", f"{approval} approved it")
    rule = f"autonomy-L{autonomy}"
    if autonomy < SUGGESTS_FROM:
        does = "stays silent" if autonomy == 0 else "only tells"
        return _deny(rule, f"the project is at L{autonomy}, where the agent {does} unless it is asked", able)
    needed = AUTO_FROM.get(risk)
    if sensitive or needed is None or permission in ALWAYS_A_HUMAN:
        what = (
            ", ".join(sorted(sensitive))
            if sensitive
            else (f"{risk} risk" if needed is None else str(permission))
        )
        return _with_approval(
            None, "always-a-human", f"{what} never happens without a human, at any level", able
        )
    if autonomy >= needed:
        return _allow(rule, f"L{autonomy} covers {risk} risk")
    return _with_approval(None, rule, f"{risk} risk needs L{needed} and the project is at L{autonomy}", able)


def _allow(rule: str, reason: str) -> Decision:
    return Decision(verdict=AuthorizationVerdict.ALLOW, rule=rule, reason=reason)


def _deny(rule: str, reason: str, able: tuple[Role, ...]) -> Decision:
    return Decision(
        verdict=AuthorizationVerdict.DENY,
        rule=rule,
        reason=f"{reason}. Who could: {_names(able)}.",
        who_could=able,
    )


def _with_approval(approval: str | None, rule: str, reason: str, able: tuple[Role, ...]) -> Decision:
    if approval:
        return _allow(f"approved:{approval}", f"{approval} approved it")
    told = f"{reason}. Who could approve: {_names(able)}."
    return Decision(verdict=AuthorizationVerdict.NEEDS_APPROVAL, rule=rule, reason=told, who_could=able)


def _names(roles: tuple[Role, ...]) -> str:
    return ", ".join(role.value for role in roles) or "nobody"
