"""Live notices for those who listen now. Nothing here is remembered: a listener that was away reads the store from its cursor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from codespar.store.base import Notice

QUEUE = 1000  # notices a slow listener may be behind before it is cut off and has to read from its cursor


class Bus:
    """Hands every notice to the subscribers, on the loop, without waiting for any of them."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[Notice | None]] = set()
        self._hooks: dict[str, list[Callable[[Notice], None]]] = {}

    def on(self, kind: str, hook: Callable[[Notice], None]) -> None:
        """Call `hook` for every notice of that kind."""
        self._hooks.setdefault(kind, []).append(hook)

    def publish(self, notices: list[Notice]) -> None:
        for notice in notices:
            for hook in self._hooks.get(notice.kind, ()):
                hook(notice)
            for listener in self._listeners:
                if listener.qsize() < QUEUE:
                    listener.put_nowait(notice)
                elif listener.qsize() == QUEUE:
                    listener.put_nowait(None)

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[asyncio.Queue[Notice | None]]:
        """A queue of the notices from now on; None in it means that the listener fell behind and is cut off."""
        mine: asyncio.Queue[Notice | None] = asyncio.Queue()
        self._listeners.add(mine)
        try:
            yield mine
        finally:
            self._listeners.discard(mine)

    def close(self) -> None:
        """Tell every listener to go."""
        for listener in self._listeners:
            listener.put_nowait(None)
