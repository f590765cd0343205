"""A CodeSpar server of a test's own: `codespar up` in a process, spoken to over its API, with a scripted model beside it.

Git, Docker, the database and Claude Code are the real ones.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codespar.cli.client import Client, Json, Server, ServerUnreachable
from codespar.domain.messages import NormalizedResponse
from codespar.scripted.script import Choose
from codespar.scripted.server import ScriptedModel
from support.ports import free_port

READY_SECONDS = 300.0  # only waited for where the machine is busy; one that ended is noticed at once
FINAL = ("completed", "failed", "cancelled")


def pauses(longest: float) -> Iterator[float]:
    """Seconds to wait between two looks, more each time: a look costs the server what it needs for its work."""
    pause = 0.03
    while True:
        yield pause
        pause = min(longest, pause * 1.2)


class House:
    """One installation in a folder. `settings` are merged into its codespar.yaml."""

    def __init__(
        self,
        folder: Path,
        choose: Choose,
        *,
        settings: Json | None = None,
        environment: dict[str, str] | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.folder = folder
        self.model = ScriptedModel(choose, seconds=seconds)
        self.port = free_port()
        self._settings = settings or {}
        self._environment = {k: v for k, v in os.environ.items() if k != "ANTHROPIC_API_KEY"} | (
            environment or {}
        )
        self._process: asyncio.subprocess.Process | None = None
        self.client = Client(Server(f"http://127.0.0.1:{self.port}"))

    @property
    def log(self) -> str:
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def write_config(self, **more: Any) -> Path:
        """Write codespar.yaml (JSON is YAML) and return its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        body = {"data_dir": "data", "server": {"port": self.port}, "model": {"base_url": self.model.url}}
        path = self.folder / "codespar.yaml"
        path.write_text(json.dumps(body | self._settings | more, indent=1), encoding="utf-8")
        return path

    async def __aenter__(self) -> House:
        await self.model.start()
        self.write_config()
        try:
            await self.up()
        except BaseException:  # a server that is not ready in time would live on
            await self.kill()
            await self.model.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()
        await self.model.stop()

    async def launch(self) -> asyncio.subprocess.Process:
        """Start the server's process without waiting for it."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "codespar",
                "up",
                cwd=self.folder,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
            )
        return self._process

    async def up(self) -> None:
        """Start the server and wait until it takes messages."""
        process = await self.launch()
        deadline = time.monotonic() + READY_SECONDS
        while True:
            async with Client(Server(f"http://127.0.0.1:{self.port}")) as probe:
                try:
                    if (await probe.readiness())[0]:
                        break
                except ServerUnreachable:
                    pass
            assert process.returncode is None, f"the server ended: {self.log[-3000:]}"
            assert time.monotonic() < deadline, f"the server is not ready: {self.log[-3000:]}"
            await asyncio.sleep(0.03)
        token = (self.folder / "data" / "cli-token").read_text().strip()
        self.client = Client(Server(f"http://127.0.0.1:{self.port}", token))
        await self.client.__aenter__()

    async def down(self) -> int:
        """End the server as a supervisor would. Returns its exit code."""
        return await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End the server as a power cut would."""
        await self._end(signal.SIGKILL)

    async def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        if self._process.returncode is None:
            await self.client.__aexit__(None, None, None)
            self._process.send_signal(number)
        code = await asyncio.wait_for(self._process.wait(), 60)
        self._process = None
        return code

    # as a person

    async def link(self, name: str, repository: Path | str) -> None:
        await self.client.post("/api/v1/projects", {"name": name, "repository": str(repository)})

    async def say(self, project: str, text: str, *, id: str | None = None) -> list[NormalizedResponse]:
        """Send a message and return the answers to it."""
        answer = await self.client.say(text, project=project, thread="t", id=id)
        return [NormalizedResponse.model_validate(sent["response"]) for sent in answer["responses"]]

    async def instruct(self, project: str, text: str, *, id: str | None = None) -> str:
        """Send an instruction and return its task's id."""
        answers = await self.say(project, f"instruct {text}", id=id)
        assert len(answers) == 1 and answers[0].agent, answers
        return answers[0].agent

    async def task(self, id: str) -> Json:
        return await self.client.get(f"/api/v1/tasks/{id}")

    async def until(self, id: str, *statuses: str, seconds: float = 180) -> Json:
        """The task as soon as it has one of the statuses (default: a final one)."""
        wanted = statuses or FINAL
        deadline, pause = time.monotonic() + seconds, pauses(0.25)
        while (task := await self.task(id))["status"] not in wanted:
            ended = task["status"] in FINAL
            assert not ended, f"{id} ended as {task['status']}: {task['result']}\n{self.log[-2000:]}"
            assert time.monotonic() < deadline, f"{id} is {task['status']} ({task['phase']}), not {wanted}"
            await asyncio.sleep(next(pause))
        return task

    async def phase(self, id: str, word: str, seconds: float = 120) -> Json:
        """The task as soon as its phase has the word in it."""
        deadline, pause = time.monotonic() + seconds, pauses(0.1)
        while word not in (task := await self.task(id))["phase"]:
            assert task["status"] not in FINAL, f"{id} ended as {task['status']}: {task['result']}"
            assert time.monotonic() < deadline, f"{id} is {task['phase']}, not {word}"
            await asyncio.sleep(next(pause))
        return task

    async def messages(self, project: str, thread: str = "t") -> list[NormalizedResponse]:
        """Everything said in the thread so far."""
        found = await self.client.messages(f"cli/{project}/{thread}", 0)
        return [NormalizedResponse.model_validate(sent["response"]) for sent in found]

    async def message(
        self, project: str, word: str, thread: str = "t", seconds: float = 60
    ) -> NormalizedResponse:
        """The first message of the thread with the word in its title, as soon as it is there."""
        deadline, pause = time.monotonic() + seconds, pauses(0.25)
        while True:
            for response in await self.messages(project, thread):
                if word in response.title:
                    return response
            assert time.monotonic() < deadline, [one.title for one in await self.messages(project, thread)]
            await asyncio.sleep(next(pause))

    async def pulls(self, project: str) -> list[Json]:
        return (await self.client.get("/api/v1/prs", project=project))["prs"]
