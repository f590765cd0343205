"""Finding places by words: exact symbols first, then their beginnings and parts, then paths, then text.

Reads only. Every word of a question goes to SQLite as a parameter or as a quoted token of letters and digits, never as query syntax.
"""

from __future__ import annotations

import re
import sqlite3
import zlib
from dataclasses import dataclass

from codespar.codeindex.base import Hit
from codespar.codeindex.extract import parts

MAX_TERMS = 12
CANDIDATES = 60  # of each sort, before ranking
COMMON = 2000  # a term that more rows have than this is not counted further
EXACT, PREFIX, PART, PATH, TEXT = 1000.0, 600.0, 400.0, 200.0, 100.0
_WORD = re.compile(r"\w+")
_STOP = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "can",
        "do",
        "does",
        "for",
        "from",
        "has",
        "have",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "me",
        "my",
        "not",
        "of",
        "on",
        "or",
        "our",
        "out",
        "please",
        "should",
        "so",
        "that",
        "the",
        "their",
        "then",
        "there",
        "they",
        "this",
        "to",
        "use",
        "used",
        "uses",
        "using",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "you",
        "your",
    ]
)
_ENDINGS = ("ings", "ing", "ies", "ers", "ed", "es", "er", "s")


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked: `terms` are stems to be found as beginnings of words; `whole` are names to be found as they are."""

    terms: tuple[str, ...]
    whole: tuple[str, ...]

    @staticmethod
    def of(words: str) -> Question:
        """Read a question. Words that say nothing are left out, unless there are no others."""
        asked = _WORD.findall(words)
        said = [
            word for word in asked if word.lower() not in _STOP and (len(word) > 1 or len(asked) == 1)
        ] or asked
        terms = dict.fromkeys(_stem(part) for word in said for part in parts(word))
        names = [name for word in said if (name := "".join(parts(word)))]
        joined = "".join(names) if 1 < len(names) <= 4 else ""
        return Question(
            tuple(terms)[:MAX_TERMS], tuple(dict.fromkeys(filter(None, (joined, *names[:MAX_TERMS]))))
        )

    def coverage(self, found: set[str]) -> float:
        """The share of the terms that begin one of the found words."""
        if not self.terms:
            return 0.0
        return sum(any(word.startswith(term) for word in found) for term in self.terms) / len(self.terms)


def _match(terms: tuple[str, ...], joiner: str = "AND") -> str:
    """The terms as a full-text query for words that begin with them."""
    return f" {joiner} ".join(f'"{term}"*' for term in terms)


def narrowing(connection: sqlite3.Connection, table: str, terms: tuple[str, ...], wanted: int) -> list[int]:
    """Row ids of a full-text table, those with all the terms first; then the commonest term is dropped, and so on until there are enough.

    This takes the place of a ranking function, which would have to visit every row that has a common word.
    """
    count = f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {table} MATCH ? LIMIT {COMMON})"
    often = {term: connection.execute(count, (_match((term,)),)).fetchone()[0] for term in terms}
    rare = sorted((term for term in terms if often[term]), key=lambda term: often[term])
    found: dict[int, None] = {}
    while rare and len(found) < wanted:
        query = f"SELECT rowid FROM {table} WHERE {table} MATCH ? LIMIT ?"
        found |= dict.fromkeys(row[0] for row in connection.execute(query, (_match(tuple(rare)), wanted)))
        rare.pop()
    return list(found)[:wanted]


def _stem(word: str) -> str:
    """The word without a common English ending; what is left is searched as a beginning."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def look_up(connection: sqlite3.Connection, words: str, limit: int) -> list[Hit]:
    """The best `limit` places for the words, best first; equal ones by path and line."""
    question = Question.of(words)
    if not question.terms or limit < 1:
        return []
    found: dict[tuple[str, int], Hit] = {}

    def offer(hit: Hit) -> None:
        known = found.get((hit.path, hit.line))
        if known is None or known.score < hit.score:
            found[hit.path, hit.line] = hit

    for hit in matching_symbols(connection, question):
        offer(hit)
    if len(found) < limit:
        for hit in _paths(connection, question):
            offer(hit)
    if len(found) < limit:
        named = {path for path, _ in found}
        for hit in _texts(connection, question, named, limit - len(found)):
            offer(hit)
    return sorted(found.values(), key=lambda hit: (-hit.score, hit.path, hit.line))[:limit]


_SYMBOL = (
    "SELECT paths.path, symbols.line, names.name, symbols.kind, symbols.signature, names.lower FROM names "
    "JOIN symbols ON symbols.name = names.id JOIN paths ON paths.blob = symbols.blob WHERE "
)


def matching_symbols(connection: sqlite3.Connection, question: Question) -> list[Hit]:
    """Definitions whose names match, in no order."""
    rows: list[tuple[str, int, str, str, str, str]] = []
    for name in question.whole:
        rows += connection.execute(
            _SYMBOL + "names.lower = ? ORDER BY paths.path LIMIT ?", (name, CANDIDATES)
        )
        longer = (name, name + "\U0010ffff", CANDIDATES)
        rows += connection.execute(_SYMBOL + "names.lower > ? AND names.lower < ? LIMIT ?", longer)
    for number in narrowing(connection, "name_words", question.terms, CANDIDATES):
        rows += connection.execute(_SYMBOL + "names.id = ? ORDER BY paths.path LIMIT 5", (number,))
    hits: list[Hit] = []
    exact, whole = set(question.whole), question.whole[0]
    length = sum(map(len, question.terms))
    for path, line, name, kind, signature, lower in rows:
        covered = question.coverage({*parts(name), lower})
        if lower == whole:
            score = EXACT
        elif lower in exact:
            score = PREFIX + (EXACT - PREFIX) * covered / 2
        elif lower.startswith(whole):
            score = PREFIX + 50 * len(whole) / len(lower)
        elif covered > 0:
            score = PART * covered + 50 * min(1.0, length / len(lower)) * covered
        else:
            continue
        hits.append(Hit(path, line, name, kind, signature, round(score + _bonus(path, kind), 3)))
    return hits


def _bonus(path: str, kind: str) -> float:
    """Definitions people look for first: types before constants, the product's code before its tests."""
    return {"class": 6.0, "type": 6.0, "function": 4.0, "method": 3.0}.get(kind, 0.0) - (
        5.0 if "test" in path else 0.0
    )


def _paths(connection: sqlite3.Connection, question: Question) -> list[Hit]:
    rows = connection.execute(
        "SELECT path FROM path_words JOIN paths ON paths.id = path_words.rowid WHERE path_words MATCH ? ORDER BY length(path), path LIMIT ?",
        (_match(question.terms), CANDIDATES),
    )
    hits: list[Hit] = []
    for (path,) in rows:
        in_name = question.coverage(set(parts(path.rpartition("/")[2])))
        hits.append(
            Hit(
                path,
                1,
                None,
                "file",
                path,
                round(PATH + 50 * in_name - len(path) / 100 + _bonus(path, ""), 3),
            )
        )
    return hits


def _texts(connection: sqlite3.Connection, question: Question, named: set[str], wanted: int) -> list[Hit]:
    hits: list[Hit] = []
    for number in narrowing(connection, "blob_words", question.terms, wanted + 5):
        rows = connection.execute(
            "SELECT path, text FROM paths JOIN blobs ON blobs.id = paths.blob WHERE blobs.id = ? ORDER BY path LIMIT 10",
            (number,),
        ).fetchall()
        if not rows:
            continue
        text = zlib.decompress(rows[0][1]).decode("utf-8", errors="replace")
        line, snippet, covered = _best_line(text, question)
        if covered > 0:
            hits += [
                Hit(
                    path,
                    line,
                    None,
                    "text",
                    snippet,
                    round(TEXT * covered - (20.0 if path in named else 0.0), 3),
                )
                for path, _ in rows
            ]
    return hits


def _best_line(text: str, question: Question) -> tuple[int, str, float]:
    """The first line with most of the terms: (number, its text, the share of the terms)."""
    best, most = 0, 0
    lines = text.lower().split("\n")
    for number, content in enumerate(lines):
        held = sum(term in content for term in question.terms)
        if held > most:
            best, most = number, held
            if held == len(question.terms):
                break
    return best + 1, text.split("\n", best + 1)[best].strip()[:200], most / len(question.terms)
