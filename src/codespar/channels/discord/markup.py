r"""Discord's Markdown: text of people and models made harmless, and what may not be in a message at all taken out.

A backslash before a sign shows the sign: `\*` is read as `*`. Nothing here takes a visible character away; `read` is the way back.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote, urlsplit

from codespar.channels.text import utf16

_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_EMPHASIS = re.compile(r"[\\`*_~|<\[\]]")
_SCHEME = re.compile(
    r":(?=//)|:(?=[A-Za-z0-9_+\-]+(?::|$))"
)  # an address that would become a link; an :emoji: name
_LINE_START = re.compile(r"(?m)^([ \t]*)(#|>|-|\+|(?:\d+)(?=\.\s))")
_EVERYBODY = re.compile(r"@(?=everyone|here)", re.IGNORECASE)
_INVITE = re.compile(r"(?i)(?<=discord|app\.com)([./])(?=gg|com|invite|\w)")
_FENCE = "```"
BREAK = "\u200b"  # zero-width space: keeps the backticks of a quoted fence apart
_SAFE_IN_URL = "%/:?#@!$&'*+,;=-._~"


def clean(text: str) -> str:
    """Without null bytes, control characters and lone surrogates; lines end with a newline."""
    return _FORBIDDEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def blank(text: str) -> bool:
    """Whether people would see nothing: Discord refuses or trims such a text."""
    return all(unicodedata.category(char)[0] in "ZC" for char in text)


def escape(text: str) -> str:
    """The text so that it is read as it is: no emphasis, link, mention, heading, list, quote, spoiler or code."""
    text = _EMPHASIS.sub(lambda found: "\\" + found[0], text)
    text = _SCHEME.sub("\\:", text)
    text = _EVERYBODY.sub("\\@", text)
    text = _INVITE.sub(r"\\\1", text)
    return _LINE_START.sub(_shown_start, text)


def _shown_start(found: re.Match[str]) -> str:
    space, sign = found.groups()
    return f"{space}{sign}\\" if sign[0].isdigit() else f"{space}\\{sign}"


def escaped_length(text: str) -> int:
    return utf16(escape(text))


def inside_fence(text: str) -> str:
    """The text so that it cannot end the code fence it stands in."""
    return re.sub("`(?=`)", "`" + BREAK, text) if _FENCE in text else text


def fence(text: str, language: str = "") -> str:
    word = language if re.fullmatch(r"[A-Za-z0-9+#-]{1,20}", language) else ""
    return f"{_FENCE}{word}\n{inside_fence(text)}\n{_FENCE}"


def breaks_fence(text: str) -> bool:
    return _FENCE in text


def code(text: str) -> str:
    """A command as inline code, which people can copy; escaped where code cannot hold it."""
    return escape(text) if "`" in text or "\n" in text or blank(text) else f"`{text}`"


def link(label: str, url: str) -> str:
    """A masked link; as text where the address is not one of the web, or where the label would hide another address."""
    try:
        parts = urlsplit(url)
        web = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        web = False
    address = quote(url, safe=_SAFE_IN_URL)
    if not web or len(address) > 1000:
        return f"{escape(label)}: {escape(url)}"
    if blank(label) or "\n" in label or "://" in label or re.search(r"\w\.\w\w", label) or len(label) > 200:
        return f"{escape(label)}: <{address}>"
    return f"[{escape(label)}]({address})"


def name(text: str) -> str:
    """A display name: one line of at most 80 characters, nothing that reorders or hides."""
    kept = "".join(" " if char in "\n\t" else char for char in text if _plain_sign(char))
    return " ".join(kept.split())[:80]


def _plain_sign(char: str) -> bool:
    return char in "\n\t\u200d" or unicodedata.category(char)[0] != "C"
