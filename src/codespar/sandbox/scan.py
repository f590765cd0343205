"""Screens a task's change before it may leave the host: blocked paths, and secrets by detect-secrets' detectors.

Only exact token formats count here. Detectors that guess by entropy or by names like `password` are left out: they would refuse every
change to a login test.
"""

from __future__ import annotations

import re

from pathspec import GitIgnoreSpec

DETECTORS = (
    "AWSKeyDetector",
    "AzureStorageKeyDetector",
    "DiscordBotTokenDetector",
    "GitHubTokenDetector",
    "GitLabTokenDetector",
    "JwtTokenDetector",
    "NpmDetector",
    "OpenAIDetector",
    "PrivateKeyDetector",
    "PypiTokenDetector",
    "SendGridDetector",
    "SlackDetector",
    "StripeDetector",
    "TelegramBotTokenDetector",
    "TwilioKeyDetector",
)
ANTHROPIC_KEY = re.compile(r"sk-ant-[A-Za-z0-9_-]{20,}")
_NEW_FILE = re.compile(r"^\+\+\+ b?/?(?P<path>.*)$")


class Screen:
    """The `Screening` port on pathspec and detect-secrets (imported when first used)."""

    def problems(self, paths: list[str], diff: str, blocked_paths: tuple[str, ...]) -> list[str]:
        spec = GitIgnoreSpec.from_lines(blocked_paths)
        found = [f"{path} is a blocked path" for path in paths if spec.match_file(path)]
        found += [
            f"{path}: line {line} of the change holds what looks like a secret ({kind})"
            for path, line, kind in secrets_in(diff)
        ]
        return found


def secrets_in(diff: str) -> list[tuple[str, int, str]]:
    """(path, line number in the diff, kind) of every added line that holds a token of a known format."""
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import transient_settings

    found: list[tuple[str, int, str]] = []
    path = "?"
    with transient_settings({"plugins_used": [{"name": name} for name in DETECTORS]}):
        for number, line in enumerate(diff.splitlines(), start=1):
            if header := _NEW_FILE.match(line):
                path = header["path"]
            elif line.startswith("+"):
                added = line[1:]
                kinds = {secret.type for secret in scan_line(added)}
                if ANTHROPIC_KEY.search(added):
                    kinds.add("Anthropic API Key")
                found += [(path, number, kind) for kind in sorted(kinds)]
    return found
