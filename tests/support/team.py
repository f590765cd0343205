"""A team on several chat platforms at once: the whole server in this process, each platform played on loopback.

The adapters, their client libraries, the store, git, Docker and Claude Code are the real ones; people write and press through the fakes.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from codespar.app import App
from codespar.channels.base import HttpAnswer, HttpRequest
from codespar.config import load_settings
from support.platforms.base import FakePlatform, Shown

PEOPLE = {"ada": "owner", "marcus": "maintainer", "grace": "operator", "rex": "reviewer"}


class Team:
    """People of `PEOPLE`, known on every platform, and the project `shop`, served by every platform's room."""

    def __init__(
        self,
        folder: Path,
        platforms: Sequence[FakePlatform],
        repository: Path,
        *,
        engine: bool = False,
        model_url: str = "http://127.0.0.1:9",
        settings: dict[str, Any] | None = None,
        known: bool = True,
        slots: int = 3,
        routed: bool = True,
    ) -> None:
        self.folder = folder
        self.platforms = {platform.name: platform for platform in platforms}
        self.app: App
        self._repository = repository
        self._engine = engine
        self._model_url = model_url
        self._settings = settings or {}
        self._known = known
        self._slots = slots
        self._routed = routed
        self._before: dict[str, str | None] = {}

    async def __aenter__(self) -> Team:
        for platform in self.platforms.values():
            await platform.start()
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()
        for platform in self.platforms.values():
            await platform.stop()

    async def up(self) -> None:
        """Start the server and wait until every platform is connected."""
        for platform in self.platforms.values():
            for name, value in platform.environment.items():
                self._before.setdefault(name, os.environ.get(name))
                os.environ[name] = value
        settings = load_settings(self._write(), os.environ)
        self.app = App(settings)
        for name, platform in self.platforms.items():
            if hasattr(platform, "deliver"):
                platform.deliver = self._deliverer(name)  # type: ignore[attr-defined]
        await self.app.start()
        if self._engine:
            await self.app.start_engine()
        await self.until(lambda: set(self.app.channel_states().values()) <= {"connected"}, 300)

    async def down(self) -> None:
        await self.app.stop()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before.clear()

    def _deliverer(self, name: str) -> Callable[[HttpRequest], Any]:
        async def deliver(request: HttpRequest) -> HttpAnswer:
            return await self.app.channel_request(name, request)

        return deliver

    def _write(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        people = [
            {
                "name": name.capitalize(),
                "id": name,
                "role": role,
                **(
                    {"identities": {p.name: p.identity(name) for p in self.platforms.values()}}
                    if self._known
                    else {}
                ),
            }
            for name, role in PEOPLE.items()
        ]
        rooms = [
            {"channel": platform.name, "conversation": platform.room}
            for platform in self.platforms.values()
            if self._routed
        ]
        document = {
            "data_dir": "data",
            "model": {"base_url": self._model_url},
            "channels": {platform.name: platform.settings for platform in self.platforms.values()},
            "people": people,
            "projects": [
                {
                    "name": "shop",
                    "repository": str(self._repository),
                    "channels": rooms,
                    "max_concurrent_tasks": self._slots,
                }
            ],
            "notifications": {"batch": "1s", "quiet_hours": "none"},
        }
        path = self.folder / "codespar.yaml"
        path.write_text(json.dumps(document | self._settings, indent=1), encoding="utf-8")
        return path

    async def until(self, wanted: Callable[[], Any], seconds: float = 60) -> Any:
        """What `wanted` gives as soon as it gives something."""
        deadline = time.monotonic() + seconds
        while not (found := wanted()):
            assert time.monotonic() < deadline, self.everything()
            await asyncio.sleep(0.02)
        return found

    async def sees(
        self, platform: str, words: str, conversation: str | None = None, seconds: float = 60
    ) -> Shown:
        """The newest message on a platform that has these words in it, as soon as there is one."""

        def look() -> Shown | None:
            found = [one for one in self.platforms[platform].seen(conversation) if words in one.text]
            return found[-1] if found else None

        return await self.until(look, seconds)

    def everything(self) -> str:
        """What stands everywhere, for the message of a test that failed."""
        lines = [f"states: {self.app.channel_states()}"]
        for platform in self.platforms.values():
            lines.append(f"--- {platform.name} (refused: {platform.refusals})")
            for where in (None, *(f"direct:{name}" for name in PEOPLE)):
                told = [
                    f"[{where or 'room'} {one.thread}] {one.text} {one.buttons}"
                    for one in platform.seen(where)
                ]
                lines += told
        return "\n".join(lines)
