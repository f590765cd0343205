"""A strict GitHub of our own, for what nobody else plays: rate limits, ETags, App tokens, outages and logs on another host.

It runs on the loopback, records every request, and refuses what GitHub refuses by its documents: a request without `User-Agent` (403),
without or with unknown credentials (401), with an `Accept` it cannot serve (415), with an API version it does not know (400), with a body
that is no JSON (400), a JWT that is badly signed, from the future or too long-lived (401), and any path nothing was said of (404).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

import jwt
from aiohttp import web

VERSIONS = ("2022-11-28", "2026-03-10")


@dataclass
class Says:
    """One scripted answer. `cut`: the connection ends without one, before ("at once") or after a part of the body ("midway")."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    cut: str = ""
    after: float = 0.0  # seconds


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Any
    at: float
    status: int = 0

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").partition(" ")[2]


Answerer = Callable[[Asked], Says]


class GithubApi:
    """GitHub's API at `url`. `now` is its clock."""

    def __init__(self, prefix: str = "", now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.now = now
        self.requests: list[Asked] = []
        self.tokens: dict[str, datetime | None] = {"github_pat_" + "a" * 40: None}
        self.most_at_once = 0
        self.most_writes_at_once = 0
        self.quota: int | None = None  # requests left until `reset`
        self.reset = 0.0
        self.limited = 0  # requests that were refused for a limit
        self.blobs = BlobHost()
        self._prefix = prefix
        self._answers: dict[tuple[str, str], list[Says | Answerer]] = {}
        self._apps: dict[str, App] = {}
        self._under_way: list[str] = []

    @property
    def token(self) -> str:
        return next(iter(self.tokens))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[GithubApi]:
        async with served(self._serve) as address, self.blobs.running():
            self.host = address
            self.url = address + self._prefix
            yield self

    def on(self, method: str, path: str, *answers: Says | Answerer) -> None:
        """Script what a path answers: one after another, the last for good."""
        self._answers[method, path] = list(answers)

    def lists(self, path: str, items: list[dict[str, Any]], key: str | None = None) -> None:
        """A list in pages, with GitHub's links."""

        def answer(asked: Asked) -> Says:
            size = min(int(asked.query.get("per_page", "30")), 100)
            page = int(asked.query.get("page", "1"))
            shown = items[(page - 1) * size : page * size]
            headers = {}
            if page * size < len(items):
                following = urlencode(asked.query | {"page": str(page + 1)})
                headers["Link"] = (
                    f'<{self.url}{path}?{following}>; rel="next", <{self.url}{path}?page=99>; rel="last"'
                )
            return Says({"total_count": len(items), key: shown} if key else shown, headers=headers)

        self.on("GET", path, answer)

    def app(self, app_id: int, public_key: bytes, repository: str, installed: bool = True) -> App:
        """Register an App, and install it on a repository."""
        app = App(self, app_id, public_key, repository, installed)
        self._apps[str(app_id)] = app
        return app

    def asked(self, method: str, path: str) -> list[Asked]:
        return [one for one in self.requests if (one.method, one.path) == (method, path)]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        path = request.path.removeprefix(self._prefix) if self._prefix else request.path
        asked = Asked(
            request.method, path, dict(request.query), request.headers.copy(), None, time.monotonic()
        )
        self.requests.append(asked)
        self._under_way.append(request.method)
        self.most_at_once = max(self.most_at_once, len(self._under_way))
        writes = sum(method != "GET" for method in self._under_way)
        self.most_writes_at_once = max(self.most_writes_at_once, writes)
        try:
            said = self._refusal(asked, content) or self._next(asked)
            if said.after:
                await asyncio.sleep(said.after)
            return await self._answer(request, asked, said)
        finally:
            self._under_way.remove(request.method)

    def _refusal(self, asked: Asked, content: bytes) -> Says | None:
        headers = asked.headers
        agent = headers.get("User-Agent", "")
        if not agent or agent.startswith(("python-httpx", "Python/")):
            return Says(
                status=403, raw=b"Request forbidden by administrative rules. Make sure it has a User-Agent."
            )
        accept = headers.get("Accept", "*/*")
        if not accept.startswith(("application/vnd.github", "application/json")):
            return Says({"message": f"Unsupported 'Accept' header: {accept}."}, 415)
        if (version := headers.get("X-GitHub-Api-Version")) not in VERSIONS:
            return Says({"message": f"{version!r} is not a supported version"}, 400)
        if content:
            try:
                asked.body = json.loads(content)
            except ValueError:
                return Says({"message": "Problems parsing JSON"}, 400)
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() not in ("bearer", "token") or not token:
            return Says({"message": "Requires authentication"}, 401)
        if asked.path == "/app" or asked.path.startswith("/app/") or asked.path.endswith("/installation"):
            return self._bad_jwt(token)
        if token not in self.tokens or ((end := self.tokens[token]) is not None and end <= self.now()):
            return Says({"message": "Bad credentials"}, 401)
        return None

    def _bad_jwt(self, token: str) -> Says | None:
        try:
            issuer = jwt.decode(token, options={"verify_signature": False})["iss"]
            key = self._apps[issuer].public_key
            claims = jwt.decode(
                token, key, ["RS256"], options={"verify_exp": False, "verify_iat": False}, issuer=issuer
            )
        except (jwt.PyJWTError, KeyError):
            return Says({"message": "A JSON web token could not be decoded"}, 401)
        now = self.now().timestamp()
        if claims["iat"] > now or claims["exp"] <= now:
            return Says({"message": "'Issued at' claim ('iat') must be an Integer in the past"}, 401)
        if claims["exp"] > now + 600:
            return Says({"message": "'Expiration time' claim ('exp') is too far in the future"}, 401)
        return None

    def _next(self, asked: Asked) -> Says:
        scripted = self._answers.get((asked.method, asked.path))
        if not scripted:
            return Says({"message": "Not Found", "documentation_url": "https://docs.github.com/rest"}, 404)
        said = scripted.pop(0) if len(scripted) > 1 else scripted[0]
        return said(asked) if callable(said) else said

    def _spend(self, said: Says) -> tuple[Says, dict[str, str]]:
        """Count the request against the quota; refuse it when nothing is left."""
        if self.quota is None:
            return said, {}
        if self.quota == 0 and self.now().timestamp() >= self.reset:
            self.quota = 5000
        headers = {"X-RateLimit-Limit": "5000", "X-RateLimit-Reset": str(int(self.reset))}
        if self.quota == 0:
            self.limited += 1
            said = Says({"message": "API rate limit exceeded for installation ID 1."}, 403)
        else:
            self.quota -= 1
        return said, headers | {"X-RateLimit-Remaining": str(self.quota), "X-RateLimit-Resource": "core"}

    async def _answer(self, request: web.Request, asked: Asked, said: Says) -> web.StreamResponse:
        if said.cut == "at once":
            assert request.transport is not None
            request.transport.abort()
            raise asyncio.CancelledError
        body = (
            said.raw
            if said.raw is not None
            else b""
            if said.status == 204
            else json.dumps(said.body).encode()
        )
        etag = f'W/"{hashlib.sha256(body).hexdigest()}"'
        same = said.status == 200 and asked.method == "GET" and asked.headers.get("If-None-Match") == etag
        said, quota = (said, {}) if same else self._spend(said)
        if quota and said.status == 403 and self.quota == 0:
            body = json.dumps(said.body).encode()
        date = {"Date": format_datetime(self.now().astimezone(UTC), usegmt=True)}
        headers = {"Content-Type": "application/json; charset=utf-8"} | date | quota | dict(said.headers)
        asked.status = 304 if same else said.status
        if same:
            return web.Response(status=304, headers={"ETag": etag})
        if said.status == 200 and asked.method == "GET":
            headers["ETag"] = etag
        if said.cut == "midway":
            response = web.StreamResponse(
                status=said.status, headers=headers | {"Content-Length": str(len(body) + 9)}
            )
            await response.prepare(request)
            await response.write(body)
            assert request.transport is not None
            request.transport.abort()
            return response
        return web.Response(status=said.status, headers=headers, body=body)


class App:
    """A GitHub App, and what it may."""

    def __init__(
        self, github: GithubApi, app_id: int, public_key: bytes, repository: str, installed: bool
    ) -> None:
        self.public_key = public_key
        self.installed = installed
        self.suspended = False
        self.covers = [repository.partition("/")[2]]
        self.ids = [42]  # of these
        self.issued: list[str] = []
        self.life = timedelta(hours=1)
        self.installation = 7001
        self._github = github
        self._repository = repository
        github.on("GET", "/app", Says({"id": app_id, "html_url": "https://github.com/apps/codespar-test"}))
        github.on("GET", f"/repos/{repository}/installation", self._find)
        self.reinstall(7001)

    def reinstall(self, installation: int) -> None:
        """The App was taken away and installed anew: another installation."""
        self._github.on("POST", f"/app/installations/{self.installation}/access_tokens", _nothing)
        self.installation = installation
        self._github.on("POST", f"/app/installations/{installation}/access_tokens", self._issue)

    def _find(self, asked: Asked) -> Says:
        if not self.installed:
            return _nothing(asked)
        since = "2026-11-01T10:00:00Z" if self.suspended else None
        return Says({"id": self.installation, "suspended_at": since})

    def _issue(self, asked: Asked) -> Says:
        if self.suspended:
            return Says({"message": "This installation has been suspended"}, 403)
        wanted = asked.body or {}
        if not (
            wanted
            and set(wanted.get("repositories", ())) <= set(self.covers)
            and set(wanted.get("repository_ids", ())) <= set(self.ids)
        ):
            message = "There is at least one repository that does not exist or is not accessible to the parent installation."
            return Says({"message": message}, 422)
        token = f"ghs_{secrets.token_hex(18)}"
        end = (self._github.now() + self.life).replace(microsecond=0)
        self._github.tokens[token] = end
        self.issued.append(token)
        told = {"token": token, "expires_at": end.isoformat().replace("+00:00", "Z")}
        named = [{"id": id, "name": name} for id, name in zip(self.ids, self.covers, strict=False)]
        return Says(told | {"repository_selection": "selected", "repositories": named}, 201)


def _nothing(_: Asked) -> Says:
    return Says({"message": "Not Found"}, 404)


class BlobHost:
    """Where GitHub keeps logs and artefacts: another origin, opened by a signature in the address, that refuses GitHub's credentials."""

    SIGNATURE = "sig=c2VjcmV0LXNpZ25hdHVyZQ"

    def __init__(self) -> None:
        self.size = 1000
        self.content: bytes | None = None
        self.status = 200
        self.requests: list[Mapping[str, str]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with served(self._serve) as address:
            self.url = f"{address}/logs/1.txt?{self.SIGNATURE}"
            yield

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.headers.copy())
        if "Authorization" in request.headers or "Cookie" in request.headers:
            return web.Response(status=400, text="InvalidAuthenticationInfo")
        if request.query_string != self.SIGNATURE:
            return web.Response(status=403, text="AuthenticationFailed")
        if self.status != 200:
            return web.Response(status=self.status)
        if self.content is not None:
            return web.Response(body=self.content)
        response = web.StreamResponse(headers={"Content-Length": str(self.size)})
        await response.prepare(request)
        piece, left = b"0123456789abcde\n" * 16384, self.size
        while left > 0:
            await response.write(piece[:left])
            left -= len(piece)
        return response


@asynccontextmanager
async def served(handler: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    """A server on the loopback, at a port of its own."""
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
