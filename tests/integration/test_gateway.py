"""The model gateway between a real client on its Unix socket and a real server on the loopback: what passes, what it costs, what is refused.

The scripted model stands for the vendor; where bytes must be wrong in a way no honest server sends, a bare TCP server sends them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.domain.tasks import Limits
from codespar.sandbox.base import ModelTrouble, SandboxError, Usage
from codespar.sandbox.gateway import MAX_REQUEST, Gateway, Meter
from codespar.scripted.script import Call, Fault, FaultKind, Library, Script, Turn
from codespar.scripted.server import ScriptedModel
from support.house import free_port

MODEL = "claude-sonnet-5-5"
KEY = "sk-ant-test-0123456789abcdefghijklmnop"
DOLLAR = 1_000_000
SCRIPTS = Library(
    {
        "talk": Script(
            (Turn("I look at it.", (Call("Read", {"file_path": "a" * 500}),), input_tokens=1000),)
        ),
        "slow": Script((Turn("word " * 500, seconds=100.0),)),
        "refuse 401": Script((Turn("", fault=Fault(FaultKind.STATUS, 401)),)),
        "refuse 403": Script((Turn("", fault=Fault(FaultKind.STATUS, 403)),)),
        "refuse 429": Script((Turn("", fault=Fault(FaultKind.STATUS, 429)),)),
        "refuse 500": Script((Turn("", fault=Fault(FaultKind.STATUS, 500)),)),
        "refuse 529": Script((Turn("", fault=Fault(FaultKind.STATUS, 529)),)),
        "cut": Script((Turn("", fault=Fault(FaultKind.CUT)),)),
        "malformed": Script((Turn("", fault=Fault(FaultKind.MALFORMED)),)),
        "endless": Script((Turn("", fault=Fault(FaultKind.ENDLESS)),)),
        "silence": Script((Turn("", fault=Fault(FaultKind.SILENCE)),)),
    }
)


def asking(instruction: str, *, stream: bool = True, model: str = MODEL) -> dict[str, Any]:
    """The body of a call that the scripted model answers with the instruction's script."""
    return {
        "model": model,
        "max_tokens": 100,
        "stream": stream,
        "tools": [{"name": "Read"}],
        "messages": [{"role": "user", "content": instruction}],
    }


class Line:
    """One task's line through a gateway, and what was reported of it."""

    def __init__(self, gateway: Gateway, socket: Path) -> None:
        self.gateway = gateway
        self.socket = socket
        self.used: list[Usage] = []
        self.troubles: list[ModelTrouble] = []

    async def keep(self, usage: Usage) -> None:
        self.used.append(usage)

    async def open(
        self,
        *,
        limits: Limits | None = None,
        spent: int = 0,
        turns: int = 0,
        on_usage: Callable[[Usage], Awaitable[None]] | None = None,
    ) -> None:
        await self.gateway.open(
            "task-abc123",
            self.socket,
            model=MODEL,
            limits=limits or Limits(),
            spent_micros=spent,
            turns=turns,
            on_usage=on_usage or self.keep,
            on_trouble=self.troubles.append,
        )

    @property
    def kinds(self) -> list[str]:
        return [trouble.kind for trouble in self.troubles]

    @asynccontextmanager
    async def request(self, method: str, path: str, **options: Any) -> AsyncGenerator[aiohttp.ClientResponse]:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
            session.request(method, f"http://gateway{path}", **options) as answer,
        ):
            yield answer

    async def ask(
        self, body: dict[str, Any], path: str = "/v1/messages", **options: Any
    ) -> tuple[int, bytes]:
        async with self.request("POST", path, json=body, **options) as answer:
            return answer.status, await answer.read()

    async def is_cut(self, body: dict[str, Any]) -> bytes:
        """What arrives of an answer whose connection must break before its end."""
        got = b""
        async with self.request("POST", "/v1/messages", json=body) as answer:
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                async for chunk in answer.content.iter_any():
                    got += chunk
        return got


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel(SCRIPTS) as model:
        yield model


@asynccontextmanager
async def connected(
    folder: Path, upstream: str, key: str | None = None, *, opened: bool = True, **options: Any
) -> AsyncGenerator[Line]:
    gateway = Gateway(upstream, key, **options)
    line = Line(gateway, folder / "in" / "model.sock")
    if opened:
        await line.open()
    try:
        yield line
    finally:
        await gateway.close_all()


@pytest.fixture
async def line(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[Line]:
    async with connected(tmp_path, model.url) as line:
        yield line


@asynccontextmanager
async def sending(*parts: bytes, pause: float = 0.0) -> AsyncGenerator[tuple[str, list[bytes]]]:
    """A server that answers any request with exactly these bytes and hangs up: its URL, and the requests' heads as they came."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head)
        length = next(
            (row[15:] for row in head.split(b"\r\n") if row.lower().startswith(b"content-length:")), b"0"
        )
        await reader.readexactly(int(length))
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
    finally:
        server.close()


def http(
    body: bytes,
    *,
    status: str = "200 OK",
    kind: str = "application/json",
    length: int | None = None,
    more: str = "",
) -> bytes:
    """An HTTP answer; with a `length` that is not the body's it is cut off."""
    size = len(body) if length is None else length
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n{more}\r\n".encode() + body
    )


def message(**usage: Any) -> bytes:
    """A whole answer that used this much."""
    return json.dumps({"id": "msg_1", "type": "message", "content": [], "usage": usage}).encode()


# what passes


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_an_answer_passes_through_unchanged(line: Line, model: ScriptedModel, stream: bool) -> None:
    body = asking("talk", stream=stream)
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{model.url}/v1/messages", json=body) as direct,
    ):
        status, kind, content = direct.status, direct.headers["content-type"], await direct.read()
    async with line.request("POST", "/v1/messages?beta=true", json=body) as answer:
        assert (answer.status, answer.headers["content-type"], await answer.read()) == (status, kind, content)
    assert model.requests == [body, body], "the request passes through unchanged as well"
    assert line.troubles == []


async def test_counting_tokens_passes_and_costs_nothing(line: Line) -> None:
    status, content = await line.ask({"model": MODEL, "messages": []}, "/v1/messages/count_tokens")
    assert status == 200 and json.loads(content)["input_tokens"] > 0
    assert line.used == [] and line.troubles == []


async def test_the_coding_cli_may_ask_whether_somebody_is_there(line: Line) -> None:
    async with line.request("HEAD", "/") as answer:
        assert answer.status == 200
    assert line.troubles == []


async def test_headers_of_the_protocol_pass_and_no_others(tmp_path: Path) -> None:
    async with (
        sending(http(message(), more="request-id: req_1\r\nset-cookie: a=b\r\n")) as (url, heads),
        connected(tmp_path, url, KEY) as line,
    ):
        given = {
            "anthropic-version": "2023-06-01",
            "anthropic-beta": "x-1",
            "x-api-key": "mine",
            "cookie": "c=d",
        }
        given |= {"authorization": "Bearer mine", "x-forwarded-for": "10.0.0.1"}
        async with line.request("POST", "/v1/messages", json=asking("talk"), headers=given) as answer:
            assert answer.headers["request-id"] == "req_1"
            assert "set-cookie" not in answer.headers
    sent = heads[0].decode().lower()
    assert "anthropic-version: 2023-06-01" in sent and "anthropic-beta: x-1" in sent
    assert f"x-api-key: {KEY}" in sent and "mine" not in sent
    assert "cookie" not in sent and "authorization" not in sent and "10.0.0.1" not in sent


# what it costs


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_an_answer_is_counted_once_at_the_table_s_price(line: Line, stream: bool) -> None:
    await line.ask(asking("talk", stream=stream))
    [used] = line.used
    assert used.request.startswith("msg_") and used.model == MODEL
    assert used.input_tokens == 1000 and used.output_tokens > 100
    assert used.cost_micros == 1000 * 2 + used.output_tokens * 10


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("split", "micros"),
    [
        ({}, 1000 * 2.5),
        ({"cache_creation": None}, 1000 * 2.5),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 0}}, 1000 * 2.5),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 600, "ephemeral_1h_input_tokens": 400}}, 3100),
        ({"cache_creation": {"ephemeral_1h_input_tokens": 1000}}, 1000 * 4),
        ({"cache_creation": {"ephemeral_1h_input_tokens": "many"}}, 1000 * 2.5),
    ],
)
async def test_what_is_written_to_the_prompt_cache_costs_by_how_long_it_is_kept(
    tmp_path: Path, split: dict[str, Any], micros: float, stream: bool
) -> None:
    used = {"input_tokens": 100, "cache_creation_input_tokens": 1000, "cache_read_input_tokens": 2000}
    answer = http(message(**used, output_tokens=10, **split))
    if stream:
        started = {"type": "message_start", "message": {"id": "msg_1", "usage": used | split}}
        ended = {"type": "message_delta", "usage": used | {"output_tokens": 10}}  # without the split
        events = (started, ended, {"type": "message_stop"})
        lines = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        answer = http(lines.encode(), kind="text/event-stream")
    async with sending(answer) as (url, _), connected(tmp_path, url) as line:
        await line.ask(asking("talk", stream=stream))
    [usage] = line.used
    assert (usage.cache_write_tokens, usage.cache_read_tokens) == (1000, 2000)
    assert usage.cost_micros == 200 + micros + 200 + 100


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_an_answer_does_not_end_before_its_usage_is_kept(line: Line, stream: bool) -> None:
    asked, kept = asyncio.Event(), asyncio.Event()

    async def slowly(usage: Usage) -> None:
        asked.set()
        await kept.wait()
        line.used.append(usage)

    await line.open(on_usage=slowly)
    got = bytearray()

    async def read() -> None:
        async with line.request("POST", "/v1/messages", json=asking("talk", stream=stream)) as answer:
            async for chunk in answer.content.iter_any():
                got.extend(chunk)

    reading = asyncio.create_task(read())
    await asyncio.wait_for(asked.wait(), 60)
    await asyncio.sleep(0.1)
    assert not reading.done() and b"message_stop" not in got and line.used == []
    kept.set()
    await asyncio.wait_for(reading, 60)
    assert len(line.used) == 1 and got


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_an_answer_whose_usage_cannot_be_kept_never_ends_well(line: Line, stream: bool) -> None:
    async def fails(usage: Usage) -> None:
        raise OSError("the database is away")

    await line.open(on_usage=fails)
    body = asking("talk", stream=stream)
    if stream:
        assert b"message_stop" not in await line.is_cut(body)
    else:
        assert (await line.ask(body))[0] >= 500


# limits


async def test_a_spent_budget_refuses_before_the_call_is_paid_for(line: Line, model: ScriptedModel) -> None:
    await line.open(limits=Limits(cost_micros=3 * DOLLAR), spent=3 * DOLLAR)
    status, content = await line.ask(asking("talk"))
    assert status == 400 and json.loads(content)["error"]["message"] == "this task's budget of $3.00 is spent"
    assert line.kinds == ["budget"] and model.requests == [] and line.used == []


async def test_the_answer_that_spends_the_budget_is_the_last_one(line: Line, model: ScriptedModel) -> None:
    await line.open(limits=Limits(cost_micros=3001))
    assert (await line.ask(asking("talk")))[0] == 200
    assert (await line.ask(asking("talk")))[0] == 400
    assert line.kinds == ["budget"] and len(model.requests) == 1 and len(line.used) == 1


async def test_turns_used_before_count_and_the_limit_refuses_before_the_call(
    line: Line, model: ScriptedModel
) -> None:
    await line.open(limits=Limits(turns=3), turns=2)
    assert (await line.ask(asking("talk")))[0] == 200
    status, content = await line.ask(asking("talk"))
    assert status == 400 and "3 model turns" in json.loads(content)["error"]["message"]
    assert line.kinds == ["turns"] and len(model.requests) == 1
    assert (await line.ask({"model": MODEL, "messages": []}, "/v1/messages/count_tokens"))[0] == 200


# what is refused


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/messages"),
        ("PUT", "/v1/messages"),
        ("DELETE", "/v1/messages"),
        ("OPTIONS", "/v1/messages"),
        ("GET", "/"),
        ("POST", "/"),
        ("GET", "/v1/models"),
        ("POST", "/v1/complete"),
        ("POST", "/v1/files"),
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/messages/"),
        ("POST", "//v1/messages"),
        ("POST", "/V1/MESSAGES"),
        ("HEAD", "/v1/messages"),
    ],
)
async def test_other_endpoints_and_methods_are_refused(
    line: Line, model: ScriptedModel, method: str, path: str
) -> None:
    async with line.request(method, path, json=asking("talk")) as answer:
        assert answer.status == 403
        if method != "HEAD":
            assert (await answer.json())["type"] == "error"
    assert line.kinds == ["endpoint_not_allowed"] and model.requests == []


async def test_a_request_for_another_host_goes_to_the_vendor_alone(line: Line, model: ScriptedModel) -> None:
    """A proxy's form of request (`POST http://elsewhere/…`) opens no other door."""
    body = json.dumps(asking("talk", stream=False)).encode()
    reader, writer = await asyncio.open_unix_connection(line.socket)
    head = f"POST http://127.0.0.1:1/v1/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 403")) and len(model.requests) == (
        b" 200 " in answer[:13]
    )


@pytest.mark.parametrize("asked", ["claude-opus-5-5", "", "CLAUDE-SONNET-5-5", "claude-sonnet-5-5 "])
async def test_other_models_are_refused(line: Line, model: ScriptedModel, asked: str) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        status, content = await line.ask(asking("talk", model=asked), path)
        assert status == 403 and MODEL in json.loads(content)["error"]["message"]
    assert line.kinds == ["model_not_allowed"] * 2 and model.requests == []


URL = {"type": "url", "url": "https://elsewhere.example/?secret"}
REACHING_OUT = {
    "an MCP server": {"mcp_servers": [{"type": "url", "name": "x", "url": "https://elsewhere.example"}]},
    "the vendor's fetch": {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]},
    "the vendor's search": {
        "tools": [{"name": "Read"}, {"type": "web_search_20260209", "name": "web_search"}]
    },
    "an image": {"messages": [{"role": "user", "content": [{"type": "image", "source": URL}]}]},
    "a document in a system prompt": {"system": [{"type": "document", "source": URL}]},
    "an image in a tool's result": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "tool_result", "content": [{"type": "image", "source": URL}]}],
            }
        ]
    },
    "an image in a document": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "document",
                        "source": {"type": "content", "content": [{"type": "image", "source": URL}]},
                    }
                ],
            }
        ]
    },
}


@pytest.mark.parametrize("given", REACHING_OUT.values(), ids=REACHING_OUT)
async def test_a_container_reaches_no_network_through_the_vendor(
    line: Line, model: ScriptedModel, given: dict[str, Any]
) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        status, content = await line.ask(asking("talk") | given, path)
        assert status == 403 and "network" in json.loads(content)["error"]["message"]
    assert line.kinds == ["endpoint_not_allowed"] * 2 and model.requests == []


async def test_words_about_addresses_are_no_way_out(line: Line, model: ScriptedModel) -> None:
    used = {"type": "tool_use", "id": "t1", "name": "Read", "input": {"source": URL, "mcp_servers": [URL]}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": json.dumps(URL)}
    messages = [
        {"role": "user", "content": "talk"},
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [result]},
    ]
    schema = {"type": "object", "properties": {"source": {"type": "string"}}}
    tools = [{"name": "Read", "input_schema": schema}, {"type": "custom", "name": "web_fetch"}]
    status, _ = await line.ask(asking("talk", stream=False) | {"messages": messages, "tools": tools})
    assert status == 200 and line.kinds == [] and len(model.requests) == 1


async def test_a_model_that_is_named_twice_is_refused(line: Line, model: ScriptedModel) -> None:
    """Which of the two counts, the vendor may see otherwise than we do."""
    body = json.dumps(asking("talk")).encode()
    twice = b'{"model": "claude-opus-5-5", ' + body[1:]
    async with line.request("POST", "/v1/messages", data=twice) as answer:
        assert answer.status == 400
    assert line.kinds == ["upstream_malformed"] and model.requests == []


async def test_the_vendor_is_asked_for_the_very_path_that_was_judged(tmp_path: Path) -> None:
    body = json.dumps(asking("talk", stream=False)).encode()
    async with (
        sending(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as (url, heads),
        connected(tmp_path, url) as line,
    ):
        reader, writer = await asyncio.open_unix_connection(line.socket)
        head = f"POST /v1%2Fmess%61ges?beta=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await asyncio.wait_for(reader.read(), 60)
        writer.close()
    assert [head.split(b"\r\n")[0] for head in heads] == [b"POST /v1/messages?beta=true HTTP/1.1"]


NO_LONGER = [
    {"temperature": 0.2},
    {"top_p": 0.9},
    {"top_k": 5},
    {"thinking": {"type": "disabled"}},
    {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    {"tool_choice": {"type": "any"}},
    {"tool_choice": {"type": "tool", "name": "Read"}},
    {"messages": [{"role": "user", "content": "talk"}, {"role": "assistant", "content": "I"}]},
    {"context_management": {"edits": []}},  # without the header that it needs
]


@pytest.mark.parametrize("given", NO_LONGER, ids=lambda given: str(given)[:40])
async def test_what_the_model_no_longer_takes_is_refused_in_the_vendor_s_words(
    line: Line, given: dict[str, Any]
) -> None:
    status, content = await line.ask(asking("talk") | given)
    error = json.loads(content)["error"]
    assert (status, error["type"]) == (400, "invalid_request_error") and line.used == []
    assert line.kinds == ["upstream_error"] and error["message"] in line.troubles[0].message


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b"[" * 100_000], ids=repr)
async def test_a_request_that_is_no_message_is_refused(line: Line, model: ScriptedModel, body: bytes) -> None:
    async with line.request("POST", "/v1/messages", data=body) as answer:
        assert answer.status == 400
    assert line.kinds == ["upstream_malformed"] and model.requests == []


async def test_an_oversized_request_is_refused(line: Line, model: ScriptedModel) -> None:
    async with line.request("POST", "/v1/messages", data=b" " * (MAX_REQUEST + 1)) as answer:
        assert answer.status == 413
    assert model.requests == [] and line.used == []
    assert (await line.ask(asking("talk")))[0] == 200, "the line still works"


# the key


async def test_the_key_is_added_and_is_in_no_answer_message_or_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with ScriptedModel(SCRIPTS, key=KEY) as model, connected(tmp_path, model.url, KEY) as line:
        status, content = await line.ask(asking("talk"))
        assert status == 200, "the vendor saw the key"
        async with line.request("POST", "/v1/messages", json=asking("talk")) as answer:
            headers = str(answer.headers)
        seen = [content.decode(), headers, str(line.used)]
        for wrong in ("refuse 500", "malformed", "talk"):
            model_of = "claude-opus-5-5" if wrong == "talk" else MODEL
            try:
                seen.append(str(await line.ask(asking(wrong, model=model_of))))
            except (aiohttp.ClientError, ConnectionError) as error:
                seen.append(str(error))
        seen.append(str(line.troubles))
    out = capfd.readouterr()
    assert len(line.troubles) == 3
    assert KEY not in "".join([*seen, caplog.text, out.out, out.err])


async def test_a_vendor_that_repeats_the_key_in_an_error_does_not_give_it_away(tmp_path: Path) -> None:
    told = json.dumps({"error": {"message": f"the key {KEY} is not valid"}}).encode()
    async with sending(http(told, status="401 No")) as (url, _), connected(tmp_path, url, KEY) as line:
        status, content = await line.ask(asking("talk"))
    assert status == 401 and b"is not valid" in content
    assert KEY not in content.decode() and KEY not in str(line.troubles)
    assert line.kinds == ["unauthorized"]


async def test_a_redirect_does_not_take_the_key_elsewhere(tmp_path: Path) -> None:
    async with sending(http(message())) as (elsewhere, heads):
        moved = http(b"", status="307 Moved", more=f"Location: {elsewhere}/v1/messages\r\n")
        async with sending(moved) as (url, _), connected(tmp_path, url, KEY) as line:
            status, _ = await line.ask(asking("talk", stream=False))
        assert heads == []
    assert status == 502 and line.kinds == ["upstream_malformed"]


async def test_without_a_key_a_call_is_refused_with_the_variable_to_set(
    tmp_path: Path, model: ScriptedModel
) -> None:
    async with connected(tmp_path, model.url, None, key_name="ANTHROPIC_API_KEY") as line:
        status, content = await line.ask(asking("talk"))
    assert status == 401 and "ANTHROPIC_API_KEY" in json.loads(content)["error"]["message"]
    assert line.kinds == ["unauthorized"] and "ANTHROPIC_API_KEY" in line.troubles[0].message
    assert model.requests == []


# a vendor in trouble


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "unauthorized"),
        (403, "unauthorized"),
        (429, "rate_limited"),
        (529, "overloaded"),
        (500, "upstream_error"),
    ],
)
async def test_the_vendor_s_refusals_are_passed_on_and_told(line: Line, status: int, kind: str) -> None:
    got, content = await line.ask(asking(f"refuse {status}"))
    said = f"scripted: the vendor answers {status}"
    assert got == status and json.loads(content)["error"]["message"] == said
    assert line.troubles == [
        ModelTrouble(kind=kind, status=status, message=f"the model's service answered {status}: {said}")
    ]
    assert line.used == []


async def test_a_refusal_that_comes_in_pieces_is_passed_on_whole(tmp_path: Path) -> None:
    told = json.dumps({"error": {"message": "slow down " * 20}}).encode()
    whole = http(told, status="429 Slow", more="retry-after: 7\r\n")
    async with (
        sending(whole[:-100], whole[-100:-50], whole[-50:], pause=0.05) as (url, _),
        connected(tmp_path, url) as line,
        line.request("POST", "/v1/messages", json=asking("talk")) as answer,
    ):
        assert (answer.status, answer.headers["retry-after"], await answer.read()) == (429, "7", told)
    assert line.kinds == ["rate_limited"] and "slow down" in line.troubles[0].message


async def test_an_answer_that_breaks_off_is_cut_here_too_and_counted_as_far_as_known(line: Line) -> None:
    got = await line.is_cut(asking("cut"))
    assert b"I was going to" in got
    assert line.kinds == ["upstream_cut"]
    assert [used.input_tokens for used in line.used] == [1500]


async def test_a_stream_that_ends_early_without_an_error_is_cut_too(tmp_path: Path) -> None:
    start = {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 5}}}
    stream = f"event: message_start\ndata: {json.dumps(start)}\n\n".encode()
    async with sending(http(stream, kind="text/event-stream")) as (url, _), connected(tmp_path, url) as line:
        assert await line.is_cut(asking("talk")) == stream
    assert line.kinds == ["upstream_cut"] and [used.input_tokens for used in line.used] == [5]


async def test_a_whole_answer_that_breaks_off_is_told_as_cut(tmp_path: Path) -> None:
    async with sending(http(message()[:10], length=500)) as (url, _), connected(tmp_path, url) as line:
        assert (await line.ask(asking("talk", stream=False)))[0] == 502
    assert line.kinds == ["upstream_cut"] and line.used == []


@pytest.mark.parametrize(
    ("length", "kind"), [(None, "rate_limited"), (500, "rate_limited")], ids=["whole", "cut"]
)
async def test_a_refusal_that_is_not_json_or_cut_keeps_its_status(
    tmp_path: Path, length: int | None, kind: str
) -> None:
    async with (
        sending(http(b"<html>", status="429 No", length=length)) as (url, _),
        connected(tmp_path, url) as line,
    ):
        assert (await line.ask(asking("talk")))[0] == 429
    assert line.kinds == [kind]


async def test_a_stream_that_is_no_message_is_cut(line: Line) -> None:
    await line.is_cut(asking("malformed"))
    assert line.kinds == ["upstream_malformed"] and line.used == []


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"", b"{}", b"[" * 100_000], ids=lambda body: repr(body[:9])
)
async def test_a_whole_answer_that_is_no_message_is_refused(tmp_path: Path, body: bytes) -> None:
    async with sending(http(body)) as (url, _), connected(tmp_path, url) as line:
        assert (await line.ask(asking("talk", stream=False)))[0] == 502
    assert line.kinds == ["upstream_malformed"] and line.used == []


async def test_an_endless_stream_is_cut_at_the_cap(tmp_path: Path, model: ScriptedModel) -> None:
    async with connected(tmp_path, model.url, max_response=100_000) as line:
        got = await line.is_cut(asking("endless"))
    assert len(got) <= 100_000
    assert line.kinds == ["upstream_endless"] and "100000 bytes" in line.troubles[0].message
    assert len(line.used) == 1, "what is known of its cost is counted"


async def test_a_whole_answer_over_the_cap_is_refused(tmp_path: Path) -> None:
    big = message() + b" " * 200_000
    async with sending(http(big)) as (url, _), connected(tmp_path, url, max_response=100_000) as line:
        assert (await line.ask(asking("talk", stream=False)))[0] == 502
    assert line.kinds == ["upstream_endless"]


async def test_a_stream_that_takes_too_long_is_cut(tmp_path: Path, model: ScriptedModel) -> None:
    async with connected(tmp_path, model.url, max_seconds=3) as line:
        await asyncio.wait_for(line.is_cut(asking("slow")), 60)
    assert line.kinds == ["upstream_endless"] and len(line.used) == 1


async def test_a_whole_answer_that_drips_is_refused_when_its_time_is_over(tmp_path: Path) -> None:
    drops = [http(b"{", length=1000), *[b" "] * 2000]
    async with sending(*drops, pause=0.05) as (url, _), connected(tmp_path, url, max_seconds=2) as line:
        status, _ = await asyncio.wait_for(line.ask(asking("talk", stream=False)), 60)
    assert status == 502 and line.kinds == ["upstream_endless"]


async def test_a_vendor_that_says_nothing_is_given_up(tmp_path: Path, model: ScriptedModel) -> None:
    async with connected(tmp_path, model.url, max_seconds=0.3) as line:
        status, _ = await asyncio.wait_for(line.ask(asking("silence")), 60)
    assert status == 502 and line.kinds == ["upstream_unreachable"]


async def test_a_vendor_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    async with connected(tmp_path, f"http://127.0.0.1:{free_port()}", KEY) as line:
        status, content = await line.ask(asking("talk"))
    assert status == 502 and b"cannot be reached" in content
    assert line.kinds == ["upstream_unreachable"]


async def test_a_client_that_goes_is_no_trouble_of_the_vendor_and_is_counted(
    line: Line, model: ScriptedModel
) -> None:
    async with line.request("POST", "/v1/messages", json=asking("slow")) as answer:
        await answer.content.readany()
    async with asyncio.timeout(60):
        while not line.used:  # noqa: ASYNC110 - it is on the other side of a socket
            await asyncio.sleep(0.05)
    assert [used.input_tokens for used in line.used] == [1500]
    assert line.troubles == []


# the socket


async def test_the_socket_can_be_used_by_the_container_s_user(line: Line) -> None:
    found = line.socket.stat()
    assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o666


async def test_a_socket_s_path_may_be_longer_than_108_bytes(tmp_path: Path, model: ScriptedModel) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    async with connected(deep, model.url) as line:
        short = os.open(line.socket.parent, os.O_RDONLY)
        try:
            line.socket = Path(f"/proc/self/fd/{short}/model.sock")
            assert (await line.ask(asking("talk")))[0] == 200
        finally:
            os.close(short)


async def test_a_socket_that_cannot_be_made_says_which(tmp_path: Path, model: ScriptedModel) -> None:
    async with connected(tmp_path, model.url, opened=False) as line:
        line.socket = tmp_path / ("n" * 200)
        with pytest.raises(SandboxError, match=r"model socket .*nnn cannot be made"):
            await line.open()


async def test_opening_a_task_again_takes_its_line_over(line: Line, model: ScriptedModel) -> None:
    async with line.request("POST", "/v1/messages", json=asking("slow")) as running:
        await running.content.readany()
        await line.open(limits=Limits(turns=1), turns=1)
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await asyncio.wait_for(running.read(), 60)
    assert (await line.ask(asking("talk")))[0] == 400
    assert line.kinds == ["turns"], "the new line's limits hold, and the old line's end is nobody's trouble"
    assert [used.input_tokens for used in line.used] == [1500], "what the old line used is counted once"


async def test_another_server_takes_the_socket_over(line: Line, model: ScriptedModel, tmp_path: Path) -> None:
    async with connected(tmp_path, model.url) as successor:
        assert successor.socket == line.socket
        assert (await successor.ask(asking("talk")))[0] == 200
        assert len(successor.used) == 1 and line.used == []


async def test_a_closed_line_answers_nobody_and_closing_again_is_no_error(line: Line) -> None:
    for _ in range(2):
        await line.gateway.close("task-abc123")
    with pytest.raises(aiohttp.ClientError):
        await line.ask(asking("talk"))


# the meter

TOKENS = st.integers(0, 10**6)
TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=40)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, tuple[int, int, int, int]]:
    """A streamed answer with what it used: input, output, read from and written to the cache."""
    first = {"input_tokens": draw(TOKENS), "output_tokens": 1, "cache_read_input_tokens": draw(TOKENS)}
    first["cache_creation_input_tokens"] = draw(TOKENS)
    last = {"output_tokens": draw(TOKENS)}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "msg_x", "usage": first}}]
    events += [
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
        for text in draw(st.lists(TEXT, max_size=5))
    ]
    events += [{"type": "message_delta", "usage": last}, {"type": "message_stop"}]
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = "".join(
        f"event: {event['type']}{end}data: {json.dumps(event, ensure_ascii=False)}{end}{end}"
        for event in events
    )
    used = (first["input_tokens"], last["output_tokens"])
    return text.encode(), (*used, first["cache_read_input_tokens"], first["cache_creation_input_tokens"])


@settings(max_examples=100, deadline=None)
@given(streams(), st.data())
def test_however_a_stream_is_cut_into_chunks_the_usage_is_the_same(
    stream: tuple[bytes, tuple[int, int, int, int]], data: st.DataObject
) -> None:
    content, used = stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=20)))
    meter = Meter(MODEL)
    for begin, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        meter.feed(content[begin:end])
    found = meter.usage()
    assert meter.complete and found is not None
    assert (
        found.input_tokens,
        found.output_tokens,
        found.cache_read_tokens,
        found.cache_write_tokens,
    ) == used


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=10))
def test_noise_is_never_counted(chunks: list[bytes]) -> None:
    meter = Meter(MODEL)
    for chunk in chunks:
        meter.feed(b"data:" + chunk)
    assert meter.usage() is None and not meter.complete
