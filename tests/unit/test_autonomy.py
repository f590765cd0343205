"""The one question every action passes: what a person may, what an agent may by itself, and what never happens without a human."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.domain.autonomy import (
    ALWAYS_A_HUMAN,
    DEFAULT_LEVEL,
    LEVELS,
    AuthorizationVerdict,
    Decision,
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


def by_person(
    role: Role,
    permission: Permission | None,
    risk: Risk = Risk.LOW,
    *,
    paused: bool = False,
    level: int | None = None,
    approval: str | None = None,
    autonomy: int = DEFAULT_LEVEL,
    by_agent: bool = False,
    sensitive: frozenset[Sensitive] = frozenset(),
) -> Decision:
    return authorize(
        somebody(role),
        permission,
        risk=risk,
        autonomy=autonomy,
        by_agent=by_agent,
        paused=paused,
        level=level,
        approval=approval,
        sensitive=sensitive,
    )


def by_itself(
    permission: Permission | None,
    risk: Risk,
    autonomy: int,
    *,
    paused: bool = False,
    approval: str | None = None,
    sensitive: frozenset[Sensitive] = frozenset(),
) -> Decision:
    return authorize(
        None,
        permission,
        risk=risk,
        autonomy=autonomy,
        by_agent=True,
        paused=paused,
        approval=approval,
        sensitive=sensitive,
    )


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
        decision = authorize(person, None, risk=Risk.LOW, autonomy=0, by_agent=False, paused=True)
        assert (decision.verdict, decision.rule) == (ALLOW, "anyone")


@pytest.mark.parametrize("permission", Permission)
def test_nobody_known_may_nothing(permission: Permission) -> None:
    decision = authorize(None, permission, risk=Risk.LOW, autonomy=5, by_agent=False, paused=False)
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
def test_an_invoked_agent_has_exactly_its_invokers_rights(question: dict[str, object], role: Role) -> None:
    person = somebody(role)
    assert authorize(person, by_agent=True, **question) == authorize(person, by_agent=False, **question)  # pyright: ignore[reportArgumentType]


@WITHIN_REASON
@given(question=QUESTIONS)
def test_without_an_approval_an_agent_alone_never_does_what_needs_a_human(
    question: dict[str, object],
) -> None:
    decision = authorize(None, by_agent=True, **(question | {"approval": None}))  # pyright: ignore[reportArgumentType]
    if question["permission"] in ALWAYS_A_HUMAN or question["sensitive"] or question["risk"] is Risk.CRITICAL:
        assert decision.verdict is not ALLOW


@WITHIN_REASON
@given(question=QUESTIONS)
def test_a_higher_level_never_allows_an_agent_less(question: dict[str, object]) -> None:
    order = (DENY, ASK, ALLOW)
    ranks = [
        order.index(authorize(None, by_agent=True, **(question | {"autonomy": level})).verdict)  # pyright: ignore[reportArgumentType]
        for level in range(6)
    ]
    assert ranks == sorted(ranks)


@WITHIN_REASON
@given(question=QUESTIONS, role=st.none() | st.sampled_from(Role), by_agent=st.booleans())
def test_every_answer_says_why_and_every_no_says_who_could(
    question: dict[str, object], role: Role | None, by_agent: bool
) -> None:
    person = somebody(role) if role else None
    decision = authorize(person, by_agent=by_agent, **question)  # pyright: ignore[reportArgumentType]
    assert decision.rule and decision.reason
    assert (decision.verdict is ALLOW) or decision.who_could
