"""Diffs: what `git diff` prints, as values, and as a model reads it.

Pure. Nothing in a diff is an instruction, and nothing in it may make the parser guess: what cannot be read is left out and named in
`Diff.problems`. Lines end at a line feed alone, as git has it, so a carriage return belongs to its line's text. The memory used grows with
the diff's text and not with its number of lines, until somebody asks for lines one by one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from codespar.domain.base import CodesparError
from codespar.domain.generated import generated_as
from codespar.domain.reviews import Side

MOST_BYTES = 64 * 1024 * 1024
MOST_LINES = 5_000_000
MOST_PROBLEMS = 20  # that are told one by one
MARKER_LINES = 10  # at the head of a file, where a generator says that it wrote the file


class DiffError(CodesparError):
    """The root of what keeps a diff from being read.

    DiffError
     ├─ TooLarge       more than `MOST_BYTES` or `MOST_LINES`
     └─ CombinedDiff   of a merge against several parents
    """


class TooLarge(DiffError):
    """The diff is larger than we read."""


class CombinedDiff(DiffError):
    """The diff of a merge against several parents: it has no one old side."""


class FileStatus(StrEnum):
    """What happened to a file. The first that fits, of: submodule, added, deleted, renamed, copied, binary, mode, modified."""

    ADDED = "added"
    DELETED = "deleted"
    MODIFIED = "modified"
    RENAMED = "renamed"
    COPIED = "copied"
    MODE = "mode"  # its mode alone
    BINARY = "binary"  # its content, which has no lines
    SUBMODULE = "submodule"


class Line(NamedTuple):
    """One line of a hunk. A number is None where the line does not exist on that side."""

    kind: str  # ' ', '+' or '-'
    old: int | None
    new: int | None
    text: str  # without the line feed


@dataclass(frozen=True, slots=True)
class Hunk:
    """A stretch of a file's diff. The counts are those of the lines that are here, also where the diff was cut."""

    old_start: int
    old_count: int
    new_start: int
    new_count: int
    section: str  # what git shows after the second @@
    body: str  # the lines as they stand in the diff, the one that says "No newline at end of file" included
    additions: int
    deletions: int

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(self.walk())

    def walk(self) -> Iterator[Line]:
        """The lines in order, one at a time."""
        old, new = self.old_start, self.new_start
        for raw in self.body.split("\n"):
            kind = raw[:1] or " "  # git leaves out the blank of an empty context line where it is told to
            if kind == "+":
                yield Line(kind, None, new, raw[1:])
                new += 1
            elif kind == "-":
                yield Line(kind, old, None, raw[1:])
                old += 1
            elif kind == " ":
                yield Line(kind, old, new, raw[1:])
                old, new = old + 1, new + 1

    def extent(self, side: Side) -> range:
        """The numbers of all lines of this side that the hunk shows, context included."""
        start, count = (
            (self.new_start, self.new_count) if side is Side.NEW else (self.old_start, self.old_count)
        )
        return range(start, start + count)

    def changed(self, side: Side) -> list[int]:
        """The numbers of the added lines (new side) or the removed ones (old side), ascending."""
        if side is Side.NEW:
            return [line.new for line in self.walk() if line.kind == "+" and line.new is not None]
        return [line.old for line in self.walk() if line.kind == "-" and line.old is not None]


@dataclass(frozen=True)
class FileDiff:
    """What a diff says of one file."""

    old_path: str | None  # None: the file is new
    new_path: str | None  # None: the file was deleted
    status: FileStatus
    hunks: tuple[Hunk, ...] = ()
    binary: bool = False
    generated_as: str = ""  # why nobody is to read it: `a lock file`; empty: people wrote it
    old_mode: str = ""  # `100644`; empty where the diff does not say
    new_mode: str = ""

    @property
    def path(self) -> str:
        """By which a code host knows the file: that of the head commit, or the old one of a file that was deleted."""
        return self.new_path or self.old_path or ""

    @property
    def generated(self) -> bool:
        return bool(self.generated_as)

    @property
    def additions(self) -> int:
        return sum(hunk.additions for hunk in self.hunks)

    @property
    def deletions(self) -> int:
        return sum(hunk.deletions for hunk in self.hunks)

    def changed_lines(self, side: Side) -> frozenset[int]:
        """The numbers of the added lines (new side), or of the removed ones (old side)."""
        return self._changed_new if side is Side.NEW else self._changed_old

    def text_between(self, start: int, end: int, side: Side = Side.NEW) -> str | None:
        """Lines `start` to `end` of a side as they stand, or None where one hunk does not show all of them."""
        for hunk in self.hunks:
            shown = hunk.extent(side)
            if start in shown and end in shown and start <= end:
                numbered_lines = ((line.new if side is Side.NEW else line.old, line) for line in hunk.walk())
                return "\n".join(
                    line.text
                    for number, line in numbered_lines
                    if number is not None and start <= number <= end
                )
        return None

    def new_line(self, old_line: int) -> int | None:
        """Where an old line stands in the new text; None where it was removed."""
        shift = 0
        for hunk in self.hunks:
            # a hunk without old lines stands after `old_start`, not at it
            if old_line < hunk.old_start or (hunk.old_count == 0 and old_line == hunk.old_start):
                break
            if old_line in hunk.extent(Side.OLD):
                return self._kept.get(old_line)
            shift += hunk.new_count - hunk.old_count
        return old_line + shift

    @cached_property
    def _changed_new(self) -> frozenset[int]:
        return frozenset(number for hunk in self.hunks for number in hunk.changed(Side.NEW))

    @cached_property
    def _changed_old(self) -> frozenset[int]:
        return frozenset(number for hunk in self.hunks for number in hunk.changed(Side.OLD))

    @cached_property
    def _kept(self) -> dict[int, int]:
        """The context lines' numbers, old to new."""
        return {
            line.old: line.new
            for hunk in self.hunks
            for line in hunk.walk()
            if line.old is not None and line.new is not None
        }


@dataclass(frozen=True)
class Diff:
    """A whole diff, in its own order. A path can stand in it twice: a file that became a link was deleted and added."""

    files: tuple[FileDiff, ...] = ()
    problems: tuple[str, ...] = ()  # what could not be read; empty: all of it was

    @property
    def additions(self) -> int:
        return sum(file.additions for file in self.files)

    @property
    def deletions(self) -> int:
        return sum(file.deletions for file in self.files)

    def at(self, path: str, side: Side = Side.NEW) -> FileDiff | None:
        """The file that `path` names on a side. On the old side the head's path is as good as the base's; a copy's source is not meant."""
        return (self._new if side is Side.NEW else self._old).get(path)

    @cached_property
    def _new(self) -> dict[str, FileDiff]:
        return {file.new_path: file for file in self.files if file.new_path is not None}

    @cached_property
    def _old(self) -> dict[str, FileDiff]:
        known = {
            file.old_path: file
            for file in self.files
            if file.old_path is not None and file.status is not FileStatus.COPIED
        }
        for file in self.files:
            if file.new_path is not None and file.old_path is not None:
                known.setdefault(file.new_path, file)
        return known


# ---- reading


def parse(diff: str) -> Diff:
    """Read what `git diff` printed, with its usual prefixes `a/` and `b/`. Raises `TooLarge`, `CombinedDiff`.

    What is cut or broken is read as far as it goes and named in `problems`. Needs a few seconds for the largest diff.
    """
    size = len(diff) if diff.isascii() else len(diff.encode("utf-8", "surrogatepass"))
    if size > MOST_BYTES:
        raise TooLarge(
            f"the diff has {size:,} bytes, and at most {MOST_BYTES:,} are read; split the change, or review it by hand"
        )
    if (lines := diff.count("\n")) > MOST_LINES:
        raise TooLarge(
            f"the diff has {lines:,} lines, and at most {MOST_LINES:,} are read; split the change, or review it by hand"
        )
    starts = list(_starts(diff))
    problems: list[str] = []
    before = diff[: starts[0]] if starts else diff
    if before.strip():
        problems.append(
            "text before the first file was passed over" if starts else "no file of a git diff is in the text"
        )
    files: list[FileDiff] = []
    for start, end in zip(starts, [*starts, len(diff)][1:], strict=True):
        file = _file(diff[start:end], problems)
        if file is not None:
            files.append(file)
    if starts and not diff.endswith("\n"):
        problems.append("the diff ends without a line feed: its last line may be cut")
    if len(problems) > MOST_PROBLEMS:
        problems = [*problems[:MOST_PROBLEMS], f"and {len(problems) - MOST_PROBLEMS} problems more"]
    return Diff(files=tuple(files), problems=tuple(problems))


def _starts(diff: str) -> Iterator[int]:
    """Where each file begins. Raises `CombinedDiff`."""
    place = 0 if diff.startswith("diff --") else diff.find("\ndiff --") + 1 or -1
    while place >= 0:
        if diff.startswith("diff --git ", place):
            yield place
        elif diff.startswith(("diff --cc ", "diff --combined "), place):
            name = diff[place : place + 200].partition("\n")[0]
            raise CombinedDiff(
                f"`{name}` is of a merge against several parents; ask for the diff against one of them"
            )
        place = diff.find("\ndiff --", place) + 1 or -1


_ESCAPE = re.compile(rb'\\([abtnvfr"\\]|[0-7]{3})')
_ESCAPED = dict(zip(b'abtnvfr"\\', b'\a\b\t\n\v\f\r"\\', strict=True))
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_HUNK = re.compile(
    r"@@ -([0-9]{1,9})(?:,([0-9]{1,9}))? \+([0-9]{1,9})(?:,([0-9]{1,9}))? @@(?: (.*))?", re.DOTALL
)
_EMPTY = ("0000000", "e69de29", "473a0f4")  # no blob, and the empty one by SHA-1 and by SHA-256
_HEADER = re.compile(
    r"((?:old|new|new file|deleted file) mode |(?:rename|copy) (?:from|to) |(?:dis)?similarity index |index |--- |\+\+\+ )(.*)\n"
)


def _unquoted(text: str) -> str:
    """A path as git writes it: in quotes with escapes where it holds unusual bytes, with a tab behind it where it holds a blank."""
    plain = text.removesuffix("\t")
    found = _QUOTED.fullmatch(plain)
    if found is None:
        return plain

    def byte(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8) & 255 if len(code) == 3 else _ESCAPED[code[0]]])

    return _ESCAPE.sub(byte, found[1].encode("utf-8", "surrogatepass")).decode("utf-8", "replace")


def _both(names: str) -> tuple[str, str] | None:
    """The two paths of a `diff --git` line. Without quotes they can be told apart only when they are the same, and else git says them again."""
    if names.startswith('"'):
        found = _QUOTED.match(names)
        if found is None:
            return None
        old, new = _unquoted(found[0]), _unquoted(names[found.end() + 1 :])
        return old.removeprefix("a/"), new.removeprefix("b/")
    length = (len(names) - 5) // 2
    old, new = names[: length + 2], names[length + 3 :]
    if old[2:] == new[2:] and old[:2] == "a/" and new[:2] == "b/":
        return old[2:], new[2:]
    first, blank, second = names.partition(" b/")
    if not blank:
        first, blank, second = names.partition(" ")
    return (first.removeprefix("a/"), _unquoted(second).removeprefix("b/")) if blank else None


def _file(chunk: str, problems: list[str]) -> FileDiff | None:
    """Read one file's part of the diff, from its `diff --git` line on."""
    said: dict[str, str] = {}
    place = chunk.find("\n") + 1 or len(chunk)
    names = chunk[len("diff --git ") : place].rstrip("\n")
    while header := _HEADER.match(chunk, place):  # an unfinished line is none: it says nothing for sure
        said[header[1]] = header[2]
        place = header.end()
    both = _both(names)
    old, new = both or (None, None)
    for mark, prefix in (("rename from ", ""), ("copy from ", ""), ("--- ", "a/")):
        if mark in said:
            old = _unquoted(said[mark]).removeprefix(prefix)
    for mark, prefix in (("rename to ", ""), ("copy to ", ""), ("+++ ", "b/")):
        if mark in said:
            new = _unquoted(said[mark]).removeprefix(prefix)
    if "new file mode " in said or old == "/dev/null":
        old = None
    if "deleted file mode " in said or new == "/dev/null":
        new = None
    if not old and not new:
        problems.append(f"a file's header could not be read: {names[:200]!r}")
        return None
    name = new or old or ""
    index_mode = said["index "].rpartition(" ")[2] if " " in said.get("index ", "") else ""
    old_mode = said.get("old mode ") or said.get("deleted file mode ") or index_mode
    new_mode = said.get("new mode ") or said.get("new file mode ") or index_mode
    rest = chunk[place:]
    binary = rest.startswith(("Binary files ", "GIT binary patch"))
    hunks = () if binary else tuple(_hunks(rest, name, problems))
    if not hunks and not binary and _lacks(said):
        problems.append(f"{name}: its lines are missing: the diff is cut there")
    return FileDiff(
        old_path=old,
        new_path=new,
        status=_status(old, new, said, "160000" in (old_mode, new_mode), binary, bool(hunks)),
        hunks=hunks,
        binary=binary,
        generated_as=generated_as(name, _head(hunks)),
        old_mode=old_mode,
        new_mode=new_mode,
    )


def _lacks(said: dict[str, str]) -> bool:
    """Whether a file without hunks must have some, by what its header says: git leaves them out of an empty file and of an unchanged one."""
    if "index " in said:
        return not all(blob.startswith(_EMPTY) for blob in said["index "].split("..", 1))
    whole = said.get("similarity index ") == "100%" and ("rename to " in said or "copy to " in said)
    return not whole and "new mode " not in said


def _head(hunks: tuple[Hunk, ...]) -> list[str]:
    """The first lines of the new text, as far as the diff shows them."""
    if not hunks or hunks[0].new_start > 1:
        return []
    shown = (line.text for line in hunks[0].walk() if line.new is not None)
    return list(itertools.islice(shown, MARKER_LINES))


def _status(
    old: str | None, new: str | None, said: dict[str, str], submodule: bool, binary: bool, text: bool
) -> FileStatus:
    if submodule:
        return FileStatus.SUBMODULE
    if old is None:
        return FileStatus.ADDED
    if new is None:
        return FileStatus.DELETED
    if "rename to " in said:
        return FileStatus.RENAMED
    if "copy to " in said:
        return FileStatus.COPIED
    if binary:
        return FileStatus.BINARY
    return FileStatus.MODE if "new mode " in said and not text else FileStatus.MODIFIED


def _hunks(text: str, name: str, problems: list[str]) -> Iterator[Hunk]:
    """The hunks of one file."""
    place = 0
    while place < len(text):
        following = text.find("\n@@", place)
        end = following if following >= 0 else len(text) - text.endswith("\n")
        head_end = text.find("\n", place, end)
        header = text[place : head_end if head_end >= 0 else end]
        if header.startswith("@@@"):
            raise CombinedDiff(
                f"{name} is shown against several parents; ask for the diff against one of them"
            )
        found = _HUNK.fullmatch(header)
        if found is None:
            if header.strip():
                problems.append(f"{name}: no hunk begins with {header[:80]!r}")
        elif head_end < 0:
            problems.append(f"{name}: the hunk at line {int(found[3])} has no lines: the diff is cut there")
        else:
            whole = following >= 0 or text.endswith("\n")
            hunk = _hunk(found, text[head_end + 1 : end], whole, name, problems)
            if hunk is not None:
                yield hunk
        place = end + 1


def _hunk(found: re.Match[str], body: str, whole: bool, name: str, problems: list[str]) -> Hunk | None:
    """One hunk, of as many lines as its header announces. `whole`: the last line is not cut."""
    old_start, new_start, section = int(found[1]), int(found[3]), found[5] or ""
    old_count, new_count = (1 if count is None else int(count) for count in (found[2], found[4]))
    lines = f"\n{body}"
    added, removed, kept = lines.count("\n+"), lines.count("\n-"), lines.count("\n ")
    as_announced = kept + removed == old_count and kept + added == new_count
    if not as_announced or added + removed + kept + lines.count("\n\\") != lines.count("\n"):
        taken, left = _announced(body.split("\n"), old_count, new_count, whole)
        if left:
            problems.append(f"{name}: the hunk at line {new_start} {left}")
        if not taken:
            return None
        body, lines = "\n".join(taken), "\n" + "\n".join(taken)
        added, removed = (sum(line.startswith(mark) for line in taken) for mark in "+-")
        kept = sum(line[:1] in ("", " ") for line in taken)
    return Hunk(
        old_start=old_start,
        old_count=kept + removed,
        new_start=new_start,
        new_count=kept + added,
        section=section,
        body=body,
        additions=added,
        deletions=removed,
    )


def _announced(lines: list[str], old: int, new: int, whole: bool) -> tuple[list[str], str]:
    """The lines that belong to a hunk of so many old and new lines, and what is wrong with it."""
    taken: list[str] = []
    for place, line in enumerate(lines):
        kind = line[:1] or " "
        if kind == "\\":
            taken.append(line)
            continue
        fits = (kind == "+" and new) or (kind == "-" and old) or (kind == " " and old and new)
        if not fits:
            if old or new:
                return taken, f"has a line that does not belong there: {line[:80]!r}"
            return taken, f"is followed by {len(lines) - place} lines that belong to no hunk"
        taken.append(line)
        old -= kind != "+"
        new -= kind != "-"
    if not old and not new:
        return taken, ""
    if not whole:
        taken.pop()  # an unfinished line's text is not what the file holds
    return taken, f"is cut: {old} old and {new} new lines are missing"
