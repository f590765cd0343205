"""What a scripted model says when it reviews: findings by concern, and judgements of findings.

A request to review is known by the two tools that it offers, and which task it is by the first line of its last text, both of which the
reviewing adapter writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codespar.scripted.script import Call, Script, Turn

REPORT, JUDGE = "report_findings", "judge_finding"
REFUTE = "refute"  # the task that is no concern


@dataclass(frozen=True)
class Asked:
    """A request to review: a concern or `REFUTE`, the change as it was sent, and what the task says (in it the finding to be refuted)."""

    task: str
    change: str
    text: str


@dataclass(frozen=True)
class Reviewed:
    """What is said of a concern, where `of` occurs in the change as it was sent (its title, its diff)."""

    concern: str  # `correctness`, `security`, `performance`, `style_and_tests`
    script: Script
    of: str = ""


@dataclass(frozen=True)
class Refuted:
    """What is said of findings in whose title or reason `of` occurs."""

    of: str
    script: Script


@dataclass(frozen=True)
class Reviews:
    """Scripts of a model that reviews; the first one that fits counts. For all else it finds nothing, and lets every finding stand."""

    scripts: tuple[Reviewed | Refuted, ...] = ()

    def __call__(self, asked: Asked) -> Script:
        return next((entry.script for entry in self.scripts if _fits(entry, asked)), _otherwise(asked))


def finds(*findings: dict[str, Any], summary: str = "") -> Script:
    """The model reports these; `found` makes them."""
    return Script((Turn("", (Call(REPORT, {"findings": list(findings), "summary": summary}),)),))


def found(
    path: str,
    line: int,
    title: str,
    *,
    end: int | None = None,
    side: str = "new",
    severity: str = "medium",
    category: str | None = None,
    why: str = "The code on this line does not do what its name says.",
    failing_case: str = "Call it with an empty list.",
    suggestion: str | None = None,
) -> dict[str, Any]:
    """A finding in the form that the model is asked for; `suggestion` replaces the lines whole."""
    return {
        "path": path,
        "start_line": line,
        "end_line": line if end is None else end,
        "side": side,
        "severity": severity,
        "category": category,
        "title": title,
        "why": why,
        "failing_case": failing_case,
        "suggestion": suggestion,
    }


def judges(refuted: bool, why: str) -> Script:
    return Script((Turn("", (Call(JUDGE, {"refuted": refuted, "why": why}),)),))


def asked_of(body: dict[str, Any]) -> Asked | None:
    """What a request to the Messages API asks of a model that reviews; None when it is none."""
    names = {tool.get("name") for tool in body.get("tools") or () if isinstance(tool, dict)}
    messages = body.get("messages")
    if not {REPORT, JUDGE} <= names or not isinstance(messages, list):
        return None
    content = messages[0].get("content") if messages and isinstance(messages[0], dict) else None
    if not isinstance(content, list) or not content:
        return None
    parts = [str(part.get("text", "")) for part in content if isinstance(part, dict)]
    first, _, text = parts[-1].partition("\n")
    if not first.startswith("Task: "):
        return None
    return Asked(first.removeprefix("Task: ").strip(), "\n".join(parts[:-1]), text)


def _fits(entry: Reviewed | Refuted, asked: Asked) -> bool:
    if isinstance(entry, Refuted):
        return asked.task == REFUTE and entry.of in asked.text.partition('name="file"')[0]
    return asked.task == entry.concern and entry.of in asked.change


def _otherwise(asked: Asked) -> Script:
    if asked.task == REFUTE:
        return judges(False, "I have no script against this finding, so it stands.")
    return finds(summary="I have no script for this change." if asked.task == "correctness" else "")
