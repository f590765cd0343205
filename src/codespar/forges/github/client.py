"""The requests we make to GitHub: each as seldom as can be, at the pace GitHub allows, and never twice where that would do harm.

gidgethub gives the headers and reads the answers; the requests themselves are httpx's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import nullcontext
from datetime import datetime
from typing import Any, cast

import httpx
from gidgethub import sansio

from codespar.forges.base import ForgeUnavailable
from codespar.forges.github.errors import graphql_refusal, shown, too_quick
from codespar.forges.github.etags import Answer, Etags
from codespar.forges.github.limits import Sleep
from codespar.forges.github.transport import ACCEPT, REDIRECTS, REPEATABLE, Credentials, Heard, Transport

AT_ONCE = 8
PIECE = 64 * 1024  # bytes


class GithubClient:
    """One repository's line to GitHub. All requests share its limits and its ETags.

    `patience` is how long, in seconds and in all, one call waits for rate limits before it raises `ForgeUnavailable`;
    `write_spacing` the seconds between two requests that change something. `heard` is told, as often as GitHub shows it, why it refuses our
    credentials, and by an empty text that it takes them.

    Every method raises `AccessLost`, `Gone`, `Unprocessable`, `ForgeUnavailable`, or plain `ForgeError` for what makes no sense.
    """

    def __init__(
        self,
        *,
        api_url: str,
        credentials: Credentials,
        clock: Callable[[], datetime],
        sleep: Sleep = asyncio.sleep,
        patience: float = 60.0,
        write_spacing: float = 1.0,
        at_once: int = AT_ONCE,
        heard: Heard = lambda problem: None,
    ) -> None:
        self._line = Transport(
            api_url,
            credentials,
            clock,
            sleep,
            patience=patience,
            spacing=write_spacing,
            at_once=at_once,
            heard=heard,
        )
        self._etags = Etags()

    @property
    def calls(self) -> int:
        """How many requests were sent, each attempt and each hop of a redirect counted."""
        return self._line.calls

    @property
    def unchanged(self) -> int:
        """How many of them were answered by "not modified", which costs no quota."""
        return self._line.unchanged

    async def token(self) -> str:
        """What git shows to GitHub. Raises `AccessLost`, `ForgeUnavailable`."""
        return await self._line.token()

    async def close(self) -> None:
        """Let the connections go."""
        await self._line.close()

    async def get(
        self, path: str, params: Mapping[str, str | int] | None = None, *, accept: str | None = None
    ) -> Any:
        """What is at `path` (`/repos/…`), as JSON; text where `accept` asks for something else, a diff say. None where GitHub has nothing to say."""
        answer = await self._get(self._line.url(path, params), accept or ACCEPT)
        return self._read(answer, f"GET {path}", text=accept is not None)[0]

    async def pages(
        self,
        path: str,
        params: Mapping[str, str | int] | None = None,
        *,
        key: str | None = None,
        most: int = 1000,
        until: Callable[[dict[str, Any]], bool] | None = None,
    ) -> list[dict[str, Any]]:
        """The items of a list over all its pages: at most `most`, and none from the first on for which `until` is true.

        `key` names the list where it stands in an envelope (`workflow_runs`). No page is asked for that is not needed.
        """
        items: list[dict[str, Any]] = []
        asked = {"per_page": max(1, min(100, most))} | dict(params or {})
        url = self._line.url(path, asked)
        for _ in range(max(1, most)):  # an end even where each page names another
            data, following = self._read(await self._get(url, ACCEPT), f"GET {path}")
            page = cast(dict[str, Any], data).get(key) if key is not None and isinstance(data, dict) else data
            if not isinstance(page, list) or not all(
                isinstance(item, dict) for item in cast(list[Any], page)
            ):
                raise ForgeUnavailable(f"GitHub's answer to GET {path} holds no list. Try again later.")
            if following is None and len(cast(list[Any], page)) >= int(asked["per_page"]):
                self._etags.forget(url, ACCEPT)  # it stays as it is when a page comes after it
            for item in cast(list[dict[str, Any]], page):
                if len(items) == most or (until is not None and until(item)):
                    return items
                items.append(item)
            if following is None or len(items) >= most:
                break
            url = self._line.url(following)
        return items

    async def changed(
        self, path: str, params: Mapping[str, str | int] | None, etag: str | None
    ) -> tuple[str | None, Any | None]:
        """What is at `path` since the answer that had `etag`: (its new ETag, JSON), or (`etag`, None) when nothing changed. One page, whatever follows."""
        conditions = {"if-none-match": etag} if etag else {}
        answer = await self._line.exchange("GET", self._line.url(path, params), ACCEPT, conditions=conditions)
        if answer.status == 304:
            return etag, None
        return answer.headers.get("etag"), self._read(answer, f"GET {path}")[0]

    async def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        repeatable: bool | None = None,
    ) -> Any:
        """Change something. Returns GitHub's JSON, None where it says nothing.

        A lost answer is asked for again where the request may be sent twice: PUT and DELETE, and what is said to be `repeatable`. Otherwise it is
        `ForgeUnavailable`, and the request may have arrived: look for its trace.
        """
        again = method in REPEATABLE if repeatable is None else repeatable
        content = None if body is None else json.dumps(body).encode()
        async with self._line.limits.writes():
            answer = await self._line.exchange(
                method, self._line.url(path), ACCEPT, content=content, repeatable=again
            )
        return self._read(answer, f"{method} {path}")[0]

    async def graphql(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The `data` of a GraphQL query or mutation."""
        url = self._line.api.removesuffix("/v3") if self._line.api.endswith("/api/v3") else self._line.api
        content = json.dumps({"query": query, "variables": dict(variables)}).encode()
        mutation = query.lstrip().startswith("mutation")
        patience = self._line.patience()
        async with self._line.limits.writes() if mutation else nullcontext():
            while True:
                answer = await self._line.exchange(
                    "POST",
                    f"{url}/graphql",
                    ACCEPT,
                    content=content,
                    repeatable=not mutation,
                    patience=patience,
                )
                data, _ = self._read(answer, "GraphQL")
                reply = cast(dict[str, Any], data) if isinstance(data, dict) else {}
                errors = reply.get("errors")
                if not errors:
                    break
                told = cast(list[Any], errors) if isinstance(errors, list) else [errors]
                if not any(_is_limit(one) for one in told):
                    raise graphql_refusal(told, "a GraphQL mutation" if mutation else "a GraphQL query")
                self._line.limits.exhausted(
                    answer.headers, "graphql"
                )  # nothing was done: the next turn waits
        if not isinstance(reply.get("data"), dict):
            raise ForgeUnavailable("GitHub's answer to a GraphQL query holds no data. Try again later.")
        return cast(dict[str, Any], reply["data"])

    async def stream(self, path: str) -> AsyncGenerator[bytes]:
        """A log or an artefact, in pieces as they come. Where GitHub sends us to another host for it, that host gets no credentials.

        Whoever stops early closes it (`contextlib.aclosing`). Raises `Gone` when GitHub keeps it no more, and `ForgeUnavailable` also in the
        middle: begin again.
        """
        what = f"GET {path}"
        answer = await self._line.exchange("GET", self._line.url(path), ACCEPT, streaming=True)
        response = answer.response
        if answer.status in REDIRECTS:
            response = await self._line.download(answer, what)
        try:
            async for piece in response.aiter_bytes(PIECE):
                yield piece
        except httpx.HTTPError as error:
            raise ForgeUnavailable(
                f"The connection broke in the middle of {what} ({type(error).__name__}). Begin again."
            ) from error
        finally:
            await response.aclose()

    async def _get(self, url: str, accept: str) -> Answer:
        """A GET that costs no quota while the answer has not changed."""
        kept = self._etags.get(url, accept)
        conditions = {"if-none-match": kept.headers["etag"]} if kept is not None else {}
        answer = await self._line.exchange("GET", url, accept, conditions=conditions)
        if answer.status == 304 and kept is not None:
            return kept
        self._etags.put(url, accept, answer)
        return answer

    def _read(self, answer: Answer, what: str, *, text: bool = False) -> tuple[Any, str | None]:
        """The answer's content and the address of the next page."""
        try:
            data, _, following = sansio.decipher_response(200, answer.headers, answer.body)
        except (ValueError, LookupError, RecursionError) as error:
            raise ForgeUnavailable(f"GitHub's answer to {what} cannot be read. Try again later.") from error
        if (
            isinstance(data, str)
            and not text
            and not answer.headers["content-type"].startswith("application/json")
        ):
            raise ForgeUnavailable(
                f"What answered {what} is not GitHub: it sent {shown(answer.headers['content-type'])}. Check api_url and any proxy in between."
            )
        return data, following


def _is_limit(error: Any) -> bool:
    """Whether this error of GraphQL is a rate limit, primary or secondary: both come with a 200."""
    if not isinstance(error, dict):
        return False
    told = cast(dict[str, Any], error)
    secondary = "secondary rate limit" in str(told.get("message")).lower() or too_quick(told)
    return secondary or told.get("type") == "RATE_LIMITED"
