"""What is said of reviews in chat. Pure: the same record gives the same card. The review itself stands at the pull request."""

from __future__ import annotations

from codespar.domain.messages import Action, FieldLine, Link, NormalizedResponse, Tone
from codespar.domain.reviews import ReviewRecord, ReviewVerdict

_VERDICTS = {
    ReviewVerdict.APPROVE: ("✅ Approved", Tone.SUCCESS),
    ReviewVerdict.COMMENT: ("🔍 Reviewed", Tone.INFO),
    ReviewVerdict.REQUEST_CHANGES: ("❌ Changes requested", Tone.WARNING),
}


def _line(name: str, value: object) -> FieldLine:
    return FieldLine(name=name, value=str(value))


def begun(record: ReviewRecord, how: str) -> NormalizedResponse:
    return NormalizedResponse(
        title=f"🔍 Review of PR #{record.number} {how} ({record.id})",
        tone=Tone.PROGRESS,
        text=record.title,
        fields=(_line("Commit", record.head_commit[:12]),),
        agent=record.id,
    )


def done(record: ReviewRecord, url: str = "") -> NormalizedResponse:
    """The review was posted: its verdict, and why it is no approval where it is none."""
    title, tone = _VERDICTS[record.verdict or ReviewVerdict.COMMENT]
    shown = [finding for finding in record.findings if finding.fate and finding.fate.shown]
    worst = max(shown, key=lambda finding: finding.severity.rank, default=None)
    found = f"{len(shown)}" + (f", the worst is {worst.severity}: {worst.title}" if worst else "")
    fields = [_line("Commit", record.head_commit[:12]), _line("Findings", found)]
    if record.risk is not None:
        reasons = "; ".join(record.risk.reasons[:2])
        fields.append(_line("Risk", f"{record.risk.level}" + (f": {reasons}" if reasons else "")))
    fields.append(_line("Model", record.model or "no model review"))
    failed = [gate for gate in record.gates if not gate.passed]
    if failed and record.verdict is not ReviewVerdict.APPROVE:
        fields.append(_line("Not approved because", "; ".join(gate.reason for gate in failed[:3])))
    fields += [_line("Note", problem) for problem in record.problems[:3]]
    return NormalizedResponse(
        title=f"{title}: PR #{record.number} ({record.id})",
        tone=tone,
        text=record.title,
        fields=tuple(fields),
        links=(Link(label=f"PR #{record.number}", url=url),) if url else (),
        actions=(Action(label="Show diff", command=f"diff PR #{record.number}"),),
        agent=record.id,
    )


def overtaken(record: ReviewRecord, why: str) -> NormalizedResponse:
    return NormalizedResponse(
        title=f"🛑 Review of PR #{record.number} ended ({record.id})",
        tone=Tone.WARNING,
        text=f"{why}; nothing of it was posted.",
        fields=(_line("Next", f"`review PR #{record.number}` reviews it as it is then"),),
        agent=record.id,
    )


def failed(record: ReviewRecord, why: str) -> NormalizedResponse:
    return NormalizedResponse(
        title=f"❌ Review of PR #{record.number} failed ({record.id})",
        tone=Tone.FAILURE,
        text=why,
        fields=(_line("Next", f"`review PR #{record.number}` tries again"),),
        agent=record.id,
    )


def approved(number: int, title: str, verdict: ReviewVerdict, by: str) -> NormalizedResponse:
    """What a person's `approve PR #n` came to: a host may not let us approve, and takes it as a comment."""
    took = verdict is ReviewVerdict.APPROVE
    return NormalizedResponse(
        title=f"✅ PR #{number} approved"
        if took
        else f"🔍 PR #{number}: the approval was taken as a comment",
        tone=Tone.SUCCESS if took else Tone.WARNING,
        text=title,
        fields=(
            _line("For", by),
            *(
                ()
                if took
                else (_line("Next", "the code host lets nobody approve their own; approve it there"),)
            ),
        ),
    )


def not_approved(number: int, why: str) -> NormalizedResponse:
    return NormalizedResponse(
        title=f"❌ PR #{number} was not approved",
        tone=Tone.FAILURE,
        text=why,
        fields=(_line("Next", f"look at it again: `diff PR #{number}`"),),
    )
