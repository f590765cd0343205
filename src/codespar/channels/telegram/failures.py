"""What Telegram's refusals mean to the port. No text of an error ever holds the bot's token."""

from __future__ import annotations

from aiogram.exceptions import (
    AiogramError,
    ClientDecodeError,
    TelegramAPIError,
    TelegramBadRequest,
    TelegramEntityTooLarge,
    TelegramForbiddenError,
    TelegramMigrateToChat,
    TelegramNetworkError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramServerError,
    TelegramUnauthorizedError,
)
from aiohttp import ClientConnectorError

from codespar.channels.base import (
    ChannelError,
    ContentRefused,
    DeliveryFailed,
    DeliveryRefused,
    MessageGone,
)

NO_CREDENTIALS = 60.0  # seconds until a message is tried again whose token was refused
_NEVER = (  # of this conversation
    "chat not found",
    "user not found",
    "peer_id_invalid",
    "group chat was deactivated",
    "chat was upgraded",
    "chat_write_forbidden",
    "chat_restricted",
    "chat_send_",
    "not enough rights",
    "have no rights",
    "need administrator rights",
    "thread not found",
    "topic_closed",
    "topic_deleted",
    "topic closed",
    "topic deleted",
    "user is deactivated",
    "bot can't initiate conversation",
)
_GONE = (
    "message to edit not found",
    "message can't be edited",
    "message_id_invalid",
    "message identifier is not specified",
    "message_author_required",
)
_OTHER_KIND = ("there is no text in the message", "there is no caption in the message")
UNCHANGED = "message is not modified"


def described(error: AiogramError | Exception, token: str) -> str:
    """What went wrong, on one line, without the token."""
    text = str(error.message or "") if isinstance(error, TelegramAPIError) else str(error)
    if isinstance(error, ClientDecodeError):
        text = f"an answer that is no answer of the Bot API ({type(error.original).__name__})"
    return " ".join(text.replace(token, "<token>").split())[:300] or type(error).__name__


def failure(error: AiogramError, conversation: str, token: str) -> ChannelError:
    """The port's error for what aiogram raised when a message was sent or edited."""
    what = f"Telegram, chat {conversation}: {described(error, token)}"
    match error:
        case TelegramRetryAfter():
            return DeliveryFailed(what, retry_after=float(error.retry_after))
        case TelegramMigrateToChat():
            new = error.migrate_to_chat_id
            return DeliveryRefused(
                f"{what}. The group has become a supergroup: put {new} in the place of {conversation} in codespar.yaml"
            )
        case TelegramEntityTooLarge():
            return ContentRefused(what)
        case TelegramNetworkError():
            return DeliveryFailed(what, arrived_perhaps=not isinstance(error.__cause__, ClientConnectorError))
        case TelegramServerError() | ClientDecodeError():
            return DeliveryFailed(what, arrived_perhaps=True)
        case TelegramForbiddenError():
            return DeliveryRefused(f"{what}. Put the bot into the chat again, or have the person start it")
        case TelegramUnauthorizedError() | TelegramNotFound():
            return DeliveryFailed(
                f"{what}. The bot's token is not valid any more: get a new one from @BotFather",
                NO_CREDENTIALS,
            )
        case TelegramBadRequest():
            return _bad_request(described(error, token).lower(), what)
        case _:
            return DeliveryFailed(what)


def _bad_request(said: str, what: str) -> ChannelError:
    if any(words in said for words in _GONE) or is_other_kind(said):
        return MessageGone(what)
    if any(words in said for words in _NEVER):
        return DeliveryRefused(
            f"{what}. See that the chat's id in codespar.yaml is right and the bot may write there"
        )
    return ContentRefused(what)


def is_other_kind(said: str) -> bool:
    """Whether the message to edit is a file where a text was to be put, which Telegram does not allow."""
    return any(words in said.lower() for words in _OTHER_KIND)
