"""Secrets in text: detect-secrets' detectors of exact token formats, and a few formats of ours.

Detectors that guess by entropy or by names like `password` are left out: they would refuse every change to a login test. So are
detect-secrets' filters: a comment such as `pragma: allowlist secret` must not switch the screening of an agent's words off.
Nothing found is kept, and no caller is given more of a secret than its kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Protocol

DETECTORS = {
    "aws": "AWSKeyDetector",
    "azure_storage_key": "AzureStorageKeyDetector",
    "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector",
    "gitlab_token": "GitLabTokenDetector",
    "jwt": "JwtTokenDetector",
    "npm": "NpmDetector",
    "openai": "OpenAIDetector",
    "private_key": "PrivateKeyDetector",
    "pypi_token": "PypiTokenDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "stripe": "StripeDetector",
    "telegram_token": "TelegramBotTokenDetector",
    "twilio": "TwilioKeyDetector",
}
"""The detectors that are used: detect-secrets' module and class."""
OURS = {
    "Anthropic API Key": re.compile(r"sk-ant-[A-Za-z0-9_-]{20,}"),
    "GitHub Fine-Grained Token": re.compile(r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    "Slack App Token": re.compile(r"xapp-\d-[A-Z0-9]+-\d+-[a-f0-9]{32,}"),
}
"""Formats that detect-secrets has no detector for."""
REMOVED = "[a line that held what looks like a secret was removed]"
PRIVATE_KEY = "Private Key"

_LITERALS = (
    *("A3T", "ABIA", "ACCA", "AKIA", "ASIA", "AccountKey=", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    *("glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "GR1348941", "glcbt-", "glimt-", "glptt-", "glagent-"),
    *("gloas-", "eyJ", "/:_authToken=", "T3BlbkFJ", "BEGIN ", "PuTTY-User-Key-File-2", "pypi-AgE", "SG."),
    *("k_live_", "sk-ant-", "github_pat_", "xapp-"),
)
_FOLDED = ("aws", "xox", "hooks.slack.com")  # what is found in any case
_SHAPES = re.compile(
    r"\.[a-zA-Z\d_-]{6}\.[a-zA-Z\d_-]{27}"  # Discord
    r"|\d:[0-9A-Za-z_-]{35}"  # Telegram
    r"|(?:AC|SK)[a-z0-9]{32}"  # Twilio
)
WINDOW, OVERLAP = (
    8192,
    4096,
)  # characters; a token longer than the overlap is found for sure only in a line no longer than the window
_KEY_BODY = re.compile(
    r"[-+ \t>\"']*(?:[A-Za-z0-9+/=]{16,}|[A-Za-z0-9+/]{1,15}={0,2}|[A-Za-z-]+: .*|)[\"',\\nr \t]*\r?"
)
_KEY_END = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY")


class Detector(Protocol):
    """The part of a detect-secrets plugin that is used. It keeps nothing."""

    secret_type: str

    def analyze_string(self, string: str) -> Iterator[str]: ...


@cache
def detectors() -> tuple[Detector, ...]:
    """The detectors, loaded when first asked for: that takes some tenths of a second."""
    from importlib import import_module

    return tuple(
        getattr(import_module(f"detect_secrets.plugins.{module}"), name)()
        for module, name in DETECTORS.items()
    )


def could_hold(text: str) -> bool:
    """Whether it is worth asking the detectors. False only for text in which none of them finds anything."""
    if any(literal in text for literal in _LITERALS) or _SHAPES.search(text):
        return True
    folded = text.casefold()  # as the detectors' IGNORECASE reads it: a Kelvin sign is a k
    return any(literal in folded for literal in _FOLDED)


def kinds_in(line: str) -> set[str]:
    """The kinds of token in one line."""
    if not could_hold(line):
        return set()
    found: set[str] = set()
    for start in range(0, max(1, len(line) - OVERLAP), WINDOW - OVERLAP) if len(line) > WINDOW else (0,):
        part = line[start : start + WINDOW]
        found |= {one.secret_type for one in detectors() if any(True for _ in one.analyze_string(part))}
        found |= {kind for kind, pattern in OURS.items() if pattern.search(part)}
    return found


def without_secrets(lines: Sequence[str]) -> tuple[list[int | None], int]:
    """What to keep of some lines: their places in order, None where a line was removed; and how many were.

    Of a private key everything goes, down to its last line, and one None stands for all.
    """
    kept: list[int | None] = []
    removed, inside = 0, False
    for place, line in enumerate(lines):
        if inside:
            ended = _KEY_END.search(line) is not None
            if ended or _KEY_BODY.fullmatch(line):
                removed += 1
                inside = not ended
                continue
            inside = False
        kinds = kinds_in(line)
        if not kinds:
            kept.append(place)
            continue
        kept.append(None)
        removed += 1
        inside = PRIVATE_KEY in kinds and _KEY_END.search(line) is None
    return kept, removed
