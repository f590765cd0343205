"""What Slack's documents allow a message and a form to be, and how a message reads. Pure; see `support.platforms.slack`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

BLOCKS_BYTES = 13_000  # measured by others: from about 13,200 bytes on, `msg_blocks_too_long`


class Refused(Exception):
    """Slack's answer `ok: false`."""

    def __init__(self, code: str, details: list[str] | None = None) -> None:
        super().__init__(f"{code} {details or ''}".strip())
        self.code = code
        self.details = details or []


def check_message(payload: Json) -> list[str]:
    """What is wrong with a message, each as `<Slack's error>: <where and why>`; empty when Slack would take it."""
    problems: list[str] = []
    known = {"text", "blocks", "metadata", "parse", "link_names", "unfurl_links", "unfurl_media", "mrkdwn"}
    problems += [f"invalid_arguments: unknown {name}" for name in sorted(set(payload) - known)]
    text, blocks = payload.get("text", ""), payload.get("blocks") or []
    if not isinstance(text, str) or (not text.strip() and not blocks):
        problems.append("no_text: neither text nor blocks")
    elif len(text) > 4000:
        problems.append(f"msg_too_long: {len(text)} characters of text")
    elif not blocks and _controls(text):
        problems.append("invalid_arguments: control characters")
    if isinstance(text, str) and any(mark in text for mark in ("<!", "<@", "<#", "<http", "<mailto")):
        problems.append("pings: text holds a mark of Slack's")
    if len(blocks) > 50:
        problems.append(f"invalid_blocks: {len(blocks)} blocks")
    if len(json.dumps(blocks, ensure_ascii=False).encode("utf-8", "surrogatepass")) > BLOCKS_BYTES:
        problems.append("msg_blocks_too_long: all blocks together")
    for number, block in enumerate(blocks):
        problems += [f"invalid_blocks: {why} [json-pointer:/blocks/{number}]" for why in _block(block)]
    ids = [element.get("action_id") for block in blocks for element in _buttons(block)]
    if len(ids) != len(set(ids)):
        problems.append("invalid_blocks: action_id twice")
    metadata = payload.get("metadata")
    if metadata is not None and (
        set(metadata) != {"event_type", "event_payload"} or not isinstance(metadata["event_payload"], dict)
    ):
        problems.append("invalid_metadata_format: event_type and event_payload")
    return problems


def check_view(view: Json) -> list[str]:
    """What is wrong with a modal."""
    problems = list(
        _fields(view, {"type", "callback_id", "title", "blocks"}, {"private_metadata", "submit", "close"})
    )
    for name in ("title", "submit", "close"):
        problems += _text(view.get(name), 24, plain=True)
    if len(view.get("private_metadata", "")) > 3000:
        problems.append("private_metadata over 3000")
    for block in view.get("blocks", ()):
        if block.get("type") == "input":
            problems += _fields(block, {"type", "label", "element"}, {"block_id", "optional", "hint"})
            problems += _text(block.get("label"), 2000, plain=True)
            element = block["element"]
            optional = {"max_length", "multiline", "focus_on_load", "placeholder", "initial_value"}
            problems += _fields(element, {"type", "action_id"}, optional)
            if not 1 <= element.get("max_length", 1) <= 3000:
                problems.append("max_length out of range")
        else:
            problems += _block(block)
    return problems


def said(message: Json) -> str:
    """What is read of a message: one line a field, without buttons."""
    if not message.get("blocks"):
        return str(message["text"]).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return "\n".join(line for block in message["blocks"] for line in _lines(block))


def _lines(block: Json) -> Iterator[str]:
    match block["type"]:
        case "header":
            yield block["text"]["text"]
        case "section":
            yield from (text["text"] for text in [block.get("text"), *block.get("fields", [])] if text)
        case "context":
            yield " ".join(element["text"] for element in block["elements"])
        case "rich_text":
            for part in block["elements"]:
                yield "".join(_read(element) for element in part["elements"])
        case _:
            pass


def _read(element: Json) -> str:
    if element["type"] == "link":
        return f"{element['text']}: {element['url']}" if element.get("text") else element["url"]
    return str(element["text"])


def _buttons(block: Json) -> list[Json]:
    return block["elements"] if block.get("type") == "actions" else []


def _block(block: Json) -> Iterator[str]:
    match block.get("type"):
        case "header":
            yield from _fields(block, {"type", "text"})
            yield from _text(block.get("text"), 150, plain=True)
            if "\n" in block.get("text", {}).get("text", ""):
                yield "a header is one line"
        case "section":
            yield from _fields(block, {"type"}, {"text", "fields"})
            if "text" not in block and "fields" not in block:
                yield "an empty section"
            yield from _text(block["text"], 3000) if "text" in block else ()
            if len(block.get("fields", [])) > 10:
                yield "over 10 fields"
            for text in block.get("fields", []):
                yield from _text(text, 2000)
        case "context":
            yield from _fields(block, {"type", "elements"})
            if not 1 <= len(block["elements"]) <= 10:
                yield "1 to 10 elements"
            for text in block["elements"]:
                yield from _text(text, 2000)
        case "divider":
            yield from _fields(block, {"type"})
        case "actions":
            yield from _fields(block, {"type", "elements"})
            if not 1 <= len(block["elements"]) <= 25:
                yield "1 to 25 elements"
            for button in block["elements"]:
                yield from _button(button)
        case "rich_text":
            yield from _fields(block, {"type", "elements"})
            for part in block["elements"]:
                yield from _rich(part)
        case other:
            yield f"unsupported type: {other}"


def _button(button: Json) -> Iterator[str]:
    if button.get("type") != "button":
        yield f"unsupported element: {button.get('type')}"
    yield from _fields(button, {"type", "text", "action_id"}, {"value", "style"})
    yield from _text(button.get("text"), 75, plain=True)
    if not 1 <= len(button.get("action_id", "")) <= 255:
        yield "action_id of 1 to 255 characters"
    if "value" in button and not 1 <= len(button["value"].encode("utf-16-le")) // 2 <= 2000:
        yield f"a value of {len(button['value'])} characters"
    if button.get("style", "primary") not in ("primary", "danger"):
        yield f"style {button['style']}"


def _rich(part: Json) -> Iterator[str]:
    if part.get("type") not in ("rich_text_section", "rich_text_preformatted"):
        yield f"unsupported rich text: {part.get('type')}"
    yield from _fields(part, {"type", "elements"}, {"border"} if "pre" in part["type"] else set())
    if not part["elements"]:
        yield "an empty rich text element"
    for element in part["elements"]:
        if element.get("type") == "text":
            yield from _fields(element, {"type", "text"}, {"style"})
            yield from _string(element.get("text"), 3000)
            if set(element.get("style", {})) - {"bold", "italic", "strike", "code"}:
                yield "an unknown style"
        elif element.get("type") == "link":
            yield from _fields(element, {"type", "url"}, {"text", "style"})
            yield from _string(element.get("url"), 3000)
            if not str(element.get("url")).lower().startswith(("http://", "https://")):
                yield "a link that is none"
            yield from _string(element["text"], 3000) if "text" in element else ()
        else:
            yield f"pings: an element of type {element.get('type')}"


def _text(text: Any, limit: int, *, plain: bool = False) -> Iterator[str]:
    if not isinstance(text, dict):
        yield "a text object is missing"
        return
    yield from _fields(
        text, {"type", "text"}, {"emoji"} if text.get("type") == "plain_text" else {"verbatim"}
    )
    if text.get("type") not in (("plain_text",) if plain else ("plain_text", "mrkdwn")):
        yield f"text of type {text.get('type')}"
    yield from _string(text.get("text"), limit)


def _string(text: Any, limit: int) -> Iterator[str]:
    if not isinstance(text, str) or not text:
        yield "must be more than 0 characters"
    elif len(text.encode("utf-16-le", "surrogatepass")) // 2 > limit:
        yield f"must be less than {limit + 1} characters"
    elif _controls(text):
        yield "control characters or half a sign"


def _controls(text: str) -> bool:
    return any((char < " " and char not in "\n\t") or "\ud800" <= char <= "\udfff" for char in text)


def _fields(value: Json, needed: set[str], optional: set[str] = frozenset()) -> Iterator[str]:  # type: ignore[assignment]
    if missing := needed - set(value):
        yield f"missing {sorted(missing)}"
    if unknown := set(value) - needed - optional - {"block_id"}:
        yield f"unknown {sorted(unknown)}"
