"""Credentials that stand in web addresses: `user:password@` before the host, tokens in the query.

Pure. The address stays one that can be followed, as far as it can be without them.
"""

from __future__ import annotations

import re

INSTEAD = "removed"
_USER = re.compile(r"(?<=://)(?:[^\s/?#:@\"'<>`]{0,256}:[^\s/?#\"'<>`]{1,1024}|[^\s/?#:@\"'<>`]{16,1024})@")
_ANY_USER = re.compile(r"(?<=://)[^\s/?#]+@")
_NAMES = (
    r"token|secret|password|passwd|pwd|api[_-]?key|access[_-]?key(?:[_-]?id)?|private[_-]?key"
    r"|credential|signature|sig|auth|jwt|session(?:id)?"
)
_QUERY = re.compile(
    rf"(?<=[?&#])((?:[\w.-]{{0,60}}[_.-])?(?:{_NAMES}))="
    r"(?!(?:dp|rb|tk|mg|sg|bg|pl|cf)-[0-9a-z]{6}(?![\w-]))"  # an approval's token is no secret
    rf"(?!{INSTEAD}(?![\w.~%+/=:-]))[\w.~%+/=:-]{{6,}}",
    re.IGNORECASE | re.ASCII,
)


def suspicious(text: str) -> bool:
    """Whether a closer look is worth it."""
    return "://" in text and ("@" in text or "=" in text)


def without_credentials(text: str) -> tuple[str, int]:
    """The text with no credentials in its addresses, and in how many places they were."""
    if not suspicious(text):
        return text, 0
    text, users = _USER.subn("", text)
    text, values = _QUERY.subn(rf"\1={INSTEAD}", text)
    return text, users + values


def link_without_credentials(url: str) -> tuple[str, int]:
    """The same for one address, in which a user's name has no place either."""
    url, users = _ANY_USER.subn("", url, count=1)
    url, values = _QUERY.subn(rf"\1={INSTEAD}", url)
    return url, users + values
