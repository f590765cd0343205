"""From a response to Slack's messages. Pure.

What people and models wrote goes into `rich_text` and `plain_text` only, which Slack shows as it stands: nothing in it can mention anybody,
become a link or leave a code block, and nothing has to be escaped. Nothing is cut in silence: what is long is split or becomes a file.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from codespar.channels.base import File, Part
from codespar.channels.slack import limits
from codespar.channels.slack.normalize import Question, packed_value
from codespar.channels.text import as_file, packed, preview, progress_line, split, utf8, utf16
from codespar.domain.messages import Action, Block, Link, NormalizedResponse, Tone

Json = dict[str, Any]
Run = tuple[str, str]  # a text and its style: "", "bold", "italic" or "code"

_MARKERS = {Tone.SUCCESS: "✅", Tone.WARNING: "⚠️", Tone.FAILURE: "❌", Tone.PROGRESS: "⏳"}
_ADDRESS = re.compile(r"https?://[!-~]+", re.ASCII | re.IGNORECASE)
_UNHOLDABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_UNSAFE = frozenset('<>"\\^`{}|')


@dataclass(frozen=True)
class _Piece:
    """A block, or an element of a rich text block, with what it says."""

    block: Json
    said: str
    files: tuple[File, ...] = ()
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", utf8(json.dumps(self.block, ensure_ascii=False)))

    @property
    def inside(self) -> bool:
        return str(self.block["type"]).startswith("rich_text_")


def render(response: NormalizedResponse, *, plain: bool = False) -> tuple[Part, ...]:
    """The response as messages that Slack takes. `plain`: as text alone."""
    if plain:
        return _plain(response)
    buttons, told = _actions(response.actions)
    pieces = [*_pieces(response, limits.RUN, limits.FOLD), *told, *buttons]
    return tuple(_part(some) for some in _messages(pieces or [_section([("·", "")])]))


def clean(text: str) -> str:
    """Without what Slack cannot hold: lone surrogates, null bytes and other control characters. One kind of line end."""
    return _UNHOLDABLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def form(question: Question) -> Json:
    """The modal that asks for a line of text."""
    asks = clean(question.asks).strip() or "?"
    label = clean(question.label).strip()
    title = split(label, limits.TITLE, utf16)[0] if _visible(label) else "CodeSpar"
    view: Json = {
        "type": "modal",
        "callback_id": "codespar",
        "private_metadata": question.metadata,
        "title": _words(title),
        "submit": _words("Send"),
        "close": _words("Cancel"),
        "blocks": [
            {
                "type": "input",
                "block_id": "answer",
                "optional": True,
                "label": _words(asks if len(asks) <= limits.LABEL else "Your answer"),
                "element": {
                    "type": "plain_text_input",
                    "action_id": "answer",
                    "max_length": limits.ANSWER,
                    "focus_on_load": True,
                },
            }
        ],
    }
    if len(asks) > limits.LABEL:
        view["blocks"].insert(0, {"type": "section", "text": _words(asks)})
    return view


def _pieces(response: NormalizedResponse, inline: int, fold: int) -> list[_Piece]:
    """Everything but the actions. A block over `inline`, another text over `fold` goes into a file."""
    places = iter(range(1, 1_000_000))
    pieces: list[_Piece] = []

    def add(runs: Sequence[Run]) -> None:
        """Text in its place, or its beginning with the whole in a file."""
        whole = "".join(text for text, _ in runs)
        if len(whole) <= fold:
            pieces.extend(_sections(runs))
        else:
            pieces.extend(_folded(Block(text=whole), next(places), quoted=False))

    title = clean(response.title).strip()
    pieces.extend(_title(_marked(title, response.tone), fold) if len(title) <= fold else ())
    if len(title) > fold:
        add([(title, "bold")])
    if (text := clean(response.text)).strip():
        add([(text, "")])
    for line in response.fields:
        name, value = clean(line.name), clean(line.value)
        if name.strip() or value.strip():
            add([(f"{name}:", "bold"), (f" {value}", "")] if name.strip() else [(value, "")])
    for block in response.blocks:
        if (caption := clean(block.title)).strip():
            add([(caption, "bold")])
        if (text := clean(block.text)).strip():
            kept = block.evolve(text=text)
            if utf16(text) <= inline:
                pieces.append(_preformatted(text))
            elif inline < limits.PLAIN or len(text) > fold:
                pieces.extend(_folded(kept, next(places), quoted=True))
            else:
                pieces.extend(_preformatted(part) for part in split(text, limits.RUN, utf16))
    for link in response.links:
        pieces.extend(_link(link)) if _is_short(link) else add(
            [(f"{clean(link.label)}: {clean(link.url)}", "")]
        )
    for kept in response.attachments:
        add([(f"📎 {clean(kept.name)} ({kept.size} bytes)", "")])
    speaks = " · ".join(
        clean(text) for text in (response.agent or "", progress_line(response)) if text.strip()
    )
    if speaks and utf16(speaks) <= limits.CONTEXT and _visible(speaks):
        pieces.append(_Piece({"type": "context", "elements": [_words(speaks)]}, speaks))
    elif speaks:
        add([(speaks, "italic")])
    return pieces


def _title(title: str, fold: int) -> list[_Piece]:
    if not title:
        return []
    if utf16(title) <= limits.HEADER and "\n" not in title and _visible(title):
        return [_Piece({"type": "header", "text": _words(title)}, title)]
    return _sections([(title, "bold")])


def _marked(title: str, tone: Tone) -> str:
    """Slack has no colour for a message: where the title brings no marker of its own, the tone gives one."""
    marker = _MARKERS.get(tone)
    if not marker or not title or unicodedata.category(title[0]) in ("So", "Sk"):
        return title
    return f"{marker} {title}"


def _folded(block: Block, place: int, *, quoted: bool) -> list[_Piece]:
    """The beginning of a text, and a file with the whole."""
    file = as_file(block, place)
    begin = preview(block.text)
    lines = block.text.count("\n") + 1
    note = f"{lines} lines, {len(block.text)} characters: all of it is in {file.name}"
    pieces: list[_Piece] = []
    if begin.strip():
        pieces += [_preformatted(begin)] if quoted else _sections([(begin, "")])
    said = _sections([(note, "italic")])
    return [*pieces, _Piece(said[0].block, said[0].said, (file,))]


def _sections(runs: Sequence[Run]) -> list[_Piece]:
    """Text as paragraphs of rich text, each short enough."""
    if sum(utf16(text) for text, _ in runs) <= limits.RUN:
        return [_section(runs)] if any(text for text, _ in runs) else []
    pieces: list[_Piece] = []
    for text, style in runs:
        # a paragraph ends its line by itself
        chunks = (chunk.removesuffix("\n") for chunk in split(text, limits.RUN, utf16))
        pieces += [_section([(chunk, style)]) for chunk in chunks if chunk]
    return pieces


def _section(runs: Sequence[Run]) -> _Piece:
    elements: list[Json] = [_run(text, style) for text, style in runs if text]
    return _Piece(
        {"type": "rich_text_section", "elements": elements}, "".join(text for text, _ in runs).strip("\n")
    )


def _run(text: str, style: str) -> Json:
    return {"type": "text", "text": text} | ({"style": {style: True}} if style else {})


def _preformatted(text: str) -> _Piece:
    shown = text.strip("\n")
    return _Piece({"type": "rich_text_preformatted", "elements": [_run(shown, "")]}, shown)


def _is_short(link: Link) -> bool:
    return utf16(clean(link.label)) <= limits.RUN and len(link.url) <= limits.URL


def _link(link: Link) -> list[_Piece]:
    label, url = clean(link.label).strip(), clean(link.url).strip()
    said = f"{label}: {url}" if label else url
    if not _is_web(url):
        return _sections([(said, "")]) if said else []
    shown: Json = {"type": "link", "url": url} | ({"text": label} if label else {})
    return [_Piece({"type": "rich_text_section", "elements": [shown]}, said)]


def _is_web(url: str) -> bool:
    if not _ADDRESS.fullmatch(url) or _UNSAFE & set(url):
        return False
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:  # an address such as http://[
        return False


def _actions(actions: Sequence[Action]) -> tuple[list[_Piece], list[_Piece]]:
    """The buttons, in one block, and the actions that no button can hold, as text."""
    buttons: list[Json] = []
    told: list[_Piece] = []
    for action in actions:
        label, command, asks = (
            clean(action.label).strip(),
            clean(action.command).strip(),
            clean(action.asks).strip(),
        )
        label = label or command[: limits.BUTTON_TEXT]
        value = packed_value(
            {"command": command, "asks": asks, "label": label} if asks else {"command": command}
        )
        if utf16(value) > limits.BUTTON_VALUE and asks:
            value = packed_value({"command": command})
            told += _sections([(f"{label}: {asks}", "")])
            asks = ""
        fits = utf16(label) <= limits.BUTTON_TEXT and utf16(value) <= limits.BUTTON_VALUE and _visible(label)
        if command and fits and len(buttons) < limits.BUTTONS:
            button: Json = {
                "type": "button",
                "action_id": f"codespar-{len(buttons)}",
                "text": _words(label),
                "value": value,
            }
            styled = {"style": action.style} if action.style in ("primary", "danger") else {}
            buttons.append(button | styled)
        else:
            asked = " · ".join(text for text in (label, asks) if text)
            told += _sections([(f"{asked} · Reply: ", ""), (command, "code")] if command else [(asked, "")])
    said = " ".join(f"[{button['text']['text']}]" for button in buttons)
    return ([_Piece({"type": "actions", "elements": buttons}, said)] if buttons else []), told


def _messages(pieces: Iterable[_Piece]) -> list[list[_Piece]]:
    """As few messages as the pieces fit into, in order."""
    messages: list[list[_Piece]] = [[]]
    size = 0
    for piece in pieces:
        cost = piece.size + 60  # the block around an element
        if messages[-1] and (size + cost > limits.BLOCK_BYTES or len(messages[-1]) >= limits.BLOCKS):
            messages.append([])
            size = 0
        messages[-1].append(piece)
        size += cost
    return messages


def _part(pieces: Sequence[_Piece]) -> Part:
    blocks: list[Json] = []
    for piece in pieces:
        if not piece.inside:
            blocks.append(piece.block)
        elif blocks and blocks[-1]["type"] == "rich_text":
            blocks[-1]["elements"].append(piece.block)
        else:
            blocks.append({"type": "rich_text", "elements": [piece.block]})
    said = "\n".join(piece.said for piece in pieces)
    told = "\n".join(piece.said for piece in pieces if piece.block["type"] != "actions").strip() or "·"
    fallback = escaped(told)
    if len(fallback) > limits.FALLBACK:
        fallback = escaped(told[: limits.FALLBACK // 6]) + " …"  # notifications only; the blocks say it all
    files = tuple(file for piece in pieces for file in piece.files)
    payload: Json = {"text": fallback, "blocks": blocks}
    return Part(payload=payload, text=said, files=files)


def _plain(response: NormalizedResponse) -> tuple[Part, ...]:
    pieces = _pieces(response, limits.PLAIN, limits.PLAIN)
    lines = [piece.said for piece in pieces]
    for action in response.actions:
        label, command = clean(action.label).strip(), clean(action.command).strip()
        lines.append(f"{label} · Reply: `{command}`" if command else label)
        if asks := clean(action.asks).strip():
            lines.append(asks)

    def measure(text: str) -> int:
        return len(escaped(text))

    chunks = [chunk for line in lines for chunk in split(line, limits.TEXT, measure) if chunk]
    texts = [text for text in packed(chunks, limits.TEXT, measure) if _visible(text)] or ["·"]
    files = tuple(file for piece in pieces for file in piece.files)
    return tuple(
        Part(
            payload={"text": escaped(text), "mrkdwn": False},
            text=text,
            files=files if number == len(texts) else (),
        )
        for number, text in enumerate(texts, 1)
    )


def _words(text: str) -> Json:
    return {"type": "plain_text", "text": text, "emoji": False}


def _visible(text: str) -> bool:
    return any(unicodedata.category(char)[0] not in "CZ" for char in text)
