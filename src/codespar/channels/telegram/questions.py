"""The question that a button leads to, as a message that is answered by a reply.

Nothing is remembered between the question and its answer: the question names the command and who may answer, in a block that only we
write (`Pen.pre` gives nobody else this language), and the answer carries the question with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

from codespar.channels.base import Part
from codespar.channels.telegram.markup import QUESTION, Pen, Piece, clean, visible

if TYPE_CHECKING:
    from aiogram.types import Message

PLACEHOLDER = 64  # characters of the hint in the empty input field
_LONGEST, _NAME = 1000, 80  # characters of a question, and of a name


@dataclass(frozen=True)
class Question:
    """What a button asks before its command is sent."""

    command: str
    asks: str
    person: int  # who pressed, and alone may answer
    name: str

    def part(self) -> Part:
        """The message that asks. It mentions the person, so that their app opens the reply by itself."""
        pen = Pen()
        asks = self.asks if visible(self.asks) else "What should be added?"
        name = pen.words(self.name[:_NAME] if visible(self.name[:_NAME]) else str(self.person))
        person = Piece(f'<a href="tg://user?id={self.person}">{name.sent}</a>', name.read, 1)
        command = Piece(
            f'<pre><code class="language-{QUESTION}{self.person}">{pen.words(self.command).sent}</code></pre>',
            self.command,
            1,
        )
        text = (
            pen.bold(asks[:_LONGEST])
            + pen.words("\nReply to this message, ")
            + person
            + pen.words(".\n")
            + command
        )
        force: dict[str, JsonValue] = {"force_reply": True, "selective": True}
        hint = " ".join(clean(asks).split())[:PLACEHOLDER]
        if visible(hint):
            force["input_field_placeholder"] = hint
        payload: dict[str, JsonValue] = {
            "text": text.sent,
            "parse_mode": "HTML",
            "link_preview_options": {"is_disabled": True},
            "reply_markup": force,
        }
        return Part(payload=payload, text=text.read)


def asked(message: Message, bot: int) -> tuple[int, str] | None:
    """Who may answer this message, and the command it asks for; None when it is no question of ours."""
    if message.from_user is None or message.from_user.id != bot or not message.text:
        return None
    for entity in message.entities or ():
        person = (entity.language or "").removeprefix(QUESTION)
        if entity.type == "pre" and entity.language == QUESTION + person and person.isdecimal():
            return int(person), entity.extract_from(message.text).strip()
    return None
