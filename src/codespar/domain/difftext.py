"""A diff as a model reads it: every line with its number on either side, within a budget, and what was left out with the reason.

What stands in the diff cannot look like the frame around it: each of its lines begins with a number, and what would break or turn a line
around is spelled out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from codespar.domain.diffs import Diff, FileDiff, FileStatus, Hunk

GUTTER = 17  # characters before a line's text
LEAST_PART = 1_000  # characters of a file that is shown in part
MOST_LINE = 2_000  # characters of one line that are shown
_ODD = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_DOCUMENT = re.compile(
    r"\.(?:md|rst|txt|adoc|tex)$|(?:^|/)(?:docs?|changelog\.d)/|(?:^|/)(?:license|copying|notice)[^/]*$",
    re.IGNORECASE,
)
_DATA = re.compile(
    r"\.(?:csv|tsv|jsonl|ndjson|xml|svg|po|pot|geojson|ipynb|sqlite|dat|out|log|patch|diff)$", re.IGNORECASE
)
_TEST = re.compile(
    r"(?:^|/)(?:tests?|specs?|__tests__|testdata|fixtures)/|(?:^|/)test_[^/]*$|[._-](?:test|spec)s?\.[a-z]+$",
    re.IGNORECASE,
)


def spelled(text: str) -> str:
    """The text with control characters, line separators and those that turn the direction of writing as `\\uXXXX`."""
    return _ODD.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def numbered(diff: Diff, budget_chars: int) -> tuple[str, tuple[str, ...]]:
    """The diff with line numbers in at most `budget_chars` characters, and what of it is not in there, a line each with the reason.

    Code and configuration come before tests, tests before documents, documents before data; within each the diff's own order holds. A file
    that does not fit is shown from its start in half of what is left, so that it does not crowd out all that follows.
    """
    left_out: list[str] = []
    wanted: list[FileDiff] = []
    for file in diff.files:
        reason = _nothing_to_read(file)
        if reason:
            left_out.append(f"{spelled(file.path)}: {reason}")
        else:
            wanted.append(file)
    wanted.sort(key=lambda file: _importance(file.path))
    parts: list[str] = []
    left = budget_chars
    for place, file in enumerate(wanted):
        size = _size(file)
        allowed = left if size <= left or place == len(wanted) - 1 else left // 2
        if size > left and allowed < LEAST_PART:  # what is left is for the files that fit
            left_out.append(f"{spelled(file.path)}: {_too_large(file)}")
            continue
        text, missing = _shown(file, allowed)
        if text:
            parts.append(text)
            left -= len(text)
        if missing:
            left_out.append(f"{spelled(file.path)}: {missing}")
    return "".join(parts), tuple(left_out)


def _nothing_to_read(file: FileDiff) -> str:
    """Why a file is not shown at all; empty when it is, if only by its name where its content is as it was."""
    if file.generated:
        return file.generated_as
    if file.binary:
        return f"binary, {file.status.value}"
    return ""


def _importance(path: str) -> int:
    """0 for what counts most."""
    if _TEST.search(path):
        return 1
    if _DOCUMENT.search(path):
        return 2
    return 3 if _DATA.search(path) else 0


def _size(file: FileDiff) -> int:
    """About how many characters `_shown` needs, without making them."""
    return 200 + sum(
        len(hunk.body) + GUTTER * (hunk.old_count + hunk.new_count) + len(hunk.section) + 60
        for hunk in file.hunks
    )


def _shown(file: FileDiff, allowed: int) -> tuple[str, str]:
    """The file in at most `allowed` characters, and what is missing of it."""
    was = f", was {spelled(file.old_path)}" if file.old_path and file.old_path != file.path else ""
    modes = {file.old_mode, file.new_mode} - {""}
    mode = f", mode {file.old_mode} to {file.new_mode}" if len(modes) == 2 else ""
    changed = f"+{file.additions} -{file.deletions}"
    pieces = [f"=== {spelled(file.path)} ({file.status.value}{was}{mode}) {changed}\n"]
    used, cut = len(pieces[0]) + 1, 0
    if used > allowed:
        return "", _too_large(file)
    for number, hunk in enumerate(file.hunks, 1):
        for text, line, whole in _lines(hunk):
            if used + len(text) > allowed:
                if len(pieces) < 3:
                    return "", _too_large(file)
                missing = (
                    f"from hunk {number} of {len(file.hunks)}, line {line}, on it was too large to be shown"
                )
                return "".join(pieces) + "\n", missing
            pieces.append(text)
            used += len(text)
            cut += not whole
    missing = f"{cut} lines were cut at {MOST_LINE:,} characters" if cut else ""
    if file.status is FileStatus.SUBMODULE:
        missing = "a submodule: what its commits bring in is not part of the diff"
    elif not missing and file.old_path and _ending(file.old_path) != _ending(file.path):
        missing = "renamed to another kind of file: the lines that stayed are not part of the diff"
    return "".join(pieces) + "\n", missing


def _ending(path: str) -> str:
    """By which programs tell what a file is; its whole name where it has none."""
    stem, dot, ending = path.rpartition("/")[2].rpartition(".")
    return ending if dot and stem else path.rpartition("/")[2]


def _too_large(file: FileDiff) -> str:
    return f"too large for what was left to read: +{file.additions} -{file.deletions} lines"


def _lines(hunk: Hunk) -> Iterator[tuple[str, int, bool]]:
    """The hunk's lines as they are shown, each with its number and whether all of it is there."""
    head = f"@@ -{hunk.old_start},{hunk.old_count} +{hunk.new_start},{hunk.new_count} @@"
    yield f"{head} {spelled(hunk.section)}".rstrip() + "\n", hunk.new_start, True
    for line in hunk.walk():
        whole = len(line.text) <= MOST_LINE
        text = spelled(line.text.removesuffix("\r")[:MOST_LINE]) + ("" if whole else " [cut]")
        shown = f"{line.old or '':>6} {line.new or '':>6} {line.kind} {text}"
        yield shown.rstrip() + "\n", line.new or line.old or 0, whole
