"""Screens a task's change before it may leave the host: blocked paths, and secrets by detect-secrets' detectors.

Only exact token formats count here. Detectors that guess by entropy or by names like `password` are left out: they would refuse every
change to a login test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

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
_NEW_FILE = re.compile(r'^\+\+\+ (?P<quote>"?)(?:b/)?(?P<path>.*?)(?P=quote)\t?$')
_HUNK = re.compile(r"^@@ -\d+(?:,(?P<old>\d+))? \+\d+(?:,(?P<new>\d+))? @@")


class Screen:
    """The `Screening` port on pathspec and detect-secrets (imported when first used)."""

    def problems(self, paths: list[str], diff: str, blocked_paths: tuple[str, ...]) -> list[str]:
        from pathspec import GitIgnoreSpec

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
    with transient_settings({"plugins_used": [{"name": name} for name in DETECTORS]}):
        for path, number, added in added_lines(diff):
            kinds = {secret.type for secret in scan_line(added)}
            if ANTHROPIC_KEY.search(added):
                kinds.add("Anthropic API Key")
            found += [(path, number, kind) for kind in sorted(kinds)]
    return found


def added_lines(diff: str) -> Iterator[tuple[str, int, str]]:
    """(path, line number in the diff, content) of every added line of a unified diff.

    What is a header and what is content follows from the lengths in the hunks' headers: content may look like anything.
    """
    path, old, new = "?", 0, 0
    for number, line in enumerate(diff.split("\n"), start=1):
        if old <= 0 and new <= 0:
            if hunk := _HUNK.match(line):
                old, new = (int(hunk[side] or 1) for side in ("old", "new"))
            elif header := _NEW_FILE.match(line):
                path = header["path"]
        elif line.startswith("+"):
            new -= 1
            yield path, number, line[1:]
        elif line.startswith("-"):
            old -= 1
        elif not line.startswith("\\"):  # anything else but "\\ No newline at end of file" is context
            old, new = old - 1, new - 1
