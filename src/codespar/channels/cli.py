"""The terminal channel: responses as cards in a terminal, as plain text when piped.

Text of others never reaches the terminal as it is: no escape sequence, no control or direction character and no markup of it has any
effect, and none of it can pretend to be a line of the card it stands in.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from codespar.channels.base import Capabilities
from codespar.domain.messages import Block, Channel, NormalizedResponse, Tone
from codespar.domain.tasks import Thread, counted, money

if TYPE_CHECKING:
    from rich.panel import Panel
    from rich.text import Text

SEPARATOR = "─" * 17
WIDEST = 110  # columns; longer lines are hard to read
_STYLES = {
    Tone.INFO: "blue",
    Tone.PROGRESS: "cyan",
    Tone.SUCCESS: "green",
    Tone.WARNING: "yellow",
    Tone.FAILURE: "red",
}
# A string sequence (OSC, DCS, SOS, PM, APC) up to its end, a control sequence, or a short escape.
_ESCAPES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|\x1b[ -/]*[0-~]?"
)
_DROPPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")  # parts of emoji and of several scripts; they move nothing


def clean(text: str) -> str:
    """The text without anything that a terminal would act on. Line ends stay, tabs become spaces."""
    unified = text.replace("\r\n", "\n").replace("\t", "    ")
    stripped = _ESCAPES.sub("", unified)
    return "".join(
        char
        for char in stripped
        if char == "\n" or char in _JOINERS or unicodedata.category(char) not in _DROPPED
    )


def one_line(text: str) -> str:
    """The text cleaned, on one line."""
    return " ".join(clean(text).split())


def duration(seconds: float) -> str:
    """A time span as people read it: `42 s`, `3:07 min`, `1:02 h`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def progress_line(response: NormalizedResponse) -> str:
    """A progress edit on one line: what an in-place edit becomes where nothing can be edited."""
    parts = [one_line(response.title)]
    if used := response.progress:
        parts += [duration(used.elapsed_seconds), counted(used.turns, "turn"), money(used.cost_micros)]
    return " · ".join(parts)


def render(response: NormalizedResponse, *, plain: bool, width: int = 80) -> Panel | str:
    """The response as text (`plain`, the same for every width) or as a card for a terminal of `width` columns."""
    return _text(response) if plain else _card(response, width)


def _text(response: NormalizedResponse) -> str:
    body, blocks, end = _body(response), list(response.blocks), _end(response)
    lines = [one_line(response.title)]
    if body or blocks or end:
        lines.append(SEPARATOR)
    lines += body
    for block in blocks:
        lines += [""] if len(lines) > 2 else []
        lines += [one_line(block.title)] if block.title else []
        lines.append(clean(block.text).rstrip("\n"))
    return "\n".join([*lines, *end])


def _card(response: NormalizedResponse, width: int) -> Panel:
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    colour = _STYLES[response.tone]
    parts: list[Text] = [Text(one_line(response.title), style=f"bold {colour}")]
    body, end = _body(response), _end(response)
    if body or response.blocks or end:
        parts.append(Text(SEPARATOR, style=colour))
    names = {f"{one_line(field.name)}:" for field in response.fields if field.name}
    for line in body:
        name, colon, _ = line.partition(":")
        text = Text(line)
        if f"{name}{colon}" in names:
            text.stylize("bold", 0, len(name) + 1)
        parts.append(text)
    for block in response.blocks:
        parts += [Text("")] if len(parts) > 2 else []
        parts += [Text(one_line(block.title), style="bold")] if block.title else []
        parts.append(_block(block))
    parts += [Text(line, style="dim") for line in end]
    return Panel(
        Group(*parts),
        box=box.ROUNDED,
        border_style=colour,
        padding=(0, 1),
        expand=False,
        width=min(width, WIDEST),
    )


def _block(block: Block) -> Text:
    from rich.text import Text

    if block.language != "diff":
        return Text(clean(block.text).rstrip("\n"))
    text = Text()
    for line in clean(block.text).rstrip("\n").split("\n"):
        text.append(line + "\n", style=diff_style(line))
    text.rstrip()
    return text


def diff_style(line: str) -> str:
    """The rich style of a line of a diff."""
    if line.startswith(("+++", "---", "diff ", "index ")):
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")


def _body(response: NormalizedResponse) -> list[str]:
    """The text, the named facts and the progress. Lines after the first of a fact are indented, so that none can pose as a fact."""
    lines = clean(response.text).rstrip("\n").split("\n") if response.text else []
    for field in response.fields:
        value = clean(field.value).strip().replace("\n", "\n  ")
        lines.append(f"{one_line(field.name)}: {value}" if field.name else value)
    if response.progress and response.progress.phase not in response.title:
        lines.append(one_line(response.progress.phase))
    return lines


def _end(response: NormalizedResponse) -> list[str]:
    lines = [f"{one_line(link.label)}: {one_line(link.url)}" for link in response.links]
    lines += [f"Attached: {one_line(one.name)} ({one.size} bytes)" for one in response.attachments]
    if response.actions:
        lines.append("Reply: " + " · ".join(f"`{one_line(action.command)}`" for action in response.actions))
    return lines


class CliChannel:
    """The terminal as a channel. Its clients read the outbox through the API, so a committed response is a delivered one."""

    name = Channel.CLI
    capabilities = Capabilities(threads=True, edits=True, max_text=1_000_000)

    async def start(self) -> None:
        """Nothing to connect to: clients come to the API."""

    async def stop(self) -> None:
        """Nothing to disconnect from."""

    async def deliver(
        self, thread: Thread, key: str, response: NormalizedResponse, replaces_external: str | None
    ) -> str:
        """The outbox key, which is the message's id for the clients too."""
        return replaces_external or key
