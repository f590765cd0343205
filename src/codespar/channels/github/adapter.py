"""Pull requests and issues of a code host as a channel: `@codespar …` in a comment is a message, and the answer is a comment.

Anybody on the internet may be able to write there, so only people we know are listened to. What is said is Markdown in which nothing that
people wrote can mention, link or hide anything. It never sees a webhook: what somebody wrote is handed to `take`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime

import structlog

from codespar.channels.base import (
    AttachmentRefused,
    Capabilities,
    ContentRefused,
    DeliveryFailed,
    DeliveryRefused,
    Heard,
    HttpAnswer,
    HttpRequest,
    MessageGone,
    NotConnected,
    Part,
    Reception,
)
from codespar.channels.github.render import MOST, comments
from codespar.channels.github.said import addressed, here
from codespar.domain.base import CodesparError
from codespar.domain.messages import NormalizedResponse
from codespar.domain.tasks import Thread
from codespar.forges.base import (
    AccessLost,
    Forge,
    ForgeError,
    ForgeUnavailable,
    Gone,
    PostedComment,
    PullRequestNotFound,
)

log = structlog.get_logger(__name__)
PATIENCE = 5.0  # seconds for which a comment waits for the start; GitHub gives a delivery ten
_NUMBER = re.compile(r"[0-9]{1,18}")


class GithubChannel:
    """The channel `github`. A conversation is a repository (`owner/name`), a thread the number of a pull request or issue."""

    def __init__(self, forge: Callable[[str], Forge], *, patience: float = PATIENCE) -> None:
        """`forge` gives a repository's; it raises `CodesparError` where no project is linked to it. `patience` is in seconds."""
        self._forge = forge
        self._patience = patience
        self._reception: Reception | None = None
        self._started = asyncio.Event()

    @property
    def name(self) -> str:
        return "github"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            threads=True,
            edits=True,
            deletes=True,
            markdown=True,
            max_text=MOST,
            edit_seconds=5.0,
            messages_per_second=1.0,
            overall_per_second=1.0,  # GitHub asks for a second between what makes content
            ack_seconds=10.0,
            resend="safe",
        )

    async def start(self, reception: Reception) -> None:
        self._reception = reception
        self._started.set()

    async def stop(self) -> None:
        self._started.clear()
        self._reception = None

    async def take(self, repository: str, comment: PostedComment) -> bool:
        """Bring a comment in if it speaks to us. False when it does not, or was there already.

        What was edited is not listened to: at GitHub, whoever may write to a repository can change the words of everybody else. Nor is
        what has no account behind it: a name can be had by another tomorrow. Raises `NotConnected` while nobody is there to hear it, so
        that it is brought again.
        """
        if comment.bot or not (messages := addressed(comment.body)):
            return False
        if comment.edited or not comment.author_id:
            why = "it was edited" if comment.edited else "it has no account"
            log.info("comment.not_heard", repository=repository, comment=comment.id, why=why)
            return False
        try:
            conversation = self._forge(
                repository
            ).repository_name  # a host's spelling may be another than ours
        except CodesparError:
            return False
        reception = await self._reached()
        new = False
        for place, said in enumerate(messages):
            heard = Heard(
                delivery=_delivery(conversation, comment.id, place),
                channel=self.name,
                conversation=conversation,
                thread_id=str(comment.number),
                message_id=comment.id,
                sender=comment.author_id,
                sender_name=comment.author or comment.author_id,
                content=here(said, comment.number),
                direct=False,
                addressed=True,
                public=True,
                at=comment.at,
            )
            new = await reception.hear(heard) or new
        return new

    async def _reached(self) -> Reception:
        try:
            async with asyncio.timeout(self._patience):
                await self._started.wait()
        except TimeoutError as error:
            raise NotConnected(
                "the channel github is not started; the comment is to be brought again"
            ) from error
        assert self._reception is not None, "it is there from the start to the stop"
        return self._reception

    def render(self, response: NormalizedResponse, *, plain: bool = False) -> tuple[Part, ...]:
        return tuple(Part(payload={"body": body}, text=body) for body in comments(response, plain=plain))

    async def send(self, thread: Thread, part: Part, key: str) -> str:
        forge, number = self._place(thread)
        try:
            return await forge.comment(number, str(part.payload["body"]), key)
        except ForgeError as error:
            raise _told(error) from error

    async def edit(self, thread: Thread, external: str, part: Part) -> None:
        forge, _ = self._place(thread)
        try:
            await forge.edit_comment(external, str(part.payload["body"]))
        except Gone as error:
            raise MessageGone(str(error)) from error
        except ForgeError as error:
            raise _told(error) from error

    async def delete(self, thread: Thread, external: str) -> None:
        forge, _ = self._place(thread)
        try:
            await forge.delete_comment(external)
        except ForgeError as error:
            raise _told(error) from error

    async def find(self, thread: Thread, key: str, since: datetime) -> str | None:
        forge, number = self._place(thread)
        try:
            return await forge.find_comment(number, key, since)
        except ForgeError as error:
            raise _told(error) from error

    async def fetch(self, ref: str, cap: int) -> bytes:
        raise AttachmentRefused(
            "comments of a code host carry no attachments that are fetched; quote what matters"
        )

    async def answer(self, request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(status=404)

    def _place(self, thread: Thread) -> tuple[Forge, int]:
        if not _NUMBER.fullmatch(thread.thread_id or ""):
            raise DeliveryRefused(f"{thread.conversation} is told nothing outside a pull request or issue")
        try:
            return self._forge(thread.conversation), int(thread.thread_id or "0")
        except CodesparError as error:
            raise DeliveryRefused(str(error)) from error


def _delivery(repository: str, comment: str, place: int) -> str:
    """The same for every way in which the same message reaches us; GitHub's names do not differ by case."""
    name = f"{repository.lower()}:comment:{comment}"
    return name if not place else f"{name}:{place + 1}"


def _told(error: ForgeError) -> DeliveryFailed | DeliveryRefused | ContentRefused:
    if isinstance(error, ForgeUnavailable):
        return DeliveryFailed(str(error), error.retry_after, arrived_perhaps=True)
    if isinstance(error, AccessLost):
        return DeliveryFailed(str(error), 300.0)
    if isinstance(error, Gone | PullRequestNotFound):
        return DeliveryRefused(str(error))
    return ContentRefused(str(error))
