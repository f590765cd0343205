"""The ports to language models: one reads what people write and says which of our commands they mean, one reads a change and says what is
wrong with it.

What they give is text and typed findings: a line of the command grammar, to be parsed, authorized and confirmed like a line that somebody
typed; findings, to be checked against the diff. They have no tool, grant nothing, and nothing they say is done because they said so.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from codespar.domain.base import CodesparError, Value
from codespar.domain.reviews import Finding


class ModelError(CodesparError):
    """The root of what asking a model can end in.

    ModelError
    ├── ModelNotSet        the setting or its key is missing or unusable
    ├── ModelUnreachable   nobody answers at its address
    ├── ModelTimedOut      it did not answer in time
    ├── ModelRefused       it refuses the key, the model's name or the request
    ├── ModelBusy          too many requests, a spent quota, or too much load
    └── ModelBroken        it failed, or its answers were of no use
    """


class ModelNotSet(ModelError):
    """The setting or its key is missing or unusable."""


class ModelUnreachable(ModelError):
    """Nobody answers at the model's address."""


class ModelTimedOut(ModelError):
    """The model did not answer in time."""


class ModelRefused(ModelError):
    """The service refuses the key, the model's name or the request."""


class ModelBusy(ModelError):
    """Too many requests, a spent quota, or too much load. `retry_after` is in seconds, where the service said so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelBroken(ModelError):
    """The service failed, or its answers were of no use."""


class Usable(Value):
    """A command that may be proposed."""

    name: str
    usage: str
    summary: str


class Question(Value):
    """What somebody wrote, and what is known around it. All of it is data to the model but `commands`."""

    text: str
    author: str  # their name, as they gave it
    project: str | None = None  # the conversation's own
    projects: tuple[str, ...] = ()  # names and aliases by which a project can be called
    commands: tuple[Usable, ...]  # no other is ever proposed
    trusted: bool  # whether we know who writes


class Interpretation(Value):
    """`command` is one line that parses as one of the question's commands, or None; then `suggestions` are the nearest we know.

    `why` is the model's own short reason, for the person. `confident` is never true for somebody unknown or a text that was cut.
    """

    command: str | None
    why: str
    confident: bool
    suggestions: tuple[str, ...] = ()


class ModelUse(Value):
    """What one question used, however many calls it took."""

    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_micros: int | None  # None: the price of this model is not known


class Interpreter(Protocol):
    async def interpret(self, question: Question) -> Interpretation:
        """Which command a text means. Raises a `ModelError` when the model could not be asked; never guesses around it."""
        ...

    async def close(self) -> None:
        """Let go of connections. No error when there are none."""
        ...


class Concern(StrEnum):
    """What one pass of a model's review looks for."""

    CORRECTNESS = "correctness"
    SECURITY = "security"
    PERFORMANCE = "performance"
    STYLE_AND_TESTS = "style_and_tests"


class Excerpt(Value):
    """Some lines of the code around a change."""

    path: str
    start_line: int  # of the first line of `text`
    text: str
    why: str = ""  # `calls parse_token`, `tests it`


class Brief(Value):
    """What a model that reviews is given. All of it is data to it: nothing in here is an instruction, whoever wrote it."""

    repository: str
    number: int
    title: str
    body: str
    author: str
    trusted: bool  # whether we know who wrote the change
    diff: str  # with the line numbers of both sides, files and hunks told apart; what was left out says so
    left_out: tuple[str, ...] = ()  # files that are not in `diff`, and why: binary, generated, too large
    context: tuple[Excerpt, ...] = ()
    issue: str = ""
    checks: str = ""  # how the host's continuous integration stands
    analysers: tuple[str, ...] = ()  # what they found on the changed lines, a line each
    conventions: tuple[str, ...] = ()  # what the team told its agent to keep in mind
    paths: tuple[str, ...] = ()  # the files of the change


class Opinion(Value):
    """What one pass says. `cut_short` says why it did not see, or not tell, everything; empty when it did."""

    concern: Concern
    findings: tuple[Finding, ...] = ()
    summary: str = ""  # what the change does, in a few sentences
    cut_short: str = ""
    use: ModelUse | None = None


class Refutation(Value):
    """What became of the attempt to show that a finding is wrong."""

    refuted: bool
    why: str
    use: ModelUse | None = None


class Reviewer(Protocol):
    """A model that reviews. Its answers are of a fixed form; what is malformed is asked for again, and never guessed around."""

    @property
    def model(self) -> str:
        """Its name, as people are told it."""
        ...

    async def review(self, brief: Brief, concern: Concern, most: int) -> Opinion:
        """At most `most` findings, worst first, whose paths and lines are those of the brief's diff. Raises a `ModelError`."""
        ...

    async def refute(self, brief: Brief, finding: Finding, code: str) -> Refutation:
        """Try to show that `finding` is wrong, by the diff and the whole of the file around it (`code`, with line numbers). Raises a `ModelError`."""
        ...

    async def close(self) -> None:
        """Let go of connections. No error when there are none."""
        ...
