"""What people say and what agents answer, free of any platform.

Adapters turn their platform's payloads into `NormalizedMessage` and render `NormalizedResponse`; nothing
else ever sees a channel. A response is structured, and its meaning never has to be guessed from text.
"""

from __future__ import annotations

from datetime import UTC
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, Field, JsonValue

from codespar.domain.base import Value
from codespar.domain.people import Role


class Channel(StrEnum):
    """The channels that come with the product. Others have names of their own."""

    WHATSAPP = "whatsapp"
    SLACK = "slack"
    TELEGRAM = "telegram"
    DISCORD = "discord"
    CLI = "cli"
    WEB = "web"


ChannelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,15}$")]


def _utc(value: AwareDatetime) -> AwareDatetime:
    return value.astimezone(UTC)


UtcDatetime = Annotated[AwareDatetime, AfterValidator(_utc)]


class Author(Value):
    id: str  # the platform's own id of the person
    name: str
    role: Role = Role.READ_ONLY  # as resolved by us, never as claimed by the platform


class Attachment(Value):
    name: str
    media_type: str
    size: int = Field(ge=0)  # bytes
    sha256: str  # of the content, which is kept by that name


class NormalizedMessage(Value):
    """One message of one person, mention stripped."""

    id: str  # the platform's delivery id: what makes a repeat recognizable
    channel: ChannelName
    author: Author
    content: str
    attachments: tuple[Attachment, ...] = ()
    thread_id: str | None = None
    reply_to: str | None = None
    timestamp: UtcDatetime
    metadata: dict[str, JsonValue] = {}


class Tone(StrEnum):
    INFO = "info"
    PROGRESS = "progress"
    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


class FieldLine(Value):
    """A named fact: `Agent: task-abc123`."""

    name: str
    value: str


class Block(Value):
    """Preformatted text; `language` is a Markdown fence's word (`diff`, `python`, or empty)."""

    language: str = ""
    text: str
    title: str = ""


class Link(Value):
    label: str
    url: str


class Progress(Value):
    """How far work is: a word for the phase, and what it has used."""

    phase: str
    elapsed_seconds: float = 0
    turns: int = 0
    tokens: int = 0
    cost_micros: int = 0  # millionths of a US dollar


class Action(Value):
    """A button: pressing it is the same as sending `command`, or, where it `asks` something, the command and the answer behind it."""

    label: str
    command: str
    style: str = "default"  # default | primary | danger
    asks: str = (
        ""  # what a platform with forms asks first ("Why?"); without forms the command is sent as it is
    )


class NormalizedResponse(Value):
    """One answer, structured. `replaces` names the key of an earlier response that this one edits in place."""

    title: str
    tone: Tone = Tone.INFO
    text: str = ""
    fields: tuple[FieldLine, ...] = ()
    blocks: tuple[Block, ...] = ()
    links: tuple[Link, ...] = ()
    progress: Progress | None = None
    actions: tuple[Action, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    thread: str | None = None
    replaces: str | None = None
    agent: str | None = None  # who speaks

    def plain(self) -> str:
        """The response as plain text: the fallback of every channel, and what the logs show."""
        lines = [self.title]
        if self.text:
            lines.append(self.text)
        lines += [f"{line.name}: {line.value}" if line.name else line.value for line in self.fields]
        if self.progress:
            lines.append(self.progress.phase)
        for block in self.blocks:
            lines += [block.title] if block.title else []
            lines.append(block.text)
        lines += [f"{link.label}: {link.url}" for link in self.links]
        if self.actions:
            lines.append("Reply: " + " · ".join(f"`{action.command}`" for action in self.actions))
        return "\n".join(lines)


def response_schema() -> dict[str, Any]:
    """The JSON Schema of a response on the wire."""
    return NormalizedResponse.model_json_schema(by_alias=True)
