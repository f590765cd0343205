"""The settings of GitHub: `forges.github` of codespar.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from codespar.domain.settings import Section, Variable, WebAddress
from codespar.git import without_credentials

PRIVATE_KEY = "CODESPAR_GITHUB_PRIVATE_KEY"
FULL_NAME = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,38}/(?!\.{0,2}(?:\.git)?\Z)[A-Za-z0-9._-]{1,100}", re.ASCII
)
"""`owner/name`, as GitHub lets them be. The accounts that an enterprise manages end in `_` and its short code."""
_SCP = re.compile(r"git@(?P<host>[^:/]+):(?P<path>.+)", re.ASCII)


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

    def name_of(self, repository: str) -> str | None:
        """`owner/name` where the repository, a name or an address, is one of this GitHub; None where it is any other."""
        if FULL_NAME.fullmatch(repository):
            return repository.removesuffix(".git")
        if found := _SCP.fullmatch(repository):
            repository = f"ssh://git@{found['host']}/{found['path']}"
        api, parts = urlsplit(self.api_url), urlsplit(without_credentials(repository))
        name = parts.path.strip("/").removesuffix(".git")
        if not FULL_NAME.fullmatch(name):
            return None
        if parts.scheme == "ssh":
            there = parts.hostname == (api.hostname or "").removeprefix("api.")
        else:
            there = (parts.scheme, parts.netloc.lower()) == (
                api.scheme,
                api.netloc.lower().removeprefix("api."),
            )
        return name if there else None
