"""Keeps what people attach: fetched with the platform's credentials, capped in size, and typed by what it is, not by what it is called.

What is old and not asked for is removed. It must never remove what came a moment ago, nor anything that is not an attachment.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from codespar.channels.base import AttachmentRefused, ChannelAdapter, Offered
from codespar.domain.messages import Attachment

MOST = 10  # attachments of one message
_TEXT = "text/plain"
_BINARY = "application/octet-stream"
_KEPT = re.compile(r"([0-9a-f]{64})(\.[0-9]+\.part)?")


class Locker:
    """A folder of contents, each under its SHA-256. `cap` bounds each in bytes, whatever the platform would give."""

    def __init__(self, channels: Mapping[str, ChannelAdapter], folder: Path, cap: int = 20_000_000) -> None:
        self._channels = channels
        self._folder = folder
        self._cap = cap
        self._lock = Lock()  # writing and removing take turns

    def path(self, sha256: str) -> Path:
        """Where a content is kept. Raises `AttachmentRefused` when it is not there any more."""
        path = self._folder / sha256
        if not path.is_file():
            raise AttachmentRefused(
                f"the attachment {sha256[:12]} is not kept here any more (`housekeeping.attachments`): send the message with its file again"
            )
        return path

    async def keep(self, channel: str, offered: Sequence[Offered]) -> tuple[Attachment, ...]:
        """Fetch and keep what came with a message. Raises `AttachmentRefused`, `DeliveryFailed`."""
        if len(offered) > MOST:
            raise AttachmentRefused(f"{len(offered)} files came with the message; {MOST} are taken at most")
        return tuple([await self._keep(channel, one) for one in offered])

    async def _keep(self, channel: str, offered: Offered) -> Attachment:
        adapter = self._channels.get(channel)
        if adapter is None:
            raise AttachmentRefused(f"{channel} is not set up here, so {_name(offered)} cannot be fetched")
        cap = min(self._cap, adapter.capabilities.max_download)
        if offered.size is not None and offered.size > cap:
            raise AttachmentRefused(f"{_name(offered)} has {offered.size} bytes; {cap} are taken at most")
        content = await adapter.fetch(offered.ref, cap)
        sha256 = hashlib.sha256(content).hexdigest()
        await asyncio.to_thread(self._write, sha256, content)
        return Attachment(
            name=_name(offered),
            media_type=await asyncio.to_thread(media_type, content),
            size=len(content),
            sha256=sha256,
        )

    def _write(self, sha256: str, content: bytes) -> None:
        path = self._folder / sha256
        unfinished = path.with_name(f"{sha256}.{os.getpid()}.part")
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if path.is_file():
                os.utime(path)  # it came again, and its time begins again
                return
            unfinished.write_bytes(content)
            unfinished.replace(path)

    def remove_old(self, before: float, keep: Collection[str]) -> tuple[int, int]:
        """Remove what came before that time (Unix), but for the SHA-256s in `keep`. Returns how many, and their bytes. Runs in a thread.

        Raises `OSError` when the folder cannot be read, which holds where it is a link.
        """
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return 0, 0
        removed = freed = 0
        try:
            with os.scandir(folder) as scanned:
                names = [entry.name for entry in scanned]
            for name in names:
                known = _KEPT.fullmatch(name)
                if known is None or known[1] in keep:
                    continue
                with self._lock, suppress(FileNotFoundError):  # what was being written has its own name now
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode) and found.st_mtime < before:
                        os.unlink(name, dir_fd=folder)
                        removed += 1
                        freed += found.st_size
        finally:
            os.close(folder)
        return removed, freed


def media_type(content: bytes) -> str:
    """What the content is, by its first bytes; text when it is UTF-8 without control characters."""
    import filetype

    if guess := filetype.guess(content):
        return str(guess.mime)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return _BINARY
    return _BINARY if re.search(r"[\x00-\x08\x0e-\x1f]", text) else _TEXT


def _name(offered: Offered) -> str:
    """The file's own name, without what a file system or a prompt would act on."""
    name = re.sub(r"[^\w .()+-]", "_", offered.name.replace("\\", "/").rsplit("/", 1)[-1]).strip(". ")
    return (
        name[:100].encode()[:200].decode(errors="ignore") or "attachment"
    )  # 255 bytes are a file name's most
