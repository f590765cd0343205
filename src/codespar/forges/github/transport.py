"""The line to GitHub: one request at a time sent until it is answered for good, at the pace the limits allow.

A request is never sent twice where that would do harm. Credentials go only to the configured address: never along a redirect or a link
to another host, and into no log and no error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import httpx
from gidgethub import sansio

from codespar import __version__
from codespar.forges.base import AccessLost, ForgeError, ForgeUnavailable, Gone
from codespar.forges.github.errors import CredentialsRefused, message_of, refusal, shown, too_quick
from codespar.forges.github.etags import Answer
from codespar.forges.github.limits import Limits, Patience, Sleep, resource_of, retry_after
from codespar.forges.github.settings import is_loopback

API_VERSION = "2022-11-28"
USER_AGENT = f"codespar/{__version__}"
ACCEPT = sansio.accept_format()
_TRIES = 3
_HOPS = 5
_BACK_OFF = 0.5  # seconds, doubled each time
_LONGEST = 120.0  # seconds for one answer
_LARGEST = 64 * 2**20  # bytes of one answer that is not a stream
REDIRECTS = (301, 302, 307, 308)
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# A PATCH is not among them: it adds its annotations to those that a check run has.
_PERHAPS = " It may have arrived all the same."
_HERE = "this machine"
REPEATABLE = ("GET", "HEAD", "PUT", "DELETE")
Heard = Callable[[str], None]  # why our credentials are refused; empty: they are taken


class Credentials(Protocol):
    """What a client shows to GitHub."""

    async def token(self) -> str:
        """A bearer token that is valid for at least the next minute. Raises `AccessLost`, `ForgeUnavailable`."""
        ...

    def spoiled(self, token: str) -> None:
        """The host refused this token: the next `token()` makes a new one."""
        ...

    async def app_jwt(self) -> str | None:
        """What an App shows to be itself rather than its installation; None where there is no App."""
        ...


class Transport:
    """One client's line. `calls` counts the requests that were sent, `unchanged` those of them that "not modified" answered. `heard` is told
    with every answer whether GitHub takes our credentials, where the answer shows it."""

    def __init__(
        self,
        api_url: str,
        credentials: Credentials,
        clock: Callable[[], datetime],
        sleep: Sleep,
        *,
        patience: float,
        spacing: float,
        at_once: int,
        heard: Heard,
    ) -> None:
        self._heard = heard
        self._refusals = 0
        self.calls = 0
        self.unchanged = 0
        self.limits = Limits(clock, sleep, at_once=at_once, spacing=spacing)
        self.api = api_url.rstrip("/")
        self._origin = origin(self.api)
        self._credentials = credentials
        self._sleep = sleep
        self._patience = patience
        _keep_queries_out_of_logs()
        self._http = httpx.AsyncClient(
            headers={"user-agent": USER_AGENT},
            timeout=httpx.Timeout(30, connect=10, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=at_once),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            verify=_trust(),
        )

    async def close(self) -> None:
        await self._http.aclose()

    def patience(self) -> Patience:
        """What one call may wait, where it is several requests."""
        return Patience(self._patience, self._sleep)

    def url(self, path: str, params: Mapping[str, str | int] | None = None) -> str:
        """The address of a path, or of a link that GitHub gave: which must lead to GitHub."""
        url = self.api + path if path.startswith("/") else path
        if origin(url) != self._origin:
            raise ForgeError(
                f"GitHub names an address at {shown(origin(url)[1]) or 'no host'}, which is not the configured {self.api}: it gets no credentials. "
                "Check api_url in the settings of GitHub."
            )
        return str(httpx.URL(url).copy_merge_params(params)) if params else url

    async def exchange(
        self,
        method: str,
        url: str,
        accept: str,
        *,
        conditions: Mapping[str, str] | None = None,
        content: bytes | None = None,
        repeatable: bool = True,
        streaming: bool = False,
        patience: Patience | None = None,
    ) -> Answer:
        """Send a request until it is answered for good: below 300, 304 to a condition, or for a stream a redirect to another host."""
        before = self._refusals
        try:
            answer = await self._exchange(
                method, url, accept, conditions, content, repeatable, streaming, patience
            )
        except CredentialsRefused as error:
            self._refused(error)
            raise
        if before == self._refusals:  # else it was sent before that refusal, and says nothing of now
            self._heard("")
        return answer

    async def token(self) -> str:
        """What to show to GitHub, to its git side too. Raises `AccessLost`, `ForgeUnavailable`."""
        try:
            return await self._credentials.token()
        except AccessLost as error:
            self._refused(error)
            raise

    def _refused(self, error: AccessLost) -> None:
        self._refusals += 1
        self._heard(str(error))

    async def _exchange(
        self,
        method: str,
        url: str,
        accept: str,
        conditions: Mapping[str, str] | None,
        content: bytes | None,
        repeatable: bool,
        streaming: bool,
        patience: Patience | None,
    ) -> Answer:
        what = f"{method} {urlsplit(url).path}"
        resource = resource_of(urlsplit(url).path)
        patience = patience or self.patience()
        failures = hops = refused = 0
        while True:
            token = await self.token()
            headers = _headers(token, accept, content) | dict(conditions or {})
            async with self.limits.turn(resource, patience, what) as strikes:
                answer = await self._once(method, url, headers, content, streaming)
            # Nothing is awaited from here to where a limit is noted: nobody gets the slot without knowing of it.
            if not isinstance(answer, Answer):
                failures += 1
                if failures == _TRIES or not (repeatable or isinstance(answer, _NOT_SENT)):
                    raise _unreachable(answer, what) from answer
                await self._back_off(failures)
                continue
            status = answer.status
            if status < 300 or (status == 304 and conditions):
                self.unchanged += status == 304
                self.limits.fine(answer.headers, resource, strikes)
                return answer
            data = _decoded(answer)
            limited = 429 if status == 422 and too_quick(data) else status
            if self.limits.struck(limited, answer.headers, message_of(data), resource, strikes):
                continue  # the next turn waits, or has no patience left for that
            if status in REDIRECTS and (location := answer.headers.get("location")):
                target = _joined(url, location)
                if streaming and origin(target) != self._origin:
                    return answer
                hops += 1
                if hops > _HOPS:
                    raise ForgeError(
                        f"GitHub redirects {what} in a circle. Check api_url and the repository's name."
                    )
                url = self.url(target)  # GitHub asks for the same request there, whatever its method
                continue
            if status == 401:
                self._credentials.spoiled(token)
                refused += 1
                if refused == 1:
                    continue
            if status >= 500:
                wait = self.limits.asked(answer.headers)
                failures += 1
                if repeatable and failures < _TRIES:
                    await self._back_off(failures)
                    continue
                error = refusal(status, answer.headers, data, what, token)
                raise ForgeUnavailable(f"{error}{'' if repeatable else _PERHAPS}", retry_after=wait)
            raise refusal(status, answer.headers, data, what, token)

    async def _once(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, streaming: bool
    ) -> Answer | httpx.TransportError | TimeoutError:
        """One request and its answer, read to the end unless it is what a stream is for; or what kept it from coming."""
        self.calls += 1
        request = self._http.build_request(method, url, headers=headers, content=content)
        try:
            async with asyncio.timeout(_LONGEST):
                response = await self._http.send(request, stream=True)
                if streaming and response.status_code == 200:
                    return Answer(200, response.headers, b"", response)
                body = bytearray()
                try:
                    async for piece in response.aiter_bytes():
                        body += piece
                        if len(body) > _LARGEST:
                            raise ForgeError(
                                f"GitHub's answer to {method} {request.url.path} has more than {_LARGEST >> 20} MiB; it is not taken."
                            )
                finally:
                    await response.aclose()
                return Answer(response.status_code, response.headers, bytes(body), response)
        except httpx.DecodingError as error:
            raise ForgeUnavailable(
                f"GitHub's answer to {method} {request.url.path} cannot be read. Try again later."
            ) from error
        except (httpx.TransportError, TimeoutError) as error:
            return error

    async def download(self, answer: Answer, what: str) -> httpx.Response:
        """The open answer of the host that holds a log, to which `answer` redirects. It gets no credentials; its address is one itself, and is not told."""
        url = _joined(str(answer.response.url), answer.headers["location"])
        failures = hops = 0
        while True:
            scheme, host, _ = origin(url)
            if scheme != "https" and not (host == _HERE and self._origin[1] == _HERE):
                raise ForgeError(
                    f"GitHub sends us to {host or 'no host'} without encryption for {what}; it is not fetched."
                )
            self.calls += 1
            request = self._http.build_request("GET", url, headers={"accept-encoding": "identity"})
            try:
                response = await self._http.send(request, stream=True)
            except httpx.TransportError as error:
                failures += 1
                if failures == _TRIES:
                    raise _unreachable(error, f"{what}, which lies at {host},") from error
                await self._back_off(failures)
                continue
            if response.status_code == 200:
                return response
            await response.aclose()
            status, location = response.status_code, response.headers.get("location")
            if status in REDIRECTS and location and hops < _HOPS:
                hops += 1
                url = _joined(url, location)
            elif status in (404, 410):
                raise Gone(f"GitHub does not keep what {what} names any more ({status} at {host}).")
            elif (status >= 500 or status == 429) and failures < _TRIES - 1:
                failures += 1
                await self._back_off(failures)
            else:
                raise ForgeUnavailable(
                    f"{host}, where GitHub keeps what {what} names, answered {status}. Try again later.",
                    retry_after=retry_after(response.headers),
                )

    async def _back_off(self, failures: int) -> None:
        await self._sleep(_BACK_OFF * 2 ** (failures - 1) * random.uniform(0.5, 1.0))


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address; empty for what is none, or names a user. All names of this machine are one host."""
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return "", "", 0
    if parts.scheme not in ("http", "https") or parts.userinfo:
        return "", "", 0
    host = parts.host.lower()
    return (
        parts.scheme,
        _HERE if is_loopback(host) else host,
        parts.port or (443 if parts.scheme == "https" else 80),
    )


@cache
def _trust() -> ssl.SSLContext:
    """Whom we believe to be who they are: read once, for it takes tens of milliseconds."""
    return httpx.create_ssl_context()


def _joined(url: str, location: str) -> str:
    """Where a redirect leads; empty for what is no address."""
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


def _headers(token: str, accept: str, content: bytes | None) -> dict[str, str]:
    headers = sansio.create_headers(
        USER_AGENT, accept=accept, jwt=token
    )  # "bearer", as JWT and tokens alike may be shown
    headers["x-github-api-version"] = API_VERSION
    if content is not None:
        headers["content-type"] = "application/json; charset=utf-8"
    return headers


def _decoded(answer: Answer) -> Any:
    """The body of a refusal, as far as it can be understood: it may come from a proxy."""
    text = answer.body[:1_000_000].decode(errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None if text.lstrip().startswith("<") else text


def _unreachable(error: BaseException, what: str) -> ForgeUnavailable:
    if isinstance(error, _NOT_SENT):
        return ForgeUnavailable(
            f"GitHub cannot be reached for {what} ({type(error).__name__}). Check the network and api_url."
        )
    perhaps = "" if what.startswith("GET") else _PERHAPS
    return ForgeUnavailable(
        f"The connection to GitHub broke during {what} ({type(error).__name__}).{perhaps} Try again later."
    )


class _WithoutQueries(logging.Filter):
    """The address of a log's download opens it for whoever has it, by its query: httpx would write it down."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                argument.copy_with(query=None) if isinstance(argument, httpx.URL) else argument
                for argument in record.args
            )
        return True


_WITHOUT_QUERIES = _WithoutQueries()


def _keep_queries_out_of_logs() -> None:
    logging.getLogger("httpx").addFilter(_WITHOUT_QUERIES)  # the same object again is not added twice
