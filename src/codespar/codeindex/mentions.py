"""How a name is used where it stands in a file: called, mentioned, imported, or only spoken of in a string or a comment.

Pure, and without a parser: a question may look at hundreds of files, for which a syntax tree would take too long. So it is a reading by
the look of a line, with strings and comments told apart by a scan from the file's start. It must never take a part of a longer name for
the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice

from codespar.codeindex.languages import other_code

MAX_SNIPPET = 200
MAX_MATCHES = 60  # of one name in one file; what follows is passed over
MAX_LINE = 1000  # characters; no person writes longer ones


class Use(IntEnum):
    """How a name is used. The higher, the surer it is that the code depends on what is named."""

    COMMENT = 20
    STRING = 40
    OTHER = 60  # an argument, key or variable of that name
    IMPORT = 100
    MENTION = 200
    CALL = 300


@dataclass(frozen=True, slots=True)
class Mention:
    """One place where a name stands and is not being defined."""

    start: int  # characters from the text's start
    line: int  # from 1
    use: Use
    snippet: str


# The files are written by others, so that no pattern below may take long on any of them: none has two neighbours, or a loop within a
# loop, that could share out the same characters among themselves.
_SET = re.compile(r"[ \t]*=(?![=~>])")
_ASKED = re.compile(r"(?:.*(?:::|[.#\\]|->))?((?:[^\W\d]|\$)[\w$]*)([?!=]?)", re.DOTALL)
_STYLES = {"python": "python", "ruby": "hash", "javascript": "javascript", "typescript": "javascript", "tsx": "javascript", "php": "php"}  # fmt: skip
# Each alternative begins with a plain character and holds no choice within a loop: the scan has to be fast, and linear whatever it meets.
# A lone quote is no string's, unless a backslash follows on its line.
_DOUBLE = r'"[^"\\\n]*(?:"|(?:\\.[^"\\\n]*)+"?)'
_SINGLE = r"'[^'\\\n]*(?:'|(?:\\.[^'\\\n]*)+'?)"
_BACKTICK = r"`[^`\\]*(?:`|(?:\\.[^`\\]*)+`?)"
_TRIPLE_DOUBLE = r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*(?:"""|\Z)'
_TRIPLE_SINGLE = r"'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*(?:'''|\Z)"
_CHARACTER = r"'(?:\\[^'\n]+|\\'|[^'\\\n])'"  # where a single quote is not a string's, but a character's or a lifetime's
_SLASHES = r"//[^\n]*|/\*[^*]*(?:\*(?!/)[^*]*)*(?:\*/|\Z)"
_SPANS = {
    style: re.compile(pattern, re.DOTALL)
    for style, pattern in {
        "python": rf"#[^\n]*|{_TRIPLE_DOUBLE}|{_TRIPLE_SINGLE}|{_DOUBLE}|{_SINGLE}",
        "hash": rf"#(?!\{{)[^\n]*|=begin\b.*?(?:\n=end\b|\Z)|{_DOUBLE}|{_SINGLE}",
        "javascript": rf"{_SLASHES}|{_DOUBLE}|{_SINGLE}|{_BACKTICK}",
        "php": rf"{_SLASHES}|#(?!\[)[^\n]*|{_DOUBLE}|{_SINGLE}",
        "slash": rf"{_SLASHES}|{_TRIPLE_DOUBLE}|{_DOUBLE}|{_CHARACTER}|{_BACKTICK}",
    }.items()
}
_CALLED = re.compile(r"[ \t]*\(|!?[ \t]*\(|![ \t]*[\[{]|(?:::)?<[\w\s,.\[\]?&:'<>|]{0,80}>\(")
_QUALIFIES = re.compile(r"::(?!<)")
_GO_SIGNATURE = re.compile(r"\([^()]*\)[ \t]*[\w(*\[]")  # in an interface: a call is not followed by a type
_ASSIGNED = re.compile(r"[ \t]*(?::=|=(?![=>~])|:(?!:))")
_LITERAL = re.compile(r"[ \t]*\{")
_MADE = re.compile(r"(?:\bnew\s+(?:[\w.\\]+[.\\])?|(?:^|[\s(])@(?:[\w.]+\.)?|(?:^|[^\w<])</?(?:[\w.]+\.)?)$")
_DEFINED = re.compile(
    r"(?:\b(?:def|fn|fun|func|sub|function\*?|class|interface|trait|module|object|record|protocol|namespace|type|macro_rules!|#\s*define)\s+(?:[\w.:]*[.:])?"
    r"|\bfunc\s*\([^)]*\)\s*|\bfunction\s*\*?\s*)$"
)
_TYPED = re.compile(r"(?:->|\b(?:impl|for|struct|enum|union|trait|interface|class|extends|implements|where))[\s&*:<>\w]*$")  # fmt: skip
_OBJECT_METHOD = re.compile(r"\([^()]*\)\s*(?::[\w<>\[\]|,\s]+)?\{\s*$")
_MODIFIERS = re.compile(
    r"\s*(?:(?:async|static|get|set|public|private|protected|override|readonly)\s+)*[*#]?$"
)
_IMPORTING = re.compile(
    r"\s*(?:import\b|from\s+\S+\s+import\b|(?:pub(?:\([\w ]+\))?\s+)?use\s|using\s|require\b|require_relative\b|#\s*include|export\s.*\bfrom\s|\}\s*from\s|(?:const|let|var)\s.*=\s*(?:await\s+import|require)\s*\()"
)
_LISTED = re.compile(
    r"\s*(?:type\s+)?[\w$.:]+(?:\s+as\s+\w+)?\s*(?:,\s*)?(?:[)}]+\s*)?(?:;\s*)?(?:#.*|//.*)?"
)
_IMPORT_OPEN = re.compile(
    r"(?:\A|\n)[ \t]*(?:from[^\n]*\bimport|import|(?:pub\s+)?use|export)\b[^)};=({]*[({][^);=]*\Z"
)


def asked(name: str) -> tuple[str, str] | None:
    """The identifier that is looked for when somebody asks for a name, and Ruby's ending of it: `Limiter.allow?` is (allow, ?).

    None when it is not a name that can be looked for: an operator, say, or one letter.
    """
    found = _ASKED.fullmatch(name.strip())
    return (found[1], found[2]) if found and len(found[1]) > 1 else None


def mentions(text: str, path: str, language: str | None, identifier: str) -> Iterator[Mention]:
    """Every place in a file where an identifier (with its ending, if any) stands and is not defined by the look of it, in order."""
    style = _STYLES.get(language, "slash") if language else other_code(path)
    hidden: _Hidden | None = None
    line, counted = 1, 0
    for start, end in islice(_places(text, identifier), MAX_MATCHES):
        line, counted = line + text.count("\n", counted, start), start
        first = text.rfind("\n", 0, start) + 1
        stop = text.find("\n", end)
        stop = stop if stop >= 0 else len(text)
        hidden = hidden or _Hidden(text, style)
        use = hidden.at(start)
        if use is None:
            before, whole = (
                text[max(first, start - MAX_LINE) : start],
                text[max(first, start - MAX_LINE) : stop][: 2 * MAX_LINE],
            )
            use = _use(text, start, end, before, whole, language, identifier)
        if use is not None and (style is None or stop - first > MAX_LINE):
            use = min(use, Use.OTHER if use is Use.CALL else Use.COMMENT)  # prose, or what a program wrote
        if use is not None:
            begin = max(first, start - MAX_SNIPPET // 2) if stop - first > MAX_LINE else first
            yield Mention(start, line, use, text[begin:stop][:MAX_LINE].strip()[:MAX_SNIPPET])


def _places(text: str, identifier: str) -> Iterator[tuple[int, int]]:
    """Where the identifier stands as a whole word: (start, end). A setter `x=` is found where something is assigned."""
    word = identifier.removesuffix("=")
    start = text.find(word)
    while start >= 0:
        end = start + len(word)
        alone = not _wordly(text[start - 1 : start] if start else "")
        if (
            alone
            and not (word[-1] not in "?!" and _wordly(text[end : end + 1]))
            and (word is identifier or _SET.match(text, end))
        ):
            yield start, end
        start = text.find(word, end)


def _wordly(character: str) -> bool:
    return character.isalnum() or character in ("_", "$")


def _use(
    text: str, start: int, end: int, before: str, whole: str, language: str | None, identifier: str
) -> Use | None:
    """How a name in the code itself is used; None when it is defined there."""
    if _IMPORTING.match(whole):
        return Use.IMPORT
    if _DEFINED.search(before):
        return None
    if _LISTED.fullmatch(whole) and _IMPORT_OPEN.search(text, max(0, start - 1500), start):
        return Use.IMPORT
    dotted = before.endswith((".", "->", "::", "?."))
    scripted = language in ("javascript", "typescript", "tsx") and not dotted
    if scripted and _MODIFIERS.fullmatch(before) and _OBJECT_METHOD.match(whole, len(before) + end - start):
        return None
    if language == "go" and not before.strip() and _GO_SIGNATURE.match(text, end):
        return None
    if identifier.endswith("=") or _MADE.search(before) or _CALLED.match(text, end):
        return Use.CALL
    if _QUALIFIES.match(text, end):
        return Use.CALL if text[start].isupper() else Use.MENTION  # a type, or else a module
    if language == "ruby" and text[start].isupper():
        return Use.CALL if text.startswith(".new", end) else Use.MENTION
    if language == "ruby" and (dotted or identifier[-1] in "?!" or not before.strip()):
        return Use.OTHER if not dotted and _ASSIGNED.match(text, end) else Use.CALL
    if language in ("go", "rust", "cpp", "c") and text[start].isupper() and _LITERAL.match(text, end):
        return Use.MENTION if _TYPED.search(before) else Use.CALL
    if not dotted and _ASSIGNED.match(text, end):
        return Use.OTHER
    return Use.MENTION


class _Hidden:
    """The strings and comments of a text, read as far as they are asked for. Ask in the order of places."""

    def __init__(self, text: str, style: str | None) -> None:
        self._text = text
        self._spans: Iterator[re.Match[str]] = _SPANS[style].finditer(text) if style else iter(())
        self._span: re.Match[str] | None = next(self._spans, None)

    def at(self, place: int) -> Use | None:
        """What hides a place: a comment or a string; None for code, also for code within a string that is filled in."""
        while self._span is not None and self._span.end() <= place:
            self._span = next(self._spans, None)
        if self._span is None or self._span.start() > place:
            return None
        begin = self._span.start()
        if self._text[begin] in "#/=":
            return Use.COMMENT
        if self._text.rfind("{", begin, place) > self._text.rfind("}", begin, place):
            filled = self._text[max(0, begin - 2) : begin].lower()
            opened = self._text.rfind("{", begin, place)
            if self._text[begin] == "`" or "f" in filled or self._text[opened - 1] in "#$":
                return None
        return Use.STRING
