"""The few calls of the Graph API that the channel makes, each once: it never retries, so that nothing is sent twice behind our back.

The token goes only to the configured address and to Meta's own media hosts, and stands in no error and no log.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
from pydantic import JsonValue

from codespar.channels.base import AttachmentRefused, ContentRefused, DeliveryFailed, DeliveryRefused, File
from codespar.channels.whatsapp.errors import failure

_MEDIA_HOSTS = re.compile(r"(?:[a-z0-9-]+\.)*fbcdn\.net|lookaside\.fbsbx\.com|graph\.facebook\.com", re.ASCII)
_REF = re.compile(r"[\w.-]{1,200}", re.ASCII)
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_REDIRECTS = 3


class Graph:
    """One phone number's part of the Graph API."""

    def __init__(self, api_url: str, version: str, number: str, token: str, token_variable: str) -> None:
        self._api = api_url
        self._base = f"{api_url}/{version}"
        self._number = number
        self._variable = token_variable
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {token}", "User-Agent": "CodeSpar"},
            timeout=httpx.Timeout(20, connect=10),
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.aclose()

    async def number(self) -> None:
        """Ask for the number itself: whether the token is good for it."""
        await self._call("GET", f"{self._base}/{self._number}", params={"fields": "id"})

    async def post(self, message: dict[str, JsonValue]) -> Any:
        """Send a message, or mark one as read."""
        return await self._call("POST", f"{self._base}/{self._number}/messages", json=message)

    async def upload(self, file: File) -> str:
        """Put a file where a document message can name it; it stays for 30 days. Its id."""
        answer = await self._call(
            "POST",
            f"{self._base}/{self._number}/media",
            data={"messaging_product": "whatsapp", "type": file.media_type},
            files={"file": (file.name, file.content, file.media_type)},
        )
        match answer:
            case {"id": str(media)}:
                return media
            case _:
                raise DeliveryFailed("WhatsApp took an upload without naming its id; it is uploaded again.")

    async def media(self, ref: str, cap: int) -> bytes:
        """The content of what a person sent, at most `cap` bytes. Raises `AttachmentRefused` and `DeliveryFailed`."""
        if not _REF.fullmatch(ref):
            raise AttachmentRefused("An attachment's id is not one of WhatsApp's; it is not fetched.")
        try:
            answer = await self._call("GET", f"{self._base}/{ref}", params={"phone_number_id": self._number})
        except (ContentRefused, DeliveryRefused) as error:
            raise AttachmentRefused(
                f"WhatsApp does not have attachment {ref} any more: send it again."
            ) from error
        match answer:
            case {"url": str(url)}:
                pass
            case _:
                raise AttachmentRefused(f"WhatsApp names no address for attachment {ref}: send it again.")
        size = str(answer.get("file_size", ""))
        if size.isdigit() and int(size) > cap:
            raise AttachmentRefused(f"Attachment {ref} has {size} bytes, more than the {cap} that are taken.")
        return await self._download(url, ref, cap)

    async def _download(self, url: str, ref: str, cap: int) -> bytes:
        for _ in range(_REDIRECTS + 1):
            if not self._own(url):
                raise AttachmentRefused(
                    f"Attachment {ref} does not lie on a host of Meta's; it is not fetched."
                )
            async with self._stream(url) as response:
                if response.is_redirect:
                    url = urljoin(url, response.headers.get("location", ""))
                    continue
                if response.status_code == 429 or response.status_code >= 500 or response.status_code == 401:
                    raise DeliveryFailed(
                        f"WhatsApp answered {response.status_code} for attachment {ref}.",
                        _retry_after(response),
                    )
                if response.status_code != 200:
                    raise AttachmentRefused(
                        f"WhatsApp answered {response.status_code} for attachment {ref}: send it again."
                    )
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > cap:
                        raise AttachmentRefused(
                            f"Attachment {ref} has more than the {cap} bytes that are taken."
                        )
                return bytes(content)
        raise AttachmentRefused(
            f"Attachment {ref} is redirected more than {_REDIRECTS} times; it is not fetched."
        )

    def _own(self, url: str) -> bool:
        """Whether the token may go there: the configured address itself, or https on one of Meta's media hosts."""
        try:
            parts, own = urlsplit(url), urlsplit(self._api)
            port = parts.port
        except ValueError:
            return False
        if (parts.scheme, parts.netloc) == (own.scheme, own.netloc):
            return True
        return (
            parts.scheme == "https"
            and port in (None, 443)
            and parts.username is None
            and bool(_MEDIA_HOSTS.fullmatch(parts.hostname or ""))
        )

    @asynccontextmanager
    async def _stream(self, url: str) -> AsyncGenerator[httpx.Response]:
        try:
            async with self._client.stream("GET", url) as response:
                yield response
        except httpx.InvalidURL as error:
            raise AttachmentRefused(
                "WhatsApp names an address for an attachment that is none: send it again."
            ) from error
        except httpx.HTTPError as error:
            raise DeliveryFailed(f"WhatsApp's media host did not answer ({type(error).__name__}).") from error

    async def _call(self, method: str, url: str, **options: Any) -> Any:
        try:
            response = await self._client.request(method, url, **options)
        except httpx.HTTPError as error:
            raise DeliveryFailed(
                f"WhatsApp did not answer ({type(error).__name__}).",
                arrived_perhaps=not isinstance(error, _NOT_SENT),
            ) from error
        try:
            answer: Any = response.json()
        except ValueError:
            answer = None
        if response.is_success and not (isinstance(answer, dict) and "error" in answer):
            return answer
        raise failure(response.status_code, answer, _retry_after(response), self._variable)


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return float(value) if re.fullmatch(r"\d{1,6}(\.\d+)?", value, re.ASCII) else None
