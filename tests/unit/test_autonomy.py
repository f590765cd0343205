"""The one question every action passes: what a person may, what an agent may by itself, and what never happens without a human."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.domain.autonomy import (
    ALWAYS_A_HUMAN,
    DEFAULT_LEVEL,
    LEVELS,
    Action,
    AuthorizationVerdict,
    Context,
    Decision,
    Resource,
    Risk,
    Sensitive,
    authorize,
)
from codespar.domain.people import AUTONOMY_CAP, Permission, Person, Role, may, who_could

WITHIN_REASON = settings(max_examples=50, deadline=None)

ALLOW, ASK, DENY = (
    AuthorizationVerdict.ALLOW,
    AuthorizationVerdict.NEEDS_APPROVAL,
    AuthorizationVerdict.DENY,
)
P = Permission


def somebody(role: Role) -> Person:
    return Person(id=role.value, name=role.value.title(), role=role)


NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def asked(
    person: Person | None,
    permission: Permission | None,
    *,
    risk: Risk = Risk.LOW,
    autonomy: int = DEFAULT_LEVEL,
    by_agent: bool = False,
    paused: bool = False,
    level: int | None = None,
    sensitive: frozenset[Sensitive] = frozenset(),
    approval: str | None = None,
    name: str = "work",
    environment: str | None = None,
) -> Decision:
    return authorize(
        person,
        Action(name=name, permission=permission, risk=risk, level=level, sensitive=sensitive),
        Resource(project="shop", autonomy=autonomy, paused=paused, environment=environment),
        Context(at=NOW, by_agent=by_agent, approval=approval),
    )


def by_person(
    role: Role, permission: Permission | None, risk: Risk = Risk.LOW, **circumstances: Any
) -> Decision:
    return asked(somebody(role), permission, risk=risk, **circumstances)


def by_itself(permission: Permission | None, risk: Risk, autonomy: int, **circumstances: Any) -> Decision:
    return asked(None, permission, risk=risk, autonomy=autonomy, by_agent=True, **circumstances)


ALONE = {  # what an agent does by itself: low, medium, high, critical
    0: (DENY, DENY, DENY, DENY),
    1: (DENY, DENY, DENY, DENY),
    2: (ASK, ASK, ASK, ASK),
    3: (ALLOW, ASK, ASK, ASK),
    4: (ALLOW, ALLOW, ASK, ASK),
    5: (ALLOW, ALLOW, ALLOW, ASK),
}


@pytest.mark.parametrize("autonomy", ALONE)
def test_an_agent_by_itself_does_what_the_level_covers(autonomy: int) -> None:
    assert tuple(by_itself(P.APPLY_FIX, risk, autonomy).verdict for risk in Risk) == ALONE[autonomy]


def test_there_are_six_levels_and_notify_is_the_default() -> None:
    assert [level.name for level in LEVELS] == [
        "Passive",
        "Notify",
        "Suggest",
        "Auto-Low",
        "Auto-Med",
        "Full",
    ]
    assert [level.level for level in LEVELS] == [0, 1, 2, 3, 4, 5]
    assert LEVELS[DEFAULT_LEVEL].name == "Notify"


@pytest.mark.parametrize("autonomy", [-1, 6, 99])
def test_a_level_that_does_not_exist_is_refused_loudly(autonomy: int) -> None:
    with pytest.raises(ValueError, match="0 to 5"):
        by_itself(P.VIEW_STATUS, Risk.LOW, autonomy)


NEVER_ALONE = [
    P.DEPLOY_PRODUCTION,
    P.SET_AUTONOMY,
    P.CONFIGURE_POLICIES,
    P.INVITE_MEMBERS,
    P.LINK_CHANNEL,
    P.KILL_SWITCH,
]


def test_the_list_of_what_always_needs_a_human_is_the_written_one() -> None:
    assert frozenset(NEVER_ALONE) == ALWAYS_A_HUMAN


@pytest.mark.parametrize("permission", NEVER_ALONE)
def test_some_things_no_agent_does_by_itself_at_any_level(permission: Permission) -> None:
    for autonomy, risk in itertools.product(range(6), Risk):
        decision = by_itself(permission, risk, autonomy)
        assert decision.verdict is (DENY if autonomy < 2 else ASK)
        assert autonomy < 2 or decision.rule == "always-a-human"


@pytest.mark.parametrize("what", Sensitive)
@pytest.mark.parametrize("risk", Risk)
def test_a_sensitive_change_needs_a_human_even_at_full_autonomy(what: Sensitive, risk: Risk) -> None:
    decision = by_itself(P.MERGE_PR, risk, 5, sensitive=frozenset({what}))
    assert (decision.verdict, decision.rule) == (ASK, "always-a-human")
    assert what.value in decision.reason


@pytest.mark.parametrize(
    ("autonomy", "risk", "approval"), [(5, Risk.LOW, None), (3, Risk.LOW, "rb-7k2m9q"), (0, Risk.HIGH, None)]
)
def test_a_paused_projects_agent_does_nothing_by_itself(
    autonomy: int, risk: Risk, approval: str | None
) -> None:
    decision = by_itself(P.APPLY_FIX, risk, autonomy, paused=True, approval=approval)
    assert (decision.verdict, decision.rule) == (DENY, "paused")
    assert decision.who_could == (Role.OWNER, Role.EMERGENCY_ADMIN)


@pytest.mark.parametrize("autonomy", range(6))
def test_what_people_approved_an_agent_does_at_every_level(autonomy: int) -> None:
    decision = by_itself(P.DEPLOY_PRODUCTION, Risk.CRITICAL, autonomy, approval="dp-7k2m9q")
    assert (decision.verdict, decision.rule) == (ALLOW, "approved:dp-7k2m9q")


@pytest.mark.parametrize("permission", Permission)
def test_a_person_without_the_permission_is_denied_and_told_who_could(permission: Permission) -> None:
    for role in Role:
        decision = by_person(role, permission)
        if may(role, permission):
            assert (decision.verdict, decision.rule) == (ALLOW, f"role:{role}")
        else:
            assert (decision.verdict, decision.rule) == (DENY, f"role:{role}")
            assert decision.who_could == who_could(permission)
            assert all(able.value in decision.reason for able in decision.who_could)
            assert role.value.title() in decision.reason


@pytest.mark.parametrize("autonomy", range(6))
def test_an_instruction_is_itself_the_confirmation_of_medium_risk_at_every_level(autonomy: int) -> None:
    assert by_person(Role.OPERATOR, P.INSTRUCT_AGENT, Risk.MEDIUM, autonomy=autonomy).verdict is ALLOW


@pytest.mark.parametrize("risk", [Risk.HIGH, Risk.CRITICAL])
def test_high_and_critical_risk_wait_for_an_approval_even_of_an_owner(risk: Risk) -> None:
    decision = by_person(Role.OWNER, P.DEPLOY_PRODUCTION, risk, autonomy=5)
    assert (decision.verdict, decision.rule) == (ASK, f"risk:{risk}")
    assert decision.who_could == who_could(P.DEPLOY_PRODUCTION)
    approved = by_person(Role.OWNER, P.DEPLOY_PRODUCTION, risk, approval="dp-7k2m9q")
    assert (approved.verdict, approved.rule) == (ALLOW, "approved:dp-7k2m9q")


def test_an_approval_never_settles_what_is_denied() -> None:
    assert by_person(Role.REVIEWER, P.DEPLOY_STAGING, Risk.HIGH, approval="dp-7k2m9q").verdict is DENY
    assert (
        by_person(Role.OPERATOR, P.DEPLOY_STAGING, Risk.HIGH, paused=True, approval="dp-7k2m9q").rule
        == "paused"
    )


@pytest.mark.parametrize(("role", "level"), list(itertools.product(AUTONOMY_CAP, range(6))))
def test_autonomy_is_set_up_to_the_roles_cap(role: Role, level: int) -> None:
    decision = by_person(role, P.SET_AUTONOMY, Risk.MEDIUM, level=level)
    if level <= AUTONOMY_CAP[role]:
        assert decision.verdict is ALLOW
    else:
        assert (decision.verdict, decision.rule) == (DENY, f"autonomy-cap:{role}")
        assert all(AUTONOMY_CAP[able] >= level for able in decision.who_could)
        assert f"L{AUTONOMY_CAP[role]}" in decision.reason and f"L{level}" in decision.reason


@pytest.mark.parametrize("paused", [False, True])
def test_the_kill_switch_waits_for_nobody(paused: bool) -> None:
    for role in (Role.OWNER, Role.EMERGENCY_ADMIN):
        assert by_person(role, P.KILL_SWITCH, Risk.CRITICAL, paused=paused).verdict is ALLOW
    assert by_person(Role.MAINTAINER, P.KILL_SWITCH, Risk.CRITICAL, paused=paused).verdict is DENY


def test_while_paused_people_still_look_but_nothing_else_goes_on() -> None:
    assert by_person(Role.REVIEWER, P.VIEW_DIFFS, Risk.LOW, paused=True).verdict is ALLOW
    for risk in (Risk.MEDIUM, Risk.HIGH, Risk.CRITICAL):
        decision = by_person(Role.OWNER, P.INSTRUCT_AGENT, risk, paused=True)
        assert (decision.verdict, decision.rule) == (DENY, "paused")
        assert decision.who_could == who_could(P.KILL_SWITCH)


def test_what_anyone_may_is_allowed_to_everybody_even_the_unknown() -> None:
    for person in (None, somebody(Role.READ_ONLY)):
        decision = asked(person, None, autonomy=0, paused=True)
        assert (decision.verdict, decision.rule) == (ALLOW, "anyone")


@pytest.mark.parametrize("permission", Permission)
def test_nobody_known_may_nothing(permission: Permission) -> None:
    decision = asked(None, permission, autonomy=5)
    assert (decision.verdict, decision.rule) == (DENY, "unknown-person")


QUESTIONS = st.fixed_dictionaries(
    {
        "permission": st.none() | st.sampled_from(Permission),
        "risk": st.sampled_from(Risk),
        "autonomy": st.integers(0, 5),
        "paused": st.booleans(),
        "level": st.none() | st.integers(0, 5),
        "sensitive": st.frozensets(st.sampled_from(Sensitive)),
        "approval": st.none() | st.just("dp-7k2m9q"),
    }
)


@WITHIN_REASON
@given(question=QUESTIONS, role=st.sampled_from(Role))
def test_an_invoked_agent_has_exactly_its_invokers_rights(question: dict[str, Any], role: Role) -> None:
    person = somebody(role)
    assert asked(person, by_agent=True, **question) == asked(person, by_agent=False, **question)


@WITHIN_REASON
@given(question=QUESTIONS)
def test_without_an_approval_an_agent_alone_never_does_what_needs_a_human(question: dict[str, Any]) -> None:
    unapproved: dict[str, Any] = question | {"approval": None}
    decision = asked(None, by_agent=True, **unapproved)
    if question["permission"] in ALWAYS_A_HUMAN or question["sensitive"] or question["risk"] is Risk.CRITICAL:
        assert decision.verdict is not ALLOW


@WITHIN_REASON
@given(question=QUESTIONS)
def test_a_higher_level_never_allows_an_agent_less(question: dict[str, Any]) -> None:
    order = (DENY, ASK, ALLOW)
    at: list[dict[str, Any]] = [question | {"autonomy": level} for level in range(6)]
    ranks = [order.index(asked(None, by_agent=True, **one).verdict) for one in at]
    assert ranks == sorted(ranks)


@WITHIN_REASON
@given(question=QUESTIONS, role=st.none() | st.sampled_from(Role), by_agent=st.booleans())
def test_every_answer_says_why_every_no_who_could_and_every_question_what_is_needed(
    question: dict[str, Any], role: Role | None, by_agent: bool
) -> None:
    decision = asked(somebody(role) if role else None, by_agent=by_agent, **question)
    assert decision.rule and decision.reason
    assert (decision.verdict is ALLOW) or decision.who_could
    assert (decision.ask is not None) is (decision.verdict is ASK)


@pytest.mark.parametrize(
    ("name", "permission", "alone", "kind", "voters"),
    [
        ("deploy", P.DEPLOY_STAGING, False, "dp", P.DEPLOY_STAGING),
        ("cascade", P.DEPLOY_PRODUCTION, False, "dp", P.DEPLOY_PRODUCTION),
        ("rollback", P.DEPLOY_PRODUCTION, False, "rb", P.DEPLOY_PRODUCTION),
        ("merge", P.MERGE_PR, False, "mg", P.APPROVE_PR),
        ("merge", P.MERGE_PR, True, "mg", P.MERGE_PR),
        ("plan", P.INSTRUCT_AGENT, True, "pl", P.INSTRUCT_AGENT),
        ("instruct", P.INSTRUCT_AGENT, False, "tk", P.INSTRUCT_AGENT),
        ("fix", P.APPLY_FIX, True, "sg", P.APPLY_FIX),
        ("autonomy", P.SET_AUTONOMY, False, "cf", P.SET_AUTONOMY),
    ],
)
def test_an_approval_is_of_the_kind_of_what_is_done(
    name: str, permission: Permission, alone: bool, kind: str, voters: Permission
) -> None:
    person = None if alone else somebody(Role.OWNER)
    ask = asked(person, permission, name=name, risk=Risk.HIGH, autonomy=2, by_agent=alone).ask
    assert ask and (ask.kind, ask.permission) == (kind, voters)


def test_whoever_names_the_wrong_permission_for_production_is_not_let_in() -> None:
    """The environment decides what a deploy takes, not the caller."""
    for environment in ("production", "PROD", "anywhere"):
        asking: dict[str, Any] = {
            "risk": Risk.HIGH,
            "name": "deploy",
            "environment": environment,
            "approval": "dp-7k2m9q",
        }
        assert by_person(Role.OPERATOR, P.DEPLOY_STAGING, **asking).rule == "role:operator"
        assert by_person(Role.MAINTAINER, P.DEPLOY_STAGING, **asking).verdict is ALLOW
    assert by_itself(P.DEPLOY_STAGING, Risk.LOW, 5, environment="prod").rule == "always-a-human"


# the whole table, against what docs/permissions.md says and nothing else


DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "permissions.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The rows under the table heading whose first cell is `heading`, the heading first."""
    lines = iter(DOCUMENT.splitlines())
    found = [next(line for line in lines if line.startswith(f"| {heading} |"))]
    found += [
        line for line in itertools.takewhile(lambda line: line.startswith("|"), lines) if "---" not in line
    ]
    return [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in found]


ROLES = table("Permission")[0][1:]
HELD = {
    row[0]: [role for role, mark in zip(ROLES, row[1:], strict=True) if mark]
    for row in table("Permission")[1:]
}
CAPS = {role: int(cap[1:]) if cap != "none" else -1 for role, cap in table("Role")[1:]}
ASKED_FOR = {risk: word for risk, word, _ in table("Risk")[1:]}
WHILE_PAUSED = {risk: word for risk, _, word in table("Risk")[1:]}
BY_LEVEL = {
    int(row[0][1:]): dict(zip(table("Level")[0][3:], row[3:], strict=True)) for row in table("Level")[1:]
}
NEVER = {row[1] for row in table("Never without a human")[1:]}
APPROVALS = table("Token")[1:]


class Question(NamedTuple):
    name: str
    permission: str | None
    risk: str
    level: int | None
    sensitive: str | None
    autonomy: int
    paused: bool
    approval: bool
    alone: bool  # an agent by itself
    role: str | None  # of the person who asks or whose agent asks


def by_the_document(q: Question) -> tuple[object, ...]:
    """The verdict, and of a question the kind, the voters' permission, how many, how long, and which roles could."""
    if q.alone:
        word = BY_LEVEL[q.autonomy][q.risk]
        if q.paused or (word == "no" and not q.approval):
            return ("deny",)
        human = q.permission in NEVER or q.sensitive in NEVER
        return ("allow",) if q.approval or (word == "does it" and not human) else asks(q)
    if q.permission is None:
        return ("allow",)
    if q.role is None or q.role not in HELD[q.permission]:
        return ("deny",)
    if q.permission == "set_autonomy" and q.level is not None and q.level > CAPS[q.role]:
        return ("deny",)
    if q.permission == "kill_switch":
        return ("allow",)
    if q.paused and WHILE_PAUSED[q.risk] == "no":
        return ("deny",)
    return ("allow",) if q.approval or ASKED_FOR[q.risk] == "does it" else asks(q)


def asks(q: Question) -> tuple[object, ...]:
    def kind_of() -> list[str]:
        for named in (q.name, q.permission):
            for row in APPROVALS:
                if named in re.split(", ", row[2]):
                    return row
        rest = "an agent proposes" if q.alone else "a person asks for"
        return next(row for row in APPROVALS if rest in row[2])

    token, _, _, people, expires, critical, voters = kind_of()
    usual, _, production = people.partition("; production ")
    quorum = production if production and q.permission == "deploy_production" else usual
    permission = q.permission or "view_status"
    if voters != "the permission" and not q.alone:
        permission = voters
    waits = critical if q.risk == "critical" else expires
    unit = {"h": 3600, "m": 60}[waits[-1]]
    able = tuple(
        role
        for role in HELD[permission]
        if permission != "set_autonomy" or q.level is None or CAPS[role] >= q.level
    )
    return "needs_approval", token, permission, int(quorum), int(waits[:-1]) * unit, able


NAMES: dict[str | None, tuple[str, ...]] = {
    None: ("help",),
    "deploy_staging": ("deploy", "rollback"),
    "deploy_production": ("deploy", "rollback", "cascade"),
    "instruct_agent": ("instruct", "plan"),
}


@pytest.mark.parametrize("permission", [None, *HELD])
def test_every_question_is_answered_as_the_document_says(permission: str | None) -> None:
    """All names, roles, risks, levels, pauses, approvals and sensitive parts, by people, by their agents and by agents alone."""
    levels = (None, 0, 1, 2, 3, 4, 5) if permission == "set_autonomy" else (None, 5)
    actions = [
        Action(
            name=name,
            permission=Permission(permission) if permission else None,
            risk=Risk(risk),
            level=level,
            sensitive=frozenset({Sensitive(part)} if part else ()),
        )
        for name in NAMES.get(permission, ("work",))
        for risk in ASKED_FOR
        for level in levels
        for part in (None, "data_migration", "security", "infrastructure")
    ]
    resources = [
        Resource(project="shop", autonomy=autonomy, paused=paused)
        for autonomy in range(6)
        for paused in (False, True)
    ]
    people = {role: somebody(Role(role)) for role in ROLES}
    actors = [(role, by_agent) for role in (None, *ROLES) for by_agent in (False, True)]
    asked_by = [
        (role, by_agent, Context(at=NOW, by_agent=by_agent, approval=approval))
        for role, by_agent in actors
        for approval in (None, "dp-7k2m9q")
    ]
    wrong: list[tuple[Question, object]] = []
    for action, resource in itertools.product(actions, resources):
        for role, by_agent, context in asked_by:
            question = Question(
                action.name,
                permission,
                action.risk.value,
                action.level,
                next((part.value for part in action.sensitive), None),
                resource.autonomy,
                resource.paused,
                context.approval is not None,
                role is None and by_agent,
                role,
            )
            decision = authorize(people[role] if role else None, action, resource, context)
            got: tuple[object, ...] = (decision.verdict.value,)
            if ask := decision.ask:
                able = tuple(one.value for one in decision.who_could)
                seconds = ask.expires_in // timedelta(seconds=1)
                got += f"{ask.kind}-", ask.permission.value, ask.quorum, seconds, able
                assert not ask.self_approval_allowed
            if got != by_the_document(question):
                wrong.append((question, got))
    assert wrong[:3] == []
