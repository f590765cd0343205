"""The chat platforms of a server when one of them cannot even be made."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

from codespar.app.chat import Chat
from codespar.config import load_settings
from codespar.store.database import Database


async def test_a_platform_whose_folder_cannot_be_made_keeps_no_other_from_being_made(tmp_path: Path) -> None:
    document = {
        "data_dir": "data",
        "projects": [],
        "channels": {"slack": {}, "whatsapp": {"phone_number_id": "12345"}},
    }
    (tmp_path / "codespar.yaml").write_text(json.dumps(document))
    settings = load_settings(tmp_path / "codespar.yaml", {})
    channels = settings.data_dir / "channels"
    channels.mkdir(parents=True)
    (channels / "slack").write_text("in the way")
    store = Database(f"sqlite:///{tmp_path / 'codespar.sqlite'}")
    await store.open()
    chat = Chat(settings, store, lambda: datetime.now(UTC), {}, dict, {})
    async with asyncio.timeout(30):
        await chat.start()
    assert chat.states["slack"].startswith("FileExistsError")
    assert "is not set" in chat.states["whatsapp"]
    assert chat.postman is not None
    await chat.stop()
    await store.close()
