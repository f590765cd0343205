"""Every rule in force, by the names that decisions give: what `policy show` says.

Pure, and made from the same tables that `authorize` reads, so that a denial never names a rule which is not listed here.
"""

from __future__ import annotations

from datetime import timedelta

from codespar.domain.autonomy import ALWAYS_A_HUMAN, AUTO_FROM, DEFAULT_LEVEL, LEVELS, Risk, Sensitive
from codespar.domain.messages import FieldLine
from codespar.domain.people import AUTONOMY_CAP, PERMISSIONS, Permission, Role
from codespar.domain.policy import KINDS, TOP_LEVEL, Policy, Rollbacks, told


def describe(policy: Policy) -> tuple[FieldLine, ...]:
    """The rules in force, the organization's own first."""
    lines = [
        *((rule.name, told(rule)) for rule in policy.rules),
        *_environments(policy),
        *_approvals(policy),
        *_caps(policy),
        *_built_in(),
    ]
    return tuple(FieldLine(name=name, value=value) for name, value in lines)


def duration_text(time: timedelta) -> str:
    """A duration as people write it: `1h`, `90m`, `45s`."""
    seconds = int(time.total_seconds())
    for unit, letter in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds % unit == 0 and seconds:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"


def _people(quorum: int) -> str:
    return "1 person approves" if quorum == 1 else f"{quorum} people approve"


def _environments(policy: Policy) -> list[tuple[str, str]]:
    names = dict.fromkeys(["staging", "production", *(one.name for one in policy.environments)])
    lines: list[tuple[str, str]] = []
    for name in names:
        here = policy.environment(name)
        waits = duration_text(policy.expiry("dp", critical=False, where=name))
        counts = "counts as production" if here.production else "does not count as production"
        own = "; who asked counts" if here.self_approval and not here.production else ""
        takes = policy.deploy_permission(name)
        quorum = _people(policy.deploy_quorum(name))
        lines.append((f"environment:{name}", f"{counts} ({takes}); {quorum} a deploy within {waits}{own}"))
    return lines


def _approvals(policy: Policy) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for kind, name in KINDS.items():
        waits = duration_text(policy.expiry(kind, critical=False))
        critical = duration_text(policy.expiry(kind, critical=True))
        quorum = "by environment" if kind == "dp" else _people(policy.quorum(kind))
        late = "" if waits == critical else f", at critical risk {critical}"
        lines.append((f"approvals:{name}", f"{kind}-: {quorum}, within {waits}{late}"))
    return lines


def _caps(policy: Policy) -> list[tuple[str, str]]:
    back = "is covered by its approval" if policy.rollback is Rollbacks.AUTO else "asks again"
    lines = [(f"rollback:{policy.rollback}", f"the automatic rollback of a deploy that turns out bad {back}")]
    if policy.autonomy_cap < TOP_LEVEL:
        lines.append(("autonomy-cap:organization", f"no project works above L{policy.autonomy_cap}"))
    for project, level in policy.project_caps.items():
        lines.append((f"autonomy-cap:project:{project}", f"{project} works at L{level} at most"))
    return lines


def _built_in() -> list[tuple[str, str]]:
    held = {role: [one for one in Permission if one in PERMISSIONS[role]] for role in Role}
    humans = sorted(one.value for one in (*ALWAYS_A_HUMAN, *Sensitive))
    levels: list[tuple[str, str]] = []
    for level in LEVELS:
        does = [risk.value for risk, needed in AUTO_FROM.items() if level.level >= needed]
        default = "; the default" if level.level == DEFAULT_LEVEL else ""
        itself = f"; by itself: {', '.join(does)} risk" if does else ""
        levels.append((f"autonomy-L{level.level}", f"{level.name}: {level.means}{itself}{default}"))
    return [
        ("unknown-person", "who is not known may do only what anyone may"),
        *((f"role:{role}", ", ".join(held[role])) for role in Role),
        *((f"autonomy-cap:{role}", f"sets autonomy up to L{level}") for role, level in AUTONOMY_CAP.items()),
        (
            "paused",
            "a paused project: people look, `resume` brings it back, its agent does nothing by itself",
        ),
        *((f"risk:{risk}", f"{risk} risk needs an approval") for risk in (Risk.HIGH, Risk.CRITICAL)),
        (
            "always-a-human",
            f"no agent by itself, at any level: {', '.join(humans)}, and whatever is critical",
        ),
        *levels,
    ]
