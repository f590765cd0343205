"""A response as messages of WhatsApp: text, reply buttons or a list, documents.

Pure. WhatsApp formats `*bold*`, `_italic_`, `~struck~`, code and lists in any text and has no escape character. A marker opens only at the
start of a line, behind a space, or behind another marker. So a word joiner (U+2060, invisible, no space) goes in front of each sign that
could be one; `unescape` takes them out again. It must never let people's text become formatting, and never drop a visible character.

One `Part` is one message of the platform. Its payload holds `message` (the message without its recipient), `brief` (what a template says
when the free-form window is closed; empty for a continuation) and `progress` (whether it is worth less than others when room runs out).
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence

from pydantic import JsonValue

from codespar.channels.base import File, Part
from codespar.channels.text import as_file, packed, preview, progress_line, split, utf8, utf16
from codespar.channels.whatsapp import limits
from codespar.domain.messages import Action, Block, NormalizedResponse, Tone

JOINER = "\u2060"  # the word joiner: our escape, so no text of people's may keep one
_KEPT = frozenset(
    "\u200c\u200d\u200e\u200f\u061c"
)  # joiners of scripts and emoji, and the direction marks that end by themselves
_TAGS = re.compile("[\U000e0020-\U000e007f]")  # of flag emoji
_MARKERS = "*_~`"
_LINE_START = re.compile(r"^([ \t]*)(?=[>\-+•]|\d{1,9}[.)])", re.MULTILINE)
_MENTION = re.compile(r"@(?=\d)")
_WEB = re.compile(r"https?://[^\s<>\"`]+", re.IGNORECASE)
_STYLED_URL = re.compile(r"[>*_~][*_~]")
_MARKS = {Tone.SUCCESS: "✅ ", Tone.FAILURE: "❌ ", Tone.WARNING: "⚠️ ", Tone.PROGRESS: "⏳ "}
_FENCE = "```"
INLINE_BLOCK = 1500  # UTF-16 units of a block that is shown in the text; a longer one is a document
_BRIEF = 500
_UNUSUAL = re.compile(r"[^\n\t\x20-\x7e]")  # what is worth a look; most texts have little of it


def clean(text: str) -> str:
    """The text without what is invisible and could mislead or be refused: controls, lone surrogates, direction overrides, our escape."""
    unified = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return _UNUSUAL.sub(_kept, unified)


def _kept(found: re.Match[str]) -> str:
    char = found[0]
    harmless = (
        char in _KEPT or unicodedata.category(char) not in ("Cc", "Cf", "Cs") or _TAGS.match(char) is not None
    )
    return char if harmless else ""


def visible(text: str) -> bool:
    """Whether there is anything to see: the platform refuses a body that is blank."""
    return any(not char.isspace() and unicodedata.category(char) not in ("Cf", "Mn", "Zs") for char in text)


def escape(text: str) -> str:
    """Clean text of people or models in which nothing is formatted: `unescape` of it is `clean(text)`."""
    cleaned = clean(text)
    pieces: list[str] = []
    for place, char in enumerate(cleaned):
        if char in _MARKERS:
            before = cleaned[place - 1] if place else " "
            after = cleaned[place + 1] if place + 1 < len(cleaned) else " "
            if not (_plain(before) and _plain(after)):  # inside a word nothing opens or closes
                pieces.append(JOINER)
        pieces.append(char)
    joined = _LINE_START.sub(lambda found: found.group(1) + JOINER, "".join(pieces))
    return _MENTION.sub("@" + JOINER, joined)


def unescape(text: str) -> str:
    """Without the word joiners that `escape` put in."""
    return text.replace(JOINER, "")


def _plain(char: str) -> bool:
    return char.isascii() and char.isalnum()


def _one_line(text: str) -> str:
    return " ".join(clean(text).split())


def _bold(text: str) -> str:
    """As a heading. Bold ends at the first star, and does not go over a line's end."""
    escaped = escape(text)
    line = clean(text)
    if "*" in line or "\n" in line or not visible(line) or line != line.strip() or utf16(escaped) > 1000:
        return escaped
    return f"*{escaped}*"


def _code(text: str) -> str:
    """As code on a line, so that a person can copy it as it is."""
    line = clean(text)
    if "`" in line or "\n" in line or not line.strip() or utf16(line) > 1000:
        return escape(text)
    return f"`{line}`"


def _fenced(text: str) -> str:
    """As preformatted text. A run of backticks cannot end it."""
    inside = clean(text).replace("``", f"`{JOINER}`").replace("``", f"`{JOINER}`")
    return f"{_FENCE}\n{inside}\n{_FENCE}"


def _link(label: str, url: str) -> str:
    """WhatsApp has no masked links: the address is always seen. Only http and https addresses are left as they are."""
    address = clean(url)
    shown = address if _WEB.fullmatch(address) and not _STYLED_URL.search(address) else escape(url)
    return f"{escape(label)}: {shown}" if visible(clean(label)) else shown


def reply_hint(action: Action) -> str:
    """An action as text: what to type instead of pressing."""
    label = escape(action.label) if visible(clean(action.label)) else ""
    command = f"Reply: {_code(action.command)}" if visible(clean(action.command)) else ""
    return " · ".join(piece for piece in (label, command) if piece)


def render(response: NormalizedResponse, *, plain: bool = False) -> tuple[Part, ...]:
    """The response as messages: what is to be read, then the documents, then what is to be pressed."""
    lines, documents = _lines(response, with_documents=not plain)
    pressable, typed = _pressable(() if plain else response.actions, response.actions)
    lines += [hint for hint in (reply_hint(action) for action in typed) if hint]
    footer = _one_line(response.agent or "")
    signature = [f"— {escape(footer)}"] if visible(footer) else []
    alone = "\n".join([*lines, *(signature if utf16(footer) > limits.FOOTER else [])])
    messages: list[dict[str, JsonValue]] = []
    if pressable and not documents and visible(alone) and utf16(alone) <= limits.INTERACTIVE_BODY:
        messages.append(_interactive(alone, pressable, footer))
        return _parts(messages, (), response)
    texts = [piece for piece in _texts([*lines, *signature]) if visible(piece)]
    messages += [_text(piece) for piece in texts]
    bodies: list[dict[str, JsonValue]] = []
    if pressable:
        short = preview(_one_line(response.title), 1, 200)
        bodies = [_interactive(_bold(short) if visible(short) else "…", pressable, footer)]
    if not (messages or documents or bodies):
        messages.append(_text("…"))
    return _parts(messages, documents, response, bodies)


def _lines(response: NormalizedResponse, *, with_documents: bool) -> tuple[list[str], list[tuple[File, str]]]:
    """The paragraphs of the text, and the documents with their captions."""
    title = clean(response.title)
    mark = _MARKS.get(response.tone, "") if title[:1].isalnum() else ""
    lines = [_bold(f"{mark}{title}" if mark else title)]
    lines.append(escape(response.text))
    lines += [
        f"{escape(line.name)}: {escape(line.value)}" if line.name else escape(line.value)
        for line in response.fields
    ]
    lines.append(escape(progress_line(response)))
    documents: list[tuple[File, str]] = []
    for place, block in enumerate(response.blocks, start=1):
        if with_documents and utf16(block.text) > INLINE_BLOCK and visible(clean(block.text)):
            documents.append(_document(block, place, lines))
            continue
        lines.append(_bold(block.title))
        if visible(clean(block.text)):
            fenced = _fenced(block.text)
            lines += [fenced] if utf16(fenced) <= limits.TEXT_BODY else _fences(block.text)
    lines += [_link(link.label, link.url) for link in response.links]
    lines += [f"📎 {escape(file.name)} ({file.size} bytes)" for file in response.attachments]
    return [line for line in lines if visible(line)], documents


def _fences(text: str) -> list[str]:
    """A long block as several, each whole by itself."""
    room = (limits.TEXT_BODY - 16) // 2  # every sign of a run of backticks may take an escape
    return [_fenced(piece) for piece in split(clean(text), room, utf16) if visible(piece)]


def _document(block: Block, place: int, lines: list[str]) -> tuple[File, str]:
    """A long block as a file: its title and beginning are its caption. A title that is too long stands in the text."""
    file = as_file(block, place)
    title = _bold(block.title)
    if utf16(title) > limits.CAPTION // 2:
        lines.append(title)
        title = ""
    lines.append(f"📎 {escape(file.name)}")
    shown = _fenced(preview(clean(block.text), 8, 200))
    head = f"{title}\n" if visible(title) else ""
    return file, (head + shown if utf16(head + shown) <= limits.CAPTION else title or file.name)


def _texts(lines: Sequence[str]) -> list[str]:
    """The paragraphs in as few messages as hold them. A fence is never cut."""
    pieces: list[str] = []
    for fenced, grouped in itertools.groupby(lines, key=lambda line: line.startswith(_FENCE)):
        group = list(grouped)
        pieces += group if fenced else _split_escaped("\n".join(group))
    return packed(pieces, limits.TEXT_BODY, utf16)


def _split_escaped(text: str) -> list[str]:
    """Cut so that no piece starts with a marker whose escape stayed behind."""
    if utf16(text) <= limits.TEXT_BODY:
        return [text]
    pieces: list[str] = []
    for piece in split(text, limits.TEXT_BODY - 1, utf16):
        armed = piece[:1] in (*_MARKERS, ">", "-", "+", "•") or re.match(r"\d{1,9}[.)]", piece)
        pieces.append(JOINER + piece if armed else piece)
    return pieces


def _pressable(
    candidates: Sequence[Action], all_actions: Sequence[Action]
) -> tuple[list[Action], list[Action]]:
    """Which actions go behind buttons or rows, and which are text because the platform would not hold or tell them apart."""
    chosen: list[Action] = []
    titles: set[str] = set()
    commands: set[str] = set()
    for action in candidates:
        label, command = _one_line(action.label), action.command
        fits = (
            visible(label)
            and command == command.strip() == clean(command)
            and visible(command)
            and utf8(command) <= limits.ROW_ID
            and utf16(label) <= limits.ROW_DESCRIPTION
            and _row_title(label) not in titles
            and command not in commands
        )
        if fits and len(chosen) < limits.LIST_ROWS:
            chosen.append(action)
            titles.add(_row_title(label))
            commands.add(command)
    return chosen, [action for action in all_actions if not any(action is taken for taken in chosen)]


def _row_title(label: str) -> str:
    if utf16(label) <= limits.ROW_TITLE:
        return label
    return split(label, limits.ROW_TITLE - 1, utf16)[0].rstrip() + "…"


def _text(body: str) -> dict[str, JsonValue]:
    return {"type": "text", "text": {"body": body, "preview_url": False}}


def _interactive(body: str, actions: Sequence[Action], footer: str) -> dict[str, JsonValue]:
    """Up to three short labels are buttons; more, or longer ones, are a list."""
    labels = [_one_line(action.label) for action in actions]
    interactive: dict[str, JsonValue] = {"body": {"text": body}}
    if visible(footer) and utf16(footer) <= limits.FOOTER:
        interactive["footer"] = {"text": footer}
    if len(actions) <= limits.BUTTONS and all(utf16(label) <= limits.BUTTON_TITLE for label in labels):
        buttons: list[JsonValue] = [
            {"type": "reply", "reply": {"id": action.command, "title": label}}
            for action, label in zip(actions, labels, strict=True)
        ]
        interactive |= {"type": "button", "action": {"buttons": buttons}}
        return {"type": "interactive", "interactive": interactive}
    rows: list[JsonValue] = []
    for action, label in zip(actions, labels, strict=True):
        row: dict[str, JsonValue] = {"id": action.command, "title": _row_title(label)}
        if row["title"] != label:
            row["description"] = label
        rows.append(row)
    sections: list[JsonValue] = [{"title": "Actions", "rows": rows}]
    interactive |= {"type": "list", "action": {"button": "Choose", "sections": sections}}
    return {"type": "interactive", "interactive": interactive}


def _parts(
    texts: Iterable[dict[str, JsonValue]],
    documents: Iterable[tuple[File, str]],
    response: NormalizedResponse,
    last: Iterable[dict[str, JsonValue]] = (),
) -> tuple[Part, ...]:
    brief = _brief(response)
    progress = response.tone is Tone.PROGRESS
    parts: list[Part] = []

    def add(message: dict[str, JsonValue], text: str, *files: File) -> None:
        payload: dict[str, JsonValue] = {
            "message": message,
            "brief": "" if parts else brief,
            "progress": progress,
        }
        parts.append(Part(payload=payload, text=text, files=files))

    for message in texts:
        add(message, shown(message))
    for file, caption in documents:
        message: dict[str, JsonValue] = {
            "type": "document",
            "document": {"filename": file.name, "caption": caption},
        }
        add(message, shown(message), file)
    for message in last:
        add(message, shown(message))
    return tuple(parts)


def _brief(response: NormalizedResponse) -> str:
    """Title and text on one line, short, with nothing that a template's parameter may not hold. The whole waits for the person."""
    whole = " ".join(f"{response.title} {response.text}".split())
    line = " ".join(escape(whole).split())
    short = split(line, _BRIEF - 1, utf16)[0].rstrip() + "…" if utf16(line) > _BRIEF else line
    return short if visible(short) else "…"


def shown(message: dict[str, JsonValue]) -> str:
    """What a message says, as one text; for logs, and for a person whose client shows nothing else."""
    match message:
        case {"text": {"body": str(body)}}:
            return unescape(body)
        case {"document": {"caption": str(caption)}}:
            return unescape(caption)
        case {"interactive": {"body": {"text": str(body)}, **rest}}:
            hints = [f"{label}: {command}" for label, command in _choices(rest)]
            return "\n".join([unescape(body), *hints])
        case _:
            return ""


def _choices(interactive: dict[str, JsonValue]) -> list[tuple[str, str]]:
    match interactive.get("action"):
        case {"buttons": list(buttons)}:
            return [
                (str(reply["title"]), str(reply["id"]))
                for button in buttons
                if isinstance(button, dict) and isinstance(reply := button["reply"], dict)
            ]
        case {"sections": [{"rows": list(rows)}]}:
            return [
                (str(row.get("description", row["title"])), str(row["id"]))
                for row in rows
                if isinstance(row, dict)
            ]
        case _:
            return []
