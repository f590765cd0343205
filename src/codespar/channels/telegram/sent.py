"""Where each message we sent stands: its conversation and thread. An answer to one of ours goes on in that thread.

Telegram does not say so itself: a message that answers names the message before it, and not the one before that. The newest are kept in a
file, so that a restart does not begin new threads. What is forgotten costs a thread, never a message. Conversations are kept, words never.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path

KEPT = 10_000
Place = tuple[str, str | None]  # conversation, thread


class SentMessages:
    """The newest messages we sent, in memory and in `file`. One writer: the bot has one process."""

    def __init__(self, file: Path, kept: int = KEPT) -> None:
        self._file = file
        self._kept = kept
        self._places: OrderedDict[tuple[int, int], Place] = OrderedDict()
        self._lines = 0
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Read what an earlier run kept."""
        for line in await asyncio.to_thread(self._read):
            match line.split(" "):
                case [chat, message, conversation, thread] if _number(chat) and _number(message):
                    self._put(int(chat), int(message), (conversation, thread if thread != "-" else None))
                case _:  # the last line of a run that ended while it wrote
                    continue

    def where(self, chat: int, message: int) -> Place | None:
        return self._places.get((chat, message))

    async def remember(self, chat: int, message: int, conversation: str, thread: str | None) -> None:
        self._put(chat, message, (conversation, thread))
        async with self._lock:
            self._lines += 1
            if self._lines > 2 * self._kept:
                text, self._lines = self._text(), len(self._places)
                await asyncio.to_thread(self._rewrite, text)
            else:
                line = f"{chat} {message} {conversation} {thread or '-'}\n"
                await asyncio.to_thread(self._append, line)

    def _put(self, chat: int, message: int, place: Place) -> None:
        self._places[chat, message] = place
        self._places.move_to_end((chat, message))
        while len(self._places) > self._kept:
            self._places.popitem(last=False)

    def _text(self) -> str:
        return "".join(
            f"{chat} {message} {conversation} {thread or '-'}\n"
            for (chat, message), (conversation, thread) in self._places.items()
        )

    def _read(self) -> list[str]:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._file.exists():
            return []
        text = self._file.read_text("utf-8", "replace")
        if text and not text.endswith("\n"):  # the next line must not go on behind a broken one
            self._append("\n")
        lines = text.splitlines()
        self._lines = len(lines)
        return lines

    def _append(self, line: str) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(line)

    def _rewrite(self, text: str) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(text, "utf-8")
        fresh.replace(self._file)


def _number(text: str) -> bool:
    return text.removeprefix("-").isascii() and text.removeprefix("-").isdecimal()
