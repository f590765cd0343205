"""Telegram's updates → `Heard`. Pure: it asks nobody, and remembers nothing but what `Sent` is told.

It hears people only: bots, channels, anonymous administrators, edits, joins and what a group says among itself give None.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from aiogram.types import CallbackQuery, InaccessibleMessage, Message, MessageEntity, Update, User

from codespar.channels.base import Heard, Offered
from codespar.channels.telegram.questions import Question, asked
from codespar.channels.telegram.render import ASKING, PLAIN

NAME = "telegram"
COMMAND = "codespar"  # /codespar deploy staging
Via = Literal["text", "button", "command", "form"]
_GROUPS = ("group", "supergroup")


@dataclass(frozen=True)
class Myself:
    """The bot, as getMe names it."""

    id: int
    username: str


class Sent(Protocol):
    """What is known of the messages we sent: in which conversation and thread each stands."""

    def where(self, chat: int, message: int) -> tuple[str, str | None] | None: ...


@dataclass(frozen=True)
class Pressed:
    """A button press: what it says, or what has to be asked first. Both None: it says nothing that we know."""

    id: str  # of the press, to answer it
    conversation: str
    thread_id: str | None
    message_id: str
    heard: Heard | None = None
    question: Question | None = None


def normalize(update: Update, me: Myself, sent: Sent, now: datetime) -> Heard | Pressed | None:
    """What a person did, or None when it is ignored on purpose. `now` is the time of a press: Telegram does not say it."""
    delivery = f"{me.id}:{update.update_id}"
    if update.message is not None:
        return _message(delivery, update.message, me, sent)
    if update.callback_query is not None:
        return _press(delivery, update.callback_query, me, sent, now)
    return None


def display_name(user: User) -> str:
    """As the person calls themselves: one line, at most 80 characters, no control characters. Data, never to be trusted."""
    seen = "".join(char for char in user.full_name if unicodedata.category(char) not in ("Cc", "Cf", "Cs"))
    return " ".join(seen.split())[:80] or user.username or str(user.id)


def conversation_of(message: Message) -> str:
    """`<chat>`, or `<chat>/<topic>` in a topic of a forum."""
    if message.is_topic_message and message.message_thread_id:
        return f"{message.chat.id}/{message.message_thread_id}"
    return str(message.chat.id)


def _message(delivery: str, message: Message, me: Myself, sent: Sent) -> Heard | None:
    author = message.from_user
    if author is None or author.is_bot or message.sender_chat is not None:
        return None
    if message.chat.type != "private" and message.chat.type not in _GROUPS:
        return None
    direct = message.chat.type == "private"
    answered = _answered(message)
    ours = answered is not None and answered.from_user is not None and answered.from_user.id == me.id
    words = _words(message, me, direct=direct)
    if words is None or not (direct or ours or words.addressed):
        return None
    offered = _offered(message)
    content: str = words.content
    via: Via = words.via
    if ours and answered is not None and (question := asked(answered, me.id)) and question[0] == author.id:
        if not content:
            return None
        content, via = f"{question[1]} {content}", "form"
    if not content and not offered and not words.addressed:
        return None  # a sticker, a place, somebody who joined
    known = sent.where(message.chat.id, answered.message_id) if ours and answered else None
    thread = None if direct else (known[1] if known else None) or str(message.message_id)
    return Heard(
        delivery=delivery,
        channel=NAME,
        conversation=conversation_of(message),
        thread_id=thread,
        message_id=str(message.message_id),
        sender=str(author.id),
        sender_name=display_name(author),
        content=content,
        direct=direct,
        addressed=True,
        via=via,
        offered=offered,
        reply_to=str(answered.message_id) if answered is not None else None,
        at=_at(message),
    )


def _press(delivery: str, press: CallbackQuery, me: Myself, sent: Sent, now: datetime) -> Pressed | None:
    message, author, data = press.message, press.from_user, press.data or ""
    if author.is_bot:
        return None
    if message is None:  # under a message sent by way of another chat: none of ours
        return Pressed(press.id, conversation="", thread_id=None, message_id="")
    conversation, thread = _place(message, sent)
    place = Pressed(press.id, conversation, thread, str(message.message_id))
    mark, command = data[:1], data[1:]
    if mark == ASKING and command:
        command, _, asks = command.partition("\n")
        question = Question(command, asks or _label(message, data), author.id, display_name(author))
        return Pressed(press.id, conversation, thread, place.message_id, question=question)
    if mark != PLAIN or not command.strip():
        return place
    heard = Heard(
        delivery=delivery,
        channel=NAME,
        conversation=conversation,
        thread_id=thread,
        message_id=place.message_id,
        sender=str(author.id),
        sender_name=display_name(author),
        content=command,
        direct=message.chat.type == "private",
        addressed=True,
        via="button",
        at=now,
    )
    return Pressed(press.id, conversation, thread, place.message_id, heard=heard)


def _place(message: Message | InaccessibleMessage, sent: Sent) -> tuple[str, str | None]:
    """The conversation and thread of a message of ours whose button was pressed. An announcement begins a thread of its own."""
    own = None if message.chat.type == "private" else str(message.message_id)
    if known := sent.where(message.chat.id, message.message_id):
        return known[0], known[1] or own
    if isinstance(message, InaccessibleMessage):
        return str(message.chat.id), own
    answered = _answered(message)
    if own and answered is not None:
        return conversation_of(message), str(answered.message_id)
    return conversation_of(message), own


def _label(message: Message | InaccessibleMessage, data: str) -> str:
    """What stands on the button that was pressed."""
    markup = message.reply_markup if isinstance(message, Message) else None
    rows = markup.inline_keyboard if markup else []
    return next((button.text for row in rows for button in row if button.callback_data == data), "")


def _answered(message: Message) -> Message | None:
    """The message this one answers. In a topic every message answers the one that opened it, which is no answer."""
    answered = message.reply_to_message
    return None if answered is None or answered.forum_topic_created is not None else answered


@dataclass(frozen=True)
class _Words:
    content: str  # mention and command stripped
    addressed: bool
    via: Via = "text"


def _words(message: Message, me: Myself, *, direct: bool) -> _Words | None:
    """What was written, or None when it is meant for another bot."""
    text = message.text or message.caption or ""
    entities = (message.entities if message.text else message.caption_entities) or []
    first = next((one for one in entities if one.type == "bot_command" and one.offset == 0), None)
    if first is not None:
        name, _, target = first.extract_from(text)[1:].partition("@")
        rest = _without(text, [first, *_mentions(text, entities, me)])
        if target and target.casefold() != me.username.casefold():
            return None
        mine = bool(target) or name.casefold() == COMMAND
        if (
            name.casefold() == "start"
        ):  # what Telegram sends when somebody opens the chat; what is behind it came out of a link
            return _Words("help", mine, "command")
        if name.casefold() == COMMAND:
            return _Words(rest, True, "command")
        if mine or direct:
            return _Words(f"{name} {rest}".strip(), mine, "command")
    mentions = _mentions(text, entities, me)
    return _Words(_without(text, mentions), bool(mentions))


def _mentions(text: str, entities: list[MessageEntity], me: Myself) -> list[MessageEntity]:
    name = f"@{me.username}".casefold()
    return [
        one
        for one in entities
        if (one.type == "mention" and one.extract_from(text).casefold() == name)
        or (one.type == "text_mention" and one.user is not None and one.user.id == me.id)
    ]


def _without(text: str, entities: list[MessageEntity]) -> str:
    """The text without these stretches. They are counted in UTF-16 units."""
    units = text.encode("utf-16-le", "surrogatepass")
    for one in sorted(entities, key=lambda entity: entity.offset, reverse=True):
        before, after = units[: one.offset * 2], units[(one.offset + one.length) * 2 :]
        blank = " ".encode("utf-16-le")
        if before.endswith(blank) and (after.startswith(blank) or not after):
            before = before[:-2]
        units = before + after
    return units.decode("utf-16-le", "replace").strip()


def _offered(message: Message) -> tuple[Offered, ...]:
    if message.photo:
        largest = max(message.photo, key=lambda size: size.width * size.height)
        return (
            Offered(
                name=f"photo-{largest.file_unique_id}.jpg",
                ref=largest.file_id,
                media_type="image/jpeg",
                size=largest.file_size,
            ),
        )
    for kind, ending in (
        ("document", ""),
        ("audio", ".mp3"),
        ("voice", ".ogg"),
        ("video", ".mp4"),
        ("video_note", ".mp4"),
    ):
        file = getattr(message, kind)
        if file is not None:
            name = getattr(file, "file_name", None) or f"{kind}-{file.file_unique_id}{ending}"
            media_type = getattr(file, "mime_type", None) or ""
            return (
                Offered(name=_file_name(name), ref=file.file_id, media_type=media_type, size=file.file_size),
            )
    return ()


def _file_name(name: str) -> str:
    """A name of one part, without control characters: it was chosen by whoever sent the file."""
    seen = "".join(char for char in name if unicodedata.category(char) not in ("Cc", "Cf", "Cs"))
    return seen.replace("/", "_").replace("\\", "_").strip(". ")[-120:] or "file"


def _at(message: Message) -> datetime:
    return message.date.astimezone(UTC)
