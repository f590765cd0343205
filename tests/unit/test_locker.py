"""What people attach: typed by its content, capped, named so that nothing acts on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from codespar.channels.base import AttachmentRefused, Offered
from codespar.channels.locker import MOST, Locker, media_type

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (PNG, "image/png"),
        (b"%PDF-1.7\n", "application/pdf"),
        (b"PK\x03\x04" + b"\0" * 40, "application/zip"),
        (b"Traceback (most recent call last):\n", "text/plain"),
        ("grüße".encode(), "text/plain"),
        (b"", "text/plain"),
        (b"\x00\x01\x02", "application/octet-stream"),
        (b"\xff\xfe\xfd not utf-8", "application/octet-stream"),
    ],
)
def test_a_file_is_what_its_content_says(content: bytes, wanted: str) -> None:
    assert media_type(content) == wanted


async def test_what_says_it_is_too_large_is_not_even_fetched(tmp_path: Path) -> None:
    with pytest.raises(AttachmentRefused, match="not set up here"):
        await Locker({}, tmp_path).keep("slack", (Offered(name="a.txt", ref="x"),))
    with pytest.raises(AttachmentRefused, match=f"{MOST} are taken at most"):
        await Locker({}, tmp_path).keep("slack", (Offered(name="a.txt", ref="x"),) * (MOST + 1))
