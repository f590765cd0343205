"""What Discord refuses and what people read, by its API reference (v10): for the fake and for tests of rendering. Ours, not Discord's."""

from __future__ import annotations

import re
from typing import Any

_KEYS = {
    "content", "embeds", "components", "flags", "allowed_mentions", "nonce", "enforce_nonce", "message_reference",
    "attachments", "tts", "sticker_ids", "poll",
}  # fmt: skip
_EMBED_KEYS = {"title", "type", "description", "url", "timestamp", "color", "footer", "image", "thumbnail", "author", "fields"}  # fmt: skip


def _size(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def length_errors(value: object, where: str, limit: int, *, least: int = 0) -> list[str]:
    if not isinstance(value, str):
        return [f"{where}: must be a string"]
    wrong = (
        [f"{where}: holds a null byte or half a character"] if re.search("[\x00\ud800-\udfff]", value) else []
    )
    if _size(value) > limit:
        wrong.append(f"{where}: must be {limit} or fewer in length, is {_size(value)}")
    if least and len(value.strip()) < least:
        wrong.append(f"{where}: this field is required")
    return wrong


def _embed(embed: dict[str, Any], where: str) -> tuple[list[str], int]:
    wrong = [f"{where}.{key}: unknown" for key in embed.keys() - _EMBED_KEYS]
    if not embed.keys() & {"title", "description", "fields", "image", "thumbnail", "author"}:
        wrong.append(f"{where}: an embed must have a title, a description or fields")
    total = 0
    for key, limit in (("title", 256), ("description", 4096)):
        if key in embed:
            wrong += length_errors(embed[key], f"{where}.{key}", limit, least=1)
            total += _size(embed[key])
    if "footer" in embed:
        wrong += length_errors(embed["footer"].get("text"), f"{where}.footer.text", 2048, least=1)
        total += _size(embed["footer"]["text"])
    if not 0 <= embed.get("color", 0) <= 0xFFFFFF:
        wrong.append(f"{where}.color: out of range")
    fields = embed.get("fields", [])
    if len(fields) > 25:
        wrong.append(f"{where}.fields: must be 25 or fewer in length")
    for number, one in enumerate(fields):
        wrong += length_errors(one.get("name"), f"{where}.fields.{number}.name", 256, least=1)
        wrong += length_errors(one.get("value"), f"{where}.fields.{number}.value", 1024, least=1)
        total += _size(one["name"]) + _size(one["value"])
    return wrong, total


def _rows(rows: list[dict[str, Any]]) -> list[str]:
    wrong = ["components: must be 5 or fewer in length"] if len(rows) > 5 else []
    behind: list[str] = []
    for number, row in enumerate(rows):
        where = f"components.{number}"
        buttons = row.get("components", [])
        if row.get("type") != 1 or not 1 <= len(buttons) <= 5:
            wrong.append(f"{where}: an action row of 1 to 5 buttons")
        for place, button in enumerate(buttons):
            at = f"{where}.components.{place}"
            if button.get("type") != 2 or button.get("style") not in (1, 2, 3, 4):
                wrong.append(f"{at}: no such button")
            wrong += [
                f"{at}.{key}: unknown"
                for key in button.keys() - {"type", "style", "label", "custom_id", "disabled"}
            ]
            wrong += length_errors(button.get("label"), f"{at}.label", 80, least=1)
            wrong += length_errors(button.get("custom_id"), f"{at}.custom_id", 100, least=1)
            behind.append(button.get("custom_id", ""))
    if len(behind) != len(set(behind)):
        wrong.append("components: component custom id cannot be duplicated")
    return wrong


def check_message(payload: dict[str, Any], files: int = 0) -> list[str]:
    """What Discord would refuse in a message, by its documents; empty for one it takes."""
    wrong = [f"{key}: unknown" for key in payload.keys() - _KEYS]
    wrong += length_errors(payload.get("content", ""), "content", 2000)
    embeds: list[dict[str, Any]] = payload.get("embeds", [])
    if len(embeds) > 10:
        wrong.append("embeds: must be 10 or fewer in length")
    total = 0
    for number, embed in enumerate(embeds):
        found, size = _embed(embed, f"embeds.{number}")
        wrong += found
        total += size
    if total > 6000:
        wrong.append(f"embeds: embed size exceeds maximum size of 6000, is {total}")
    wrong += _rows(payload.get("components", []))
    if not payload.get("content", "").strip() and not embeds and not files:
        wrong.append("Cannot send an empty message")
    if payload.get("flags", 0) & ~(1 << 2 | 1 << 12):
        wrong.append("flags: may not be set")
    if len(str(payload.get("nonce", ""))) > 25:
        wrong.append("nonce: must be 25 or fewer in length")
    mentions: dict[str, Any] = payload.get("allowed_mentions", {})
    if set(mentions.get("parse", [])) - {"everyone", "users", "roles"}:
        wrong.append("allowed_mentions.parse: unknown")
    listed = [one.get("id") for one in payload.get("attachments", [])]
    if files > 10 or (listed and [str(one) for one in listed] != [str(at) for at in range(files)]):
        wrong.append("attachments: do not fit the files")
    return wrong


def pings(payload: dict[str, Any]) -> bool:
    """Whether the message may notify anybody."""
    mentions: dict[str, Any] | None = payload.get("allowed_mentions")
    return mentions is None or bool(mentions.get("parse") or mentions.get("users") or mentions.get("roles") or mentions.get("replied_user"))  # fmt: skip


def check_modal(modal: dict[str, Any]) -> list[str]:
    wrong = length_errors(modal.get("title"), "title", 45, least=1) + length_errors(
        modal.get("custom_id"), "custom_id", 100, least=1
    )
    for row in modal.get("components", []):
        for one in row.get("components", []):
            wrong += length_errors(one.get("label"), "label", 45, least=1)
            wrong += length_errors(one.get("placeholder", ""), "placeholder", 100)
    return wrong


_MARKUP = re.compile(
    r"\\(?P<sign>[^0-9A-Za-z\s])"
    r"|```(?P<word>[^\n`]*)\n(?P<fenced>.*?)\n?```"
    r"|`(?P<code>[^`\n]+)`"
    r"|\[(?P<label>(?:\\.|[^\]\\])*)\]\((?P<url>[^)]*)\)",
    re.DOTALL,
)


def read(markdown: str) -> str:
    """What people read: signs behind a backslash, links as `label: address`, code without its marks.

    In a fence a zero-width space between backticks is the renderer's, so that a quoted fence does not end it: it is taken out.
    """

    def shown(found: re.Match[str]) -> str:
        if found["fenced"] is not None:
            return found["fenced"].replace("`\u200b", "`")
        if found["label"] is not None:
            return f"{read(found['label'])}: {found['url']}"
        return found["sign"] or found["code"]

    return _MARKUP.sub(shown, markdown)
