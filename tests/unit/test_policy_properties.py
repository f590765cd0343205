"""What holds of every policy: it only narrows, a rule more never widens, and every answer names a rule that `policy show` lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

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
from codespar.domain.people import Permission, Person, Role, may
from codespar.domain.policy import (
    DEPLOYS,
    KINDS,
    Effect,
    EnvironmentPolicy,
    KindPolicy,
    PathPattern,
    Policy,
    Rollbacks,
    Rule,
)
from codespar.domain.rulebook import describe
from codespar.domain.windows import period

MANY = settings(max_examples=200, deadline=None)
ALLOW, ASK, DENY = (
    AuthorizationVerdict.ALLOW,
    AuthorizationVerdict.NEEDS_APPROVAL,
    AuthorizationVerdict.DENY,
)
RANK = (DENY, ASK, ALLOW)
P = Permission


def person(role: Role, id: str = "ada") -> Person:
    return Person(id=id, name=id.title(), role=role)


TIMES = [
    period(text)
    for text in (
        "Mon-Fri 09:00-17:00 Europe/Lisbon",
        "Fri 16:00-Mon 08:00",
        "2026-10-01 to 2026-10-25 01:30 Europe/Lisbon",
    )
]
T = TypeVar("T")
PEOPLE = ["owner", "maintainer", "operator", "reviewer", "read-only", "bo"]
PLACES = ["production", "staging", "preview", "eu-west"]

Asked = tuple[Person | None, Action, Resource, dict[str, Any]]


class Case(Random):
    """One made-up installation and question. It is drawn from its number alone: drawing each part apart takes ten times as long."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __repr__(self) -> str:
        return f"Case({self.number})"

    def some(self, words: list[T], most: int = 1) -> tuple[T, ...]:
        return tuple(self.sample(words, self.randint(0, most)))

    def maybe(self, *words: T) -> T | None:
        return self.choice([None, *words])

    def rule(self, name: str = "") -> Rule:
        return Rule(
            name=name or f"rule:{self.choice('abcdef')}",
            effect=self.choice(list(Effect)),
            who=self.choice([(), ("agent",), self.some(PEOPLE, 2)]),
            unless=self.some(PEOPLE, 2),
            what=self.choice([(), self.some(["deploy", "rollback", "merge", *Permission], 3)]),
            projects=self.some(["shop", "api"]),
            environments=self.some(PLACES),
            production=self.choice([True, False, False]),
            channels=self.some(["slack", "cli"]),
            during=self.some(TIMES),
            outside=self.some(TIMES),
            paths=self.some([PathPattern(text="infra/", regex="^infra/")]),
            approvals=self.maybe(1, 2, 20),
            humans_confirm=self.choice([True, False]),
        )

    def policy(self) -> Policy:
        return Policy(
            environments=tuple(
                EnvironmentPolicy(
                    name=name,
                    production=name == "production" or self.choice([True, False]),
                    quorum=self.maybe(1, 2, 20),
                    self_approval=self.choice([True, False]),
                )
                for name in self.some(PLACES, 2)
            ),
            kinds=tuple(KindPolicy(kind=kind, quorum=self.maybe(1, 3)) for kind in self.some(list(KINDS), 2)),
            autonomy_cap=self.choice([5, 5, self.randint(0, 5)]),
            project_caps={name: self.randint(0, 5) for name in self.some(["shop"])},
            rollback=self.choice(list(Rollbacks)),
            rules=tuple(self.rule() for _ in range(self.randint(0, 3))),
        )

    def question(self) -> Asked:
        action = Action(
            name=self.choice(["deploy", "rollback", "merge", "plan", "fix"]),
            permission=self.maybe(*Permission, *DEPLOYS, *DEPLOYS),
            risk=self.choice(list(Risk)),
            level=self.maybe(*range(6)),
            sensitive=frozenset(self.some(list(Sensitive))),
        )
        resource = Resource(
            project=self.choice(["shop", "api"]),
            autonomy=self.randint(0, 5),
            paused=self.random() < 0.2,
            environment=self.maybe(*PLACES),
            paths=self.choice([(), ("infra/x",), ("README.md",)]),
        )
        context = {
            "at": datetime(2026, 10, 20, tzinfo=UTC) + timedelta(minutes=self.randint(0, 14 * 24 * 60)),
            "by_agent": self.choice([True, False]),
            "approval": self.choice([None, None, "dp-7k2m9q", "rb-7k2m9q"]),
            "channel": self.choice(["slack", "cli", ""]),
        }
        role = self.maybe(*Role)
        return person(role, self.choice(["bo", "ada"])) if role else None, action, resource, context


CASES = st.integers(0, 2**40).map(Case)


def answer(question: Asked, rules: Policy, **changed: Any) -> Decision:
    who, action, resource, context = question
    return authorize(who, action, resource, Context(policy=rules, **(context | changed)))


@MANY
@given(case=CASES)
def test_no_policy_gives_a_role_what_it_does_not_hold(case: Case) -> None:
    question, rules = case.question(), case.policy()
    who, action, _, _ = question
    if who is not None and action.permission is not None and not may(who.role, action.permission):
        assert answer(question, rules).verdict is DENY


@MANY
@given(case=CASES)
def test_a_policy_never_allows_more_than_none(case: Case) -> None:
    """But for what it says an environment is, which decides the permission that a deploy takes."""
    question, rules = case.question(), case.policy()
    bare = Policy(environments=rules.environments)
    assert RANK.index(answer(question, rules).verdict) <= RANK.index(answer(question, bare).verdict)


@MANY
@given(case=CASES)
def test_a_rule_more_never_widens(case: Case) -> None:
    question, rules = case.question(), case.policy()
    more, place = case.rule("rule:more"), case.randint(0, 3)
    before = answer(question, rules)
    after = answer(question, rules.evolve(rules=(*rules.rules[:place], more, *rules.rules[place:])))
    assert RANK.index(after.verdict) <= RANK.index(before.verdict)
    assert set(after.who_could) <= set(before.who_could) or before.verdict is not after.verdict
    if before.ask and after.ask:
        assert after.ask.quorum >= before.ask.quorum
        assert after.ask.self_approval_allowed <= before.ask.self_approval_allowed
        assert (after.ask.expires_in, after.ask.permission) == (before.ask.expires_in, before.ask.permission)


@MANY
@given(case=CASES)
def test_while_paused_people_do_low_risk_and_resume_and_agents_alone_nothing(case: Case) -> None:
    question, rules = case.question(), case.policy()
    who, action, resource, context = question
    decision = answer((who, action, resource.evolve(paused=True), context), rules)
    if who is None and context["by_agent"]:
        assert (decision.verdict, decision.rule) == (DENY, "paused")
    elif action.risk is not Risk.LOW and action.permission not in (None, P.KILL_SWITCH):
        assert decision.verdict is DENY


@MANY
@given(case=CASES)
def test_every_no_and_every_question_names_a_rule_that_policy_show_lists(case: Case) -> None:
    question, rules = case.question(), case.policy()
    decision = answer(question, rules)
    listed = {line.name: line.value for line in describe(rules)}
    if decision.verdict is not ALLOW:
        assert decision.rule in listed
        if decision.rule.startswith("rule:"):
            assert (
                listed[decision.rule] in decision.reason
                or sum(rule.name == decision.rule for rule in rules.rules) > 1
            )
    elif not decision.rule.startswith("approved:"):
        assert decision.rule in {*listed, "anyone"}


@MANY
@given(case=CASES)
def test_who_is_named_as_who_could_really_could(case: Case) -> None:
    question, rules = case.question(), case.policy()
    _, action, resource, context = question
    decision = answer(question, rules)
    if decision.verdict is DENY and decision.rule != "paused" and not resource.paused:
        for role in decision.who_could:
            able = (person(role, "somebody-else"), action, resource, context)
            by_one = answer(able, rules, by_agent=False)
            assert by_one.verdict is not DENY


@MANY
@given(case=CASES, role=st.sampled_from(Role))
def test_an_invoked_agent_has_exactly_its_invokers_rights_under_any_policy(case: Case, role: Role) -> None:
    question, rules = case.question(), case.policy()
    asked = (person(role), *question[1:])
    assert answer(asked, rules, by_agent=True) == answer(asked, rules, by_agent=False)


@MANY
@given(case=CASES)
def test_an_agent_alone_never_works_above_the_cap(case: Case) -> None:
    question, rules = case.question(), case.policy()
    _, action, resource, context = question
    alone = (None, action, resource, context)
    cap, _ = rules.cap(resource.project)
    lowered = (None, action, resource.evolve(autonomy=min(resource.autonomy, cap)), context)
    assert answer(alone, rules, by_agent=True).verdict is answer(lowered, rules, by_agent=True).verdict
