"""What is said of builds. Pure: the same standing gives the same card."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from codespar.domain.builds import Failure, Run, Standing
from codespar.domain.messages import Block, FieldLine, Link, NormalizedResponse, Tone

_COMMITS = 8  # of those since it last worked
_SHOWN = 30  # workflows in one answer
_OLD = timedelta(days=30)  # a branch whose builds are older is not spoken of


def _line(name: str, value: object) -> FieldLine:
    return FieldLine(name=name, value=str(value))


def broke(project: str, standing: Standing, flaky: bool) -> NormalizedResponse:
    """A build broke the default branch. The same card is changed when it is fixed."""
    run, failure = standing.broken_by, standing.failure
    assert run is not None and failure is not None, "a broken build was looked at before it is told"
    fields = [_line("Failed", _where(failure)), _line("Commit", f"{run.commit[:12]} {run.title}".strip())]
    if flaky:
        fields.append(_line("Flaky", "it gave another result on the very same commit"))
    if failure.log_cut:
        fields.append(_line("Log", failure.log_cut))
    if standing.task:
        fields.append(_line("Now", f"{standing.task} works on it"))
    fields.append(_line("Next", f"`fix build {standing.workflow}` starts a task with this log"))
    blocks: list[Block] = []
    if failure.excerpt:
        blocks.append(Block(title="First error", text="\n".join(failure.excerpt)))
    if failure.since_green:
        listed = [f"{one.commit[:12]} {one.author}: {one.title}" for one in failure.since_green[:_COMMITS]]
        more = len(failure.since_green) - len(listed)
        blocks.append(
            Block(
                title="Since it last worked",
                text="\n".join([*listed, *([f"and {more} more"] if more > 0 else [])]),
            )
        )
    mark = "⚠️ Flaky build" if flaky else "❌ Build broken"
    return NormalizedResponse(
        title=f"{mark}: {standing.workflow} on {standing.branch}",
        tone=Tone.WARNING if flaky else Tone.FAILURE,
        fields=tuple(fields),
        blocks=tuple(blocks),
        links=_links(failure.url or run.url),
        agent=f"agent-{project}",
    )


def fixed(project: str, before: Standing, run: Run, flaky: bool) -> NormalizedResponse:
    """What stands in the place of the card that told of it."""
    cause = before.broken_by
    assert cause is not None, "only what was broken is fixed"
    lasted = _span(run.updated_at - cause.updated_at)
    if flaky:
        how = f"the very same commit {run.commit[:12]} works now: it is flaky"
    else:
        how = f"{run.commit[:12]} {run.title}".strip()
    fields = [_line("Fixed by", how), _line("Broken for", lasted)]
    if before.failure is not None:
        fields.append(_line("It was", _where(before.failure)))
    return NormalizedResponse(
        title=f"✅ Build fixed: {before.workflow} on {before.branch}",
        tone=Tone.SUCCESS,
        fields=tuple(fields),
        links=_links(run.url),
        agent=f"agent-{project}",
    )


def overview(
    project: str, standings: Sequence[Standing], under_way: Sequence[Run], problem: str, now: datetime
) -> NormalizedResponse:
    """How every workflow stands, what is broken first."""
    recent = [one for one in standings if one.last is not None and now - one.last.updated_at < _OLD]
    ordered = sorted(recent, key=lambda one: (one.broken_by is None, one.branch, one.workflow))
    lines = [_line(f"{one.branch} · {one.workflow}", _stands(one)) for one in ordered[:_SHOWN]]
    lines += [
        _line(f"{run.branch or 'elsewhere'} · {run.workflow}", f"⏳ runs on {run.commit[:12]}")
        for run in under_way[:10]
    ]
    if len(ordered) > _SHOWN:
        lines.append(_line("", f"and {len(ordered) - _SHOWN} more"))
    if problem:
        lines.append(_line("Note", f"the code host was not read: {problem}"))
    bad = sum(one.broken_by is not None for one in ordered)
    return NormalizedResponse(
        title=f"📊 Builds of {project}: "
        + (f"{bad} broken" if bad else "all good" if ordered else "none known"),
        tone=Tone.WARNING if bad else Tone.INFO,
        text="" if lines else "No continuous integration has reported a run yet.",
        fields=tuple(lines),
        agent=f"agent-{project}",
    )


def _stands(standing: Standing) -> str:
    last = standing.last
    assert last is not None, "only what ran is told of"
    if standing.broken_by is None:
        said = f"✅ {last.commit[:12]}, {last.updated_at:%Y-%m-%d %H:%M} UTC"
    else:
        cause = standing.broken_by
        where = f": {_where(standing.failure)}" if standing.failure else ""
        said = f"❌ since {cause.commit[:12]}, {cause.updated_at:%Y-%m-%d %H:%M} UTC{where}"
    return said + (f" · flaky on {standing.flaky[0][:12]}" if standing.flaky else "")


def _where(failure: Failure) -> str:
    return f"job {failure.job}" + (f", step {failure.step}" if failure.step else "")


def _links(url: str) -> tuple[Link, ...]:
    return (Link(label="Run", url=url),) if url.startswith(("http://", "https://")) else ()


def _span(span: timedelta) -> str:
    minutes = max(0, int(span.total_seconds() // 60))
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes // 1440} days"
