"""The shapes of what Meta delivers, as far as we read them.

Every field is optional and unknown ones are ignored: a payload that gains or loses a field must never be lost for it. What cannot be read
at all is the caller's to log; nothing here decides what a message means.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Loose(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True, populate_by_name=True)


class Profile(Loose):
    name: str | None = None
    username: str | None = None


class Contact(Loose):
    profile: Profile | None = None
    wa_id: str | None = None
    user_id: str | None = None
    parent_user_id: str | None = None


class Context(Loose):
    id: str | None = None


class TextBody(Loose):
    body: str = ""


class Media(Loose):
    id: str | None = None
    mime_type: str | None = None
    caption: str | None = None
    filename: str | None = None


class Choice(Loose):
    id: str | None = None
    title: str | None = None


class Interactive(Loose):
    button_reply: Choice | None = None
    list_reply: Choice | None = None


class TemplateButton(Loose):
    payload: str | None = None
    text: str | None = None


class Message(Loose):
    id: str | None = None
    type: str | None = None
    sender: str | None = Field(default=None, alias="from")
    from_user_id: str | None = None
    from_parent_user_id: str | None = None
    group_id: str | None = None
    timestamp: str | None = None
    context: Context | None = None
    text: TextBody | None = None
    interactive: Interactive | None = None
    button: TemplateButton | None = None
    image: Media | None = None
    document: Media | None = None
    audio: Media | None = None
    video: Media | None = None
    sticker: Media | None = None


class Problem(Loose):
    code: int = 0
    title: str | None = None


class Status(Loose):
    id: str | None = None
    status: str | None = None
    recipient_id: str | None = None
    recipient_user_id: str | None = None
    biz_opaque_callback_data: str | None = None
    errors: tuple[Problem, ...] = ()


class Metadata(Loose):
    phone_number_id: str | None = None


class Change(Loose):
    """`messages` and `statuses` stay raw: one of them that cannot be read must not hide its neighbours."""

    metadata: Metadata | None = None
    contacts: tuple[JsonValue, ...] = ()
    messages: tuple[JsonValue, ...] = ()
    statuses: tuple[JsonValue, ...] = ()
    errors: tuple[JsonValue, ...] = ()
