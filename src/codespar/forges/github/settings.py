"""The settings of GitHub: `forges.github` of codespar.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from codespar.domain.settings import Section, Variable, WebAddress

PRIVATE_KEY = "CODESPAR_GITHUB_PRIVATE_KEY"
FULL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}", re.ASCII)
"""`owner/name`, as GitHub lets them be."""


def encrypted(value: str) -> str:
    """Tokens go to this address: never in clear over a network."""
    parts = urlsplit(value)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError("must begin with https:// (http:// is for this machine alone)")
    return value


def is_loopback(host: str) -> bool:
    """Whether this host is the machine itself."""
    return host in ("localhost", "::1") or bool(re.fullmatch(r"127\.\d+\.\d+\.\d+", host, re.ASCII))


class GithubSettings(Section):
    api_url: Annotated[WebAddress, AfterValidator(encrypted)] = Field(
        default="https://api.github.com",
        description="the address of GitHub's API; GitHub Enterprise Server has it at https://<host>/api/v3",
    )
    app_id: int | None = Field(
        default=None,
        gt=0,
        description="the id of the GitHub App that CodeSpar acts as (the App's page shows it); left out: a fine-grained token is used",
    )
    private_key_env: Variable | None = Field(
        default=None,
        description=f"the environment variable that holds the App's private key (PEM); left out: {PRIVATE_KEY}",
    )
    private_key_file: Path | None = Field(
        default=None,
        description="the file that holds the App's private key (PEM), instead of an environment variable",
    )
    token_env: Variable = Field(
        default="CODESPAR_GITHUB_TOKEN",
        description="the environment variable that holds a fine-grained token, where no App is used",
    )
    webhook_secret_env: Variable = Field(
        default="CODESPAR_GITHUB_WEBHOOK_SECRET",
        description="the environment variable that holds the secret with which GitHub signs webhooks; where it is not set, the repository is polled",
    )
    poll: float = Field(
        default=60.0,
        ge=10,
        le=3600,
        description="seconds between two looks at a repository whose webhooks do not reach us",
    )
