"""The one-shot commands that talk to a server: send, status, search, audit verify.

They print what the server says and decide nothing; with `as_json` exactly one JSON object goes to standard output.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from codespar.channels.cli import WIDEST, clean, one_line, progress_line, render
from codespar.cli.client import Client, Json, Server, ServerUnreachable
from codespar.domain.base import CodesparError
from codespar.domain.messages import NormalizedResponse, Tone
from codespar.domain.tasks import TaskStatus, money

FINAL = frozenset(status.value for status in TaskStatus if status.final)
LOOK_SECONDS = 0.4  # between looks at tasks that are waited for
OUTAGE_SECONDS = 60.0  # a server that is started again within it is waited for


def write(text: str) -> None:
    """A line of standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_json(body: Any) -> None:
    write(json.dumps(body, ensure_ascii=False, indent=2))


def show(response: NormalizedResponse) -> None:
    """A response: a card in a terminal, plain text when piped."""
    if not sys.stdout.isatty():
        write(render_plain(response) + "\n")
        return
    console = Console()
    console.print(render(response, plain=False, width=min(console.width, WIDEST)))


def render_plain(response: NormalizedResponse) -> str:
    """The plain form, which is the same everywhere."""
    return str(render(response, plain=True))


def tasks_named(answers: list[Json]) -> list[str]:
    """The ids of the tasks the answers speak of, in order."""
    found: dict[str, None] = {}
    for answer in answers:
        response = NormalizedResponse.model_validate(answer["response"])
        named = [line.value for line in response.fields if line.name == "Agent"]
        for name in (*named, response.agent or ""):
            if name.startswith("task-"):
                found[name] = None
    return list(found)


@dataclass(frozen=True)
class Begun:
    """What a message started: ids of tasks and of reviews, and the origins by which the ends of merges and approvals are known."""

    tasks: tuple[str, ...]
    reviews: tuple[str, ...]
    pulls: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.tasks or self.reviews or self.pulls)

    def concerns(self, message: Json, response: NormalizedResponse) -> bool:
        return response.agent in (*self.tasks, *self.reviews) or self.ends(message) is not None

    def ends(self, message: Json) -> str | None:
        """The origin of the merge or approval whose end the message tells."""
        key = str(message["key"])
        return next((origin for origin in self.pulls if key.endswith(f"-{origin}:done")), None)


def begun(answers: list[Json]) -> Begun:
    """What the answers say was started."""
    reviews, pulls = list[str](), list[str]()
    for answer in answers:
        response = NormalizedResponse.model_validate(answer["response"])
        if response.tone is not Tone.PROGRESS:
            continue
        if response.agent is None:
            pulls.append(str(answer["key"]).partition(":")[0])
        elif response.agent.startswith("review-"):
            reviews.append(response.agent)
    return Begun(tuple(tasks_named(answers)), tuple(reviews), tuple(pulls))


async def send_message(
    server: Server, message: str, *, project: str | None, wait: bool, timeout: float, as_json: bool
) -> bool:
    """Say it, print the answers and, with `wait`, follow what it started. Returns whether nothing failed."""
    async with Client(server) as client:
        posted = await client.say(message, project=project)
        answers: list[Json] = posted["responses"]
        responses = [NormalizedResponse.model_validate(answer["response"]) for answer in answers]
        if not as_json:
            for response in responses:
                show(response)
        ok = all(response.tone is not Tone.FAILURE for response in responses)
        tasks: list[Json] = []
        if wait and (started := begun(answers)):
            cursor = max((int(answer.get("seq", 0)) for answer in answers), default=0)
            tasks, news = await _follow(client, posted, started, cursor, timeout, quiet=as_json)
            said = [NormalizedResponse.model_validate(one["response"]) for one in news]
            ok = ok and all(task["status"] == "completed" for task in tasks)
            ok = ok and all(response.tone is not Tone.FAILURE for response in said)
            answers += [one for one, response in zip(news, said, strict=True) if response.progress is None]
        if as_json:
            write_json({**posted, "tasks": tasks, "ok": ok})
        return ok


async def _follow(
    client: Client, posted: Json, started: Begun, cursor: int, timeout: float, *, quiet: bool
) -> tuple[list[Json], list[Json]]:
    """Print what is said of it until all has ended. Goes on over a restart of the server. Returns the tasks and what was said.

    Raises `CodesparError`.
    """
    deadline, outage, told = time.monotonic() + timeout, None, ""
    said: list[Json] = []
    open_pulls = set(started.pulls)
    while True:
        try:
            tasks = [await client.get(f"/api/v1/tasks/{name}") for name in started.tasks]
            agents = await client.get("/api/v1/agents", project=posted["project"]) if started.reviews else {}
            news = await client.messages(str(posted["thread"]), cursor)
            outage = None
        except ServerUnreachable:
            outage = outage or time.monotonic()
            if time.monotonic() - outage > OUTAGE_SECONDS:
                raise
            await asyncio.sleep(LOOK_SECONDS)
            continue
        for message in news:
            cursor = max(cursor, int(message["seq"]))
            response = NormalizedResponse.model_validate(message["response"])
            if not started.concerns(message, response):
                continue
            said.append(message)
            open_pulls.discard(started.ends(message) or "")
            if quiet:
                continue
            if response.progress is None:
                show(response)
            elif (line := progress_line(response)) != told:
                told = line
                write(line)
        live = tuple(str(agent["id"]) for agent in agents.get("agents", ()))
        left = [f"{task['id']} ({task['status']})" for task in tasks if task["status"] not in FINAL]
        left += [name for name in started.reviews if any(agent.startswith(name) for agent in live)]
        left += ["what was asked of the pull request"] * len(open_pulls)
        if not left:
            return tasks, said
        if time.monotonic() > deadline:
            raise CodesparError(
                f"after {timeout:.0f} s these have not ended: {', '.join(left)}. They go on; `codespar status` shows them."
            )
        await asyncio.sleep(LOOK_SECONDS)


async def link_repository(
    server: Server, repository: str, name: str | None, webhook: str | None, *, as_json: bool
) -> None:
    """Make a repository a project. A path is one of this machine, whatever folder the server runs in."""
    here = Path(repository).expanduser()
    meant = str(here.resolve()) if here.exists() else repository
    last = re.split(r"[/:]", meant.rstrip("/").removesuffix(".git"))[-1].lower()
    chosen = name or re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:60] or "project"
    async with Client(server) as client:
        linked = await client.post("/api/v1/projects", {"name": chosen, "repository": meant})
        done = None
        if webhook is not None:
            try:
                done = (await client.post(f"/api/v1/projects/{chosen}/webhook", {"url": webhook}))["done"]
            except CodesparError as error:
                told = f"{chosen} is linked, but no webhook was registered: {error}"
                raise CodesparError(f"{told.rstrip('.')}. News until then: {linked['watched']}") from error
    if as_json:
        write_json(linked | {"webhook": done})
        return
    write(f"✅ {linked['name']} is linked to {one_line(str(linked['repository']))}")
    write(f"News: {one_line(str(done or linked['watched']))}")


async def show_status(server: Server, *, project: str | None, as_json: bool) -> None:
    """The server, its projects and their open work."""
    async with Client(server) as client:
        ready, readiness = await client.readiness()
        version = await client.get("/api/v1/version")
        projects = (await client.get("/api/v1/projects"))["projects"]
        tasks = [
            task
            for status in ("running", "queued", "waiting")
            for task in (await client.get("/api/v1/tasks", project=project, status=status))["tasks"]
        ]
        approvals = (await client.get("/api/v1/approvals", project=project, state="pending"))["approvals"]
    if as_json:
        server_view = {"url": server.url, "ready": ready, **readiness, **version}
        write_json({"server": server_view, "projects": projects, "tasks": tasks, "approvals": approvals})
        return
    write(
        f"Server: {server.url}, version {version['version']}, {'ready' if ready else readiness.get('why', 'not ready')}"
    )
    write(f"You: {one_line(str(version.get('person', '')))} ({version.get('role', '')})")
    shown = [entry for entry in projects if project in (None, entry["name"])]
    if not shown:
        write("No project is linked yet: `codespar link <repository>` links one.")
    for entry in shown:
        mine = [task for task in tasks if task["project"] == entry["name"]]
        running = sum(task["status"] == "running" for task in mine)
        paused = ", paused" if entry.get("paused") else ""
        write(
            f"\n{entry['name']} ({one_line(str(entry['repository']))}){paused}: {running} running, {len(mine) - running} waiting"
        )
        for task in sorted(mine, key=_order):
            write(f"  {task_line(task)}")
    if approvals:
        write("\nWaiting for your answer:")
        for approval in approvals:
            write(f"  approve {approval['token']}: {one_line(str(approval['actionSummary']))}")


def _order(task: Json) -> tuple[int, int]:
    return (("running", "waiting", "queued").index(task["status"]), task.get("position") or 0)


def task_line(task: Json) -> str:
    """A task on one line: id, where it stands, what it costs, what it is about."""
    state = f"queued, position {task['position']}" if task.get("position") else str(task["status"])
    phase = one_line(str(task.get("phase") or ""))
    doing = f": {phase}" if task["status"] == "running" and phase else ""
    instruction = one_line(str(task["instruction"]))
    short = instruction if len(instruction) <= 60 else instruction[:59] + "…"
    return f'{task["id"]}  {state}{doing}  {money(task.get("costMicros") or 0)}  "{short}"'


async def show_hits(server: Server, words: str, *, project: str | None, as_json: bool) -> bool:
    """The places that answer a search. Returns whether there is one."""
    async with Client(server) as client:
        found = await client.get("/api/v1/search", q=words, project=project)
    hits: list[Json] = found["hits"]
    if as_json:
        write_json(found)
        return bool(hits)
    if not hits:
        sys.stderr.write(f"Nothing in the code answers {words!r}. Try fewer words, or a part of a name.\n")
    console = Console(soft_wrap=True)
    for hit in hits:
        name = f" {hit['kind']} {one_line(str(hit['symbol']))}" if hit.get("symbol") else ""
        line = Text(f"{one_line(str(hit['path']))}:{hit['line']}", style="cyan")
        console.print(
            line.append(name, style="bold").append(f"  {clean(str(hit['snippet'])).strip()}", style="default")
        )
    return bool(hits)


async def verify_audit(server: Server, *, as_json: bool) -> bool:
    """Whether the audit chain is whole."""
    async with Client(server) as client:
        report = await client.get("/api/v1/audit/verify")
    if as_json:
        write_json(report)
    elif report["ok"]:
        write(f"✅ The audit chain is whole: {report['entries']} entries.")
    else:
        write(f"❌ The audit chain is broken: {one_line(str(report['problem']))}")
        write("Next: compare the database with a backup; nothing after the named entry can be relied on.")
    return bool(report["ok"])
