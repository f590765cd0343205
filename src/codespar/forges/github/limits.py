"""How fast GitHub may be asked: its rate limits, shared by all requests of one client.

When a limit strikes one request, all others wait with it, so that nothing is sent that GitHub would count against us. The rules are
those of GitHub's pages "Rate limits for the REST API" and "Best practices for using the REST API": obey `Retry-After`; else, with nothing
remaining, wait until the reset; else wait a minute, and twice as long each further time; make requests that change something one after
another, a second apart.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import structlog

from codespar.forges.base import ForgeUnavailable

log = structlog.get_logger(__name__)
Sleep = Callable[[float], Awaitable[object]]
_UNSAID = 60.0  # seconds to wait at a secondary limit that does not say how long
_EVERYTHING = "*"
_MARGIN = 1.0  # seconds: GitHub tells times in whole ones, and no limit may be asked about without a pause


def resource_of(path: str) -> str:
    """Which of GitHub's quotas a request is counted against."""
    if path.endswith("/graphql"):
        return "graphql"
    return "search" if "/search/" in path else "core"


@dataclass(slots=True)
class Patience:
    """What one call of ours is still ready to wait for GitHub, in seconds."""

    left: float
    sleep: Sleep

    async def wait(self, seconds: float, what: str) -> None:
        """Wait, or raise `ForgeUnavailable` when that is more than is left."""
        if seconds > self.left:
            raise ForgeUnavailable(
                f"GitHub asks us to wait {seconds:.0f} seconds before {what}: its rate limit is reached. It is tried again then.",
                retry_after=seconds,
            )
        self.left -= seconds
        await self.sleep(seconds)


class Limits:
    """The pace of one client. `at_once`: requests under way together; `spacing`: seconds between two that change something."""

    def __init__(self, clock: Callable[[], datetime], sleep: Sleep, *, at_once: int, spacing: float) -> None:
        self._clock = clock
        self._sleep = sleep
        self._slots = asyncio.Semaphore(at_once)
        self._writing = asyncio.Lock()
        self._spacing = spacing
        self._written: datetime | None = None
        self._not_before: dict[str, datetime] = {}  # by resource
        self._strikes = 0  # secondary limits so far
        self._in_a_row = 0  # of those that did not say how long, since the last success

    @asynccontextmanager
    async def writes(self) -> AsyncGenerator[None]:
        """Alone among the requests that change something, and not too soon after the last."""
        async with self._writing:
            if self._written is not None:
                wait = self._spacing - (self._clock() - self._written).total_seconds()
                if wait > 0:
                    await self._sleep(min(wait, self._spacing))
            try:
                yield
            finally:
                self._written = self._clock()

    @asynccontextmanager
    async def turn(self, resource: str, patience: Patience, what: str) -> AsyncGenerator[int]:
        """A slot to send one request in, when no limit forbids it. Yields what `strike` and `fine` want to know.

        Raises `ForgeUnavailable` when that would take longer than the patience lasts.
        """
        while True:
            await self._slots.acquire()
            if (wait := self.wait_for(resource)) <= 0:
                break
            self._slots.release()  # whoever waits keeps nobody from finding out that they have to wait too
            await patience.wait(wait, what)
        try:
            yield self._strikes
        finally:
            self._slots.release()

    def wait_for(self, resource: str) -> float:
        """Seconds until a request of this resource may be sent."""
        now = self._clock()
        return max(
            (
                (self._not_before[key] - now).total_seconds()
                for key in (resource, _EVERYTHING)
                if key in self._not_before
            ),
            default=0.0,
        )

    def struck(
        self, status: int, headers: Mapping[str, str], message: str, resource: str, strikes: int
    ) -> bool:
        """Whether this answer is a rate limit; if so all requests wait from now on. `strikes` is what `turn` gave."""
        if status not in (403, 429):
            return False
        if (seconds := retry_after(headers)) is not None:
            self._hold(_EVERYTHING, timedelta(seconds=max(seconds, _MARGIN)))
            self._strikes += 1
            return True
        if headers.get("x-ratelimit-remaining") == "0" and self._hold_until_reset(headers, resource):
            return True
        if status == 429 or re.search(r"secondary rate limit|abuse detection", message, re.IGNORECASE):
            if strikes == self._strikes:  # else it was sent before the last strike, and tells nothing new
                self._strikes += 1
                self._hold(_EVERYTHING, timedelta(seconds=_UNSAID * 2**self._in_a_row))
                self._in_a_row = min(self._in_a_row + 1, 6)
            return True
        return False

    def exhausted(self, headers: Mapping[str, str], resource: str) -> None:
        """GraphQL says with a 200 what the rest of the API says with a 429."""
        self.struck(429, headers, "", resource, self._strikes)

    def asked(self, headers: Mapping[str, str]) -> float | None:
        """A host in trouble asks everybody for patience. Returns the seconds, where it says so."""
        if (seconds := retry_after(headers)) is not None:
            self._hold(_EVERYTHING, timedelta(seconds=seconds))
        return seconds

    def fine(self, headers: Mapping[str, str], resource: str, strikes: int) -> None:
        """An answer without trouble. When it used up the quota, the next request waits without asking first."""
        if strikes == self._strikes:
            self._in_a_row = 0
        if headers.get("x-ratelimit-remaining") == "0":
            self._hold_until_reset(headers, resource)

    def _hold_until_reset(self, headers: Mapping[str, str], resource: str) -> bool:
        reset = headers.get("x-ratelimit-reset", "")
        if not re.fullmatch(r"\d{1,11}", reset, re.ASCII):
            return False
        # Measured by GitHub's own clock where it tells the time: ours may be wrong by more than the wait.
        seconds = int(reset) - _date(headers, self._clock()).timestamp()
        self._hold(resource, timedelta(seconds=max(0.0, seconds) + _MARGIN))
        return True

    def _hold(self, resource: str, wait: timedelta) -> None:
        until = self._clock() + wait
        known = self._not_before.get(resource)
        if known is None or until > known:
            self._not_before[resource] = until
        if known is None or until > known + timedelta(
            seconds=1
        ):  # else the same limit struck several at once
            log.info("github.limit", resource=resource, seconds=round(wait.total_seconds(), 1))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of `Retry-After`, or None: GitHub gives whole seconds, never a date."""
    value = headers.get("retry-after", "").strip()
    return float(value) if re.fullmatch(r"\d{1,6}", value, re.ASCII) else None


def _date(headers: Mapping[str, str], fallback: datetime) -> datetime:
    try:
        told = parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError):
        return fallback
    return told if told.tzinfo else told.replace(tzinfo=UTC)
