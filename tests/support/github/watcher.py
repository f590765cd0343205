"""Whoever polls, as the tests have it: a real client, and a cursor that is kept as its owner keeps it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from codespar.forges.base import Polled
from codespar.forges.github.client import GithubClient
from codespar.forges.github.credentials import TokenCredentials
from codespar.forges.github.polling import look
from support.github.listing import Listing

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Watcher:
    """Looks again and again, as the owner of a cursor does: the cursor is kept as JSON, and only of looks that succeeded."""

    def __init__(self, github: Listing) -> None:
        self.github = github
        self.kept = "{}"
        self.client = self._new()

    def _new(self) -> GithubClient:
        credentials = TokenCredentials("github_pat_of_the_tests", variable="T", clock=lambda: self.github.now)
        return GithubClient(
            api_url=self.github.url, credentials=credentials, clock=lambda: self.github.now, patience=0
        )

    async def restart(self) -> None:
        await self.client.close()
        self.client = self._new()

    async def look(self, **much: float) -> Polled:
        self.github.pass_time(**(much or {"seconds": 30}))
        self.github.forget()
        polled = await look(self.client, "octo/world", json.loads(self.kept), self.github.now)
        self.kept = json.dumps(polled.cursor)
        assert len({news.delivery for news in polled.news}) == len(polled.news)
        return polled


@asynccontextmanager
async def watched() -> AsyncGenerator[tuple[Listing, Watcher]]:
    """A repository and who looks at it. At the end nothing was asked that GitHub's description does not know."""
    async with Listing(START) as listing:
        watching = Watcher(listing)
        try:
            yield listing, watching
        finally:
            await watching.client.close()
        assert listing.faults == []


def found(polled: Polled, kind: type) -> list[Any]:
    return [news.what for news in polled.news if isinstance(news.what, kind)]


def total(github: Listing) -> int:
    return sum(github.asked.values())
