"""The two forms in which a model that reviews may answer, and what becomes of such an answer.

What the model says is checked by code before it counts: which file, which words, how long. Fields that we did not ask for are dropped, so
that nothing in an answer can decide anything.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from codespar.domain.reviews import Category, Finding, Severity, Side
from codespar.models.base import Brief, Concern, Refutation
from codespar.models.calls import visible

MAX_TITLE = 300
MAX_WHY = 4_000
MAX_CASE = 2_000
MAX_SUMMARY = 2_000
MAX_SUGGESTION = 20_000
MAX_LINE = 10_000_000
_FENCED = re.compile(r"\A\s*```[^\n`]*\n(.*?)\n?```\s*\Z", re.DOTALL)

_SEVERITIES = {
    "blocker": Severity.CRITICAL,
    "major": Severity.HIGH,
    "error": Severity.HIGH,
    "warning": Severity.MEDIUM,
    "moderate": Severity.MEDIUM,
    "minor": Severity.LOW,
    "nit": Severity.INFO,
    "note": Severity.INFO,
}
_CATEGORIES = {
    Concern.CORRECTNESS: Category.CORRECTNESS,
    Concern.SECURITY: Category.SECURITY,
    Concern.PERFORMANCE: Category.PERFORMANCE,
    Concern.STYLE_AND_TESTS: Category.STYLE,
}


def _severity(said: object) -> object:
    """The nearest of ours; a word that we do not know is medium, and no reason to ask again."""
    if isinstance(said, str):
        word = said.strip().lower()
        return _SEVERITIES.get(word, word if word in list(Severity) else Severity.MEDIUM)
    return said


def _category(said: object) -> object:
    """One of ours, or None: the concern's own."""
    if isinstance(said, str):
        word = said.strip().lower()
        return word if word in list(Category) else None
    return said


def _side(said: object) -> object:
    """`old` in the words of diff viewers too, else `new`."""
    if isinstance(said, str):
        return Side.OLD if said.strip().lower() in ("old", "left", "base", "removed") else Side.NEW
    return said


class Found(BaseModel):
    """One mistake, at the place to mend it."""

    path: str = Field(description="the file, as the diff names it")
    start_line: int
    end_line: int | None = Field(default=None, description="inclusive; left out: start_line")
    side: Annotated[Side, BeforeValidator(_side)] = Side.NEW
    severity: Annotated[Severity, BeforeValidator(_severity)]
    category: Annotated[Category | None, BeforeValidator(_category)] = None
    title: str = Field(description="what is wrong, in one line")
    why: str = Field(description="why it is wrong, by the code at hand")
    failing_case: str = Field(description="a concrete input, call or state, and what then happens")
    suggestion: str | None = Field(default=None, description="the text to put in place of the lines, or null")


class Report(BaseModel):
    """What is wrong with the change, worst first. An empty list when nothing is."""

    findings: list[Found]
    summary: str = Field(default="", description="what the change does, where the task asks for it")


class Judgement(BaseModel):
    """Whether the claim was shown to be wrong."""

    refuted: bool
    why: str = Field(description="one or two sentences that name the lines")


def findings_of(report: Report, brief: Brief, concern: Concern, most: int) -> tuple[tuple[Finding, ...], str]:
    """The findings that are of the change, worst first, and in words what was left out of what the model said."""
    kept: list[Finding] = []
    elsewhere = empty = 0
    paths = frozenset(brief.paths)
    for found in report.findings:
        path = _path(found.path, paths)
        if path is None:
            elsewhere += 1
        elif (finding := _finding(found, path, concern)) is None:
            empty += 1
        else:
            kept.append(finding)
    kept.sort(key=lambda finding: -finding.severity.rank)  # stable: the model's own order within a severity
    told: list[str] = []
    if elsewhere:
        told.append(f"{elsewhere} of the model's findings named files that are not in the change")
    if empty:
        told.append(f"{empty} of the model's findings said nothing")
    if len(kept) > most:
        told.append(
            f"the model gave {len(kept)} findings where {most} were asked for; the worst {most} are kept"
        )
    return tuple(kept[: max(0, most)]), "; ".join(told)


def summary_of(report: Report) -> str:
    return _text(report.summary, MAX_SUMMARY)


def refutation_of(judgement: Judgement) -> Refutation:
    """A claim is refuted only with a reason."""
    why = _text(judgement.why, MAX_CASE)
    if judgement.refuted and not why:
        return Refutation(refuted=False, why="the model gave no reason against it")
    return Refutation(refuted=judgement.refuted, why=why)


def _finding(found: Found, path: str, concern: Concern) -> Finding | None:
    why = _text(found.why, MAX_WHY)
    title = " ".join(visible(found.title).split()) or " ".join(why.split())
    if not title:
        return None
    start = min(max(1, found.start_line), MAX_LINE)
    end = start if found.end_line is None else min(max(start, found.end_line), MAX_LINE)
    return Finding(
        source=f"model:{concern.value}",
        path=path,
        start_line=start,
        end_line=end,
        side=found.side,
        severity=found.severity,
        category=found.category or _CATEGORIES[concern],
        title=title if len(title) <= MAX_TITLE else f"{title[: MAX_TITLE - 1]}…",
        why=why,
        failing_case=_text(found.failing_case, MAX_CASE),
        suggestion=_suggestion(found),
    )


def _path(said: str, paths: frozenset[str]) -> str | None:
    """The change's own name for a file that the model names, also as diffs and shells write it."""
    bare = said.strip().strip("`")
    for name in (said, bare, bare.removeprefix("./"), bare.removeprefix("a/"), bare.removeprefix("b/")):
        if name in paths:
            return name
    return None


def _suggestion(found: Found) -> str | None:
    """None for one that cannot be applied as it stands: of removed lines, empty, too long, or with characters nobody would see."""
    text = found.suggestion
    if text is None or found.side is Side.OLD or not text.strip() or len(text) > MAX_SUGGESTION:
        return None
    if fenced := _FENCED.match(text):
        text = fenced.group(1)
    return text if text.strip() and visible(text) == text else None


def _text(said: str, most: int) -> str:
    text = visible(said).strip()
    return text if len(text) <= most else f"{text[: most - 1]}…"
