"""The model gateway: carries a task's model calls from its Unix socket to the vendor.

The key is added here and is never seen by a container. Only the Messages endpoints and the configured models pass, and nothing that has
the vendor reach into the network for the container; tokens are metered
against the task's budget before a call is paid for; every response is capped in size and time. Bodies and keys are never logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codespar.domain.tasks import MICROS, Limits
from codespar.sandbox.base import ModelTrouble, SandboxError, Usage
from codespar.sandbox.modelcalls import read_call
from codespar.sandbox.pricing import cost_micros

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, web

ENDPOINTS = ("/v1/messages", "/v1/messages/count_tokens")
MAX_REQUEST = 32 * 1024**2  # bytes
MAX_RESPONSE = 16 * 1024**2  # bytes
MAX_REFUSAL = 64 * 1024  # bytes of a vendor's error that are passed on
MAX_SECONDS = 900.0  # for one response
_FORWARDED = ("anthropic-version", "anthropic-beta", "content-type", "accept")
_RETURNED = ("content-type", "retry-after", "request-id")
_KINDS = {401: "unauthorized", 403: "unauthorized", 429: "rate_limited", 529: "overloaded"}


@dataclass
class _Line:
    """One task's connection to the model."""

    model: str
    limits: Limits
    spent_micros: int
    turns: int
    on_usage: Callable[[Usage], Awaitable[None]]
    on_trouble: Callable[[ModelTrouble], None]
    runner: web.AppRunner
    streams: set[asyncio.Task[Any]] = field(default_factory=set)


class Gateway:
    """`ModelGateway` over HTTP. `upstream` is the vendor's base URL. Without a key calls go out without one, unless `key_name` names the
    environment variable that should hold it: then they are refused with what to set."""

    def __init__(
        self,
        upstream: str = "https://api.anthropic.com",
        api_key: str | None = None,
        *,
        key_name: str | None = None,
        max_response: int = MAX_RESPONSE,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        self._upstream = upstream.rstrip("/")
        self._key = api_key
        self._key_name = key_name
        self._max_response = max_response
        self._max_seconds = max_seconds
        self._lines: dict[str, _Line] = {}
        self._session: ClientSession | None = None

    async def open(
        self,
        task: str,
        socket: Path,
        *,
        model: str,
        limits: Limits,
        spent_micros: int,
        turns: int,
        on_usage: Callable[[Usage], Awaitable[None]],
        on_trouble: Callable[[ModelTrouble], None],
    ) -> None:
        from aiohttp import web

        await self.close(task)
        app = web.Application(client_max_size=MAX_REQUEST)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        line = _Line(model, limits, spent_micros, turns, on_usage, on_trouble, runner)

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._handle(line, request)

        app.router.add_route("*", "/{path:.*}", handle)
        await runner.setup()
        await web.SockSite(runner, _listen(socket)).start()
        self._lines[task] = line

    async def close(self, task: str) -> None:
        line = self._lines.pop(task, None)
        if line is not None:
            for stream in line.streams:
                stream.cancel()
            await line.runner.cleanup()

    async def close_all(self) -> None:
        for task in list(self._lines):
            await self.close(task)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _handle(self, line: _Line, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        if request.method == "HEAD" and request.path == "/":
            return web.Response()
        if request.method != "POST" or request.path not in ENDPOINTS:
            return self._refuse(
                line,
                403,
                "endpoint_not_allowed",
                f"{request.method} {request.path[:80]} is not a model endpoint",
            )
        body = await request.read()
        try:
            asked, outside = read_call(body)
        except ValueError:
            return self._refuse(line, 400, "upstream_malformed", "the request to the model was not JSON")
        if asked != line.model:
            return self._refuse(
                line,
                403,
                "model_not_allowed",
                f"model {asked[:60]} is not allowed; {line.model} is configured",
            )
        if outside:
            told = (
                f"{outside} would have the model's service reach into the network for a task, which has none"
            )
            return self._refuse(line, 403, "endpoint_not_allowed", told)
        if self._key is None and self._key_name is not None:
            told = f"the server has no API key of the model: set {self._key_name} where it starts, and start it again"
            return self._refuse(line, 401, "unauthorized", told)
        metered = request.path == "/v1/messages"
        if metered and line.spent_micros >= line.limits.cost_micros:
            told = f"this task's budget of ${line.limits.cost_micros / MICROS:.2f} is spent"
            return self._refuse(line, 400, "budget", told)
        if metered and line.turns >= line.limits.turns:
            return self._refuse(line, 400, "turns", f"this task has used its {line.limits.turns} model turns")
        if metered:
            line.turns += 1
        stream = asyncio.current_task()
        assert stream is not None
        line.streams.add(stream)
        try:
            return await self._forward(line, request, body, asked, metered=metered)
        finally:
            line.streams.discard(stream)

    async def _forward(
        self, line: _Line, request: web.Request, body: bytes, model: str, *, metered: bool
    ) -> web.StreamResponse:
        import aiohttp

        headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        if self._key is not None:
            headers["x-api-key"] = self._key
        try:
            session = await self._client()
            query = request.rel_url.raw_query_string
            url = f"{self._upstream}{request.path}" + (f"?{query}" if query else "")  # as it was judged
            answer = await session.post(
                url, data=body, headers=headers, allow_redirects=False
            )  # a redirect would take the key along
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return self._refuse(
                line,
                502,
                "upstream_unreachable",
                f"the model's service cannot be reached: {type(error).__name__}",
            )
        async with answer:
            passed = {name: answer.headers[name] for name in _RETURNED if name in answer.headers}
            if answer.status >= 400:
                return await self._pass_refusal(line, answer, passed)
            if "text/event-stream" in answer.headers.get("content-type", ""):
                return await self._pass_stream(line, request, answer, passed, Meter(model), metered=metered)
            return await self._pass_whole(line, answer, passed, Meter(model), metered=metered)

    async def _pass_refusal(
        self, line: _Line, answer: ClientResponse, headers: dict[str, str]
    ) -> web.Response:
        """The vendor's own refusal, as far as it came, without the key should it repeat that."""
        import aiohttp
        from aiohttp import web

        content = b""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            while len(content) < MAX_REFUSAL and (part := await answer.content.read(MAX_REFUSAL)):
                content += part
        text = content[:MAX_REFUSAL].decode(errors="replace")
        if self._key:
            text = text.replace(self._key, "[key]")
        kind = _KINDS.get(answer.status, "upstream_error")
        line.on_trouble(ModelTrouble(kind=kind, status=answer.status, message=_told(answer.status, text)))
        return web.Response(status=answer.status, body=text.encode(), headers=headers)

    async def _pass_whole(
        self, line: _Line, answer: ClientResponse, headers: dict[str, str], meter: Meter, *, metered: bool
    ) -> web.Response:
        import aiohttp
        from aiohttp import web

        try:
            content = await self._whole(answer)
        except (aiohttp.ClientError, TimeoutError) as error:
            told = f"the model's answer was cut off: {type(error).__name__}"
            return self._refuse(line, 502, "upstream_cut", told)
        if content is None:
            return self._refuse(line, 502, "upstream_endless", self._too_much())
        if not meter.take_json(content) or (metered and not meter.request):
            told = "the model's service answered something that is not a message"
            return self._refuse(line, 502, "upstream_malformed", told)
        if metered:
            await self._count(line, meter)
        return web.Response(status=answer.status, body=content, headers=headers)

    async def _pass_stream(
        self,
        line: _Line,
        request: web.Request,
        answer: ClientResponse,
        headers: dict[str, str],
        meter: Meter,
        *,
        metered: bool,
    ) -> web.StreamResponse:
        import aiohttp
        from aiohttp import web

        out = web.StreamResponse(status=answer.status, headers=headers)
        await out.prepare(request)
        began, size, counted = time.monotonic(), 0, False
        try:
            async for chunk in _chunks(answer):
                size += len(chunk)
                meter.feed(chunk)
                if size > self._max_response or time.monotonic() - began > self._max_seconds:
                    return self._abort(line, request, out, "upstream_endless", self._too_much())
                if meter.complete and metered and not counted:
                    counted = True
                    await self._count(line, meter)
                await out.write(chunk)
        except (aiohttp.ClientError, TimeoutError) as error:
            if request.transport is None or request.transport.is_closing():
                return out  # the client went: nobody is left to tell
            return self._abort(
                line, request, out, "upstream_cut", f"the model's answer was cut off: {type(error).__name__}"
            )
        finally:
            if metered and not counted:
                await self._count(line, meter)
        if not meter.complete:
            kind = "upstream_cut" if meter.request else "upstream_malformed"
            told = (
                "the model's answer ended before its end"
                if meter.request
                else "the model's service streamed something that is not a message"
            )
            return self._abort(line, request, out, kind, told)
        await out.write_eof()
        return out

    def _too_much(self) -> str:
        return (
            f"the model's answer did not end within {self._max_response} bytes and {self._max_seconds:.0f} s"
        )

    def _abort(
        self, line: _Line, request: web.Request, out: web.StreamResponse, kind: str, told: str
    ) -> web.StreamResponse:
        """Cut the client's connection, so that it sees what happened and can try again."""
        line.on_trouble(ModelTrouble(kind=kind, status=502, message=told))
        if request.transport is not None:
            request.transport.abort()
        return out

    async def _whole(self, answer: ClientResponse) -> bytes | None:
        """The answer; None when it is larger or takes longer than an answer may."""
        began, content = time.monotonic(), bytearray()
        async for chunk in _chunks(answer):
            content += chunk
            if len(content) > self._max_response or time.monotonic() - began > self._max_seconds:
                return None
        return bytes(content)

    async def _count(self, line: _Line, meter: Meter) -> None:
        if (usage := meter.usage()) is not None:
            line.spent_micros += usage.cost_micros
            await line.on_usage(usage)

    def _refuse(self, line: _Line, status: int, kind: str, message: str) -> web.Response:
        from aiohttp import web

        line.on_trouble(ModelTrouble(kind=kind, status=status, message=message))
        body = {
            "type": "error",
            "error": {
                "type": "invalid_request_error" if status == 400 else "permission_error",
                "message": message,
            },
        }
        return web.json_response(body, status=status)

    async def _client(self) -> ClientSession:
        if self._session is None:
            import aiohttp

            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=20, sock_read=min(300, self._max_seconds)
            )
            self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=True, trust_env=True)
        return self._session


class Meter:
    """Reads the usage out of a Messages API answer, whole or streamed, however it is cut into chunks."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._rest = b""
        self._used: dict[str, int] = {}
        self.request = ""
        self.complete = False

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > 1024**2:
            self._rest = b""
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:])

    def _event(self, data: bytes) -> None:
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            return
        if not isinstance(event, dict):
            return
        if event.get("type") == "message_start":
            message = event.get("message")
            if isinstance(message, dict):
                self.request = str(message.get("id", ""))[:100]
                self._take(message.get("usage"))
        elif event.get("type") == "message_delta":
            self._take(event.get("usage"))
        elif event.get("type") in ("message_stop", "error"):
            self.complete = True

    def take_json(self, content: bytes) -> bool:
        """A whole answer. False when it is not one."""
        try:
            message = json.loads(content)
        except (ValueError, RecursionError):
            return False
        if not isinstance(message, dict):
            return False
        self.request = str(message.get("id", ""))[:100]
        self._take(message.get("usage"))
        self.complete = True
        return True

    def _take(self, usage: Any) -> None:
        """Later numbers are of the whole answer so far. Only the first event says for how long the prompt cache keeps what was written."""
        if isinstance(usage, dict):
            split = usage.get("cache_creation")
            for part in (usage, split if isinstance(split, dict) else {}):
                self._used |= {
                    name: value for name, value in part.items() if isinstance(value, int) and value >= 0
                }

    def usage(self) -> Usage | None:
        """What was used as far as is known; None when nothing was said of it."""
        if not self.request:
            return None
        for_an_hour = self._used.get("ephemeral_1h_input_tokens", 0)
        written = for_an_hour + self._used.get("ephemeral_5m_input_tokens", 0)
        counts = {
            "input_tokens": self._used.get("input_tokens", 0),
            "output_tokens": self._used.get("output_tokens", 0),
            "cache_read_tokens": self._used.get("cache_read_input_tokens", 0),
            "cache_write_tokens": max(written, self._used.get("cache_creation_input_tokens", 0)),
        }
        cost = cost_micros(self._model, cache_write_1h_tokens=for_an_hour, **counts)
        return Usage(request=self.request, model=self._model, cost_micros=cost, **counts)


async def _chunks(answer: ClientResponse) -> AsyncIterator[bytes]:
    async for chunk in answer.content.iter_any():
        yield chunk


def _told(status: int, text: str) -> str:
    """The vendor's own message, or its status."""
    try:
        message = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = "no message"
    return f"the model's service answered {status}: {str(message)[:300]}"


def _listen(path: Path) -> socket.socket:
    """A listening socket in a folder whose path may be longer than a socket's name can be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    except OSError as error:
        listener.close()
        raise SandboxError(f"the model socket {path} cannot be made: {error.strerror}") from error
    finally:
        os.close(folder)
    path.chmod(0o666)
    listener.listen(64)
    listener.setblocking(False)
    return listener
