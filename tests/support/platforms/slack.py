"""Slack, played: the Web API, Socket Mode, signed requests, files, forms and the OAuth exchange, on a port of this machine.

This is ours, not Slack's. Shapes, names of errors and limits were taken from docs.slack.dev (methods, Block Kit reference, Socket Mode, Events
API) and from what slack_sdk 3.47 sends and expects; that blocks together end well below 40,000 characters, and text near 4,000, from the
issues people filed. What it does not know it refuses: an unknown method, argument, block or field.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from aiohttp import WSMsgType, web

from codespar.channels.base import HttpAnswer, HttpRequest
from support.platforms.base import Shown
from support.platforms.slack_rules import check_message, said
from support.platforms.slack_web import APP_TOKEN, BOT, EPOCH, PEOPLE, Message, PlayedWebApi

__all__ = ["FakeSlack", "check_message"]

SECRET = "fake-signing-secret"


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class FakeSlack(PlayedWebApi):
    """`http`: speaks signed requests to `deliver` instead of Socket Mode. `ack_seconds`: how long an acknowledgement is waited for, and the
    next ones as long as `hurried` says; at Slack it is 3 s, which a busy machine does not keep."""

    name = "slack"

    def __init__(self, *, http: bool = False, ack_seconds: float = 60.0, retries: int = 3) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        super().__init__(f"http://127.0.0.1:{self._socket.getsockname()[1]}")
        self.http = http
        self.ack_seconds = ack_seconds
        self.retries = retries
        self.hurried: list[float] = []
        self.room = "T0SPAR:C0ROOM"
        self.deliver: Callable[[HttpRequest], Awaitable[HttpAnswer]] | None = None
        self.settings: dict[str, Any] = {"api_url": f"{self.url}/api"}
        way_in = (
            {"CODESPAR_SLACK_SIGNING_SECRET": SECRET} if http else {"CODESPAR_SLACK_APP_TOKEN": APP_TOKEN}
        )
        self.environment = {"CODESPAR_SLACK_BOT_TOKEN": "xoxb-fake-1", **way_in}
        self.unacknowledged: list[str] = []
        self.requests: list[HttpRequest] = []  # what was delivered over HTTP
        self.refuse_links = False  # connection addresses are refused
        self._lines: list[web.WebSocketResponse] = []
        self._acks: dict[str, asyncio.Event] = {}
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=50_000_000)
        app.router.add_routes([*self.routes(), web.get("/link", self._link)])
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
        self._socket.close()

    # what people do

    def identity(self, person: str) -> str:
        return f"T0SPAR:{PEOPLE[person][0]}"

    def direct(self, person: str) -> str:
        return f"T0SPAR:{self._direct_channel(PEOPLE[person][0])}"

    async def say(
        self,
        person: str,
        text: str,
        *,
        direct: bool = False,
        thread: str | None = None,
        mention: bool = True,
        files: dict[str, bytes] | None = None,
        **more: Any,
    ) -> str:
        """`mention=False`: nobody is named. `more`: fields of the event, such as a subtype."""
        user = PEOPLE[person][0]
        channel = self._direct_channel(user) if direct else "C0ROOM"
        written = escaped(text) if direct or not mention else f"<@{BOT}> {escaped(text)}"
        message = self._post(channel, user, written, thread)
        message["files"] = [self._keep(name, content) for name, content in (files or {}).items()]
        event = {"type": "message", "channel": channel, "user": user, "text": written, "ts": message["ts"]}
        event |= {"channel_type": "im" if direct else "channel", "team": "T0SPAR", "event_ts": message["ts"]}
        event |= {"thread_ts": thread} if thread else {}
        event |= {"files": message["files"], "subtype": "file_share"} if files else {}
        await self.emit_event({**event, **more})
        if mention and not direct:
            await self.emit_event({**event, **more, "type": "app_mention"})
        return str(message["ts"])

    async def emit_event(self, event: dict[str, Any], team: str = "T0SPAR") -> bool:
        body = {
            "type": "event_callback",
            "team_id": team,
            "api_app_id": "A0SPAR",
            "event_id": f"Ev{self._next():06d}",
            "event_time": EPOCH + self._count,
            "authorizations": [{"team_id": team, "user_id": BOT, "is_bot": True}],
            "event": event,
        }
        return await self._emit("events_api", body, self.retries)

    async def press(self, person: str, shown: Shown, label: str, *, answer: str | None = None) -> None:
        team, _, channel = shown.conversation.partition(":")
        message = next(entry for entry in self._channels[channel] if entry["ts"] == shown.id)
        button = next(button for button in _buttons(message) if button["text"]["text"] == label)
        trigger = self.trigger()
        body = {
            "type": "block_actions",
            "team": {"id": team, "domain": "spar"},
            "user": {"id": PEOPLE[person][0], "name": person, "username": person, "team_id": team},
            "channel": {"id": channel, "name": "room"},
            "container": {"type": "message", "message_ts": shown.id, "channel_id": channel},
            "message": {"ts": shown.id, "user": BOT}
            | ({"thread_ts": message["thread_ts"]} if message["thread_ts"] else {}),
            "trigger_id": trigger,
            "response_url": f"{self.url}/respond/{self._next()}",
            "actions": [
                {
                    "type": "button",
                    "action_id": button["action_id"],
                    "block_id": "b1",
                    "text": button["text"],
                    # Slack escapes in what it sends back
                    "value": escaped(button.get("value", "")),
                    "action_ts": self._stamp(),
                }
            ],
        }
        await self._emit("interactive", body, 0)
        if (view := self._views[trigger]) is not None:
            await self.submit(person, view, answer or "", team)
        elif answer is not None:
            raise AssertionError(f"the button {label} asks nothing")

    async def submit(self, person: str, view: dict[str, Any], answer: str, team: str = "T0SPAR") -> bool:
        field = next(block for block in view["blocks"] if block["type"] == "input")
        value = {"type": "plain_text_input", "value": answer or None}
        user = {"id": PEOPLE[person][0], "username": person, "name": person, "team_id": team}
        body = {
            "type": "view_submission",
            "team": {"id": team, "domain": "spar"},
            "user": user,
            "view": {
                "id": f"V{self._next():06d}",
                "callback_id": view["callback_id"],
                "private_metadata": view["private_metadata"],
                "state": {"values": {field["block_id"]: {field["element"]["action_id"]: value}}},
            },
        }
        return await self._emit("interactive", body, 0)

    async def slash(self, person: str, text: str, *, channel: str = "C0ROOM") -> bool:
        body = {
            "command": "/codespar",
            "text": escaped(text),
            "team_id": "T0SPAR",
            "channel_id": channel,
            "channel_name": "room",
            "user_id": PEOPLE[person][0],
            "user_name": person,
            "trigger_id": self.trigger(),
            "response_url": f"{self.url}/respond/{self._next()}",
        }
        return await self._emit("slash_commands", body, 0)

    def trigger(self) -> str:
        trigger = f"{self._next()}.7000.aa"
        self._views[trigger] = None
        return trigger

    def delete(self, channel: str, ts: str) -> None:
        """Somebody deletes a message."""
        self._channels[channel] = [entry for entry in self._channels[channel] if entry["ts"] != ts]

    # what people see

    def seen(self, conversation: str | None = None) -> list[Shown]:
        where = conversation or self.room
        if where.startswith("direct:"):
            where = self.direct(where.removeprefix("direct:"))
        shown: list[Shown] = []
        owner: dict[str, Shown] = {}
        for entry in self._channels.get(where.partition(":")[2], []):
            if entry["user"] != BOT:
                continue
            names = {file["id"]: file for file in entry.get("files", [])}
            if names and entry["shared"] and all(file in owner for file in names):
                for file in names:
                    owner[file].files[self._files[file]["name"]] = self._files[file]["content"]
                continue
            one = Shown(
                entry["ts"],
                where,
                entry["thread_ts"],
                said(entry),
                [button["text"]["text"] for button in _buttons(entry)],
                {self._files[file]["name"]: self._files[file]["content"] for file in names},
                entry["edits"],
            )
            for file in (entry.get("metadata") or {}).get("event_payload", {}).get("files", []):
                owner[file] = one
            shown.append(one)
        return shown

    # faults

    def fail_next(self, times: int, *, status: int = 500, retry_after: float | None = None) -> None:
        self._faults += [(status, retry_after)] * times

    def lose_next_answer(self, method: str = "chat.postMessage") -> None:
        self._lost.append(method)

    def drop(self) -> None:
        """Every Socket Mode connection breaks, without a word."""
        for line in self._lines:
            if line._req and line._req.transport:
                line._req.transport.abort()

    async def refresh(self) -> None:
        """Slack asks for a new connection and closes the old one."""
        for line in list(self._lines):
            await line.send_json({"type": "disconnect", "reason": "refresh_requested"})

    @property
    def connections(self) -> int:
        return sum(not line.closed for line in self._lines)

    # requests to the app

    async def _emit(self, kind: str, body: dict[str, Any], retries: int) -> bool:
        for attempt in range(retries + 1):
            delivered = self._over_http if self.http else self._over_socket
            if await delivered(kind, body, attempt):
                return True
        self.unacknowledged.append(f"{kind} {body.get('type') or body.get('command')}")
        return False

    async def _over_socket(self, kind: str, body: dict[str, Any], attempt: int) -> bool:
        envelope = f"env-{self._next()}"
        message: dict[str, Any] = {"envelope_id": envelope, "type": kind, "payload": body}
        message["accepts_response_payload"] = kind != "events_api"
        if kind == "events_api":
            message |= {"retry_attempt": attempt, "retry_reason": "timeout" if attempt else ""}
        acked = self._acks[envelope] = asyncio.Event()
        told: web.WebSocketResponse | None = None
        deadline = time.monotonic() + (self.hurried.pop(0) if self.hurried else self.ack_seconds)
        while not acked.is_set() and time.monotonic() < deadline:
            if told not in self._lines:  # one that breaks before it was acknowledged is followed by the next
                told = next((line for line in reversed(self._lines) if not line.closed), None)
                with suppress(ConnectionError):
                    if told is not None:
                        await told.send_json(message)
            with suppress(TimeoutError):
                await asyncio.wait_for(acked.wait(), 0.02)
        return acked.is_set()

    async def _over_http(self, kind: str, body: dict[str, Any], attempt: int) -> bool:
        if kind == "events_api":
            request = self.signed(json.dumps(body).encode(), "application/json")
        else:
            form = body if kind == "slash_commands" else {"payload": json.dumps(body)}
            request = self.signed(urlencode(form).encode(), "application/x-www-form-urlencoded")
        if attempt:
            retry = {"x-slack-retry-num": str(attempt), "x-slack-retry-reason": "http_error"}
            request = request.evolve(headers=request.headers | retry)
        self.requests.append(request)
        assert self.deliver, "nothing takes Slack's requests"
        return (await self.deliver(request)).status == 200

    def signed(self, body: bytes, content_type: str, at: datetime | None = None) -> HttpRequest:
        """A request as Slack signs it."""
        stamp = str(int((at or datetime.now(UTC)).timestamp()))
        mac = hmac.new(SECRET.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
        headers = {
            "content-type": content_type,
            "x-slack-request-timestamp": stamp,
            "x-slack-signature": f"v0={mac}",
        }
        return HttpRequest(method="POST", path="events", headers=headers, body=body)

    async def _link(self, request: web.Request) -> web.StreamResponse:
        ticket = request.query.get("ticket", "")
        if self.refuse_links or ticket not in self._tickets:
            return web.Response(status=408)
        self._tickets.discard(ticket)
        line = web.WebSocketResponse()
        await line.prepare(request)
        await line.send_json({"type": "hello", "num_connections": 1, "connection_info": {"app_id": "A0SPAR"}})
        self._lines.append(line)
        try:
            async for message in line:
                if message.type == WSMsgType.TEXT:
                    answer = json.loads(message.data)
                    if set(answer) - {"envelope_id", "payload"} or answer["envelope_id"] not in self._acks:
                        self.refusals.append(f"acknowledgement of nothing: {sorted(answer)}")
                    else:
                        self._acks[answer["envelope_id"]].set()
        finally:
            self._lines.remove(line)
        return line


def _buttons(message: Message) -> list[dict[str, Any]]:
    blocks = message.get("blocks") or []
    return [button for block in blocks if block["type"] == "actions" for button in block["elements"]]
