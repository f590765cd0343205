"""What an agent may do by itself, and the one question every action passes: `authorize`.

Pure: it decides and says why; it never acts, and it knows no clock and no store. There is no second path to an action. Roles and autonomy
levels give rights; policies only take away or ask. The rules are those of `docs/permissions.md`; they change there and here together.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from codespar.domain.base import Value
from codespar.domain.commandforms import environment
from codespar.domain.messages import UtcDatetime
from codespar.domain.people import AUTONOMY_CAP, Permission, Person, Role, may, who_could
from codespar.domain.policy import (
    DEPLOYS,
    MOST_PEOPLE,
    ROLLBACK,
    TOP_LEVEL,
    Act,
    Effect,
    Kind,
    Policy,
    Rollbacks,
    Rule,
    effective_autonomy,
    holds,
    told,
)


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
PAUSED = "paused"  # the rule that stops everything but looking, until `resume`
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


def _level(value: int) -> int:
    if not 0 <= value <= TOP_LEVEL:
        raise ValueError(f"autonomy level {value} does not exist; levels are 0 to {TOP_LEVEL}")
    return value


AutonomyLevel = Annotated[int, AfterValidator(_level)]


class Action(Value):
    """What is to be done."""

    name: str  # the command's, or an agent's own verb: `deploy`
    permission: Permission | None  # None: anyone may
    risk: Risk
    level: AutonomyLevel | None = None  # that `set_autonomy` would set
    sensitive: frozenset[Sensitive] = frozenset()


class Resource(Value):
    """What it is done to."""

    project: str
    autonomy: AutonomyLevel  # as the project is set; a policy may cap it
    paused: bool = False
    environment: str | None = None
    paths: tuple[str, ...] = ()  # what a change touches; of what is renamed, both names


class Context(Value):
    """The circumstances. `approval` is the token of an approved approval of exactly this action; an automatic rollback is covered by its
    deploy's."""

    at: UtcDatetime
    policy: Policy = Policy()
    by_agent: bool = False
    approval: str | None = None
    channel: str = ""


class Ask(Value):
    """The approval that is needed: what `new_approval` and `vote` go by."""

    kind: Kind
    permission: Permission  # of who may vote
    quorum: int = Field(ge=1, le=MOST_PEOPLE)  # distinct people
    expires_in: timedelta
    self_approval_allowed: bool = False


class Decision(Value):
    """The answer: `rule` is short and stable (it goes to the audit trail, and `describe` lists it), `reason` is for people and names who
    could. `ask` comes with `needs_approval`."""

    verdict: AuthorizationVerdict
    rule: str
    reason: str
    who_could: tuple[Role, ...] = ()
    ask: Ask | None = None


def authorize(person: Person | None, action: Action, resource: Resource, context: Context) -> Decision:
    """May this be done?

    `person` asks, or invoked the agent that asks (`by_agent`): it acts with that person's rights and no others. With `by_agent` and no
    person the agent acts by itself, within the project's autonomy. An approval settles what needs one, and never what is denied. Whether a
    person's vote on an approval counts is the same question, asked of the voter with `ask.permission`: who is denied has no vote.
    """
    case = _Case(action, resource, context)
    return case.by_itself() if person is None and context.by_agent else case.for_person(person)


class _Case:
    """One question, with what follows from its parts: the full name of the environment, and the permission that it really takes."""

    def __init__(self, action: Action, resource: Resource, context: Context) -> None:
        self.action, self.resource, self.policy, self.at = action, resource, context.policy, context.at
        self.approval = context.approval
        permission = action.permission
        where = environment(resource.environment) if resource.environment else None
        if permission in DEPLOYS and where is None:
            where = "staging" if permission is Permission.DEPLOY_STAGING else "production"
        here = self.policy.environment(where) if where else None
        production = here is not None and here.production
        if permission in DEPLOYS and production:
            permission = Permission.DEPLOY_PRODUCTION  # whatever the caller took it for
        self.permission, self.where, self.here = permission, where, here
        self.act = Act(
            name=action.name,
            permission=permission,
            project=resource.project,
            environment=where,
            production=production,
            channel=context.channel,
            paths=resource.paths,
        )

    def for_person(self, person: Person | None) -> Decision:
        permission, risk = self.permission, self.action.risk
        if permission is None:
            return _allow("anyone", "anyone may")
        if person is None:
            return _deny("unknown-person", "nobody known asks for this", self._able(permission))
        if not may(person.role, permission):
            reason = f"{person.name} is {person.role}, which does not include {permission}"
            return _deny(f"role:{person.role}", reason, self._able(permission))
        if permission is Permission.SET_AUTONOMY and (above := self._above_cap(person)):
            return above
        if (
            permission is Permission.KILL_SWITCH
        ):  # stopping and resuming never wait for anybody, and no policy stands in their way
            return _allow(f"role:{person.role}", f"{person.role} includes {permission}")
        if self.resource.paused and risk is not Risk.LOW:
            return _paused()
        if forbidden := self._forbidden(person):
            return forbidden
        asking = [rule for rule in self._rules(Effect.ASK, person) if not rule.humans_confirm]
        if risk in (Risk.HIGH, Risk.CRITICAL) or asking:
            if self.approval:
                return _approved(self.approval)
            first = (f"risk:{risk}", f"{risk} risk needs an approval") if risk in _WAITING else None
            return self._ask(first, asking, alone=False)
        return _allow(
            f"role:{person.role}", f"{person.role} includes {permission}; asking confirms {risk} risk"
        )

    def by_itself(self) -> Decision:
        permission, risk = self.permission, self.action.risk
        able = self._able(permission) if permission else tuple(Role)
        if self.resource.paused:
            return _paused()
        if permission is Permission.SET_AUTONOMY and (above := self._above_cap(None)):
            return above
        rolls_back = self.action.name == ROLLBACK and self.approval is not None
        if not rolls_back and (forbidden := self._forbidden(None)):
            return forbidden
        if self.approval:
            if rolls_back and self.policy.rollback is Rollbacks.ASK and not self.approval.startswith("rb-"):
                again = f"{self.approval} approved the deploy; going back asks again here"
                return self._ask(("rollback:ask", again), [], alone=True)
            return _approved(self.approval)
        cap, capped_by = self.policy.cap(self.resource.project)
        level = effective_autonomy(self.resource.autonomy, cap)
        rule = f"autonomy-L{level}"
        stands = f"the project is at L{level}" + (
            f" ({capped_by} holds it there)" if level < self.resource.autonomy else ""
        )
        if level < SUGGESTS_FROM:
            does = "stays silent" if level == 0 else "only tells"
            return _deny(rule, f"{stands}, where the agent {does} unless it is asked", able)
        asking = self._rules(Effect.ASK, None)
        needed = AUTO_FROM.get(risk)
        if self.action.sensitive or needed is None or permission in ALWAYS_A_HUMAN:
            what = ", ".join(sorted(self.action.sensitive)) or (
                f"{risk} risk" if needed is None else str(permission)
            )
            never = f"{what} never happens without a human, at any level"
            return self._ask(("always-a-human", never), asking, alone=True)
        if asking:
            return self._ask(None, asking, alone=True)
        if level >= needed:
            return _allow(rule, f"L{level} covers {risk} risk")
        return self._ask((rule, f"{risk} risk needs L{needed} and {stands}"), [], alone=True)

    def _rules(self, effect: Effect, person: Person | None) -> list[Rule]:
        return [
            rule
            for rule in self.policy.rules
            if rule.effect is effect and holds(rule, person, self.act, self.at)
        ]

    def _forbidden(self, person: Person | None) -> Decision | None:
        for rule in self._rules(Effect.DENY, person):
            able = self._able(self.permission) if self.permission else ()
            return _deny(rule.name, f"{rule.name} {told(rule)}", able)
        return None

    def _above_cap(self, person: Person | None) -> Decision | None:
        level = self.action.level
        if level is None:
            return None
        if person is not None and level > AUTONOMY_CAP[person.role]:
            reason = f"{person.name} is {person.role}, which sets autonomy up to L{AUTONOMY_CAP[person.role]}, not L{level}"
            return _deny(f"autonomy-cap:{person.role}", reason, self._able(Permission.SET_AUTONOMY))
        cap, rule = self.policy.cap(self.resource.project)
        if level > cap:
            return _deny(
                rule, f"policy caps the autonomy of {self.resource.project} at L{cap}, not L{level}", ()
            )
        return None

    def _able(self, permission: Permission) -> tuple[Role, ...]:
        """The roles that hold the permission and that no rule forbids it, strongest first."""
        level = self.action.level if permission is Permission.SET_AUTONOMY else None
        if level is not None and level > self.policy.cap(self.resource.project)[0]:
            return ()
        return tuple(
            role
            for role in who_could(permission)
            if (level is None or AUTONOMY_CAP[role] >= level)
            and not (
                self.policy.rules
                and permission is not Permission.KILL_SWITCH
                and self._rules(Effect.DENY, Person(id="", name="", role=role))
            )
        )

    def _ask(self, first: tuple[str, str] | None, asking: Iterable[Rule], *, alone: bool) -> Decision:
        """What is asked where `first` (a name and a reason) or rules want an approval: as many people as the strictest of them."""
        kind, own = self._kind(alone), self._kind(alone=False)
        critical = self.action.risk is Risk.CRITICAL
        quorum = (
            self.policy.deploy_quorum(self.where)
            if own == "dp" and self.where
            else max(self.policy.quorum(kind), self.policy.quorum(own))
        )
        name, reasons = (first[0], [first[1]]) if first else ("", [])
        asked_by_rule = False
        for rule in asking:
            wanted = rule.approvals or 1
            if not name or wanted > quorum:
                name = rule.name
            quorum = max(quorum, wanted)
            reasons.append(f"{rule.name} {told(rule)}")
            asked_by_rule = True
        permission = self.permission or Permission.VIEW_STATUS
        if kind == "mg" and not alone:  # who asks may merge; who votes judges the pull request
            permission = Permission.APPROVE_PR
        expires_in = self.policy.expiry(kind, critical=critical, where=self.where)
        here = self.here
        ask = Ask(
            kind=kind,
            permission=permission,
            quorum=quorum,
            expires_in=expires_in,
            self_approval_allowed=bool(
                here and here.self_approval and not here.production and kind == "dp" and not asked_by_rule
            ),
        )
        able = self._able(permission)
        return Decision(
            verdict=AuthorizationVerdict.NEEDS_APPROVAL,
            rule=name,
            reason=f"{'; '.join(reasons)}. Who could approve: {_names(able)}.",
            who_could=able,
            ask=ask,
        )

    def _kind(self, alone: bool) -> Kind:
        """What an approval of it is of. What an agent proposes by itself is a suggestion, unless it is one of the weightier kinds."""
        if self.permission in DEPLOYS:
            return "rb" if self.action.name == ROLLBACK else "dp"
        if self.permission is Permission.MERGE_PR:
            return "mg"
        if self.action.name == "plan":
            return "pl"
        if self.permission in _CONFIGURES:
            return "cf"
        return "sg" if alone else "tk"


_WAITING = (Risk.HIGH, Risk.CRITICAL)
_CONFIGURES = ALWAYS_A_HUMAN - DEPLOYS


def _allow(rule: str, reason: str) -> Decision:
    return Decision(verdict=AuthorizationVerdict.ALLOW, rule=rule, reason=reason)


def _approved(approval: str) -> Decision:
    return _allow(f"approved:{approval}", f"{approval} approved it")


def _paused() -> Decision:
    able = who_could(Permission.KILL_SWITCH)
    return Decision(
        verdict=AuthorizationVerdict.DENY,
        rule=PAUSED,
        reason=f"the project is paused; `resume` ends that. Who could give it: {_names(able)}.",
        who_could=able,
    )


def _deny(rule: str, reason: str, able: tuple[Role, ...]) -> Decision:
    return Decision(
        verdict=AuthorizationVerdict.DENY,
        rule=rule,
        reason=f"{reason}. Who could: {_names(able)}.",
        who_could=able,
    )


def _names(roles: tuple[Role, ...]) -> str:
    return ", ".join(role.value for role in roles) or "nobody"
