"""Discord, played: REST and gateway on one local port, for the real discord.py. Ours, not Discord's.

Checked against Discord's published API reference (v10: message, embed, component, interaction and thread resources, gateway opcodes and close
codes, JSON error codes) and against what discord.py 2.7 parses. It refuses what the reference says is refused (error 50035 and its kin), and
remembers that in `refusals`. Left out: payload compression, sharding, permission overwrites, rate-limit headers of answers that are no 429.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from aiohttp import MultipartReader, web

from .base import Shown
from .discord_rules import check_message, check_modal, length_errors, read
from .discord_world import Room, World


class _Error(Exception):
    def __init__(self, status: int, code: int, message: str, errors: list[str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.errors = status, code, message, errors or []

    def body(self) -> dict[str, Any]:
        """As Discord writes it: what is wrong, by the place it is wrong at."""
        answer: dict[str, Any] = {"message": self.message, "code": self.code}
        if self.errors:
            wrong = [one.partition(": ") for one in self.errors]
            answer["errors"] = {
                where: {"_errors": [{"code": "BASE_TYPE_BAD", "message": what}]} for where, _, what in wrong
            }
        return answer


class FakeDiscord(World):
    """A server with one text channel, `#general`, and people who can be written to directly."""

    name = "discord"

    # life

    async def start(self) -> None:
        app = web.Application(client_max_size=30_000_000)
        app.router.add_get("/gateway", self._gateway)
        app.router.add_get("/attachments/{channel}/{id}/{name}", self._cdn)
        app.router.add_route("*", "/api/v10/{path:.*}", self._rest)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        port = int(self.settings.get("cdn_url", "http://127.0.0.1:0").rpartition(":")[2])
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"http://{host}:{port}"
        self.settings = {"api_url": f"{self.address}/api/v10", "cdn_url": self.address}

    async def stop(self) -> None:
        await self.drop()
        if self._runner is not None:
            await self._runner.cleanup()

    # people

    async def say(
        self, person: str, text: str, *, direct: bool = False, thread: str | None = None, **more: Any
    ) -> str:
        """As the protocol says. `more`: `mention` (False: none, a text: that), `reply_to`, `files`, `bot`, `webhook`, `kind`, `room`."""
        mention = more.get("mention", not direct)
        room = self.direct(person) if direct else self.general
        if thread is not None:
            started = self.rooms.get(int(thread))
            holder = next((one for one in self.rooms.values() if int(thread) in one.messages), None)
            if started is not None:
                room = started
            elif holder is not None and holder.kind == 11:
                room = holder
            else:
                more.setdefault("reply_to", thread)
        room = self.rooms[int(more["room"])] if "room" in more else room
        spoken = f"<@{self.bot}> " if mention is True else f"{mention} " if mention else ""
        message = self._message(room, self.user(person, bot=more.get("bot", False)), spoken + text)
        message["type"] = more.get("kind", 0)
        if more.get("webhook"):
            message["webhook_id"] = str(self.snowflake())
        if reply_to := more.get("reply_to"):
            answered = next(
                (one.messages[int(reply_to)] for one in self.rooms.values() if int(reply_to) in one.messages),
                None,
            )
            message |= {
                "type": 19,
                "message_reference": {
                    "type": 0,
                    "message_id": str(reply_to),
                    "channel_id": str(room.id),
                    "guild_id": str(self.guild),
                },
                "referenced_message": answered,
            }
        for name, content in more.get("files", {}).items():
            message["attachments"].append(self._attach(room, name, content))
        room.messages[int(message["id"])] = message
        await self._dispatch("MESSAGE_CREATE", self._as_event(room, message))
        return str(message["id"])

    async def edit(self, message: str, text: str) -> None:
        room = next(one for one in self.rooms.values() if int(message) in one.messages)
        room.messages[int(message)]["content"] = text
        await self._dispatch("MESSAGE_UPDATE", self._as_event(room, room.messages[int(message)]))

    async def remove(self, message: str) -> None:
        room = next(one for one in self.rooms.values() if int(message) in one.messages)
        del room.messages[int(message)]
        await self._dispatch(
            "MESSAGE_DELETE", {"id": message, "channel_id": str(room.id), "guild_id": str(self.guild)}
        )

    async def press(self, person: str, shown: Shown, label: str, *, answer: str | None = None) -> None:
        room = next(one for one in self.rooms.values() if int(shown.id) in one.messages)
        message = room.messages[int(shown.id)]
        buttons = [one for row in message["components"] for one in row["components"]]
        button = next(one for one in buttons if one["label"] == label)
        data: dict[str, Any] = {"custom_id": button["custom_id"], "component_type": 2, "id": 1}
        answered = await self.interact(person, room, 3, data, message)
        if answered and answered["type"] == 9:
            modal = answered["data"]
            entry = modal["components"][0]["components"][0]["custom_id"]
            typed = {"type": 1, "components": [{"type": 4, "custom_id": entry, "value": answer or ""}]}
            await self.interact(
                person, room, 5, {"custom_id": modal["custom_id"], "components": [typed]}, message
            )

    async def slash(self, person: str, text: str, *, room: Room | None = None) -> dict[str, Any] | None:
        if not any(one["name"] == "codespar" for one in self.commands):
            raise AssertionError("there is no command /codespar")
        data = {
            "id": "77",
            "name": "codespar",
            "type": 1,
            "options": [{"type": 3, "name": "text", "value": text}],
        }
        return await self.interact(person, room or self.general, 2, data, None)

    async def interact(
        self,
        person: str,
        room: Room,
        kind: int,
        data: dict[str, Any],
        message: dict[str, Any] | None,
    ) -> dict[str, Any] | None:
        """An interaction, and the answer to it, or None when none came in time: the person sees that it failed."""
        number, token = self.snowflake(), f"interaction-{self.snowflake()}"
        channel = {"id": str(room.id), "type": room.kind, "name": room.name, "guild_id": str(self.guild)}
        if room.kind == 11:
            channel |= self._channel(room)
        if room.kind == 1:
            channel |= {"recipients": [self.user(room.person or "")]}
        event: dict[str, Any] = {
            "id": str(number), "application_id": str(self.bot), "type": kind, "data": data, "token": token, "version": 1,
            "channel_id": str(room.id), "channel": channel, "attachment_size_limit": 10_000_000, "entitlements": [],
        }  # fmt: skip
        if message is not None:
            event["message"] = message
        if room.kind == 1:
            event["user"] = self.user(person)
        else:
            joined = {
                "roles": [],
                "joined_at": "2026-01-01T00:00:00+00:00",
                "deaf": False,
                "mute": False,
                "flags": 0,
                "permissions": "0",
            }
            event |= {"guild_id": str(self.guild), "member": {"user": self.user(person)} | joined}
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[token] = answered
        await self._dispatch("INTERACTION_CREATE", event)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(answered, self.patience)
        self.failed.append(f"{person}: {data.get('custom_id') or data.get('name')}")
        return None

    def seen(self, conversation: str | None = None) -> list[Shown]:
        base = self.place(conversation)
        rooms = [base, *(room for room in self.rooms.values() if room.parent == base.id)]
        found = [
            self._seen(base, room, message)
            for room in rooms
            for message in room.messages.values()
            if message["author"]["id"] == str(self.bot)
        ]
        return sorted(found, key=lambda shown: int(shown.id))

    def _seen(self, base: Room, room: Room, message: dict[str, Any]) -> Shown:
        lines = [read(message["content"])] if message["content"] else []
        for embed in message["embeds"]:
            lines += [read(embed[key]) for key in ("title", "description") if key in embed]
            lines += [f"{read(one['name'])}: {read(one['value'])}" for one in embed.get("fields", [])]
            lines += [embed["footer"]["text"]] if "footer" in embed else []
        return Shown(
            id=message["id"],
            conversation=str(base.id),
            thread=str(room.id) if room.kind == 11 else None,
            text="\n".join(lines),
            buttons=[one["label"] for row in message["components"] for one in row["components"]],
            files={
                one["filename"]: self.files[one["url"].removeprefix(self.address).partition("?")[0]]
                for one in message["attachments"]
            },
            edits=self._edits.get(int(message["id"]), 0),
        )

    # faults

    def fail_next(self, times: int, *, status: int = 500, retry_after: float | None = None) -> None:
        self._faults += [(status, retry_after)] * times

    def lose_next_answer(self) -> None:
        self._lose += 1

    def forget_nonces(self) -> None:
        """The few minutes are over in which a nonce is enforced."""
        self._nonces.clear()

    # REST

    async def _cdn(self, request: web.Request) -> web.Response:
        if request.path_qs in self.expired:
            return web.Response(status=404, text="This content is no longer available.")
        if "Authorization" in request.headers:
            self.refusals.append("cdn: the bot's token was sent to it")
        if request.path not in self.files:
            return web.Response(status=404)
        return web.Response(body=self.files[request.path], content_type="text/plain")

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        payload, files = await _body(request)
        self.requests.append((request.method, path, payload))
        try:
            if request.headers.get("Authorization") != f"Bot {self.token}":
                raise _Error(401, 0, "401: Unauthorized")
            sends = request.method == "POST" and path.endswith("/messages")
            if sends and self._faults:
                status, after = self._faults.pop(0)
                if status == 429:
                    body = {
                        "message": "You are being rate limited.",
                        "retry_after": after or 1.0,
                        "global": False,
                    }
                    return _json(
                        body, status=429, headers={"Retry-After": str(after or 1.0), "Via": "1.1 google"}
                    )
                return _json({"message": "Internal Server Error", "code": 0}, status=status)
            answer = await self._route(request, path.split("/"), payload, files)
            if sends and self._lose:
                self._lose -= 1
                assert request.transport is not None
                request.transport.close()
            return web.Response(status=204) if answer is None else _json(answer)
        except _Error as error:
            if error.code != 160004:  # asking for a thread that is there is how one finds out
                self.refusals.append(
                    f"{request.method} /{path}: {error.message} {error.errors or ''}".strip()
                )
            return _json(error.body(), status=error.status)

    async def _route(
        self, request: web.Request, path: list[str], payload: Any, files: dict[str, bytes]
    ) -> Any:
        match request.method, path:
            case "GET", ["users", "@me"]:
                return self._bot_user()
            case "GET", ["oauth2", "applications", "@me"]:
                return {"id": str(self.bot), "name": "codespar", "icon": None, "description": "", "bot_public": False, "bot_require_code_grant": False, "verify_key": "", "flags": 0, "owner": self.user("owner"), "team": None}  # fmt: skip
            case "GET", ["gateway", "bot"]:
                limit = {"total": 1000, "remaining": 999, "reset_after": 0, "max_concurrency": 1}
                return {
                    "url": self.address.replace("http", "ws") + "/gateway",
                    "shards": 1,
                    "session_start_limit": limit,
                }
            case "GET", ["applications", _, "commands"]:
                return self.commands
            case "PUT", ["applications", _, "commands"]:
                self.commands = [
                    one | {"id": str(self.snowflake()), "version": "1", "nsfw": False} for one in payload
                ]
                return self.commands
            case "POST", ["users", "@me", "channels"]:
                person = next(
                    (who for who, number in self._people.items() if str(number) == payload["recipient_id"]),
                    None,
                )
                if person is None:
                    raise _Error(400, 50033, "Invalid Recipient(s)")
                return self._channel(self.direct(person))
            case "POST", ["interactions", _, token, "callback"]:
                return await self._callback(token, payload)
            case "POST", ["attachments", "refresh-urls"]:
                return {
                    "refreshed_urls": [
                        {"original": url, "refreshed": self._fresh(url)} for url in payload["attachment_urls"]
                    ]
                }
            case _, ["channels", number, *rest]:
                room = self.rooms.get(int(number))
                if room is None:
                    raise _Error(404, 10003, "Unknown Channel")
                return await self._in_channel(request, room, rest, payload, files)
            case _:
                raise _Error(404, 0, "404: Not Found")

    def _fresh(self, url: str) -> str:
        bare = url.partition("?")[0]
        return f"{bare}?ex=2&hm=b"

    async def _callback(self, token: str, payload: dict[str, Any]) -> None:
        answered = self._pending.get(token)
        if answered is None or answered.cancelled():
            raise _Error(404, 10062, "Unknown interaction")
        if answered.done():
            raise _Error(400, 40060, "Interaction has already been acknowledged.")
        if payload["type"] not in (4, 5, 6, 9):
            raise _Error(400, 50035, "Invalid Form Body", ["type: unknown"])
        wrong = (
            check_modal(payload["data"])
            if payload["type"] == 9
            else check_message(payload["data"])
            if payload["type"] == 4
            else []
        )
        if wrong:
            raise _Error(400, 50035, "Invalid Form Body", wrong)
        answered.set_result(payload)

    async def _in_channel(
        self,
        request: web.Request,
        room: Room,
        rest: list[str],
        payload: dict[str, Any],
        files: dict[str, bytes],
    ) -> Any:
        match request.method, rest:
            case "GET", []:
                return self._channel(room)
            case "PATCH", []:
                room.archived = payload["archived"]
                await self._dispatch("THREAD_UPDATE", self._channel(room))
                return self._channel(room)
            case "GET", ["messages"]:
                after, limit = int(request.query.get("after", 0)), int(request.query.get("limit", 50))
                newer = [room.messages[number] for number in sorted(room.messages) if number > after]
                chosen = newer[:limit] if "after" in request.query else newer[-limit:]
                return [
                    {key: value for key, value in one.items() if key != "nonce"} for one in reversed(chosen)
                ]
            case "POST", ["messages"]:
                return await self._create(room, payload, files)
            case "POST", ["messages", number, "threads"]:
                return await self._thread(room, int(number), payload)
        message = room.messages.get(int(rest[1]))
        if message is None:
            raise _Error(404, 10008, "Unknown Message")
        if message["author"]["id"] != str(self.bot):
            raise _Error(403, 50005, "Cannot edit a message authored by another user")
        if room.archived:
            raise _Error(400, 50083, "Thread is archived")
        if request.method == "DELETE":
            del room.messages[int(rest[1])]
            return None
        self._check(payload, files, message["attachments"] if "attachments" not in payload else [])
        self._put(room, message, payload, files)
        self._edits[int(message["id"])] = self._edits.get(int(message["id"]), 0) + 1
        return message

    def _check(self, payload: dict[str, Any], files: dict[str, bytes], kept: list[Any]) -> None:
        wrong = check_message(payload, len(files) + len(kept))
        if wrong == ["Cannot send an empty message"]:
            raise _Error(400, 50006, wrong[0])
        if wrong:
            raise _Error(400, 50035, "Invalid Form Body", wrong)
        if sum(len(content) for content in files.values()) > 10_000_000:
            raise _Error(413, 40005, "Request entity too large")
        if not self.may_embed and payload.get("embeds"):
            raise _Error(403, 50013, "Missing Permissions")

    def _put(
        self, room: Room, message: dict[str, Any], payload: dict[str, Any], files: dict[str, bytes]
    ) -> None:
        message |= {
            key: payload[key] for key in ("content", "embeds", "components", "flags") if key in payload
        }
        if files or "attachments" in payload:
            message["attachments"] = [self._attach(room, name, content) for name, content in files.items()]

    async def _create(self, room: Room, payload: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
        self._check(payload, files, [])
        nonce = payload.get("nonce")
        if payload.get("enforce_nonce") and nonce in self._nonces:
            known = next(
                (
                    one.messages.get(self._nonces[nonce])
                    for one in self.rooms.values()
                    if self._nonces[nonce] in one.messages
                ),
                None,
            )
            if known is None:
                raise _Error(404, 10008, "Unknown Message")
            return known
        message = self._message(room, self._bot_user(), "")
        self._put(room, message, payload, files)
        if "message_reference" in payload:
            message["message_reference"] = payload["message_reference"]
            message["type"] = 19
        room.archived = False
        room.messages[int(message["id"])] = message
        if nonce is not None:
            self._nonces[nonce] = int(message["id"])
        await self._dispatch("MESSAGE_CREATE", self._as_event(room, message) | {"nonce": nonce})
        return message

    async def _thread(self, room: Room, number: int, payload: dict[str, Any]) -> dict[str, Any]:
        if wrong := length_errors(payload.get("name"), "name", 100, least=1):
            raise _Error(400, 50035, "Invalid Form Body", wrong)
        if room.kind != 0:
            raise _Error(400, 50024, "Cannot execute action on this channel type")
        if number in self.rooms:
            raise _Error(400, 160004, "A thread has already been created for this message")
        if number not in room.messages:
            raise _Error(404, 10008, "Unknown Message")
        if not self.may_thread:
            raise _Error(403, 50013, "Missing Permissions")
        made = self._open(Room(number, 11, payload["name"], parent=room.id))
        await self._dispatch("THREAD_CREATE", self._channel(made) | {"newly_created": True})
        return self._channel(made)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    # discord.py compares the content type with exactly this, as Discord sends it
    return web.Response(
        body=json.dumps(body).encode(), status=status, headers=headers, content_type="application/json"
    )


async def _body(request: web.Request) -> tuple[Any, dict[str, bytes]]:
    if not request.content_type.startswith("multipart/"):
        raw = await request.read()
        return (json.loads(raw) if raw else {}), {}
    payload: Any = {}
    files: dict[str, bytes] = {}
    async for piece in await request.multipart():
        assert not isinstance(piece, MultipartReader)
        content = bytes(await piece.read())
        if piece.name == "payload_json":
            payload = json.loads(content)
        else:
            files[piece.filename or ""] = content
    return payload, files
