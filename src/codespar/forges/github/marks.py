"""The hidden line by which we know again what we wrote: an HTML comment at the end of a text, which GitHub keeps and does not show.

Anybody can write such a line. It says something only in a text whose author is ours.
"""

from __future__ import annotations

import hashlib
import re

LONGEST = 65_536  # characters of a comment, a review or a pull request's body
_MARK = re.compile(r"<!-- codespar:[\w.:/#-]+ -->\s*\Z")
_CUT = "\n\n… (cut: it is longer than GitHub takes)"


def mark(key: str) -> str:
    """The line for `key`. Keys that differ give lines that differ, whatever characters they have."""
    # two hyphens would end the HTML comment
    plain = re.sub(r"[^\w.:/#-]+|-{2,}", "_", key, flags=re.ASCII)
    if plain != key or not 0 < len(plain) <= 120:
        plain = f"{plain[:100]}.{hashlib.sha256(key.encode(errors='replace')).hexdigest()[:16]}"
    return f"<!-- codespar:{plain} -->"


def marked(body: str, key: str) -> str:
    """The text with the line for `key` at its end, cut to what GitHub takes."""
    return with_mark(body, mark(key))


def with_mark(body: str, line: str) -> str:
    end = f"\n\n{line}" if line else ""
    if len(body) + len(end) > LONGEST:
        body = body[: LONGEST - len(end) - len(_CUT)] + _CUT
    return body + end


def is_marked(body: object, key: str) -> bool:
    """Whether the text ends in the line for `key`."""
    return isinstance(body, str) and body.rstrip().endswith(mark(key))


def mark_of(body: object) -> str:
    """The line that the text ends in, whatever its key; empty where it has none."""
    found = _MARK.search(body) if isinstance(body, str) else None
    return found[0].rstrip() if found else ""


def short(text: str, most: int) -> str:
    """The text on one line of at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
