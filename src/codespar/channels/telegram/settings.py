"""The settings of Telegram: `channels.telegram` of codespar.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from codespar.domain.settings import Section, Variable, WebAddress, web_address


def _https(value: str) -> str:
    if not value.startswith("https://"):
        raise ValueError(
            "must be an https:// address, such as https://codespar.example.com/channels/telegram/webhook:"
            " Telegram calls no other"
        )
    return web_address(value)


class TelegramSettings(Section):
    token_env: Variable = Field(
        default="CODESPAR_TELEGRAM_TOKEN", description="the environment variable that holds the bot's token"
    )
    webhook: Annotated[str, AfterValidator(_https)] | None = Field(
        default=None,
        description="the public https address under which Telegram reaches /channels/telegram/webhook of this"
        " server; left out: the server asks Telegram for news itself (long polling) and needs no public address",
    )
    secret_env: Variable = Field(
        default="CODESPAR_TELEGRAM_SECRET",
        description="the environment variable that holds the webhook's secret (1 to 256 letters, digits, _ and -);"
        " needed only with webhook",
    )
    poll_seconds: int = Field(
        default=30, ge=1, le=50, description="how long one question for news may stay open, in seconds"
    )
    api_url: WebAddress = Field(
        default="https://api.telegram.org",
        description="the Bot API server, where it is not Telegram's own",
    )
