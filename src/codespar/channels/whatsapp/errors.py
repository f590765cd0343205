"""What the Graph API's refusals mean to the one who sends.

Pure. Decided by Meta's error codes, as it asks, and by the HTTP status only where there is no code. Never repeats a request's headers.
"""

from __future__ import annotations

from typing import Any

from codespar.channels.base import ChannelError, ContentRefused, DeliveryFailed, DeliveryRefused
from codespar.channels.whatsapp.render import clean

WINDOW_CLOSED = 131047
TOKEN = frozenset({0, 190})
_WAITS = {  # seconds to wait where the answer names none
    4: 60.0,  # the app's calls
    80007: 60.0,  # the account's calls
    130429: 5.0,  # the number's throughput
    131048: 300.0,  # too many messages blocked or flagged
    131056: 6.0,  # one number to one person: a message every six seconds
    131057: 60.0,  # the account is in maintenance
    131064: 300.0,
    133016: 300.0,
    368: 3600.0,  # the account is restricted for a policy violation
    131031: 3600.0,  # the account is locked
    131042: 3600.0,  # the account cannot pay
}
_NEVER = frozenset({33, 130472, 130497, 131021, 131026, 131030, 131049, 131050, 131062})
_CONTENT = frozenset({100, 131008, 131009, 131051, 131052, 131053})
_TEMPLATE = range(132000, 132100)
_PASSING = frozenset({1, 2, 131000, 131016, 135000})


class CredentialsRefused(DeliveryFailed):
    """The token has expired, was withdrawn, or lacks a permission. Somebody has to make a new one."""


class WindowClosed(DeliveryRefused):
    """More than 24 hours have passed since the person's last message: only a template is taken."""


class TemplateRefused(DeliveryRefused):
    """The template does not exist, is paused, or does not take what we give it."""


def code_of(answer: Any) -> int | None:
    """The error code in an answer's body."""
    match answer:
        case {"error": {"code": int(code)}}:
            return code
        case _:
            return None


def details_of(answer: Any) -> str:
    """What Meta says about it, on one line."""
    match answer:
        case {"error": {"error_data": {"details": str(details)}}}:
            said = details
        case {"error": {"message": str(message)}}:
            said = message
        case _:
            said = ""
    return " ".join(clean(said).split())[:200]


def failure(status: int, answer: Any, retry_after: float | None, token_variable: str) -> ChannelError:
    """The error for an answer that is no success. `token_variable` names the variable to look at when the token is refused."""
    code, said = code_of(answer), details_of(answer)
    what = (
        f"WhatsApp answered {status}"
        + (f", error {code}" if code is not None else "")
        + (f": {said}" if said else "")
    )
    if code in TOKEN or (code is None and status == 401):
        return CredentialsRefused(
            f"{what}. The access token has expired or was withdrawn: make a permanent one and set {token_variable}.",
            300.0,
        )
    if code is not None and (code in (3, 10) or 200 <= code < 300):
        return CredentialsRefused(
            f"{what}. The token in {token_variable} lacks a permission: it needs whatsapp_business_messaging.",
            300.0,
        )
    if code == WINDOW_CLOSED:
        return WindowClosed(what)
    if code in _WAITS or status == 429:
        return DeliveryFailed(what, retry_after if retry_after is not None else _WAITS.get(code or 0, 5.0))
    if code in _NEVER:
        return DeliveryRefused(f"{what}. This person cannot be written to.")
    if code is not None and code in _TEMPLATE:
        return TemplateRefused(
            f"{what}. Look at channels.whatsapp.template: it must be approved and take one body parameter."
        )
    if code in _CONTENT:
        return ContentRefused(what)
    if code in _PASSING or status >= 500:
        return DeliveryFailed(what, retry_after, arrived_perhaps=status >= 500)
    return ContentRefused(what)
