"""The server: the vendor's Messages API, streamed or whole, from a script. It listens on the loopback alone.

It keeps no conversation. Which turn is next follows from the tool calls that the request itself holds, so a request that is repeated after
a lost connection (the coding CLI keeps what arrived of the text), or after this server was started again, gets the same answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from typing import Any

from aiohttp import web

from codespar.scripted.refusals import foreign_thought, refusal, thinks, thought
from codespar.scripted.reviews import Reviews, asked_of
from codespar.scripted.script import Choose, Fault, FaultKind, Turn

PIECE = 24  # characters of a streamed delta
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class ScriptedModel:
    """Use it as an async context manager, or `start` and `stop` it. `url` is what `model.base_url` takes."""

    def __init__(
        self,
        choose: Choose,
        *,
        reviews: Reviews | None = None,
        seconds: float = 0.0,
        key: str | None = None,
    ) -> None:
        """`reviews` is what it says as a model that reviews; left out, it finds nothing. `seconds` is how long an answer takes; with `key`,
        any other API key is refused as the vendor does.
        """
        self._choose = choose
        self._reviews = reviews or Reviews()
        self._seconds = seconds
        self._key = key
        self._faults: Counter[str] = Counter()
        self._runner: web.AppRunner | None = None
        self.url = ""
        self.requests: list[dict[str, Any]] = []

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_post("/v1/messages/count_tokens", self._count)
        app.router.add_get("/healthz", self._healthz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> ScriptedModel:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "model": "scripted"})

    async def _count(self, request: web.Request) -> web.Response:
        return web.json_response({"input_tokens": len(await request.read()) // 4})

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        if self._key is not None and request.headers.get("x-api-key") != self._key:
            return _error(401, "invalid x-api-key")
        body: dict[str, Any] = await request.json()
        self.requests.append(body)
        messages = [message for message in body.get("messages", []) if isinstance(message, dict)]
        place = sum(_calls_tools(message) for message in messages)
        first = _text(messages[0]) if messages else ""
        review = asked_of(body)
        if review is not None:
            turn = self._reviews(review).turn(place)
        else:
            turn = self._choose(first).turn(place) if body.get("tools") else Turn("Coding task")
        model = str(body.get("model"))
        beta = request.headers.get("anthropic-beta", "")
        why_not = refusal(body, beta) or foreign_thought(model, messages, _names(first, messages))
        if why_not is not None:
            return _error(400, why_not)
        name = _name(first, place)
        if turn.fault is not None:
            self._faults[name] += 1
            if self._faults[name] <= turn.fault.times:
                return await self._go_wrong(request, turn.fault, name, body)
        answer = _answer(name, model, turn, thinking=thinks(body))
        seconds = self._seconds if turn.seconds is None else turn.seconds
        if body.get("stream"):
            return await _stream(request, answer, seconds)
        await asyncio.sleep(seconds)
        return web.json_response(answer)

    async def _go_wrong(
        self, request: web.Request, fault: Fault, name: str, body: dict[str, Any]
    ) -> web.StreamResponse:
        match fault.kind:
            case FaultKind.STATUS:
                return _error(fault.status, f"scripted: the vendor answers {fault.status}")
            case FaultKind.SILENCE:
                await asyncio.sleep(3600)
                return _error(500, "scripted: silence")
            case FaultKind.MALFORMED:
                return web.Response(
                    text="<html>502 Bad Gateway</html>\n" * 3, content_type="text/event-stream"
                )
            case FaultKind.CUT | FaultKind.ENDLESS:
                out = _events()
                await out.prepare(request)
                await _begin(out, _answer(name, str(body.get("model")), Turn("")))
                await _send(out, "content_block_start", index=0, content_block={"type": "text", "text": ""})
                while fault.kind is FaultKind.ENDLESS:
                    await _delta(out, 0, {"type": "text_delta", "text": "and on " * 4096})
                await _delta(out, 0, {"type": "text_delta", "text": "I was going to"})
                if request.transport is not None:
                    request.transport.abort()
                return out


def _calls_tools(message: dict[str, Any]) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return message.get("role") == "assistant" and any(
        isinstance(part, dict) and part.get("type") == "tool_use" for part in parts
    )


def _name(first: str, place: int) -> str:
    """The answer to a conversation that began so, after as many tool calls."""
    return hashlib.sha256(f"{first}\0{place}".encode()).hexdigest()[:24]


def _names(first: str, messages: list[dict[str, Any]]) -> list[str]:
    """Those of the answers which a request repeats."""
    names: list[str] = []
    place = 0
    for message in messages:
        if message.get("role") == "assistant":
            names.append(_name(first, place))
        place += _calls_tools(message)
    return names


def _error(status: int, message: str) -> web.Response:
    error = {"type": _ERRORS.get(status, "api_error"), "message": message}
    return web.json_response({"type": "error", "error": error}, status=status)


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _answer(name: str, model: str, turn: Turn, *, thinking: bool = False) -> dict[str, Any]:
    """The whole answer, as the vendor shapes it. Its ids follow from the request, so a repeat is counted once."""
    content: list[dict[str, Any]] = [thought(model, name)] if thinking else []
    content += [{"type": "text", "text": turn.text}] if turn.text else []
    for number, call in enumerate(turn.calls):
        content.append(
            {"type": "tool_use", "id": f"toolu_{name}{number}", "name": call.tool, "input": call.arguments}
        )
    size = sum(len(json.dumps(part)) for part in content)
    return {
        "id": f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "tool_use" if turn.calls else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": turn.input_tokens,
            "output_tokens": max(1, size // 4),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }


def _events() -> web.StreamResponse:
    return web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})


async def _send(out: web.StreamResponse, kind: str, **body: Any) -> None:
    await out.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **body})}\n\n".encode())


async def _delta(out: web.StreamResponse, index: int, delta: dict[str, Any]) -> None:
    await _send(out, "content_block_delta", index=index, delta=delta)


async def _begin(out: web.StreamResponse, answer: dict[str, Any]) -> None:
    usage = answer["usage"] | {"output_tokens": 1}
    message = answer | {"content": [], "stop_reason": None, "usage": usage}
    await _send(out, "message_start", message=message)
    await _send(out, "ping")


async def _stream(request: web.Request, answer: dict[str, Any], seconds: float) -> web.StreamResponse:
    """Send the answer as the vendor streams it, evenly over `seconds`."""
    out = _events()
    await out.prepare(request)
    await _begin(out, answer)
    pieces = [_pieces(part) for part in answer["content"]]
    pause = seconds / max(1, sum(len(deltas) for _, deltas in pieces))
    for index, (empty, deltas) in enumerate(pieces):
        await _send(out, "content_block_start", index=index, content_block=empty)
        for delta in deltas:
            await asyncio.sleep(pause)
            await _delta(out, index, delta)
        await _send(out, "content_block_stop", index=index)
    ending = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    await _send(out, "message_delta", delta=ending, usage={"output_tokens": answer["usage"]["output_tokens"]})
    await _send(out, "message_stop")
    await out.write_eof()
    return out


def _pieces(part: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A content block as it begins, and the deltas that fill it."""
    if part["type"] == "text":
        text = part["text"]
        cut = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in cut]
    if part["type"] == "thinking":
        return part | {"signature": ""}, [{"type": "signature_delta", "signature": part["signature"]}]
    text = json.dumps(part["input"])
    cut = [text[at : at + PIECE * 8] for at in range(0, len(text), PIECE * 8)]
    return part | {"input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in cut]
