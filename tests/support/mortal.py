"""A server that is killed with SIGKILL at moments of a seed and started again at once, and whoever speaks to it nevertheless.

What it does outside of its database is watched, for the moments right after that are the delicate ones: in git and the files of the embedded
forge (`Files`), or at GitHub (`Answers`), where the answer to what it changed may also never reach it.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from aiohttp import web
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from codespar.cli.client import Client, Json, Refused, Server, ServerUnreachable
from codespar.domain.messages import NormalizedResponse
from support.github.emulate import Emulate
from support.github.site import Site
from support.house import House
from support.story import Build

T = TypeVar("T")
PATIENCE = 600.0  # seconds at least for whatever is to be seen: it is killed meanwhile
OPEN = "SELECT workflow_uuid, status FROM workflow_status WHERE status IN ('ENQUEUED', 'PENDING')"
WAITING = (
    "SELECT id, source FROM inbox WHERE done_at IS NULL",
    "SELECT id, kind FROM intents WHERE done_at IS NULL",
    "SELECT key, place FROM announcements WHERE told_at IS NULL",
)


class Outside(Protocol):
    """What the server does outside of its database."""

    async def done(self, answered: bool) -> str:
        """Wait for something that it does there, and name it. Unless `answered`, it hears nothing of that before `forget`."""
        ...

    def forget(self) -> None:
        """Nothing is waited for any more."""
        ...


class Files:
    """Branches that move, records of the embedded forge's and files of reviews."""

    def __init__(self, *tops: Path) -> None:
        self._tops = tops

    async def done(self, answered: bool) -> str:
        before = self._files()
        while True:
            if changed := self._files() - before:
                return min(path for path, _ in changed)
            await asyncio.sleep(0.002)

    def forget(self) -> None:
        """A file needs no answer."""

    def _files(self) -> set[tuple[str, int]]:
        found: set[tuple[str, int]] = set()
        for top in self._tops:
            for folder, _, names in os.walk(top):
                for path in (Path(folder, name) for name in names):
                    with suppress(FileNotFoundError):
                        found.add((str(path.relative_to(top.parent)), path.stat().st_mtime_ns))
        return found


class Answers(Site):
    """A GitHub whose answers can be kept back: what was asked for is done there, and whoever asked is killed before it knows.

    What was asked is passed on whole or not at all, whatever becomes of the connection: emulate never sees one that breaks.
    """

    def __init__(self, host: Emulate) -> None:
        super().__init__(host)
        self._awaited: asyncio.Future[str] | None = None
        self._answered = True
        self._free = asyncio.Event()

    async def done(self, answered: bool) -> str:
        self._awaited, self._answered = asyncio.get_running_loop().create_future(), answered
        self._free.clear()
        return await self._awaited

    def forget(self) -> None:
        self._awaited = None
        self._free.set()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        answer = await super()._serve(request)
        awaited = self._awaited
        changes = request.method != "GET" and not request.path.endswith("/git-upload-pack")
        if changes and awaited is not None and not awaited.done():
            heard = "" if self._answered else ", unanswered"
            awaited.set_result(f"{request.method} {request.path} {answer.status}{heard}")
            if not self._answered:
                await self._free.wait()
        return answer


class Mortal:
    """The house's server, the project `shop` in it, and a person at the command line."""

    def __init__(self, house: House, seed: int, outside: Outside, databases: Databases, bare: Path) -> None:
        self.house = house
        self.bare = bare
        self.kills: list[str] = []
        self._random = random.Random(seed)
        self._outside = outside
        self.databases = databases
        token = (house.folder / "data" / "cli-token").read_text().strip()
        self._client = Client(Server(f"http://127.0.0.1:{house.port}", token))

    async def __aenter__(self) -> Mortal:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.__aexit__(None, None, None)

    async def through(self, name: str, kills: int, within: float, stage: Awaitable[T]) -> T:
        """The stage, with that many kills, each some time after the server stood again (or while it starts), or as soon as it has done
        something outside of its database. Ends when both have."""
        went = asyncio.ensure_future(stage)
        try:
            for _ in range(kills):
                standing, delicate, answered = (self._random.random() < odds for odds in (0.8, 0.6, 0.4))
                after = self._random.uniform(0.02, within)
                if standing:
                    await self._ready()
                why = await self._next_done(went, answered) if delicate else ""
                await asyncio.sleep(after / 50 if why else after)
                self.kills.append(f"{name}{' (over)' if went.done() else ''} +{after:.2f} {why}")
                await self.house.kill()
                self._outside.forget()
                await self.house.launch()
            return await went
        finally:
            went.cancel()

    async def _next_done(self, stage: asyncio.Future[Any], answered: bool) -> str:
        """What it does outside next; empty where the stage ended before."""
        watching = asyncio.ensure_future(self._outside.done(answered))
        await asyncio.wait((stage, watching), return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            return watching.result()
        watching.cancel()
        return ""

    async def ask(self, call: Callable[[Client], Awaitable[T]], seconds: float = 300) -> T:
        """What the server answers, asked until it does."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return await call(self._client)
            except ServerUnreachable:
                pass
            except Refused as refused:
                assert refused.status == 503, refused
            assert time.monotonic() < deadline, self.house.log[-3000:]
            await asyncio.sleep(0.03)

    async def _ready(self) -> None:
        await self.ask(lambda client: client.get("/readyz"))

    # a scene of the story

    async def says(self, who: str, text: str) -> list[NormalizedResponse]:
        """The answers to a message, which is sent under one id until it is answered."""
        id = "-".join(text.replace("#", "").split())
        body = await self.ask(lambda client: client.say(text, project="shop", thread="t", id=id))
        return [NormalizedResponse.model_validate(sent["response"]) for sent in body["responses"]]

    async def built(self, build: Build) -> None:
        log = {"log": build.log.decode()}
        posted = build.run.model_dump(mode="json", by_alias=True)
        posted |= {"jobs": [job.wire() | log for job in build.jobs]}
        await self.ask(lambda client: client.report_run("shop", posted))

    async def sees(self, words: str, seconds: float = 0) -> NormalizedResponse:
        """The message with these words in it, as soon as it stands somewhere."""
        deadline = time.monotonic() + max(seconds, PATIENCE)
        while True:
            told = [NormalizedResponse.model_validate(one["response"]) for one in await self.messages()]
            if fitting := [one for one in told if words in one.plain()]:
                return fitting[-1]
            assert not any("failed" in one.title.lower() for one in told), told
            assert time.monotonic() < deadline, (words, [one.title for one in told], self.house.log[-3000:])
            await asyncio.sleep(0.1)

    async def approves(self) -> None:
        offered = {
            action["command"]
            for one in await self.messages()
            for action in one["response"].get("actions", ())
        }
        [approve] = [command for command in offered if command.startswith("approve sg-")]
        await self.says("ada", approve)

    async def merges(self, number: int) -> None:
        await self.says("ada", f"merge PR #{number} squash")

    # at the end

    async def messages(self) -> list[Json]:
        """Everything that stands in any conversation."""

        async def read(client: Client) -> list[Json]:
            sent: dict[str, Json] = {}
            after = 0
            while (page := await client.get("/api/v1/messages", after=after, limit=500))["cursor"] != after:
                sent |= {one["key"]: one for one in page["messages"]}
                after = page["cursor"]
            return list(sent.values())

        return await self.ask(read)

    async def settled(self, seconds: float = 240) -> None:
        """Every workflow has ended, also those that only repeat what was done, nothing waits to be done or told, and for a while nothing more
        was said."""
        deadline, quiet, before = time.monotonic() + seconds, 0, -1
        while quiet < 5:
            open_ = [
                *self.databases.engines(OPEN),
                *(one for query in WAITING for one in self.databases.ours(query)),
            ]
            newest = max(one["seq"] for one in await self.messages())
            quiet = quiet + 1 if newest == before and not open_ else 0
            before = newest
            assert time.monotonic() < deadline, (open_, self.house.log[-3000:])
            await asyncio.sleep(0.3)

    def containers(self) -> list[str]:
        """Those of this installation, running or ended."""
        ours = (self.house.folder / "data" / "installation").read_text().strip()
        command = ["docker", "ps", "-aq", "--filter", f"label=codespar.installation={ours}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


class Databases:
    """Both databases of an installation, read beside its server: on SQLite in its data folder, or at a PostgreSQL address."""

    def __init__(self, data: Path, url: str = "") -> None:
        self._ours = url or f"sqlite:///file:{data / 'codespar.sqlite'}?mode=ro&uri=true"
        self._engines = (
            f"{url}_engine" if url else f"sqlite:///file:{data / 'engine.sqlite'}?mode=ro&uri=true"
        )
        self.address = url or f"sqlite:///{data / 'codespar.sqlite'}"  # ours, for a `Database`

    def ours(self, query: str) -> Sequence[tuple[Any, ...]]:
        return _asked(self._ours, query)

    def engines(self, query: str) -> Sequence[tuple[Any, ...]]:
        return _asked(self._engines, query)


def _asked(url: str, query: str) -> list[tuple[Any, ...]]:
    name, _, rest = url.partition("://")
    postgresql = name == "postgresql"
    chosen = {"options": "-csearch_path=dbos,public"} if postgresql else {"timeout": 10}
    engine = create_engine(
        f"{'postgresql+psycopg' if postgresql else name}://{rest}", poolclass=NullPool, connect_args=chosen
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]
