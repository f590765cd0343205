"""Stopping part after part: what fails or hangs is told by name, and keeps no other from being stopped."""

from __future__ import annotations

import asyncio
import time

from structlog.testing import capture_logs

from codespar.app.stopping import cancelled, stop_each


class Parts:
    """Parts that note when they are stopped."""

    def __init__(self) -> None:
        self.stopped: list[str] = []
        self.free = asyncio.Event()

    async def good(self) -> None:
        self.stopped.append("good")

    async def broken(self) -> None:
        self.stopped.append("broken")
        raise OSError("the disk is gone")

    async def hanging(self) -> None:
        self.stopped.append("hanging")
        await self.free.wait()

    async def stubborn(self) -> None:
        """It heeds no cancellation."""
        self.stopped.append("stubborn")
        while not self.free.is_set():
            try:
                await self.free.wait()
            except asyncio.CancelledError:
                continue


async def test_a_part_that_raises_is_logged_with_its_traceback_and_the_next_is_stopped() -> None:
    parts = Parts()
    with capture_logs() as logged:
        left = await stop_each([("disk", parts.broken), ("last", parts.good)], 1)
    assert (left, parts.stopped) == ([], ["broken", "good"])
    [entry] = logged
    assert (entry["event"], entry["part"], entry["error"]) == ("stop.failed", "disk", "the disk is gone")
    assert entry["exc_info"].__traceback__.tb_frame.f_code.co_name == "broken"


async def test_a_part_that_never_ends_is_named_and_the_stop_goes_on_after_its_seconds() -> None:
    parts = Parts()
    began = time.monotonic()
    with capture_logs() as logged:
        left = await stop_each([("news", parts.hanging), ("last", parts.good)], 0.1)
    assert time.monotonic() - began < 30, "the part never ends by itself"
    assert (left, parts.stopped) == (["news"], ["hanging", "good"])
    assert [(one["event"], one["part"], one["seconds"]) for one in logged] == [
        ("stop.not_ended", "news", 0.1)
    ]


async def test_a_part_that_does_not_heed_its_cancellation_holds_up_nothing() -> None:
    parts = Parts()
    async with asyncio.timeout(1):
        left = await stop_each([("deaf", parts.stubborn), ("last", parts.good)], 0.1)
    assert (left, parts.stopped) == (["deaf"], ["stubborn", "good"])
    parts.free.set()


async def test_a_part_that_was_cancelled_itself_has_ended() -> None:
    async def part() -> None:
        raise asyncio.CancelledError

    parts = Parts()
    assert await stop_each([("gone", part), ("last", parts.good)], 1) == []
    assert parts.stopped == ["good"]


async def test_a_part_that_ends_in_time_is_not_cancelled() -> None:
    parts = Parts()
    asyncio.get_running_loop().call_later(0.05, parts.free.set)
    assert await stop_each([("news", parts.hanging)], 5) == []


async def test_a_task_is_ended_however_it_ends_and_none_is_no_error() -> None:
    async def fails() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("while it was ended")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await cancelled(task)
    await cancelled(None)
    assert task.done()
