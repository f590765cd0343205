"""What a review is made of: findings, risk, gates and the verdict. Values alone; the rules that make them stand beside this module.

Nothing that was found ever vanishes: a finding that is not shown carries the reason.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from pydantic import Field, model_validator

from codespar.domain.base import Value
from codespar.domain.messages import UtcDatetime
from codespar.domain.tasks import Thread


class Severity(StrEnum):
    """How bad it is, mildest first; `rank` orders them."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class Side(StrEnum):
    """Which text a line number counts in."""

    NEW = "new"  # the head commit's
    OLD = "old"  # the base's, for lines that are removed


class Category(StrEnum):
    CORRECTNESS = "correctness"
    SECURITY = "security"
    PERFORMANCE = "performance"
    STYLE = "style"
    TESTS = "tests"
    DEPENDENCY = "dependency"
    SECRET = "secret"


class Fate(StrEnum):
    """Whether a finding is shown, where, and why not."""

    INLINE = "inline"  # a comment on its lines
    SUMMARY = "summary"  # the platform cannot hold it on its lines; it stands in the summary, with a link
    FOLDED = "folded"  # beyond the cap: in the folded part of the summary
    UNCHANGED = "unchanged"  # not on a line that this change touches
    NOT_NEW = "not_new"  # the base has it too
    DUPLICATE = "duplicate"  # another one says the same of the same lines
    REFUTED = "refuted"  # the validating pass showed that it is wrong
    SAID_BEFORE = "said_before"  # an earlier review of this pull request said it
    OVERRULED = "overruled"  # the repository's own rules leave it out

    @property
    def shown(self) -> bool:
        return self in (Fate.INLINE, Fate.SUMMARY, Fate.FOLDED)


class Finding(Value):
    """Something that is wrong with a change, and where. `suggestion` replaces the lines `start_line` to `end_line` whole."""

    source: str  # `ruff:F821`, `semgrep:<rule>`, `model:correctness`
    path: str
    start_line: int = Field(ge=1)
    end_line: int = Field(ge=1)  # inclusive
    side: Side = Side.NEW
    severity: Severity
    category: Category
    title: str = Field(min_length=1, max_length=300)  # one line
    why: str = ""  # why it is wrong
    failing_case: str = ""  # a concrete input, call or state with which it goes wrong
    suggestion: str | None = None
    line_text: str = ""  # the first line as it stands, by which the finding is known again after a push
    fate: Fate | None = None  # None: not decided yet
    fate_reason: str = ""
    comment: str | None = None  # the forge's id of the comment that shows it

    @model_validator(mode="after")
    def _ordered(self) -> Finding:
        if self.end_line < self.start_line:
            raise ValueError(f"{self.path}: line {self.end_line} comes before line {self.start_line}")
        return self

    @property
    def fingerprint(self) -> str:
        """By which the same finding is known again though its line has moved: 16 hex digits of source, path, title and line text."""
        text = "\0".join(
            (self.source, self.path, " ".join(self.title.split()), " ".join(self.line_text.split()))
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def from_model(self) -> bool:
        return self.source.startswith("model:")


class RiskLevel(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        return list(RiskLevel).index(self)


class RiskAssessment(Value):
    """How likely a change is to do harm: `score` is 0 (none) to 1, `reasons` are for people, weightiest first."""

    level: RiskLevel
    score: float = Field(ge=0, le=1)
    reasons: tuple[str, ...] = ()


class ReviewVerdict(StrEnum):
    COMMENT = "comment"
    REQUEST_CHANGES = "request_changes"
    APPROVE = "approve"


class Gate(Value):
    """One condition of an automatic approval. All of them must hold."""

    name: str
    passed: bool
    reason: str  # what holds, or why it does not


class ReviewState(StrEnum):
    RUNNING = "running"
    POSTED = "posted"
    SUPERSEDED = "superseded"  # a new head commit came, or the pull request was closed
    FAILED = "failed"


class ReviewRecord(Value):
    """One review of one head commit of one pull request, with all that was found."""

    id: str  # review-abc123
    project: str
    number: int
    head_commit: str
    base_commit: str = ""
    state: ReviewState = ReviewState.RUNNING
    by: str = ""  # who asked for it; empty: the agent by itself
    findings: tuple[Finding, ...] = ()
    risk: RiskAssessment | None = None
    verdict: ReviewVerdict | None = None
    gates: tuple[Gate, ...] = ()
    model: str | None = None  # None: no model reviewed it
    cut_short: str = ""  # why the model's review did not see everything
    analysers: tuple[str, ...] = ()  # those that ran, with their versions
    problems: tuple[str, ...] = ()  # what could not be done, for people
    posted: str | None = None  # the forge's id of the review
    title: str = ""  # of the pull request
    thread: Thread | None = None  # where it was asked for; None: nobody asked
    attempt: int = Field(default=1, ge=1)
    started_at: UtcDatetime
    ended_at: UtcDatetime | None = None
    looks: int = Field(default=0, ge=0)  # second looks that were begun after it was posted
    looking: bool = False  # the last of them is under way
    checked: bool = False  # a check of its commit ended well, and was not looked at yet
