"""Coverage reports: which lines of a change the tests ran.

Pure. Three shapes are read, each known by its content and not by its name:

- Cobertura's XML, as coverage.py, gcovr, Coverlet and others write it (https://cobertura.sourceforge.net/xml/coverage-04.dtd):
  `coverage/sources/source` are folders, `class` has a `filename` relative to one of them, `line` a `number` and `hits`;
- LCOV's tracefiles (geninfo(1), https://github.com/linux-test-project/lcov): records of `SF:<path>`, `DA:<line>,<hits>`, `end_of_record`;
- coverage.py's JSON (https://coverage.readthedocs.io/en/latest/commands/cmd_json.html): `files.<path>.executed_lines` and `missing_lines`.

A report comes from a build of the change itself, so it is data of unknown origin: sizes are bounded, XML may define no entities, and what is
broken is refused as a whole, for half a report would mislead.
"""

from __future__ import annotations

import json
import posixpath
import re
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple, cast
from xml.parsers import expat

from codespar.domain.base import CodesparError
from codespar.domain.diffs import Diff
from codespar.domain.paths import Role, role
from codespar.domain.reviews import Side

MOST_BYTES = 64 * 1024**2  # of what an artefact unpacks to
MOST_JSON = 24 * 1024**2  # JSON is read as a whole, and takes some ten times its size of memory
MOST_FILES = 5_000  # in an archive, and in a report
_MOST_LINE = 10_000_000
_MOST_DEPTH = 50  # of XML; Cobertura's own is 8
_MOST_SOURCES = 100
_LONGEST = 4096  # characters of a path
_HEAD = 64 * 1024  # bytes, in which a report shows what it is
_BLANK = b"\xef\xbb\xbf \t\r\n"
_ARCHIVE = (b"PK\x03\x04", b"PK\x05\x06")
_COBERTURA = re.compile(rb"<coverage[\s>]")
_LCOV = re.compile(rb"(?:#[^\n]*\n|\s)*(?:TN|SF):")
_MARK = re.compile(rb"^[ \t]*(?:SF:([^\n]*)|end_of_record[ \t\r]*$)", re.MULTILINE)
_DATA = re.compile(rb"DA:(\d{1,8}),(-?\d{1,20})(?:,[^\n]*)?")


class CoverageError(CodesparError):
    """What cannot be read as a coverage report, and why."""


class Lines(NamedTuple):
    """Line numbers of one file."""

    run: frozenset[int]
    known: frozenset[int]  # those that could run, `run` among them


@dataclass(frozen=True)
class Report:
    """What one report says, by the paths as it has them."""

    files: Mapping[str, Lines]
    sources: tuple[str, ...] = ()  # the folders to which the paths are relative


class Share(NamedTuple):
    """How many of the changed lines that could run the tests ran."""

    run: int
    known: int

    @property
    def value(self) -> float | None:
        return round(self.run / self.known, 4) if self.known else None


def unpacked(content: bytes, most: int = MOST_BYTES) -> Iterator[bytes]:
    """The files of a ZIP archive, one at a time, or the content itself where it is none.

    Raises `CoverageError` for more than `MOST_FILES` or `most` bytes, by what the archive says and by what comes out, and for a broken one.
    """
    if not content.startswith(_ARCHIVE):
        if len(content) > most:
            raise CoverageError(f"it has more than {most // 1024**2} MiB")
        yield content
        return
    room = most
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
            if len(members) > MOST_FILES:
                raise CoverageError(f"the archive has more than {MOST_FILES:,} files")
            if sum(one.file_size for one in members) > most:
                raise CoverageError(f"the archive unpacks to more than {most // 1024**2} MiB")
            for member in members:
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise CoverageError("the archive is packed in another way than ZIP files commonly are")
                with archive.open(member) as file:
                    found = file.read(room + 1)
                room -= len(found)
                if room < 0:
                    raise CoverageError(f"the archive unpacks to more than {most // 1024**2} MiB")
                yield found
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OSError,
    ) as error:
        raise CoverageError("the archive is broken or encrypted") from error


def read(content: bytes, names: Collection[str]) -> Report | None:
    """The report that stands in a file, as far as it is about files that are called one of `names`; None where the file is no report.

    Raises `CoverageError` for a report that is broken or too large.
    """
    head = content[:_HEAD].lstrip(_BLANK)
    if head.startswith(b"<") and _COBERTURA.search(head):
        return _Cobertura(names).read(content)
    if head.startswith(b"{") and b'"executed_lines"' in content:
        return _json(content, names)
    return _lcov(content, names) if _LCOV.match(head) else None


def changed_lines(diff: Diff) -> dict[str, frozenset[int]]:
    """The new lines of what a diff adds or changes, by path, but for tests: they run themselves."""
    found: dict[str, frozenset[int]] = {}
    for file in diff.files:
        if file.new_path and role(file.new_path) is not Role.TESTS and (new := file.changed_lines(Side.NEW)):
            found[file.new_path] = found.get(file.new_path, frozenset()) | new
    return found


def about(report: Report, changed: Mapping[str, frozenset[int]], tree: Iterable[str]) -> dict[str, Lines]:
    """What a report says of the changed lines, by the repository's paths. `tree` are all paths of the commit.

    A path of the report, with each of its sources before it, means the repository's file whose path is the longest that it ends with; else the one
    file whose own path ends with it. Where two files fit equally, or two paths of the report mean the same file, neither is known.
    """
    by_name: dict[str, list[str]] = {_name(path): [] for path in changed}
    for path in tree:
        if (known := by_name.get(_name(path))) is not None:
            known.append(path)
    claims: dict[str, list[tuple[int, Lines]]] = {}
    for name, lines in report.files.items():
        meant, strength = _meant(name, report.sources, by_name.get(_name(name), []))
        if meant is not None:
            claims.setdefault(meant, []).append((strength, lines))
    found: dict[str, Lines] = {}
    for path, made in claims.items():
        best = max(strength for strength, _ in made)
        same = [lines for strength, lines in made if strength == best]
        if path in changed and len(same) == 1:
            found[path] = Lines(same[0].run & changed[path], same[0].known & changed[path])
    return found


def share(parts: Iterable[Mapping[str, Lines]]) -> Share:
    """The sum over files. A line that one report saw run has run, whatever the others saw."""
    run: dict[str, set[int]] = {}
    known: dict[str, set[int]] = {}
    for part in parts:
        for path, lines in part.items():
            run.setdefault(path, set()).update(lines.run)
            known.setdefault(path, set()).update(lines.known)
    return Share(sum(map(len, run.values())), sum(map(len, known.values())))


# paths


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _meant(name: str, sources: Sequence[str], paths: Sequence[str]) -> tuple[str | None, int]:
    """The one of `paths` that a path of a report means, and how many names of folders and files they have in common."""
    whole = [_tidy(f"{source}/{name}") for source in sources] if not _absolute(name) else []
    fits = {
        path: path.count("/") + 1
        for path in paths
        if any(one == path or one.endswith(f"/{path}") for one in whole or [name])
    }
    if not fits:
        fits = {path: name.count("/") + 1 for path in paths if path.endswith(f"/{name}")}
    best = max(fits.values(), default=0)
    meant = [path for path, strength in fits.items() if strength == best]
    return (meant[0], best) if len(meant) == 1 else (None, 0)


def _absolute(path: str) -> bool:
    return path.startswith("/") or path[1:3] == ":/"


def _tidy(path: str) -> str:
    """A path with slashes alone, and without `.` and `..`."""
    if len(path) > 2 * _LONGEST or "\0" in path:
        raise CoverageError("one of its paths is none")
    plain = posixpath.normpath(path.strip().replace("\\", "/"))
    while plain.startswith("../"):
        plain = plain[3:]
    return plain[1:] if plain.startswith("//") else plain


class _Gathered:
    """What was read so far, of the files that are asked for."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._seen: set[str] = set()
        self._hits: dict[str, tuple[set[int], set[int]]] = {}

    def file(self, path: str) -> tuple[set[int], set[int]] | None:
        """Where the lines of a file go that ran, and all of them; None where nobody asks for it."""
        if len(path) > _LONGEST:
            raise CoverageError("one of its paths is none")
        self._seen.add(path)
        if len(self._seen) > MOST_FILES:
            raise CoverageError(f"it is about more than {MOST_FILES:,} files")
        tidy = _tidy(path)
        return self._hits.setdefault(tidy, (set(), set())) if _name(tidy) in self._names else None

    def report(self, sources: Sequence[str] = ()) -> Report:
        files = {path: Lines(frozenset(run), frozenset(known)) for path, (run, known) in self._hits.items()}
        return Report(files, tuple(sources))


# Cobertura


class _Cobertura:
    """One reading of a report in XML, by expat's events: nothing of it is kept but what is asked for."""

    def __init__(self, names: Collection[str]) -> None:
        self._gathered = _Gathered(names)
        self._sources: list[str] = []
        self._words: list[str] | None = None  # of the source that is being read
        self._lines: tuple[set[int], set[int]] | None = None
        self._depth = self._classes = 0

    def read(self, content: bytes) -> Report:
        parser = expat.ParserCreate()
        parser.EntityDeclHandler = self._entity
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        try:
            parser.Parse(content, True)
        except (expat.ExpatError, LookupError, ValueError) as error:
            raise CoverageError(f"its XML is broken: {error}") from error
        if not self._classes:
            raise CoverageError("its XML is not in the shape of Cobertura: it has no `class`")
        return self._gathered.report(self._sources)

    def _entity(self, *_: Any) -> None:
        raise CoverageError("its XML defines entities, which no report needs")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise CoverageError("its XML is nested too deeply")
        if tag == "line":  # first, for nearly all elements are lines
            if self._lines is not None:
                number = _number(_attribute(attributes, "number"))
                self._lines[1].add(number)
                if _number(_attribute(attributes, "hits"), least=0, most=None):
                    self._lines[0].add(number)
        elif tag == "class":
            self._classes += 1
            self._lines = self._gathered.file(_attribute(attributes, "filename"))
        elif tag == "source":
            self._words = []

    def _end(self, tag: str) -> None:
        self._depth -= 1
        if tag == "class":
            self._lines = None
        elif tag == "source" and self._words is not None:
            source, self._words = "".join(self._words).strip(), None
            if len(source) > _LONGEST or len(self._sources) >= _MOST_SOURCES:
                raise CoverageError("it has too many sources, or one that is no path")
            if source:
                self._sources.append(source)

    def _text(self, text: str) -> None:
        if self._words is not None:
            self._words.append(text)


def _attribute(attributes: Mapping[str, str], name: str) -> str:
    if not (value := attributes.get(name)):
        raise CoverageError(f"its XML is not in the shape of Cobertura: `{name}` is missing")
    return value


def _number(text: str, least: int = 1, most: int | None = _MOST_LINE) -> int:
    number = int(text) if re.fullmatch(r"[0-9]{1,20}", text) else -1
    if number < least or (most is not None and number > most):
        raise CoverageError(f"{text[:20]!r} is no number of a line, or of how often it ran")
    return number


# LCOV


def _lcov(content: bytes, names: Collection[str]) -> Report:
    """Only the records of files that are asked for are looked into."""
    gathered = _Gathered(names)
    path, lines, begun = "", None, 0
    for mark in _MARK.finditer(content := content.removeprefix(b"\xef\xbb\xbf")):
        if (named := mark[1]) is not None:
            if path:
                raise CoverageError(f"the record of {path[:200]} does not end")
            path = named.decode(errors="replace").strip()
            if not path:
                raise CoverageError("one of its records names no file")
            lines, begun = gathered.file(path), mark.end()
        else:
            if lines is not None:
                _record(content[begun : mark.start()], *lines)
            path, lines = "", None
    if path:
        raise CoverageError(f"it ends in the middle of the record of {path[:200]}")
    return gathered.report()


def _record(content: bytes, run: set[int], known: set[int]) -> None:
    for raw in content.split(b"\n"):
        line = raw.strip()
        if line.startswith(b"DA:"):
            found = _DATA.fullmatch(line)
            if found is None or int(found[1]) > _MOST_LINE:
                raise CoverageError(f"{line[:40].decode(errors='replace')!r} is no line of a tracefile")
            known.add(int(found[1]))
            if int(found[2]) > 0:
                run.add(int(found[1]))


# coverage.py's JSON


def _json(content: bytes, names: Collection[str]) -> Report:
    if len(content) > MOST_JSON:
        raise CoverageError(f"its JSON has more than {MOST_JSON // 1024**2} MiB; as XML it may have more")
    try:
        document = json.loads(content.lstrip(_BLANK))
    except (ValueError, RecursionError) as error:
        raise CoverageError(f"its JSON is broken: {error}") from error
    gathered = _Gathered(names)
    for path, known in _dict(_dict(document).get("files")).items():
        lines = gathered.file(path)
        if lines is not None:
            run, missing = _numbers(known, "executed_lines"), _numbers(known, "missing_lines")
            lines[0].update(run)
            lines[1].update(run, missing)
    return gathered.report()


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CoverageError("its JSON is not in the shape of coverage.py")
    return cast("dict[str, Any]", value)


def _numbers(file: Any, key: str) -> list[int]:
    found = _dict(file).get(key)
    numbers = cast("list[Any]", found) if isinstance(found, list) else None
    if numbers is None or not all(type(one) is int and 0 <= one <= _MOST_LINE for one in numbers):
        raise CoverageError(f"its JSON is not in the shape of coverage.py: `{key}` is no list of lines")
    return numbers
