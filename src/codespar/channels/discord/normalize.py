"""What Discord's gateway brings as `Heard`, or None where it is ignored on purpose. Pure: reads the library's objects, asks nobody.

Never takes anybody's word for who they are: ids are Discord's, names are data. Bots, webhooks, system messages and what is not for us give None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import discord

from codespar.channels.base import Heard, Offered
from codespar.channels.discord.markup import name

_SPOKEN = (discord.MessageType.default, discord.MessageType.reply)


@dataclass(frozen=True)
class Place:
    """Where something was said: the channel, the thread in it, or a direct conversation."""

    channel: int
    thread: int | None = None
    direct: bool = False


@dataclass(frozen=True)
class Ourselves:
    """How people address the bot: by its user, or by the role Discord made for it (which looks the same when it is typed)."""

    user: int
    roles: frozenset[int] = frozenset()

    def mention(self) -> re.Pattern[str]:
        roles = "|".join(str(role) for role in sorted(self.roles))
        return re.compile(rf"<@!?{self.user}>" + (rf"|<@&(?:{roles})>" if roles else ""))


def place_of(channel: Any, channel_id: int, guild_id: int | None) -> Place | None:
    """The place of a channel as the library knows it; None where it does not know the channel and has to ask Discord."""
    if guild_id is None:
        return Place(channel_id, direct=True)
    if isinstance(channel, discord.Thread):
        return Place(channel.parent_id, channel.id)
    if isinstance(channel, discord.abc.GuildChannel):
        return Place(channel.id)
    return None


def from_message(message: discord.Message, place: Place, us: Ourselves) -> Heard | None:
    """A message that is for us: a direct one, one that mentions us, or a reply to one of ours."""
    author = message.author
    if author.bot or author.id == us.user or message.webhook_id is not None or message.type not in _SPOKEN:
        return None
    reference = message.reference
    reply_to = (
        str(reference.message_id)
        if reference is not None
        and reference.message_id is not None
        and reference.type == discord.MessageReferenceType.reply
        else None
    )
    mention = us.mention()
    answered = reference.resolved if reference is not None and reply_to is not None else None
    ours = isinstance(answered, discord.Message) and answered.author.id == us.user
    addressed = place.direct or ours or mention.search(message.content) is not None
    if not addressed:
        return None
    offered = [_offered(one) for one in message.attachments]
    content = mention.sub("", message.content).strip()
    for forwarded in message.message_snapshots:
        content = f"{content}\n{forwarded.content}".strip()
        offered += [_offered(one) for one in forwarded.attachments]
    if place.direct and not content and not offered:
        return None  # a sticker, a poll: nothing to act on
    thread = place.thread if place.thread is not None or place.direct else message.id
    return Heard(
        delivery=f"discord:message:{message.id}",
        channel="discord",
        conversation=str(place.channel),
        thread_id=None if thread is None else str(thread),
        message_id=str(message.id),
        sender=str(author.id),
        sender_name=_shown(author),
        content=content,
        direct=place.direct,
        addressed=True,
        offered=tuple(offered),
        reply_to=reply_to,
        at=message.created_at,
    )


def from_interaction(interaction: discord.Interaction[Any], place: Place) -> Heard | None:
    """A button, an answered form, or our slash command; None for anything else (a command of another name, a menu)."""
    data: dict[str, Any] = dict(interaction.data or {})
    match interaction.type:
        case discord.InteractionType.component if data.get("component_type") == 2:
            via, content = "button", str(data.get("custom_id", ""))
        case discord.InteractionType.modal_submit:
            via, content = "form", f"{data.get('custom_id', '')} {answer_of(data)}".strip()
        case discord.InteractionType.application_command if data.get("name") == "codespar":
            via, content = "command", text_of(data)
        case _:
            return None
    if interaction.user.bot:
        return None
    message = interaction.message
    thread = place.thread
    if thread is None and message is not None and not place.direct:
        thread = _thread_behind(message)
    return Heard(
        delivery=f"discord:interaction:{interaction.id}",
        channel="discord",
        conversation=str(place.channel),
        thread_id=None if thread is None else str(thread),
        message_id=str(message.id) if message is not None else "",
        sender=str(interaction.user.id),
        sender_name=_shown(interaction.user),
        content=content,
        direct=place.direct,
        addressed=True,
        via=via,
        at=interaction.created_at,
    )


def _thread_behind(message: discord.Message) -> int | None:
    """Where the talk about a message of ours goes on: the thread it began, or the message it answers where there are no threads."""
    if message.thread is not None:
        return message.thread.id
    return message.reference.message_id if message.reference is not None else None


def text_of(data: dict[str, Any]) -> str:
    """The text of the slash command."""
    options: list[dict[str, Any]] = data.get("options") or []
    return next((str(one.get("value", "")).strip() for one in options if one.get("name") == "text"), "")


def answer_of(data: dict[str, Any]) -> str:
    """What was typed into a form, whether its input stands in a row or under a label."""
    for holder in data.get("components") or []:
        inner: list[dict[str, Any]] = [*(holder.get("components") or ()), holder.get("component") or {}]
        for one in inner:
            if one.get("custom_id") == "answer":
                return str(one.get("value", "")).strip()
    return ""


def _offered(one: discord.Attachment) -> Offered:
    return Offered(
        name=name(one.filename) or "attachment",
        ref=one.url,
        media_type=(one.content_type or "").split(";")[0].strip(),
        size=one.size,
    )


def _shown(user: discord.User | discord.Member) -> str:
    return name(user.display_name) or name(user.name) or str(user.id)
