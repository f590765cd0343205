"""What the web needs of the rest: the port that the composition root plugs in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from codespar.channels.base import HttpAnswer, HttpRequest
from codespar.codeindex.base import CodeIndex
from codespar.domain.base import CodesparError
from codespar.domain.messages import NormalizedMessage
from codespar.domain.people import Person
from codespar.domain.policy import Policy
from codespar.domain.tasks import Thread
from codespar.forges.base import Forge
from codespar.store.base import Outgoing, Project, Store
from codespar.web.bus import Bus

MAX_BODY = 256 * 1024  # bytes of a request
MAX_WEBHOOK_BODY = 25 * 1024**2  # bytes of a code host's: GitHub sends no more
MAX_CHANNEL_BODY = 3 * 1024**2  # bytes of a chat platform's: WhatsApp sends up to 3 MB
WEBHOOKS = "/webhooks/"
GITHUB_WEBHOOKS = f"{WEBHOOKS}github"  # with a signature and a size of their own


class ApiError(CodesparError):
    """A request that is refused: an HTTP status, a code for programs, and what to do for people."""

    def __init__(self, status: int, code: str, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.next_step = next_step


def error_body(code: str, message: str, next_step: str = "") -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "next": next_step}}


class NoSuchProject(CodesparError):
    """The request names a project that is not linked, or that its person may not see."""


class House(Protocol):
    """The running platform, as the web sees it."""

    @property
    def store(self) -> Store: ...

    @property
    def bus(self) -> Bus: ...

    def person_of(self, token: str) -> Person | None:
        """Whose bearer token this is."""
        ...

    def policy(self) -> Policy:
        """The organization's policies."""
        ...

    def ready(self) -> str | None:
        """None when work is taken in, else why not."""
        ...

    def project_names(self) -> list[str]:
        """The linked projects, in alphabetical order."""
        ...

    def forge(self, project: str) -> Forge: ...

    def index(self, project: str) -> CodeIndex: ...

    async def link(self, name: str, repository: str, by: Person) -> Project:
        """Link a repository as a project. Again with the same repository: nothing changes."""
        ...

    async def take_in(
        self,
        project: str,
        person: Person,
        thread: Thread,
        message: NormalizedMessage,
        *,
        wait: bool = True,
    ) -> tuple[int, Sequence[Outgoing]]:
        """Commit a message, run its turn, and return (inbox id, answers). Without `wait`, the turn runs later and there are no answers."""
        ...

    async def webhook(self, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        """A delivery of GitHub's, with lower-case header names: verified over its raw bytes, committed, answered. Raises `ApiError`."""
        ...

    async def register_webhook(self, project: str, url: str) -> str:
        """Have the project's code host send its webhooks to `url`. Returns what was done. Raises `CodesparError`."""
        ...

    def how_watched(self, project: str) -> str:
        """How news of the project's code host reach us, for people."""
        ...

    async def record_delivery(self, source: str, delivery: str, body: str) -> bool:
        """Commit a verified delivery, JSON as it came. False when it was there already."""
        ...

    async def channel_request(self, channel: str, request: HttpRequest) -> HttpAnswer:
        """A chat platform's request to one of its adapter's addresses: verified, committed, answered."""
        ...

    def channel_states(self) -> dict[str, str]:
        """The chat platforms that are set up: `connected`, `starting`, or why not."""
        ...

    def metrics(self) -> bytes: ...
