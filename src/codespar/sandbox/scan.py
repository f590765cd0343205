"""Screens a task's change before it may leave the host: blocked paths, and secrets by detect-secrets' detectors.

Only exact token formats count here. Detectors that guess by entropy or by names like `password` are left out: they would refuse every
change to a login test.
"""

from __future__ import annotations

import re
import threading
import unicodedata
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
_SETTINGS = {"plugins_used": [{"name": name} for name in DETECTORS]}
_SCANNING = threading.Lock()  # the detectors' settings are one a process
REMOVED = "[a line that held what looks like a secret was removed]"
ANTHROPIC_KEY = re.compile(r"sk-ant-[A-Za-z0-9_-]{20,}")
_NEW_FILE = re.compile(r'^\+\+\+ (?P<quote>"?)(?:b/)?(?P<path>.*?)(?P=quote)\t?$')
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co"})  # control, format, surrogate, private use
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

    def clean(self, text: str) -> str:
        """An agent's words as they may go out: no line with a token of a known format, no HTML comment, no character nobody would see."""
        from detect_secrets.settings import transient_settings

        seen = "".join(
            char
            for char in _COMMENT.sub("", text)
            if char in "\n\t\u200d" or unicodedata.category(char) not in _UNSEEN
        )
        with _SCANNING, transient_settings(_SETTINGS):
            return "\n".join(REMOVED if kinds_in(line) else line for line in seen.split("\n"))


def kinds_in(line: str) -> set[str]:
    """The kinds of token in a line. Within `transient_settings` only."""
    from detect_secrets.core.scan import scan_line

    kinds = {secret.type for secret in scan_line(line)}
    return kinds | {"Anthropic API Key"} if ANTHROPIC_KEY.search(line) else kinds


def secrets_in(diff: str) -> list[tuple[str, int, str]]:
    """(path, line number in the diff, kind) of every added line that holds a token of a known format."""
    from detect_secrets.settings import transient_settings

    found: list[tuple[str, int, str]] = []
    with _SCANNING, transient_settings(_SETTINGS):
        for path, number, added in added_lines(diff):
            found += [(path, number, kind) for kind in sorted(kinds_in(added))]
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
