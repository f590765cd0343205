"""How likely a change is to do harm: a score that can be read term by term, a level, and the reasons in words.

The score is a logistic function of named features. Most weights were fitted on what happened to real changes, with `benchmarks/review/risk.py`:
which were reverted within a year, each repository counting the same, and in each the reverted changes as much as the others. So 0.5 is a change that is as
usual among reverted ones as among the rest, in a repository of whatever rate; the score is no probability, and it separates weakly. They were fitted on more
than a review knows (all who ever changed a file, its author's whole past), so real scores come out lower: docs/benchmarks.md has by how much. The remaining
weights and every floor are rules: guarded paths, findings and what could not be looked through set a least level, which no low score takes away.
Nothing that the author writes in prose may lower a level; a title can only raise it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import Field, model_validator

from codespar.domain.base import Value
from codespar.domain.pathgroups import DEFAULT_GROUPS, MIGRATIONS, PathGroup
from codespar.domain.paths import Role, role
from codespar.domain.reviews import Fate, Finding, RiskAssessment, RiskLevel, Severity

_DISMISSED = (Fate.UNCHANGED, Fate.NOT_NEW, Fate.REFUTED, Fate.OVERRULED)
RELAND = re.compile(
    r"\W*(re-?land|re-?apply|re-?introduce|re-?instate)|\W*revert\W+revert|\W*(un-?revert)", re.IGNORECASE
)
REVERT = re.compile(r"\W*(revert|back(ing)? ?out|roll(ing)? ?back)", re.IGNORECASE)


class ChangeKind(StrEnum):
    CODE = "code"
    DOCS = "documentation"
    TESTS = "tests"
    CONFIG = "configuration"
    MIGRATION = "migration"
    DEPENDENCY = "dependencies"
    REVERT = "revert"
    FORMATTING = "formatting"


class FileHistory(Value):
    """What was known of a file when the change was made."""

    recent_commits: int = Field(default=0, ge=0)  # of the default branch, in the 90 days before
    authors: int = Field(default=0, ge=0)  # who changed it in the year before
    by_author: int = Field(default=0, ge=0)  # of that year's changes, those by this change's author
    reverts: int = Field(default=0, ge=0)  # in the year before, reverts that touched it
    recent_reverts: int = Field(default=0, ge=0)  # of these, in the 30 days before
    incidents: int = Field(default=0, ge=0)  # recent ones that were traced to it


class ChangedFile(Value):
    path: str
    old_path: str | None = None  # it was renamed
    additions: int = Field(default=0, ge=0)  # lines
    deletions: int = Field(default=0, ge=0)
    added: bool = False  # the file is new
    generated: bool = False  # a program wrote it, or it is binary: its lines say nothing
    history: FileHistory | None = None  # None: not known

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if self.old_path is None else (self.path, self.old_path)


class Change(Value):
    """A change to the default branch, with what was known when it was made."""

    title: str = ""
    files: tuple[ChangedFile, ...] = ()
    incomplete: bool = False  # there are more files than these, or lines that could not be read
    commits: int = Field(default=1, ge=0)
    whitespace_only: bool = False  # by a diff that ignores white space, never by what the title says
    covered: float | None = Field(default=None, ge=0, le=1)  # share of the changed lines that tests run
    owned: bool = False  # CODEOWNERS names somebody for one of the files
    author_changes: int | None = Field(default=None, ge=0)  # earlier ones in this repository
    author_reverts: int = Field(default=0, ge=0)  # how many of them were reverted

    @property
    def kind(self) -> ChangeKind:
        roles = {role(path) for file in self.files for path in file.paths}
        if REVERT.match(self.title) and not RELAND.match(self.title):
            return ChangeKind.REVERT
        if self.whitespace_only:
            return ChangeKind.FORMATTING
        for kind, only in (
            (ChangeKind.DOCS, {Role.DOCS}),
            (ChangeKind.TESTS, {Role.TESTS, Role.DOCS}),
            (ChangeKind.DEPENDENCY, {Role.LOCK, Role.MANIFEST, Role.DOCS}),
        ):
            if roles and roles <= only:
                return kind
        if any(MIGRATIONS.touches(*file.paths) for file in self.files):
            return ChangeKind.MIGRATION
        return ChangeKind.CONFIG if roles and roles <= CALM else ChangeKind.CODE


CALM = {Role.DOCS, Role.TESTS, Role.CONFIG, Role.MANIFEST, Role.LOCK}


class RiskRules(Value):
    """What a project can set. It adds to the groups and can raise what is there, never lower it: see `with_groups`."""

    groups: tuple[PathGroup, ...] = DEFAULT_GROUPS
    medium: float = Field(
        default=0.48, ge=0, le=1
    )  # the least score of the level: the upper half of usual changes, as they were fitted,
    high: float = Field(default=0.62, ge=0, le=1)  # and their upper tenth

    large_lines: int = Field(
        default=1_000, ge=1
    )  # a change of so many is at least medium: nobody looks through it
    large_files: int = Field(default=50, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> RiskRules:
        if self.high < self.medium:
            raise ValueError(
                f"the score of a high risk ({self.high}) must not be below that of a medium one ({self.medium})"
            )
        return self

    def with_groups(self, extra: Sequence[PathGroup]) -> RiskRules:
        """These rules and a project's own groups. One of a name that is there adds to its patterns, and the stricter floor and weight hold."""
        groups = {group.name: group for group in self.groups}
        for group in extra:
            if (known := groups.get(group.name)) is not None:
                group = PathGroup(
                    name=known.name,
                    patterns=(*known.patterns, *group.patterns),
                    floor=max(known.floor, group.floor, key=lambda level: level.rank),
                    weight=max(known.weight, group.weight),
                    everywhere=known.everywhere or group.everywhere,
                )
            groups[group.name] = group
        return self.evolve(groups=tuple(groups.values()))

    def level_of(self, score: float) -> RiskLevel:
        return (
            RiskLevel.HIGH
            if score >= self.high
            else RiskLevel.MEDIUM
            if score >= self.medium
            else RiskLevel.LOW
        )


@dataclass(frozen=True, slots=True)
class Feature:
    """One measure in the score: `weight` times what it is more or less than usual. `sign` is the one that the weight may have: one that came out
    the other way was set to 0, so that more of a change never looks safer."""

    name: str
    weight: float
    usual: float = 0  # the median change's
    counts: bool = False  # it is a count: the logarithm of one more than it is taken
    sign: int = 1
    source: Literal["fitted", "rule"] = "fitted"

    def value(self, measures: Mapping[str, float]) -> float:
        """0 where it is not known."""
        found = measures.get(self.name, self.usual)
        return math.log1p(found) - math.log1p(self.usual) if self.counts else found - self.usual


BIAS = -0.429
FEATURES = (
    Feature("changed lines of code", 0.024, usual=10, counts=True),
    Feature("files", 0.0, usual=2, counts=True),
    Feature("recent commits", 0.0, usual=4, counts=True),
    Feature("authors", 0.083, usual=8, counts=True),
    Feature("author's part", -0.041, usual=1, counts=True, sign=-1),
    Feature("reverted files", 0.095, counts=True),
    Feature("reverts", 0.153, counts=True),
    Feature("recent reverts", 0.19, counts=True),
    Feature("author's changes", -0.155, usual=100, counts=True, sign=-1),
    Feature("author's reverts", 0.267, counts=True),
    Feature("documentation only", -1.107, sign=-1),
    Feature("tests only", 0.0, sign=-1),
    Feature("configuration only", 0.0, sign=-1),
    Feature("dependencies only", -0.133, sign=-1),
    Feature("only new files", 0.0, sign=-1),
    Feature("lands again", 0.421),
    Feature("incidents", 0.7, counts=True, source="rule"),
    Feature("not covered", 0.8, usual=0.5, source="rule"),
    Feature("code owners", 0.2, source="rule"),
    Feature("white space only", -0.5, sign=-1, source="rule"),
)
MANY_LINES = 200  # are told, though they weigh next to nothing: real changes of many lines were not reverted more often
TELLING = 0.1  # a term from which on it is told
USUAL_FILE = FileHistory(recent_commits=4, authors=8, by_author=1)


def measure(change: Change, rules: RiskRules | None = None) -> dict[str, float]:
    """What the score is made of, as plain counts and 0 or 1; what is not known of the change is left out, and a file whose history is not known
    counts as a usual one. Names are those of `FEATURES` and of the groups."""
    roles = [role(file.path) for file in change.files]
    counted = [
        (part, file.additions + file.deletions)
        for part, file in zip(roles, change.files, strict=True)
        if not file.generated and part is not Role.LOCK
    ]
    kind = change.kind
    histories = [file.history or USUAL_FILE for file in change.files] or [USUAL_FILE]
    found: dict[str, float] = {
        "changed lines": sum(lines for _, lines in counted),
        "changed lines of code": sum(lines for part, lines in counted if part is Role.CODE),
        "files": len(change.files),
        "folders": len({file.path.rpartition("/")[0] for file in change.files}),
        "tests changed": Role.TESTS in roles,
        "only new files": bool(change.files) and all(file.added for file in change.files),
        "documentation only": kind is ChangeKind.DOCS,
        "tests only": kind is ChangeKind.TESTS,
        "configuration only": kind is ChangeKind.CONFIG,
        "dependencies only": kind is ChangeKind.DEPENDENCY,
        "white space only": kind is ChangeKind.FORMATTING,
        "lands again": bool(RELAND.match(change.title)),
        "commits": change.commits,
        "code owners": change.owned,
        "recent commits": max(history.recent_commits for history in histories),
        "authors": max(history.authors for history in histories),
        "author's part": min(history.by_author for history in histories),
        "reverts": max(history.reverts for history in histories),
        "reverted files": sum(history.reverts > 0 for history in histories),
        "recent reverts": max(history.recent_reverts for history in histories),
        "incidents": max(history.incidents for history in histories),
    }
    if change.author_changes is not None:
        found |= {"author's changes": change.author_changes, "author's reverts": change.author_reverts}
    if change.covered is not None:
        found["not covered"] = 1 - change.covered
    found |= {
        group.name: any(group.touches(*file.paths) for file in change.files)
        for group in (rules or RiskRules()).groups
    }
    return {name: float(value) for name, value in found.items()}


def terms(measures: Mapping[str, float], rules: RiskRules | None = None) -> dict[str, float]:
    """What each feature and group adds to the log odds of a usual change, which are 0: the score is the logistic function of `BIAS` and their sum."""
    found = {feature.name: feature.weight * feature.value(measures) for feature in FEATURES}
    return found | {
        group.name: group.weight * measures[group.name] for group in (rules or RiskRules()).groups
    }


def score_of(measures: Mapping[str, float], rules: RiskRules | None = None) -> float:
    return 1 / (1 + math.exp(-BIAS - sum(terms(measures, rules).values())))


def assess(
    change: Change, findings: Sequence[Finding] = (), rules: RiskRules | None = None
) -> RiskAssessment:
    """The risk of a change with what was found in it.

    Findings that are wrong, old or beside the change do not count; those that were said before or twice do. The score is at least the
    least one of its level. Reasons come weightiest first: what sets a floor, then the terms that raise the score; without any, what kind of change it is.
    """
    rules = rules or RiskRules()
    measures = measure(change, rules)
    floors = [*_found(findings), *_guarded(change, rules), *_unread(change, measures, rules)]
    added = sorted(terms(measures, rules).items(), key=lambda term: -term[1])
    score = score_of(measures, rules)
    level = max((rules.level_of(score), *(floor for floor, _ in floors)), key=lambda one: one.rank)
    at_least = {RiskLevel.LOW: 0.0, RiskLevel.MEDIUM: rules.medium, RiskLevel.HIGH: rules.high}[level]
    said = [sentence for _, sentence in sorted(floors, key=lambda one: -one[0].rank)]
    said += [
        sentence
        for name, term in added
        if term >= TELLING and (sentence := _sentence(name, change, measures))
    ]
    if rules.large_lines > (lines := round(measures["changed lines"])) >= MANY_LINES:
        said.append(_count(lines, "changed line"))
    return RiskAssessment(
        level=level,
        score=round(max(score, at_least), 4),
        reasons=tuple(dict.fromkeys(said)) or (_plain(change, measures),),
    )


def _found(findings: Sequence[Finding]) -> Iterator[tuple[RiskLevel, str]]:
    counted = [finding for finding in findings if finding.fate not in _DISMISSED]
    for severity in reversed(Severity):
        same = [finding for finding in counted if finding.severity is severity]
        if same and severity.rank >= Severity.MEDIUM.rank:
            floor = RiskLevel.HIGH if severity.rank >= Severity.HIGH.rank else RiskLevel.MEDIUM
            yield (
                floor,
                f"{_count(len(same), 'finding')} of {severity} severity: {same[0].title}{_more(len(same) - 1)}",
            )


def _guarded(change: Change, rules: RiskRules) -> Iterator[tuple[RiskLevel, str]]:
    for group in rules.groups:
        files = [file.path for file in change.files if group.touches(*file.paths)]
        if files:
            yield group.floor, f"touches {group.name}: {files[0]}{_more(len(files) - 1)}"


def _unread(
    change: Change, measures: Mapping[str, float], rules: RiskRules
) -> Iterator[tuple[RiskLevel, str]]:
    if change.incomplete:
        yield RiskLevel.MEDIUM, "not all of the change could be read"
    if measures["changed lines"] >= rules.large_lines or measures["files"] >= rules.large_files:
        lines, files = round(measures["changed lines"]), _count(len(change.files), "file")
        yield RiskLevel.MEDIUM, f"too large to be looked through: {_count(lines, 'changed line')} in {files}"


def _sentence(name: str, change: Change, measures: Mapping[str, float]) -> str:
    """A term in words; empty where it needs none."""
    number = round(measures.get(name, 0))
    busiest = (
        max(change.files, key=lambda f: (f.history or USUAL_FILE).recent_commits).path if change.files else ""
    )
    reverted = [file for file in change.files if file.history is not None and file.history.reverts]
    match name:
        case "files":
            return f"spread over {_count(len(change.files), 'file')}"
        case "recent commits":
            return f"{busiest} changed {_count(number, 'time')} in the last 90 days"
        case "authors":
            return f"{_count(number, 'author')} before this one in one file"
        case "author's part":
            return "its author had not changed all of these files before" if number == 0 else ""
        case "reverts" | "reverted files" | "recent reverts" if len(change.files) == 1:
            return (
                f"{reverted[0].path} was part of {_count(round(measures['reverts']), 'reverted change')} in the last year"
                if reverted
                else ""
            )
        case "reverts" | "reverted files" | "recent reverts":
            return (
                f"{len(reverted)} of its {len(change.files)} files were part of reverted changes in the last year"
                if reverted
                else ""
            )
        case "incidents":
            return f"{_count(number, 'recent incident')} in one of its files"
        case "author's changes":
            return (
                "its author's first change here"
                if number == 0
                else f"its author has made only {_count(number, 'change')} here"
            )
        case "author's reverts":
            return f"{number} of its author's {change.author_changes} changes were reverted"
        case "not covered":
            return f"tests run {1 - measures[name]:.0%} of the changed lines"
        case "code owners":
            return "it has code owners"
        case "lands again":
            return "lands again what was reverted"
        case _:
            return ""


def _plain(change: Change, measures: Mapping[str, float]) -> str:
    lines = round(measures["changed lines"])
    return f"{change.kind}, {_count(lines, 'changed line')} in {_count(len(change.files), 'file')}; nothing in it stands out"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _more(number: int) -> str:
    return f" and {number:,} more" if number > 0 else ""
