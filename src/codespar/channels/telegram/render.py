"""`NormalizedResponse` → Telegram messages. Pure.

Everything of a response is shown: in messages, behind buttons, or in a file that the message names. It never cuts anything in silence,
and every part is one request to Telegram, so that nothing can be half sent: a file is a part of its own behind the message.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from pydantic import JsonValue

from codespar.channels.base import File, Part
from codespar.channels.telegram import limits
from codespar.channels.telegram.markup import Pen, Piece, clean, visible, web
from codespar.channels.text import as_file, preview, progress_line, utf8, utf16
from codespar.domain.messages import Action, Block, NormalizedResponse, Tone

_MARKS = {Tone.SUCCESS: "✅", Tone.FAILURE: "❌", Tone.WARNING: "⚠️", Tone.PROGRESS: "⏳", Tone.INFO: ""}
_MESSAGES = 4  # more than these, and the text goes into a file
_FILES = 5
_BLOCK = 3000  # UTF-16 units of a block that is shown whole
_BLOCKS = 6000  # of all of them together
_LINES = 60
_SHORT = 300  # characters of a title in a message whose whole is in a file
_WHOLE = "message.txt"
_ROW = 30  # characters on the buttons of one row
PLAIN, ASKING = "=", "?"  # the first sign behind a button: send the command; ask first


def render(response: NormalizedResponse, *, plain: bool = False) -> tuple[Part, ...]:
    """The response as messages that Telegram takes, whatever is in it. The buttons are under the last text; plain text has none."""
    pen = Pen(rich=not plain)
    keyboard, spoken = ([], list(response.actions)) if plain else _keyboard(response.actions)
    body, files = _body(pen, response)
    texts = _packed(_seen(pen, body + spoken_actions(pen, spoken)))
    if len(texts) > _MESSAGES or len(files) > _FILES:
        texts, files = [_beginning(pen, response, spoken)], _whole(response)
    last = len(texts) - 1
    parts = [_message(text, pen, keyboard if place == last else []) for place, text in enumerate(texts)]
    return (*parts, *(_document(file, pen) for file in files))


def callback_data(action: Action) -> str | None:
    """What stands behind the button of an action, or None when it does not fit: 64 bytes with its mark.

    What it asks stands behind the command, where there is room for it.
    """
    command = clean(action.command)
    if not visible(command) or command != action.command:
        return None
    if not action.asks:
        return data if utf8(data := PLAIN + command) <= limits.CALLBACK_DATA else None
    if "\n" in command:
        return None
    whole = f"{ASKING}{command}\n{clean(action.asks)}"
    data = whole if utf8(whole) <= limits.CALLBACK_DATA else ASKING + command
    return data if utf8(data) <= limits.CALLBACK_DATA else None


def spoken_actions(pen: Pen, actions: Iterable[Action]) -> list[Piece]:
    """Actions as text, for those that have no button."""
    pieces: list[Piece] = []
    for action in actions:
        asked = f" — {action.asks}" if action.asks else ""
        named = f" ({action.label}{asked})" if action.label or asked else ""
        whole = pen.words("Reply: ") + pen.code(action.command) + pen.words(named)
        if whole.length <= limits.PACKED_TEXT and visible(action.command):
            pieces.append(whole)
        else:
            pieces += pen.cut(f"Reply: {action.command}{named}", limits.PACKED_TEXT)
    return pieces


def _seen(pen: Pen, pieces: Iterable[Piece]) -> list[Piece]:
    """Those in which there is something to see; a message of nothing is refused."""
    return [piece for piece in pieces if visible(piece.read)] or [pen.words("—")]


def _body(pen: Pen, response: NormalizedResponse) -> tuple[list[Piece], list[File]]:
    limit = limits.PACKED_TEXT
    pieces = pen.cut(_title(response), limit, bold=True) + pen.cut(response.text, limit)
    for line in response.fields:
        whole = _field(pen, line.name, line.value)
        pieces += (
            [whole] if whole.length <= limit else [*pen.cut(line.name, limit), *pen.cut(line.value, limit)]
        )
    pieces += pen.cut(progress_line(response), limit)
    shown, files = _blocks(pen, response.blocks)
    pieces += shown
    for link in response.links:
        whole = pen.link(link.label, link.url)
        fits = whole.length <= limit
        pieces += [whole] if fits else pen.cut(f"{link.label}: {link.url}", limit)
    pieces += _asides(pen, response)
    return pieces, files


def _title(response: NormalizedResponse) -> str:
    """With the tone's marker, unless the title brings one of its own."""
    title, mark = clean(response.title), _MARKS[response.tone]
    marked = visible(title) and unicodedata.category(title.lstrip()[0]) == "So"  # an emoji or another sign
    return f"{mark} {title}" if mark and not marked else title


def _field(pen: Pen, name: str, value: str) -> Piece:
    return pen.bold(f"{name}:") + pen.words(f" {value}") if name else pen.words(value)


def _blocks(pen: Pen, blocks: Iterable[Block]) -> tuple[list[Piece], list[File]]:
    """Blocks in full, as long as they are short; the beginning of a long one, and the whole of it as a file."""
    pieces: list[Piece] = []
    files: list[File] = []
    used = 0
    for place, block in enumerate(blocks, 1):
        pieces += pen.cut(block.title, limits.PACKED_TEXT, bold=True)
        if not visible(block.text):
            continue
        length = utf16(block.text)
        if length <= _BLOCK and used + length <= _BLOCKS and block.text.count("\n") < _LINES:
            used += length
            whole = pen.pre(block.text, block.language)
            fits = whole.length <= limits.PACKED_TEXT
            pieces += [whole] if fits else pen.cut(block.text, limits.PACKED_TEXT)
            continue
        file = as_file(block, place)
        files.append(file)
        begins = preview(block.text)
        pieces += [pen.pre(begins, block.language)] if visible(begins) else []
        lines = block.text.count("\n") + 1
        pieces.append(pen.words(f"… {lines:,} {'line' if lines == 1 else 'lines'}, whole in {file.name}"))
    return pieces, files


def _asides(pen: Pen, response: NormalizedResponse) -> list[Piece]:
    """Questions too long for their buttons, attachments that are named only, and who speaks."""
    pieces: list[Piece] = []
    for action in response.actions:
        data = callback_data(action)
        if action.asks and data is not None and "\n" not in data:
            pieces += pen.cut(f"{action.label}: {action.asks}", limits.PACKED_TEXT)
    for file in response.attachments:
        pieces += pen.cut(f"📎 {file.name} ({file.size:,} bytes)", limits.PACKED_TEXT)
    if response.agent:
        signed = pen.italic(response.agent)
        pieces += (
            [signed] if signed.length <= limits.PACKED_TEXT else pen.cut(response.agent, limits.PACKED_TEXT)
        )
    return pieces


def _packed(pieces: Iterable[Piece]) -> list[Piece]:
    """Into as few messages as they fit into, in order, a line each."""
    messages: list[Piece] = []
    for piece in pieces:
        joined = messages[-1] + Piece("\n", "\n") + piece if messages else piece
        if messages and joined.length <= limits.PACKED_TEXT and joined.entities <= limits.PACKED_ENTITIES:
            messages[-1] = joined
        else:
            messages.append(piece)
    return messages


def _beginning(pen: Pen, response: NormalizedResponse, spoken: list[Action]) -> Piece:
    """One message with the beginning of everything; `_whole` is the rest of it."""
    more = f", and {len(spoken)} more things to reply" if spoken else ""
    pieces = pen.cut(_shortened(_title(response), _SHORT), limits.PACKED_TEXT, bold=True)
    pieces.append(pen.words(f"… all of it is in {_WHOLE}{more}"))
    if response.agent:
        pieces.append(pen.italic(_shortened(response.agent, 60)))
    links = [link for link in response.links if len(link.label) <= 100 and len(link.url) <= 500]
    pieces += [pen.link(link.label, link.url) for link in links[:5] if web(link.url)]
    pieces += pen.cut(_shortened(progress_line(response), _SHORT), limits.PACKED_TEXT)
    pieces += pen.cut(preview(clean(response.text)), limits.PACKED_TEXT)
    for line in response.fields[:8]:
        pieces.append(_field(pen, _shortened(line.name, 60), _shortened(line.value, 120)))
    return _packed(_seen(pen, pieces))[0]


def _whole(response: NormalizedResponse) -> list[File]:
    """Everything as one file, and the first long blocks as files of their own besides."""
    lines = [response.plain()]
    lines += [progress_line(response)] if response.progress else []
    lines += [f"{action.label}: {action.command} {action.asks}".rstrip() for action in response.actions]
    lines += [f"{file.name} ({file.size:,} bytes)" for file in response.attachments]
    lines += [response.agent] if response.agent else []
    whole = File(name=_WHOLE, content="\n".join(lines).encode("utf-8", "replace"))
    long = [
        as_file(block, place) for place, block in enumerate(response.blocks, 1) if utf16(block.text) > _BLOCK
    ]
    return [whole, *long[: _FILES - 1]]


def _shortened(text: str, limit: int) -> str:
    """The beginning of a text whose whole is elsewhere, and a sign that it is."""
    line = clean(text)
    return line if len(line) <= limit else line[: limit - 1] + "…"


Keyboard = list[list[dict[str, JsonValue]]]


def _keyboard(actions: Iterable[Action]) -> tuple[Keyboard, list[Action]]:
    """The buttons in rows, and the actions that did not fit, in order."""
    rows: Keyboard = []
    spoken: list[Action] = []
    width = count = size = 0
    for action in actions:
        data = callback_data(action)
        label = " ".join(clean(action.label).split())
        label = label if visible(label) else action.command
        grown = size + utf8(label) + utf8(data or "")
        if (
            data is None
            or len(label) > limits.LABEL
            or count == limits.BUTTONS
            or grown > limits.KEYBOARD_BYTES
        ):
            spoken.append(action)
            continue
        button: dict[str, JsonValue] = {"text": label, "callback_data": data}
        if action.style in ("primary", "danger"):  # Telegram's words are the same
            button["style"] = action.style
        if rows and width + len(label) <= _ROW and len(rows[-1]) < min(3, limits.ROW):
            rows[-1].append(button)
            width += len(label)
        else:
            rows.append([button])
            width = len(label)
        count, size = count + 1, grown
    return rows, spoken


def _message(text: Piece, pen: Pen, keyboard: Keyboard) -> Part:
    payload: dict[str, JsonValue] = {"text": text.sent, "link_preview_options": {"is_disabled": True}}
    if pen.rich:
        payload["parse_mode"] = "HTML"
    read = text.read
    if keyboard:
        payload["reply_markup"] = {"inline_keyboard": [list(row) for row in keyboard]}
        read += "\n" + " ".join(f"[{button['text']}]" for row in keyboard for button in row)
    return Part(payload=payload, text=read)


def _document(file: File, pen: Pen) -> Part:
    caption = pen.words(f"{file.name} · {len(file.content):,} bytes")
    payload: dict[str, JsonValue] = {"caption": caption.sent}
    if pen.rich:
        payload["parse_mode"] = "HTML"
    return Part(payload=payload, text=caption.read, files=(file,))
