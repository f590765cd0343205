"""Policies: what each kind of rule does, and that one which cannot work is refused when it is read."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from codespar.config import Settings
from codespar.config.policies import check_policies
from codespar.config.rules import check_installation
from codespar.config.yaml import ConfigError, load
from codespar.domain.approvals import ApprovalKind
from codespar.domain.autonomy import (
    Action,
    AuthorizationVerdict,
    Context,
    Decision,
    Resource,
    Risk,
    authorize,
)
from codespar.domain.people import Permission, Person, Role
from codespar.domain.policy import (
    KINDS,
    Effect,
    Policy,
    Rule,
    effective_autonomy,
    touches,
)
from codespar.domain.rulebook import describe, duration_text

WITHIN_REASON = settings(max_examples=150, deadline=None)
ALLOW, ASK, DENY = (
    AuthorizationVerdict.ALLOW,
    AuthorizationVerdict.NEEDS_APPROVAL,
    AuthorizationVerdict.DENY,
)
P = Permission
WEDNESDAY = datetime(2026, 3, 4, 12, tzinfo=UTC)

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "permissions.md").read_text(encoding="utf-8")
[EXAMPLE] = re.findall(r"```yaml\n(policies:.*?)```", DOCUMENT, re.DOTALL)
AROUND = """\
people:
  - {name: Ada, role: owner}
  - {name: Bo, role: maintainer}
projects:
  - {name: shop, repository: /srv/shop.git}
  - {name: api, repository: /srv/api.git}
"""


def read(policies: str) -> Settings:
    return load(
        (AROUND + policies).encode(), "codespar.yaml", Settings, checks=(check_installation, check_policies)
    )


def policy(policies: str) -> Policy:
    return read(
        "policies:\n" + "".join(f"  {line}\n" for line in policies.strip().splitlines())
    ).policies.policy()


def faults(policies: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        policy(policies)
    return [line.partition(": ")[2] for line in str(caught.value).splitlines()]


def person(role: Role = Role.MAINTAINER, id: str = "") -> Person:
    return Person(id=id or role.value, name=(id or role.value).title(), role=role)


DEPLOYING = Action(name="deploy", permission=P.DEPLOY_PRODUCTION, risk=Risk.HIGH)
STAGING = Action(name="deploy", permission=P.DEPLOY_STAGING, risk=Risk.HIGH)
ROLLING_BACK = Action(name="rollback", permission=P.DEPLOY_PRODUCTION, risk=Risk.CRITICAL)
MERGING = Action(name="merge", permission=P.MERGE_PR, risk=Risk.MEDIUM)


def decide(
    action: Action,
    rules: Policy,
    who: Person | None = None,
    *,
    at: datetime = WEDNESDAY,
    project: str = "shop",
    environment: str | None = None,
    paths: tuple[str, ...] = (),
    approval: str | None = None,
    alone: bool = False,
    autonomy: int = 1,
    paused: bool = False,
    channel: str = "slack",
) -> Decision:
    return authorize(
        None if alone else who or person(),
        action,
        Resource(project=project, autonomy=autonomy, paused=paused, environment=environment, paths=paths),
        Context(at=at, policy=rules, by_agent=alone, approval=approval, channel=channel),
    )


# what rules do


def test_a_freeze_stops_deploys_to_production_and_names_itself_and_who_could() -> None:
    rules = policy(
        "freezes: [{name: christmas, during: ['2026-12-20 to 2027-01-02'], unless: [owner], reason: away}]"
    )
    at = datetime(2026, 12, 24, 12, tzinfo=UTC)
    decision = decide(DEPLOYING, rules, at=at)
    assert (decision.verdict, decision.rule, decision.who_could) == (DENY, "freeze:christmas", (Role.OWNER,))
    for word in ("deploy", "2026-12-20 to 2027-01-02", "except by owner", "away", "Who could: owner"):
        assert word in decision.reason
    assert decide(DEPLOYING, rules, person(Role.OWNER), at=at).verdict is ASK
    assert decide(DEPLOYING, rules).verdict is ASK
    assert decide(DEPLOYING, rules, at=at, environment="eu-west").rule == "freeze:christmas"
    assert decide(STAGING, rules, at=at).verdict is ASK


def test_a_freeze_beats_an_approval_given_before_it() -> None:
    rules = policy("freezes: [{name: now, during: ['Wed 00:00-24:00']}]")
    for alone in (False, True):
        decision = decide(DEPLOYING, rules, approval="dp-7k2m9q", alone=alone)
        assert (decision.verdict, decision.rule, decision.who_could) == (DENY, "freeze:now", ())


def test_going_back_is_never_frozen() -> None:
    rules = policy(
        "freezes: [{name: now, during: ['Wed 00:00-24:00']}]\n"
        "environments: [{name: production, windows: ['Mon 09:00-10:00']}]"
    )
    assert decide(DEPLOYING, rules).verdict is DENY
    assert decide(ROLLING_BACK, rules).verdict is ASK
    assert decide(ROLLING_BACK, rules, approval="rb-7k2m9q").verdict is ALLOW


@pytest.mark.parametrize("autonomy", range(6))
def test_an_automatic_rollback_is_covered_by_the_deploys_approval_whatever_else_is_forbidden(
    autonomy: int,
) -> None:
    rules = "rules: [{name: none, effect: deny}]"
    covered = decide(ROLLING_BACK, policy(rules), alone=True, autonomy=autonomy, approval="dp-7k2m9q")
    assert (covered.verdict, covered.rule) == (ALLOW, "approved:dp-7k2m9q")
    asks = policy(f"rollback: ask\n{rules}")
    asked = decide(ROLLING_BACK, asks, alone=True, autonomy=autonomy, approval="dp-7k2m9q")
    assert (asked.verdict, asked.rule) == (ASK, "rollback:ask")
    assert asked.ask and (asked.ask.kind, asked.ask.quorum) == ("rb", 1)
    assert decide(ROLLING_BACK, asks, alone=True, autonomy=autonomy, approval="rb-7k2m9q").verdict is ALLOW
    paused = decide(ROLLING_BACK, policy(rules), alone=True, paused=True, approval="dp-7k2m9q")
    assert paused.rule == "paused"


def test_outside_its_windows_an_environment_takes_no_deploy() -> None:
    rules = policy("environments: [{name: prod, windows: ['Mon-Fri 09:00-17:00 Europe/Lisbon']}]")
    evening = WEDNESDAY.replace(hour=17)
    assert decide(DEPLOYING, rules, environment="production").verdict is ASK
    decision = decide(DEPLOYING, rules, environment="PROD", at=evening)
    assert (decision.verdict, decision.rule) == (DENY, "window:production")
    assert "outside Mon-Fri 09:00-17:00 Europe/Lisbon" in decision.reason
    assert decide(DEPLOYING, rules, at=evening).rule == "window:production", "production is what none means"
    assert decide(DEPLOYING, rules, environment="eu-west", at=evening).verdict is ASK


def test_an_environment_counts_as_production_unless_it_is_staging_or_said_not_to() -> None:
    rules = policy("environments: [{name: preview, production: false}, {name: staging, production: true}]")
    assert [rules.deploy_permission(name).value for name in ("preview", "staging", "prod", "new")] == [
        "deploy_staging", "deploy_production", "deploy_production", "deploy_production",
    ]  # fmt: skip
    operator = person(Role.OPERATOR)
    assert decide(STAGING, rules, operator, environment="preview").verdict is ASK
    assert decide(STAGING, rules, operator, environment="staging").rule == "role:operator"
    assert decide(STAGING, rules, operator).rule == "role:operator", "staging is what none means"
    assert Policy().deploy_permission("staging") is P.DEPLOY_STAGING


def test_how_many_and_how_long_come_from_the_environment_then_the_kind_then_all() -> None:
    rules = policy(
        "approvals: {expires: 2h, critical_expires: 10m, kinds: [{kind: deploy, quorum: 3, expires: 4h}, {kind: merge, quorum: 2}]}\n"
        "environments: [{name: production, quorum: 1, expires: 5m}, {name: preview, production: false}]\n"
        "rules: [{name: eyes, effect: ask, what: [merge]}]"
    )  # fmt: skip

    def asks(action: Action, environment: str | None = None) -> tuple[int, str]:
        ask = decide(action, rules, environment=environment).ask
        assert ask
        return ask.quorum, duration_text(ask.expires_in)

    assert asks(DEPLOYING, "production") == (1, "5m")
    assert asks(DEPLOYING, "eu-west") == (3, "4h")
    assert asks(STAGING, "preview") == (3, "4h")
    assert asks(ROLLING_BACK) == (1, "10m")
    assert asks(MERGING) == (2, "2h")
    assert asks(Action(name="fix", permission=P.APPLY_FIX, risk=Risk.HIGH)) == (1, "2h")
    only_deploys = policy("approvals: {kinds: [{kind: deploy, quorum: 1}]}")
    decision = decide(DEPLOYING, only_deploys)
    assert decision.ask and decision.ask.quorum == 2, "what is said of all deploys does not lower production"


def test_who_asked_counts_only_where_it_is_said_and_no_rule_asks() -> None:
    rules = "environments: [{name: staging, self_approval: true}]"

    def own(policies: str, action: Action = STAGING) -> bool:
        ask = decide(action, policy(policies)).ask
        assert ask
        return ask.self_approval_allowed

    assert own(rules)
    assert not own(rules, DEPLOYING)
    assert not own(rules + "\nrules: [{name: eyes, effect: ask, what: [deploy]}]")
    rollback = STAGING.evolve(name="rollback", risk=Risk.CRITICAL)
    assert not own(rules, rollback)


def test_a_rule_can_ask_for_more_people_and_of_several_the_strictest_counts() -> None:
    rules = policy(
        "rules:\n"
        "  - {name: two-eyes, effect: ask, what: [merge], approvals: 2}\n"
        "  - {name: three-eyes, effect: ask, what: [merge_pr], approvals: 3, projects: [shop]}\n"
    )
    decision = decide(MERGING, rules)
    assert (decision.verdict, decision.rule) == (ASK, "rule:three-eyes")
    assert decision.ask and (decision.ask.quorum, decision.ask.permission) == (3, P.APPROVE_PR)
    assert decision.who_could == (Role.OWNER, Role.EMERGENCY_ADMIN, Role.MAINTAINER, Role.REVIEWER)
    assert "rule:two-eyes" in decision.reason and "rule:three-eyes" in decision.reason
    elsewhere = decide(MERGING, rules, project="api")
    assert elsewhere.rule == "rule:two-eyes" and elsewhere.ask and elsewhere.ask.quorum == 2
    assert decide(MERGING, rules, approval="mg-7k2m9q").rule == "approved:mg-7k2m9q"
    assert decide(DEPLOYING, rules).rule == "risk:high"


@pytest.mark.parametrize(
    ("rule", "who", "circumstances", "denied"),
    [
        ("who: [maintainer]", person(), {}, True),
        ("who: [maintainer]", person(Role.OWNER), {}, False),
        ("who: [bo]", person(Role.OWNER, "bo"), {}, True),
        ("who: [bo]", person(), {}, False),
        ("who: [maintainer], unless: [bo]", person(Role.MAINTAINER, "bo"), {}, False),
        ("who: [agent]", person(), {}, False),
        ("projects: [api]", person(), {}, False),
        ("projects: [api]", person(), {"project": "api"}, True),
        ("channels: [whatsapp]", person(), {"channel": "whatsapp"}, True),
        ("channels: [whatsapp]", person(), {}, False),
        ("what: [merge]", person(), {}, True),
        ("what: [merge_pr]", person(), {}, True),
        ("what: [deploy]", person(), {}, False),
        ("environments: [production]", person(), {}, False),
        ("during: [Mon 00:00-24:00]", person(), {}, False),
        ("during: [Mon 00:00-24:00, Wed 11:00-13:00]", person(), {}, True),
        ("unless: [maintainer]", person(), {}, False),
    ],
)
def test_a_rule_holds_where_everything_fits_that_it_names(
    rule: str, who: Person, circumstances: dict[str, Any], denied: bool
) -> None:
    decision = decide(MERGING, policy(f"rules: [{{name: no, effect: deny, {rule}}}]"), who, **circumstances)
    assert (decision.verdict is DENY) is denied
    assert not denied or decision.rule == "rule:no"


def test_an_agent_by_itself_is_limited_by_rules_about_agents_and_everybody_and_exempt_from_none() -> None:
    fixing = Action(name="fix", permission=P.APPLY_FIX, risk=Risk.LOW)
    for rule in ("who: [agent]", "what: [fix]", "unless: [owner]"):
        rules = policy(f"rules: [{{name: no, effect: deny, {rule}}}]")
        assert decide(fixing, rules, alone=True, autonomy=5).rule == "rule:no"
    exempt = Policy(rules=(Rule(name="rule:no", effect=Effect.DENY, unless=("agent",)),))
    assert decide(fixing, exempt, alone=True, autonomy=5).rule == "rule:no"
    others = policy("rules: [{name: no, effect: deny, who: [owner, maintainer]}]")
    assert decide(fixing, others, alone=True, autonomy=5).verdict is ALLOW
    asks = policy("rules: [{name: look, effect: ask, who: [agent], approvals: 2}]")
    decision = decide(fixing, asks, alone=True, autonomy=5)
    assert (decision.verdict, decision.rule) == (ASK, "rule:look")
    assert decision.ask and (decision.ask.kind, decision.ask.quorum) == ("sg", 2)
    assert decide(fixing, asks, alone=True, autonomy=1).verdict is DENY


def test_guarded_paths_need_a_human_of_an_agent_and_others_only_where_that_is_said() -> None:
    rules = policy(
        "paths:\n  - {name: infra, patterns: ['infra/', '*.tf']}\n"
        "  - {name: pay, patterns: ['src/payments/'], approvals: 2, projects: [shop]}"
    )
    approving = Action(name="approve", permission=P.APPROVE_PR, risk=Risk.LOW)
    infra, payments = ("a/infra/x.yaml",), ("README.md", "src/payments/card.py")
    assert decide(approving, rules, alone=True, autonomy=5, paths=("README.md",)).verdict is ALLOW
    assert decide(approving, rules, alone=True, autonomy=5, paths=infra).rule == "paths:infra"
    assert decide(MERGING, rules, paths=infra).verdict is ALLOW
    decision = decide(MERGING, rules, paths=payments)
    assert (decision.verdict, decision.rule) == (ASK, "paths:pay")
    assert decision.ask and decision.ask.quorum == 2
    assert decide(MERGING, rules, paths=payments, project="api").verdict is ALLOW


def test_policy_caps_how_far_autonomy_is_set_and_how_far_it_works() -> None:
    rules = policy("autonomy: {cap: L4, projects: {shop: L2}}")
    raising = Action(name="autonomy", permission=P.SET_AUTONOMY, risk=Risk.MEDIUM)
    owner = person(Role.OWNER)

    def at(level: int, project: str) -> str:
        return decide(raising.evolve(level=level), rules, owner, project=project).rule

    assert [at(2, "shop"), at(3, "shop")] == ["role:owner", "autonomy-cap:project:shop"]
    assert [at(4, "api"), at(5, "api")] == ["role:owner", "autonomy-cap:organization"]
    assert decide(raising.evolve(level=5), rules, person(Role.OPERATOR), project="api").who_could == ()
    fixing = Action(name="fix", permission=P.APPLY_FIX, risk=Risk.LOW)
    capped = decide(fixing, rules, alone=True, autonomy=5)
    assert (capped.verdict, capped.rule) == (
        ASK,
        "autonomy-L2",
    ) and "autonomy-cap:project:shop" in capped.reason
    assert decide(fixing, rules, alone=True, autonomy=5, project="api").rule == "autonomy-L4"
    assert [effective_autonomy(level, 3) for level in range(6)] == [0, 1, 2, 3, 3, 3]


def test_neither_help_nor_the_kill_switch_is_ever_limited() -> None:
    rules = policy("rules: [{name: none, effect: deny}, {name: all, effect: ask, approvals: 20}]")
    kill = Action(name="kill", permission=P.KILL_SWITCH, risk=Risk.CRITICAL)
    assert decide(kill, rules, person(Role.OWNER), paused=True).verdict is ALLOW
    denied = decide(kill, rules)
    assert (denied.rule, denied.who_could) == ("role:maintainer", (Role.OWNER, Role.EMERGENCY_ADMIN))
    assert decide(Action(name="help", permission=None, risk=Risk.LOW), rules).rule == "anyone"


def test_the_voters_own_rights_are_the_same_question() -> None:
    """Whether a vote counts: the voter is asked about the action with the permission of the approval."""
    rules = policy("rules: [{name: bo-learns, effect: deny, who: [bo], what: [deploy]}]")
    voting = DEPLOYING.evolve(permission=P.DEPLOY_PRODUCTION)
    assert decide(voting, rules, person(Role.MAINTAINER, "bo")).verdict is DENY
    assert decide(voting, rules, person(Role.MAINTAINER, "ada")).verdict is not DENY
    raising = Action(name="autonomy", permission=P.SET_AUTONOMY, risk=Risk.MEDIUM, level=5)
    assert decide(raising, rules, person(Role.OPERATOR)).rule == "autonomy-cap:operator"


# paths


PATTERNS = ["infra/", "*.tf", "/deploy/**/secret?.*", "src/pay", "a[bc]d", "**/x/", "doc*"]
PATHS = [
    "infra/main", "a/infra/b", "infrastructure/x", "main.tf", "a/b/c.tf", "c.tfx", "deploy/secret1.y", "deploy/a/b/secret2.yml",
    "a/deploy/secret1.y", "src/pay/x", "src/pay.py", "lib/src/pay/x", "abd", "z/acd/q", "add", "x/y", "p/x/y", "docs/a", "q/doc", "é/infra/ü",
]  # fmt: skip


def test_patterns_match_what_git_ignores_by_them(tmp_path: Path) -> None:
    """The judge is git itself, but that a pattern for a folder also guards a file or link of that name."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    rules = policy(f"paths: [{{name: all, patterns: {PATTERNS!r}}}]").rules[0]
    for pattern, compiled in zip(PATTERNS, rules.paths, strict=True):
        (tmp_path / ".gitignore").write_text(pattern.rstrip("/") + "\n")
        told = subprocess.run(
            ["git", "-c", "core.quotePath=false", "-C", tmp_path, "check-ignore", "--no-index", "--stdin"],
            input="\n".join(PATHS), capture_output=True, text=True, check=False,
        )  # fmt: skip
        ours = [path for path in PATHS if touches([compiled], [path])]
        assert ours == told.stdout.splitlines(), pattern


def test_a_path_written_another_way_or_with_a_line_break_is_still_guarded() -> None:
    [rule] = policy("paths: [{name: infra, patterns: ['infra/']}]").rules
    for path in ("./infra/x", "/infra/x", "a/../infra/x", "a//infra/x", "in\nfra/../a\nb/infra/x", "infra"):
        assert touches(rule.paths, [path]), path
    assert not touches(rule.paths, []) and not touches(rule.paths, ["Infra/x"])


# reading them


BAD = [
    ("environments: [{name: production, quorum: 0}]", "policies.environments[0].quorum: must be at least 1"),
    ("environments: [{name: production, quorum: 21}]", "policies.environments[0].quorum: must be at most 20"),
    ("approvals: {kinds: [{kind: merge, quorum: 0}]}", "policies.approvals.kinds[0].quorum: must be at least 1"),
    ("rules: [{name: a, effect: ask, approvals: 21}]", "policies.rules[0].approvals: must be at most 20"),
    ("paths: [{name: a, patterns: [x], approvals: 0}]", "policies.paths[0].approvals: must be at least 1"),
    ("approvals: {expires: 5s}", "policies.approvals.expires: must be from 1m to 30d"),
    ("approvals: {critical_expires: 40d}", "policies.approvals.critical_expires: must be from 1m to 30d"),
    ("approvals: {kinds: [{kind: deplyo}]}", "kinds[0].kind: `deplyo` is no kind of approval; did you mean `deploy`?"),
    ("environments: [{name: prod, production: false}]", "`production` counts as production"),
    ("environments: [{name: eu, self_approval: true}]", "`self_approval` is only for what does not count as production"),
    ("environments: [{name: prod}, {name: production}]", "[1].name: policies.environments[0] is called `production` too"),
    ("environments: [{name: prod, windows: [Mon-Fry 09:00-17:00]}]", "windows[0]: must be a time such as `Mon-Fri"),
    ("freezes: [{name: a, during: []}]", "freezes[0].during: must name at least one"),
    ("freezes: [{name: a}]", "freezes[0].during: is missing; it must be given"),
    ("freezes: [{name: a, during: ['2026-12-20 to 2026-12-40']}]", "during[0]: `2026-12-40` is no date"),
    ("freezes: [{name: A b, during: [Mon 00:00-24:00]}]", "freezes[0].name: "),
    ("rules: [{name: a, effect: allow}]", "rules[0].effect: a policy never gives a right"),
    ("rules: [{name: a, effect: denny}]", "rules[0].effect: `denny` is no effect; did you mean `deny`?"),
    ("rules: [{name: a, effect: deny, approvals: 2}]", "rules[0]: a rule that denies needs no `approvals`"),
    ("rules: [{name: a, effect: deny}, {name: a, effect: ask}]", "rules[1].name: policies.rules[0] is called `a` too"),
    ("rules: [{name: a, effect: deny, what: [mrge]}]", "what[0]: `mrge` is no command or permission; did you mean `merge`?"),
    ("rules: [{name: a, effect: deny, what: [deploy_prod]}]", "did you mean `deploy_production`?"),
    ("rules: [{name: a, effect: deny, what: [kill]}]", "what[0]: `kill` is never limited"),
    ("rules: [{name: a, effect: deny, what: [help]}]", "what[0]: `help` is never limited"),
    ("rules: [{name: a, effect: deny, who: [maintaner]}]", "who[0]: `maintaner` is not known here; did you mean `maintainer`?"),
    ("rules: [{name: a, effect: deny, who: [adda]}]", "who[0]: `adda` is not known here; did you mean `ada`?"),
    ("rules: [{name: a, effect: deny, unless: [agent]}]", "unless[0]: `agent` is not known here"),
    ("rules: [{name: a, effect: deny, projects: [shp]}]", "projects[0]: `shp` is not known here; did you mean `shop`?"),
    ("rules: [{name: a, effect: deny, environments: [produktion]}]", "did you mean `production`?"),
    ("rules: [{name: a, effect: deny, channels: [slak]}]", "channels[0]: `slak` is not known here; did you mean `slack`?"),
    ("rules: [{name: a, effect: deny, chanels: [slack]}]", "rules[0].chanels: unknown key; did you mean `channels`?"),
    ("paths: [{name: a, patterns: ['!x']}]", "patterns[0]: must not start with `!`"),
    ("paths: [{name: a, patterns: ['# x']}]", "patterns[0]: matches nothing"),
    ("paths: [{name: a, patterns: []}]", "paths[0].patterns: must name at least one"),
    ("autonomy: {cap: L6}", "policies.autonomy.cap: must be a level from 0 to 5"),
    ("autonomy: {projects: {shp: L1}}", "autonomy.projects.shp: `shp` is no project; did you mean `shop`?"),
    ("rollback: never", "policies.rollback: must be one of 'auto', 'ask'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), BAD, ids=[told for _, told in BAD])
def test_a_policy_that_cannot_work_is_refused_with_what_would_be_right(text: str, told: str) -> None:
    found = faults(text)
    assert len(found) == 1 and told in found[0], found


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@WITHIN_REASON
@given(
    section=st.sampled_from(["autonomy", "approvals", "environments", "freezes", "rules", "paths"]),
    key=st.sampled_from(["name", "during", "who", "what", "projects", "patterns", "windows", "kinds", "cap"]),
    value=VALUES,
    listed=st.booleans(),
)
@example(section="rules", key="what", value=["\ud800"], listed=True)
@example(section="paths", key="patterns", value=[""], listed=True)
def test_values_of_any_kind_under_any_key_are_understood_or_refused(
    section: str, key: str, value: object, listed: bool
) -> None:
    import json

    entry: object = {key: value}
    document = {"policies": {section: [entry] if listed else entry}}
    try:
        load(json.dumps(document).encode(), "c.yaml", Settings, checks=(check_policies,))
    except ConfigError as error:
        assert str(error).startswith("c.yaml:1: ")


def test_no_policies_change_nothing() -> None:
    assert Settings().policies.policy() == Policy()


def test_the_documented_example_is_read_and_uses_every_key() -> None:
    rules = read(EXAMPLE).policies.policy()
    assert [rule.name for rule in rules.rules] == [
        "freeze:christmas", "freeze:weekend", "window:production", "rule:two-eyes", "rule:no-chat-merges", "rule:bo-learns",
        "rule:quiet-nights", "rule:releases", "paths:infra", "paths:payments",
    ]  # fmt: skip
    assert rules.rules[0].reason == "the team is away"
    assert (rules.cap("shop")[0], rules.cap("api")[0], rules.deploy_quorum("prod")) == (2, 4, 3)

    def used(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {key for inner in value.values() for key in used(inner)}  # pyright: ignore
        return {key for inner in value for key in used(inner)} if isinstance(value, list) else set()  # pyright: ignore

    written = used(YAML(typ="safe", pure=True).load(EXAMPLE)["policies"])
    schema = Settings.model_json_schema(by_alias=False)["$defs"]
    sections = (
        "PolicySettings",
        "AutonomyPolicy",
        "ApprovalSettings",
        "ApprovalKindSettings",
        "DeployEnvironment",
    )
    for section in (*sections, "FreezeSettings", "GuardedPaths", "PolicyRule"):
        assert set(schema[section]["properties"]) <= written, section


def test_the_kinds_of_approval_are_those_there_are() -> None:
    named: dict[str, str] = {**KINDS}
    assert named == {kind.value: kind.name.lower() for kind in ApprovalKind}


def test_every_name_that_is_listed_is_explained_in_the_document() -> None:
    explained = re.findall(
        r"`([^`]+)`",
        "".join(re.findall(r"^\| (`[^|]+) \|", DOCUMENT.partition("## Names of rules")[2], re.MULTILINE)),
    )
    shapes = [re.sub(r"<\w+>", "*", name) for name in explained]
    for line in describe(read(EXAMPLE).policies.policy()):
        assert any(fnmatchcase(line.name, shape) for shape in shapes), line.name
        assert line.value


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(86400 * 2, "2d"), (86400, "1d"), (3600, "1h"), (5400, "90m"), (61, "61s"), (60, "1m")],
)
def test_durations_are_shown_as_people_write_them(seconds: int, text: str) -> None:
    assert duration_text(timedelta(seconds=seconds)) == text
