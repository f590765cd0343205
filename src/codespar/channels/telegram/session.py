"""aiogram's HTTP session, with the answers it stumbles over told as what they are: no answer of the Bot API.

A proxy in front of Telegram answers in its own words, in its own encoding, or in JSON without a description.
"""

from __future__ import annotations

from typing import Any

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.exceptions import ClientDecodeError
from aiogram.methods import Response, TelegramMethod
from aiogram.methods.base import TelegramType


class Session(AiohttpSession):
    """Raises nothing but aiogram's own errors. It repeats no request by itself."""

    async def close(self) -> None:
        """At once: aiogram waits for aiohttp to end its TLS connections, which aiohttp does itself by now."""
        if self._session is not None and not self._session.closed:
            await self._session.close()

    async def make_request(
        self, bot: Bot, method: TelegramMethod[TelegramType], timeout: int | None = None
    ) -> TelegramType:
        try:
            return await super().make_request(bot, method, timeout)
        except (UnicodeDecodeError, LookupError) as error:  # not the encoding it names, or none there is
            raise ClientDecodeError("an answer that cannot be read", error, "") from None

    def check_response(
        self, bot: Bot, method: TelegramMethod[TelegramType], status_code: int, content: str
    ) -> Response[TelegramType]:
        try:
            return super().check_response(bot, method, status_code, content)
        except TypeError as error:  # a failure without a description
            data: Any = f"status {status_code}"
            raise ClientDecodeError("a failure without a description", error, data) from None
