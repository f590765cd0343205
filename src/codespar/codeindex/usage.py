"""Who uses what: the definitions of a file and the callers of a name, at the commit that is shown.

Reads only. Which files may use a name is found by the index's words and identifiers; where and how, in their text. Work is bounded for
every question: a name in ten thousand files is answered from those nearest to where it is defined.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from codespar.codeindex.base import Definition, Hit, IndexState
from codespar.codeindex.conventions import is_test, module_name
from codespar.codeindex.database import counts
from codespar.codeindex.extract import MAX_WORD, MIN_IDENTIFIER, parts
from codespar.codeindex.mentions import Mention, Use, asked, mentions

MAX_NAMES = 40  # of one question; those after them are not looked for
SCANNED = 6000  # files that may use a name by their words, of all names together
NEARBY = 300  # files of one folder that are looked at when there are too many others
READ = 100  # files whose text is read, of all names together
READ_CHARS = 16 << 20  # and of how much text, for what is unpacked is held until the answer
PER_FILE = 4  # places told of one file for one name
DEFINERS = 6  # a name defined in more files than this tells nothing about which one is meant
_CANDIDATES = (
    "SELECT path, paths.blob, language, identifiers FROM {} JOIN paths ON paths.blob = found.id JOIN blobs ON blobs.id = found.id "
    "WHERE language IS NULL OR instr(' ' || identifiers || ' ', ?)"
)
_MATCHING = "(SELECT rowid AS id FROM blob_words WHERE blob_words MATCH ? LIMIT ?) AS found"
_WITHIN = (
    "(SELECT DISTINCT blob AS id FROM paths WHERE path >= ? AND path < ? AND blob NOT NULL LIMIT ?) AS found"
)
RUST_TESTS = "#[cfg(test)]"


@dataclass(frozen=True, slots=True)
class File:
    """A file that may use a name."""

    path: str
    blob: int
    language: str | None
    near: float  # 0 to 1: to where the name is defined, or to what was changed


@dataclass(frozen=True, slots=True)
class Found:
    """One place that uses a name."""

    name: str
    file: File
    mention: Mention
    text: str


def shown(connection: sqlite3.Connection) -> IndexState:
    """Which commit is shown, and how much is in it."""
    row = connection.execute("SELECT value FROM meta WHERE name='commit'").fetchone()
    files, symbols = counts(connection)
    return IndexState(row[0] if row else None, files, symbols)


def definitions_of(connection: sqlite3.Connection, path: str) -> list[Definition]:
    """The definitions of a file by their first line. Empty for a path that is not shown, or not parsed."""
    rows = connection.execute(
        "SELECT names.name, kind, line - above, line + below FROM paths JOIN symbols ON symbols.blob = paths.blob "
        "JOIN names ON names.id = symbols.name WHERE path = ? ORDER BY line - above, line, symbols.rowid",
        (path.encode(errors="backslashreplace").decode(),),
    )
    return [Definition(path, name, kind, first, last) for name, kind, first, last in rows]


def uses_of(connection: sqlite3.Connection, names: Sequence[str], limit: int) -> list[Hit]:
    """The best `limit` places that use one of the names, calls first, those in the product's code and near the definition before others."""
    reader = Reader(connection, names)
    enough = limit + 10
    firsts: list[Hit] = []
    others: list[Hit] = []
    for name in reader.names if limit > 0 else ():
        definers = reader.definers(name)
        files = reader.files(name, definers, _is_product, others=True, known={})
        counted = 0
        told: dict[str, int] = {}
        hits: list[Hit] = []
        for found in reader.read(name, files):
            in_test = is_test(found.file.path) or tested_below(found)
            counted += found.mention.use is Use.CALL and not in_test
            place = told[found.file.path] = told.get(found.file.path, -1) + 1
            score = (
                found.mention.use + 20 * found.file.near - (50 if in_test else 0) - 3 * min(place, PER_FILE)
            )
            hits.append(_hit(found, score))
            if counted >= enough or len(hits) >= 8 * enough:
                break
        best = sorted(hits, key=best_first)[:limit]
        firsts += [hit for hit in best[:1] if hit.score >= Use.IMPORT]
        others += best
    # Ten names asked for together should all be heard, whatever one of them has: the best place of each, and then the rest.
    chosen: dict[tuple[str, int], Hit] = {}
    for hit in (*sorted(firsts, key=best_first), *sorted(others, key=best_first)):
        chosen.setdefault((hit.path, hit.line), hit)
    return sorted(list(chosen.values())[:limit], key=best_first)


class Reader:
    """One question's look into the index: each text is unpacked once."""

    def __init__(self, connection: sqlite3.Connection, names: Sequence[str]) -> None:
        self._connection = connection
        self._identifiers: dict[str, str] = {}
        for name in names:
            if len(self._identifiers) < MAX_NAMES and (found := asked(name)) and parts(found[0]):
                self._identifiers[name] = "".join(found)
        self._texts: dict[int, str] = {}
        self._left = READ_CHARS
        count = max(1, len(self._identifiers))
        self._scanned = max(400, SCANNED // count)
        self._read = max(15, READ // count)

    @property
    def names(self) -> Iterable[str]:
        return self._identifiers

    def definers(self, name: str) -> list[str]:
        """The files that define the name; empty when they are too many to tell anything."""
        rows = self._connection.execute(
            "SELECT DISTINCT path FROM names JOIN symbols ON symbols.name = names.id JOIN paths ON paths.blob = symbols.blob "
            "WHERE names.name IN (?, ?) LIMIT ?",
            (name, self._identifiers[name], DEFINERS + 1),
        ).fetchall()
        return [path for (path,) in rows] if len(rows) <= DEFINERS else []

    def files(
        self,
        name: str,
        near: list[str],
        wanted: Callable[[str], bool],
        others: bool,
        known: Mapping[str, float],
    ) -> list[File]:
        """Files that may use the name: code before other text, those `wanted` before the `others`, if any, the near ones before the far.

        `known` are paths that are looked at in any case, and how near they are.
        """
        identifier = self._identifiers[name].rstrip("?!=")
        words = [word for word in parts(identifier) if word.isascii()] or list(parts(identifier))
        match = " AND ".join(f'"{word}"' for word in dict.fromkeys(words))
        kept = MIN_IDENTIFIER <= len(identifier) <= MAX_WORD and identifier.isidentifier()
        exact = f" {identifier} " if kept else ""
        rows = self._connection.execute(
            _CANDIDATES.format(_MATCHING), (match, self._scanned, exact)
        ).fetchall()
        folders = {path.rpartition("/")[0] for path in near}
        if len(rows) and self._cut_short(match):
            for folder in sorted(folders)[:DEFINERS]:
                within = (
                    f"{folder}/" if folder else "",
                    f"{folder}0" if folder else "\U0010ffff",
                    NEARBY,
                    exact,
                )
                rows += self._connection.execute(_CANDIDATES.format(_WITHIN), within)
            for path in sorted(known)[:NEARBY]:
                rows += self._connection.execute(_CANDIDATES.format(_WITHIN), (path, path + "\0", 1, exact))
        modules = {f" {module_name(path)} " for path in near}
        files: dict[str, File] = {}
        for path, blob, language, identifiers in rows:
            if not others and not wanted(path):
                continue
            padded = f" {identifiers} "
            imports = any(module in padded for module in modules)
            closest = max((_shared(path, other) for other in folders), default=0.0)
            files[path] = File(path, blob, language, max(0.5 * closest + 0.5 * imports, known.get(path, 0.0)))

        def order(file: File) -> tuple[bool, bool, float, str]:
            return file.language is None, not wanted(file.path), -file.near, file.path

        return sorted(files.values(), key=order)[: self._read]

    def _cut_short(self, match: str) -> bool:
        """Whether more files have the words than are scanned."""
        count = "SELECT count(*) FROM (SELECT 1 FROM blob_words WHERE blob_words MATCH ? LIMIT ?)"
        (found,) = self._connection.execute(count, (match, self._scanned)).fetchone()
        return found >= self._scanned

    def read(self, name: str, files: list[File]) -> Iterator[Found]:
        """The places in the files that use the name and do not define it; the best few of each file, which is read when its turn comes."""
        identifier = self._identifiers[name]
        defined = self._definition_lines({name, identifier})
        for file in files:
            text = self._text(file.blob)
            places: dict[int, Mention] = {}
            skipped: set[int] = set()
            called = 0
            for mention in mentions(text, file.path, file.language, identifier):
                if mention.line not in skipped and (file.blob, mention.line) in defined:
                    skipped.add(mention.line)  # the first on the line is the definition itself
                elif mention.line not in places or places[mention.line].use < mention.use:
                    places[mention.line] = mention
                    called += mention.use is Use.CALL
                if called == PER_FILE:
                    break
            best = sorted(places.values(), key=lambda mention: (-mention.use, mention.line))
            yield from (Found(name, file, mention, text) for mention in islice(best, PER_FILE))

    def _definition_lines(self, names: set[str]) -> set[tuple[int, int]]:
        marks = ",".join("?" * len(names))
        query = f"SELECT blob, line FROM symbols JOIN names ON names.id = symbols.name WHERE names.name IN ({marks}) LIMIT 50000"
        return set(self._connection.execute(query, tuple(names)))

    def _text(self, blob: int) -> str:
        """A file's text, or nothing once a question has read as much as it may."""
        if blob not in self._texts and self._left > 0:
            (packed,) = self._connection.execute("SELECT text FROM blobs WHERE id=?", (blob,)).fetchone()
            self._texts[blob] = unpacked(packed)
            self._left -= len(self._texts[blob])
        return self._texts.get(blob, "")


def unpacked(packed: bytes) -> str:
    """The text of a blob as the index holds it."""
    return zlib.decompress(packed).decode("utf-8", errors="replace") if packed else ""


def _is_product(path: str) -> bool:
    return not is_test(path)


def _shared(path: str, folder: str) -> float:
    """How near a file is to a folder: 1 within it, else the share of the way down that both go."""
    ours, theirs = path.split("/")[:-1], folder.split("/") if folder else []
    if ours == theirs:
        return 1.0
    same = 0
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            break
        same += 1
    return 0.8 * same / max(len(ours), len(theirs))


def tested_below(found: Found) -> bool:
    """Whether a place in a Rust file is among the tests at its end."""
    if found.file.language != "rust":
        return False
    tests = found.text.find(RUST_TESTS)
    return 0 <= tests < found.mention.start


def _hit(found: Found, score: float) -> Hit:
    mention = found.mention
    return Hit(found.file.path, mention.line, found.name, "text", mention.snippet, round(score, 3))


def best_first(hit: Hit) -> tuple[float, str, int]:
    return -hit.score, hit.path, hit.line
