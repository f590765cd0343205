"""Long polling in which nothing is acknowledged before it is committed.

Telegram forgets an update when the next question asks for what comes after it. So updates are handled one after another, and the offset
moves past an update only when it was handled; one that failed is asked for again. aiogram's own loop moves it before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aiogram import Bot
from aiogram.exceptions import (
    AiogramError,
    TelegramConflictError,
    TelegramRetryAfter,
    TelegramUnauthorizedError,
)
from aiogram.methods.base import TelegramMethod
from aiogram.types import TelegramObject

from codespar.channels.telegram.failures import described

log = structlog.get_logger(__name__)
FIRST, LONGEST = 0.5, 30.0  # seconds of back-off
GRACE = 15  # seconds on top of a long poll until the connection counts as broken
FAREWELL = 3  # seconds for the last acknowledgement
WANTED = ["message", "callback_query"]


class RawUpdate(TelegramObject):
    """An update as it came, whatever is in it."""

    update_id: int


class GetUpdates(TelegramMethod[list[RawUpdate]]):
    """getUpdates, its updates as they came: one that aiogram cannot read must not hide the others."""

    __returning__ = list[RawUpdate]
    __api_method__ = "getUpdates"

    offset: int | None = None
    limit: int | None = None
    timeout: int | None = None
    allowed_updates: list[str] | None = None


class Polling:
    """Asks for news until it is cancelled. `handle` raises when an update could not be handled, and gets it again."""

    def __init__(self, bot: Bot, handle: Callable[[RawUpdate], Awaitable[None]], seconds: int) -> None:
        self._bot = bot
        self._handle = handle
        self._seconds = seconds
        self._offset: int | None = None
        self._back_off = 0.0

    async def run(self) -> None:
        while True:
            try:
                updates = await self._bot(
                    GetUpdates(offset=self._offset, timeout=self._seconds, allowed_updates=WANTED),
                    request_timeout=self._seconds + GRACE,
                )
            except AiogramError as error:
                await self._wait_after(error)
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, the bot must not fall silent; a traceback may hold the token
                log.error("telegram.reconnecting", error=described(error, self._bot.token))
                await self._pause()
                continue
            if await self._handled(updates):
                self._back_off = 0.0

    async def farewell(self) -> None:
        """Acknowledge what was handled last, so that the next run does not get it again. It may fail: then it does."""
        if self._offset is None:
            return
        try:
            await self._bot(GetUpdates(offset=self._offset, limit=1, timeout=0), request_timeout=FAREWELL)
        except AiogramError as error:
            log.info("telegram.last_not_acknowledged", error=described(error, self._bot.token))

    async def _handled(self, updates: list[RawUpdate]) -> bool:
        for update in updates:
            try:
                await self._handle(update)
            except Exception as error:  # whatever it was: the update stays at Telegram and comes again
                log.error("telegram.not_heard", update=update.update_id, error=str(error), exc_info=True)
                await self._pause()
                return False
            self._offset = update.update_id + 1
        return True

    async def _wait_after(self, error: AiogramError) -> None:
        text = described(error, self._bot.token)
        match error:
            case TelegramRetryAfter():
                log.warning("telegram.reconnecting", error=text, seconds=error.retry_after)
                await asyncio.sleep(error.retry_after)
                return
            case TelegramConflictError() if "webhook" in error.message:
                log.error(
                    "telegram.webhook_is_set",
                    error=text,
                    hint="somebody has set a webhook for this bot; it is taken away, as channels.telegram.webhook is not set",
                )
                await self._without_webhook()
            case TelegramConflictError():
                log.error(
                    "telegram.conflict",
                    error=text,
                    hint="another process asks for this bot's news with the same token: stop it, or give each its own bot",
                )
            case TelegramUnauthorizedError():
                log.error("telegram.token_refused", error=text, hint="get a new token from @BotFather")
            case _:
                log.warning("telegram.reconnecting", error=text)
        await self._pause()

    async def _without_webhook(self) -> None:
        try:
            await self._bot.delete_webhook(drop_pending_updates=False)
        except AiogramError as error:
            log.warning("telegram.webhook_stays", error=described(error, self._bot.token))

    async def _pause(self) -> None:
        self._back_off = min(LONGEST, self._back_off * 2 or FIRST)
        await asyncio.sleep(self._back_off)
