"""What GitHub sends: each delivery is checked over its raw bytes and committed before it is acknowledged.

A delivery speaks for the projects alone whose secret signed it. What is sent again, under its own id or under another, changes nothing.
Nothing is ever registered at GitHub without being asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from codespar.app.linked import Linked
from codespar.channels.base import NotConnected
from codespar.config.private import write_private
from codespar.domain.base import CodesparError
from codespar.domain.happenings import InstallationChanged, News, RepositoryChanged
from codespar.forges.base import PostedComment
from codespar.store.base import Store, Unit
from codespar.web.base import GITHUB_WEBHOOKS, ApiError

log = structlog.get_logger(__name__)
SOURCE = "github"  # of what comes from there, in the inbox
BODY = "github:body"  # of what was said there, so that a signature counts once
EVENTS = (
    "check_run",
    "deployment_status",
    "issue_comment",
    "issues",
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "push",
    "repository",
    "status",
    "workflow_run",
)
"""What a webhook that we were asked to register is told of. An App's installation has these by its own settings."""
LONGEST_NAME = 200  # characters of a delivery's in the inbox
Hear = Callable[[str, PostedComment], Awaitable[bool]]  # a comment of a repository
Answer = tuple[int, dict[str, Any]]


class Webhooks:
    """GitHub's deliveries, of every linked project. `folder` keeps the secrets of the webhooks that we registered."""

    def __init__(
        self,
        linked: Linked,
        store: Store,
        folder: Path,
        clock: Callable[[], datetime],
        environment: Mapping[str, str],
    ) -> None:
        self._linked = linked
        self._store = store
        self._folder = folder
        self._clock = clock
        self._environment = environment
        self._registering = asyncio.Lock()
        self._registered: dict[
            str, str
        ] = {}  # by project, "" where none was; read once, since we alone write them

    async def take(
        self, headers: Mapping[str, str], body: bytes, hear: Hear | None, look_soon: Callable[[str], None]
    ) -> Answer:
        """One delivery: verified, committed, acknowledged. Raises `ApiError` for what is refused, `StoreError` for what is not committed."""
        from codespar.forges.github import webhooks
        from codespar.forges.github.payloads import Malformed

        secret = await asyncio.to_thread(self._believed, headers, body, self._every_secret())
        event, delivery = headers.get("x-github-event", ""), headers.get("x-github-delivery", "")
        if not re.fullmatch(r"[\w-]{1,100}", delivery, re.ASCII) or not re.fullmatch(r"[a-z_]{1,60}", event):
            raise ApiError(
                400, "no_delivery_id", "X-GitHub-Delivery or X-GitHub-Event is missing or malformed"
            )
        if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            told = "choose the content type application/json in the webhook's settings at GitHub"
            raise ApiError(400, "malformed", "the payload comes as a form, not as JSON", told)
        now = self._clock()
        try:
            payload = await asyncio.to_thread(json.loads, body)
            heard = await asyncio.to_thread(webhooks.normalize, event, delivery, payload, now)
        except (ValueError, RecursionError, Malformed) as error:
            raise ApiError(
                400, "malformed", f"the payload of {event} cannot be read: {error}"[:500]
            ) from error
        projects = self._linked.concerned(heard.repository, heard.repository_id, heard.news)
        meant = [project for project in projects if secret in self.secrets(project)]
        if heard.repository and not projects:
            told = f"no project is linked to {heard.repository}; `codespar link {heard.repository}` links it"
            log.info("webhook.unlinked", repository=heard.repository, kind=event, delivery=delivery)
            return 202, {"accepted": False, "ignored": told}
        if projects and not meant:
            own = "a webhook that `codespar link --webhook` made has one of its own, as has a project with `webhook_secret_env`"
            raise ApiError(
                401, "bad_signature", f"the signature is not of the secret of {heard.repository}: {own}"
            )
        digest = hashlib.sha256(body).hexdigest()
        new = await self._store.write(lambda unit: _keep(unit, meant, heard.news, digest, now))
        if heard.comment is not None and hear is not None and meant:
            new = await self._hear(meant, heard.comment, hear) or new
        if any(_gives_access(one) for one in heard.news):
            for project in meant:
                look_soon(project)
        if heard.ignored:
            return 202, {"accepted": True, "new": False, "ignored": heard.ignored}
        return 202, {"accepted": True, "new": new}

    async def _hear(self, meant: list[str], comment: PostedComment, hear: Hear) -> bool:
        """Bring a comment to the front desk, if the project that its repository speaks to is one of those that were meant."""
        repository = self._linked.conversation(meant[0])
        route = await self._store.read(lambda unit: unit.route("github", repository))
        if route is not None and route.project not in meant:
            log.warning("webhook.not_its_project", repository=repository, project=route.project)
            return False
        try:
            return await hear(repository, comment)
        except NotConnected as error:  # to be sent again
            raise ApiError(503, "not_ready", str(error)) from error

    # secrets

    def _believed(self, headers: Mapping[str, str], body: bytes, known: list[str]) -> str:
        """The secret with which it was signed. Raises `ApiError`."""
        from codespar.forges.github.webhooks import BadSignature, verify

        why: BadSignature | None = None
        for secret in known:
            try:
                verify(body, headers, secret)
            except BadSignature as error:
                why = error
                if "x-hub-signature-256" not in headers:
                    break
            else:
                return secret
        raise ApiError(401, "bad_signature", str(why))

    def _every_secret(self) -> list[str]:
        known = {secret for project in self._linked.projects for secret in self.secrets(project)}
        known |= {self._common()} - {""}
        if not known:
            chosen = self._linked.settings.github
            told = (
                f"set {chosen.webhook_secret_env} in the server's environment"
                if chosen
                else "set up `github` in codespar.yaml"
            )
            raise ApiError(404, "no_such_source", "no webhook secret of GitHub is configured", told)
        return sorted(known)

    def _common(self) -> str:
        chosen = self._linked.settings.github
        return self._environment.get(chosen.webhook_secret_env, "").strip() if chosen else ""

    def secrets(self, project: str) -> set[str]:
        """What deliveries of this project's repository may be signed with: its own secret alone, where it has one."""
        settings = self._linked.projects[project]
        own: set[str] = set()
        if settings.webhook_secret_env:
            own.add(self._environment.get(settings.webhook_secret_env, "").strip())
        own.add(self._own_secret(project))
        if own - {""} or settings.webhook_secret_env:
            return own - {""}
        return {self._common()} - {""}

    def _own_secret(self, project: str) -> str:
        """The secret of the webhook that we registered for the project, or an empty text."""
        if project not in self._registered:
            try:
                self._registered[project] = self._secret_file(project).read_text().strip()
            except FileNotFoundError:
                self._registered[project] = ""
        return self._registered[project]

    def _secret_file(self, project: str) -> Path:
        return self._folder / project

    # registering

    async def register(self, project: str, url: str, forge: Any) -> str:
        """Have GitHub send a repository's webhooks to `url`, because a person asked for it. The secret is generated, and kept in a file that
        only this user may read. Returns what was done. Raises `CodesparError`."""
        if self._linked.name(project) is None:
            raise CodesparError(
                f"{project} is not at GitHub: it has no webhooks; its repository is looked at from time to time"
            )
        if urlsplit(url).path in ("", "/"):
            url = url.rstrip("/") + GITHUB_WEBHOOKS
        async with self._registering:
            if known := self._own_secret(project):
                return str(await forge.ensure_webhook(url, known, EVENTS))
            made = secrets.token_urlsafe(32)
            try:
                write_private(
                    self._secret_file(project), made + "\n"
                )  # no thread: it would write on when cancelled
                self._registered[project] = (
                    made  # before GitHub knows it: its first delivery may come at once
                )
                return str(await forge.ensure_webhook(url, made, EVENTS))
            except BaseException:  # else what another secret signs would not be believed any more
                self._registered[project] = ""
                self._secret_file(project).unlink(missing_ok=True)
                raise


def _gives_access(news: News) -> bool:
    """Whether what could not be read may be readable now."""
    what = news.what
    if isinstance(what, InstallationChanged):
        return what.action in ("created", "unsuspended", "added", "permissions")
    return isinstance(what, RepositoryChanged) and what.action in ("renamed", "transferred")


def accept_news(unit: Unit, project: str, news: News) -> bool:
    """Keep a piece of news for its turn. False when it was there."""
    name = f"{project}:{news.delivery}"
    if len(name) > LONGEST_NAME:  # what tells two of them apart may stand at the end
        name = f"{name[:120]}:{hashlib.sha256(name.encode()).hexdigest()}"
    return unit.accept(SOURCE, name, project, {"news": news.wire()}, news.at)[1]


def _keep(unit: Unit, projects: list[str], news: tuple[News, ...], digest: str, now: datetime) -> bool:
    new = False
    for project in projects:
        # The signature covers the body alone: under another id it is the same said again, by whoever saw it once.
        if news and unit.accept(BODY, f"{project}:{digest}", project, "{}", now, done=True)[1]:
            for one in news:
                new = accept_news(unit, project, one) or new
        watch = unit.watch(project)
        if watch.heard_at is None or now - watch.heard_at > timedelta(minutes=5):
            unit.save_watch(watch.evolve(heard_at=now))
    return new
