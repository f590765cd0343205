"""The port to a chat platform: what a platform can show, and how a response gets there.

An adapter turns its platform's payloads into `NormalizedMessage`s and renders `NormalizedResponse`s. It never decides anything, and it
never guesses meaning from text.
"""

from __future__ import annotations

from typing import Protocol

from pydantic import Field

from codespar.domain.base import CodesparError, Value
from codespar.domain.messages import Channel, NormalizedResponse
from codespar.domain.tasks import Thread


class ChannelError(CodesparError):
    """The root of what a channel can refuse."""


class DeliveryFailed(ChannelError):
    """The platform did not take a response. `retry_after` is its own wish in seconds, or None when it has none."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Capabilities(Value):
    """What a platform can show. Rendering adapts to it; agents never see it."""

    threads: bool = False
    edits: bool = False  # an earlier message can be edited in place
    buttons: bool = False
    files: bool = False
    markdown: bool = False
    max_text: int = Field(default=4000, ge=1)  # characters of one message
    max_buttons: int = Field(default=0, ge=0)
    messages_per_second: float | None = Field(
        default=None, gt=0
    )  # a conversation; None: the platform says nothing


class ChannelAdapter(Protocol):
    """One platform. `deliver` is at-least-once: the same key again must not show a second message."""

    @property
    def name(self) -> Channel: ...

    @property
    def capabilities(self) -> Capabilities: ...

    async def start(self) -> None:
        """Connect. Messages may come in from now on."""
        ...

    async def stop(self) -> None:
        """Disconnect. No error when it never connected."""
        ...

    async def deliver(
        self, thread: Thread, key: str, response: NormalizedResponse, replaces_external: str | None
    ) -> str:
        """Show the response in the thread and return the platform's id of the message.

        `replaces_external` is the platform's id of the message to edit in place. Raises `DeliveryFailed`.
        """
        ...
