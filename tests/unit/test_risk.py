"""The risk of a change: levels, floors, reasons."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.domain.pathgroups import DEFAULT_GROUPS, PathGroup
from codespar.domain.reviews import Category, Fate, Finding, RiskLevel, Severity
from codespar.domain.risk import (
    BIAS,
    FEATURES,
    Change,
    ChangedFile,
    ChangeKind,
    FileHistory,
    RiskRules,
    assess,
    measure,
    score_of,
    terms,
)

LOW, MEDIUM, HIGH = RiskLevel


def change(*paths: str, lines: int = 3, **more: object) -> Change:
    return Change.model_validate({"files": [{"path": path, "additions": lines} for path in paths], **more})


def finding(
    severity: Severity, fate: Fate | None = None, title: str = "a name that is not defined"
) -> Finding:
    return Finding(
        source="ruff:F821",
        path="src/app.py",
        start_line=1,
        end_line=1,
        severity=severity,
        category=Category.CORRECTNESS,
        title=title,
        fate=fate,
    )


CALM = change("docs/use.md", author_changes=100)


@pytest.mark.parametrize(
    ("severity", "level"),
    [
        (Severity.INFO, LOW),
        (Severity.LOW, LOW),
        (Severity.MEDIUM, MEDIUM),
        (Severity.HIGH, HIGH),
        (Severity.CRITICAL, HIGH),
    ],
)
def test_a_finding_sets_the_least_level(severity: Severity, level: RiskLevel):
    assert assess(CALM).level is LOW
    found = assess(CALM, [finding(severity)])
    assert found.level is level
    assert (found.reasons[0] == f"1 finding of {severity} severity: a name that is not defined") == (
        level is not LOW
    )


@pytest.mark.parametrize("fate", [Fate.UNCHANGED, Fate.NOT_NEW, Fate.REFUTED, Fate.OVERRULED])
def test_a_finding_that_is_not_this_change_s_fault_does_not_count(fate: Fate):
    assert assess(CALM, [finding(Severity.CRITICAL, fate)]) == assess(CALM)


@pytest.mark.parametrize(
    "fate", [None, Fate.INLINE, Fate.SUMMARY, Fate.FOLDED, Fate.SAID_BEFORE, Fate.DUPLICATE]
)
def test_a_finding_that_still_holds_counts_however_it_is_shown(fate: Fate | None):
    assert assess(CALM, [finding(Severity.HIGH, fate)]).level is HIGH


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("src/auth/token.py", "authentication"),
        ("web/LoginForm.tsx", "authentication"),
        ("lib/user-permissions.rb", "authentication"),
        ("app/migrations/0004_names.py", "data migrations"),
        ("db/schema.rb", "data migrations"),
        ("app/migrations/0042_add_ab_test.py", "data migrations"),
        ("config/.env.production", "secrets"),
        ("tests/keys/server.pem", "secrets"),
        (".github/workflows/release.yml", "continuous integration"),
        ("infra/main.tf", "infrastructure"),
        ("Dockerfile", "infrastructure"),
        ("services/web/Dockerfile.dev", "infrastructure"),
        ("CLAUDE.md", "the rules of reviews and agents"),
        (".github/CODEOWNERS", "the rules of reviews and agents"),
    ],
)
def test_a_guarded_path_is_at_least_medium_and_named(path: str, group: str):
    found = assess(change(path, lines=0, author_changes=100_000))
    assert found.level.rank >= MEDIUM.rank
    assert found.score >= RiskRules().medium
    assert found.reasons[0] == f"touches {group}: {path}"


@pytest.mark.parametrize(
    "path",
    ["src/author.py", "docs/auth/index.md", "tests/auth/test_token.py", "src/keyboard.py", "AUTHORS.md"],
)
def test_what_only_sounds_like_a_guarded_path_is_none(path: str):
    assert not any(group.touches(path) for group in DEFAULT_GROUPS)


def test_a_file_that_was_moved_out_of_a_guarded_folder_is_guarded_still():
    moved = Change(files=(ChangedFile(path="src/misc.py", old_path="src/auth/token.py"),))
    assert assess(moved).level.rank >= MEDIUM.rank


def test_several_guarded_files_are_counted():
    reasons = assess(change("auth/a.py", "auth/b.py", "auth/c.py")).reasons
    assert reasons[0] == "touches authentication: auth/a.py and 2 more"


def test_a_title_cannot_lower_the_risk():
    for words in (
        "docs: fix typo",
        "Revert: harmless",
        "[low risk] formatting only, approve",
        "chore(deps): bump x",
    ):
        for one in (change("src/app.py", lines=400), change("src/auth/a.py"), CALM):
            assert assess(one.evolve(title=words)).score >= assess(one).score


def test_what_could_not_be_read_whole_is_at_least_medium():
    assert assess(CALM.evolve(incomplete=True)).reasons[0] == "not all of the change could be read"
    assert assess(CALM.evolve(incomplete=True)).level is MEDIUM


def test_a_change_that_nobody_can_look_through_is_at_least_medium():
    found = assess(change("docs/use.md", lines=1_000))
    assert found.level is MEDIUM
    assert found.reasons[0] == "too large to be looked through: 1,000 changed lines in 1 file"


def test_five_thousand_files_are_assessed():
    found = assess(change(*(f"src/part{i}/File{i}.py" for i in range(5_000))))
    assert found.level.rank >= MEDIUM.rank
    assert len(found.reasons) < 10


def test_lines_of_generated_and_lock_files_do_not_count():
    files = (
        ChangedFile(path="a.min.js", additions=9_000, generated=True),
        ChangedFile(path="x.lock", deletions=9_000),
    )
    assert measure(Change(files=files))["changed lines"] == 0


def test_an_empty_change_has_a_level_and_a_reason():
    assert assess(Change()).reasons == ("code, 0 changed lines in 0 files; nothing in it stands out",)


def test_files_that_were_part_of_reverted_changes_are_a_reason():
    files = tuple(
        ChangedFile(
            path=f"src/{i}.py", additions=5, history=FileHistory(reverts=3 * (i < 2), recent_reverts=2)
        )
        for i in range(3)
    )
    found = assess(Change(files=files))
    assert "2 of its 3 files were part of reverted changes in the last year" in found.reasons
    calm = tuple(file.evolve(history=FileHistory()) for file in files)
    assert assess(Change(files=calm)).score < found.score


def test_untested_lines_and_incidents_raise_the_score_and_are_told():
    usual = change("src/app.py", lines=30)
    untested = assess(usual.evolve(covered=0.1))
    assert untested.score > assess(usual).score > assess(usual.evolve(covered=1.0)).score
    assert "tests run 10% of the changed lines" in untested.reasons
    broken = Change(files=(ChangedFile(path="src/app.py", additions=30, history=FileHistory(incidents=2)),))
    assert "2 recent incidents in one of its files" in assess(broken).reasons


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (change("README.md"), ChangeKind.DOCS),
        (change("tests/test_a.py", "docs/x.md"), ChangeKind.TESTS),
        (change("package.json", "pnpm-lock.yaml"), ChangeKind.DEPENDENCY),
        (change("app/migrations/0001.py", "app/models.py"), ChangeKind.MIGRATION),
        (change("settings.yml", "README.md"), ChangeKind.CONFIG),
        (change("src/app.py", "README.md"), ChangeKind.CODE),
        (change("src/app.py", title='Revert "feat: x"'), ChangeKind.REVERT),
        (change("src/app.py", title='Revert "Revert "feat: x""'), ChangeKind.CODE),
        (change("src/app.py", whitespace_only=True), ChangeKind.FORMATTING),
    ],
)
def test_a_change_is_of_one_kind(made: Change, kind: ChangeKind):
    assert made.kind is kind


def test_the_score_is_the_logistic_function_of_the_terms():
    made = change("src/app.py", "src/auth/a.py", lines=200, author_changes=3, covered=0.2)
    found = measure(made)
    assert score_of(found) == pytest.approx(1 / (1 + math.exp(-BIAS - sum(terms(found).values()))))
    assert assess(made).score == pytest.approx(max(score_of(found), RiskRules().medium), abs=1e-4)
    assert set(terms(found)) == {feature.name for feature in FEATURES} | {
        group.name for group in DEFAULT_GROUPS
    }


def test_no_weight_has_the_sign_that_it_must_not_have():
    assert [feature.name for feature in FEATURES if feature.weight * feature.sign < 0] == []


def test_a_project_adds_groups_and_cannot_weaken_the_ones_there_are():
    rules = RiskRules().with_groups(
        [
            PathGroup(name="billing", patterns=("Billing/",), floor=HIGH),
            PathGroup(name="authentication", patterns=("doors/",), floor=LOW, weight=0),
        ]
    )
    assert assess(change("src/billing/tax.py"), rules=rules).level is HIGH
    assert assess(change("src/doors/a.py"), rules=rules).level.rank >= MEDIUM.rank
    assert assess(change("src/auth/a.py"), rules=rules).level.rank >= MEDIUM.rank


def test_rules_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="must not be below"):
        RiskRules(medium=0.8, high=0.6)
    with pytest.raises(ValueError, match="is no path pattern"):
        PathGroup(name="x", patterns=("[z-a]",))


NAMES = st.sampled_from(
    [
        "src/app.py",
        "tests/test_a.py",
        "README.md",
        "x.lock",
        "setup.cfg",
        "lib/b.rb",
        "auth/c.py",
        "package.json",
    ]
)
HISTORIES = st.none() | st.builds(
    FileHistory,
    recent_commits=st.integers(0, 90),
    authors=st.integers(0, 90),
    by_author=st.integers(0, 9),
    reverts=st.integers(0, 9),
    recent_reverts=st.integers(0, 9),
)
FILES = st.builds(
    ChangedFile,
    path=NAMES,
    additions=st.integers(0, 2_000),
    deletions=st.integers(0, 2_000),
    added=st.booleans(),
    generated=st.booleans(),
    history=HISTORIES,
)
CHANGES = st.builds(
    Change,
    title=st.sampled_from(["", 'Revert "x"', "Reland x"]),
    files=st.lists(FILES, min_size=1, max_size=6).map(tuple),
    covered=st.none() | st.floats(0, 1),
    author_changes=st.none() | st.integers(0, 900),
    author_reverts=st.integers(0, 9),
)
FOUND = st.lists(st.builds(finding, st.sampled_from(Severity), st.none() | st.sampled_from(Fate)), max_size=4)


@settings(max_examples=150, deadline=None)
@given(CHANGES, FOUND, st.sampled_from(Severity))
def test_another_finding_never_lowers_the_risk(made: Change, found: list[Finding], severity: Severity):
    before, after = assess(made, found), assess(made, [*found, finding(severity)])
    assert (after.level.rank, after.score) >= (before.level.rank, before.score)


@settings(max_examples=150, deadline=None)
@given(
    CHANGES,
    st.sampled_from(["src/auth/x.py", "db/migrate/1.rb", ".env", "infra/a.tf", "CODEOWNERS"]),
    HISTORIES,
)
def test_another_guarded_path_never_lowers_the_risk(made: Change, path: str, history: FileHistory | None):
    more = made.evolve(files=(*made.files, ChangedFile(path=path, additions=1, history=history)))
    before, after = assess(made), assess(more)
    assert after.level.rank >= max(before.level.rank, MEDIUM.rank)
    assert after.score >= before.score


@settings(max_examples=150, deadline=None)
@given(CHANGES, st.integers(0, 5), st.integers(0, 5_000))
def test_more_lines_never_lower_the_risk(made: Change, at: int, lines: int):
    files = list(made.files)
    at %= len(files)
    files[at] = files[at].evolve(additions=files[at].additions + lines)
    before, after = assess(made), assess(made.evolve(files=tuple(files)))
    assert (after.level.rank, after.score) >= (before.level.rank, before.score)


@settings(max_examples=100, deadline=None)
@given(CHANGES, FOUND)
def test_score_and_level_agree_and_there_is_always_a_reason(made: Change, found: list[Finding]):
    got, rules = assess(made, found), RiskRules()
    assert rules.level_of(got.score) is got.level
    assert got.reasons
    assert all(reason and "\n" not in reason for reason in got.reasons)
