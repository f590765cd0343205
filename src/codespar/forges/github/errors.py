"""What GitHub's answers mean in the words of the port.

No error carries a token, and nothing that GitHub says goes into one at full length: it is data written by others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from codespar.forges.base import AccessLost, ForgeError, ForgeUnavailable, Gone

LONGEST = 500  # characters of GitHub's own words in one error
_SECRETS = re.compile(
    r"\b(?:gh[a-z]|github_pat)_[\w.-]{16,}|\beyJ[\w-]+\.[\w-]+\.[\w-]+|(?<=[?&])sig=[^&\s]+", re.ASCII
)

_TOO_QUICK = "was submitted too quickly"
# What nobody may do there now, whatever our permissions are.
_READ_ONLY = re.compile(
    r"(?:issue|conversation|pull request) is locked|repository (?:was|is) archived", re.IGNORECASE
)
_SHUT_OUT = re.compile(r"suspended|IP allow list", re.IGNORECASE)
_TROUBLE = re.compile(r"something went wrong while executing|timeout", re.IGNORECASE)


class CredentialsRefused(AccessLost):
    """Nothing is open to our credentials: they were revoked, or suspended, or their owner does not let them in. Any other `AccessLost` may be
    for want of one permission."""


class Unprocessable(ForgeError):
    """GitHub understood the request and will not do it (409, 422, other answers from 400 to 499 that say neither "gone" nor "not allowed", and
    403 for what is locked or archived: no credentials would change that).

    `status` is HTTP's; `message` is GitHub's, and `errors` its list of details where it gave one: each is what GitHub sent,
    mostly an object with `resource`, `field`, `code` and perhaps `message`, or a text.
    """

    def __init__(
        self, text: str, *, status: int = 422, message: str = "", errors: Sequence[Any] = ()
    ) -> None:
        super().__init__(text)
        self.status = status
        self.message = message
        self.errors = tuple(errors)


def shown(text: object, *secrets: str) -> str:
    """Words of GitHub's, as they may stand in an error: one line, no control characters, no token, at most `LONGEST` characters."""
    clean = str(text)[:20_000]
    for secret in secrets:
        if secret:
            clean = clean.replace(secret, "…")
    clean = _SECRETS.sub("…", clean)
    clean = " ".join("".join(c if c.isprintable() else " " for c in clean).split())
    return clean if len(clean) <= LONGEST else clean[: LONGEST - 1] + "…"


def message_of(data: Any) -> str:
    """GitHub's own sentence in the body of a refusal; empty when there is none."""
    if isinstance(data, dict):
        return str(cast(dict[str, Any], data).get("message") or "")
    return data if isinstance(data, str) else ""


def refusal(status: int, headers: Mapping[str, str], data: Any, what: str, *secrets: str) -> ForgeError:
    """The error for an answer from 400 upwards that is no rate limit. `what` names the request; header names are lower case."""
    message = shown(message_of(data), *secrets)
    said = f": {message.rstrip('.')}." if message else "."
    if status >= 500:
        return ForgeUnavailable(f"GitHub is in trouble ({status}) at {what}{said} Try again later.")
    match status:
        case 401:
            return CredentialsRefused(f"GitHub refuses our credentials (401) at {what}{said} Make new ones.")
        case 403 if not _READ_ONLY.search(message):
            everywhere = "x-github-sso" in headers or _SHUT_OUT.search(message)
            kind = CredentialsRefused if everywhere else AccessLost
            return kind(f"GitHub does not allow {what} (403){said}{_remedy(headers, message)}")
        case 404 | 410 | 451:
            return Gone(
                f"GitHub has nothing to show at {what} ({status}){said} It is gone, or our credentials do not reach it."
            )
        case _:
            errors = _errors_of(data)
            details = shown("; ".join(_detail(error) for error in errors), *secrets)
            more = f" Details: {details}." if details else ""
            return Unprocessable(
                f"GitHub will not do {what} ({status}){said}{more}",
                status=status,
                message=message,
                errors=errors,
            )


def too_quick(data: Any) -> bool:
    """Whether a refusal is the secondary rate limit for what makes content, which GitHub may also tell as a 422."""
    return any(
        _TOO_QUICK in _detail(error)
        or (isinstance(error, dict) and cast(dict[str, Any], error).get("code") == "abuse")
        for error in (message_of(data), *_errors_of(data))
    )


def graphql_refusal(errors: Sequence[Any], what: str, *secrets: str) -> ForgeError:
    """The error for a GraphQL answer with `errors`."""
    kinds = {str(error.get("type") or "") for error in errors if isinstance(error, dict)}
    words = shown("; ".join(_detail(error) for error in errors), *secrets)
    text = f"GitHub refuses {what}: {words.rstrip('.')}."
    if kinds & {"FORBIDDEN", "INSUFFICIENT_SCOPES"}:
        return AccessLost(f"{text} Give the App or the token the permission it names.")
    if "NOT_FOUND" in kinds:
        return Gone(f"{text} It is gone, or our credentials do not reach it.")
    if kinds <= {"", "INTERNAL", "SERVICE_UNAVAILABLE"} and _TROUBLE.search(words):
        return ForgeUnavailable(f"{text} It may have been done all the same. Try again later.")
    return Unprocessable(text, status=200, message=words, errors=errors)


def _remedy(headers: Mapping[str, str], message: str) -> str:
    if "suspended" in message.lower():
        return " An owner of the account can end the suspension under Settings → GitHub Apps."
    if single_sign_on := re.search(r"url=(https://\S+)", headers.get("x-github-sso", "")):
        return f" Authorize the token for single sign-on at {shown(single_sign_on[1])}."
    if permissions := headers.get("x-accepted-github-permissions"):
        return f" Give the App or the token this permission: {shown(permissions)}."
    return ""


def _errors_of(data: Any) -> tuple[Any, ...]:
    errors: Any = cast(dict[str, Any], data).get("errors") if isinstance(data, dict) else None
    if isinstance(errors, list):
        return tuple(cast(list[Any], errors))
    return (errors,) if errors else ()


def _detail(error: Any) -> str:
    """One of GitHub's details as a person reads it: its message, or "field: code"."""
    if not isinstance(error, dict):
        return str(error)
    detail = cast(dict[str, Any], error)
    if message := detail.get("message"):
        return str(message)
    where = ".".join(str(detail[key]) for key in ("resource", "field") if detail.get(key))
    return f"{where}: {detail.get('code', 'refused')}" if where else str(detail.get("code", "refused"))
