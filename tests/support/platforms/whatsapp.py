"""The WhatsApp side of the Cloud API, played on a local port: the Graph API that the adapter calls, and the deliveries that it gets.

It is ours. It was written after Meta's reference pages for Graph API v25 (messages, media, webhooks, error codes, business-scoped user
ids), and its deliveries are read back by pywa's parsers in the tests. It refuses unknown fields, lengths, counts, wrong tokens and unknown
media as the platform would, and remembers it. WhatsApp has no groups here: `room` is ada's conversation.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from codespar.channels.base import HttpAnswer, HttpRequest
from support.platforms.base import Shown

NUMBER = "106540352242922"
_TOKEN = "EAAG-token-of-the-fake"
_SECRET = "app-secret-of-the-fake"
_VERIFY = "verify-word-of-the-fake"
_JOINER = "\u2060"
_STYLES = tuple(
    re.compile(rf"(?<![^\s>*_~])\{mark}(?=\S)([^\n]+?)(?<=\S)\{mark}(?![a-zA-Z\d])") for mark in "*_~"
)


def units(text: str) -> int:
    """The strictest reading of "characters"."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def reads_as(text: str) -> str:
    """What a person sees: formatting applied and its signs gone."""
    pieces = re.split(r"(```.+?```|`[^`\n]+`)", text, flags=re.DOTALL)
    for place, piece in enumerate(pieces):
        if place % 2:
            pieces[place] = piece.strip("`").strip("\n") if piece.startswith("```") else piece[1:-1]
            continue
        for style in _STYLES:
            piece = style.sub(r"\1", piece)
        pieces[place] = piece
    return "".join(pieces).replace(_JOINER, "")


def _blank(text: str) -> bool:
    return not text.strip(" \t\r\n\u200b\u2060\u200d\u200c\u3000\xa0")


def _text(problems: list[str], where: str, value: Any, limit: int, *, least: int = 1) -> None:
    if not isinstance(value, str):
        problems.append(f"{where} must be a string")
    elif (least and _blank(value)) or units(value) > limit:
        problems.append(f"{where} must have {least} to {limit} characters, it has {units(value)}")
    elif any("\ud800" <= char <= "\udfff" or char == "\0" for char in value):
        problems.append(f"{where} holds a character that is none")


def _fields(
    problems: list[str], where: str, value: Any, needed: set[str], optional: Collection[str] = ()
) -> bool:
    if not isinstance(value, dict):
        problems.append(f"{where} must be an object")
        return False
    problems += [f"{where}.{name} is missing" for name in sorted(needed - set(value))]
    problems += [f"{where}.{name} is not known" for name in sorted(set(value) - needed - set(optional))]
    return not needed - set(value)


def check_message(payload: Any) -> list[str]:
    """What the platform would refuse of a message; nothing for one it takes."""
    problems: list[str] = []
    kind = payload.get("type") if isinstance(payload, dict) else None
    needed = {"messaging_product", "recipient_type", "type", str(kind)}
    if not _fields(
        problems, "message", payload, needed, {"to", "recipient", "biz_opaque_callback_data", "context"}
    ):
        return problems
    if payload["messaging_product"] != "whatsapp" or payload["recipient_type"] != "individual":
        problems.append("messaging_product or recipient_type is wrong")
    if ("to" in payload) == ("recipient" in payload):
        problems.append("exactly one of to and recipient must be given")
    elif "to" in payload and not re.fullmatch(r"\d{6,15}", payload["to"]):
        problems.append("to must be a phone number")
    elif "recipient" in payload and not re.fullmatch(
        r"[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}", payload["recipient"]
    ):
        problems.append("recipient must be a business-scoped user id")
    _text(problems, "biz_opaque_callback_data", payload.get("biz_opaque_callback_data", ""), 512, least=0)
    match kind:
        case "text":
            if _fields(problems, "text", payload["text"], {"body"}, {"preview_url"}):
                _text(problems, "text.body", payload["text"]["body"], 4096)
        case "document":
            document = payload["document"]
            if _fields(problems, "document", document, {"id"}, {"caption", "filename"}):
                _text(problems, "document.caption", document.get("caption", ""), 1024, least=0)
                _text(problems, "document.filename", document.get("filename", "x"), 240)
        case "interactive":
            problems += _check_interactive(payload["interactive"])
        case "template":
            problems += _check_template(payload["template"])
        case _:
            problems.append(f"type {kind} is not known")
    return problems


def _check_interactive(value: Any) -> list[str]:
    problems: list[str] = []
    if not _fields(problems, "interactive", value, {"type", "body", "action"}, {"header", "footer"}):
        return problems
    if _fields(problems, "body", value["body"], {"text"}):
        _text(problems, "body.text", value["body"]["text"], 1024)
    for name in ("header", "footer"):
        if name in value and _fields(problems, name, value[name], {"text"}, {"type"}):
            _text(problems, f"{name}.text", value[name]["text"], 60)
    action, ids, titles = value["action"], [], []
    if value["type"] == "button" and _fields(problems, "action", action, {"buttons"}):
        if not 1 <= len(action["buttons"]) <= 3:
            problems.append(f"action.buttons must have 1 to 3, it has {len(action['buttons'])}")
        for button in action["buttons"]:
            if _fields(problems, "button", button, {"type", "reply"}) and _fields(
                problems, "reply", button["reply"], {"id", "title"}
            ):
                _text(problems, "reply.id", button["reply"]["id"], 256)
                _text(problems, "reply.title", button["reply"]["title"], 20)
                ids.append(button["reply"]["id"])
                titles.append(button["reply"]["title"])
    elif value["type"] == "list" and _fields(problems, "action", action, {"button", "sections"}):
        _text(problems, "action.button", action["button"], 20)
        for section in action["sections"]:
            if _fields(problems, "section", section, {"rows"}, {"title"}):
                _text(problems, "section.title", section.get("title", "x"), 24)
                for row in section["rows"]:
                    if _fields(problems, "row", row, {"id", "title"}, {"description"}):
                        _text(problems, "row.id", row["id"], 200)
                        _text(problems, "row.title", row["title"], 24)
                        _text(problems, "row.description", row.get("description", "x"), 72)
                        ids.append(row["id"])
                        titles.append(row["title"])
        if not 1 <= len(action["sections"]) <= 10 or not 1 <= len(ids) <= 10:
            problems.append("a list must have 1 to 10 sections and 1 to 10 rows in all")
    else:
        problems.append(f"interactive.type {value['type']} is not known")
    if len(set(ids)) != len(ids) or len(set(titles)) != len(titles):
        problems.append("ids and titles must each be there once")
    problems += [f"id {one!r} has spaces at its ends" for one in ids if one != one.strip()]
    problems += [f"title {one!r} has a line end" for one in titles if "\n" in one]
    return problems


def _check_template(value: Any) -> list[str]:
    problems: list[str] = []
    if not _fields(problems, "template", value, {"name", "language", "components"}):
        return problems
    _fields(problems, "language", value["language"], {"code"})
    for component in value["components"]:
        if not _fields(problems, "component", component, {"type", "parameters"}):
            continue
        for parameter in component["parameters"]:
            if _fields(problems, "parameter", parameter, {"type", "text"}):
                _text(problems, "parameter.text", parameter["text"], 1024)
                if re.search(r"[\n\t]| {4}", parameter["text"]):
                    problems.append("a parameter must have no line end, no tab and no four spaces in a row")
    return problems


@dataclass
class _Fault:
    status: int
    retry_after: float | None
    code: int | None = None


class FakeWhatsapp:
    """A business number with five people who know it. Ids are counters, so runs give the same text."""

    name = "whatsapp"

    def __init__(self) -> None:
        self.people = {
            name: (f"US.{1000 + n}", f"1555000{1000 + n}")
            for n, name in enumerate(("ada", "marcus", "grace", "rex", "olga"), start=1)
        }
        self.room = f"{NUMBER}:{self.identity('ada')}"
        self.settings: dict[str, Any] = {}
        self.environment = {
            "CODESPAR_WHATSAPP_TOKEN": _TOKEN,
            "CODESPAR_WHATSAPP_APP_SECRET": _SECRET,
            "CODESPAR_WHATSAPP_VERIFY_TOKEN": _VERIFY,
        }
        self.refusals: list[str] = []
        self.deliver: Callable[[HttpRequest], Awaitable[HttpAnswer]] | None = None
        self.templates = {"codespar_news": "en_US"}
        self.closed: set[str] = set()  # people whose last message is more than 24 hours old
        self.closed_in_the_answer = False  # else, as mostly, in a `failed` status
        self.statuses = True  # whether statuses are delivered
        self.read: list[str] = []  # ids of people's messages that were marked as read
        self.posted: list[dict[str, Any]] = []  # every message taken
        self.media: dict[str, tuple[str, bytes]] = {}
        self.media_base: str | None = None  # where media are said to be; None: here
        self.downloads: list[str] = []
        self.answers: list[int] = []  # what the adapter answered to deliveries
        self.now = 1_795_000_000
        self._shown: list[Shown] = []
        self._by_id: dict[str, dict[str, Any]] = {}
        self._faults: list[_Fault] = []
        self._lose = False
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._base = ""

    async def start(self) -> None:
        app = web.Application(client_max_size=120_000_000)
        app.router.add_post("/v25.0/{number}/messages", self._messages)
        app.router.add_post("/v25.0/{number}/media", self._upload)
        app.router.add_get("/v25.0/{id}", self._get)
        app.router.add_get("/files/{id}", self._file)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self._base = f"http://127.0.0.1:{port}"
        self.settings = {"phone_number_id": NUMBER, "api_url": self._base, "template": "codespar_news"}

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner:
            await self._runner.cleanup()

    def identity(self, person: str) -> str:
        return self.people[person][0]

    async def say(self, person: str, text: str, *, direct: bool = False, thread: str | None = None) -> str:
        """A person writes. `thread` is the id of a message they answer to."""
        return await self.message(person, {"type": "text", "text": {"body": text}}, answers=thread)

    async def press(self, person: str, shown: Shown, label: str, *, answer: str | None = None) -> None:
        """A person presses a button or chooses a row. WhatsApp asks nothing first: `answer` has no place."""
        kind, chosen = self._choice(shown.id, label)
        await self.message(
            person, {"type": "interactive", "interactive": {"type": kind, kind: chosen}}, answers=shown.id
        )

    async def offer(self, person: str, kind: str, content: bytes, **about: str) -> str:
        """A person sends a picture, a document, a voice message. The media's id."""
        media = self._next("9000")
        self.media[media] = (about.get("mime_type", "application/octet-stream"), content)
        await self.message(person, {"type": kind, kind: {"id": media, **about}})
        return media

    async def message(self, person: str, content: dict[str, Any], *, answers: str | None = None) -> str:
        """A person sends a message of any kind; the delivery is signed and repeated once where it is not acknowledged."""
        self.closed.discard(person)
        value, wamid = self.inbound(person, content, answers=answers)
        body = self.delivery(value)
        if await self.post(body) != 200:
            await self.post(body)
        return wamid

    def inbound(
        self,
        person: str,
        content: dict[str, Any],
        *,
        answers: str | None = None,
        phone: bool = True,
        user: bool = True,
    ) -> tuple[dict[str, Any], str]:
        """The value of a change with one message. Without `phone` or `user` as for people who hide one or before 2026."""
        user_id, number = self.people[person]
        wamid = self._next("wamid.IN")
        self.now += 1
        contact: dict[str, Any] = {"profile": {"name": person.capitalize()}}
        message: dict[str, Any] = {"id": wamid, "timestamp": str(self.now), **content}
        if phone:
            contact["wa_id"] = message["from"] = number
        if user:
            contact["user_id"] = message["from_user_id"] = user_id
        if answers:
            message["context"] = {"from": "15550783881", "id": answers}
        return {**self._value(), "contacts": [contact], "messages": [message]}, wamid

    def delivery(self, *values: dict[str, Any], field: str = "messages") -> bytes:
        """A delivery with these changes."""
        changes = [{"value": value, "field": field} for value in values]
        entry = [{"id": "102290129340398", "changes": changes}]
        return json.dumps(
            {"object": "whatsapp_business_account", "entry": entry}, ensure_ascii=False
        ).encode()

    async def post(self, body: bytes, *, signature: str | None = None) -> int:
        """Bring a delivery to the adapter; what it answered."""
        assert self.deliver is not None, "set `deliver` to the adapter's `answer`"
        if signature is None:
            signature = "sha256=" + hmac.new(_SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-hub-signature-256": signature}
        answer = await self.deliver(HttpRequest(method="POST", path="webhook", headers=headers, body=body))
        self.answers.append(answer.status)
        return answer.status

    def seen(self, conversation: str | None = None) -> list[Shown]:
        wanted = conversation or self.room
        if wanted.startswith("direct:"):
            wanted = f"{NUMBER}:{self.identity(wanted.removeprefix('direct:'))}"
        return [shown for shown in self._shown if shown.conversation == wanted]

    def fail_next(
        self, times: int, *, status: int = 500, retry_after: float | None = None, code: int | None = None
    ) -> None:
        self._faults += [_Fault(status, retry_after, code)] * times

    def lose_next_answer(self) -> None:
        self._lose = True

    async def settled(self) -> None:
        """When every delivery of a status has been made."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _messages(self, request: web.Request) -> web.Response:
        if refused := self._unauthorized(request):
            return refused
        payload = await request.json()
        if payload.get("status") == "read":
            if (
                set(payload) != {"messaging_product", "status", "message_id"}
                or "wamid.IN" not in payload["message_id"]
            ):
                return self._refuse(400, 131009, f"(#131009) Parameter value is not valid: {payload}")
            self.read.append(payload["message_id"])
            return web.json_response({"success": True})
        if self._faults:
            return self._faulty(self._faults.pop(0))
        problems = check_message(payload)
        if payload.get("type") == "document" and not problems and payload["document"]["id"] not in self.media:
            problems = ["document.id names no media"]
        if problems:
            return self._refuse(400, 131009, "; ".join(problems))
        person = self._recipient(payload)
        if person is None:
            return self._refuse(400, 131026, "Message undeliverable: no such user")
        if payload["type"] == "template":
            wanted = payload["template"]
            if self.templates.get(wanted["name"]) != wanted["language"]["code"]:
                return self._refuse(404, 132001, "(#132001) Template name does not exist in the translation")
        elif person in self.closed and self.closed_in_the_answer:
            return self._error(400, 131047, "Re-engagement message")
        wamid = self._next("wamid.OUT")
        self.posted.append(payload)
        self._by_id[wamid] = payload
        failed = person in self.closed and payload["type"] != "template"
        if not failed:
            self._shown.append(self._as_shown(wamid, person, payload))
        task = asyncio.create_task(self._tell(wamid, person, payload, failed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._lose:
            self._lose = False
            assert request.transport is not None
            request.transport.abort()
        user_id, number = self.people[person]
        contact = {
            "input": payload.get("to") or payload.get("recipient"),
            "wa_id": number,
            "user_id": user_id,
        }
        return web.json_response(
            {"messaging_product": "whatsapp", "contacts": [contact], "messages": [{"id": wamid}]}
        )

    async def _tell(self, wamid: str, person: str, payload: dict[str, Any], failed: bool) -> None:
        await asyncio.sleep(0.02)
        for status in ("failed",) if failed else ("sent", "delivered"):
            if self.deliver and self.statuses:
                await self.post(
                    self.delivery(self.status(wamid, person, status, payload.get("biz_opaque_callback_data")))
                )

    def status(
        self, wamid: str, person: str, status: str, opaque: str | None, code: int = 131047
    ) -> dict[str, Any]:
        """The value of a change with one status."""
        user_id, number = self.people[person]
        told: dict[str, Any] = {
            "id": wamid,
            "status": status,
            "timestamp": str(self.now),
            "recipient_id": number,
            "recipient_user_id": user_id,
        }
        if opaque:
            told["biz_opaque_callback_data"] = opaque
        if status == "failed":
            title = "Re-engagement message" if code == 131047 else "Message undeliverable"
            told["errors"] = [
                {"code": code, "title": title, "message": title, "error_data": {"details": title}}
            ]
        return {**self._value(), "contacts": [{"wa_id": number, "user_id": user_id}], "statuses": [told]}

    async def _upload(self, request: web.Request) -> web.Response:
        if refused := self._unauthorized(request):
            return refused
        form = await request.post()
        file = form.get("file")
        if form.get("messaging_product") != "whatsapp" or not isinstance(file, web.FileField):
            return self._refuse(400, 100, "(#100) file and messaging_product are needed")
        if form.get("type") != "text/plain" or file.content_type != "text/plain":
            return self._refuse(400, 100, f"(#100) unsupported type {form.get('type')}")
        content = file.file.read()
        if not 1 <= len(content) <= 100_000_000:
            return self._refuse(400, 131053, "Media upload error: size")
        media = self._next("8000")
        self.media[media] = ("text/plain", content)
        return web.json_response({"id": media})

    async def _get(self, request: web.Request) -> web.Response:
        if refused := self._unauthorized(request):
            return refused
        wanted = request.match_info["id"]
        if wanted == NUMBER:
            return web.json_response({"id": NUMBER})
        if wanted not in self.media or request.query.get("phone_number_id") != NUMBER:
            return self._refuse(
                400, 100, f"Unsupported get request. Object with ID '{wanted}' does not exist"
            )
        mime, content = self.media[wanted]
        base = self.media_base or f"{self._base}/files/"
        about = {"messaging_product": "whatsapp", "url": f"{base}{wanted}", "mime_type": mime, "id": wanted}
        return web.json_response({**about, "file_size": len(content)})

    async def _file(self, request: web.Request) -> web.Response:
        if refused := self._unauthorized(request):
            return refused
        self.downloads.append(request.match_info["id"])
        mime, content = self.media[request.match_info["id"]]
        return web.Response(body=content, content_type=mime)

    def _unauthorized(self, request: web.Request) -> web.Response | None:
        if request.headers.get("authorization") != f"Bearer {_TOKEN}":
            return self._refuse(401, 190, "Error validating access token: Session has expired")
        if request.match_info.get("number", NUMBER) != NUMBER:
            return self._refuse(400, 100, "Unsupported post request. Object does not exist")
        return None

    def _faulty(self, fault: _Fault) -> web.Response:
        code = fault.code or (130429 if fault.status == 429 else 131000 if fault.status >= 500 else 100)
        headers = {"retry-after": f"{fault.retry_after:g}"} if fault.retry_after is not None else {}
        return self._error(fault.status, code, "played fault", headers)

    def _refuse(self, status: int, code: int, message: str) -> web.Response:
        self.refusals.append(f"{code}: {message}")
        return self._error(status, code, message)

    def _error(
        self, status: int, code: int, message: str, headers: dict[str, str] | None = None
    ) -> web.Response:
        error = {
            "message": message,
            "type": "OAuthException",
            "code": code,
            "error_data": {"messaging_product": "whatsapp", "details": message},
            "fbtrace_id": "A" * 23,
        }
        return web.json_response({"error": error}, status=status, headers=headers)

    def _recipient(self, payload: dict[str, Any]) -> str | None:
        given = payload.get("recipient") or payload.get("to")
        return next((name for name, ids in self.people.items() if given in ids), None)

    def _as_shown(self, wamid: str, person: str, payload: dict[str, Any]) -> Shown:
        shown = Shown(id=wamid, conversation=f"{NUMBER}:{self.identity(person)}", thread=None, text="")
        match payload:
            case {"type": "text", "text": {"body": body}}:
                shown.text = reads_as(body)
            case {"type": "document", "document": document}:
                shown.text = reads_as(document.get("caption", ""))
                shown.files = {document["filename"]: self.media[document["id"]][1]}
            case {"type": "template", "template": used}:
                shown.text = "News: " + reads_as(used["components"][0]["parameters"][0]["text"])
            case {"type": "interactive", "interactive": used}:
                footer = "\n" + used["footer"]["text"] if "footer" in used else ""
                shown.text = reads_as(used["body"]["text"]) + footer
                shown.buttons = [chosen["title"] for _, chosen in self._choices(used)]
        return shown

    def _choice(self, wamid: str, label: str) -> tuple[str, dict[str, str]]:
        for kind, chosen in self._choices(self._by_id[wamid]["interactive"]):
            if chosen["title"] == label:
                return kind, chosen
        raise AssertionError(f"{wamid} has no button {label!r}")

    @staticmethod
    def _choices(interactive: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
        action = interactive["action"]
        if "buttons" in action:
            return [("button_reply", button["reply"]) for button in action["buttons"]]
        return [("list_reply", row) for section in action["sections"] for row in section["rows"]]

    def _value(self) -> dict[str, Any]:
        metadata = {"display_phone_number": "15550783881", "phone_number_id": NUMBER}
        return {"messaging_product": "whatsapp", "metadata": metadata}

    def _next(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count:05d}"
