"""The port to a language model that reads what people write and says which of our commands they mean.

What it gives is text: one line of the command grammar, to be parsed, authorized and confirmed like a line that somebody typed. It grants
nothing, and nothing it says is done because it said so.
"""

from __future__ import annotations

from typing import Protocol

from codespar.domain.base import CodesparError, Value


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
