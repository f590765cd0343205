"""Taking in: what comes from outside is checked, normalized, committed, and only then acknowledged.

Messages and deliveries are what an installation gets most of, and each pays for every layer in front of it. `Edge` therefore answers the
ordinary ones itself, before the API's framework; whatever is not ordinary it hands on untouched, so that every refusal is made in one place.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from pydantic import Field, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from codespar import __version__
from codespar.domain.base import CodesparError, Value
from codespar.domain.messages import Author, Channel, NormalizedMessage
from codespar.domain.people import Person
from codespar.domain.tasks import Thread
from codespar.store.base import Outgoing, StoreError
from codespar.web.base import GITHUB_WEBHOOKS, MAX_BODY, WEBHOOKS, ApiError, House, error_body

MESSAGES = "/api/v1/messages"
READINESS = "/readyz"
Answer = tuple[int, dict[str, Any]]  # HTTP status, JSON body


class PostedMessage(Value):
    """A message as a client sends it. `id` makes a repeat recognizable; without one every post is a new message."""

    content: str = Field(min_length=1, max_length=32_000)
    project: str | None = None
    thread: str | None = Field(default=None, max_length=100, pattern=r"^[\w.:-]+$")
    id: str | None = Field(default=None, max_length=150, pattern=r"^[\w.:-]+$")
    wait: bool = True  # for the answers; else the acknowledgement comes as soon as the message is committed


def choose_project(house: House, name: str | None) -> str:
    """The project that is meant. Raises `ApiError`."""
    names = house.project_names()
    if name is None and len(names) == 1:
        return names[0]
    if name in names:
        return str(name)
    known = ", ".join(names) or "none is linked yet"
    if name is None and not names:
        raise ApiError(
            422, "project_needed", "no project is linked yet", "`codespar link <repository>` first"
        )
    if name is None:
        raise ApiError(422, "project_needed", "several projects are linked: say which", f"one of: {known}")
    raise ApiError(404, "no_such_project", f"there is no project {name}", f"one of: {known}")


async def take_message(
    house: House, clock: Callable[[], datetime], caller: Person, posted: PostedMessage
) -> Answer:
    """Commit a message and, unless it does not wait for them, return its answers. Raises `ApiError`."""
    project = choose_project(house, posted.project)
    thread = Thread(
        channel=Channel.CLI, conversation=project, thread_id=posted.thread or caller.id, person=caller.id
    )
    message = NormalizedMessage(
        id=f"{caller.id}:{posted.id or os.urandom(12).hex()}",
        channel=Channel.CLI,
        author=Author(id=caller.id, name=caller.name, role=caller.role),
        content=posted.content,
        thread_id=thread.thread_id,
        timestamp=clock(),
    )
    incoming, answers = await house.take_in(project, caller, thread, message, wait=posted.wait)
    responses = [message_view(sent) for sent in answers]
    body = {"messageId": incoming, "thread": thread.key, "project": project, "responses": responses}
    return (200 if posted.wait else 202), body


async def take_delivery(house: House, source: str, delivery: str, body: bytes) -> Answer:
    """Commit a delivery whose signature was verified. Raises `ApiError`."""
    try:
        text = body.decode()
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "malformed", "the body is not JSON") from error
    new = await house.record_delivery(source, delivery, text)
    return 202, {"accepted": True, "new": new}


def verify_delivery(source: str, body: bytes, headers: Mapping[str, str], now: datetime) -> str:
    """Check a webhook's signature over the raw bytes and return its delivery id. An unknown source or a missing secret refuses.

    The scheme is `X-Codespar-Signature: sha256=<HMAC-SHA256 of "timestamp.delivery.body">` with `X-Codespar-Timestamp` (seconds, within five
    minutes) and `X-Codespar-Delivery`, so that neither can be put on another body; the secret is read from CODESPAR_WEBHOOK_SECRET_<SOURCE>.
    """
    secret = os.environ.get(f"CODESPAR_WEBHOOK_SECRET_{source.upper().replace('-', '_')}", "")
    if not secret or not source.replace("-", "").isalnum():
        raise ApiError(
            404,
            "no_such_source",
            f"no webhook source {source[:40]} is configured",
            "set its secret in the server's environment",
        )
    timestamp, delivery = headers.get("x-codespar-timestamp", ""), headers.get("x-codespar-delivery", "")
    given = headers.get("x-codespar-signature", "").removeprefix("sha256=")
    wanted = hmac.new(secret.encode(), f"{timestamp}.{delivery}.".encode() + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(given.encode(), wanted.encode()):
        raise ApiError(401, "bad_signature", "the signature does not match the body")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp) or abs(now.timestamp() - int(timestamp)) > 300:
        raise ApiError(401, "stale", "the delivery is older than five minutes or from the future")
    if not delivery or len(delivery) > 190:
        raise ApiError(400, "no_delivery_id", "X-Codespar-Delivery is missing or too long")
    return delivery


def message_view(sent: Outgoing) -> dict[str, Any]:
    body = sent.wire()
    return body | {"replaces": sent.response.replaces}


def readiness(house: House) -> Answer:
    """Whether work is taken in."""
    why = house.ready()
    if why is not None:
        return 503, {"status": "starting", "why": why}
    return 200, {"status": "ready", "version": __version__, "pid": os.getpid()}


class Edge:
    """ASGI before the API: the ordinary message, the ordinary delivery and the question for readiness, with nothing in between."""

    def __init__(self, app: ASGIApp, house: House, clock: Callable[[], datetime]) -> None:
        self._app = app
        self._house = house
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == READINESS:
            await _send(send, *readiness(self._house))
            return
        if scope["type"] != "http" or scope["method"] != "POST" or not _is_ours(scope["path"]):
            await self._app(scope, receive, send)
            return
        parts: list[Message] = []
        size, more = 0, True
        while more and size <= MAX_BODY:
            part = await receive()
            parts.append(part)
            size += len(part.get("body", b""))
            more = part.get("more_body", False)
        work = (
            None
            if more or size > MAX_BODY
            else self._ordinary(scope, b"".join(p.get("body", b"") for p in parts))
        )
        if work is None:
            await self._app(scope, _again(parts, receive), send)
            return
        try:
            status, body = await work
        except ApiError as error:
            status, body = error.status, error_body(error.code, str(error), error.next_step)
        except StoreError as error:
            status, body = 503, error_body("not_kept", str(error), "send it again")
        except CodesparError as error:
            status, body = 409, error_body("refused", str(error))
        await _send(send, status, body)

    def _ordinary(self, scope: Scope, body: bytes) -> Awaitable[Answer] | None:
        """What is to be done for the request, or None when something about it is to be refused. Nothing has happened yet."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path: str = scope["path"]
        try:
            if path == MESSAGES:
                scheme, _, token = headers.get("authorization", "").partition(" ")
                caller = self._house.person_of(token.strip()) if scheme.lower() == "bearer" else None
                if caller is None or not headers.get("content-type", "").startswith("application/json"):
                    return None
                posted = PostedMessage.model_validate_json(body)
                choose_project(self._house, posted.project)
                return take_message(self._house, self._clock, caller, posted)
            source = path.removeprefix(WEBHOOKS)
            return take_delivery(
                self._house, source, verify_delivery(source, body, headers, self._clock()), body
            )
        except (ApiError, ValidationError):
            return None


def _is_ours(path: str) -> bool:
    return path == MESSAGES or (path.startswith(WEBHOOKS) and path != GITHUB_WEBHOOKS and "\0" not in path)


def _again(parts: list[Message], receive: Receive) -> Receive:
    """What was read already, and then the rest."""
    waiting = list(reversed(parts))

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


async def _send(send: Send, status: int, body: dict[str, Any]) -> None:
    content = json.dumps(body, separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
