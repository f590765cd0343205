"""The settings of Slack: `channels.slack` of codespar.yaml."""

from __future__ import annotations

from pydantic import Field

from codespar.domain.settings import Filled, Section, Variable, WebAddress


class SlackSettings(Section):
    bot_token_env: Variable = Field(
        default="CODESPAR_SLACK_BOT_TOKEN",
        description="the environment variable that holds the bot's token (xoxb-…); not needed when workspaces install the app themselves",
    )
    app_token_env: Variable = Field(
        default="CODESPAR_SLACK_APP_TOKEN",
        description="the environment variable that holds the app-level token (xapp-…) for Socket Mode; where it is set, no public address is needed",
    )
    signing_secret_env: Variable = Field(
        default="CODESPAR_SLACK_SIGNING_SECRET",
        description="the environment variable that holds the signing secret, with which requests are checked when Socket Mode is not used",
    )
    client_id_env: Variable = Field(
        default="CODESPAR_SLACK_CLIENT_ID",
        description="the environment variable that holds the client id; with the client secret, workspaces can install the app at /channels/slack/install",
    )
    client_secret_env: Variable = Field(
        default="CODESPAR_SLACK_CLIENT_SECRET",
        description="the environment variable that holds the client secret that goes with the client id",
    )
    redirect_url: WebAddress | None = Field(
        default=None,
        description="the public address of /channels/slack/oauth_redirect; left out: the first redirect URL of the app's own settings",
    )
    workspaces: tuple[Filled, ...] = Field(
        default=(),
        description="the ids of the workspaces (T…) that may install the app and be heard; empty: any that installed it",
    )
    command: str = Field(
        default="/codespar", pattern=r"^/[a-z0-9_-]{1,31}$", description="the app's slash command"
    )
    api_url: WebAddress = Field(
        default="https://slack.com/api", description="the address of Slack's Web API, without the method"
    )
    ping_seconds: float = Field(
        default=5,
        gt=0,
        le=60,
        description="seconds between two checks of the Socket Mode connection; a broken one is made again at the next",
    )
