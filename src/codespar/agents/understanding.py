"""Plain language: what a model makes of it is one line of our own commands, and nothing else.

It is parsed, authorized and, when it changes anything, shown and confirmed like a line that somebody typed. No text raises anybody's rights.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import structlog

from codespar.domain.commands import COMMANDS, Command, parse
from codespar.domain.people import Person, may
from codespar.models.base import Interpretation, Interpreter, ModelError, Question, Usable
from codespar.store.base import Incoming

log = structlog.get_logger(__name__)
LASTS = timedelta(minutes=15)  # how long a proposal waits for its yes
NEVER = frozenset({"approve", "reject", "register", "kill"})
"""What has to be typed or pressed: a vote, an identity and the emergency brake are never guessed."""


class Understanding:
    """Asks the model about messages that are no command."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter

    async def read(self, incoming: Incoming, person: Person, aliases: Mapping[str, str]) -> Interpretation:
        """What a message means. A model that does not answer is told as such, never guessed around."""
        usable = tuple(
            Usable(name=spec.name, usage=spec.usage, summary=spec.summary)
            for spec in COMMANDS
            if spec.available
            and spec.name not in NEVER
            and (spec.permission is None or may(person.role, spec.permission))
        )
        question = Question(
            text=incoming.message.content,
            author=person.name,
            project=incoming.project or None,
            projects=tuple(sorted(aliases)),
            commands=usable,
            trusted=incoming.person is not None,
        )
        try:
            return await self._interpreter.interpret(question)
        except ModelError as error:
            log.warning("understanding.failed", error=str(error))
            return Interpretation(command=None, why=f"The model could not be asked: {error}", confident=False)


def as_command(interpretation: Interpretation, aliases: Mapping[str, str]) -> Command | None:
    """The command a model made of a message, or None where it made none that we know and let it use."""
    if interpretation.command is None:
        return None
    command = parse(interpretation.command, aliases=aliases)
    if not isinstance(command, Command) or command.name in NEVER or not command.spec.available:
        return None
    return command
