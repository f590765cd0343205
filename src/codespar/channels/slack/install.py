"""Workspaces install the app by themselves: OAuth v2, at /channels/slack/install and /channels/slack/oauth_redirect.

Bolt plays the flow. The state that goes with a browser is signed and short-lived instead of stored, so that a stranger who opens the page
again and again fills no disk; bolt checks that the same browser comes back with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import secrets
import time
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

import structlog
from slack_bolt.error import BoltError
from slack_bolt.oauth.async_callback_options import AsyncCallbackOptions, AsyncFailureArgs, AsyncSuccessArgs
from slack_bolt.oauth.async_oauth_flow import AsyncOAuthFlow
from slack_bolt.oauth.async_oauth_settings import AsyncOAuthSettings
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.oauth.installation_store import Installation
from slack_sdk.oauth.installation_store.async_installation_store import AsyncInstallationStore
from slack_sdk.oauth.state_store.async_state_store import AsyncOAuthStateStore
from slack_sdk.web.async_client import AsyncWebClient

from codespar.channels.base import HttpAnswer, HttpRequest
from codespar.channels.slack.errors import told
from codespar.channels.slack.workspaces import Workspace, Workspaces

log = structlog.get_logger(__name__)

SCOPES = (
    "app_mentions:read",
    "channels:history",
    "chat:write",
    "commands",
    "files:read",
    "files:write",
    "groups:history",
    "im:history",
    "im:write",
    "mpim:history",
    "users:read",
)
STATE_SECONDS = 600


class SignedStates(AsyncOAuthStateStore):
    """States that prove themselves: time, nonce and a MAC. Each is taken once while this process lives."""

    def __init__(self, secret: str, now: Callable[[], datetime]) -> None:
        self._key = hashlib.sha256(b"slack install state\0" + secret.encode()).digest()
        self._now = now
        self._taken: dict[str, float] = {}

    async def async_issue(self, *args: Any, **kwargs: Any) -> str:
        body = f"{int(self._now().timestamp())}.{secrets.token_hex(16)}"
        return f"{body}.{self._mac(body)}"

    async def async_consume(self, state: str) -> bool:
        body, _, mac = state.rpartition(".")
        stamp = body.partition(".")[0]
        if not hmac.compare_digest(mac.encode(), self._mac(body).encode()) or not stamp.isdecimal():
            return False
        now = self._now().timestamp()
        self._taken = {known: until for known, until in self._taken.items() if until > now}
        if body in self._taken or not 0 <= now - int(stamp) <= STATE_SECONDS:
            return False
        self._taken[body] = now + STATE_SECONDS
        return True

    def _mac(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()


class _Kept(AsyncInstallationStore):
    """Where bolt brings an installation."""

    def __init__(self, workspaces: Workspaces, allowed: Collection[str]) -> None:
        self._workspaces = workspaces
        self._allowed = allowed

    async def async_save(self, installation: Installation) -> None:
        team = installation.team_id or installation.enterprise_id or ""
        if self._allowed and team not in self._allowed:
            raise BoltError("This workspace is not among the ones that this server takes.")
        if installation.bot_refresh_token:
            raise BoltError("Turn token rotation off in the app's settings: its tokens must last.")
        if not installation.bot_token or not installation.bot_user_id:
            raise BoltError("Slack gave no bot token: the app needs bot scopes.")
        name = installation.team_name or installation.enterprise_name or team
        workspace = Workspace(team, name, installation.bot_user_id, installation.bot_token)
        await asyncio.to_thread(self._workspaces.keep, workspace)
        log.info("slack.installed", team=team)


class Installer:
    """The two pages of the flow."""

    def __init__(
        self,
        *,
        client: AsyncWebClient,
        client_id: str,
        client_secret: str,
        redirect_url: str | None,
        workspaces: Workspaces,
        allowed: Collection[str],
        now: Callable[[], datetime],
    ) -> None:
        self._flow = AsyncOAuthFlow(
            client=client,
            logger=client.logger,
            settings=AsyncOAuthSettings(
                client_id=client_id,
                client_secret=client_secret,
                scopes=SCOPES,
                user_scopes=(),
                redirect_uri=redirect_url,
                installation_store=_Kept(workspaces, allowed),
                state_store=SignedStates(client_secret, now),
                state_expiration_seconds=STATE_SECONDS,
                install_page_rendering_enabled=False,
                callback_options=AsyncCallbackOptions(success=_succeeded, failure=_failed),
            ),
        )

    async def answer(self, request: HttpRequest) -> HttpAnswer:
        """A page of the flow. Raises `DeliveryFailed` when Slack cannot be asked."""
        asked = AsyncBoltRequest(body="", query=dict(request.query), headers=dict(request.headers))
        started = time.monotonic()
        with told("Installing the Slack app", arrived=False):
            if request.path == "install":
                given = await self._flow.handle_installation(asked)
            else:
                given = await self._flow.handle_callback(asked)
        log.debug(
            "slack.install_page", page=request.path, status=given.status, seconds=time.monotonic() - started
        )
        headers = {name: values[0] for name, values in given.headers.items() if values}
        kind = headers.pop("content-type", "text/html; charset=utf-8")
        return HttpAnswer(status=given.status, body=given.body.encode(), content_type=kind, headers=headers)


async def _succeeded(args: AsyncSuccessArgs) -> BoltResponse:
    name = args.installation.team_name or args.installation.enterprise_name or "your workspace"
    return _page(200, f"CodeSpar is installed in {name}. Invite it to a channel and mention it.")


async def _failed(args: AsyncFailureArgs) -> BoltResponse:
    reason = str(args.error) if isinstance(args.error, BoltError) else f"Slack says: {args.reason[:80]}."
    log.warning("slack.install_failed", reason=args.reason[:80])
    status = args.suggested_status_code if args.suggested_status_code >= 400 else 400
    return _page(status, f"CodeSpar was not installed. {reason} Start again at /channels/slack/install.")


def _page(status: int, text: str) -> BoltResponse:
    body = f'<!doctype html><meta charset="utf-8"><title>CodeSpar</title><p>{html.escape(text)}</p>'
    return BoltResponse(status=status, body=body, headers={"Content-Type": "text/html; charset=utf-8"})
