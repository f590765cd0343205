"""The settings of Discord: `channels.discord` of codespar.yaml."""

from __future__ import annotations

from pydantic import Field

from codespar.domain.settings import Section, Variable, WebAddress


class DiscordSettings(Section):
    token_env: Variable = Field(
        default="CODESPAR_DISCORD_TOKEN", description="the environment variable that holds the bot's token"
    )
    message_content: bool = Field(
        default=True,
        description="asks for the privileged Message Content intent, which must be on in the Developer Portal too; without it a reply that does not ping the bot is not heard",
    )
    catch_up_minutes: int = Field(
        default=60,
        ge=0,
        le=1440,
        description="how far back messages that came while the server was away are read when it is connected again; 0: not at all",
    )
    api_url: WebAddress = Field(
        default="https://discord.com/api/v10",
        description="where Discord's REST API is reached, for a proxy; the gateway's address is asked there",
    )
    cdn_url: WebAddress = Field(
        default="https://cdn.discordapp.com", description="the only place attachments are fetched from"
    )
