"""A server whose project `shop` is a repository at GitHub, in this process, and what a test does with it: deliveries as GitHub signs them, and
what became of them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import socket
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from codespar.app import now
from codespar.cli.client import Client, Server
from codespar.domain.happenings import News
from codespar.web.api import create_app
from support.github.emulate import Repository
from support.github.payloads import example
from support.github.site import Site
from support.platforms.slack import FakeSlack
from support.team import PEOPLE, Team

SECRET = "the secret of the installation"
NUMBERS = itertools.count(1)  # of the repositories that `linked` makes


@dataclass
class Given:
    """A team whose project `shop` is a repository at GitHub, and what plays GitHub."""

    site: Site
    github: Repository
    team: Team
    id: int  # of the repository

    @property
    def slack(self) -> FakeSlack:
        found = self.team.platforms["slack"]
        assert isinstance(found, FakeSlack)
        return found

    async def send(
        self,
        event: str,
        payload: dict[str, Any] | bytes,
        *,
        secret: str = SECRET,
        delivery: str | None = None,
        headers: dict[str, bytes | None] | None = None,
    ) -> httpx.Response:
        """A delivery, signed as GitHub signs. A header that is None is left out."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        sent: dict[str, Any] = {
            "Content-Type": "application/json",
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": delivery or str(uuid.uuid4()),
            "X-Hub-Signature-256": signature(body, secret),
        } | (headers or {})
        transport = httpx.ASGITransport(create_app(self.team.app, now), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            kept = {name: value for name, value in sent.items() if value is not None}
            return await client.post("/webhooks/github", content=body, headers=kept)

    def payload(self, event: str, action: str = "", place: int = 0, **more: Any) -> dict[str, Any]:
        """GitHub's example of it, about this repository."""
        found = example(event, action, place) | more
        found["repository"] |= {"id": self.id, "full_name": self.github.full_name, "default_branch": "main"}
        return found

    async def news(self, project: str = "shop") -> list[Any]:
        """What was brought in so far, oldest first."""

        def read() -> list[Any]:
            with sqlite3.connect(self.team.folder / "data" / "codespar.sqlite") as database:
                rows = database.execute(
                    "select body from inbox where source = 'github' and project = ? order by id", (project,)
                ).fetchall()
            bodies = [json.loads(row[0]) for row in rows]
            return [News.model_validate(body["news"]).what for body in bodies if "news" in body]

        return await asyncio.to_thread(read)

    async def heard(self) -> list[str]:
        def read() -> list[str]:
            with sqlite3.connect(self.team.folder / "data" / "codespar.sqlite") as database:
                rows = database.execute(
                    "select body from inbox where source = 'github' order by id"
                ).fetchall()
            return [body["message"]["content"] for row in rows if "message" in (body := json.loads(row[0]))]

        return await asyncio.to_thread(read)

    async def quiet(self) -> None:
        """Until every turn of the project is taken."""

        def waiting(unit: Any) -> bool:
            return not unit.projects_with_pending()

        await self._until(waiting, "turns do not end")

    async def _until(self, true: Callable[[Any], bool], otherwise: str) -> None:
        """Until it is true of the store."""
        deadline = time.monotonic() + 60
        while not await self.team.app.store.read(true):
            assert time.monotonic() < deadline, f"{otherwise}: {self.team.everything()}"
            await asyncio.sleep(0.02)

    async def audit(self, *actions: str) -> list[dict[str, Any]]:
        entries = await self.team.app.store.read(lambda unit: unit.audit_entries(500))
        return [one for one in entries if one["action"] in actions]

    async def looked(self) -> None:
        """Look once, and take what that brings."""
        await self.team.app.hosts.look("shop")
        await self.quiet()

    def told(self, words: str) -> list[str]:
        return [one.text for one in self.slack.seen(None) if words in one.text]

    async def settle(self) -> None:
        """Until what is to be told stands in Slack."""
        await self.quiet()
        await self._until(lambda unit: not unit.places_waiting(), "not all is told")
        await self._until(lambda unit: not unit.waiting_threads(("slack",)), "not all stands in Slack")
        await asyncio.sleep(0.3)  # for what must not come


def signature(body: bytes, secret: str) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def people(site: Site) -> list[dict[str, Any]]:
    slack, github = FakeSlack(), {"ada": site.ada}
    return [
        {
            "name": name.capitalize(),
            "id": name,
            "role": role,
            "identities": {"slack": slack.identity(name)}
            | ({"github": github[name]} if name in github else {}),
        }
        for name, role in PEOPLE.items()
    ]


@asynccontextmanager
async def linked(
    site: Site, seed: Path, folder: Path, *more: dict[str, Any], repository: str = "", **settings: Any
) -> AsyncIterator[Given]:
    """A server with the project `shop` at a new repository, and `more` projects. `{}` in `repository` is its full name."""
    name = f"shop-{next(NUMBERS)}"
    github = await asyncio.to_thread(site.host.repository, name, seed)
    about = await site.as_ada(github, "GET", "")
    rooms = [{"channel": "slack", "conversation": FakeSlack().room}]
    project = {"name": "shop", "repository": (repository or "{}").format(github.full_name), "channels": rooms}
    team = Team(
        folder / "house",
        [FakeSlack()],
        seed,
        settings={
            "github": {"api_url": site.url, "poll": 3600},
            "look_every": "1s",
            "people": people(site),
            "projects": [project | settings.pop("project", {}), *more],
            "sandbox": {"docker_host": "unix:///nonexistent/docker.sock"},
            **settings,
        },
    )
    async with team as up:
        given = Given(site, github, up, about["id"])
        await given.team.until(lambda: given.site.asked and "shop" in given.team.app.hosts._linked.ids)
        await given.looked()
        yield given
        assert given.slack.refusals == []


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@asynccontextmanager
async def served(team: Team) -> AsyncIterator[Server]:
    """The server on a port of its own, and how its owner reaches it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = uvicorn.Config(create_app(team.app, now), log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        await team.until(lambda: server.started)
        try:
            yield Server(f"http://127.0.0.1:{port}", (team.folder / "data" / "cli-token").read_text().strip())
        finally:
            server.should_exit = True
            await running


async def link(server: Server, repository: str, **more: Any) -> dict[str, Any]:
    async with Client(server) as client:
        name = repository.removesuffix(".git").rpartition("/")[2]
        return await client.post("/api/v1/projects", {"name": name, "repository": repository} | more)


PULL = {"number": 5, "title": "feat: a person's own", "draft": False, "merged": False, "merged_at": None}


def pull_opened(given: Given, head: str = "a" * 40, **more: Any) -> dict[str, Any]:
    payload = given.payload("pull_request", "opened", number=5)
    ours = {"id": given.id, "full_name": given.github.full_name}
    payload["pull_request"] |= PULL | more
    payload["pull_request"]["head"] |= {"sha": head, "ref": "feature/one"}
    for side in ("head", "base"):
        payload["pull_request"][side]["repo"] |= ours
    return payload


def comment_by(given: Given, body: str, id: int = 555, **more: Any) -> dict[str, Any]:
    payload = given.payload("issue_comment", "created")
    payload["issue"] |= {"number": 5}
    payload["comment"] |= {
        "id": id,
        "body": body,
        "user": {"login": "ada", "id": int(given.site.ada), "type": "User"},
    } | more
    return payload


def installation(given: Given, action: str) -> dict[str, Any]:
    payload = example("installation", action)
    payload["installation"]["account"]["login"] = "acme"
    payload["repositories"] = [{"id": given.id, "full_name": given.github.full_name}]
    return payload
