"""What every source of polling needs: the cursor, what was found so far, and the two ways in which GitHub's lists are read.

The cursor is JSON and belongs to whoever looks; a look works on its own copy, so one that breaks off has changed nothing. It never goes
further than what was read: where a list has more than one look may ask for, the cursor says where the next one goes on.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import structlog
from pydantic import ValidationError

from codespar.domain.happenings import Happening, News
from codespar.forges.base import AccessLost, Gone, PostedComment
from codespar.forges.github.client import GithubClient
from codespar.forges.github.errors import Unprocessable
from codespar.forges.github.models import Loose
from codespar.forges.github.payloads import Malformed, delivery_id

log = structlog.get_logger(__name__)
VERSION = 1
PAGES = 10  # of one source in one look
OVERLAP = timedelta(minutes=1)  # looked at twice, for GitHub shows some things later than they happened
CLOSED_FOR = timedelta(minutes=15)  # a source that is refused or not there is asked again after that
TALK = {"comments": "/issues/comments", "line_comments": "/pulls/comments"}

Shape = TypeVar("Shape", bound=Loose)


class Look:
    """One look at one repository."""

    def __init__(self, client: GithubClient, repository: str, cursor: dict[str, Any], now: datetime) -> None:
        self.client = client
        self.now = now.astimezone(UTC)
        self.cursor: dict[str, Any] = json.loads(json.dumps(cursor))
        self.first = self.cursor.get("version") != VERSION
        if self.first:
            if cursor:
                log.warning("github.cursor_unknown", repository=repository)
            self.cursor = {
                "version": VERSION,
                "repository": repository,
                "since": stamp(self.now - OVERLAP),
                "etags": {},
                "closed": {},
            }
        self.first_pages: dict[str, list[Any]] = {}  # of the lists that changed, as they are now
        self.news: list[News] = []
        self.comments: list[PostedComment] = []

    @property
    def repository(self) -> str:
        """The full name as it is now."""
        return self.cursor["repository"]

    @property
    def path(self) -> str:
        return f"/repos/{self.repository}"

    def state(self, name: str) -> dict[str, Any]:
        """A source's part of the cursor. `to` is up to when everything of it is known."""
        part: dict[str, Any] = self.cursor.setdefault(name, {"to": self.cursor["since"]})
        return part

    def tell(self, delivery: str, what: Happening, at: datetime | None = None, sender: str = "") -> None:
        self.news.append(
            News(delivery=delivery, repository=self.repository, sender=sender, at=at or self.now, what=what)
        )

    def tell_change(self, kind: str, what: Happening) -> None:
        """Tell of something that GitHub gives no name. It is counted in the cursor, so that the same look made again calls it the same."""
        self.cursor["count"] = self.cursor.get("count", 0) + 1
        since, count = self.cursor["since"], self.cursor["count"]
        self.tell(delivery_id(kind, self.cursor.get("id"), since, count), what)

    def stir(self) -> None:
        """An issue or pull request changed: somebody may have written something."""
        for name in TALK:
            self.state(name)["asks"] = 1 if self.first else 3

    async def changed(self, name: str, path: str, params: dict[str, str | int] | None = None) -> Any | None:
        """What is there, or None where it is what it was at the last look."""
        etags: dict[str, str | None] = self.cursor["etags"]
        etags[name], data = await self.client.changed(path, params, etags.get(name))
        return data

    async def source(self, name: str, read: Callable[[], Awaitable[None]]) -> None:
        """Read a source. One that GitHub refuses or has not (Actions switched off, a permission that we lack) is left out for a while;
        its part of the cursor stays where it is. `ForgeUnavailable` ends the look."""
        closed: dict[str, str] = self.cursor["closed"]
        if closed.get(name, "") > stamp(self.now):
            return
        closed.pop(name, None)
        try:
            await read()
        except (AccessLost, Gone, Unprocessable) as error:
            self.cursor["etags"].pop(name, None)
            closed[name] = stamp(self.now + CLOSED_FOR)
            log.warning("github.source_closed", repository=self.repository, source=name, error=str(error))

    def is_closed(self, name: str) -> bool:
        return name in self.cursor["closed"]

    def each(self, items: list[Shape], read: Callable[[Shape], None]) -> None:
        """Read items one by one. One that says nothing is passed over: it would stay so for ever."""
        for item in items:
            try:
                read(item)
            except (Malformed, ValidationError) as error:
                log.warning("github.item_malformed", repository=self.repository, error=str(error)[:300])

    async def newest_first(
        self,
        name: str,
        path: str,
        params: dict[str, str | int],
        shape: type[Shape],
        moment: Callable[[Shape], datetime | None],
        *,
        key: str | None = None,
        size: int = 50,
    ) -> list[tuple[Shape, str]]:
        """The whole first page of a list that has its newest first, if it changed, and what follows down to what is known, oldest first.

        With each item comes the time up to which everything was known before. Beyond `PAGES` a gap is left that the next looks close:
        in such a list an item only moves down while newer ones come, so that to go on at the same page passes over none.
        """
        state = self.state(name)
        found: list[tuple[Shape, str]] = []
        asked = 1
        gap: dict[str, Any] | None = state.pop("gap", None)
        data = await self.changed(name, path, params | {"per_page": size})
        if data is not None:
            page = items_of(data, shape, key)
            self.first_pages[name] = page
            before: str = state["to"]
            found += [(item, before) for item in page]
            state["to"] = max([before, *(stamp(at) for item in page if (at := moment(item)))])
            while len(page) == size and _oldest(page, moment) >= before and asked < PAGES:
                asked += 1
                page = items_of(
                    await self.client.get(path, params | {"per_page": size, "page": asked}), shape, key
                )
                found += [(item, before) for item in page]
            if len(page) == size and _oldest(page, moment) >= before:
                older = gap["from"] if gap else before
                gap = {"page": asked, "from": min(older, before)}
        while gap and asked < PAGES:
            asked += 1
            page = items_of(
                await self.client.get(path, params | {"per_page": size, "page": gap["page"]}), shape, key
            )
            found += [(item, gap["from"]) for item in page]
            more = len(page) == size and _oldest(page, moment) >= gap["from"]
            gap = gap | {"page": gap["page"] + 1} if more else None
        if gap:
            state["gap"] = gap
        return found[::-1]

    async def oldest_first(
        self, name: str, path: str, params: dict[str, str | int], shape: type[Shape], size: int = 100
    ) -> tuple[list[Shape], str]:
        """What of a list was updated since the cursor, and the time from which on nothing of it was known before.

        GitHub's `since` leads from page to page, for an item that is updated meanwhile would else move another one past us.
        """
        state = self.state(name)
        floor: str | None = state.pop("floor", None)  # the last look could not read it all
        begin: str = state["to"] if floor else max(earlier(state["to"]), self.cursor["since"])
        asking = params | {"since": begin, "sort": "updated", "direction": "asc", "per_page": size}
        data = await self.changed(name, path, asking)
        found: list[Shape] = []
        asked = 1
        while data is not None:
            page = items_of(data, shape, None)
            found += page
            last = max([stamp(at) for item in page if (at := getattr(item, "updated_at", None))], default="")
            if last > state["to"]:
                state["to"] = last
                self.cursor["etags"].pop(name, None)  # the next question is another one
            if len(page) < size:
                break
            self.cursor["etags"].pop(name, None)  # a full page stays as it is when more comes after it
            if asked == PAGES:
                state["floor"] = floor or begin
                break
            follows = (
                {"since": last} if last > str(asking["since"]) else {"page": int(asking.get("page", 1)) + 1}
            )
            asking = {k: v for k, v in asking.items() if k != "page" or "page" in follows} | follows
            asked += 1
            data = await self.client.get(path, asking)
        return found, floor or begin


def items_of(data: Any, shape: type[Shape], key: str | None) -> list[Shape]:
    """A page of a list as far as it can be read. `key` names the list where it stands in an envelope."""
    if key is not None:
        data = cast("dict[str, Any]", data).get(key) if isinstance(data, dict) else None
    if not isinstance(data, list):
        return []
    return [shape.model_validate(item) for item in cast("list[Any]", data) if isinstance(item, dict)]


def item_of(data: Any, shape: type[Shape]) -> Shape:
    """One object as far as it can be read."""
    return shape.model_validate(data if isinstance(data, dict) else {})


def stamp(at: datetime) -> str:
    """A time as GitHub writes it, so that the order of the texts is that of the times."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


def earlier(text: str) -> str:
    """The same time, less what is looked at twice."""
    return stamp(moment_of(text) - OVERLAP)


def _oldest(page: list[Shape], moment: Callable[[Shape], datetime | None]) -> str:
    return min((stamp(at) for item in page if (at := moment(item))), default="")
