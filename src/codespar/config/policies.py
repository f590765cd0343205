"""The sections of `policies:` in `codespar.yaml`, and the `Policy` they mean.

A word that names nothing is refused with what was probably meant: a rule that is misspelt would else protect nothing, in silence.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, cast

from pydantic import AfterValidator, Field, model_validator

from codespar.config.units import AutonomyLevel, Duration
from codespar.config.yaml import Problem
from codespar.domain.commandforms import environment
from codespar.domain.commands import COMMANDS
from codespar.domain.messages import Channel
from codespar.domain.people import Permission, Role
from codespar.domain.policy import (
    AGENT,
    DEPLOY,
    KINDS,
    MOST_PEOPLE,
    TOP_LEVEL,
    Effect,
    EnvironmentPolicy,
    Kind,
    KindPolicy,
    PathPattern,
    Policy,
    Rollbacks,
    Rule,
)
from codespar.domain.settings import Filled, Section
from codespar.domain.windows import period

_NAME = r"^[a-z0-9][a-z0-9-]{0,40}$"
_SHORTEST, _LONGEST = 60, 30 * 86400  # seconds an approval may wait
_ALWAYS = frozenset(
    {*(spec.name for spec in COMMANDS if spec.permission in (None, Permission.KILL_SWITCH)), "kill_switch"}
)
_ACTS = sorted({*(spec.name for spec in COMMANDS), *Permission} - _ALWAYS)


def _shown(word: str) -> str:
    """A word of the file as an error can quote it: short, and without what no terminal or encoder takes."""
    return word[:60].encode("utf-8", "replace").decode()


def meant(word: str, known: Collection[str]) -> str:
    """What would be right instead of a word that names nothing."""
    near = difflib.get_close_matches(word[:60].lower(), known, n=1)
    return f"did you mean `{near[0]}`?" if near else f"known here are {', '.join(known)}"


def _one_of(known: Collection[str], what: str) -> Callable[[str], str]:
    def check(word: str) -> str:
        if word not in known:
            raise ValueError(f"`{_shown(word)}` is no {what}; {meant(word, known)}")
        return word

    return check


def _act(word: str) -> str:
    if word in _ALWAYS:
        raise ValueError(f"`{word}` is never limited: help and the kill switch work for whoever holds them")
    return _one_of(_ACTS, "command or permission")(word)


def _effect(word: str) -> str:
    if word == "allow":
        told = "a policy never gives a right; name who a rule does not hold for under its `unless`"
        raise ValueError(told)
    return _one_of([effect.value for effect in Effect], "effect")(word)


def _period(text: str) -> str:
    period(text)
    return text


def _expiry(seconds: float) -> float:
    if not _SHORTEST <= seconds <= _LONGEST:
        raise ValueError("must be from 1m to 30d: people need time to answer, and an answer must still fit")
    return seconds


def _pattern(text: str) -> str:
    if text.startswith("!"):
        raise ValueError("must not start with `!`: a pattern adds what is guarded and takes nothing back")
    if _regex(text) is None:
        raise ValueError("matches nothing; a gitignore-style pattern such as `infra/` or `*.tf` does")
    return text


def _regex(text: str) -> str | None:
    """What pathspec, the reader of `blocked_paths`, makes of a pattern. `infra/` guards a file or link of that name as well."""
    from pathspec import GitIgnoreSpec

    try:
        read = GitIgnoreSpec.from_lines([text.rstrip("/") or text]).patterns
    except ValueError:
        return None
    found = read[0].regex if len(read) == 1 else None
    return None if found is None else str(found.pattern)


def _some(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words:
        raise ValueError("must name at least one; an empty list would hold for nothing")
    return words


Quorum = Annotated[int, Field(ge=1, le=MOST_PEOPLE, strict=True)]
Expiry = Annotated[Duration, AfterValidator(_expiry)]
Period = Annotated[
    str,
    AfterValidator(_period),
    Field(
        json_schema_extra={"examples": ["Mon-Fri 09:00-17:00 Europe/Lisbon", "2026-12-20 to 2027-01-02 UTC"]}
    ),
]
RuleName = Annotated[str, Field(pattern=_NAME)]
Act = Annotated[str, AfterValidator(_act), Field(json_schema_extra={"enum": _ACTS})]
KindName = Annotated[
    str,
    AfterValidator(_one_of(list(KINDS.values()), "kind of approval")),
    Field(json_schema_extra={"enum": list(KINDS.values())}),
]
EffectName = Annotated[
    str, AfterValidator(_effect), Field(json_schema_extra={"enum": [effect.value for effect in Effect]})
]
EnvironmentName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$"), AfterValidator(environment)
]
Pattern = Annotated[str, AfterValidator(_pattern)]
_SOME = (AfterValidator(_some), Field(json_schema_extra={"minItems": 1}))
Periods = Annotated[tuple[Period, ...], *_SOME]
Patterns = Annotated[tuple[Pattern, ...], *_SOME]


class ApprovalKindSettings(Section):
    kind: KindName = Field(
        description="deploy, rollback, task, merge, suggestion, budget, plan or configuration"
    )
    quorum: Quorum | None = Field(default=None, description="how many people must approve; left out: 1")
    expires: Expiry | None = Field(
        default=None, description="how long it waits, at any risk; left out: as all others"
    )


class ApprovalSettings(Section):
    expires: Expiry | None = Field(default=None, description="how long an approval waits; left out: 1h")
    critical_expires: Expiry | None = Field(
        default=None, description="the same at critical risk; left out: 15m"
    )
    kinds: tuple[ApprovalKindSettings, ...] = Field(
        default=(), description="what holds of one kind of approval"
    )


class DeployEnvironment(Section):
    name: EnvironmentName = Field(description="as in `deploy to <name>`; `prod` is `production`")
    production: bool | None = Field(
        default=None,
        strict=True,
        description="whether it counts as production and takes deploy_production; left out: yes, but for staging",
    )
    quorum: Quorum | None = Field(
        default=None,
        description="how many people must approve a deploy; left out: 2 where it counts as production, else 1",
    )
    expires: Expiry | None = Field(
        default=None, description="how long a deploy's approval waits; left out: as all others"
    )
    self_approval: bool | None = Field(
        default=None,
        strict=True,
        description="whether who asked for a deploy counts; never where it counts as production; left out: no",
    )
    windows: tuple[Period, ...] = Field(
        default=(), description="the only times of deploys, such as `Mon-Fri 09:00-17:00 Europe/Lisbon`"
    )

    @property
    def counts_as_production(self) -> bool:
        return self.name != "staging" if self.production is None else self.production

    @model_validator(mode="after")
    def _stays_safe(self) -> DeployEnvironment:
        if self.name == "production" and not self.counts_as_production:
            raise ValueError("`production` counts as production; give another name to what does not")
        if self.self_approval and self.counts_as_production:
            raise ValueError("`self_approval` is only for what does not count as production; take it out")
        return self


class FreezeSettings(Section):
    name: RuleName = Field(description="denials name it: `freeze:<name>`")
    during: Periods = Field(description="dates or weekly times in which nothing is deployed")
    environments: tuple[EnvironmentName, ...] = Field(
        default=(), description="where it holds; left out: whatever counts as production"
    )
    projects: tuple[Filled, ...] = Field(default=(), description="whose deploys it holds for; left out: all")
    unless: tuple[Filled, ...] = Field(
        default=(), description="roles or ids of people that it does not hold for"
    )
    reason: str = Field(default="", description="what people are told with a denial")


class GuardedPaths(Section):
    name: RuleName = Field(description="questions name it: `paths:<name>`")
    patterns: Patterns = Field(
        description="gitignore-style patterns of what no agent changes without a human"
    )
    projects: tuple[Filled, ...] = Field(default=(), description="where it holds; left out: everywhere")
    approvals: Quorum | None = Field(
        default=None,
        description="how many others must approve what a person asks for, too; left out: asking is enough",
    )
    reason: str = Field(default="", description="what people are told with the question")


class PolicyRule(Section):
    name: RuleName = Field(description="denials and questions name it: `rule:<name>`")
    effect: EffectName = Field(description="deny, or ask for approvals; a rule never allows more")
    who: tuple[Filled, ...] = Field(
        default=(), description="roles, ids of people, or `agent` for an agent by itself; left out: everybody"
    )
    unless: tuple[Filled, ...] = Field(
        default=(), description="roles or ids of people that it does not hold for"
    )
    what: tuple[Act, ...] = Field(
        default=(), description="commands and permissions; left out: all but help and the kill switch"
    )
    projects: tuple[Filled, ...] = Field(default=(), description="where it holds; left out: everywhere")
    environments: tuple[EnvironmentName, ...] = Field(
        default=(), description="where deploys and rollbacks go; left out: anywhere"
    )
    channels: tuple[Filled, ...] = Field(default=(), description="where it was said; left out: anywhere")
    during: tuple[Period, ...] = Field(
        default=(), description="dates or weekly times in which it holds; left out: always"
    )
    approvals: Quorum | None = Field(default=None, description="how many people an ask needs; left out: 1")
    reason: str = Field(default="", description="what people are told with it")

    @model_validator(mode="after")
    def _fits(self) -> PolicyRule:
        if self.effect == Effect.DENY and self.approvals:
            raise ValueError(
                "a rule that denies needs no `approvals`; make its effect `ask`, or take them out"
            )
        return self


class AutonomyPolicy(Section):
    cap: AutonomyLevel = Field(default=TOP_LEVEL, description="the highest level of any project")
    projects: dict[str, AutonomyLevel] = Field(
        default={}, description="the highest level of a project, by name"
    )


def policy_of(
    *,
    autonomy: AutonomyPolicy,
    rollback: Rollbacks,
    approvals: ApprovalSettings,
    environments: Sequence[DeployEnvironment],
    freezes: Sequence[FreezeSettings],
    paths: Sequence[GuardedPaths],
    rules: Sequence[PolicyRule],
) -> Policy:
    """The sections as one value, each rule under the name that people will read."""
    tokens: dict[str, Kind] = {name: kind for kind, name in KINDS.items()}
    usual = Policy()
    return Policy(
        environments=tuple(
            EnvironmentPolicy(
                name=one.name,
                production=one.counts_as_production,
                quorum=one.quorum,
                expires_in=_time(one.expires),
                self_approval=bool(one.self_approval),
            )
            for one in environments
        ),
        kinds=tuple(
            KindPolicy(kind=tokens[one.kind], quorum=one.quorum, expires_in=_time(one.expires))
            for one in approvals.kinds
        ),
        expires_in=_time(approvals.expires) or usual.expires_in,
        critical_expires_in=_time(approvals.critical_expires) or usual.critical_expires_in,
        autonomy_cap=autonomy.cap,
        project_caps=autonomy.projects,
        rollback=rollback,
        rules=(
            *(_freeze(one) for one in freezes),
            *(_windows(one) for one in environments if one.windows),
            *(_rule(one) for one in rules),
            *(_guard(one) for one in paths),
        ),
    )


def _time(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _freeze(one: FreezeSettings) -> Rule:
    return Rule(
        name=f"freeze:{one.name}",
        effect=Effect.DENY,
        what=(DEPLOY,),
        unless=one.unless,
        projects=one.projects,
        environments=one.environments,
        production=not one.environments,
        during=tuple(period(text) for text in one.during),
        reason=one.reason,
    )


def _windows(one: DeployEnvironment) -> Rule:
    return Rule(
        name=f"window:{one.name}",
        effect=Effect.DENY,
        what=(DEPLOY,),
        environments=(one.name,),
        outside=tuple(period(text) for text in one.windows),
    )


def _rule(one: PolicyRule) -> Rule:
    given = {
        name: getattr(one, name) for name in ("who", "unless", "what", "projects", "environments", "channels")
    }
    return Rule(
        name=f"rule:{one.name}",
        effect=Effect(one.effect),
        during=tuple(period(text) for text in one.during),
        approvals=one.approvals,
        reason=one.reason,
        **given,
    )


def _guard(one: GuardedPaths) -> Rule:
    return Rule(
        name=f"paths:{one.name}",
        effect=Effect.ASK,
        projects=one.projects,
        paths=tuple(PathPattern(text=text, regex=_regex(text) or "") for text in one.patterns),
        approvals=one.approvals,
        humans_confirm=one.approvals is None,
        reason=one.reason,
    )


# what no single key can tell


def check_policies(document: Mapping[str, Any]) -> Iterator[Problem]:
    """Names that stand twice, and people, projects, environments and channels that are named and are not there."""
    policies = document.get("policies")
    if not isinstance(policies, dict):
        return
    section = cast("dict[str, Any]", policies)
    lists = {key: list(_entries(section, key)) for key in ("environments", "freezes", "paths", "rules")}
    for key, entries in lists.items():
        yield from _twice(key, entries)
    known = _known(document, lists["environments"])
    for key in ("freezes", "paths", "rules"):
        for place, entry in lists[key]:
            for word, names in known.items():
                for at, name in _words(entry, word):
                    shown = environment(name) if word == "environments" else name
                    if shown not in names:
                        yield Problem(
                            ("policies", key, place, word, at),
                            f"`{_shown(name)}` is not known here; {meant(name, sorted(names))}",
                        )
    autonomy = section.get("autonomy")
    caps = cast("dict[str, Any]", autonomy).get("projects") if isinstance(autonomy, dict) else None
    for name in cast("dict[str, Any]", caps) if isinstance(caps, dict) else ():
        if name not in known["projects"]:
            told = f"`{_shown(name)}` is no project; {meant(name, sorted(known['projects']))}"
            yield Problem(("policies", "autonomy", "projects", name), told)


def _known(
    document: Mapping[str, Any], environments: list[tuple[int, dict[str, Any]]]
) -> dict[str, frozenset[str]]:
    """What can be named, by the key that names it."""
    people = {
        str(person.get("id") or str(person.get("name", "")).lower().replace(" ", "-"))
        for _, person in _entries(document, "people")
    }
    channels = document.get("channels")
    return {
        "who": frozenset({*Role, AGENT, *people}),
        "unless": frozenset({*Role, *people}),
        "projects": frozenset(str(project.get("name")) for _, project in _entries(document, "projects")),
        "environments": frozenset(
            {"staging", "production", *(environment(str(one.get("name"))) for _, one in environments)}
        ),
        "channels": frozenset(
            {*Channel, *(cast("dict[str, Any]", channels) if isinstance(channels, dict) else ())}
        ),
    }


def _twice(key: str, entries: list[tuple[int, dict[str, Any]]]) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for place, entry in entries:
        name = entry.get("name")
        if not isinstance(name, str):
            continue
        name = environment(name) if key == "environments" else name
        if name in seen:
            told = f"policies.{key}[{seen[name]}] is called `{_shown(name)}` too; give each a name of its own"
            yield Problem(("policies", key, place, "name"), told)
        seen.setdefault(name, place)


def _entries(document: Mapping[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = document.get(key)
    for place, entry in enumerate(cast("list[Any]", entries) if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            yield place, cast("dict[str, Any]", entry)


def _words(entry: dict[str, Any], key: str) -> Iterator[tuple[int, str]]:
    words = entry.get(key)
    for place, word in enumerate(cast("list[Any]", words) if isinstance(words, list) else ()):
        if isinstance(word, str):
            yield place, word
