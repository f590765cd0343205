"""Reads git histories into numbers: one row for each change to the default branch, with what was known when it was made.

A change is a commit of the first-parent line: a merge counts as one change, with all that it brings. The walk goes from the oldest to the newest, so
nothing of a row comes from its future but the label. It was reverted when a later change says `This reverts commit <id>` of it or of a commit that it
brought, or `Reverts <id>`, `Reverts owner/name#<number>`, or has the title `Revert "<title>"` and exactly one earlier change of the year before had that title;
each within 365 days. No text of a project is kept.

What is known of files and authors is what `codespar.agents.evidence` knows of them at a review, no more: a file's past is that of one year, and nobody gets
more credit for what was done before than a usual author, since git's word for who made a commit is anybody's.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from codespar.agents.evidence import USUAL_BY_AUTHOR, USUAL_CHANGES
from codespar.domain.generated import generated_as
from codespar.domain.risk import RELAND, REVERT, Change, ChangedFile, FileHistory, measure

DAY = 86_400
WINDOW = 90 * DAY  # of a file's recent commits
MONTH = 30 * DAY
HORIZON = 365 * DAY  # a later revert is about something else
WARM_UP = 500  # changes at the beginning, whose history is not known
BRANCH = 30  # a merge of more commits is a branch, no change
_SHA = re.compile(r"(?:reverts|reverting|revert) (?:commit )?([0-9a-f]{7,40})\b", re.IGNORECASE)
_NUMBER = re.compile(r"^\s*reverts (?:[\w.-]+/[\w.-]+)?#(\d+)", re.IGNORECASE | re.MULTILINE)
_QUOTED = re.compile(r"^\W*Revert:? [\"“'](.+)[\"”']", re.IGNORECASE | re.MULTILINE)
_PULL = re.compile(r"\(#(\d+)\)\s*$|^Merge pull request #(\d+)|^Auto merge of #(\d+)")
_BOT = re.compile(r"\[bot\]|\bbot\b|-bot@|dependabot|renovate|greenkeeper|pyup|robot", re.IGNORECASE)


class Broken(Exception):
    """A git command failed: an object is missing, or the folder is no repository."""


@dataclass(slots=True)
class Commit:
    parents: list[str]
    time: int
    author: str
    message: str

    @property
    def title(self) -> str:
        return self.message.lstrip().split("\n", 1)[0]


@dataclass(slots=True)
class Known:
    """What is known of a path: the changes of the year before, and those of them that took something back."""

    changes: deque[tuple[int, str]] = field(default_factory=deque[tuple[int, str]])  # when, and by whom
    reverts: deque[int] = field(default_factory=deque[int])


@dataclass(slots=True)
class Unit:
    """One change of the first-parent line."""

    sha: str
    time: int
    author: str
    title: str
    brings: list[str]
    files: list[ChangedFile]
    whole: bool  # its diff could be read


def _git(folder: Path, *args: str, lines: Sequence[str] = ()) -> Iterator[str]:
    """The records of a command's output, parted by NUL. Raises `Broken` when git fails, after the records that it gave."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
        given.write("".join(f"{line}\n" for line in lines).encode())
        given.seek(0)
        with subprocess.Popen(
            ["git", "-C", str(folder), *args], stdin=given, stdout=subprocess.PIPE, stderr=errors
        ) as process:
            assert process.stdout is not None
            rest = b""
            while chunk := process.stdout.read(1 << 20):
                *records, rest = (rest + chunk).split(b"\0")
                yield from (record.decode("utf-8", "replace") for record in records)
            if rest:
                yield rest.decode("utf-8", "replace")
        if process.returncode:
            errors.seek(0)
            told = errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise Broken(f"git {args[0]} failed in {folder}: {told}")


def _commits(folder: Path) -> dict[str, Commit]:
    fields = _git(folder, "log", "-z", "--format=%H%x00%P%x00%ct%x00%an <%ae>%x00%B")
    found: dict[str, Commit] = {}
    for sha, parents, time, author, message in zip(*[fields] * 5, strict=False):
        found[sha] = Commit(parents.split(), int(time), author, message)
    return found


def _units(folder: Path, commits: dict[str, Commit]) -> Iterator[Unit]:
    """The changes of the first-parent line, oldest first, with their files."""
    seen: set[str] = set()

    def unit(sha: str, files: list[ChangedFile] | None) -> Unit:
        commit = commits[sha]
        seen.add(sha)
        waiting, brings = list(commit.parents[1:]), [sha]
        while waiting:
            inner = waiting.pop()
            if inner not in seen and inner in commits:
                seen.add(inner)
                brings.append(inner)
                waiting += commits[inner].parents
        author = (
            commits[commit.parents[1]] if len(commit.parents) > 1 and commit.parents[1] in commits else commit
        )
        title = commit.title if len(brings) == 1 else commits[brings[1]].title
        return Unit(sha, commit.time, author.author, title, brings, files or [], whole=files is not None)

    line = first_parents(folder, commits)
    at = 0
    while at < len(line):
        try:
            for found, files in _diffs(folder, commits, line[at:]):
                at = line.index(found, at) + 1
                yield unit(found, files)
        except Broken:
            # a large file is missing from the snapshot: the change that has it is passed over
            yield unit(line[at], None)
            at += 1


def first_parents(folder: Path, commits: dict[str, Commit]) -> list[str]:
    """The first-parent line from HEAD, oldest first, but for the first commit of all."""
    sha = next(_git(folder, "rev-parse", "HEAD")).strip()
    line: list[str] = []
    while sha in commits and commits[sha].parents:
        line.append(sha)
        sha = commits[sha].parents[0]
    return line[::-1]


def _diffs(
    folder: Path, commits: dict[str, Commit], line: list[str]
) -> Iterator[tuple[str, list[ChangedFile]]]:
    """Each commit of the line with what it changed against its first parent; one whose diff was cut short is not given."""
    options = [
        "-r",
        "-z",
        "-M50%",
        "-l200",
        "--raw",
        "--numstat",
        "--always",
        "--no-ext-diff",
        "--no-textconv",
    ]
    records = _git(
        folder, "diff-tree", "--stdin", *options, lines=[f"{sha} {commits[sha].parents[0]}" for sha in line]
    )
    current, files, added = "", list[ChangedFile](), set[str]()
    for record in records:
        record = record.strip("\n")
        if len(record) == 40 and record in commits:
            if current:
                yield current, files
            current, files, added = record, [], set()
        elif record.startswith(":"):
            status = record.split(" ")[4]
            path = next(records)
            if status[0] in "RC":
                path = next(records)
            if status == "A":
                added.add(path)
        elif record:
            plus, minus, path = record.split("\t", 2)
            old = None
            if not path:
                old, path = next(records), next(records)
            binary = plus == "-"
            files.append(
                ChangedFile(
                    path=path,
                    old_path=old,
                    additions=0 if binary else int(plus),
                    deletions=0 if binary else int(minus),
                    added=path in added,
                    generated=binary or bool(generated_as(path)),
                )
            )
    if current:
        yield current, files


class Finder:
    """Finds which earlier change a message takes back."""

    def __init__(self) -> None:
        self._unit_of: dict[str, Unit] = {}
        self._sorted: list[str] = []
        self._titles: dict[str, list[Unit]] = defaultdict(list)
        self._numbers: dict[str, Unit] = {}

    def prepare(self, commits: dict[str, Commit]) -> None:
        self._sorted = sorted(commits)

    def learn(self, unit: Unit, commits: dict[str, Commit]) -> None:
        for sha in unit.brings:
            self._unit_of[sha] = unit
            title = commits[sha].title
            if number := _PULL.search(title):
                self._numbers[next(part for part in number.groups() if part)] = unit
            for form in {title.strip(), _PULL.sub("", title).strip()}:
                if unit not in self._titles[form][-1:]:
                    self._titles[form].append(unit)

    def _full(self, prefix: str) -> str:
        at = bisect_left(self._sorted, prefix)
        hits = [sha for sha in self._sorted[at : at + 2] if sha.startswith(prefix)]
        return hits[0] if len(hits) == 1 else ""

    def taken_back(self, unit: Unit, commits: dict[str, Commit]) -> list[Unit]:
        found: dict[str, Unit] = {}
        for sha in unit.brings:
            message = commits[sha].message
            named = [self._unit_of.get(self._full(prefix.lower())) for prefix in _SHA.findall(message)]
            named += [self._numbers.get(number) for number in _NUMBER.findall(message)]
            if not any(named) and (quoted := _QUOTED.search(message)):
                title = quoted[1]
                same = [u for u in self._titles.get(title.strip(), []) if unit.time - u.time <= HORIZON]
                named += same if len(same) == 1 else []
            for target in named:
                if target is not None and target.sha != unit.sha and 0 <= unit.time - target.time <= HORIZON:
                    found[target.sha] = target
        return list(found.values())


@dataclass(slots=True)
class Row:
    """One candidate: its measures, whether it was reverted within a year, whether a program made it."""

    measures: dict[str, float]
    year: int
    reverted: bool = False
    bot: bool = False
    days: float = 0.0  # until the revert


def mine(folder: Path) -> tuple[str, list[Row]]:
    """The head commit and the rows of a history. Left out: the reverts themselves (but for what lands again), empty changes, whole branches, the
    first 500 changes, whose history is not known, and those of the last 90 days, whose reverts may not have come yet."""
    commits = _commits(folder)
    finder = Finder()
    finder.prepare(commits)
    paths: dict[str, Known] = defaultdict(Known)
    changes: dict[str, int] = defaultdict(int)
    rows: dict[str, tuple[int, Row]] = {}
    head, count, last = "", 0, 0
    for unit in _units(folder, commits):
        head, last, count = unit.sha, max(last, unit.time), count + 1
        files: list[ChangedFile] = []
        for file in unit.files:
            if file.old_path is not None and file.old_path in paths:
                paths[file.path] = paths[file.old_path]
            known = paths[file.path]
            while known.changes and known.changes[0][0] < unit.time - HORIZON:
                known.changes.popleft()
            while known.reverts and known.reverts[0] < unit.time - HORIZON:
                known.reverts.popleft()
            history = FileHistory(
                recent_commits=sum(time >= unit.time - WINDOW for time, _ in known.changes),
                authors=len({author for _, author in known.changes}),
                by_author=min(USUAL_BY_AUTHOR, sum(author == unit.author for _, author in known.changes)),
                reverts=len(known.reverts),
                recent_reverts=sum(time >= unit.time - MONTH for time in known.reverts),
            )
            files.append(file.model_copy(update={"history": history}))
        taken = finder.taken_back(unit, commits)
        titles = [commits[sha].title for sha in unit.brings]
        again = any(RELAND.match(title) for title in titles)
        is_revert = not again and (bool(taken) or any(REVERT.match(title) for title in titles))
        if count > WARM_UP and unit.files and unit.whole and not is_revert and len(unit.brings) <= BRANCH:
            change = Change(
                title="Reland" if again else "",
                files=tuple(files),
                commits=max(1, len(unit.brings) - 1),
                author_changes=min(USUAL_CHANGES, changes[unit.author]),
            )
            row = Row(
                measure(change),
                year=datetime.fromtimestamp(unit.time, UTC).year,
                bot=bool(_BOT.search(unit.author)),
            )
            rows[unit.sha] = (unit.time, row)
        for target in taken:
            if target.sha in rows and not rows[target.sha][1].reverted:
                row = rows[target.sha][1]
                row.reverted, row.days = True, (unit.time - target.time) / DAY
        changes[unit.author] += 1
        for file in unit.files:
            known = paths[file.path]
            known.changes.append((unit.time, unit.author))
            if taken:
                known.reverts.append(unit.time)
        finder.learn(unit, commits)
    return head, [row for time, row in rows.values() if time <= last - WINDOW]
