"""The port to a chat platform: what a platform can show, what it hears, and how a response gets there.

An adapter turns its platform's payloads into `Heard` and `NormalizedResponse`s into `Part`s. It never decides anything, never guesses
meaning from text, and knows no project, no role and no store. What lasts (order, retries, edits, rate, restarts) is the `Postman`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field, JsonValue

from codespar.domain.base import CodesparError, Value
from codespar.domain.messages import ChannelName, NormalizedResponse, UtcDatetime
from codespar.domain.tasks import Thread


class ChannelError(CodesparError):
    """The root of what a channel can refuse.

    ChannelError
     ├─ DeliveryFailed      not now: try again later
     ├─ DeliveryRefused     never: this conversation cannot be written to
     ├─ ContentRefused      never in this form: the platform does not take this message
     ├─ MessageGone         the message to edit is not there any more
     ├─ AttachmentRefused   an attachment cannot be fetched
     └─ NotConnected        the platform refuses our credentials, or a setting is missing
    """


class DeliveryFailed(ChannelError):
    """The platform did not take a message now. `retry_after` is its own wish in seconds, or None when it has none.

    `arrived_perhaps`: the answer was lost, so that the message may be there (a time-out, a broken connection, a 5xx).
    """

    def __init__(
        self, message: str, retry_after: float | None = None, *, arrived_perhaps: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.arrived_perhaps = arrived_perhaps


class DeliveryRefused(ChannelError):
    """The platform will never take a message for this conversation: it is gone, archived, or has blocked us."""


class ContentRefused(ChannelError):
    """The platform refuses this very message. It is tried once more as plain text."""


class MessageGone(ChannelError):
    """The message to be edited was deleted, or is too old to be edited. It is sent anew."""


class AttachmentRefused(ChannelError):
    """An attachment is too large, is gone, or may not be fetched."""


class NotConnected(ChannelError):
    """The platform refuses our credentials, or a setting is missing. The text says which and how to set it."""


class Capabilities(Value):
    """What a platform can show, as data. Rendering adapts to it; agents never see it."""

    threads: bool = False
    edits: bool = False  # an earlier message can be edited in place
    deletes: bool = False  # an earlier message of ours can be taken away
    buttons: bool = False
    forms: bool = False  # a button can ask for a line of text first
    files: bool = False  # text that is too long can be sent as a file
    markdown: bool = False
    direct: bool = False  # a person can be written to without a group
    max_text: int = Field(default=4000, ge=1)  # of one message, in `text_unit`s
    text_unit: Literal["characters", "utf16", "bytes"] = "characters"
    max_buttons: int = Field(default=0, ge=0)  # of one message
    max_label: int = Field(default=0, ge=0)  # characters of a button's text
    max_command: int = Field(default=0, ge=0)  # bytes of a command behind a button
    max_upload: int = Field(default=0, ge=0)  # bytes of one file we send
    max_download: int = Field(default=20_000_000, ge=0)  # bytes of one attachment we fetch
    edit_seconds: float = Field(default=1.0, gt=0)  # between two edits of one message
    messages_per_second: float | None = Field(
        default=None, gt=0
    )  # a conversation; None: the platform says nothing
    overall_per_second: float | None = Field(default=None, gt=0)  # all conversations together
    ack_seconds: float | None = None  # within which a delivery must be acknowledged
    resend: Literal["safe", "may_double"] = (
        "may_double"  # whether a send whose answer was lost can be found again, by `find` or a nonce
    )


class File(Value):
    """A file that goes out with a message."""

    name: str
    media_type: str = "text/plain"
    content: bytes


class Part(Value):
    """One message of the platform, rendered: what `send` posts and `edit` puts in its place.

    `payload` is whatever the adapter's own `send` understands, JSON only. `text` is what it says, for logs and tests.
    """

    payload: dict[str, JsonValue]
    text: str
    files: tuple[File, ...] = ()


class Offered(Value):
    """An attachment that still lies at the platform. `ref` is what the adapter's `fetch` needs to get it."""

    name: str
    ref: str
    media_type: str = ""  # as the platform says; what it is, its content tells
    size: int | None = None  # bytes, as the platform says


class Heard(Value):
    """What a person did on a platform: wrote, pressed a button, used a slash command. Mention stripped, bots left out.

    Ids are the platform's own; where they are unique only within a workspace they carry it (`T024BE7LD:U023BECGF`).
    """

    delivery: str = Field(min_length=1, max_length=190)  # the same for every repeat of the same delivery
    channel: ChannelName
    conversation: str = Field(min_length=1, max_length=150)
    thread_id: str | None = Field(default=None, max_length=100, pattern=r"^[^/]*$")  # where the answer goes
    message_id: str = ""  # of the message itself
    sender: str = Field(min_length=1, max_length=150)
    also: tuple[str, ...] = ()  # other ids of the same person on this platform
    sender_name: str
    content: str
    direct: bool  # a direct message: no mention is needed
    addressed: bool  # a mention, a direct message, a button, a slash command, an answer to one of ours
    via: Literal["text", "button", "command", "form"] = "text"
    offered: tuple[Offered, ...] = ()
    reply_to: str | None = None  # the id of the message it answers
    public: bool = False  # anybody on the internet can write there: only people we know are listened to
    at: UtcDatetime


class Reception(Protocol):
    """Where an adapter brings what it heard."""

    async def hear(self, heard: Heard) -> bool:
        """Commit it. When this returns, it may be acknowledged to the platform, and not before. False: it was there already."""
        ...


class HttpRequest(Value):
    """A request of a platform to one of its adapter's addresses, `/channels/<name>/<path>`. `headers` have lower-case names."""

    method: str
    path: str  # behind /channels/<name>/
    query: dict[str, str] = {}
    headers: dict[str, str]
    body: bytes


class HttpAnswer(Value):
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = {}


@dataclass(frozen=True)
class ChannelTools:
    """What the composition root gives an adapter. `environment` holds the secrets that the settings name."""

    clock: Callable[[], datetime]
    environment: Mapping[str, str]
    folder: Path  # the adapter's own; what must outlive a restart may lie there, readable by this user only

    def secret(self, variable: str, what: str) -> str:
        """The value of an environment variable that must be set. Raises `NotConnected`."""
        if value := self.environment.get(variable, ""):
            return value
        raise NotConnected(f"{variable} is not set: it holds {what}. Set it in the server's environment.")


class ChannelAdapter(Protocol):
    """One platform. Made by `Adapter(settings, tools)`; every method may be called again after a failure."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    async def start(self, reception: Reception) -> None:
        """Connect, and from now on bring what is heard to `reception`. Returns once messages can be sent; raises `NotConnected`.

        A connection that breaks later is made again by the adapter itself, with back-off.
        """
        ...

    async def stop(self) -> None:
        """Disconnect. No error when it never connected."""
        ...

    def render(self, response: NormalizedResponse, *, plain: bool = False) -> tuple[Part, ...]:
        """The response as one or more messages that the platform takes, whatever is in it: split, folded or put into a file, never cut
        in silence. Pure. `plain`: as text alone, for a platform that refused the rich form."""
        ...

    async def send(self, thread: Thread, part: Part, key: str) -> str:
        """Post a message and return the platform's id of it. `key` is the same for every try of the same message.

        Raises `DeliveryFailed`, `DeliveryRefused`, `ContentRefused`.
        """
        ...

    async def edit(self, thread: Thread, external: str, part: Part) -> None:
        """Put `part` in the place of an earlier message. Raises as `send`, and `MessageGone`. No error when nothing would change."""
        ...

    async def delete(self, thread: Thread, external: str) -> None:
        """Take an earlier message of ours away. No error when it is gone. Where the platform cannot, it is edited to say so or left."""
        ...

    async def find(self, thread: Thread, key: str, since: datetime) -> str | None:
        """The id of a message sent under `key` at `since` or later whose answer was lost, or None where the platform does not have it
        (or cannot be asked: `resend` says so)."""
        ...

    async def fetch(self, ref: str, cap: int) -> bytes:
        """The content of an attachment, with our credentials, never more than `cap` bytes, only from the platform's own hosts.

        Raises `AttachmentRefused`, `DeliveryFailed`.
        """
        ...

    async def answer(self, request: HttpRequest) -> HttpAnswer:
        """A request to `/channels/<name>/…`: verified over its raw bytes before anything else, acknowledged after `hear` returned.

        Forged or stale: 401. An address it does not have: 404.
        """
        ...
