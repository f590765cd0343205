"""Lends the `git` program a token for one command: through the environment of that one process and a helper that git asks.

The token is never on disk, in a URL, in a remote's configuration, in the arguments of a process, in a log or in a container. Whoever may
read the environment of the git process (its own user, and root) can see it while the command runs.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from codespar.forges.base import ForgeError
from codespar.git import SAFE_CONFIG

HELPER = Path(__file__).with_name("askpass")
_CONFIG = (
    ("credential.helper", ""),  # an empty one takes back all that were named: none may keep the token
    ("credential.useHttpPath", "false"),  # so that git asks by host, as the helper expects
)


def git_environment(token: str, url: str, *, helper: Path = HELPER) -> dict[str, str]:
    """What to give as `extra_env` to `codespar.git.run` for a clone, fetch or push at `url`: without a user or password of its own.

    The helper shows the token to that host alone, over the scheme of that URL; wherever else git is sent, it gets no answer and fails.
    Raises `ForgeError` for a URL that is not of the web, or when the helper cannot be run.
    """
    parts = urlsplit(url)
    site = parts.netloc
    if parts.scheme not in ("http", "https") or not site or "@" in site:
        raise ForgeError(
            "Credentials are lent for a plain https:// URL of a repository only: correct the project's repository."
        )
    if not os.access(helper, os.X_OK):
        raise ForgeError(
            f"git cannot ask for its credentials: {helper} cannot be executed. Restore its mode (755), and install CodeSpar where "
            "programs may run: not on a file system that is mounted noexec."
        )
    made = {
        "GIT_ASKPASS": str(helper),
        "GIT_TERMINAL_PROMPT": "0",
        "CODESPAR_GIT_SCHEME": parts.scheme,
        "CODESPAR_GIT_SITE": site,
        "CODESPAR_GIT_PASSWORD": token,
        "GIT_CONFIG_COUNT": str(len(SAFE_CONFIG) + len(_CONFIG)),
    }
    for index, (key, value) in enumerate(_CONFIG, start=len(SAFE_CONFIG)):
        made[f"GIT_CONFIG_KEY_{index}"] = key
        made[f"GIT_CONFIG_VALUE_{index}"] = value
    return made
