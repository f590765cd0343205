"""Where on a pull request a finding can stand, and what its suggestion would make of the file.

The rule is GitHub's, which the other hosts' are no stricter than: a comment on several lines lies in one hunk of the diff with both of its
ends, the first before the last; on the new side added and context lines count, on the old side those removed. What cannot stand there goes
to the summary, with the reason. Never is a finding lost here, and never does a suggestion replace lines that it was not made for.
"""

from __future__ import annotations

from codespar.domain.base import Value
from codespar.domain.diffs import Diff, FileDiff, FileStatus, Hunk
from codespar.domain.reviews import Finding, Side

LINK_MODE = "120000"


class Placement(Value):
    """Where a finding stands. `path`, `line`, `start_line` and `side` are those of a code host's inline comment."""

    inline: bool  # False: only the summary can hold it
    path: str
    line: int  # the last line
    start_line: int | None = None  # the first of several
    side: Side = Side.NEW
    suggestion: str | None = None  # what replaces the lines, each line ended by a line feed; empty: they go
    reason: str = (
        ""  # why it is not where the finding says, or why its suggestion is gone; empty: all is as it says
    )


def place(finding: Finding, diff: Diff) -> Placement:
    """The place of one finding on the diff of its pull request."""
    file = diff.at(finding.path, finding.side)
    if file is None:
        known = diff.at(finding.path) or diff.at(finding.path, Side.OLD)
        gone = known is not None and known.new_path is None
        return _summary(finding, "the file is deleted" if gone else "the file is not in the diff")
    if not file.hunks:
        why = "the file is binary" if file.binary else "the diff shows no lines of the file"
        return _summary(finding, why)
    if file.status is FileStatus.SUBMODULE:
        return _summary(finding, "it is a submodule, not a file")
    if finding.side is Side.OLD:
        return _place_old(finding, file)
    part = _part(file, finding.start_line, finding.end_line)
    if part is None:
        return _summary(finding, f"the diff does not show {_lines(finding)}")
    start, end = part
    whole = (start, end) == (finding.start_line, finding.end_line)
    reasons = [] if whole else [f"the diff shows only a part of {_lines(finding)}"]
    suggestion = None
    if finding.suggestion is not None:
        suggestion, lost = _suggestion(finding, file, whole)
        reasons += [lost] if lost else []
    return Placement(
        inline=True,
        path=file.path,
        line=end,
        start_line=start if start < end else None,
        suggestion=suggestion,
        reason="; ".join(reasons),
    )


def _place_old(finding: Finding, file: FileDiff) -> Placement:
    """On removed lines; a context line is commented on as the new side's, which every host takes."""
    removed = [
        [line for line in hunk.changed(Side.OLD) if finding.start_line <= line <= finding.end_line]
        for hunk in file.hunks
    ]
    hit = next((lines for lines in removed if lines), None)
    lost = "" if finding.suggestion is None else "removed lines take no suggestion"
    if hit is None:
        kept = [
            file.new_line(line)
            for hunk in file.hunks
            for line in hunk.extent(Side.OLD)
            if finding.start_line <= line <= finding.end_line
        ]
        if not kept or kept[0] is None:
            return _summary(finding, f"the diff does not show {_lines(finding)} of the old text")
        why = "the lines are not removed, so it stands on the new text"
        reason = f"{why}; {lost}" if lost else why
        return Placement(inline=True, path=file.path, line=kept[0], reason=reason)
    start, end = hit[0], hit[-1]
    reasons = (
        []
        if (start, end) == (finding.start_line, finding.end_line)
        else ["only removed lines can be commented on"]
    )
    reasons += [lost] if lost else []
    return Placement(
        inline=True,
        path=file.path,
        line=end,
        start_line=start if start < end else None,
        side=Side.OLD,
        reason="; ".join(reasons),
    )


def _summary(finding: Finding, reason: str) -> Placement:
    return Placement(
        inline=False,
        path=finding.path,
        line=finding.end_line,
        start_line=finding.start_line if finding.start_line < finding.end_line else None,
        side=finding.side,
        reason=reason,
    )


def _lines(finding: Finding) -> str:
    if finding.start_line == finding.end_line:
        return f"line {finding.start_line}"
    return f"lines {finding.start_line} to {finding.end_line}"


def _part(file: FileDiff, start: int, end: int) -> tuple[int, int] | None:
    """What one hunk shows of a range of the new text: of the first that has an added line in there, else of the first."""
    parts: list[tuple[Hunk, int, int]] = []
    for hunk in file.hunks:
        shown = hunk.extent(Side.NEW)
        first, last = max(start, shown.start), min(end, shown.stop - 1)
        if first <= last:
            parts.append((hunk, first, last))
    if not parts:
        return None
    for hunk, first, last in parts:
        if len(parts) > 1 and any(first <= line <= last for line in hunk.changed(Side.NEW)):
            return first, last
    return parts[0][1:]


def _suggestion(finding: Finding, file: FileDiff, whole: bool) -> tuple[str | None, str]:
    """The suggestion as far as it can be offered, and why not."""
    if not whole:
        return None, "its suggestion is for more lines than can be commented on"
    if file.new_mode == LINK_MODE:
        return None, "a link takes no suggestion"
    wanted = suggested_lines(finding.suggestion or "")
    present = file.text_between(finding.start_line, finding.end_line)
    if present is None:
        return None, "its suggestion is for lines that the diff does not show"
    standing = [line.removesuffix("\r") for line in present.split("\n")]
    if wanted == standing:
        return None, "its suggestion is what stands there already"
    if any("\ufffd" in line for line in (*standing, *wanted)):
        return None, "the lines are not UTF-8, so a suggestion could spoil them"
    return "".join(f"{line}\n" for line in wanted), ""


def suggested_lines(suggestion: str) -> list[str]:
    """The lines a suggestion puts in the place of others. An empty one puts none; one line feed alone puts an empty line."""
    if not suggestion:
        return []
    return [line.removesuffix("\r") for line in suggestion.removesuffix("\n").split("\n")]


def apply_suggestion(text: str, start: int, end: int, suggestion: str) -> str:
    """The file's text with lines `start` to `end` replaced, the first line being 1.

    The file's own way to end a line stays, and so does a last line without an end. Raises `ValueError` when it has no such lines.
    """
    lines = text.split("\n")
    open_end = lines[-1] != ""  # the last line has no line feed
    if not open_end:
        lines.pop()
    if not 1 <= start <= end <= len(lines):
        raise ValueError(f"lines {start} to {end} cannot be replaced: the text has {len(lines)} lines")
    replaced = lines[start - 1 : end]
    # only a line that has an end shows how lines end; the last one may have none
    ended = (lines[:-1] if open_end else lines)[start - 1 : end] or lines[max(start - 2, 0) : start - 1]
    carriage = "\r" if ended and all(line.endswith("\r") for line in ended) else ""
    wanted = [line + carriage for line in suggested_lines(suggestion)]
    if open_end and end == len(lines):
        if wanted and not replaced[-1].endswith("\r"):
            wanted[-1] = wanted[-1].removesuffix("\r")
        elif not wanted and start > 1:
            lines[start - 2] = lines[start - 2].removesuffix("\r")
    result = [*lines[: start - 1], *wanted, *lines[end:]]
    if not result:
        return ""
    return "\n".join(result) + ("" if open_end else "\n")
