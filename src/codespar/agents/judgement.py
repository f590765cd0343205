"""From what was found to a verdict: which findings count, where they stand, the risk, the gates, and the review as it is posted.

Pure but for the one question about advisories. The order of the rules is the order of this file's `judge`; each gives back every finding, with
a fate and the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from codespar.agents.evidence import Evidence
from codespar.config.work import RepositoryReview, ReviewSettings
from codespar.domain.autonomy import AuthorizationVerdict, Decision, Sensitive
from codespar.domain.dependencies import changed_packages
from codespar.domain.diffs import Diff
from codespar.domain.difftext import spelled
from codespar.domain.findings import (
    deduplicate,
    gone,
    new_only,
    on_changed_lines,
    overlooked,
    rank_and_cap,
    said_before,
    spoke,
    standing,
)
from codespar.domain.paths import matches
from codespar.domain.placement import LINK_MODE, place
from codespar.domain.reviews import (
    Category,
    Fate,
    Finding,
    ReviewRecord,
    ReviewVerdict,
    RiskAssessment,
    RiskLevel,
    Side,
)
from codespar.domain.reviewtext import code, inline_body, summary
from codespar.domain.risk import Change, RiskRules, assess
from codespar.domain.verdicts import (
    ApprovalRules,
    CheckState,
    ModelPart,
    PullFacts,
    Ruling,
    decide,
)
from codespar.forges.base import InlineComment, PostedReview, PullRequest, ReviewDraft
from codespar.models.base import Concern, Opinion, Refutation
from codespar.sandbox.base import AnalyserReport
from codespar.signals.base import Advisories, SignalError

_SENSITIVE = {
    "authentication": Sensitive.SECURITY,
    "secrets": Sensitive.SECURITY,
    "data migrations": Sensitive.DATA_MIGRATION,
    "infrastructure": Sensitive.INFRASTRUCTURE,
    "continuous integration": Sensitive.INFRASTRUCTURE,
    "the rules of reviews and agents": Sensitive.SECURITY,
}
_LEVELS: dict[str, RiskLevel | None] = {"none": None, "low": RiskLevel.LOW, "medium": RiskLevel.MEDIUM}
_GREEN = 20  # checks that an approval names
_HEARD = 60  # of the analysers' findings that a model is told of
_PASSED = 5  # files that no analyser looked at, by name
_ODD = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffd]")  # in a path: no report of an analyser names it so
_LONGEST = 1_000  # characters of a path, beyond which a report may not name it


@dataclass(frozen=True)
class Judged:
    """A review that is ready to be posted. `inline` are the places in the record's findings of those that go on their lines."""

    record: ReviewRecord
    inline: tuple[int, ...]
    unavailable: tuple[str, ...]  # analysers that could not run, and why
    resolve: tuple[str, ...]  # the forge's ids of earlier comments whose matter is settled
    unplaced: str = ""  # what the host could not hold on its lines after all


def judge(
    record: ReviewRecord,
    evidence: Evidence,
    diff: Diff,
    reports: Sequence[AnalyserReport],
    opinions: Sequence[Opinion],
    refutations: Mapping[str, Refutation],
    earlier: Sequence[ReviewRecord],
    rules: RepositoryReview,
    settings: ReviewSettings,
    pull: PullFacts,
    checks: Sequence[CheckState],
    ruling: Callable[[RiskAssessment], Decision],
    *,
    model: str | None,
    pushed: Diff | None = None,
) -> Judged:
    """The whole review, from what was found. `ruling` says what autonomy and policy say of approving a change of that risk; `pushed` is what
    came since the last review, where that is known."""
    found = [*_of_analysers(reports, diff), *_of_model(opinions, refutations, diff)]
    found = [_overruled(one, rules.ignore) for one in found]
    found = list(deduplicate(found))
    found = list(said_before(found, earlier))
    stands = overlooked(found, earlier, diff, pushed, lambda one: _unseen(one, reports))
    found += [_overruled(one, rules.ignore) for one in stands]
    found = list(rank_and_cap(found, diff, settings.comments))
    cut = "; ".join(dict.fromkeys(opinion.cut_short for opinion in opinions if opinion.cut_short))
    passed = _passed_over(reports, rules.ignore)
    risk = assess(evidence.change, found, RiskRules())
    decision = ruling(risk)
    part = _model_part(opinions, cut, evidence.brief.left_out) if model else None
    verdict, gates = decide(
        findings=found,
        risk=risk,
        ruling=Ruling(
            allowed=decision.verdict is AuthorizationVerdict.ALLOW,
            reason=f"{decision.reason} ({decision.rule})",
        ),
        pull=pull,
        protected=lambda path: matches((*settings.protected_paths, *rules.protected_paths), path),
        checks=checks,
        model=part,
        reviewed_commit=record.head_commit,
        unlooked=(
            *_unlooked(evidence, reports),
            *(f"analysers at {one}" for one in passed),
            *_unreliable(diff),
        ),
        rules=ApprovalRules(
            most_risk=_stricter(settings.approve_up_to, rules.approve_up_to),
            own_agent=settings.approve_own,
            required_checks=evidence.required,
            required_unread=evidence.required_unread,
            without_checks=settings.approve_without_checks,
            changes_at=min(
                settings.request_changes_from,
                rules.request_changes_from or settings.request_changes_from,
                key=lambda severity: severity.rank,
            ),
        ),
    )
    ran = tuple(f"{one.analyser} {one.version}".strip() for one in reports if not one.problem)
    judged = record.evolve(
        base_commit=evidence.pull.base_commit,
        findings=tuple(found),
        risk=risk,
        verdict=verdict,
        gates=gates,
        model=model,
        cut_short=cut,
        analysers=ran,
        problems=(*evidence.problems, *_in_one_line(passed)),
    )
    return Judged(
        record=judged,
        inline=tuple(at for at, one in enumerate(found) if one.fate is Fate.INLINE),
        unavailable=tuple(f"{one.analyser}: {one.problem}" for one in reports if one.problem),
        resolve=_settled(judged, earlier, diff, pushed),
    )


def draft(
    judged: Judged, diff: Diff, link: Callable[[str, int], str], clean: Callable[[str], str]
) -> ReviewDraft:
    """The review as the host takes it. Everything by others that goes out passes `clean`."""
    record = _cleaned(judged.record, clean)
    unavailable = [clean(one) for one in judged.unavailable]
    body = summary(record, link, changed=diff, unavailable=unavailable, resolved=len(judged.resolve))
    comments: list[InlineComment] = []
    for at in judged.inline:
        finding = record.findings[at]
        where = place(judged.record.findings[at], diff)
        if where.suggestion is not None and clean(where.suggestion) != where.suggestion:
            where = where.evolve(suggestion=None, reason="its suggestion held what is not shown")
        comments.append(
            InlineComment(
                path=where.path,
                line=where.line,
                start_line=where.start_line,
                side=where.side,
                body=inline_body(finding, where),
            )
        )
    assert record.verdict is not None, "a judged review has a verdict"
    return ReviewDraft(
        head_commit=record.head_commit, verdict=record.verdict, body=body, comments=tuple(comments)
    )


def approval(record: ReviewRecord, checks: Sequence[CheckState], clean: Callable[[str], str]) -> ReviewDraft:
    """What follows a review of the same commit that lacked nothing but green checks."""
    green = [code(clean(check.name)) for check in checks[:_GREEN]]
    more = f" and {len(checks) - _GREEN} more" if len(checks) > _GREEN else ""
    body = (
        f"✅ **Approved** · {record.id}\n\nThe checks of {record.head_commit[:12]} are green now: {', '.join(green)}{more}. "
        "Nothing else has changed since its review, which stands as it was posted."
    )
    return ReviewDraft(head_commit=record.head_commit, verdict=ReviewVerdict.APPROVE, body=body)


def _cleaned(record: ReviewRecord, clean: Callable[[str], str]) -> ReviewRecord:
    """The record as it may be shown. Its texts are cleaned before they become Markdown and not after: what takes a sign its meaning there is
    a character that nobody sees, and would be cleaned away."""
    findings = [
        one.evolve(
            title=(clean(one.title) or "…")[:300],
            why=clean(one.why),
            failing_case=clean(one.failing_case),
            suggestion=one.suggestion and clean(one.suggestion),
            fate_reason=clean(one.fate_reason),
        )
        if one.fate is not None and (one.fate.shown or one.fate is Fate.SAID_BEFORE)
        else one
        for one in record.findings
    ]
    risk = record.risk and record.risk.evolve(reasons=tuple(clean(one) for one in record.risk.reasons))
    return record.evolve(
        findings=tuple(findings),
        risk=risk,
        gates=tuple(gate.evolve(reason=clean(gate.reason)) for gate in record.gates),
        cut_short=clean(record.cut_short),
        problems=tuple(clean(one) for one in record.problems),
    )


def as_posted(
    judged: Judged, posted: PostedReview, link: Callable[[str, int], str], clean: Callable[[str], str]
) -> Judged:
    """The review as it stands now: which comment shows which finding, and what the host could not hold on its lines."""
    findings = list(judged.record.findings)
    refused: list[Finding] = []
    for place_, at in enumerate(judged.inline):
        id = posted.comments[place_] if place_ < len(posted.comments) else ""
        if id:
            findings[at] = findings[at].evolve(comment=id)
        else:
            why = "the code host could not hold it on its lines"
            findings[at] = findings[at].evolve(fate=Fate.SUMMARY, fate_reason=why)
            refused.append(findings[at])
    record = judged.record.evolve(findings=tuple(findings), posted=posted.id, verdict=posted.verdict)
    unplaced = summary(_cleaned(record.evolve(findings=tuple(refused)), clean), link) if refused else ""
    return Judged(
        record=record,
        inline=judged.inline,
        unavailable=judged.unavailable,
        resolve=judged.resolve,
        unplaced=unplaced,
    )


def _of_analysers(reports: Sequence[AnalyserReport], diff: Diff) -> list[Finding]:
    """On changed lines alone, and only what the base does not have."""
    found: list[Finding] = []
    for report in reports:
        touched = on_changed_lines(report.head, diff)
        found += new_only(report.base, touched, diff)
    return found


def _of_model(
    opinions: Sequence[Opinion], refutations: Mapping[str, Refutation], diff: Diff
) -> list[Finding]:
    raw = [_with_text(one, diff) for opinion in opinions for one in opinion.findings]
    found: list[Finding] = []
    for finding in on_changed_lines(raw, diff):
        answer = refutations.get(refuted_as(finding))
        if finding.fate is None and answer is not None and answer.refuted:
            finding = finding.evolve(fate=Fate.REFUTED, fate_reason=answer.why[:1000])
        found.append(finding)
    return found


def to_refute(findings: Sequence[Finding], diff: Diff) -> list[Finding]:
    """Those a second look is worth: on the diff, the worst first."""
    raw = [_with_text(one, diff) for one in findings]
    open_ = [one for one in on_changed_lines(raw, diff) if one.fate is None]
    return sorted(open_, key=lambda one: -one.severity.rank)


def refuted_as(finding: Finding) -> str:
    """By which its refutation is kept: what is wrong of one place may be right of another that reads the same."""
    return f"{finding.fingerprint}:{finding.side}:{finding.start_line}-{finding.end_line}"


def _with_text(finding: Finding, diff: Diff) -> Finding:
    """With its first line as it stands, by which it is known again."""
    file = diff.at(finding.path, finding.side)
    text = file.text_between(finding.start_line, finding.start_line, finding.side) if file else None
    return finding.evolve(line_text=(text or "")[:500])


def _overruled(finding: Finding, ignore: tuple[str, ...]) -> Finding:
    if finding.fate in (None, Fate.SAID_BEFORE) and ignore and matches(ignore, finding.path):
        return finding.evolve(
            fate=Fate.OVERRULED, fate_reason="`review.ignore` of .codespar.yaml leaves its file out"
        )
    return finding


def _model_part(opinions: Sequence[Opinion], cut: str, left_out: tuple[str, ...]) -> ModelPart:
    return ModelPart(
        concerns=tuple(concern.value for concern in Concern),
        finished=tuple(opinion.concern.value for opinion in opinions if not opinion.cut_short),
        cut_short=cut,
        unseen=left_out,
    )


def _unlooked(evidence: Evidence, reports: Sequence[AnalyserReport]) -> tuple[str, ...]:
    """The analysers that could not do their work; all of them where they had nothing to look at that they could read."""
    if not evidence.analysable and evidence.changed:
        return ("analysers",)
    return tuple(report.analyser for report in reports if report.problem)


def _passed_over(reports: Sequence[AnalyserReport], ignore: tuple[str, ...]) -> tuple[str, ...]:
    """The files that an analyser was to look at and did not, or not wholly, each with the reasons; without those about which nothing is to be
    said."""
    found: dict[str, dict[str, None]] = {}
    for report in reports:
        for path, why in report.unlooked.items():
            found.setdefault(path, {})[why] = None
    return tuple(
        f"{spelled(path)}, which {', and which '.join(whys)}"
        for path, whys in found.items()
        if not (ignore and matches(ignore, path))
    )


def _unseen(finding: Finding, reports: Sequence[AnalyserReport]) -> bool:
    """Whether the analyser that found it did not look at its file this time, so that its silence says nothing."""
    tool = finding.source.partition(":")[0]
    return any(report.analyser == tool and finding.path in report.unlooked for report in reports)


def _in_one_line(passed: Sequence[str]) -> tuple[str, ...]:
    more = f"; and {len(passed) - _PASSED} more" if len(passed) > _PASSED else ""
    return (f"analysers did not look at {'; '.join(passed[:_PASSED])}{more}",) if passed else ()


def _unreliable(diff: Diff) -> tuple[str, ...]:
    """The files of which an analyser's finding may be missed: their names stand otherwise in its report, or its lines are not git's, for which
    a carriage return within a line ends none; and links, which none of them follows."""
    links = tuple(
        f"analysers at {spelled(file.path[:_LONGEST])}, a link to something else"
        for file in diff.files
        if file.new_path and file.new_mode == LINK_MODE
    )
    return links + tuple(
        f"analysers at {spelled(file.path[:_LONGEST])}, whose name or lines they may read in another way"
        for file in diff.files
        if file.new_path
        and (
            _ODD.search(file.new_path)
            or len(file.new_path) > _LONGEST
            or any(
                "\r" in line.text.removesuffix("\r")
                for hunk in file.hunks
                if "\r" in hunk.body
                for line in hunk.walk()
                if line.kind == "+"
            )
        )
    )


def _stricter(installation: str, repository: str | None) -> RiskLevel | None:
    levels = [_LEVELS[installation], _LEVELS[repository] if repository else _LEVELS[installation]]
    known = [level for level in levels if level is not None]
    return min(known, key=lambda level: level.rank) if len(known) == len(levels) else None


def _settled(
    record: ReviewRecord, earlier: Sequence[ReviewRecord], diff: Diff, pushed: Diff | None
) -> tuple[str, ...]:
    said = [finding for finding, _ in standing(earlier)]
    over = gone(said, record.findings, diff, pushed=pushed, ran=lambda source: spoke(record, source))
    return tuple(finding.comment for finding in over if finding.comment)


def sensitive(change: Change) -> frozenset[Sensitive]:
    """What of it no agent does by itself at any level, by the paths it touches."""
    return frozenset(
        _SENSITIVE[group.name]
        for group in RiskRules().groups
        if group.name in _SENSITIVE and any(group.touches(*file.paths) for file in change.files)
    )


def heard(reports: Sequence[AnalyserReport], diff: Diff) -> tuple[str, ...]:
    """What the analysers found on the changed lines, for a model to know: a line each, at most 60."""
    found = [one for one in _of_analysers(reports, diff) if one.fate is None]
    return tuple(f"{one.path}:{one.start_line}: {one.source}: {one.title}" for one in found[:_HEARD])


def numbered_code(text: str, finding: Finding, most: int) -> str:
    """The file around a finding with line numbers: whole, or as much of it as fits around the lines."""
    # as git counts them: nothing but a line feed ends a line
    numbered = enumerate(text.replace("\r\n", "\n").removesuffix("\n").split("\n"), start=1)
    lines = [f"{number:6} {spelled(line)}" for number, line in numbered]
    if finding.side is Side.OLD:
        return "\n".join(lines)[:most]
    first, last = finding.start_line - 1, finding.end_line
    while (first > 0 or last < len(lines)) and sum(len(line) + 1 for line in lines[first:last]) < most:
        first, last = max(0, first - 20), min(len(lines), last + 20)
    return "\n".join(lines[first:last])[: 2 * most]


def linker(pull: PullRequest) -> Callable[[str, int], str]:
    """The address of a line of the head commit, where the host has one."""
    base = pull.url.rpartition("/pull/")[0]

    def link(path: str, line: int) -> str:
        return f"{base}/blob/{pull.head_commit}/{quote(path)}#L{line}" if base else ""

    return link


async def advisories(source: Advisories, diff: Diff) -> AnalyserReport:
    """What is known of the package versions that the change brings in."""
    packages = changed_packages(diff)
    if not packages:
        return AnalyserReport(analyser="advisories")
    try:
        known = await source.look_up(packages)
    except SignalError as error:
        return AnalyserReport(analyser="advisories", problem=str(error))
    return AnalyserReport(
        analyser="advisories",
        head=tuple(
            Finding(
                source=f"advisories:{one.id}",
                path=one.package.path,
                start_line=one.package.line,
                end_line=one.package.line,
                severity=one.severity,
                category=Category.DEPENDENCY,
                title=f"{one.package.name} {one.package.version}: {one.summary}"[:300],
                why=f"{one.id} is known of this version."
                + (f" Fixed in {one.fixed}." if one.fixed else " No fixed version is known.")
                + (f" {one.url}" if one.url else ""),
                line_text=f"{one.package.name} {one.package.version}",
            )
            for one in known
        ),
    )
