"""Files to and from Slack. The token goes to Slack's own hosts only, and nothing is read beyond its cap."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import aiohttp
from slack_sdk.errors import SlackRequestError
from slack_sdk.web.async_client import AsyncWebClient

from codespar.channels.base import AttachmentRefused, DeliveryFailed, DeliveryRefused, File
from codespar.channels.slack.errors import told

_REDIRECTS = 3
_SECONDS = 60


class Files:
    """`api_url`: the address of the Web API, whose host may hold files too."""

    def __init__(self, api_url: str) -> None:
        self._home = urlsplit(api_url)

    async def upload(self, session: aiohttp.ClientSession, web: AsyncWebClient, file: File) -> str:
        """Bring a file to Slack, where nobody sees it yet. Returns its id."""
        content = file.content or b"\n"  # Slack takes no empty file
        given: Any = await web.files_getUploadURLExternal(filename=file.name, length=len(content))
        async with session.post(str(given["upload_url"]), data=content) as answer:
            if answer.status != 200:
                raise SlackRequestError(f"Slack did not take the file {file.name} (HTTP {answer.status}).")
        return str(given["file_id"])

    async def share(self, web: AsyncWebClient, files: list[str], channel: str, thread: str | None) -> None:
        """Show uploaded files in a conversation, all at once."""
        await web.files_completeUploadExternal(
            files=[{"id": file} for file in files], channel_id=channel, thread_ts=thread
        )

    async def fetch(
        self, session: aiohttp.ClientSession, web: AsyncWebClient, token: str, address: str, cap: int
    ) -> bytes:
        """The content of a file that a person sent; `address` is its URL, or its id where Slack gave no more (shared channels)."""
        if "://" not in address:
            address = await self._address(web, address)
        if not self._ours(urlsplit(address), anywhere=True):
            raise AttachmentRefused("The attachment does not lie at Slack: it is not fetched.")
        try:
            for _ in range(_REDIRECTS):
                async with session.get(
                    address,
                    headers={"Authorization": f"Bearer {token}"},
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=_SECONDS),
                ) as answer:
                    if answer.status not in (301, 302, 303, 307, 308):
                        return await _content(answer, cap)
                    address = urljoin(address, answer.headers.get("location", ""))
                    if not self._ours(urlsplit(address), anywhere=False):
                        raise AttachmentRefused(
                            "Slack does not give the attachment to the app: it needs the scope files:read."
                        )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise DeliveryFailed(f"The attachment could not be fetched ({type(error).__name__}).") from error
        raise AttachmentRefused("Slack sends the attachment from one address to the next: it is not fetched.")

    async def _address(self, web: AsyncWebClient, file: str) -> str:
        try:
            with told(f"The file {file}", arrived=False):
                answer: Any = await web.files_info(file=file)
        except DeliveryRefused as error:
            raise AttachmentRefused(str(error)) from error
        found = answer["file"]
        return str(found.get("url_private_download") or found.get("url_private") or "none://")

    def _ours(self, url: SplitResult, *, anywhere: bool) -> bool:
        """Slack's own: the host of its API, its file host, and, where a file starts `anywhere`, the workspaces' hosts."""
        if (url.scheme, url.netloc) == (self._home.scheme, self._home.netloc):
            return True
        host = url.hostname or ""
        plain = (
            url.scheme == "https" and "@" not in url.netloc and url.netloc.partition(":")[2] in ("", "443")
        )
        return plain and (host == "files.slack.com" or (anywhere and host.endswith(".slack.com")))


async def _content(answer: aiohttp.ClientResponse, cap: int) -> bytes:
    if answer.status == 429:
        wait = answer.headers.get("retry-after", "")
        raise DeliveryFailed("Slack wants us to wait.", float(wait) if wait.isdecimal() else None)
    if answer.status >= 500:
        raise DeliveryFailed(f"Slack could not give the attachment (HTTP {answer.status}).")
    if answer.status != 200:
        raise AttachmentRefused(f"Slack does not give the attachment (HTTP {answer.status}): is it deleted?")
    if (answer.content_length or 0) > cap:
        raise AttachmentRefused(f"The attachment has {answer.content_length} bytes; {cap} are taken.")
    content = bytearray()
    async for chunk in answer.content.iter_chunked(65_536):
        content += chunk
        if len(content) > cap:
            raise AttachmentRefused(f"The attachment is larger than {cap} bytes.")
    return bytes(content)
