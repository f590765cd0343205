"""What every renderer does with text, whatever the platform: measure it, split it without loss, fold what is long into a file.

Pure. Joining what `split` returns gives the text back: nothing is cut in silence.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable

from codespar.channels.base import File
from codespar.domain.messages import Block, NormalizedResponse
from codespar.domain.tasks import counted, money

Measure = Callable[[str], int]
_EXTENSIONS = {"diff": "diff", "python": "py", "json": "json", "yaml": "yaml", "markdown": "md", "sh": "sh"}
_JOINING = "\u200d"  # zero-width joiner: what stands on both sides of it is one sign


def utf16(text: str) -> int:
    """UTF-16 code units, in which Telegram and Discord count."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def utf8(text: str) -> int:
    """Bytes."""
    return len(text.encode("utf-8", "surrogatepass"))


def split(text: str, limit: int, measure: Measure = len) -> list[str]:
    """Cut into pieces of at most `limit`, at the end of a line where there is one in the second half, else of a word, else of a sign.

    Joined, the pieces are the text. An empty text is no piece. Raises ValueError when a single character is more than the limit.
    """
    pieces: list[str] = []
    while text:
        if measure(text) <= limit:
            pieces.append(text)
            break
        end = _fitting(text, limit, measure)
        if end == 0:
            raise ValueError(f"a limit of {limit} holds not even one character")
        cut = _boundary(text, end)
        pieces.append(text[:cut])
        text = text[cut:]
    return pieces


def _fitting(text: str, limit: int, measure: Measure) -> int:
    """How many characters from the start fit."""
    low, high = 0, min(len(text), limit)
    while low < high:
        middle = (low + high + 1) // 2
        if measure(text[:middle]) <= limit:
            low = middle
        else:
            high = middle - 1
    return low


def _boundary(text: str, end: int) -> int:
    for separator in ("\n", " "):
        found = text.rfind(separator, end // 2, end)
        if found > 0:
            return found + 1
    cut = end
    while cut > max(1, end - 32) and _inside_a_sign(text, cut):
        cut -= 1
    return end if _inside_a_sign(text, cut) else cut


def _inside_a_sign(text: str, at: int) -> bool:
    """Whether what people see as one sign goes on over this place."""
    if at >= len(text):
        return False
    following, before = text[at], text[at - 1]
    return (
        unicodedata.combining(following) != 0
        or following == _JOINING
        or before == _JOINING
        or "\ufe00" <= following <= "\ufe0f"
        or "\U0001f3fb" <= following <= "\U0001f3ff"
        or (before == "\r" and following == "\n")
    )


def packed(pieces: Iterable[str], limit: int, measure: Measure = len, between: str = "\n") -> list[str]:
    """Put pieces together, in order, into as few texts of at most `limit` as they fit into. Each piece must fit by itself."""
    texts: list[str] = []
    for piece in pieces:
        joined = texts[-1] + between + piece if texts else piece
        if texts and measure(joined) <= limit:
            texts[-1] = joined
        else:
            texts.append(piece)
    return texts


def as_file(block: Block, place: int) -> File:
    """A block that is too long for a message, as a file: `change-1.diff`."""
    known = _EXTENSIONS.get(block.language)
    stem = "change" if block.language == "diff" else "text"
    return File(
        name=f"{stem}-{place}.{known or 'txt'}",
        content=block.text.encode("utf-8", "replace"),
        media_type="text/plain",
    )


def preview(text: str, lines: int = 12, characters: int = 800) -> str:
    """The beginning of a text whose whole is in a file."""
    shown = "\n".join(text.split("\n")[:lines])
    return shown[:characters]


def progress_line(response: NormalizedResponse) -> str:
    """What the work has used so far, on one line; empty without progress."""
    used = response.progress
    if used is None:
        return ""
    return f"{used.phase} · {used.elapsed_seconds:.0f} s · {counted(used.turns, 'turn')} · {money(used.cost_micros)}"
