"""Organization policies: the rules that narrow what roles and autonomy levels allow, as values.

A policy never gives a right: a rule denies or asks, and a rule more never allows more. Environments, quorums, expiries and the autonomy cap
are numbers that `authorize` uses. Pure; reading them from the settings file is the config's part.
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from codespar.domain.base import Value
from codespar.domain.commandforms import environment
from codespar.domain.people import Permission, Person
from codespar.domain.windows import Span, Window

Kind = Literal["dp", "rb", "tk", "mg", "sg", "bg", "pl", "cf"]
"""What an approval is of: the prefix of its token."""
KINDS: dict[Kind, str] = {
    "dp": "deploy",
    "rb": "rollback",
    "tk": "task",
    "mg": "merge",
    "sg": "suggestion",
    "bg": "budget",
    "pl": "plan",
    "cf": "configuration",
}
MOST_PEOPLE = 20  # of a quorum: what a team reaches before it expires
PRODUCTION_QUORUM = 2
TOP_LEVEL = 5  # of autonomy
AGENT = "agent"  # in a rule's `who`: an agent by itself
DEPLOYS = frozenset({Permission.DEPLOY_STAGING, Permission.DEPLOY_PRODUCTION})
DEPLOY, ROLLBACK = "deploy", "rollback"  # commands that a rule can name and that these rules know themselves


class Effect(StrEnum):
    DENY = "deny"
    ASK = "ask"


class Rollbacks(StrEnum):
    """Whether the automatic rollback of a deploy's health watch is covered by the deploy's own approval."""

    AUTO = "auto"
    ASK = "ask"


class PathPattern(Value):
    """A gitignore-style pattern, and the regular expression it means, matched from the start of a path."""

    text: str
    regex: str


class Rule(Value):
    """One rule. What it leaves out, it does not limit: without `who` it holds for everybody, without `what` for everything.

    It holds where all it names fits: who acts, what they do, where, when, and what is touched.
    """

    name: str  # stable and unique: `freeze:christmas`
    effect: Effect
    who: tuple[str, ...] = ()  # roles, ids of people, or `agent`
    unless: tuple[str, ...] = ()  # roles or ids of people it does not hold for; never an agent by itself
    what: tuple[str, ...] = ()  # commands and permissions
    projects: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    production: bool = False  # every production-like environment, as well as those named
    channels: tuple[str, ...] = ()
    during: tuple[Window | Span, ...] = ()  # it holds in any of them
    outside: tuple[Window | Span, ...] = ()  # it holds in none of them
    paths: tuple[PathPattern, ...] = ()  # it holds where a change touches any
    approvals: int | None = Field(default=None, ge=1, le=MOST_PEOPLE)  # people an `ask` needs
    humans_confirm: bool = False  # a person's own request is confirmation enough
    reason: str = ""  # for people


class EnvironmentPolicy(Value):
    name: str
    production: bool = True  # counts as production
    quorum: int | None = Field(default=None, ge=1, le=MOST_PEOPLE)  # of a deploy to it
    expires_in: timedelta | None = None  # of the same
    self_approval: bool = False  # who asked counts; never where it counts as production


class KindPolicy(Value):
    kind: Kind
    quorum: int | None = Field(default=None, ge=1, le=MOST_PEOPLE)
    expires_in: timedelta | None = None


class Policy(Value):
    """All policies of an installation. The empty one changes nothing."""

    environments: tuple[EnvironmentPolicy, ...] = ()
    kinds: tuple[KindPolicy, ...] = ()
    expires_in: timedelta = timedelta(hours=1)
    critical_expires_in: timedelta = timedelta(minutes=15)
    autonomy_cap: int = Field(default=TOP_LEVEL, ge=0, le=TOP_LEVEL)
    project_caps: dict[str, Annotated[int, Field(ge=0, le=TOP_LEVEL)]] = {}
    rollback: Rollbacks = Rollbacks.AUTO
    rules: tuple[Rule, ...] = ()

    def environment(self, name: str) -> EnvironmentPolicy:
        """What holds of an environment. One that nothing is said of counts as production, but for `staging`."""
        full = environment(name)
        said = next((one for one in self.environments if one.name == full), None)
        return said or _unsaid(full)

    def deploy_permission(self, name: str) -> Permission:
        """The permission that a deploy to the environment, or a rollback of it, takes."""
        production = self.environment(name).production
        return Permission.DEPLOY_PRODUCTION if production else Permission.DEPLOY_STAGING

    def deploy_quorum(self, name: str) -> int:
        """The people who must approve a deploy to the environment."""
        here = self.environment(name)
        common = self._kind("dp").quorum or 1
        return here.quorum or (max(PRODUCTION_QUORUM, common) if here.production else common)

    def quorum(self, kind: Kind) -> int:
        """The people who must approve, but for a deploy's own environment."""
        return self._kind(kind).quorum or 1

    def expiry(self, kind: Kind, *, critical: bool, where: str | None = None) -> timedelta:
        """How long an approval waits: what is said of the environment (of a deploy), else of the kind, else of all."""
        of_place = self.environment(where).expires_in if where and kind == "dp" else None
        common = self.critical_expires_in if critical else self.expires_in
        return of_place or self._kind(kind).expires_in or common

    def cap(self, project: str) -> tuple[int, str]:
        """The highest autonomy of a project, and the name of the rule that sets it."""
        own = self.project_caps.get(project, TOP_LEVEL)
        if own < self.autonomy_cap:
            return own, f"autonomy-cap:project:{project}"
        return self.autonomy_cap, "autonomy-cap:organization"

    def _kind(self, kind: Kind) -> KindPolicy:
        said = next((one for one in self.kinds if one.kind == kind), None)
        return said or _USUAL[kind]


_USUAL: dict[Kind, KindPolicy] = {kind: KindPolicy(kind=kind) for kind in KINDS}


@functools.lru_cache(maxsize=256)
def _unsaid(name: str) -> EnvironmentPolicy:
    return EnvironmentPolicy(name=name, production=name != "staging")


def effective_autonomy(level: int, cap: int) -> int:
    """The level an agent works at: what the project is set to, and never more than the cap."""
    return min(level, cap)


@dataclass(frozen=True, slots=True)
class Act:
    """One action as rules look at it: what is done, where, and what it touches. `environment` is a full name."""

    name: str
    permission: Permission | None
    project: str
    environment: str | None
    production: bool
    channel: str
    paths: tuple[str, ...]


def holds(rule: Rule, person: Person | None, act: Act, at: datetime) -> bool:
    """Whether the rule says anything about this action at this moment."""
    return (
        concerns(rule, person)
        and (not rule.what or any(_is(act, word) for word in rule.what))
        and (not rule.projects or act.project in rule.projects)
        and _place(rule, act)
        and (not rule.channels or act.channel in rule.channels)
        and (not rule.during or any(one.holds(at) for one in rule.during))
        and not any(one.holds(at) for one in rule.outside)
        and (not rule.paths or touches(rule.paths, act.paths))
    )


def concerns(rule: Rule, person: Person | None) -> bool:
    """Whether the rule is about this person, or, for None, about an agent by itself."""
    called = {AGENT} if person is None else {person.id, person.role.value}
    if person is not None and not called.isdisjoint(rule.unless):
        return False
    return not rule.who or not called.isdisjoint(rule.who)


def touches(patterns: Iterable[PathPattern], paths: Iterable[str]) -> bool:
    """Whether any of the paths, relative to the repository's root, matches any of the patterns."""
    written = [posixpath.normpath(path).lstrip("/") for path in paths]
    return any(_compiled(pattern.regex).match(path) for pattern in patterns for path in written)


def told(rule: Rule) -> str:
    """The rule in a sentence, as `policy show` and every denial by it say it."""
    what = ", ".join(rule.what) or "everything"
    people = f"{rule.approvals or 1} approval{'s' if (rule.approvals or 1) > 1 else ''}"
    asks = f"asks for {people}" if rule.approvals or not rule.humans_confirm else "asks for a human"
    places = [*(["whatever counts as production"] if rule.production else []), *rule.environments]
    parts = [
        f"forbids {what}" if rule.effect is Effect.DENY else f"{asks} before {what}",
        f"to {', '.join(rule.who)}" if rule.who else "",
        f"in {', '.join(rule.projects)}" if rule.projects else "",
        f"on {', '.join(places)}" if places else "",
        f"through {', '.join(rule.channels)}" if rule.channels else "",
        f"during {', '.join(one.text for one in rule.during)}" if rule.during else "",
        f"outside {', '.join(one.text for one in rule.outside)}" if rule.outside else "",
        f"where {', '.join(one.text for one in rule.paths)} is touched" if rule.paths else "",
        f"except by {', '.join(rule.unless)}" if rule.unless else "",
    ]
    sentence = " ".join(part for part in parts if part)
    return f"{sentence} ({rule.reason})" if rule.reason else sentence


def _is(act: Act, word: str) -> bool:
    if word == DEPLOY:  # whatever the verb: a cascade deploys too
        return act.name == DEPLOY or (act.permission in DEPLOYS and act.name != ROLLBACK)
    return word in (act.name, act.permission)


def _place(rule: Rule, act: Act) -> bool:
    if not rule.environments and not rule.production:
        return True
    return act.environment in rule.environments or (rule.production and act.production)


@functools.lru_cache(maxsize=1024)
def _compiled(regex: str) -> re.Pattern[str]:
    return re.compile(regex, re.DOTALL)
