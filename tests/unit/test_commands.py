"""What people type, and the command it is: every form of the table, and every way to miss one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.domain.autonomy import Risk
from codespar.domain.commandforms import FORMS
from codespar.domain.commands import BY_NAME, COMMANDS, Command, NotUnderstood, parse, taken
from codespar.domain.people import Permission, Role

WITHIN_REASON = settings(max_examples=50, deadline=None)

ALIASES = {"gw": "gateway", "gateway": "gateway", "api": "api", "shop": "shop"}
FREE_TEXT = ("instruct", "fix", "plan", "investigate", "lens", "search")
UNCAUGHT = st.text(alphabet=st.characters(exclude_categories=()))  # lone surrogates as well


def understood(text: str) -> Command:
    found = parse(text, aliases=ALIASES)
    assert isinstance(found, Command), found
    return found


def given_args(command: Command) -> dict[str, Any]:
    return command.args.model_dump(exclude_defaults=True)


def refused(text: str) -> NotUnderstood:
    found = parse(text, aliases=ALIASES)
    assert isinstance(found, NotUnderstood), found
    return found


FORMS_AS_TYPED: list[tuple[str, str, dict[str, Any]]] = [
    ("status", "status", {}),
    ("status build", "status", {"scope": "build"}),
    ("status agent", "status", {"scope": "agent"}),
    ("status agent task-abc123", "status", {"scope": "agent", "id": "task-abc123"}),
    ("status task-ABC123", "status", {"id": "task-abc123"}),
    ("status abc123", "status", {"id": "task-abc123"}),
    ("status all", "status", {"scope": "all"}),
    ("all status", "status", {"scope": "all"}),
    ("queue", "queue", {}),
    ("help", "help", {}),
    ("help deploy", "help", {"text": "deploy"}),
    ("help list projects", "help", {"text": "list projects"}),
    ("help context", "help", {"text": "memory"}),
    ("whoami", "whoami", {}),
    ("logs", "logs", {}),
    ("logs 50", "logs", {"count": 50}),
    ("logs 999999", "logs", {"count": 1000}),
    ("diff", "diff", {}),
    ("diff feature/Login", "diff", {"target": "feature/Login"}),
    ("diff PR #12", "diff", {"number": 12}),
    ("diff task-ABC123", "diff", {"target": "task-abc123"}),
    ("prs", "prs", {}),
    ("prs open", "prs", {"state": "open"}),
    ("prs closed", "prs", {"state": "closed"}),
    ("prs all", "prs", {"state": "all"}),
    ("prs merged", "prs", {"state": "merged"}),
    ("prs stale", "prs", {"state": "stale"}),
    ("instruct Add a rate limiter", "instruct", {"text": "Add a rate limiter"}),
    ("fix Login fails on Safari", "fix", {"text": "Login fails on Safari"}),
    ("fix build CI", "fix", {"text": "build CI"}),
    ("plan Invoices", "plan", {"text": "Invoices"}),
    ("cancel task-abc123", "cancel", {"id": "task-abc123"}),
    ("cancel ABC123", "cancel", {"id": "task-abc123"}),
    ("retry task-abc123", "retry", {"id": "task-abc123"}),
    ("review PR #12", "review", {"number": 12}),
    ("review #12", "review", {"number": 12}),
    ("review 12", "review", {"number": 12}),
    ("merge PR #12", "merge", {"number": 12}),
    ("merge pr 12 squash", "merge", {"number": 12, "method": "squash"}),
    ("merge #12 REBASE", "merge", {"number": 12, "method": "rebase"}),
    ("merge 12 merge", "merge", {"number": 12, "method": "merge"}),
    ("deploy", "deploy", {}),
    ("deploy staging", "deploy", {"environment": "staging"}),
    ("deploy staging v1.2", "deploy", {"environment": "staging", "ref": "v1.2"}),
    ("deploy to production", "deploy", {"environment": "production"}),
    ("deploy v1.2 to staging", "deploy", {"environment": "staging", "ref": "v1.2"}),
    ("deploy a then b then c", "deploy", {"chain": ("a", "b", "c")}),
    ("deploy a then b then c to staging", "deploy", {"chain": ("a", "b", "c"), "environment": "staging"}),
    ("deploy gw then api", "deploy", {"chain": ("gateway", "api")}),
    ("rollback", "rollback", {}),
    ("rollback staging", "rollback", {"environment": "staging"}),
    ("rollback to staging", "rollback", {"environment": "staging"}),
    ("approve", "approve", {}),
    ("approve PR #12", "approve", {"number": 12}),
    ("approve #12", "approve", {"number": 12}),
    ("approve dp-7k2m9q", "approve", {"token": "dp-7k2m9q"}),
    ("approve DP-7K2M9Q", "approve", {"token": "dp-7k2m9q"}),
    ("approve dp-7k2mOL", "approve", {"token": "dp-7k2m01"}),
    ("reject bg-7k2m9q", "reject", {"token": "bg-7k2m9q"}),
    ("reject bg-7k2m9q Too Dear", "reject", {"token": "bg-7k2m9q", "reason": "Too Dear"}),
    ("investigate Slow checkout", "investigate", {"text": "Slow checkout"}),
    ("lens Where is auth?", "lens", {"text": "Where is auth?"}),
    ("scan", "scan", {}),
    ("scan debt", "scan", {"scope": "debt"}),
    ("scan security", "scan", {"scope": "security"}),
    ("scan quality", "scan", {"scope": "quality"}),
    ("scan all", "scan", {"scope": "all"}),
    ("autonomy", "autonomy", {}),
    *[(f"autonomy L{level}", "autonomy", {"level": level}) for level in range(6)],
    ("autonomy l3", "autonomy", {"level": 3}),
    ("autonomy 3", "autonomy", {"level": 3}),
    ("link https://example.org/a/b.git", "link", {"target": "https://example.org/a/b.git"}),
    ("unlink", "unlink", {}),
    ("alias gw2 /srv/git/gateway.git", "alias", {"name": "gw2", "target": "/srv/git/gateway.git"}),
    ("list projects", "list projects", {}),
    ("register", "register", {}),
    ("register Ada", "register", {"name": "Ada"}),
    ("register k7qm-2x9d", "register", {"code": "K7QM-2X9D"}),
    ("register K7QM-2XOL", "register", {"code": "K7QM-2X01"}),
    ("kill all", "kill", {"scope": "all"}),
    ("resume all", "resume", {"scope": "all"}),
    ("invite Ada Lovelace operator", "invite", {"name": "Ada Lovelace", "role": Role.OPERATOR}),
    ("invite Ada read-only", "invite", {"name": "Ada", "role": Role.READ_ONLY}),
    ("invite Ada read_only", "invite", {"name": "Ada", "role": Role.READ_ONLY}),
    ("policy", "policy", {}),
    ("policy show", "policy", {"scope": "show"}),
    ("audit", "audit", {}),
    ("audit 20", "audit", {"count": 20}),
    ("audit verify", "audit", {"scope": "verify"}),
    ("memory", "memory", {}),
    ("remember We squash before we merge", "remember", {"text": "We squash before we merge"}),
    ("forget m-7k2m9q", "forget", {"id": "m-7k2m9q"}),
    ("forget M-7K2M9Q", "forget", {"id": "m-7k2m9q"}),
    ("context", "memory", {}),
    ("kill", "kill", {}),
    ("resume", "resume", {}),
    ("search rate limiter", "search", {"text": "rate limiter"}),
]


@pytest.mark.parametrize(("text", "name", "args"), FORMS_AS_TYPED, ids=[row[0] for row in FORMS_AS_TYPED])
def test_every_form_of_the_table_is_understood(text: str, name: str, args: dict[str, Any]) -> None:
    command = understood(text)
    assert (command.name, command.project, given_args(command)) == (name, None, args)


def test_every_command_has_a_form_and_is_typed_somewhere_above() -> None:
    assert set(FORMS) == set(BY_NAME) == {name for _, name, _ in FORMS_AS_TYPED}
    assert len(BY_NAME) == len(COMMANDS)


@pytest.mark.parametrize(
    ("risk", "permission", "names"),
    [
        ("low", "view_status", "status queue investigate lens scan memory"),
        ("low", None, "help whoami"),
        ("low", "view_activity_log", "logs"),
        ("low", "view_diffs", "diff prs review search"),
        ("medium", "instruct_agent", "instruct plan cancel retry remember forget"),
        ("medium", "apply_fix", "fix"),
        ("medium", "merge_pr", "merge"),
        ("high", "deploy_staging", "deploy"),
        ("critical", "deploy_staging", "rollback"),
        ("medium", "set_autonomy", "autonomy"),
        ("medium", "link_channel", "link unlink alias"),
        ("medium", "invite_members", "register invite"),
        ("low", "view_audit", "policy audit"),
        ("critical", "kill_switch", "kill resume"),
    ],
)
def test_risk_and_permission_are_those_of_the_table(risk: str, permission: str | None, names: str) -> None:
    for name in names.split():
        assert (BY_NAME[name].risk, BY_NAME[name].permission) == (Risk(risk), permission), name


def test_votes_take_risk_and_permission_from_what_is_voted_on() -> None:
    assert {spec.name for spec in COMMANDS if spec.by_the_action} == {"approve", "reject"}


@pytest.mark.parametrize(
    ("text", "permission"),
    [
        ("deploy", Permission.DEPLOY_STAGING),
        ("deploy staging", Permission.DEPLOY_STAGING),
        ("deploy STAGING", Permission.DEPLOY_STAGING),
        ("deploy a then b to staging", Permission.DEPLOY_STAGING),
        ("deploy prod", Permission.DEPLOY_PRODUCTION),
        ("deploy to Production", Permission.DEPLOY_PRODUCTION),
        ("deploy a then b to prod", Permission.DEPLOY_PRODUCTION),
        ("deploy somewhere-else", Permission.DEPLOY_PRODUCTION),
        ("rollback", Permission.DEPLOY_PRODUCTION),
        ("rollback prod", Permission.DEPLOY_PRODUCTION),
        ("rollback staging", Permission.DEPLOY_STAGING),
    ],
)
def test_a_deploy_needs_the_permission_of_its_environment(text: str, permission: Permission) -> None:
    assert understood(text).permission is permission


@pytest.mark.parametrize(
    "text", ["deploy prod", "deploy PROD", "deploy to prod", "deploy a then b to Prod", "rollback prod"]
)
def test_prod_is_production(text: str) -> None:
    assert understood(text).args.environment == "production"


def test_prod_as_a_part_of_a_word_is_left_alone() -> None:
    assert understood("deploy prod-eu").args.environment == "prod-eu"
    assert understood("instruct check prod").args.text == "check prod"


@pytest.mark.parametrize(
    "text",
    [
        "@codespar status",
        "@CodeSpar: status",
        "<@codespar> status",
        "  @codespar,status",
        "@codespar\nstatus",
    ],
)
def test_the_mention_is_stripped(text: str) -> None:
    assert understood(text).name == "status"


@pytest.mark.parametrize("text", ["@codesparrow status", "@codespar-dev status"])
def test_somebody_elses_mention_is_not_ours(text: str) -> None:
    assert refused(text).command is None


def test_a_mention_inside_an_instruction_stays() -> None:
    assert understood("@codespar instruct mention @codespar in the README").args.text == (
        "mention @codespar in the README"
    )


@pytest.mark.parametrize("name", [name for name in BY_NAME if FORMS[name] is FORMS["queue"]])
def test_case_does_not_matter(name: str) -> None:
    assert understood(name.upper()) == understood(name.title()) == understood(name)


def test_an_instruction_over_several_lines_is_kept_with_its_indentation() -> None:
    text = "Add a limiter:\n\n    def take(self):\n\t...\n\n- Keep  TWO spaces"
    assert understood(f"@codespar instruct {text}\n").args.text == text


def test_a_reason_is_kept_as_written() -> None:
    assert understood("reject tk-7k2m9q No:\n  wrong  Branch").args.reason == "No:\n  wrong  Branch"


@pytest.mark.parametrize(
    ("text", "name", "project", "args"),
    [
        ("gw deploy staging", "deploy", "gateway", {"environment": "staging"}),
        ("GW: status", "status", "gateway", {}),
        ("gateway fix it", "fix", "gateway", {"text": "it"}),
        ("gw review #12", "review", "gateway", {"number": 12}),
        ("gw approve dp-7k2m9q", "approve", "gateway", {"token": "dp-7k2m9q"}),
        ("@codespar gw instruct\nDo it", "instruct", "gateway", {"text": "Do it"}),
        ("status gw", "status", "gateway", {}),
        ("status GW", "status", "gateway", {}),
        ("status gw all", "status", "gateway", {"scope": "all"}),
        ("all status gw", "status", "gateway", {"scope": "all"}),
        ("queue gw", "queue", "gateway", {}),
        ("logs gw 50", "logs", "gateway", {"count": 50}),
        ("logs 50 gw", "logs", "gateway", {"count": 50}),
        ("prs closed gw", "prs", "gateway", {"state": "closed"}),
        ("deploy gw staging v2", "deploy", "gateway", {"environment": "staging", "ref": "v2"}),
        ("deploy gw to prod", "deploy", "gateway", {"environment": "production"}),
        ("rollback gw", "rollback", "gateway", {}),
        ("scan gw debt", "scan", "gateway", {"scope": "debt"}),
        ("autonomy gw L2", "autonomy", "gateway", {"level": 2}),
        ("audit verify gw", "audit", "gateway", {"scope": "verify"}),
        ("memory gw", "memory", "gateway", {}),
        ("kill gw", "kill", "gateway", {}),
        ("resume gw", "resume", "gateway", {}),
    ],
)
def test_a_project_is_named_as_the_first_word_or_as_the_object(
    text: str, name: str, project: str, args: dict[str, Any]
) -> None:
    command = understood(text)
    assert (command.name, command.project, given_args(command)) == (name, project, args)


@pytest.mark.parametrize(
    "text", ["gwx status", "gw-2 status", "status gwx", "logs xgw", "status gw-2", "queue gw.", "gw/status"]
)
def test_a_part_of_a_word_is_no_project(text: str) -> None:
    assert refused(text).text == text


@pytest.mark.parametrize("name", FREE_TEXT)
def test_a_project_inside_free_text_stays_text(name: str) -> None:
    command = understood(f"{name} gw is slow")
    assert (command.project, command.args.text) == (None, "gw is slow")


def test_the_command_wins_over_a_project_of_the_same_name() -> None:
    found = parse("status", aliases={"status": "other"})
    assert isinstance(found, Command) and found.project is None


def test_a_ref_called_like_a_project_is_a_ref_where_the_project_cannot_stand() -> None:
    command = understood("deploy staging api")
    assert (command.project, command.args.ref) == (None, "api")


def test_a_project_alone_is_asked_about() -> None:
    assert refused("gw").suggestions == ("gw status", "help")


def test_the_longer_of_two_first_words_is_only_a_project_once() -> None:
    assert refused("gw api status").command is None


@pytest.mark.parametrize("text", ["", "   \n\t", "@codespar", "<@codespar>  "])
def test_an_empty_message_is_answered_with_where_to_begin(text: str) -> None:
    assert refused(text).suggestions == ("help", "status")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("deply", "deploy"),
        ("stauts", "status"),
        ("instuct do it", "instruct"),
        ("aprove", "approve"),
        ("mrege 12", "merge"),
        ("rolback", "rollback"),
        ("whoiam", "whoami"),
        ("INVESTIGAT", "investigate"),
        ("contxt", "context"),
        ("gw deplyo", "deploy"),
    ],
)
def test_an_unknown_word_is_answered_with_the_nearest_commands(typed: str, meant: str) -> None:
    found = refused(typed)
    assert found.suggestions[0] == meant and len(found.suggestions) <= 3
    assert found.command is None


@pytest.mark.parametrize(
    "text",
    [
        "instruct",
        "fix  ",
        "lens",
        "search",
        "cancel",
        "cancel everything",
        "cancel task-abc123 now",
        "retry 12",
        "logs many",
        "logs 0",
        "logs -1",
        "diff #0",
        "diff two branches",
        "prs green",
        "review",
        "review #0",
        "review main",
        "review 12 now",
        "merge",
        "merge PR #12 quickly",
        "merge 12a",
        "deploy a b c",
        "deploy a then",
        "deploy then b",
        "deploy a then b c",
        "deploy to",
        "deploy ../etc",
        "rollback to",
        "rollback staging v1",
        "approve 12",
        "approve xx-7k2m9q",
        "approve dp-7k2m9",
        "approve PR #0",
        "remember",
        "forget",
        "forget it",
        "forget m-7k2m9",
        "reject",
        "reject because",
        "scan everything",
        "autonomy L6",
        "autonomy high",
        "link",
        "alias gw2",
        "invite Ada",
        "invite Ada king",
        "invite owner",
        "policy write",
        "audit everything",
        "whoami really",
        "kill everything",
        "list projects now",
        "help nonsense",
        "status nowhere",
    ],
)
def test_wrong_arguments_are_answered_with_the_usage(text: str) -> None:
    found = refused(text)
    name = "list projects" if text.startswith("list") else text.split()[0]
    assert found.command == name
    assert f"Usage: `{BY_NAME[name].usage}`" in found.why
    assert found.suggestions == (f"help {name}",)


def test_a_long_word_is_quoted_shortly() -> None:
    assert len(refused("x" * 5000).why) < 100
    assert len(refused("status " + "x" * 5000).why) < 200


def test_words_of_commands_are_taken_and_ordinary_names_are_not() -> None:
    for word in [*(spec.name for spec in COMMANDS), "prod", "Staging", "all", "context", "PR", "L3", "12"]:
        assert taken(word), word
    for word in ("gateway", "shop", "gw", "v2", "l", "production-eu"):
        assert not taken(word), word


WORDS = st.sampled_from(
    [
        *BY_NAME,
        *ALIASES,
        "@codespar",
        "<@codespar>",
        "to",
        "then",
        "prod",
        "all",
        "PR",
        "#12",
        "12",
        "L3",
        "dp-7k2m9q",
        "task-abc123",
        "İ",
        ":",
        "\n",
    ]
)


@WITHIN_REASON
@given(text=st.one_of(UNCAUGHT, st.lists(st.one_of(WORDS, UNCAUGHT), max_size=7).map(" ".join)))
def test_no_text_makes_parse_raise(text: str) -> None:
    found = parse(text, aliases=ALIASES)
    if isinstance(found, NotUnderstood):
        assert found.text == text and found.why
        assert all(parse(said, aliases=ALIASES) for said in found.suggestions)
    else:
        assert found.name in BY_NAME
        assert found.project in (None, *ALIASES.values())
        assert found.args.environment not in ("prod", "PROD")


@WITHIN_REASON
@given(
    name=st.sampled_from(FREE_TEXT),
    before=st.sampled_from(["", "@codespar ", "<@codespar>: ", "gw ", "@codespar GW: "]),
    between=st.sampled_from([" ", "\n", "  \n\t"]),
    text=st.text(min_size=1).filter(lambda text: bool(text.strip())),
)
def test_what_is_written_for_an_agent_is_kept_verbatim(
    name: str, before: str, between: str, text: str
) -> None:
    assert understood(f"{before}{name}{between}{text}").args.text == text.strip()


@WITHIN_REASON
@given(text=st.text(max_size=30), near=st.sampled_from(list(ALIASES)))
def test_a_project_never_comes_out_of_a_message_that_does_not_hold_its_name(text: str, near: str) -> None:
    found = parse(f"status {text}", aliases={near: "found"})
    words = [word.lower() for word in text.split()]
    assert (isinstance(found, Command) and found.project == "found") <= (near in words)


@pytest.mark.parametrize("text", [row[0] for row in FORMS_AS_TYPED], ids=range(len(FORMS_AS_TYPED)))
def test_a_command_written_out_means_the_same(text: str) -> None:
    """What a request for approval or a proposal shows is what would be carried out."""
    command = parse(text, aliases=ALIASES)
    assert isinstance(command, Command)
    again = parse(command.written, aliases=ALIASES)
    assert isinstance(again, Command)
    words = " ".join((command.args.text or "").split()) or None
    assert again == command.evolve(args=command.args.evolve(text=words))
