"""Stopping, part after part, so that one that fails or hangs keeps no other from being stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

log = structlog.get_logger(__name__)
Part = tuple[str, Callable[[], Awaitable[object]]]  # its name in the log, and what stops it


async def stop_each(parts: Sequence[Part], seconds: float) -> list[str]:
    """Stop the parts in this order, each within so many seconds. What fails, or does not end, is logged. Returns what did not end."""
    left: list[str] = []
    for name, stop in parts:
        stopping = asyncio.ensure_future(stop())
        # Not `asyncio.timeout`, which cancels and then waits: what hangs may not heed a cancellation either.
        await asyncio.wait({stopping}, timeout=seconds)
        if not stopping.done():
            stopping.cancel()
            log.error("stop.not_ended", part=name, seconds=seconds)
            left.append(name)
        elif not stopping.cancelled() and (error := stopping.exception()):
            log.error("stop.failed", part=name, error=str(error), exc_info=error)
    return left


async def cancelled(task: asyncio.Task[None] | None) -> None:
    """End a task, if there is one, however it ends."""
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
