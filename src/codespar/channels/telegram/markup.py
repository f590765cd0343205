"""Text for Telegram: cleaned, unable to ping anybody, escaped, and measured as people read it.

Pure. Words of people and models go through `words`, `bold`, `code`, `pre` or `link` of a `Pen` and through nothing else: none of them can
mention anybody, open a Telegram address or break out of its markup.
"""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import urlsplit

from codespar.channels.text import split, utf16

JOINER = "\u2060"  # word joiner: takes no room, and ends what Telegram reads as a name or an address
_UNSEEN = {"\u115f", "\u1160", "\u2800", "\u3164", "\uffa0", "\ufffc"}  # blank, though no blank by category
_REMOVED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_ENDS = re.compile("\r\n|[\r\u2028\u2029]")
_MENTION = re.compile(rf"(?<![A-Za-z0-9_])@(?=[^\s{JOINER}])")
_SCHEME = re.compile(r"(tg|ton|tonsite):(?=//)", re.IGNORECASE)
_LANGUAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+#._-]{0,31}")
QUESTION = "answer-"  # the language of the block that names a form's command (normalize.py): ours alone


def clean(text: str) -> str:
    """Without what Telegram refuses or drops: null and other control characters, lone surrogates, signs that turn the writing round."""
    return _REMOVED.sub("", _LINE_ENDS.sub("\n", text))


def quiet(text: str) -> str:
    """Names behind an @ mention nobody, and tg:// addresses lead nowhere: a word joiner stands in them. An e-mail address stays whole."""
    return _SCHEME.sub(rf"\1:{JOINER}", _MENTION.sub(f"@{JOINER}", text))


def visible(text: str) -> bool:
    """Whether there is anything to see. Telegram refuses a message without."""
    return any(
        char not in _UNSEEN and unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zs", "Zl", "Zp", "Mn")
        for char in text
    )


def web(url: str) -> str | None:
    """The address as it may stand behind a link, or None when it is no http(s) address."""
    if not re.fullmatch(r"https?://[\x21-\x7e\xa1-\ud7ff\ue000-\U0010ffff]{1,2000}", url, re.IGNORECASE):
        return None
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return None
    return url if parts.hostname and "\\" not in url and clean(url) == url else None


@dataclass(frozen=True)
class Piece:
    """A stretch of a message: as it is sent, as it is read, and how many entities it makes."""

    sent: str
    read: str
    entities: int = 0

    @property
    def length(self) -> int:
        """UTF-16 units, as Telegram counts them."""
        return utf16(self.read)

    def __add__(self, other: Piece) -> Piece:
        return Piece(self.sent + other.sent, self.read + other.read, self.entities + other.entities)


@dataclass(frozen=True)
class Pen:
    """Writes pieces, in Telegram's HTML or, when `rich` is False, as text alone."""

    rich: bool = True

    def words(self, text: str) -> Piece:
        shown = quiet(clean(text))
        return Piece(html.escape(shown, quote=False) if self.rich else shown, shown)

    def bold(self, text: str) -> Piece:
        return self._tagged("b", self.words(text))

    def italic(self, text: str) -> Piece:
        return self._tagged("i", self.words(text))

    def code(self, text: str) -> Piece:
        """A stretch of code on one line: nothing in it is a mention, so it is shown as it is and can be copied."""
        if not self.rich:
            return self.words(f"`{clean(text)}`")
        shown = clean(text)
        return self._tagged("code", Piece(html.escape(shown, quote=False), shown))

    def pre(self, text: str, language: str = "") -> Piece:
        if not self.rich:
            return self.words(text)
        shown = clean(text)
        escaped = html.escape(shown, quote=False)
        if not _LANGUAGE.fullmatch(language) or language.lower().startswith(QUESTION):
            return Piece(f"<pre>{escaped}</pre>", shown, 1)
        return Piece(f'<pre><code class="language-{language}">{escaped}</code></pre>', shown, 1)

    def link(self, label: str, url: str) -> Piece:
        """A link to an http(s) address; any other address is shown as text."""
        address = web(url)
        if not self.rich or address is None:
            return self.words(f"{label}: {url}" if label else url)
        name = self.words(label if visible(clean(label)) else address)
        return Piece(f'<a href="{html.escape(address)}">{name.sent}</a>', name.read, 1)

    def cut(self, text: str, limit: int, *, bold: bool = False) -> list[Piece]:
        """Text of any length in pieces of at most `limit` units, nothing lost but what cannot be seen."""
        write = self.bold if bold else self.words
        # one unit less: a piece that begins with an @ gets its joiner only now that nothing stands before it
        return [write(piece) for piece in split(quiet(clean(text)), limit - 1, utf16) if visible(piece)]

    def _tagged(self, tag: str, piece: Piece) -> Piece:
        if not self.rich or not visible(piece.read):
            return piece
        return Piece(f"<{tag}>{piece.sent}</{tag}>", piece.read, piece.entities + 1)
