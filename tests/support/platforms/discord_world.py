"""The fake Discord's world and its gateway: channels, people, the objects Discord makes of them, sessions that break and resume."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import WSMsgType, web

EPOCH = 1420070400000
TOKEN = "fake.discord.token"


@dataclass
class Room:
    id: int
    kind: int  # 0 text, 1 direct, 11 thread
    name: str
    parent: int | None = None
    person: str | None = None
    archived: bool = False
    messages: dict[int, dict[str, Any]] = field(default_factory=dict)


class World:
    """A server with one text channel, `#general`, and whoever speaks; and the gateway that tells of it."""

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        self._clock = clock or (lambda: datetime.now(UTC))
        self._last_id = 0
        self.refusals: list[str] = []
        self.requests: list[tuple[str, str, dict[str, Any]]] = []  # method, path, JSON
        self.failed: list[str] = []  # interactions that people saw fail
        self.guild, self.bot, self.role = self.snowflake(), self.snowflake(), self.snowflake()
        self.rooms: dict[int, Room] = {}
        self._people: dict[str, int] = {}
        self.general = self._open(Room(self.snowflake(), 0, "general"))
        self.room = str(self.general.id)
        self.commands: list[dict[str, Any]] = []
        self.may_thread = self.may_embed = True
        self.patience = 30.0  # seconds within which an interaction must be answered; at Discord 3
        self.content_intent = True  # as switched in the Developer Portal
        self.token = TOKEN
        self.environment = {"CODESPAR_DISCORD_TOKEN": TOKEN}
        self.settings: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.expired: set[str] = set()
        self._edits: dict[int, int] = {}
        self._nonces: dict[str, int] = {}
        self._faults: list[tuple[int, float | None]] = []
        self._lose = 0
        self._sockets: set[web.WebSocketResponse] = set()
        self._session = ""
        self._events: list[dict[str, Any]] = []
        self._content = True
        self._pending: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._runner: web.AppRunner | None = None
        self.identified = self.resumed = 0

    def snowflake(self) -> int:
        now = int(self._clock().timestamp() * 1000) - EPOCH
        self._last_id = max(self._last_id + (1 << 12), now << 22)
        return self._last_id

    def _open(self, room: Room) -> Room:
        self.rooms[room.id] = room
        return room

    def identity(self, person: str) -> str:
        return str(self._people.setdefault(person, self.snowflake()))

    def user(self, person: str, *, bot: bool = False) -> dict[str, Any]:
        return {"id": self.identity(person), "username": person, "discriminator": "0", "global_name": person.title(), "avatar": None, "bot": bot}  # fmt: skip

    def direct(self, person: str) -> Room:
        found = next((room for room in self.rooms.values() if room.person == person), None)
        return found or self._open(Room(self.snowflake(), 1, person, person=person))

    def place(self, conversation: str | None) -> Room:
        if conversation is None:
            return self.general
        if conversation.startswith("direct:"):
            return self.direct(conversation.removeprefix("direct:"))
        return self.rooms[int(conversation)]

    def _attach(self, room: Room, name: str, content: bytes) -> dict[str, Any]:
        number = self.snowflake()
        path = f"/attachments/{room.id}/{number}/{name}"
        self.files[path] = content
        return {"id": str(number), "filename": name, "size": len(content), "url": f"{self.address}{path}?ex=1&hm=a", "proxy_url": f"{self.address}{path}", "content_type": "text/plain; charset=utf-8"}  # fmt: skip

    def _message(self, room: Room, author: dict[str, Any], content: str) -> dict[str, Any]:
        number = self.snowflake()
        at = datetime.fromtimestamp(((number >> 22) + EPOCH) / 1000, UTC).isoformat()
        return {
            "id": str(number), "channel_id": str(room.id), "author": author, "content": content, "timestamp": at, "edited_timestamp": None,
            "tts": False, "mention_everyone": False, "mentions": [], "mention_roles": [], "attachments": [], "embeds": [], "components": [],
            "pinned": False, "type": 0, "flags": 0,
        }  # fmt: skip

    def _as_event(self, room: Room, message: dict[str, Any]) -> dict[str, Any]:
        event = dict(message)
        if room.kind != 1:
            event |= {
                "guild_id": str(self.guild),
                "member": {
                    "roles": [],
                    "joined_at": message["timestamp"],
                    "deaf": False,
                    "mute": False,
                    "flags": 0,
                },
            }
            named = str(self.bot) in message["content"] or message["author"]["id"] == str(self.bot)
            if not self._content and not named:
                event |= {"content": "", "embeds": [], "attachments": [], "components": []}
        return event

    # the gateway

    async def drop(self, code: int = 1001) -> None:
        """The gateway's connections break; the session can be resumed."""
        for socket in list(self._sockets):
            await socket.close(code=code)

    async def invalidate(self) -> None:
        """The gateway forgets the session: the client has to identify again."""
        self._session = ""
        for socket in list(self._sockets):
            await socket.send_json({"op": 9, "d": False, "s": None, "t": None})

    async def _gateway(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 5000}, "s": None, "t": None})
        async for frame in socket:
            if frame.type is not WSMsgType.TEXT:
                break
            packet = json.loads(frame.data)
            match packet["op"]:
                case 1:
                    await socket.send_json({"op": 11, "d": None, "s": None, "t": None})
                case 2:
                    await self._identify(socket, packet["d"])
                case 6:
                    await self._resume(socket, packet["d"])
                case other:
                    self.refusals.append(f"gateway: opcode {other}")
                    await socket.close(code=4001)
        self._sockets.discard(socket)
        return socket

    async def _identify(self, socket: web.WebSocketResponse, asked: dict[str, Any]) -> None:
        if asked.get("token") != self.token:
            self.refusals.append("gateway: authentication failed")
            await socket.close(code=4004)
            return
        if asked["intents"] & (1 << 15) and not self.content_intent:
            self.refusals.append("gateway: disallowed intents")
            await socket.close(code=4014)
            return
        self.identified += 1
        self._content = bool(asked["intents"] & (1 << 15))
        self._session, self._events = f"session-{self.identified}", []
        self._sockets.add(socket)
        gateway = self.address.replace("http", "ws") + "/gateway"
        await self._dispatch("READY", {"v": 10, "user": self._bot_user(), "guilds": [{"id": str(self.guild), "unavailable": True}], "session_id": self._session, "resume_gateway_url": gateway, "application": {"id": str(self.bot), "flags": 0}})  # fmt: skip
        await self._dispatch("GUILD_CREATE", self._guild())

    async def _resume(self, socket: web.WebSocketResponse, asked: dict[str, Any]) -> None:
        if asked.get("session_id") != self._session or asked.get("token") != self.token:
            await socket.send_json({"op": 9, "d": False, "s": None, "t": None})
            return
        self.resumed += 1
        for event in self._events[asked["seq"] :]:
            await socket.send_json(event)
        self._sockets.add(socket)
        await self._dispatch("RESUMED", {})

    async def _dispatch(self, kind: str, data: dict[str, Any]) -> None:
        if not self._session:
            return
        event = {"op": 0, "t": kind, "s": len(self._events) + 1, "d": data}
        self._events.append(event)
        for socket in list(self._sockets):
            with contextlib.suppress(ConnectionError):
                await socket.send_json(event)

    async def replay(self, kind: str) -> None:
        """The latest event of this kind once more, as a gateway may after a resume."""
        event = next(one for one in reversed(self._events) if one["t"] == kind)
        await self._dispatch(kind, event["d"])

    def _bot_user(self) -> dict[str, Any]:
        return {
            "id": str(self.bot),
            "username": "codespar",
            "discriminator": "0",
            "global_name": None,
            "avatar": None,
            "bot": True,
        }

    def _channel(self, room: Room) -> dict[str, Any]:
        latest = str(max(room.messages)) if room.messages else None
        base: dict[str, Any] = {"id": str(room.id), "type": room.kind, "name": room.name, "guild_id": str(self.guild), "position": 0, "permission_overwrites": [], "nsfw": False, "parent_id": None, "last_message_id": latest}  # fmt: skip
        if room.kind == 11:
            meta = {
                "archived": room.archived,
                "auto_archive_duration": 1440,
                "archive_timestamp": "2026-01-01T00:00:00+00:00",
                "locked": False,
            }
            base |= {"parent_id": str(room.parent), "owner_id": str(self.bot), "thread_metadata": meta, "message_count": len(room.messages), "member_count": 1, "rate_limit_per_user": 0}  # fmt: skip
        if room.kind == 1:
            return {
                "id": str(room.id),
                "type": 1,
                "last_message_id": latest,
                "recipients": [self.user(room.person or "")],
            }
        return base

    def _guild(self) -> dict[str, Any]:
        everyone = {"id": str(self.guild), "name": "@everyone", "permissions": "2147483647"}
        ours = {
            "id": str(self.role),
            "name": "codespar",
            "permissions": "0",
            "managed": True,
            "tags": {"bot_id": str(self.bot)},
        }
        common = {"color": 0, "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None}, "hoist": False, "position": 0, "mentionable": False, "flags": 0}  # fmt: skip
        return {
            "id": str(self.guild), "name": "Acme", "owner_id": "1", "roles": [common | {"managed": False} | everyone, common | ours],
            "channels": [self._channel(room) for room in self.rooms.values() if room.kind == 0],
            "threads": [self._channel(room) for room in self.rooms.values() if room.kind == 11 and not room.archived],
            "members": [{"user": self._bot_user(), "roles": [str(self.role)], "joined_at": "2026-01-01T00:00:00+00:00", "deaf": False, "mute": False, "flags": 0}],
            "member_count": 2, "large": False, "unavailable": False, "emojis": [], "stickers": [], "features": [], "voice_states": [],
            "presences": [], "stage_instances": [], "guild_scheduled_events": [], "soundboard_sounds": [], "verification_level": 0,
            "default_message_notifications": 0, "explicit_content_filter": 0, "mfa_level": 0, "afk_timeout": 300, "nsfw_level": 0,
            "system_channel_flags": 0, "preferred_locale": "en-US", "premium_tier": 0, "premium_progress_bar_enabled": False,
        }  # fmt: skip
