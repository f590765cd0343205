"""A local server that speaks Anthropic's Messages API and OpenAI's Chat Completions for calls that must end in one tool.

It refuses what the vendors would refuse: a missing version header or token limit, a key it does not know, a tool that was not offered, what
present models no longer take, and thinking that comes back changed or to another model.
What it answers is scripted by the test, one `Reply` a call; the last one goes on for all that follow.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from codespar.scripted.refusals import foreign_thought, refusal, thinks, thought

_FINISHED = {"max_tokens": "length", "refusal": "content_filter"}
KEY = "sk-ant-api03-" + "k" * 40


@dataclass(frozen=True)
class Reply:
    """One answer. Without `arguments` it is `text` alone, and no tool is called."""

    arguments: dict[str, Any] | None = None
    text: str = ""
    status: int = 200
    message: str = "scripted"
    kind: str = "api_error"
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    beside: int = 1  # it is not given before so many calls were under way at once, or half a minute
    cut: bool = False  # the connection breaks before the answer
    tokens: tuple[int, int] = (700, 40)
    tool: str | None = None  # the one to call, where several are offered
    stop: str | None = None  # the Messages API's stop reason; None: as an answer of this kind ends
    more: tuple[dict[str, Any], ...] = ()  # arguments of further calls of the tool in the same answer
    cached: tuple[int, int] = (0, 0)  # tokens written to the cache, and read from it


def command(line: str, *, why: str = "Because you asked.", confident: bool = True) -> Reply:
    return Reply({"command": line, "why": why, "confident": confident})


def found(title: str, path: str = "app.py", line: int = 2, **fields: Any) -> dict[str, Any]:
    """A finding as a model that reviews gives it."""
    finding = {"path": path, "start_line": line, "end_line": line, "side": "new", "severity": "medium"}
    said = {"category": None, "title": title, "why": "By the code.", "failing_case": "f(0) fails"}
    return finding | said | fields


def report(*findings: dict[str, Any], summary: str = "", **fields: Any) -> Reply:
    """What a model that reviews answers for a concern; `fields` are those that nobody asked for."""
    arguments = {"findings": list(findings), "summary": summary}
    return Reply(arguments | fields, tool="report_findings")


def judged(refuted: bool, why: str = "Line 3 checks it.") -> Reply:
    """What it answers when it is to refute a finding."""
    return Reply({"refuted": refuted, "why": why}, tool="judge_finding")


class ModelApi:
    """Use it as an async context manager. `requests` are the bodies that were accepted, as they came; `under_way` is, for each call, how
    many were being answered when it had come, itself among them.
    """

    def __init__(self, *replies: Reply, key: str = KEY) -> None:
        self._replies = list(replies)
        self._key = key
        self._runner: web.AppRunner | None = None
        self.url = ""
        self.requests: list[dict[str, Any]] = []
        self.calls = 0
        self.under_way: list[int] = []
        self._answering = 0
        self._came = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=4 * 1024**2, middlewares=[self._counted])
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_post("/v1/chat/completions", self._completions)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @web.middleware
    async def _counted(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self._answering += 1
        self.under_way.append(self._answering)
        self._came.set()
        try:
            return await handler(request)
        finally:
            self._answering -= 1

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        reply = self._next()
        body: dict[str, Any] = await request.json()
        if self._key not in (request.headers.get("x-api-key"), _bearer(request)):
            return _anthropic_error(401, "authentication_error", f"invalid x-api-key: {self._key}")
        if "anthropic-version" not in request.headers:
            return _anthropic_error(400, "invalid_request_error", "anthropic-version: header is required")
        for name in ("model", "max_tokens", "messages"):
            if not body.get(name):
                return _anthropic_error(400, "invalid_request_error", f"{name}: Field required")
        if any(not message.get("content") for message in body["messages"]):
            return _anthropic_error(400, "invalid_request_error", "messages: content must not be empty")
        said = sum(message["role"] == "assistant" for message in body["messages"])
        names = [_answer_to(body, place) for place in range(said)]
        if why_not := refusal(body) or foreign_thought(body["model"], body["messages"], names):
            return _anthropic_error(400, "invalid_request_error", why_not)
        tools = {tool["name"]: tool["input_schema"] for tool in body.get("tools", ())}
        self.requests.append(body)
        if (failed := await self._fail(request, reply)) is not None:
            return failed
        content = [thought(body["model"], _answer_to(body, said))] if thinks(body) else []
        content += [{"type": "text", "text": reply.text}] if reply.text else []
        if reply.arguments is not None:
            name = _tool(reply, list(tools))
            for place, given in enumerate((reply.arguments, *reply.more)):
                use = {"type": "tool_use", "id": f"toolu_{self.calls}_{place}", "name": name}
                content.append(use | {"input": given})
        return web.json_response(
            {
                "id": f"msg_{self.calls}",
                "type": "message",
                "role": "assistant",
                "model": body["model"],
                "content": content,
                "stop_reason": reply.stop or ("tool_use" if reply.arguments is not None else "end_turn"),
                "stop_sequence": None,
                "usage": {
                    "input_tokens": reply.tokens[0],
                    "output_tokens": reply.tokens[1],
                    "cache_creation_input_tokens": reply.cached[0],
                    "cache_read_input_tokens": reply.cached[1],
                },
            }
        )

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        reply = self._next()
        body: dict[str, Any] = await request.json()
        if _bearer(request) != self._key:
            return _openai_error(401, "invalid_request_error", f"Incorrect API key provided: {self._key}")
        if not body.get("model") or not body.get("messages"):
            return _openai_error(400, "invalid_request_error", "you must provide a model and messages")
        tools = [tool["function"]["name"] for tool in body.get("tools", ())]
        self.requests.append(body)
        if (failed := await self._fail(request, reply)) is not None:
            return failed
        message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
        if reply.arguments is not None:
            name = _tool(reply, tools)
            message["tool_calls"] = [
                {
                    "id": f"call_{self.calls}_{place}",
                    "type": "function",
                    "function": {"name": name, "arguments": json.dumps(given)},
                }
                for place, given in enumerate((reply.arguments, *reply.more))
            ]
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": _FINISHED.get(reply.stop or "")
            or ("tool_calls" if reply.arguments is not None else "stop"),
        }
        used = {"prompt_tokens": reply.tokens[0], "completion_tokens": reply.tokens[1]}
        return web.json_response(
            {
                "id": f"chatcmpl-{self.calls}",
                "object": "chat.completion",
                "created": 1_790_000_000,
                "model": body["model"],
                "choices": [choice],
                "usage": used | {"total_tokens": sum(reply.tokens)},
            }
        )

    def _next(self) -> Reply:
        reply = self._replies[min(self.calls, len(self._replies) - 1)]
        self.calls += 1
        return reply

    async def _fail(self, request: web.Request, reply: Reply) -> web.Response | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(30):
                while max(self.under_way) < reply.beside:
                    self._came.clear()
                    await self._came.wait()
        await asyncio.sleep(reply.seconds)
        if reply.cut and request.transport is not None:
            request.transport.abort()
            return web.Response()
        if reply.status == 200:
            return None
        shape = _anthropic_error if request.path == "/v1/messages" else _openai_error
        return shape(reply.status, reply.kind, reply.message, reply.headers)


def _tool(reply: Reply, offered: list[str]) -> str:
    """The tool to call: the one that the reply names, which must have been offered, or the only one."""
    if reply.tool is None:
        (name,) = offered
        return name
    assert reply.tool in offered, f"{reply.tool} is not among {offered}"
    return reply.tool


def _answer_to(body: dict[str, Any], place: int) -> str:
    """A name for one answer of a conversation, by how that began."""
    return f"{json.dumps(body['messages'][0])} {place}"


def _bearer(request: web.Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def _anthropic_error(
    status: int, kind: str, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return web.json_response(body, status=status, headers=headers)


def _openai_error(
    status: int, kind: str, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return web.json_response(body, status=status, headers=headers)
