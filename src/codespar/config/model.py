"""The settings of the language models: which one is asked for what, where, and with whose key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from codespar.domain.settings import Section, Variable, WebAddress

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _model_of_a_service(value: str) -> str:
    if not re.fullmatch(r"(?:anthropic|openai):\S+", value):
        raise ValueError("must be `anthropic:<name>` or `openai:<name>`, such as anthropic:claude-haiku-5-5")
    return value


class ModelSettings(Section):
    name: str = Field(
        default="claude-sonnet-5-5",
        min_length=1,
        description="the model of coding tasks; no other passes the gateway",
    )
    base_url: WebAddress = Field(
        default="https://api.anthropic.com", description="where the model gateway sends calls to"
    )
    api_key_env: Variable = Field(
        default="ANTHROPIC_API_KEY", description="the environment variable that holds the API key"
    )
    understanding: Annotated[str, AfterValidator(_model_of_a_service)] | None = Field(
        default=None,
        description="the model that turns plain language into commands, as `anthropic:<name>` or `openai:<name>`; left out: none, and the nearest commands are suggested",
    )
    understanding_base_url: WebAddress | None = Field(
        default=None,
        description="where that model is asked; left out: `base_url` for anthropic, https://api.openai.com/v1 for openai",
    )
    understanding_api_key_env: Variable | None = Field(
        default=None,
        description="the environment variable that holds its API key; left out: `api_key_env` for anthropic, OPENAI_API_KEY for openai",
    )
    review: Annotated[str, AfterValidator(_model_of_a_service)] | None = Field(
        default=None,
        description="the model that reviews pull requests, as `anthropic:<name>` or `openai:<name>`; left out: none, and reviews say so",
    )
    review_base_url: WebAddress | None = Field(
        default=None,
        description="where the reviewing model is asked; left out: `base_url` for anthropic, https://api.openai.com/v1 for openai",
    )
    review_api_key_env: Variable | None = Field(
        default=None,
        description="the environment variable that holds the reviewing model's API key; left out: `api_key_env` for anthropic, OPENAI_API_KEY for openai",
    )

    def api_key(self, environment: Mapping[str, str]) -> str | None:
        return environment.get(self.api_key_env) or None

    @property
    def needs_key(self) -> bool:
        """A service on this machine itself, such as a proxy or the demo's scripted model, may be asked without a key."""
        return urlsplit(self.base_url).hostname not in LOOPBACK
