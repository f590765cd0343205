"""What Slack's refusals mean to whoever sends: now, never, or never in this form. Tokens and message texts never get into a message here."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError, SlackRequestError

from codespar.channels.base import (
    ChannelError,
    ContentRefused,
    DeliveryFailed,
    DeliveryRefused,
    MessageGone,
    NotConnected,
)

CREDENTIALS = {
    "account_inactive",
    "app_token_required",
    "invalid_auth",
    "not_allowed_token_type",
    "not_authed",
    "org_login_required",
    "team_access_not_granted",
    "token_expired",
    "token_revoked",
    "two_factor_setup_required",
}
_CONTENT = {
    "attachment_payload_limit_exceeded",
    "blocked_file_type",
    "file_uploads_disabled",
    "file_uploads_except_images_disabled",
    "file_upload_size_restricted",
    "invalid_arguments",
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_metadata_format",
    "invalid_metadata_schema",
    "markdown_text_conflict",
    "metadata_must_be_sent_from_app",
    "metadata_too_large",
    "msg_blocks_too_long",
    "msg_too_long",
    "no_text",
    "slack_connect_blocked_file_type",
    "slack_connect_file_upload_sharing_blocked",
    "too_many_attachments",
}
_GONE = {"cant_update_message", "edit_window_closed", "message_not_found"}
_LATER = {
    "accesslimited",
    "fatal_error",
    "internal_error",
    "request_timeout",
    "service_unavailable",
    "team_added_to_org",
}
_BEFORE_ANYTHING = {"accesslimited", "team_added_to_org"}
_NEXT = {
    "channel_not_found": "Invite the app to the channel, or correct the id in the settings.",
    "is_archived": "The channel is archived: unarchive it or link another.",
    "missing_scope": "Add the scope to the app at api.slack.com/apps and install it again.",
    "not_in_channel": "Invite the app to the channel.",
}


@contextmanager
def told(what: str, *, arrived: bool = True) -> Generator[None]:
    """Turns what the client library raises into what the port says. `arrived`: whether a lost answer may mean that it happened."""
    try:
        yield
    except SlackApiError as error:
        raise _of_answer(error, what, arrived) from error
    except aiohttp.ClientConnectorError as error:
        raise DeliveryFailed(f"{what}: Slack cannot be reached. It is tried again.") from error
    except (TimeoutError, aiohttp.ClientError, ConnectionError, SlackRequestError) as error:
        raise DeliveryFailed(
            f"{what}: the connection to Slack broke ({type(error).__name__}). It is tried again.",
            arrived_perhaps=arrived,
        ) from error


def code_of(error: SlackApiError) -> str:
    """Slack's own word for what went wrong; empty when its answer was none of its API."""
    data: Any = getattr(error.response, "data", None)
    return str(data.get("error") or "") if isinstance(data, dict) else ""


def _of_answer(error: SlackApiError, what: str, arrived: bool) -> ChannelError:
    response: Any = error.response
    status = int(getattr(response, "status_code", 0) or getattr(response, "status", 0) or 0)
    code = code_of(error)
    if status == 429 or code in ("ratelimited", "rate_limited"):
        return DeliveryFailed(f"{what}: Slack wants us to wait.", _retry_after(response))
    if code in _LATER or (not code and (status >= 500 or status == 200)):
        return DeliveryFailed(
            f"{what}: Slack is in trouble ({code or f'HTTP {status}'}). It is tried again.",
            arrived_perhaps=arrived and code not in _BEFORE_ANYTHING,
        )
    if code in CREDENTIALS:
        return DeliveryRefused(f"{what}: Slack refuses the bot's token ({code}). Install the app again.")
    if code in _GONE:
        return MessageGone(f"{what}: the message cannot be edited any more ({code}).")
    if code in _CONTENT:
        return ContentRefused(f"{what}: Slack does not take this message ({code}{_details(response)}).")
    return DeliveryRefused(
        f"{what}: Slack refuses it ({code or f'HTTP {status}'}). {_NEXT.get(code, '')}".strip()
    )


def not_connected(error: SlackApiError, variable: str) -> NotConnected | None:
    """When credentials were refused: which, and what to do."""
    if (code := code_of(error)) not in CREDENTIALS | {"missing_scope"}:
        return None
    return NotConnected(
        f"Slack refuses the token in {variable} ({code}). Copy it anew from api.slack.com/apps."
    )


def _retry_after(response: Any) -> float | None:
    headers: Any = getattr(response, "headers", None) or {}
    value = next((text for name, text in headers.items() if name.lower() == "retry-after"), None)
    try:
        return float(value) if value is not None else None
    except ValueError:
        return None


def _details(response: Any) -> str:
    """Which block it was: Slack says the place and the rule, not the text."""
    messages: Any = ((getattr(response, "data", None) or {}).get("response_metadata") or {}).get(
        "messages"
    ) or []
    return "".join(f"; {message}" for message in messages[:3])
