"""What nobody sees: terminal escapes, invisible and direction-changing characters, comments of HTML and Markdown.

Pure, and linear in the text's length. What a script or an emoji needs is kept: a joiner between two signs, a variation selector behind
one, the three flags that are spelled with tag characters. A second pass finds nothing more.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|\x1b\][^\n\x07\x1b]{0,4096}(?:\x07|\x1b\\)"  # titles, links
    r"|\x1b[@-Z\\^_]"
)
_INVISIBLE = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters but tab and newline
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\ufe00-\ufe0f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # Unicode's Default_Ignorable_Code_Point
    "\ud800-\udfff\ue000-\uf8ff\U000f0000-\U0010ffff"  # surrogates, private use
)
_HIDDEN = re.compile(rf"\r(?!\n)|[{_INVISIBLE}]")
_FLAG = re.compile(
    "\U0001f3f4\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067|\U000e0073\U000e0063\U000e0074|\U000e0077\U000e006c\U000e0073)\U000e007f"
)
_JOINERS, _SELECTORS = "\u200c\u200d", "\ufe0e\ufe0f"
_KEYCAP = "\u20e3"
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_MARKDOWN_COMMENT = re.compile(r"^ {0,3}\[[^\]\n]{0,200}\]: *(?:#|<>) *[(\"'].*$\n?", re.MULTILINE)


def suspicious(text: str) -> bool:
    """Whether a closer look is worth it."""
    return "<!--" in text or "]:" in text or _HIDDEN.search(text) is not None


def without_escapes(text: str) -> tuple[str, int]:
    """The text without terminal escapes, and how many there were."""
    return _ESCAPE.subn("", text) if "\x1b" in text or "\x9b" in text else (text, 0)


def without_hidden(text: str) -> tuple[str, int]:
    """The text without characters that nobody sees, and how many there were."""
    return _replaced(text, lambda _char: "")


def with_hidden_shown(text: str) -> tuple[str, int]:
    """The text with every character that nobody sees written out as `⟨U+202E⟩`, and how many there were."""
    return _replaced(text, lambda char: f"⟨U+{ord(char):04X}⟩")


def without_comments(text: str) -> tuple[str, int]:
    """The text without comments that a rendered page does not show, and how many there were."""
    count = 0
    if "]:" in text:
        text, count = _MARKDOWN_COMMENT.subn("", text)
    if "<!--" not in text:
        return text, count
    text, comments = _COMMENT.subn("", text)
    return text.replace("<!--", "&lt;!--"), count + comments  # what was put together by taking another out


def _replaced(text: str, instead: Callable[[str], str]) -> tuple[str, int]:
    """What is left out or written out is decided by the signs around it as they stay."""
    pieces: list[str] = []
    count, at, last = 0, 0, ""
    while found := _HIDDEN.search(text, at):
        place = found.start()
        if place > at:
            pieces.append(text[at:place])
            last = text[place - 1]
        char = found[0]
        at = place + 1
        if flag := _FLAG.match(text, place - 1) if last == "\U0001f3f4" and place else None:
            pieces.append(text[place : flag.end()])
            at, last = flag.end(), "\U000e007f"
        elif _belongs(char, last, text[at : at + 1]):
            pieces.append(char)
            last = char
        else:
            count += 1
            if put := instead(char):
                pieces.append(put)
                last = put[-1]
    return ("".join([*pieces, text[at:]]), count) if count else (text, 0)


def _belongs(char: str, before: str, after: str) -> bool:
    """Whether an invisible character does its work where it stands: it joins two signs, or says how one is shown."""
    if char in _JOINERS:
        return (_is_sign(before) or (before != "" and before in _SELECTORS)) and _is_sign(after)
    if char in _SELECTORS:
        return (
            after == _KEYCAP if before in "0123456789#*" else before > "\u00a0" and not _HIDDEN.match(before)
        )
    return False


def _is_sign(char: str) -> bool:
    """A letter of a script that joins, or an emoji."""
    return char >= "\u0600" and not _HIDDEN.match(char)
