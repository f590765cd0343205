"""The added lines of a unified diff, and the secrets in them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from codespar.screening.secrets import kinds_in

_NEW_FILE = re.compile(r'^\+\+\+ (?P<quote>"?)(?:b/)?(?P<path>.*?)(?P=quote)\t?$')
_HUNK = re.compile(r"^@@ -\d+(?:,(?P<old>\d+))? \+\d+(?:,(?P<new>\d+))? @@")


def secrets_in(diff: str) -> list[tuple[str, int, str]]:
    """(path, line number in the diff, kind) of every added line that holds a token of a known format."""
    return [
        (path, number, kind) for path, number, added in added_lines(diff) for kind in sorted(kinds_in(added))
    ]


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
