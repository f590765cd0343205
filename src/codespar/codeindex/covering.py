"""Which tests are those of a change: tests that use what was changed, and test files that belong to the changed files by name.

Reads only. That a test uses a name does not say that it tests it: the order of the answers is a guess, and nothing may rest on it alone.
"""

from __future__ import annotations

import re
import sqlite3
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from codespar.codeindex.base import Hit
from codespar.codeindex.conventions import TEST_WORDS, belongs, is_test, subjects
from codespar.codeindex.extract import parts
from codespar.codeindex.mentions import MAX_SNIPPET, Use
from codespar.codeindex.usage import RUST_TESTS, Found, Reader, best_first, tested_below, unpacked

MAX_PATHS = 200  # of one question; those after them are not looked at
NAMED_ALIKE = 500  # test files of one file's words that are looked at
SURE = 0.6  # `belongs` from which on a test is the file's own, and ones with a longer name are not meant
NAMED, BELONGING = 100.0, 150.0  # what a test file's name counts for
_CASE = re.compile(
    r"^[ \t]*(?:it|test|describe|specify|context|scenario|feature)(?:\.\w+)*[ \t]*(?:\([ \t]*)?['\"`].*$",
    re.MULTILINE,
)
_AROUND = (
    "SELECT line, names.name, kind, signature FROM symbols JOIN names ON names.id = symbols.name WHERE blob = ? "
    "AND kind IN ('function', 'method') AND line - above <= ? AND line + below >= ? ORDER BY line DESC LIMIT 1"
)


def tests_for(
    connection: sqlite3.Connection, paths: Sequence[str], names: Sequence[str], limit: int
) -> list[Hit]:
    """The best `limit` tests of a change: those in test files of the paths that use a name, then such test files as a whole, then other tests."""
    if limit < 1:
        return []
    changed = [path.encode(errors="backslashreplace").decode() for path in paths[:MAX_PATHS]]
    product = [path for path in changed if not is_test(path)]
    sure = _named_after(connection, product)
    gathered = _Gathered(connection)
    reader = Reader(connection, names)
    for name in reader.names:
        near = [*product, *reader.definers(name)]
        calls = 0
        for found in reader.read(name, reader.files(name, near, _may_be_test, others=False, known=sure)):
            if is_test(found.file.path) or tested_below(found):
                calls += found.mention.use is Use.CALL
                gathered.add(found, max((belongs(found.file.path, path) for path in product), default=0.0))
            if calls >= 3 * limit:
                break
    hits = gathered.hits()
    told = {hit.path for hit in hits}
    hits += [
        Hit(path, 1, None, "file", path, NAMED + BELONGING * degree)
        for path, degree in sure.items()
        if path not in told
    ]
    hits += _rust_tests(connection, [path for path in product if path not in told])
    return _spread(hits)[:limit]


class _Gathered:
    """The tests that use a name, each once, whichever names it uses and how often."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cases: dict[int, list[re.Match[str]]] = {}
        self._best: dict[tuple[str, int], Hit] = {}
        self._names: dict[tuple[str, int], set[str]] = {}
        self._in_code: set[tuple[str, int]] = set()

    def add(self, found: Found, degree: float) -> None:
        """Take in a use in a test, whose file belongs to a changed one to the degree."""
        use = found.mention.use
        if use < Use.IMPORT and not (degree or found.file.near >= 0.5):
            return  # a word in a string or a comment of some far test
        hit = self._test(found, round(0.6 * use + BELONGING * degree + 40 * found.file.near, 3))
        place = hit.path, hit.line
        self._names.setdefault(place, set()).add(found.name)
        if use >= Use.MENTION:
            self._in_code.add(place)
        if place not in self._best or self._best[place].score < hit.score:
            self._best[place] = hit

    def hits(self) -> list[Hit]:
        """The tests; imports, strings and comments only of files whose code does not use a name."""
        in_code = {path for path, _ in self._in_code}
        return [
            replace(hit, score=hit.score + 10 * min(len(self._names[place]) - 1, 3))
            for place, hit in self._best.items()
            if place in self._in_code or hit.path not in in_code
        ]

    def _test(self, found: Found, score: float) -> Hit:
        """The test a use is in: its definition, or the line that names it where tests are blocks; else the place itself."""
        mention, file = found.mention, found.file
        row = self._connection.execute(_AROUND, (file.blob, mention.line, mention.line)).fetchone()
        if row:
            line, name, kind, signature = row
            return Hit(file.path, line, name, kind, signature, score + 10 * ("test" in name.lower()))
        if file.blob not in self._cases:
            self._cases[file.blob] = list(_CASE.finditer(found.text))
        cases = self._cases[file.blob]
        before = bisect_right(cases, mention.start, key=lambda case: case.start())
        if before and mention.use >= Use.MENTION:
            case = cases[before - 1]
            line = found.text.count("\n", 0, case.start()) + 1
            return Hit(file.path, line, None, "text", case[0].strip()[:MAX_SNIPPET], score + 10)
        return Hit(file.path, mention.line, None, "text", mention.snippet, score)


def _named_after(connection: sqlite3.Connection, product: list[str]) -> dict[str, float]:
    """The test files that belong to the files by name, and how surely."""
    sure: dict[str, float] = {}
    for path in product:
        tests = {test for test in _candidates(connection, path) if test != path and is_test(test)}
        degrees = {test: belongs(test, path) for test in tests}
        least = SURE if max(degrees.values(), default=0.0) >= SURE else 0.01
        for test, degree in degrees.items():
            if degree >= least:
                sure[test] = max(sure.get(test, 0.0), degree)
    return sure


def _candidates(connection: sqlite3.Connection, path: str) -> list[str]:
    """Paths with the words of a file's subject and of tests, and those that stand where its tests may stand without its name."""
    folder, base = path.rpartition("/")[0], path.rpartition(".")[0]
    stem = base.rpartition("/")[2]
    told = stem if "".join(parts(stem)) == subjects(path)[0] else folder.rpartition("/")[2]
    places = [f"{where}/{name}" for where in (folder, base) for name in ("tests.py", "test.py", "tests/__init__.py", "tests.rs", "test.rs")]  # fmt: skip
    marks = ",".join("?" * len(places))
    found = [row[0] for row in connection.execute(f"SELECT path FROM paths WHERE path IN ({marks})", places)]
    if words := [word for word in parts(told) if word.isascii()]:
        match = " AND ".join(f'"{word}"' for word in words)
        tests = " OR ".join(f'"{word}"' for word in TEST_WORDS)
        query = "SELECT path FROM path_words JOIN paths ON paths.id = path_words.rowid WHERE path_words MATCH ? LIMIT ?"
        found += [row[0] for row in connection.execute(query, (f"({match}) AND ({tests})", NAMED_ALIKE))]
    return found


def _rust_tests(connection: sqlite3.Connection, product: list[str]) -> list[Hit]:
    """Where Rust files have tests of their own."""
    query = "SELECT text FROM paths JOIN blobs ON blobs.id = blob WHERE path = ?"
    hits: list[Hit] = []
    for path in [path for path in product if path.endswith(".rs")][:20]:
        for (packed,) in connection.execute(query, (path,)):
            text = unpacked(packed)
            if (place := text.find(RUST_TESTS)) >= 0:
                line = text.count("\n", 0, place) + 1
                hits.append(Hit(path, line, None, "text", RUST_TESTS, NAMED + BELONGING))
    return hits


def _spread(hits: list[Hit]) -> list[Hit]:
    """The hits, best first, with those of the same file moved apart: ten tests of one file should not be all that is told."""
    told: dict[str, int] = {}
    spread: list[Hit] = []
    for hit in sorted(hits, key=best_first):
        place = told[hit.path] = told.get(hit.path, -1) + 1
        spread.append(replace(hit, score=round(hit.score - 4 * min(place, 15), 3)))
    return sorted(spread, key=best_first)


def _may_be_test(path: str) -> bool:
    return is_test(path) or path.endswith(".rs")  # Rust's unit tests stand in the file they test
