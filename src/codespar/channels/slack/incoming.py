"""What people do at Slack, brought to the reception: one payload after the other, whichever way it came.

`take` returns when a payload may be acknowledged, and raises when it may not.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

import aiohttp
import structlog
from slack_sdk.errors import SlackApiError

from codespar.channels.base import DeliveryFailed, Heard, Reception
from codespar.channels.slack import normalize
from codespar.channels.slack.api import Api, data
from codespar.channels.slack.errors import told
from codespar.channels.slack.render import form
from codespar.channels.slack.workspaces import Workspace, Workspaces

log = structlog.get_logger(__name__)

_NAME_SECONDS = 1.0  # waiting for a person's name is worth no more than that
_NAMES = 5000


class Incoming:
    """`allowed`: the workspaces that are listened to; empty: all that are installed."""

    def __init__(
        self,
        api: Api,
        workspaces: Workspaces,
        *,
        allowed: Collection[str],
        command: str,
        now: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._workspaces = workspaces
        self._allowed = allowed
        self._command = command
        self._now = now
        self.reception: Reception | None = None
        self._names: OrderedDict[str, str] = OrderedDict()
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def take(self, body: dict[str, Any]) -> None:
        """One payload: an event, a button, a form or a slash command."""
        team = normalize.team_of(body)
        workspace = self._workspaces.get(team)
        if workspace is None or (self._allowed and team not in self._allowed):
            log.warning("slack.unknown_workspace", team=team[:40])
            return
        kind = body.get("type")
        if kind == "event_callback":
            event = body.get("event") or {}
            if event.get("type") in ("app_uninstalled", "tokens_revoked"):
                await self._forget(workspace, event)
            else:
                await self._hear(workspace, normalize.message(body, workspace.us))
        elif kind == "block_actions":
            pressed = normalize.press(body, workspace.us)
            if isinstance(pressed, normalize.Question):
                with told("A form", arrived=False):
                    web = self._api.web(workspace.token)
                    await web.views_open(trigger_id=pressed.trigger, view=form(pressed))
            else:
                await self._hear(workspace, pressed)
        elif kind == "view_submission":
            await self._hear(workspace, normalize.form(body, workspace.us, self._now()))
        elif body.get("command") == self._command:
            heard = normalize.command(body, workspace.us, self._now())
            await self._hear(workspace, await self._answerable(workspace, heard) if heard else None)

    async def _hear(self, workspace: Workspace, heard: Heard | None) -> None:
        if heard is None:
            return
        if self.reception is None:
            raise DeliveryFailed("Slack brought a message before the server was ready for it.")
        turn = self._turns.setdefault(heard.conversation, asyncio.Lock())
        async with turn:  # what is said in one conversation keeps its order
            if heard.via == "text":
                heard = heard.evolve(sender_name=await self._name(workspace, heard))
            await self.reception.hear(heard)

    async def _name(self, workspace: Workspace, heard: Heard) -> str:
        if known := self._names.get(heard.sender):
            self._names.move_to_end(heard.sender)
            return known
        user = heard.sender.partition(":")[2]
        try:
            async with asyncio.timeout(_NAME_SECONDS):
                answer = await self._api.web(workspace.token).users_info(user=user)
        except (TimeoutError, SlackApiError, aiohttp.ClientError, OSError) as error:
            log.info("slack.name_unknown", error=type(error).__name__)
            return heard.sender_name
        name = normalize.display_name(normalize.profile_name(data(answer)), user)
        self._names[heard.sender] = name
        if len(self._names) > _NAMES:
            self._names.popitem(last=False)
        return name

    async def _answerable(self, workspace: Workspace, heard: Heard) -> Heard:
        """A slash command works between two other people too, where we cannot write: it is answered in our conversation with them."""
        if not heard.direct:
            return heard
        user = (heard.also[0] if heard.also else heard.sender).partition(":")[2]
        with told("A direct conversation", arrived=False):
            channel = await self._api.direct_channel(workspace, user)
        return heard.evolve(conversation=f"{workspace.team}:{channel}")

    async def _forget(self, workspace: Workspace, event: Mapping[str, Any]) -> None:
        bots = (event.get("tokens") or {}).get("bot") or []
        if event.get("type") == "tokens_revoked" and workspace.bot_user not in bots:
            return  # a person's token, of which we have none
        await asyncio.to_thread(self._workspaces.forget, workspace.team)
        log.warning("slack.uninstalled", team=workspace.team)
