"""What a comment says to us: the lines behind `@codespar` at the start of a line, as they were written.

Pure, and linear in the length of a comment. A mention in a quote, in code or in what a reader of the page cannot see is nobody's word to us.
"""

from __future__ import annotations

import re

MOST_MESSAGES = 10  # of one comment
_MENTION = re.compile(r" {0,3}@codespar(?![\w/-]|\.\w)[ \t,:]*(?P<said>.*)", re.IGNORECASE)
_FENCE = re.compile(r" {0,3}(?P<ticks>`{3,}|~{3,})(?P<info>.*)")
_ASIDE = re.compile(r" {4}| {0,3}\t| {0,3}>")  # indented code, or a quote
_HERE = re.compile(
    r"(?P<command>review|diff|approve|merge(?=\s+(?:squash|rebase|merge)$|$))(?P<method>\s+\w+)?",
    re.IGNORECASE,
)


def addressed(body: str) -> tuple[str, ...]:
    """The messages in a comment, in order: what follows each `@codespar`, up to the next one. Empty when it does not speak to us.

    What stands inside a message is kept as it was written, quotes and code with it. More than `MOST_MESSAGES` are one message: the last.
    """
    messages: list[list[str]] = []
    for line, visible in _lines(body):
        found = _MENTION.match(line) if visible and len(messages) < MOST_MESSAGES else None
        if found:
            messages.append([found["said"]])
        elif messages:
            messages[-1].append(line)
    return tuple("\n".join(lines).strip() for lines in messages)


def here(said: str, number: int) -> str:
    """The message, with the pull request it was written in where it is a command that needs one and names none."""
    found = _HERE.fullmatch(said.strip())
    if found is None or (found["method"] and found["command"].lower() != "merge"):
        return said
    return f"{found['command']} PR #{number}{found['method'] or ''}"


def _lines(body: str) -> list[tuple[str, bool]]:
    """Each line, and whether it begins a paragraph of its author's that everybody can see."""
    text = body.replace("\r\n", "\n").replace("\r", "\n")
    last_end = text.rfind("-->")
    told: list[tuple[str, bool]] = []
    fence = ""  # the sign and the length of what closes the code block we are in
    hidden = False  # inside of an HTML comment
    place = 0
    for line in text.split("\n"):
        visible = not fence and not hidden and not _ASIDE.match(line)
        if hidden:
            hidden = line.rfind("<!--") > line.rfind("-->") if "-->" in line else True
        elif fence:
            mark = _FENCE.match(line)
            if mark and mark["ticks"].startswith(fence) and not mark["info"].strip():
                fence = ""
        elif visible:
            mark = _FENCE.match(line)
            if mark and not (mark["ticks"][0] == "`" and "`" in mark["info"]):
                fence, visible = mark["ticks"], False
            elif (opens := line.rfind("<!--")) > line.rfind("-->"):
                hidden = place + opens < last_end or line.lstrip().startswith("<!--")
        told.append((line, visible))
        place += len(line) + 1
    return told
