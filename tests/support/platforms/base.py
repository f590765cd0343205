"""What a test needs of a platform that is played: people who write and press, and what they see.

Each fake speaks its platform's own protocol over a socket to the adapter's real client library. It refuses what the platform's documents
would refuse, and remembers that it did: a test ends by looking at `refusals`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass
class Shown:
    """A message of ours as people see it now."""

    id: str
    conversation: str
    thread: str | None
    text: str  # what is read: markup resolved, one line a field; the same on every run
    buttons: list[str] = field(default_factory=list[str])  # labels
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    edits: int = 0


class FakePlatform(Protocol):
    """A platform with one group room, `room`, and any number of people (`ada`, `marcus`) who are in it and may write directly."""

    name: str
    room: str  # the group's conversation, as `Heard.conversation` names it
    settings: dict[str, Any]  # `channels.<name>` of codespar.yaml that lead the adapter here
    environment: dict[str, str]  # the secrets those settings name
    refusals: list[str]  # each request that was refused because the real platform would, and why

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    def identity(self, person: str) -> str:
        """The person's id, as `Heard.sender` names it."""
        ...

    async def say(self, person: str, text: str, *, direct: bool = False, thread: str | None = None) -> str:
        """A person writes: in the room with a mention of the bot in front, or directly without. Returns the message's id.

        `thread` is the id of the thread (or the message) they answer in.
        """
        ...

    async def press(self, person: str, shown: Shown, label: str, *, answer: str | None = None) -> None:
        """A person presses a button, and answers what it asks."""
        ...

    def seen(self, conversation: str | None = None) -> list[Shown]:
        """What stands in the room (or another conversation, `direct:<person>` for a direct one) now, oldest first: edits applied, deleted ones gone."""
        ...

    # faults, each for the next requests only

    def fail_next(self, times: int, *, status: int = 500, retry_after: float | None = None) -> None:
        """The next sends are answered with this status (429 with Retry-After) and have no effect."""
        ...

    def lose_next_answer(self) -> None:
        """The next send takes effect, but its answer never arrives: the connection breaks."""
        ...
