"""The verdict of a review and the gates of an automatic approval.

Pure code over facts. What a finding, a title, a commit message or a model says in words is never read here: only severities, fates and what
ran. So nothing that is written in a change can talk its way to an approval. What a model found, or took back, can only keep an approval
from being given; it never outweighs an analyser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from codespar.domain.base import Value
from codespar.domain.builds import Conclusion
from codespar.domain.reviews import Fate, Finding, Gate, ReviewVerdict, RiskAssessment, RiskLevel, Severity

GATES = ("policy", "eligible", "protected-paths", "risk", "checks", "findings", "model", "head")
FINE = (Conclusion.SUCCESS, Conclusion.NEUTRAL, Conclusion.SKIPPED)
_NAMED = 5  # checks or paths in one reason


class Ruling(Value):
    """What policy, autonomy and roles say of approving this pull request."""

    allowed: bool
    reason: str


class PullFacts(Value):
    """What counts of the pull request as it is now, read again just before the verdict."""

    head_commit: str
    is_open: bool
    draft: bool
    fork: bool
    on_default_branch: bool  # its base is the default branch
    by_own_agent: bool  # our own agent opened it
    paths: tuple[str, ...]  # all that it touches, a rename's both


class CheckState(Value):
    """What one check says of the head commit; the review's own is not among them."""

    name: str
    conclusion: Conclusion | None  # None: under way


class ModelPart(Value):
    """What the model's review covered."""

    concerns: tuple[str, ...] = ()  # that it was to look at
    finished: tuple[str, ...] = ()  # that it did look at
    cut_short: str = ""  # why it did not see everything
    unseen: tuple[str, ...] = ()  # changed files that were left out of what it read


class ApprovalRules(Value):
    """What the project allows, from its default branch and its policies; never from the change."""

    most_risk: RiskLevel | None = RiskLevel.LOW  # None: nothing is approved by itself
    own_agent: bool = False  # its own agents' pull requests may be approved
    required_checks: tuple[str, ...] = ()
    required_unread: str = ""  # why it is not known which checks are required
    without_checks: bool = False  # a commit that nothing checks may be approved
    changes_at: Severity = Severity.HIGH  # from here on a finding requests changes


def decide(
    *,
    findings: Sequence[Finding],
    risk: RiskAssessment | None,
    ruling: Ruling,
    pull: PullFacts,
    protected: Callable[[str], bool],
    checks: Sequence[CheckState],
    model: ModelPart | None,
    reviewed_commit: str,
    rules: ApprovalRules,
    unlooked: Sequence[str] = (),
) -> tuple[ReviewVerdict, tuple[Gate, ...]]:
    """The verdict, and every gate with what holds or why it does not, in the order of `GATES`.

    Changes are requested when a finding that this pull request is told of, now or in an earlier review, is at least `rules.changes_at`.
    `unlooked` are the analysers that could not do their work. `protected` says whether a path may only be approved by people. `model` is None where no model took part.
    """
    gates = (
        _gate("policy", ruling.allowed, ruling.reason, ruling.reason),
        _eligible(pull, rules),
        _paths(pull.paths, protected),
        _risk(risk, rules.most_risk),
        _checks(checks, rules),
        _findings(findings, unlooked),
        _model(model),
        _head(reviewed_commit, pull.head_commit),
    )
    if any(_told(finding) and finding.severity.rank >= rules.changes_at.rank for finding in findings):
        return ReviewVerdict.REQUEST_CHANGES, gates
    approved = all(gate.passed for gate in gates)
    return (ReviewVerdict.APPROVE if approved else ReviewVerdict.COMMENT), gates


def lacks_only_checks(gates: Sequence[Gate]) -> bool:
    """Whether an approval waits for checks alone; or for them and, as the autonomy level may have it, for a person's word."""
    failed = {gate.name for gate in gates if not gate.passed}
    return "checks" in failed and failed <= {"checks", "policy"}


def _gate(name: str, passed: bool, holds: str, fails: str) -> Gate:
    return Gate(name=name, passed=passed, reason=holds if passed else fails)


def _told(finding: Finding) -> bool:
    """Whether people are told of it on this pull request: now, or in an earlier review, and it is still there."""
    return finding.fate is None or finding.fate.shown or finding.fate is Fate.SAID_BEFORE


def _counts(finding: Finding) -> bool:
    """Whether it keeps an approval from being given. An analyser's finding does so too where a model refuted it or says it better; a model's
    where it names lines that the diff does not show: it was given nothing but the change, and may have counted wrongly."""
    hidden = (Fate.UNCHANGED,) if finding.from_model else (Fate.REFUTED, Fate.DUPLICATE)
    return _told(finding) or finding.fate in hidden


def _eligible(pull: PullFacts, rules: ApprovalRules) -> Gate:
    against = [
        why
        for wrong, why in (
            (not pull.is_open, "it is not open"),
            (pull.draft, "it is a draft"),
            (pull.fork, "its branch is in a fork"),
            (not pull.on_default_branch, "its base is not the default branch"),
            (
                pull.by_own_agent and not rules.own_agent,
                "our own agent opened it, and the policy does not allow that",
            ),
        )
        if wrong
    ]
    return _gate(
        "eligible", not against, "open, no draft, no fork, on the default branch", "; ".join(against)
    )


def _paths(paths: Sequence[str], protected: Callable[[str], bool]) -> Gate:
    if not paths:
        return _gate("protected-paths", False, "", "it is not known which paths it touches")
    hit = [path for path in paths if protected(path)]
    return _gate("protected-paths", not hit, "no protected path is touched", f"protected: {_some(hit)}")


def _risk(risk: RiskAssessment | None, most: RiskLevel | None) -> Gate:
    if risk is None:
        return _gate("risk", False, "", "the risk is not known")
    if most is None:
        return _gate(
            "risk", False, "", f"the risk is {risk.level.value}, and no risk may be approved without a person"
        )
    holds = f"the risk is {risk.level.value}, and up to {most.value} is allowed"
    return _gate(
        "risk",
        risk.level.rank <= most.rank,
        holds,
        f"the risk is {risk.level.value}, and at most {most.value} is allowed",
    )


def _checks(checks: Sequence[CheckState], rules: ApprovalRules) -> Gate:
    pending = [check.name for check in checks if check.conclusion is None]
    bad = [check.name for check in checks if check.conclusion is not None and check.conclusion not in FINE]
    known = {check.name for check in checks}
    missing = [name for name in rules.required_checks if name not in known]
    passed = sum(check.conclusion is Conclusion.SUCCESS for check in checks)
    against = [
        f"{what}: {_some(names)}"
        for names, what in (
            (bad, "not green"),
            (pending, "still running"),
            (missing, "required, but not there"),
        )
        if names
    ]
    if rules.required_unread:
        against.append(f"it is not known which checks are required: {rules.required_unread}")
    if not passed and not against and not rules.without_checks:
        against.append("no check passed on this commit")
    return _gate(
        "checks",
        not against,
        f"{passed} passed, none failed" if checks else "no checks are needed",
        "; ".join(against),
    )


def _findings(findings: Sequence[Finding], unlooked: Sequence[str]) -> Gate:
    above = Counter(
        finding.severity for finding in findings if _counts(finding) and finding.severity is not Severity.INFO
    )
    worst = ", ".join(
        f"{above[severity]} {severity.value}" for severity in reversed(Severity) if above[severity]
    )
    if not above and unlooked:  # a change that keeps an analyser from its work has not been found good
        return _gate("findings", False, "", f"could not look: {_some(unlooked)}")
    return _gate("findings", not above, "nothing above info was found", f"above info: {worst}")


def _model(model: ModelPart | None) -> Gate:
    if model is None:
        return _gate("model", False, "", "no model review")
    missing = [concern for concern in model.concerns if concern not in model.finished]
    against = [f"it did not look at {_some(missing)}"] if missing else []
    against += ["it had no concern to look at"] if not model.concerns else []
    against += [f"it was cut short: {model.cut_short}"] if model.cut_short else []
    against += [f"it did not see {_some(model.unseen)}"] if model.unseen else []
    return _gate(
        "model", not against, f"it looked at {_some(model.concerns)}, and saw everything", "; ".join(against)
    )


def _head(reviewed: str, current: str) -> Gate:
    same = bool(reviewed) and reviewed == current
    return _gate(
        "head",
        same,
        f"{reviewed[:12]} is still the head",
        f"{reviewed[:12]} was reviewed, and the head is {current[:12]} now",
    )


def _some(names: Sequence[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(name[:200] for name in names[:_NAMED]) + more
