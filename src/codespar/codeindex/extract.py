"""From a file's bytes to what the index keeps of it: definitions, identifiers, words, compressed text.

Pure: the same bytes always give the same result, which is what lets content be keyed by its hash alone. It runs in worker processes;
it must never read files, and a file that cannot be parsed still gives its words.
"""

from __future__ import annotations

import re
import threading
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from codespar.codeindex.languages import DECLARING, SPECIFIC, WRAPPING, grammar

if TYPE_CHECKING:
    from tree_sitter import Node

MAX_BYTES = 1 << 20
MAX_SIGNATURE = 200
MAX_SYMBOLS = 5000
MAX_DEPTH = (
    8  # of the syntax tree: enough for a method in a class in two namespaces; what is nested deeper is local
)
_LFS = b"version https://git-lfs.github.com/spec/"
_BETWEEN = bytes(
    c if c > 127 or c == 95 or chr(c).isalnum() else 32 for c in range(256)
)  # what separates words becomes a space
MAX_WORD = 64
MIN_IDENTIFIER = 3
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+|\d+")
_parsing = threading.Lock()  # parsers are shared within a process


# A definition: (name, kind, line from 1, the line that names it, lines above that one that belong to it, lines below).
# A plain tuple, for many are sent between processes.
Symbol = tuple[str, str, int, str, int, int]


@dataclass(frozen=True, slots=True)
class Content:
    """What is kept of one blob."""

    key: str
    language: str | None
    text: bytes  # zlib; empty when it is not text of ours to read
    identifiers: str  # every distinct identifier, one space between
    symbols: tuple[Symbol, ...]
    words: str  # for full text: every distinct word of the file


@dataclass(frozen=True, slots=True)
class Source:
    """One blob that was read. `key` is its hash and its language, for the same bytes may stand under two endings."""

    key: str
    language: str | None
    data: bytes | None  # None when it is too big


@lru_cache(maxsize=200_000)
def parts(identifier: str) -> tuple[str, ...]:
    """The words an identifier is made of, in lower case: `rateLimiter` and `rate_limiter` give rate and limiter."""
    return tuple(part.lower() for part in _PARTS.findall(identifier))


def tokens(data: bytes) -> set[str]:
    """The distinct words of a text, as they stand in it."""
    found = b" ".join(set(data.translate(_BETWEEN).split())).decode("utf-8", errors="replace").split(" ")
    return {word for word in found if 2 <= len(word) <= MAX_WORD}


def words_of(found: set[str]) -> str:
    """A text's `tokens` as the full-text index gets them: the parts of each, each once."""
    return " ".join({part for word in found for part in parts(word)})


def readable(data: bytes | None) -> bool:
    """Whether a blob is text to be indexed: not binary, not too big, no pointer to content kept elsewhere."""
    return (
        data is not None and len(data) <= MAX_BYTES and b"\0" not in data[:8192] and not data.startswith(_LFS)
    )


def symbols_of(language: str, data: bytes) -> tuple[Symbol, ...]:
    """The definitions in a file, in the order of their lines."""
    from tree_sitter import QueryCursor

    with _parsing:
        parser, query = grammar(language)
        cursor = QueryCursor(query)
        cursor.set_max_start_depth(MAX_DEPTH)
        captured = cursor.captures(parser.parse(data).root_node)
    lines = data.split(b"\n")
    named: dict[int, tuple[str, Node]] = {}
    for kind in SPECIFIC:
        for node in captured.get(kind, ()):
            named.setdefault(node.start_byte, (kind, node))
    found: list[Symbol] = []
    for start in sorted(named)[:MAX_SYMBOLS]:
        kind, node = named[start]
        row = node.start_point[0]
        name = data[start : node.end_byte].decode("utf-8", errors="replace")
        begin = lines[row][: 8 * MAX_SIGNATURE]  # a program's line may have a megabyte
        signature = begin.decode("utf-8", errors="replace").strip()[:MAX_SIGNATURE]
        found.append((name[:MAX_SIGNATURE], kind, row + 1, signature, *extent(node, lines)))
    return tuple(found)


def extent(name: Node, lines: list[bytes]) -> tuple[int, int]:
    """How many lines of a definition stand above and below the line of its name. Decorators, annotations and attributes belong to it."""
    row = name.start_point[0]
    whole = name.parent or name
    while (outer := whole.parent) is not None and (whole.type in DECLARING or outer.type in WRAPPING):
        whole = outer
    (first, _), (last, column) = whole.start_point, whole.end_point
    if whole.type.endswith("_item"):  # Rust's attributes stand before what they are of, and not within
        while first > 0 and lines[first - 1].lstrip().startswith(b"#["):
            first -= 1
    return row - first, max(0, last - row - (column == 0))


def extract(source: Source, parse: bool = True) -> Content:
    """Everything the index keeps of one blob. With `parse` False it keeps words only."""
    data = source.data
    if data is None or not readable(data):
        return Content(source.key, None, b"", "", (), "")
    language = source.language if parse else None
    symbols = symbols_of(language, data) if language else ()
    found = tokens(data)
    used = [word for word in found if len(word) >= MIN_IDENTIFIER and word.isidentifier()] if language else []
    return Content(
        key=source.key,
        language=language,
        text=zlib.compress(data, 1),
        identifiers=" ".join(sorted(used)),
        symbols=symbols,
        words=words_of(found),
    )


def extract_all(sources: list[Source], parse: bool = True) -> list[Content]:
    """`extract` for a batch: what a worker process is given."""
    return [extract(source, parse) for source in sources]
