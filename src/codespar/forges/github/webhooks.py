"""What GitHub's webhooks say, in our words: the signature checked, the payload turned into news, a comment, or the reason why nothing follows.

What is taken in and what is passed over stands in the table of `events`. Nothing is decided here and
nothing kept: whether a delivery was here before, whom it concerns and what to do about it is for those who get it. An event that is not
in the table is passed over too, and said so. No secret and no payload stands in an error.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from codespar.domain.base import Value
from codespar.domain.happenings import News
from codespar.forges.base import ForgeError, PostedComment
from codespar.forges.github.events import TABLE, rule_for, takes
from codespar.forges.github.models import Payload
from codespar.forges.github.payloads import LONGEST_DELIVERY, Malformed

__all__ = ["TABLE", "BadSignature", "Delivered", "Malformed", "normalize", "verify"]


class BadSignature(ForgeError):
    """The request does not prove that it comes from who knows our secret. Nothing of it may be used."""


def verify(body: bytes, headers: Mapping[str, str], secret: str) -> None:
    """Check `X-Hub-Signature-256` over the raw bytes, in constant time. Raises `BadSignature`."""
    if not secret:
        raise BadSignature(
            "No webhook secret is configured, so nothing can be believed: set CODESPAR_GITHUB_WEBHOOK_SECRET"
        )
    names = {name.lower(): value for name, value in headers.items()}
    signature = names.get("x-hub-signature-256", "").strip()
    if not signature:
        old = (
            " It has the old SHA-1 signature only, which is not accepted."
            if "x-hub-signature" in names
            else ""
        )
        raise BadSignature(
            f"The request has no X-Hub-Signature-256.{old} Set the same secret in the webhook at GitHub"
        )
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
        raise BadSignature(
            "X-Hub-Signature-256 does not fit the body: the webhook at GitHub has another secret than we, or the body was changed"
        )


class Delivered(Value):
    """What one delivery says."""

    repository: str = ""  # the full name; empty where it concerns none, or several
    repository_id: int | None = None  # stays the same when the repository is renamed
    news: tuple[News, ...] = ()
    comment: PostedComment | None = None
    ignored: str = ""  # why nothing follows; empty where something does


def normalize(event: str, delivery: str, payload: Mapping[str, Any], received: datetime) -> Delivered:
    """What the delivery of this `X-GitHub-Event` says. `delivery` is `X-GitHub-Delivery`, by which a repeat is known; `received` stands
    for times that GitHub does not tell.

    Raises `Malformed` for a payload that is no object or lacks what its event must have, and for nothing else.
    """
    if not isinstance(cast("Any", payload), Mapping):
        raise Malformed(f"The body of a GitHub webhook ({event[:60]}) is no JSON object")
    if not 0 < len(delivery) <= LONGEST_DELIVERY:
        raise Malformed("A GitHub webhook came without an X-GitHub-Delivery that can be a name")
    read = Payload.model_validate(dict(payload))
    known = Delivered(repository=read.repository.full_name, repository_id=read.repository.id)
    rule = rule_for(event, read.action)
    if rule is None:
        return known.evolve(ignored=f"`{event[:60]}` is no event that we know")
    if rule.read is None:
        if not read.action and takes(event):
            raise Malformed(f"A GitHub webhook ({event}) does not say which action it tells of")
        return known.evolve(ignored=rule.says)
    try:
        said = rule.read(read, received)
    except Malformed as error:
        raise Malformed(f"{error} ({event} {read.action[:60]}, delivery {delivery})") from error
    if said.what is None:
        return known.evolve(comment=said.comment, ignored=said.ignored)
    news = News(
        delivery=delivery,
        repository=known.repository,
        sender=read.sender.login,
        at=said.at or received,
        what=said.what,
    )
    return known.evolve(news=(news,), comment=said.comment)
