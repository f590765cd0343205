"""The played Slack's Web API, its files and what it keeps; see `support.platforms.slack`."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web

from support.platforms.slack_rules import Refused, check_message, check_view

APP_TOKEN = "xapp-fake"
BOT = "U0BOT"
PEOPLE = {
    "ada": ("U0ADA", "Ada Lovelace"),
    "marcus": ("U0MARCUS", "Marcus Aurelius"),
    **{name: (f"U0{name.upper()}", name.capitalize()) for name in ("grace", "rex", "olga")},
}
WORKSPACES = {"xoxb-fake-1": ("T0SPAR", "C0ROOM"), "xoxb-fake-2": ("T0OTHER", "C0ELSE")}
EPOCH = 1_767_225_600  # timestamps are counted from here, so that they are the same on every run

Message = dict[str, Any]


class PlayedWebApi:
    """Channels, messages and files, and the methods by which an app reaches them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.refusals: list[str] = []
        self.calls: Counter[str] = Counter()
        self.responses: list[Any] = []  # what was posted to a response_url
        self.no_names = False  # users.info does not answer
        self.slow_names: list[float] = []  # seconds that the next answers of users.info take
        self._count = 0
        self._channels: dict[str, list[Message]] = {"C0ROOM": [], "C0ELSE": []}
        self._files: dict[str, dict[str, Any]] = {}
        self._views: dict[str, dict[str, Any] | None] = {}  # by trigger; None: not used yet
        self._tickets: set[str] = set()
        self._faults: list[tuple[int, float | None]] = []
        self._lost: list[str] = []

    def routes(self) -> list[web.RouteDef]:
        readers = "(info|history|replies|getUploadURLExternal)"
        return [
            web.post("/api/{method}", self._api),
            web.get(f"/api/{{method:[a-z]+\\.{readers}}}", self._api),
            web.post("/upload/{file}", self._upload),
            web.get("/files/{file}", self._download),
            web.post("/respond/{id}", self._respond),
        ]

    async def _api(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        self.calls[method] += 1
        if method == "users.info" and self.slow_names:
            await asyncio.sleep(self.slow_names.pop(0))
        if self._faults and method in ("chat.postMessage", "chat.update"):
            status, wait = self._faults.pop(0)
            headers = {"Retry-After": f"{wait:g}"} if wait is not None else {}
            if status == 429:
                return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=headers)
            return web.Response(
                status=status, text="<html>oops</html>", content_type="text/html", headers=headers
            )
        try:
            arguments = await _arguments(request)
            answer = {"ok": True, **self._called(method, _token(request, arguments), arguments)}
        except Refused as refused:
            self.refusals.append(f"{method}: {refused}")
            answer = {"ok": False, "error": refused.code, "response_metadata": {"messages": refused.details}}
        if method in self._lost:
            self._lost.remove(method)
            assert request.transport
            request.transport.abort()
        return web.json_response(answer)

    def _called(self, method: str, token: str, given: dict[str, Any]) -> dict[str, Any]:
        if method == "oauth.v2.access":
            return self._oauth(given)
        if method == "apps.connections.open":
            if token != APP_TOKEN:
                raise Refused("invalid_auth" if token else "not_authed")
            self._tickets.add(ticket := f"ticket-{self._next()}")
            return {"url": f"{self.url.replace('http', 'ws')}/link?ticket={ticket}"}
        if token not in WORKSPACES:
            raise Refused("invalid_auth" if token else "not_authed")
        known, play = self._methods().get(method, (None, None))
        if known is None or play is None:
            raise Refused("unknown_method")
        if unknown := set(given) - known:
            raise Refused("invalid_arguments", [f"unknown: {sorted(unknown)}"])
        if "channel" in given and given["channel"] not in self._channels:
            raise Refused("channel_not_found")
        return play(WORKSPACES[token][0], given)

    def _methods(self) -> dict[str, tuple[set[str], Callable[[str, dict[str, Any]], dict[str, Any]]]]:
        listed = {"channel", "oldest", "latest", "limit", "cursor", "inclusive", "include_all_metadata"}
        text = {"channel", "text", "blocks", "metadata", "parse", "link_names"}
        posted = text | {"thread_ts", "unfurl_links", "unfurl_media", "mrkdwn"}
        return {
            "auth.test": (
                set(),
                lambda team, _: {"team_id": team, "team": team, "user_id": BOT, "bot_id": "B0SPAR"},
            ),
            "chat.postMessage": (posted, self._chat_post),
            "chat.update": (text | {"ts"}, self._chat_update),
            "chat.delete": ({"channel", "ts"}, self._chat_delete),
            "conversations.history": (listed, self._history),
            "conversations.replies": (listed | {"ts"}, self._history),
            "conversations.open": ({"users"}, lambda _, given: self._opened(given["users"])),
            "files.getUploadURLExternal": ({"filename", "length"}, self._upload_url),
            "files.completeUploadExternal": ({"files", "channel_id", "thread_ts"}, self._complete),
            "files.info": ({"file"}, lambda _, given: {"file": self._public(given["file"])}),
            "users.info": ({"user"}, self._user),
            "views.open": ({"trigger_id", "view"}, self._view),
        }

    def _chat_post(self, team: str, given: dict[str, Any]) -> dict[str, Any]:
        payload = {key: value for key, value in given.items() if key not in ("channel", "thread_ts")}
        if problems := check_message(payload):
            raise Refused(problems[0].partition(":")[0], problems)
        thread = given.get("thread_ts")
        if thread is not None and not re.fullmatch(r"\d+\.\d{6}", thread):
            raise Refused("invalid_thread_ts")
        if thread and not any(entry["ts"] == thread for entry in self._channels[given["channel"]]):
            raise Refused("thread_not_found")
        if given.get("unfurl_links") is not False or given.get("unfurl_media") is not False:
            self.refusals.append("chat.postMessage: links would unfurl")
        message = self._post(given["channel"], BOT, payload.get("text", ""), thread)
        message |= {"blocks": payload.get("blocks"), "metadata": payload.get("metadata")}
        return {"channel": given["channel"], "ts": message["ts"]}

    def _chat_update(self, team: str, given: dict[str, Any]) -> dict[str, Any]:
        message = self._ours(given)
        payload = {key: value for key, value in given.items() if key not in ("channel", "ts")}
        if problems := check_message(payload):
            raise Refused(problems[0].partition(":")[0], problems)
        message |= {
            "text": payload.get("text", ""),
            "blocks": payload.get("blocks"),
            "edits": message["edits"] + 1,
        }
        message["metadata"] = payload.get("metadata", message["metadata"])
        return {"channel": given["channel"], "ts": message["ts"]}

    def _chat_delete(self, team: str, given: dict[str, Any]) -> dict[str, Any]:
        self._ours(given)
        self.delete(given["channel"], given["ts"])
        return {}

    def _ours(self, given: dict[str, Any]) -> Message:
        for entry in self._channels[given["channel"]]:
            if entry["ts"] == given["ts"]:
                if entry["user"] != BOT:
                    raise Refused("cant_update_message")
                return entry
        raise Refused("message_not_found")

    def _history(self, team: str, given: dict[str, Any]) -> dict[str, Any]:
        exact = given.get("latest") if given.get("latest") == given.get("oldest") else None
        found: list[Message] = []
        for entry in self._channels[given["channel"]]:
            inside = (
                given["ts"] in (entry["ts"], entry["thread_ts"]) if "ts" in given else not entry["thread_ts"]
            )
            # our timestamps are counted: what is compared is when a message arrived
            late = entry["ts"] == exact if exact else entry["arrived"] >= float(given.get("oldest", 0))
            if inside and late:
                hidden = {"arrived", "edits", "shared"} | (
                    set() if given.get("include_all_metadata") else {"metadata"}
                )
                found.append({key: value for key, value in entry.items() if key not in hidden})
        if "ts" not in given:
            found.reverse()
        begin, limit = int(given.get("cursor") or 0), int(given.get("limit", 100))
        more = str(begin + limit) if len(found) > begin + limit else ""
        return {"messages": found[begin : begin + limit], "response_metadata": {"next_cursor": more}}

    def _opened(self, user: str) -> dict[str, Any]:
        if user not in {known for known, _ in PEOPLE.values()}:
            raise Refused("user_not_found")
        return {"channel": {"id": self._direct_channel(user)}}

    def _user(self, team: str, given: dict[str, Any]) -> dict[str, Any]:
        for user, name in PEOPLE.values():
            if user == given["user"] and not self.no_names:
                return {
                    "user": {
                        "id": user,
                        "name": user.lower(),
                        "profile": {"real_name": name, "display_name": ""},
                    }
                }
        raise Refused("user_not_found")

    def _view(self, team: str, given: dict[str, Any]) -> dict[str, Any]:
        if self._views.get(given["trigger_id"], "unknown") is not None:
            raise Refused("expired_trigger_id")
        if problems := check_view(given["view"]):
            raise Refused("invalid_arguments", problems)
        self._views[given["trigger_id"]] = given["view"]
        return {"view": {"id": f"V{self._next():06d}"}}

    def _oauth(self, given: dict[str, Any]) -> dict[str, Any]:
        if (given.get("client_id"), given.get("client_secret")) != ("100.200", "fake-client-secret"):
            raise Refused("bad_client_secret")
        for token, (team, _) in WORKSPACES.items():
            if given.get("code") == f"code-{team}":
                answer = {
                    "access_token": token,
                    "token_type": "bot",
                    "bot_user_id": BOT,
                    "scope": "chat:write",
                }
                return answer | {"team": {"id": team, "name": f"Team {team}"}, "authed_user": {"id": "U0ADA"}}
        raise Refused("invalid_code")

    # files

    def _upload_url(self, team: str, given: dict[str, Any]) -> dict[str, Any]:
        if not given.get("filename") or int(given.get("length", 0)) < 1:
            raise Refused("invalid_arguments", ["filename and a length above 0 are needed"])
        file = f"F{self._next():06d}"
        self._files[file] = {
            "id": file,
            "name": given["filename"],
            "length": int(given["length"]),
            "shared": False,
        }
        return {"upload_url": f"{self.url}/upload/{file}", "file_id": file}

    async def _upload(self, request: web.Request) -> web.Response:
        file = self._files[request.match_info["file"]]
        content = await request.read()
        if len(content) != file["length"]:
            self.refusals.append(
                f"upload of {file['name']}: {len(content)} bytes instead of {file['length']}"
            )
            return web.Response(status=400)
        file["content"] = content
        return web.Response(text=f"OK - {len(content)}")

    def _complete(self, team: str, given: dict[str, Any]) -> dict[str, Any]:
        files = given["files"]
        if given.get("channel_id") not in self._channels:
            raise Refused("channel_not_found")
        if any(
            "content" not in self._files.get(file["id"], {}) or set(file) - {"id", "title"} for file in files
        ):
            raise Refused("file_not_found")
        if any(self._files[file["id"]]["shared"] for file in files):
            raise Refused("file_already_completed")
        message = self._post(given["channel_id"], BOT, "", given.get("thread_ts"))
        message |= {"files": [self._public(file["id"]) for file in files], "shared": True}
        for file in files:
            self._files[file["id"]]["shared"] = True
        return {"files": [{"id": file["id"]} for file in files]}

    def _keep(self, name: str, content: bytes) -> dict[str, Any]:
        file = f"F{self._next():06d}"
        self._files[file] = {"id": file, "name": name, "content": content, "shared": True}
        return self._public(file) | {"mimetype": "application/octet-stream", "size": len(content)}

    def _public(self, file: str) -> dict[str, Any]:
        if file not in self._files:
            raise Refused("file_not_found")
        return {"id": file, "name": self._files[file]["name"], "url_private": f"{self.url}/files/{file}"}

    async def _download(self, request: web.Request) -> web.StreamResponse:
        if _token(request, {}) not in WORKSPACES:
            raise web.HTTPFound("https://spar.slack.com/?redir=%2Ffiles")
        file = self._files.get(request.match_info["file"])
        return web.Response(body=file["content"]) if file else web.Response(status=404)

    async def _respond(self, request: web.Request) -> web.Response:
        self.responses.append(await request.json())
        return web.Response(text="ok")

    # small things

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _stamp(self) -> str:
        count = self._next()
        return f"{EPOCH + count}.{count:06d}"

    def _direct_channel(self, user: str) -> str:
        channel = f"D{user[1:]}"
        self._channels.setdefault(channel, [])
        return channel

    def _post(self, channel: str, user: str, text: str, thread: str | None) -> Message:
        message: Message = {"ts": self._stamp(), "user": user, "text": text, "thread_ts": thread, "edits": 0}
        message |= {"arrived": time.time(), "metadata": None, "shared": False}
        self._channels[channel].append(message)
        return message


def _token(request: web.Request, arguments: dict[str, Any]) -> str:
    given = arguments.pop("token", "")
    return request.headers.get("Authorization", "").removeprefix("Bearer ") or given


async def _arguments(request: web.Request) -> dict[str, Any]:
    """Of a JSON body, a form or the query: forms carry structures as JSON text."""
    if request.content_type == "application/json":
        return dict(await request.json())
    given: dict[str, Any] = {**request.query, **(await request.post())}
    scheme, _, basic = request.headers.get("Authorization", "").partition(" ")
    if scheme == "Basic":
        given["client_id"], _, given["client_secret"] = base64.b64decode(basic).decode().partition(":")
    for name in ("files", "view", "blocks", "metadata"):
        if isinstance(given.get(name), str):
            given[name] = json.loads(given[name])
    for name in ("include_all_metadata", "inclusive"):
        if name in given:
            given[name] = given[name] in ("1", "true", "True")
    return given
