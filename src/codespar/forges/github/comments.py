"""What we say at GitHub outside of reviews: comments in pull requests and issues, on commits, and in threads.

Ids are the anchors that comments have on GitHub's pages, for the three kinds are counted apart. A comment that is made under a key is looked
for first: one request more, without which an answer that was lost would be a comment made twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from codespar.forges.base import ForgeError, Gone, Issue
from codespar.forges.github.hosted import Hosted
from codespar.forges.github.marks import is_marked, mark_of, marked, with_mark
from codespar.forges.github.values import IssueData, id_in, issue_of, stamp

IN_ISSUE, ON_LINE, ON_COMMIT = "issuecomment-", "discussion_r", "commitcomment-"
_PATHS = {IN_ISSUE: "/issues/comments/", ON_LINE: "/pulls/comments/", ON_COMMIT: "/comments/"}
_CLOCKS_DIFFER = timedelta(minutes=5)


class Comments(Hosted):
    """The part of the GitHub forge that comments."""

    async def comment(self, number: int, body: str, key: str) -> str:
        """Two requests: one looks for the comment of that key, one makes it."""
        path = self._at(f"/issues/{number}/comments")
        return await self._said_once(path, await self._client.pages(path, most=5000), IN_ISSUE, body, key)

    async def find_comment(self, number: int, key: str, since: datetime) -> str | None:
        params = {"since": stamp(since - _CLOCKS_DIFFER)}
        items = await self._client.pages(self._at(f"/issues/{number}/comments"), params, most=5000)
        return await self._made_before(items, IN_ISSUE, key)

    async def comment_commit(self, commit: str, body: str, key: str) -> str:
        """Two requests, as `comment`."""
        path = self._at(f"/commits/{commit}/comments")
        return await self._said_once(path, await self._client.pages(path), ON_COMMIT, body, key)

    async def _said_once(
        self, path: str, items: Iterable[Mapping[str, Any]], kind: str, body: str, key: str
    ) -> str:
        if (found := await self._made_before(items, kind, key)) is not None:
            return found
        text = marked(body, key)
        return self._remember(kind + id_in(await self._client.send("POST", path, {"body": text})), text)

    async def _made_before(self, items: Iterable[Mapping[str, Any]], kind: str, key: str) -> str | None:
        for item in items:
            if is_marked(item.get("body"), key) and await self._is_ours(item):
                return self._remember(kind + id_in(item), item.get("body"))
        return None

    async def edit_comment(self, comment: str, body: str) -> None:
        """One request; one more where this process has not seen the comment, to keep the hidden line by which it is found again."""
        path = self._at(_path(comment))
        if comment not in self._marks:
            there = await self._client.get(path)
            self._marks[comment] = mark_of(there.get("body")) if isinstance(there, dict) else ""  # pyright: ignore[reportUnknownMemberType]
        await self._client.send(
            "PATCH", path, {"body": with_mark(body, self._marks[comment])}, repeatable=True
        )

    async def delete_comment(self, comment: str) -> None:
        try:
            await self._client.send("DELETE", self._at(_path(comment)))
        except Gone:
            return

    async def issue(self, number: int) -> Issue:
        return issue_of(IssueData.model_validate(await self._client.get(self._at(f"/issues/{number}"))))


def number_in(comment: str, kind: str) -> int | None:
    """GitHub's number of a comment of that kind; None for another's."""
    found = re.fullmatch(rf"{kind}(\d{{1,18}})", comment, re.ASCII)
    return int(found[1]) if found else None


def _path(comment: str) -> str:
    for kind, path in _PATHS.items():
        if (number := number_in(comment, kind)) is not None:
            return f"{path}{number}"
    raise ForgeError(f"{comment[:60]!r} is no id of a comment at GitHub: they begin with {', '.join(_PATHS)}")
