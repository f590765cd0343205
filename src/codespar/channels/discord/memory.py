"""What must outlive a restart of the Discord adapter: up to where messages were heard, and which direct conversations there are.

The mark never passes a message that was not committed, so what is read again after it is everything that may be missing; what was heard
already is recognized by its delivery id. Nothing of what people wrote is kept here.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from pydantic import ValidationError

from codespar.config.private import write_private
from codespar.domain.base import Value

_KEPT_DIRECT = 200


class _Kept(Value):
    heard: int = 0  # the newest message up to which everything was heard
    direct: tuple[int, ...] = ()  # direct conversations, the latest last


class Memory:
    """The mark of what was heard. Message ids grow with time, over all channels."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "heard.json"
        self._kept = _read(self._file)
        self._pending: set[int] = set()
        self._newest = self._kept.heard
        self._changed = False
        self._writing = asyncio.Lock()

    @property
    def heard(self) -> int:
        """Everything up to this message id was heard; 0 on the first start."""
        return self._kept.heard

    @property
    def direct(self) -> tuple[int, ...]:
        return self._kept.direct

    def begins(self, message: int) -> None:
        """This message is about to be heard."""
        self._pending.add(message)

    def ends(self, message: int) -> None:
        """This message was heard, or is none of ours."""
        self._pending.discard(message)
        self._newest = max(self._newest, message)
        mark = min(self._pending) - 1 if self._pending else self._newest
        if mark > self._kept.heard:
            self._kept = self._kept.evolve(heard=min(mark, self._newest))
            self._changed = True

    def meets(self, conversation: int) -> None:
        """A direct conversation, so that it can be read again after a restart: Discord does not list them to bots."""
        if self._kept.direct[-1:] != (conversation,):
            others = tuple(one for one in self._kept.direct if one != conversation)
            self._kept = self._kept.evolve(direct=(*others, conversation)[-_KEPT_DIRECT:])
            self._changed = True

    async def write(self) -> None:
        """Keep it, when it changed. Whole or not at all."""
        async with self._writing:
            if self._changed:
                self._changed = False
                await asyncio.to_thread(write_private, self._file, self._kept.model_dump_json())


def _read(file: Path) -> _Kept:
    try:
        return _Kept.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return _Kept()  # a first start, or a file that was damaged: nothing older is read again
