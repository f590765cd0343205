"""A response as Discord messages: a card (embeds, buttons, files), or text alone. Pure, and nothing is cut in silence.

A card is a row of embeds: the head with title, text, links and fields, then one for each block, then what found no button. They are packed
into as few messages as Discord's limits allow; the buttons stand on the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from codespar.channels.base import File, Part
from codespar.channels.discord import limits
from codespar.channels.discord.markup import (
    blank,
    breaks_fence,
    clean,
    code,
    escape,
    escaped_length,
    fence,
    inside_fence,
    link,
)
from codespar.channels.text import as_file, packed, preview, progress_line, split, utf16
from codespar.domain.messages import Action, Block, FieldLine, NormalizedResponse, Tone

_COLOURS = {
    Tone.INFO: 0x5865F2,
    Tone.PROGRESS: 0x3498DB,
    Tone.SUCCESS: 0x57F287,
    Tone.WARNING: 0xFEE75C,
    Tone.FAILURE: 0xED4245,
}
_STYLES = {"primary": 1, "danger": 4}
_SUPPRESS_EMBEDS = 1 << 2
_PIECE = 3900  # of a description
_TEXT_PIECE = 1900  # of a message of text alone
_SHORT_BLOCK = 1900  # what is longer, or has more lines, is folded into a file
_SHORT_LINES = 40
_NOTHING = "(no text)"
_ASKS = "ask|"  # a button whose command waits for an answer: ask|question|command


@dataclass(frozen=True)
class _Piece:
    """One embed, or in text alone one paragraph, with the files that belong to it and the words people read in it."""

    said: str
    embed: dict[str, Any]
    files: tuple[File, ...] = ()

    @property
    def weight(self) -> int:
        return _weight(self.embed)


def render(response: NormalizedResponse, *, plain: bool = False) -> tuple[Part, ...]:
    """The response as one or more messages, all within Discord's limits whatever is in it."""
    response = _cleaned(response)
    return _as_text(response) if plain else _as_card(response)


# buttons


def custom_id(action: Action) -> str | None:
    """What stands behind the button, or None where Discord cannot hold the command."""
    command = action.command
    if blank(command) or command != command.strip() or utf16(command) > limits.CUSTOM_ID:
        return None
    if not action.asks:
        return None if command.startswith(_ASKS) else command
    question = "" if "|" in action.asks else action.asks
    whole = f"{_ASKS}{question}|{command}"
    if utf16(whole) > limits.CUSTOM_ID:
        whole = f"{_ASKS}|{command}"
    return whole if utf16(whole) <= limits.CUSTOM_ID else None


def asked(behind: str) -> tuple[str, str] | None:
    """The question and the command of a button that asks something first; None for any other."""
    if not behind.startswith(_ASKS):
        return None
    question, _, command = behind.removeprefix(_ASKS).partition("|")
    return question, command


def form(question: str, command: str, label: str) -> dict[str, Any]:
    """The modal that asks for a line of text before the command is sent."""
    question = " ".join((label if blank(question) else question).split()) or "Your answer"
    entry: dict[str, Any] = {
        "type": 4,
        "custom_id": "answer",
        "style": 2,
        "label": split(question, limits.INPUT_LABEL, utf16)[0],
        "min_length": 1,
        "max_length": limits.ANSWER,
        "required": True,
    }
    if entry["label"] != question:
        entry["placeholder"] = split(question, limits.INPUT_PLACEHOLDER, utf16)[0]
    title = "Answer" if blank(label) or utf16(label) > limits.MODAL_TITLE else label
    return {
        "custom_id": command,
        "title": title,
        "components": [{"type": 1, "components": [entry]}],
    }


def _buttons(actions: Iterable[Action]) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of buttons, and a line of text for each action that cannot be one (or whose question does not fit behind it)."""
    buttons: list[dict[str, Any]] = []
    lines: list[str] = []
    behind: set[str] = set()
    for action in actions:
        label = action.command if blank(action.label) else action.label.strip()
        held = custom_id(action)
        if len(buttons) == limits.BUTTONS or held is None or held in behind or utf16(label) > limits.LABEL:
            lines.append(_as_reply(action))
            continue
        behind.add(held)
        buttons.append({"type": 2, "style": _STYLES.get(action.style, 2), "label": label, "custom_id": held})
        if not blank(action.asks) and action.asks not in held:
            lines.append(f"{escape(label)}: {escape(action.asks)}")
    rows = [buttons[at : at + limits.ROW_BUTTONS] for at in range(0, len(buttons), limits.ROW_BUTTONS)]
    return [{"type": 1, "components": row} for row in rows], lines


def _as_reply(action: Action) -> str:
    label = "" if blank(action.label) or action.label == action.command else f"{escape(action.label)} · "
    asks = f" ({escape(action.asks)})" if action.asks else ""
    return f"{label}Reply: {code(action.command)}{asks}"


# a card


def _as_card(response: NormalizedResponse) -> tuple[Part, ...]:
    rows, lines = _buttons(response.actions)
    pieces = _head(response)
    for place, block in enumerate(response.blocks, 1):
        pieces += _block(block, place)
    pieces += [_paragraph(text) for text in packed(_fitting(lines), _PIECE, utf16)]
    if not pieces:
        pieces = [_paragraph(_NOTHING)]
    colour = _COLOURS[response.tone]
    messages = list(_packed([replace(piece, embed=piece.embed | {"color": colour}) for piece in pieces]))
    return tuple(
        _part(
            [piece.embed for piece in message],
            rows if number == len(messages) else [],
            "\n".join(piece.said for piece in message if piece.said),
            tuple(file for piece in message for file in piece.files),
        )
        for number, message in enumerate(messages, 1)
    )


def _head(response: NormalizedResponse) -> list[_Piece]:
    """Title, text, links, fields and footer: one embed where they fit."""
    embed: dict[str, Any] = {}
    said: list[str] = []
    paragraphs: list[str] = []
    if not blank(response.title):
        if escaped_length(response.title) <= limits.EMBED_TITLE:
            embed["title"] = escape(response.title)
            said.append(response.title)
        else:
            paragraphs += _escaped(response.title)
    paragraphs += _escaped(response.text)
    lines, groups = _fields(response.fields)
    paragraphs += lines
    paragraphs += _fitting(link(one.label, one.url) for one in response.links)
    paragraphs += _fitting(f"📎 {escape(one.name)} ({one.size:,} bytes)" for one in response.attachments)
    footer = " · ".join(word for word in (response.agent or "", progress_line(response)) if not blank(word))
    if utf16(footer) > limits.FOOTER // 4:
        paragraphs += _escaped(footer)
        footer = ""
    descriptions = packed(paragraphs, _PIECE, utf16)
    if descriptions:
        embed["description"] = descriptions[0]
        said.append(_read(descriptions[0]))
    pieces = [_Piece("\n".join(said), embed)] if embed else []
    pieces += [_paragraph(text) for text in descriptions[1:]]
    for group in groups:
        pieces = _joined(pieces, _Piece("\n".join(_facts(group)), {"fields": group}))
    if footer:
        pieces = _joined(pieces, _Piece(footer, {"footer": {"text": footer}}))
    return pieces


def _joined(pieces: list[_Piece], more: _Piece) -> list[_Piece]:
    """`more` in the last embed where it has room and none of the same parts, else in one of its own."""
    if (
        not pieces
        or pieces[-1].embed.keys() & more.embed.keys()
        or pieces[-1].weight + more.weight > limits.EMBED_TOTAL
    ):
        if "footer" in more.embed:  # Discord wants more than a footer in an embed
            return [*pieces, _paragraph(escape(more.said))]
        return [*pieces, more]
    last = pieces[-1]
    said = f"{last.said}\n{more.said}" if last.said else more.said
    return [*pieces[:-1], _Piece(said, last.embed | more.embed, last.files)]


def _fields(lines: Iterable[FieldLine]) -> tuple[list[str], list[list[dict[str, Any]]]]:
    """Facts as groups of embed fields; those too long for one as paragraphs."""
    paragraphs: list[str] = []
    groups: list[list[dict[str, Any]]] = []
    total = 0
    for line in lines:
        name, value = escape(line.name), escape(line.value)
        if blank(name) and blank(value):
            continue
        if blank(name) or utf16(name) > limits.FIELD_NAME or utf16(value) > limits.FIELD_VALUE:
            paragraphs += _escaped(line.value if blank(name) else f"{line.name}: {line.value}")
            continue
        shown = "–" if blank(value) else value
        weight = utf16(name) + utf16(shown)
        if not groups or len(groups[-1]) == limits.EMBED_FIELDS or total + weight > limits.EMBED_TOTAL - 600:
            groups.append([])
            total = 0
        total += weight
        groups[-1].append({"name": name, "value": shown, "inline": utf16(shown) <= 40})
    return paragraphs, groups


def _facts(group: Iterable[dict[str, Any]]) -> Iterator[str]:
    return (f"{_read(one['name'])}: {_read(one['value'])}" for one in group)


def _block(block: Block, place: int) -> list[_Piece]:
    """A block in a code fence; a long one, or one that holds a fence itself, as a file with its beginning shown."""
    embed: dict[str, Any] = {}
    said: list[str] = []
    paragraphs: list[str] = []
    if not blank(block.title):
        said.append(block.title)
        if escaped_length(block.title) <= limits.EMBED_TITLE:
            embed["title"] = escape(block.title)
        else:
            paragraphs += _escaped(block.title)
    shown, files = _folded(block, place)
    paragraphs += shown
    if not paragraphs and not embed:
        return []
    descriptions = packed(paragraphs, _PIECE, utf16)
    if not blank(block.text):
        said.append(block.text if not files else _readable_preview(block, files))
    first = embed | ({"description": descriptions[0]} if descriptions else {})
    pieces = [_Piece("\n".join(said), first, files[:1])]
    pieces += [_Piece("", {"description": text}) for text in descriptions[1:]]
    return pieces + [
        _Piece(file.name, {"description": f"{code(file.name)} goes on from the file before"}, (file,))
        for file in files[1:]
    ]


def _folded(block: Block, place: int) -> tuple[list[str], tuple[File, ...]]:
    if blank(block.text):
        return [], ()
    if (
        len(block.text) <= _SHORT_BLOCK
        and block.text.count("\n") < _SHORT_LINES
        and not breaks_fence(block.text)
    ):
        whole = fence(clean(block.text), block.language)
        if utf16(whole) <= limits.CONTENT:
            return [whole], ()
    files = tuple(_in_files(as_file(block, place)))
    begin = clean(preview(block.text))
    shown = [] if blank(begin) else [fence(begin, block.language)]
    return [*shown, f"All of it: {code(files[0].name)}"], files


def _readable_preview(block: Block, files: tuple[File, ...]) -> str:
    return f"{clean(preview(block.text))}\n(all of it: {files[0].name})"


def _in_files(file: File) -> Iterator[File]:
    """The file, or where it is larger than Discord takes, its pieces, cut at ends of lines where there are any."""
    content, number = file.content, 1
    stem, _, ending = file.name.rpartition(".")
    while len(content) > limits.FILE_BYTES:
        cut = content.rfind(b"\n", limits.FILE_BYTES // 2, limits.FILE_BYTES) + 1 or limits.FILE_BYTES
        while content[cut] & 0xC0 == 0x80:  # not within a character
            cut -= 1
        yield File(name=f"{stem}-part{number}.{ending}", media_type=file.media_type, content=content[:cut])
        content, number = content[cut:], number + 1
    name = file.name if number == 1 else f"{stem}-part{number}.{ending}"
    yield File(name=name, media_type=file.media_type, content=content)


def _packed(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Embeds, in order, in as few messages as they fit into."""
    message: list[_Piece] = []
    for piece in pieces:
        together = [*message, piece]
        files = [file for one in together for file in one.files]
        if message and (
            len(together) > limits.EMBEDS
            or sum(one.weight for one in together) > limits.EMBED_TOTAL
            or len(files) > limits.FILES
            or sum(len(file.content) for file in files) > limits.FILE_BYTES
        ):
            yield message
            together = [piece]
        message = together
    if message:
        yield message


def _weight(embed: dict[str, Any]) -> int:
    fields = sum(utf16(one["name"]) + utf16(one["value"]) for one in embed.get("fields", ()))
    footer = utf16(embed["footer"]["text"]) if "footer" in embed else 0
    return utf16(embed.get("title", "")) + utf16(embed.get("description", "")) + fields + footer


# text alone


def _as_text(response: NormalizedResponse) -> tuple[Part, ...]:
    paragraphs = [*_escaped(response.title, _TEXT_PIECE), *_escaped(response.text, _TEXT_PIECE)]
    for line in response.fields:
        paragraphs += _escaped(f"{line.name}: {line.value}" if line.name else line.value, _TEXT_PIECE)
    footer = " · ".join(word for word in (response.agent or "", progress_line(response)) if not blank(word))
    paragraphs += _escaped(footer, _TEXT_PIECE)
    files: list[File] = []
    for place, block in enumerate(response.blocks, 1):
        paragraphs += _escaped(block.title, _TEXT_PIECE)
        shown, folded = _folded(block, place)
        paragraphs += [text for one in shown for text in _short_enough(one, block)]
        files += folded
    paragraphs += _fitting((link(one.label, one.url) for one in response.links), _TEXT_PIECE)
    paragraphs += _fitting(
        (f"📎 {escape(one.name)} ({one.size:,} bytes)" for one in response.attachments), _TEXT_PIECE
    )
    paragraphs += _fitting((_as_reply(action) for action in response.actions), _TEXT_PIECE)
    texts = packed(paragraphs, limits.CONTENT, utf16) or [_NOTHING]
    parts = [_text_part(text) for text in texts]
    carried = list(_packed(_Piece(file.name, {}, (file,)) for file in files))
    for number, message in enumerate(carried):
        sent = tuple(file for piece in message for file in piece.files)
        if number == 0:
            parts[-1] = parts[-1].evolve(files=sent)
        else:
            parts.append(_text_part(code(sent[0].name)).evolve(files=sent))
    return tuple(parts)


def _short_enough(shown: str, block: Block) -> list[str]:
    """A fence that a message holds: the beginning of a block may be more than that when it is all wide signs."""
    if utf16(shown) <= limits.CONTENT:
        return [shown]
    begin = split(inside_fence(clean(preview(block.text))), _TEXT_PIECE, utf16)
    return [fence(piece, block.language) for piece in begin]


# what both are made of


def _escaped(text: str, size: int = _PIECE) -> list[str]:
    """The text, escaped, in pieces of at most `size`."""
    if blank(text):
        return []

    def measure(
        piece: str,
    ) -> int:  # escaping only adds, so what is too long as it is need not be escaped to know
        return len(piece) if len(piece) > size else escaped_length(piece)

    return [escape(piece) for piece in split(text, size, measure) if not blank(piece)]


def _fitting(lines: Iterable[str], size: int = _PIECE) -> list[str]:
    """Lines of markup; one that is too long for a piece of its own goes out as its text."""
    fitting: list[str] = []
    for line in lines:
        fitting += [line] if utf16(line) <= size else _escaped(_read(line), size)
    return fitting


def _read(text: str) -> str:
    r"""What people read: `\*` is `*`."""
    read: list[str] = []
    signs = iter(text)
    for sign in signs:
        if sign == "\\":
            following = next(signs, "")
            read.append(following if following and not following.isalnum() else sign + following)
        else:
            read.append(sign)
    return "".join(read)


def _paragraph(text: str) -> _Piece:
    return _Piece(_read(text), {"description": text})


def _part(
    embeds: list[dict[str, Any]], rows: list[dict[str, Any]], said: str, files: tuple[File, ...]
) -> Part:
    return Part(payload=_payload("", embeds, rows, 0), text=said, files=files)


def _text_part(text: str) -> Part:
    return Part(payload=_payload(text, [], [], _SUPPRESS_EMBEDS), text=_read(text))


def _payload(content: str, embeds: list[Any], rows: list[Any], flags: int) -> dict[str, Any]:
    return {
        "content": content,
        "embeds": embeds,
        "components": rows,
        "flags": flags,
        "allowed_mentions": {"parse": [], "replied_user": False},
    }


def _cleaned(response: NormalizedResponse) -> NormalizedResponse:
    """Every string without what may not be in a message; blocks' texts stay as they are, for their files."""
    return response.model_copy(
        update={
            "title": " ".join(clean(response.title).split("\n")),
            "text": clean(response.text),
            "agent": clean(response.agent) if response.agent else None,
            "fields": tuple(
                FieldLine(name=clean(one.name), value=clean(one.value)) for one in response.fields
            ),
            "blocks": tuple(
                one.model_copy(update={"title": clean(one.title), "language": clean(one.language)})
                for one in response.blocks
            ),
            "links": tuple(
                one.model_copy(update={"label": clean(one.label), "url": clean(one.url)})
                for one in response.links
            ),
            "progress": response.progress.model_copy(update={"phase": clean(response.progress.phase)})
            if response.progress
            else None,
            "actions": tuple(
                one.model_copy(
                    update={
                        "label": clean(one.label),
                        "command": clean(one.command),
                        "asks": clean(one.asks),
                    }
                )
                for one in response.actions
            ),
            "attachments": tuple(
                one.model_copy(update={"name": clean(one.name)}) for one in response.attachments
            ),
        }
    )
