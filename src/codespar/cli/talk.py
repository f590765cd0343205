"""The one-shot commands that talk to a server: send, status, search, audit verify.

They print what the server says and decide nothing; with `as_json` exactly one JSON object goes to standard output.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
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


async def send_message(
    server: Server, message: str, *, project: str | None, wait: bool, timeout: float, as_json: bool
) -> bool:
    """Say it, print the answers and, with `wait`, follow the tasks it started. Returns whether nothing failed."""
    async with Client(server) as client:
        posted = await client.say(message, project=project)
        answers: list[Json] = posted["responses"]
        responses = [NormalizedResponse.model_validate(answer["response"]) for answer in answers]
        if not as_json:
            for response in responses:
                show(response)
        ok = all(response.tone is not Tone.FAILURE for response in responses)
        tasks: list[Json] = []
        if wait and (names := tasks_named(answers)):
            cursor = max((int(answer.get("seq", 0)) for answer in answers), default=0)
            tasks = await _follow(client, str(posted["thread"]), names, cursor, timeout, quiet=as_json)
            ok = ok and all(task["status"] == "completed" for task in tasks)
        if as_json:
            write_json({**posted, "tasks": tasks, "ok": ok})
        return ok


async def _follow(
    client: Client, thread: str, names: list[str], cursor: int, timeout: float, *, quiet: bool
) -> list[Json]:
    """Print what is said of the tasks until all have ended. Goes on over a restart of the server. Raises `CodesparError`."""
    deadline, outage, told = time.monotonic() + timeout, None, ""
    while True:
        try:
            tasks = [await client.get(f"/api/v1/tasks/{name}") for name in names]
            news = await client.messages(thread, cursor)
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
            if quiet or response.agent not in names:
                continue
            if response.progress is None:
                show(response)
            elif (line := progress_line(response)) != told:
                told = line
                write(line)
        if all(task["status"] in FINAL for task in tasks):
            return tasks
        if time.monotonic() > deadline:
            left = ", ".join(
                f"{task['id']} ({task['status']})" for task in tasks if task["status"] not in FINAL
            )
            raise CodesparError(
                f"after {timeout:.0f} s these have not ended: {left}. They go on; `codespar status` shows them."
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
            done = (await client.post(f"/api/v1/projects/{chosen}/webhook", {"url": webhook}))["done"]
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
