"""What a project's agent was told to keep in mind."""

from __future__ import annotations

from codespar.domain.base import Value
from codespar.domain.messages import UtcDatetime

MOST_MEMORIES = 100  # of a project
MOST_CHARACTERS = 1000  # of one


class Memory(Value):
    """A convention of the team. It is quoted to models as data, with who said it."""

    id: str  # m-abc123
    project: str
    text: str
    author: str
    at: UtcDatetime
