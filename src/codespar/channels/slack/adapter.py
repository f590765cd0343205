"""Slack as a channel: over Socket Mode or over HTTP, in one workspace or in many.

Nothing is acknowledged before it was heard, nothing is believed before its signature was checked, and a token leaves this process only for
Slack's own hosts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from codespar.channels.base import (
    Capabilities,
    ChannelTools,
    ContentRefused,
    DeliveryFailed,
    DeliveryRefused,
    HttpAnswer,
    HttpRequest,
    MessageGone,
    NotConnected,
    Part,
    Reception,
)
from codespar.channels.slack import limits
from codespar.channels.slack.api import Api, data
from codespar.channels.slack.errors import code_of, not_connected, told
from codespar.channels.slack.files import Files
from codespar.channels.slack.incoming import Incoming
from codespar.channels.slack.line import Line
from codespar.channels.slack.render import render
from codespar.channels.slack.settings import SlackSettings
from codespar.channels.slack.signed import is_signed, parsed
from codespar.channels.slack.workspaces import Workspace, Workspaces
from codespar.domain.messages import NormalizedResponse
from codespar.domain.tasks import Thread

if TYPE_CHECKING:
    from codespar.channels.slack.install import Installer

log = structlog.get_logger(__name__)

_SKEW = timedelta(minutes=1)  # between Slack's clock and ours
_PAGES = 10  # of 200 messages, in which a lost one is looked for
_CANNOT_LOOK = {"missing_scope", "not_in_channel", "channel_not_found", "thread_not_found"}
_CHANNEL = re.compile(r"[A-Z][A-Z0-9]{1,40}", re.ASCII)


@dataclass(frozen=True)
class _Place:
    """Where a message goes, and with whose token."""

    client: AsyncWebClient
    workspace: Workspace
    channel: str
    thread: str | None


class SlackChannel:
    """The adapter. Raises `NotConnected` when a secret is missing."""

    def __init__(self, settings: SlackSettings, tools: ChannelTools) -> None:
        self._settings = settings
        self._tools = tools
        held = tools.environment
        self._app_token = held.get(settings.app_token_env, "").strip()
        self._client_id = held.get(settings.client_id_env, "").strip()
        self._client_secret = held.get(settings.client_secret_env, "").strip()
        self._bot_token = held.get(settings.bot_token_env, "").strip()
        if not (self._client_id and self._client_secret):
            self._bot_token = tools.secret(settings.bot_token_env, "the token of the Slack bot (xoxb-…)")
        self._signing_secret = held.get(settings.signing_secret_env, "").strip()
        if not self._app_token and not self._signing_secret:
            raise NotConnected(
                f"Slack has no way in: set {settings.app_token_env} (an app-level token, for Socket Mode) or "
                f"{settings.signing_secret_env} (the signing secret, for requests to /channels/slack/events)."
            )
        self._workspaces = Workspaces(tools.folder)
        self._api = Api(settings.api_url)
        self._files = Files(settings.api_url)
        self._incoming = Incoming(
            self._api,
            self._workspaces,
            allowed=settings.workspaces,
            command=settings.command,
            now=tools.clock,
        )
        self._line: Line | None = None
        self._installer: Installer | None = None

    @property
    def name(self) -> str:
        return "slack"

    @property
    def capabilities(self) -> Capabilities:
        return limits.CAPABILITIES

    async def start(self, reception: Reception) -> None:
        await self.stop()
        self._incoming.reception = reception
        self._api.open()
        try:
            await asyncio.to_thread(self._workspaces.load)
            if self._bot_token:
                self._workspaces.add(await self._own())
            if self._app_token:
                await self._connect()
        except BaseException:
            await self.stop()
            raise
        log.info("slack.connected", socket_mode=bool(self._app_token))

    async def stop(self) -> None:
        if self._line:
            await self._line.stop()
            self._line = None
        self._installer = None
        await self._api.close()

    def render(self, response: NormalizedResponse, *, plain: bool = False) -> tuple[Part, ...]:
        return render(response, plain=plain)

    async def send(self, thread: Thread, part: Part, key: str) -> str:
        place = await self._place(thread)
        what = f"A message to {thread.conversation}"
        ids: list[str] = []
        with told(what, arrived=False):  # an upload is seen by nobody before it is shared
            for file in part.files:
                ids.append(await self._files.upload(self._api.session, place.client, file))
        with told(what):
            answer = await place.client.api_call(
                "chat.postMessage",
                json={
                    "channel": place.channel,
                    "unfurl_links": False,
                    "unfurl_media": False,
                    "metadata": {"event_type": "codespar", "event_payload": {"key": key, "files": ids}},
                    **({"thread_ts": place.thread} if place.thread else {}),
                    **part.payload,
                },
            )
        ts = str(answer["ts"])
        if ids:
            await self._share(place, ts, ids)
        return ts

    async def edit(self, thread: Thread, external: str, part: Part) -> None:
        place = await self._place(thread)
        what = f"The message {external} of {thread.conversation}"
        changes: dict[str, Any] = {"blocks": [], **part.payload, "parse": "none", "link_names": False}
        changes.pop("mrkdwn", None)  # only a new message knows it
        if part.files:
            with told(what, arrived=False):
                before = await self._metadata_of(place, external)
                digest = _digest(part)
                if before.get("digest") != digest:
                    ids = [
                        await self._files.upload(self._api.session, place.client, file) for file in part.files
                    ]
                    await self._files.share(place.client, ids, place.channel, place.thread)
                payload = before | {"digest": digest}  # the same files are not shown again
                changes["metadata"] = {"event_type": "codespar", "event_payload": payload}
        with told(what):
            await place.client.api_call(
                "chat.update", json={"channel": place.channel, "ts": external, **changes}
            )

    async def delete(self, thread: Thread, external: str) -> None:
        place = await self._place(thread)
        with contextlib.suppress(MessageGone), told(f"The message {external} of {thread.conversation}"):
            await place.client.chat_delete(channel=place.channel, ts=external)

    async def find(self, thread: Thread, key: str, since: datetime) -> str | None:
        place = await self._place(thread)
        try:
            with told(f"Looking for a message in {thread.conversation}", arrived=False):
                found, shared = await self._look(place, key, since - _SKEW)
        except DeliveryRefused as error:
            if isinstance(error.__cause__, SlackApiError) and code_of(error.__cause__) in _CANNOT_LOOK:
                log.warning("slack.cannot_look", conversation=thread.conversation, error=str(error))
                return None
            raise
        if found is None:
            return None
        missing = [
            file for file in found["metadata"]["event_payload"].get("files") or () if file not in shared
        ]
        if missing:
            try:
                await self._share(place, str(found["ts"]), missing)
            except (DeliveryRefused, ContentRefused) as error:
                log.warning("slack.files_lost", error=str(error))
                return None
        return str(found["ts"])

    async def fetch(self, ref: str, cap: int) -> bytes:
        team, _, address = ref.partition(" ")
        workspace = self._workspaces.get(team)
        if workspace is None:
            raise DeliveryRefused(
                f"The app is not installed in the workspace {team} any more: install it again."
            )
        return await self._files.fetch(
            self._api.session, self._api.web(workspace.token), workspace.token, address, cap
        )

    async def answer(self, request: HttpRequest) -> HttpAnswer:
        if request.path in ("install", "oauth_redirect") and self._client_id and self._client_secret:
            return await self._install(request)
        if request.path != "events" or self._app_token:
            return HttpAnswer(status=404)
        if request.method != "POST":
            return HttpAnswer(status=405, headers={"allow": "POST"})
        if len(request.body) > limits.BODY:
            return HttpAnswer(status=413)
        if not is_signed(request, self._signing_secret, self._tools.clock()):
            log.warning("slack.forged_request")
            return HttpAnswer(status=401)
        body = parsed(request)
        if body is None:
            return HttpAnswer(status=400)
        if body.get("type") == "url_verification":
            return _json({"challenge": body.get("challenge")})
        try:
            await self._incoming.take(body)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is not committed: Slack brings it again
            log.error("slack.not_acknowledged", kind=body.get("type") or "command", error=repr(error))
            return HttpAnswer(status=503)
        return HttpAnswer()

    # what goes out

    async def _place(self, thread: Thread) -> _Place:
        team, colon, channel = thread.conversation.partition(":")
        if not colon:
            team, channel = "", thread.conversation
        workspace = self._workspaces.get(team) if team else self._workspaces.only()
        if workspace is None:
            raise DeliveryRefused(
                f"The app is not installed in the workspace of {thread.conversation}. Install it there, or name the "
                "conversation as <workspace>:<channel>, such as T024BE7LD:C024BE91L."
            )
        if not _CHANNEL.fullmatch(channel):
            raise DeliveryRefused(
                f"{thread.conversation} is no conversation of Slack: use the channel's id, C…."
            )
        if channel[0] in "UW":
            with told(f"The direct conversation with {thread.conversation}", arrived=False):
                channel = await self._api.direct_channel(workspace, channel)
        return _Place(self._api.web(workspace.token), workspace, channel, thread.thread_id)

    async def _look(self, place: _Place, key: str, since: datetime) -> tuple[dict[str, Any] | None, set[str]]:
        """The message sent under a key, and the files that stand beside it."""
        found: dict[str, Any] | None = None
        shared: set[str] = set()
        where: dict[str, Any] = {"channel": place.channel, "oldest": f"{since.timestamp():.6f}", "limit": 200}
        for _ in range(_PAGES):
            if place.thread:
                asked = place.client.conversations_replies(
                    ts=place.thread, include_all_metadata=True, **where
                )
            else:
                asked = place.client.conversations_history(include_all_metadata=True, **where)
            answer = data(await asked)
            for message in answer.get("messages") or ():
                shared |= {str(file.get("id")) for file in message.get("files") or ()}
                if message.get("user") == place.workspace.bot_user and _key_of(message) == key:
                    found = message
            cursor = (answer.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                break
            where["cursor"] = cursor
        return found, shared

    async def _share(self, place: _Place, ts: str, files: list[str]) -> None:
        """Show the files of a message. Where they never will be, the message is taken away too: it is sent anew, in another form."""
        try:
            with told(f"The files of the message {ts}"):
                await self._files.share(place.client, files, place.channel, place.thread)
        except (DeliveryRefused, ContentRefused):
            with contextlib.suppress(MessageGone), told(f"The message {ts}"):
                await place.client.chat_delete(channel=place.channel, ts=ts)
            raise

    async def _metadata_of(self, place: _Place, ts: str) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "channel": place.channel,
            "latest": ts,
            "oldest": ts,
            "inclusive": True,
            "include_all_metadata": True,
            "limit": 10,  # a thread's first message comes with every answer
        }
        if place.thread:
            answer = await place.client.conversations_replies(ts=place.thread, **asked)
        else:
            answer = await place.client.conversations_history(**asked)
        for message in data(answer).get("messages") or ():
            if message.get("ts") == ts:
                return dict((message.get("metadata") or {}).get("event_payload") or {})
        return {}

    # connections

    async def _own(self) -> Workspace:
        """The workspace of the bot's token."""
        variable = self._settings.bot_token_env
        with told("Signing in to Slack", arrived=False):
            try:
                answer = data(await self._api.web(self._bot_token).auth_test())
            except SlackApiError as error:
                raise not_connected(error, variable) or error from error
        team = str(answer.get("team_id") or answer.get("enterprise_id") or "")
        return Workspace(
            team, str(answer.get("team") or team), str(answer.get("user_id") or ""), self._bot_token
        )

    async def _connect(self) -> None:
        self._line = Line(self._api.web(), self._app_token, self._incoming.take, self._settings.ping_seconds)
        with told("Opening Slack's Socket Mode", arrived=False):
            try:
                await self._line.start()
            except SlackApiError as error:
                raise not_connected(error, self._settings.app_token_env) or error from error

    async def _install(self, request: HttpRequest) -> HttpAnswer:
        from codespar.channels.slack.install import (
            Installer,
        )  # bolt: only where workspaces install by themselves

        if request.method != "GET":
            return HttpAnswer(status=405, headers={"allow": "GET"})
        if self._installer is None:
            self._installer = Installer(
                client=self._api.web(),
                client_id=self._client_id,
                client_secret=self._client_secret,
                redirect_url=self._settings.redirect_url,
                workspaces=self._workspaces,
                allowed=self._settings.workspaces,
                now=self._tools.clock,
            )
        try:
            return await self._installer.answer(request)
        except DeliveryFailed as error:
            log.warning("slack.install_failed", error=str(error))
            return HttpAnswer(
                status=502, body=b"Slack cannot be asked now: try again.", content_type="text/plain"
            )


def _key_of(message: Mapping[str, Any]) -> str | None:
    metadata = message.get("metadata") or {}
    return (
        (metadata.get("event_payload") or {}).get("key") if metadata.get("event_type") == "codespar" else None
    )


def _digest(part: Part) -> str:
    digest = hashlib.sha256()
    for file in part.files:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.content).digest())
    return digest.hexdigest()


def _json(value: Mapping[str, Any]) -> HttpAnswer:
    return HttpAnswer(body=json.dumps(value).encode())
