"""The command line's way to the server: where it is, which token opens it, and its HTTP API.

A token that was found in a file is sent to this machine only; it never appears in an error.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

from codespar.domain.base import CodesparError

if TYPE_CHECKING:
    import aiohttp

Json = dict[str, Any]
CALL_SECONDS = 60.0
SILENCE_SECONDS = 45.0  # the event stream pings more often than this
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)  # between attempts to reach the event stream again


class ServerUnreachable(CodesparError):
    """No server answers at the address."""


class Refused(CodesparError):
    """The server answered with an error: its status, its code for programs, and its text for people."""

    def __init__(self, status: int, code: str, message: str, next_step: str = "") -> None:
        super().__init__(f"{message}. {next_step[0].upper()}{next_step[1:]}" if next_step else message)
        self.status = status
        self.code = code
        self.next_step = next_step


@dataclass(frozen=True)
class Server:
    """Where the server is, and the bearer token (kept out of every printed form)."""

    url: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Event:
    """One server-sent event. `id` is its cursor when it has one."""

    kind: str
    data: Json
    id: str | None = None


def locate(server: str | None, config: Path | None, environment: Mapping[str, str]) -> Server:
    """The server that is meant: `--server`, else CODESPAR_URL, else the settings. Raises `CodesparError`."""
    from codespar.config import LOOPBACK, load_settings

    url, token = server or environment.get("CODESPAR_URL"), environment.get("CODESPAR_TOKEN")
    if url is not None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CodesparError(f"{url} is no server address; one looks like http://127.0.0.1:7477")
        if token or parts.hostname not in LOOPBACK:
            return Server(url.rstrip("/"), token or None)
    settings = load_settings(config, environment)
    token = token or _token(settings.data_dir / "cli-token")
    if url is not None:
        return Server(url.rstrip("/"), token)
    if settings.server.port == 0:
        return Server(_announced(settings.data_dir), token)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.server.host, settings.server.host)
    return Server(f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}", token)


def _token(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CodesparError(
            f"the token in {path} cannot be read: {error.strerror}. Run this as the user who runs the server, or set CODESPAR_TOKEN."
        ) from error


def _announced(data_dir: Path) -> str:
    """The address a server with `port: 0` wrote down."""
    try:
        return (data_dir / "server.address").read_text().strip()
    except OSError as error:
        raise ServerUnreachable(
            f"`server.port` is 0 and no server has written its address to {data_dir}. `codespar up` starts one."
        ) from error


class SseParser:
    """Server-sent events from bytes, however they are cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete with this chunk. Comments and events without data are passed over."""
        *whole, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        return [event for block in whole if (event := self._event(block.decode("utf-8", "replace")))]

    @staticmethod
    def _event(block: str) -> Event | None:
        kind, cursor, data = "message", None, list[str]()
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "id":
                cursor = value
            elif name == "data":
                data.append(value)
        return Event(kind, json.loads("\n".join(data)), cursor) if data else None


class Client:
    """The HTTP API, as calls. Use it as an async context manager."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        import aiohttp

        headers = {"Authorization": f"Bearer {self.server.token}"} if self.server.token else {}
        self._session = aiohttp.ClientSession(
            headers=headers, timeout=aiohttp.ClientTimeout(total=CALL_SECONDS)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, **params: str | int | None) -> Json:
        """The JSON answer to a GET. Raises `ServerUnreachable`, `Refused`."""
        return _json(await self._call("GET", path, params=params), path)

    async def post(self, path: str, body: Json) -> Json:
        """The JSON answer to a POST. Raises `ServerUnreachable`, `Refused`."""
        return _json(await self._call("POST", path, body=body), path)

    async def text(self, path: str) -> str:
        """The answer as text. Raises `ServerUnreachable`, `Refused`."""
        return (await self._call("GET", path)).decode("utf-8", "replace")

    async def readiness(self) -> tuple[bool, Json]:
        """Whether the server takes messages, and what it says of itself. Raises `ServerUnreachable`."""
        try:
            return True, await self.get("/readyz")
        except Refused as refused:
            if refused.status != 503:
                raise
            return False, {"status": "starting", "why": str(refused)}

    async def say(
        self, content: str, *, project: str | None = None, thread: str | None = None, id: str | None = None
    ) -> Json:
        """Send a message as the token's person. With an `id`, sending it again changes nothing."""
        body = {"content": content, "project": project, "thread": thread, "id": id}
        return await self.post(
            "/api/v1/messages", {name: value for name, value in body.items() if value is not None}
        )

    async def report_run(self, project: str, run: Json) -> Json:
        """Say how a run of the project's continuous integration stands. Raises `Refused` where its code host is not the embedded one."""
        return await self.post(f"/api/v1/projects/{quote(project, safe='')}/builds", run)

    async def messages(self, thread: str, after: int) -> list[Json]:
        """Everything in a thread that is new or changed since the cursor."""
        found: list[Json] = []
        while (page := await self.get("/api/v1/messages", thread=thread, after=after))["cursor"] != after:
            found += page["messages"]
            after = int(page["cursor"])
        return found

    async def events(self, project: str | None = None, after: int | None = None) -> AsyncIterator[Event]:
        """Everything as it happens, from the cursor on. A lost connection is taken up again where it broke, and never ends by itself.

        A `lost` event is yielded when the connection breaks, and a `found` one when it stands again. Raises `Refused`.
        """
        cursor = str(after) if after is not None else None
        lost, attempt = False, 0
        while True:
            try:
                async for event in self._listen(project, cursor):
                    if lost:
                        lost, attempt = False, 0
                        yield Event("found", {})
                    cursor = event.id or cursor
                    yield event
            except ServerUnreachable as error:
                if not lost:
                    yield Event("lost", {"why": str(error)})
                lost = True
            await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1

    async def _listen(self, project: str | None, cursor: str | None) -> AsyncIterator[Event]:
        import aiohttp

        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": cursor} if cursor else {})
        params = {"project": project} if project else {}
        parser = SseParser()
        try:
            async with self._open().get(
                self.server.url + "/api/v1/events",
                params=params,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_read=SILENCE_SECONDS),
            ) as response:
                if response.status != 200:
                    raise self._refusal(response.status, await response.read())
                async for chunk in response.content.iter_any():
                    for event in parser.feed(chunk):
                        yield event
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int | None] | None = None,
        body: Json | None = None,
    ) -> bytes:
        import aiohttp

        given = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            async with self._open().request(
                method, self.server.url + path, params=given, json=body
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        if response.status >= 400:
            raise self._refusal(response.status, content)
        return content

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is used outside its `async with`")
        return self._session

    def _unreachable(self, error: BaseException) -> ServerUnreachable:
        return ServerUnreachable(
            f"no CodeSpar server answers at {self.server.url} ({_why(error)}). `codespar up` starts one; `--server` or CODESPAR_URL names another."
        )

    def _refusal(self, status: int, content: bytes) -> Refused:
        """The server's own words where the answer is in its form; some other program's answer is not shown."""
        try:
            found = json.loads(content)
        except ValueError:
            found = {}
        if isinstance(found, dict) and isinstance(error := found.get("error"), dict):
            message = str(error.get("message", "")).rstrip(".")
            return Refused(status, str(error.get("code", "")), message, str(error.get("next", "")))
        if isinstance(found, dict) and found.get("why"):
            return Refused(status, str(found.get("status", "")), str(found["why"]))
        told = f"{self.server.url} answered with HTTP status {status}"
        return Refused(status, "unknown", told, "If a CodeSpar server is there, its log says why")


def _why(error: BaseException) -> str:
    """The reason in the system's words, without those of the library around it."""
    import ssl

    cause = getattr(error, "os_error", error)
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and (cause.errno or 0) > 0:
        return os.strerror(cause.errno or 0)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _json(content: bytes, path: str) -> Json:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refused(
            200, "not_codespar", f"the answer to {path} is not JSON", "Is this address a CodeSpar server's?"
        )
    return found
