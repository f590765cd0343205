"""A response as comments in GitHub's Markdown: nothing that people wrote can mention, link, hide or command anything, and nothing is cut.

Pure. What is longer than one comment becomes several, at the end of a part; a part that is too long is several parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

from codespar.channels.text import packed, progress_line, split
from codespar.domain.messages import Link, NormalizedResponse
from codespar.domain.reviewtext import code, fenced, inline, prose

MOST = 60_000  # characters of one comment; GitHub takes 65,536, and the forge adds a line by which it finds its own
WRITTEN = 8_000  # characters of text by others in one part: escaped, each becomes seven at most
FENCED = 19_000  # characters of a code block in one part: its fence may be as long as the text
_LANGUAGE = re.compile(r"[\w+-]{1,20}", re.ASCII)
_COMMAND = re.compile(r"(?m)^([ \t]*)/(?=\w)")  # at the start of a line, other programs take it for a command


def comments(response: NormalizedResponse, *, plain: bool) -> list[str]:
    """The bodies of the comments, in order; at least one."""
    parts = _plain(response) if plain else _rich(response)
    return packed([part for part in parts if part.strip()], MOST, between="\n\n") or ["…"]


def _plain(response: NormalizedResponse) -> Iterator[str]:
    for piece in split(response.plain(), WRITTEN):
        yield _told(piece)


def _rich(response: NormalizedResponse) -> Iterator[str]:
    for piece in split(response.title.strip(), WRITTEN):
        if line := _line(piece):
            yield f"**{line}**"
    for piece in split(response.text, WRITTEN):
        yield _told(piece)
    yield from _fields(response)
    for block in response.blocks:
        yield f"{_line(block.title, WRITTEN)}"
        known = _LANGUAGE.fullmatch(block.language) and block.language.lower() != "suggestion"
        language = block.language if known else ""
        for piece in split(block.text, FENCED):
            yield fenced(piece, language, FENCED) if piece.strip() else ""
    for link in response.links:
        yield _link(link)
    if response.actions:
        yield from packed(
            [f"- {code(f'@codespar {action.command}', WRITTEN)}" for action in response.actions], WRITTEN * 2
        )
    for file in response.attachments:
        yield f"📎 {_line(file.name)} ({file.size:,} bytes, kept by CodeSpar)"
    footer = " · ".join(word for word in (response.agent or "", progress_line(response)) if word.strip())
    for piece in split(footer, WRITTEN):
        yield f"_{line}_" if (line := _line(piece)) else ""


def _fields(response: NormalizedResponse) -> Iterator[str]:
    """Short ones in lists; a list ends before it is too long for one part."""
    lines: list[str] = []
    for field in response.fields:
        name = _line(field.name, WRITTEN)
        for number, piece in enumerate(split(field.value, WRITTEN) or [""]):
            told = _line(piece)
            lines.append(f"- {name}: {told}" if name and not number else f"- {told}")
    yield from packed(lines, MOST)


def _line(text: str, most: int = WRITTEN) -> str:
    return inline(text, most)


def _told(text: str) -> str:
    return _COMMAND.sub(r"\1\\/", prose(text, WRITTEN))


def _link(link: Link) -> str:
    """The address where it is one of the web's, else the words alone."""
    try:
        parts = urlsplit(link.url)
    except ValueError:
        parts = urlsplit("")
    label = _line(link.label) or "link"
    if parts.scheme not in ("http", "https") or not parts.netloc or len(link.url) > WRITTEN:
        return label if not link.url else f"{label}: {_line(link.url)}"
    return f"[{label}](<{quote(link.url, safe='%/:?#@!$&*+,;=~-._', errors='replace')}>)"
