"""A request of Slack's: whether it is genuine, and what is in it. Nothing of a request is read before its signature was checked."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from codespar.channels.base import HttpRequest

WINDOW = timedelta(minutes=5)


def is_signed(request: HttpRequest, secret: str, now: datetime) -> bool:
    """Whether it carries Slack's v0 signature over these very bytes, made less than five minutes ago."""
    stamp = request.headers.get("x-slack-request-timestamp", "")
    given = request.headers.get("x-slack-signature", "")
    if not re.fullmatch(r"[0-9]{1,12}", stamp, re.ASCII):
        return False
    if abs(now.timestamp() - int(stamp)) > WINDOW.total_seconds():
        return False
    right = (
        "v0="
        + hmac.new(secret.encode(), b"v0:" + stamp.encode() + b":" + request.body, hashlib.sha256).hexdigest()
    )
    return hmac.compare_digest(right.encode(), given.encode("utf-8", "replace"))


def parsed(request: HttpRequest) -> dict[str, Any] | None:
    """Events come as JSON; buttons and forms as JSON in a form's `payload`; slash commands as the form itself. None: none of these."""
    try:
        text = request.body.decode("utf-8")
        if request.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
            found: Any = json.loads(text)
        else:
            fields = {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}
            found = json.loads(fields["payload"]) if "payload" in fields else fields
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
