"""What Discord's answers to our requests mean: every error of the library as one of the port's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import discord

from codespar.channels.base import ContentRefused, DeliveryFailed, DeliveryRefused, MessageGone
from codespar.channels.discord.client import Refused

_SECONDS = 60.0  # of one request, with up to 30 s that the library holds it back for a rate limit
_GONE = {10003, 10008}  # unknown channel, unknown message
_LATER = {30046: 60.0, 40062: 10.0}  # too many edits of an old message; the service is being rate limited
_NEVER = {
    50001,
    50007,
    50008,
    50278,
    50083,
}  # no access; the person takes no messages; no text channel; no common server; archived
_MISSING_PERMISSION = 50013


@asynccontextmanager
async def calling(what: str, *, rich: bool) -> AsyncGenerator[None]:
    """Around a request. `rich`: a message with a card, which may be refused for want of the permission to embed alone.

    Raises `DeliveryFailed`, `DeliveryRefused`, `ContentRefused`, `MessageGone`. The token is in none of their texts.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            yield
    except Refused as error:
        raise DeliveryFailed(
            f"{what}: {error}", error.retry_after, arrived_perhaps=error.status >= 500
        ) from error
    except discord.RateLimited as error:
        raise DeliveryFailed(f"{what}: Discord's rate limit", error.retry_after) from error
    except discord.HTTPException as error:
        raise _meaning(what, error, rich) from error
    except aiohttp.ClientConnectorError as error:
        raise DeliveryFailed(f"{what}: Discord cannot be reached ({type(error).__name__})") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise DeliveryFailed(f"{what}: no answer ({type(error).__name__})", arrived_perhaps=True) from error
    except RuntimeError as error:
        if "closed" not in str(error):
            raise
        raise DeliveryFailed(f"{what}: the connection to Discord is being closed") from error


def _meaning(
    what: str, error: discord.HTTPException, rich: bool
) -> DeliveryFailed | DeliveryRefused | ContentRefused | MessageGone:
    text = f"{what}: {error.text or error.status} ({error.status}, code {error.code})"
    if error.status == 429 or error.status >= 500:
        return DeliveryFailed(text, arrived_perhaps=error.status >= 500)
    if error.code in _LATER:
        return DeliveryFailed(text, _LATER[error.code])
    if error.status == 401:
        return DeliveryFailed(f"{text}: Discord does not take the bot's token any more; set a new one")
    if error.code in _GONE:
        return MessageGone(text)
    if error.code == _MISSING_PERMISSION and rich:
        return ContentRefused(f"{text}: perhaps the bot may not embed links or attach files there")
    if error.code in _NEVER or error.status in (403, 404):
        return DeliveryRefused(text)
    return ContentRefused(text)
