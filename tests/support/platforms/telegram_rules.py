"""What Telegram takes as a message: its HTML, its limits, its keyboards. Ours, like the fake that leans on it.

Checked against the Bot API's documentation (10.3), the constants of python-telegram-bot and the error texts that people report.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any

JOINER = "\u2060"
TAGS = {"b": "bold", "strong": "bold", "i": "italic", "em": "italic", "u": "underline", "ins": "underline"}
TAGS |= {"s": "strikethrough", "del": "strikethrough", "code": "code", "pre": "pre", "a": "text_link"}
TAGS |= {"blockquote": "blockquote", "tg-spoiler": "spoiler"}
MESSAGE = {"chat_id", "message_thread_id", "parse_mode", "reply_parameters", "reply_markup"}
METHODS: dict[str, set[str]] = {
    "getMe": set(),
    "getChat": {"chat_id"},
    "deleteWebhook": {"drop_pending_updates"},
    "setWebhook": {"url", "secret_token", "allowed_updates", "max_connections", "drop_pending_updates"},
    "getUpdates": {"offset", "limit", "timeout", "allowed_updates"},
    "sendMessage": MESSAGE | {"text", "link_preview_options"},
    "sendDocument": MESSAGE | {"document", "caption"},
    "editMessageText": {
        "chat_id",
        "message_id",
        "text",
        "parse_mode",
        "link_preview_options",
        "reply_markup",
    },
    "editMessageMedia": {"chat_id", "message_id", "media", "reply_markup"},
    "deleteMessage": {"chat_id", "message_id"},
    "answerCallbackQuery": {"callback_query_id", "text"},
    "getFile": {"file_id"},
}


class Refused(Exception):
    """What Telegram answers with a status other than 200."""

    def __init__(self, description: str, status: int = 400, **parameters: Any) -> None:
        super().__init__(description)
        self.description, self.status, self.parameters = description, status, parameters


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z-]*)((?:\s+[a-z-]+(?:=\"[^\"<>]*\")?)*)\s*>")
_RUN = re.compile(r"[^<]+")
_ENTITY = re.compile(r"&(lt|gt|amp|quot|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});")


def parse_html(source: str) -> tuple[str, list[dict[str, Any]]]:
    """Text and entities of Telegram's HTML. Raises `Refused` where Telegram does: it knows few tags, and closes none by itself."""
    said: list[str] = []
    place = length_so_far = 0
    open_tags: list[tuple[str, dict[str, str], int]] = []
    entities: list[dict[str, Any]] = []
    while place < len(source):
        run = _RUN.match(source, place)
        if run is not None:
            plain = _ENTITY.sub(lambda found: html.unescape(found[0]), run[0])
            said.append(plain)
            place, length_so_far = run.end(), length_so_far + units(plain)
            continue
        found = _TAG.match(source, place)
        at = f"at byte offset {len(source[:place].encode())}"
        if found is None or found[2].lower() not in TAGS:
            raise Refused(
                f'Bad Request: can\'t parse entities: Unsupported start tag "{source[place + 1 : place + 9]}" {at}'
            )
        tag, place = found[2].lower(), found.end()
        if not found[1]:
            attributes = dict(re.findall(r"([a-z-]+)=\"([^\"]*)\"", found[3]))
            if set(attributes) - {"a": {"href"}, "code": {"class"}}.get(tag, set()):
                raise Refused(f"Bad Request: can't parse entities: attributes of {tag} {at}")
            open_tags.append((tag, attributes, length_so_far))
            continue
        if not open_tags or open_tags[-1][0] != tag:
            raise Refused(f"Bad Request: can't parse entities: Unmatched end tag {at}, found </{tag}>")
        _, attributes, begin = open_tags.pop()
        length = length_so_far - begin
        if length:
            entities += _entity(tag, attributes, begin, length, open_tags, entities)
    if open_tags:
        raise Refused(
            f"Bad Request: can't parse entities: Can't find end tag corresponding to start tag \"{open_tags[-1][0]}\""
        )
    return "".join(said), sorted(entities, key=lambda one: (one["offset"], -one["length"]))


def _entity(
    tag: str,
    attributes: dict[str, str],
    begin: int,
    length: int,
    outer: list[Any],
    made: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    entity: dict[str, Any] = {"type": TAGS[tag], "offset": begin, "length": length}
    if tag == "a":
        url = html.unescape(attributes.get("href", ""))
        if person := re.fullmatch(r"tg://user\?id=([0-9]+)", url):
            user = {"id": int(person[1]), "is_bot": False, "first_name": "mentioned"}
            return [entity | {"type": "text_mention", "user": user}]
        return [entity | {"url": url}] if re.match(r"https?://[^\s/]+", url) else []
    if tag == "code" and outer and outer[-1][0] == "pre" and outer[-1][2] == begin:
        return [entity | {"language": attributes.get("class", "").removeprefix("language-")}]
    if (
        tag == "pre"
        and made
        and made[-1].get("language")
        and made[-1]["offset"] == begin
        and made[-1]["length"] == length
    ):
        made[-1]["type"] = "pre"
        return []
    return [entity]


def found_entities(text: str, made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What Telegram finds by itself: names that are mentioned, commands, its own addresses. Not inside code."""
    covered = [
        (one["offset"], one["offset"] + one["length"]) for one in made if one["type"] in ("code", "pre")
    ]
    patterns = {
        "mention": r"(?<![A-Za-z0-9_])@[A-Za-z0-9_]{2,32}",
        "bot_command": r"(?<![\w/])/[A-Za-z0-9_]{1,64}(?:@[A-Za-z0-9_]+)?",
    }
    patterns["url"] = r"(?i)(?:https?|tg|ton|tonsite)://[^\s<>]+"
    entities: list[dict[str, Any]] = []
    for kind, pattern in patterns.items():
        offset = before = 0
        for found in re.finditer(pattern, text):
            offset, before = offset + units(text[before : found.start()]), found.start()
            if not any(begin <= offset < end for begin, end in covered):
                entities.append({"type": kind, "offset": offset, "length": units(found[0])})
    return sorted(entities, key=lambda one: one["offset"])


def read(payload: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The text of a message as it is read, and its entities. Raises `Refused`."""
    source = payload.get("text", payload.get("caption", ""))
    mode = payload.get("parse_mode")
    if mode not in (None, "HTML"):
        raise Refused("Bad Request: unsupported parse_mode")
    try:
        source.encode("utf-8")
    except UnicodeEncodeError:
        raise Refused("Bad Request: strings must be encoded in UTF-8") from None
    return parse_html(source) if mode == "HTML" else (source, [])


def pings(payload: dict[str, Any]) -> list[str]:
    """Who or what the message would mention or lead to beside http(s) addresses."""
    text, entities = read(payload)
    wrong = [f"mentions {one['user']['id']}" for one in entities if one["type"] == "text_mention"]
    for one in found_entities(text, entities):
        said = text.encode("utf-16-le")[one["offset"] * 2 : (one["offset"] + one["length"]) * 2].decode(
            "utf-16-le"
        )
        if one["type"] == "mention" or (one["type"] == "url" and not said.lower().startswith("http")):
            wrong.append(said)
    return wrong


def check_message(payload: dict[str, Any]) -> list[str]:
    """Everything for which Telegram would refuse this message, or drop a part of it. Empty: it takes it as it is."""
    method = "sendMessage" if "text" in payload else "sendDocument"
    wrong = [f"{method} has no {name}" for name in payload if name not in METHODS[method]]
    try:
        text, entities = read(payload)
    except Refused as refused:
        return [*wrong, refused.description]
    blank = not re.sub(r"[\s\u2060\u200b-\u200f\ufeff\u00ad\u034f\u061c\u180e\u3164\u2800]", "", text)
    if method == "sendMessage" and blank:
        wrong.append("Bad Request: message text is empty")
    limit = 4096 if method == "sendMessage" else 1024
    if units(text) > limit:
        wrong.append(
            "Bad Request: message is too long"
            if limit == 4096
            else "Bad Request: message caption is too long"
        )
    if "\x00" in text:
        wrong.append("Bad Request: text must not have null characters")
    if len(entities) > 100:
        wrong.append(f"Bad Request: {len(entities)} entities, 100 are kept")
    preview = payload.get("link_preview_options", {})
    if method == "sendMessage" and preview != {"is_disabled": True}:
        wrong.append("the link preview is not off")
    return wrong + check_markup(payload.get("reply_markup"))


def check_markup(markup: dict[str, Any] | None) -> list[str]:
    if markup is None:
        return []
    if markup.get("force_reply") is True:
        placeholder = markup.get("input_field_placeholder", "x")
        right = (
            set(markup) <= {"force_reply", "selective", "input_field_placeholder"}
            and 1 <= len(placeholder) <= 64
        )
        return [] if right else ["Bad Request: can't parse force reply"]
    if set(markup) != {"inline_keyboard"}:
        return ["Bad Request: object expected as reply markup"]
    wrong: list[str] = []
    rows = markup["inline_keyboard"]
    if any(not 1 <= len(row) <= 8 for row in rows) or sum(map(len, rows)) > 100:
        wrong.append("Bad Request: too many buttons in a row or in all")
    for button in (button for row in rows for button in row):
        if set(button) - {"style"} != {"text", "callback_data"} or button.get("style", "primary") not in (
            "primary",
            "danger",
            "success",
        ):
            wrong.append(f"Bad Request: can't parse inline keyboard button: {sorted(button)}")
        elif not button["text"].strip() or not 1 <= len(button["callback_data"].encode()) <= 64:
            wrong.append("Bad Request: BUTTON_DATA_INVALID")
    if len(json.dumps(markup).encode()) > 16_000:
        wrong.append("Bad Request: REPLY_MARKUP_TOO_LONG")
    return wrong
