"""Payloads of WhatsApp as `Heard`, and the check that they come from Meta.

Pure. It never raises for what it does not know: an unknown type, field or change is None or skipped, so that the platform is not asked to
repeat for days what would never be understood. People are named by their business-scoped user id where there is one, else by their number.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import JsonValue, ValidationError

from codespar.channels.base import Heard, Offered
from codespar.channels.whatsapp.payloads import Change, Contact, Loose, Media, Message, Status
from codespar.channels.whatsapp.render import clean, unescape

_EXTENSIONS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "video/mp4": "mp4",
    "audio/ogg": "ogg",
    "audio/mpeg": "mp3",
    "application/pdf": "pdf",
    "text/plain": "txt",
}
_MAX_NAME = 80
_MAX_DELIVERY = 190
Shape = TypeVar("Shape", bound=Loose)


def signed(body: bytes, header: str, secret: str) -> bool:
    """Whether `X-Hub-Signature-256` is the HMAC of these raw bytes; compared in constant time."""
    if not secret:
        return False
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), header.strip().encode("utf-8", "replace"))


def changes(payload: Mapping[str, Any], phone_number_id: str) -> Iterator[Change]:
    """The changes that are about messages of this number; those of other fields and other numbers are skipped."""
    for entry in _dicts(payload.get("entry")):
        for change in _dicts(entry.get("changes")):
            if change.get("field") != "messages":
                continue
            read = read_as(Change, change.get("value"))
            if read and read.metadata and read.metadata.phone_number_id == phone_number_id:
                yield read


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def read_as(shape: type[Shape], value: Any) -> Shape | None:
    """The value in this shape, or None where it is something else."""
    try:
        return shape.model_validate(value)
    except ValidationError:
        return None


def statuses(change: Change) -> list[Status]:
    return [status for raw in change.statuses if (status := read_as(Status, raw))]


def heard(raw: JsonValue, contacts: Sequence[JsonValue], phone_number_id: str, now: datetime) -> Heard | None:
    """What one message says, or None for what is ignored on purpose.

    Ignored: reactions, places, contact cards, orders, system notes, edits, deletions, types that WhatsApp itself does not support in its
    API, messages of groups (the product does not join them) and messages without an id or a sender.
    """
    message = read_as(Message, raw)
    if message is None or not message.id or message.group_id:
        return None
    content, via, offered = _said(message)
    if not content and not offered:
        return None
    contact = _contact(message, contacts)
    ids = _ids(message, contact)
    if not ids:
        return None
    return Heard(
        delivery=_delivery(message.id),
        channel="whatsapp",
        conversation=f"{phone_number_id}:{ids[0]}"[:150],
        message_id=message.id,
        sender=ids[0],
        also=tuple(ids[1:]),
        sender_name=_name(contact, ids[0]),
        content=content,
        direct=True,
        addressed=True,
        via="button" if via else "text",
        offered=offered,
        reply_to=message.context.id if message.context else None,
        at=_moment(message.timestamp, now),
    )


def _said(message: Message) -> tuple[str, bool, tuple[Offered, ...]]:
    """The content, whether it comes from a button, and what is attached."""
    match message.type:
        case "text" if message.text:
            return unescape(message.text.body).strip(), False, ()
        case "interactive" if message.interactive:
            chosen = message.interactive.button_reply or message.interactive.list_reply
            return (chosen.id or "" if chosen else ""), True, ()
        case "button" if message.button:
            return (message.button.payload or message.button.text or "").strip(), True, ()
        case "image" | "document" | "audio" | "video" | "sticker" as kind:
            media: Media | None = getattr(message, kind)
            if media is None or not media.id:
                return "", False, ()
            mime = (media.mime_type or "").split(";")[0].strip().lower()
            offered = Offered(name=_file_name(media, kind, mime), ref=media.id, media_type=mime)
            return unescape(media.caption or "").strip(), False, (offered,)
        case _:
            return "", False, ()


def _file_name(media: Media, kind: str, mime: str) -> str:
    """The name as sent, without a path; or one made from the kind and the media's id."""
    name = (
        re.split(r"[/\\]", clean(media.filename or ""))[-1].replace("\n", " ").replace("\t", " ").strip(". ")
    )
    return name[:200] or f"{kind}-{(media.id or '')[-8:]}.{_EXTENSIONS.get(mime, 'bin')}"


def _contact(message: Message, contacts: Sequence[JsonValue]) -> Contact | None:
    """Who wrote it: the contact with one of the message's ids, or the only one (a number may differ from its `wa_id` in some countries)."""
    read = [contact for raw in contacts if (contact := read_as(Contact, raw))]
    own = {given for given in (message.sender, message.from_user_id) if given}
    for contact in read:
        if own & {contact.wa_id, contact.user_id}:
            return contact
    return read[0] if len(read) == 1 else None


def _ids(message: Message, contact: Contact | None) -> list[str]:
    """The person's ids, the one that names them first: the user id, else the number as `from` has it."""
    given = [message.from_user_id, contact.user_id if contact else None, message.sender]
    given += [contact.wa_id, contact.parent_user_id] if contact else []
    given += [message.from_parent_user_id]
    ids = [clean(one).strip() for one in given if one]
    return list(
        dict.fromkeys(one for one in ids if 0 < len(one) <= 128 and ":" not in one and "/" not in one)
    )


def _name(contact: Contact | None, fallback: str) -> str:
    profile = contact.profile if contact else None
    name = " ".join(clean((profile.name or profile.username or "") if profile else "").split())
    return name[:_MAX_NAME] or fallback[:_MAX_NAME]


def _delivery(message_id: str) -> str:
    delivery = f"message:{message_id}"
    if len(delivery) <= _MAX_DELIVERY:
        return delivery
    return "message-sha256:" + hashlib.sha256(message_id.encode("utf-8", "replace")).hexdigest()


def _moment(timestamp: str | None, now: datetime) -> datetime:
    """When it was sent; now where that is missing, unreadable or still to come."""
    if not timestamp or not re.fullmatch(r"\d{1,12}", timestamp, re.ASCII):
        return now
    return min(datetime.fromtimestamp(int(timestamp), UTC), now)
