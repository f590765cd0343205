"""The Socket Mode connection: Slack's own client, watched.

The client makes a broken connection again by itself, but it can get stuck: it tries a connection address that has expired for ever. A watch
throws a client that stays down away and makes a new one, with back-off. An envelope is acknowledged after it was taken, and not before.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import structlog
from slack_sdk.errors import SlackApiError
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

log = structlog.get_logger(__name__)

Take = Callable[[dict[str, Any]], Awaitable[None]]
_PATIENCE = 3  # checks that the client's own attempts are waited for
_CONNECT_SECONDS = 20
_LONGEST_WAIT = 60


class Line:
    """One connection to Slack over which what people do comes in."""

    def __init__(self, web: AsyncWebClient, app_token: str, take: Take, ping_seconds: float) -> None:
        self._web = web
        self._app_token = app_token
        self._take = take
        self._ping_seconds = ping_seconds
        self._client: SocketModeClient | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect. Raises `SlackApiError` and `aiohttp.ClientError`."""
        self._client = await self._connected()
        self._watch = asyncio.create_task(self._watched(), name="slack socket mode")

    async def stop(self) -> None:
        if self._watch:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        if self._client:
            await self._client.close()
            self._client = None

    async def _connected(self) -> SocketModeClient:
        client = SocketModeClient(
            app_token=self._app_token,
            logger=self._web.logger,
            web_client=self._web,
            ping_interval=self._ping_seconds,
        )
        client.socket_mode_request_listeners.append(self._envelope)
        try:
            # asked for here, because the client's own `connect` tries for ever, even with a refused token
            client.wss_uri = await client.issue_new_wss_url()
            async with asyncio.timeout(_CONNECT_SECONDS):
                await client.connect()
        except BaseException:
            await client.close()
            raise
        return client

    async def _watched(self) -> None:
        down = 0
        while True:
            await asyncio.sleep(self._ping_seconds)
            client = self._client
            down = 0 if client and await client.is_connected() else down + 1
            if down == 1:
                log.warning("slack.disconnected")
            if down >= _PATIENCE:
                await self._renewed()
                down = 0

    async def _renewed(self) -> None:
        if self._client:
            await self._client.close()
            self._client = None
        wait = min(1.0, self._ping_seconds)
        while self._client is None:
            try:
                self._client = await self._connected()
            except (TimeoutError, SlackApiError, aiohttp.ClientError, OSError) as error:
                log.warning("slack.reconnecting", error=type(error).__name__, again_in_seconds=wait)
                await asyncio.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
        log.info("slack.reconnected")

    async def _envelope(self, client: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        try:
            await self._take(request.payload)
        except Exception as error:
            # not acknowledged: Slack brings it again
            log.error("slack.not_acknowledged", kind=request.type, error=repr(error))
            raise
        await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
