"""Slack's Web API as the rest of this folder uses it: clients that try once, and say nothing in the log."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from codespar.channels.base import DeliveryFailed
from codespar.channels.slack.workspaces import Workspace


class Api:
    """One HTTP session for all workspaces."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None
        self._direct: dict[str, str] = {}  # the direct conversation of a person
        # the library would write connection addresses, which are secrets, and requests
        self._quiet = logging.getLogger("codespar.channels.slack.library")
        self._quiet.setLevel(logging.CRITICAL)

    def open(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30, connect=10))

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise DeliveryFailed("Slack is not connected: the channel is not started.")
        return self._session

    def web(self, token: str | None = None) -> AsyncWebClient:
        """A client without its own retries: what is tried again, and when, is not its to decide."""
        return AsyncWebClient(
            token=token,
            base_url=f"{self._url}/",
            session=self.session,
            retry_handlers=[],
            logger=self._quiet,
        )

    async def direct_channel(self, workspace: Workspace, user: str) -> str:
        """The id of our conversation with one person."""
        known = self._direct.get(f"{workspace.team}:{user}")
        if known is None:
            answer = await self.web(workspace.token).conversations_open(users=user)
            known = self._direct[f"{workspace.team}:{user}"] = str(data(answer)["channel"]["id"])
        return known


def data(answer: Any) -> dict[str, Any]:
    return answer.data if isinstance(answer.data, dict) else {}
