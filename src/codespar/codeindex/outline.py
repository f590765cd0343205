"""The repository map: a compact outline of the files that matter for an instruction.

Files are ranked by a personalised PageRank over references (a file that uses a name points to the files that define it; see Page et al.,
"The PageRank Citation Ranking", 1998), restarted at the files whose path, symbols or text match the instruction. Deterministic: no time,
no randomness, ties by path.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from codespar.codeindex.extract import parts
from codespar.codeindex.lookup import Question, matching_symbols, narrowing

MAX_DEFINERS = 6  # a name defined in more files than this tells nothing about which one is meant
MIN_NAME = 4
DAMPING = 0.5
ROUNDS = 8
FILES = 40  # at most, in one map
SYMBOLS = 14  # at most, of one file


@dataclass(frozen=True, slots=True)
class Graph:
    """Which file refers to which, at one commit."""

    commit: str | None
    paths: tuple[str, ...]
    blobs: tuple[int, ...]
    uses: tuple[
        tuple[tuple[int, float], ...], ...
    ]  # for each file: (file it refers to, share of its references)
    referenced: dict[str, int]  # for each defined name: how many other files use it

    @staticmethod
    def current(connection: sqlite3.Connection, known: Graph | None) -> Graph:
        """The graph of the indexed commit: the known one when it is still right."""
        row = connection.execute("SELECT value FROM meta WHERE name='commit'").fetchone()
        commit = row[0] if row else None
        if known is not None and known.commit == commit:
            return known
        rows = connection.execute(
            "SELECT path, blob, identifiers FROM paths JOIN blobs ON blobs.id = paths.blob WHERE language NOT NULL ORDER BY path"
        ).fetchall()
        numbers: dict[int, list[int]] = {}
        for number, (_, blob, _) in enumerate(rows):
            numbers.setdefault(blob, []).append(number)
        definers: dict[str, list[int]] = {}
        for name, blob in connection.execute(
            "SELECT DISTINCT names.name, blob FROM symbols JOIN names ON names.id = symbols.name WHERE length(names.name) >= ?",
            (MIN_NAME,),
        ):
            if blob in numbers:
                definers.setdefault(name, []).extend(numbers[blob])
        telling = {name: sorted(files) for name, files in definers.items() if len(files) <= MAX_DEFINERS}
        referenced: dict[str, int] = {}
        uses: list[tuple[tuple[int, float], ...]] = []
        for number, (_, _, identifiers) in enumerate(rows):
            weights: dict[int, float] = {}
            for name in identifiers.split(" "):
                files = telling.get(name)
                if files is None or number in files:
                    continue
                referenced[name] = referenced.get(name, 0) + 1
                for file in files:
                    weights[file] = weights.get(file, 0.0) + 1.0 / len(files)
            total = sum(weights.values())
            uses.append(tuple((file, weight / total) for file, weight in weights.items()))
        return Graph(
            commit, tuple(row[0] for row in rows), tuple(row[1] for row in rows), tuple(uses), referenced
        )

    def rank(self, matching: dict[int, float]) -> list[float]:
        """The weight of each file when reading starts at the matching ones and follows references. The weights sum to at most 1."""
        count = len(self.paths)
        base = 0.1 / count
        total = sum(matching.values()) or 1.0
        start = [base + 0.9 * matching.get(number, 0.0) / total for number in range(count)]
        weights = start
        for _ in range(ROUNDS):
            following = [(1 - DAMPING) * value for value in start]
            for number, uses in enumerate(self.uses):
                given = DAMPING * weights[number]
                for file, share in uses:
                    following[file] += given * share
            weights = following
        return weights


def outline(connection: sqlite3.Connection, graph: Graph, instruction: str, budget: int) -> str:
    """The map's text, never longer than `budget` characters. Empty when nothing is indexed."""
    if not graph.paths or budget <= 0:
        return ""
    question = Question.of(instruction)
    weights = graph.rank(_matching(connection, graph, question))
    order = sorted(range(len(weights)), key=lambda number: (-round(weights[number], 12), graph.paths[number]))
    pieces: list[str] = []
    left = budget
    for number in order[:FILES]:
        lines = _signatures(connection, graph, graph.blobs[number], question)
        head = f"{graph.paths[number]}:\n"
        if len(head) > left or not lines:
            continue
        piece = head
        for line in lines:
            if len(piece) + len(line) <= left:
                piece += line
        pieces.append(piece)
        left -= len(piece)
    return "".join(pieces).rstrip("\n")


def _matching(connection: sqlite3.Connection, graph: Graph, question: Question) -> dict[int, float]:
    """How well each file matches the instruction by its text, symbols and path."""
    if not question.terms:
        return {}
    ranks = dict.fromkeys(narrowing(connection, "blob_words", question.terms, 100), 0.5)
    named: dict[str, float] = {}
    for hit in matching_symbols(connection, question):
        named[hit.path] = max(named.get(hit.path, 0.0), hit.score / 1000)
    matching: dict[int, float] = {}
    for number, (path, blob) in enumerate(zip(graph.paths, graph.blobs, strict=True)):
        score = ranks.get(blob, 0.0) + named.get(path, 0.0) + 0.7 * question.coverage({*parts(path)})
        if score > 0:
            matching[number] = score**2  # a clear match is worth much more than many weak ones
    return matching


def _signatures(connection: sqlite3.Connection, graph: Graph, blob: int, question: Question) -> list[str]:
    """A file's most telling definitions, in the order of their lines."""
    rows = connection.execute(
        "SELECT names.name, kind, line, signature FROM symbols JOIN names ON names.id = symbols.name WHERE blob=? ORDER BY line",
        (blob,),
    ).fetchall()

    def worth(row: tuple[str, str, int, str]) -> tuple[float, int]:
        name, kind, line, _ = row
        score = 5.0 * question.coverage(set(parts(name))) + min(3.0, graph.referenced.get(name, 0) / 3)
        return -(score + {"class": 2.0, "type": 2.0, "function": 1.0, "method": 0.5}.get(kind, 0.0)), line

    chosen = sorted(sorted(rows, key=worth)[:SYMBOLS], key=lambda row: row[2])
    return [
        f"    {signature[:160]}\n" if kind == "method" else f"  {signature[:160]}\n"
        for _, kind, _, signature in chosen
    ]
