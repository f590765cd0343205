"""`codespar demo`: four coding tasks at once, from message to pull request, on a server of its own that it starts, watches and ends.

A demo that was interrupted is taken up again by the next run: its messages are sent under the same ids, so nothing is done twice. When
the server dies it is started again, and goes on. The model is real with ANTHROPIC_API_KEY, else a scripted one, and that is always said.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codespar.channels.cli import one_line
from codespar.cli.client import Client, Json, Server, ServerUnreachable
from codespar.cli.demoview import View
from codespar.cli.processes import Alone, clear, end, end_kept, end_server, free_port, holder
from codespar.cli.talk import FINAL, tasks_named, write_json
from codespar.domain.base import CodesparError, Value
from codespar.domain.tasks import Limits

READY_SECONDS = 20.0
LOOK_SECONDS = 0.3
RESTARTS = 5  # of a server that dies under the demo
KEY = "ANTHROPIC_API_KEY"


@dataclass(frozen=True)
class Plan:
    """What to show: `repository` and `tasks` of the person's own, or the sample project and its four tasks."""

    repository: str | None
    tasks: tuple[str, ...]
    keep: bool
    data: Path
    seconds: float
    as_json: bool


class Notes(Value):
    """`demo.json`: what a later run needs to go on with this one."""

    run: str
    project: str
    repository: str
    instructions: tuple[str, ...]
    scripted: bool
    port: int
    model_port: int
    finished: bool = False

    def message_id(self, place: int) -> str:
        return f"demo-{self.run}-{place}"


@dataclass
class Watched:
    """What was seen while the tasks ran."""

    ids: list[str] = field(default_factory=list)
    tasks: dict[str, Json] = field(default_factory=dict)
    restarts: int = 0


async def run_demo(plan: Plan, environment: Mapping[str, str]) -> bool:
    """Run it. Returns whether everything the demo promises held. Raises `CodesparError`."""
    demo = Demo(plan, environment)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    with Alone(plan.data):
        try:
            return await demo.run()
        except asyncio.CancelledError:
            demo.view.line("Interrupted. The same command goes on where this one stopped.")
            return False


class Demo:
    def __init__(self, plan: Plan, environment: Mapping[str, str]) -> None:
        self._plan = plan
        self._environment = dict(environment)
        self.view = View(live=sys.stdout.isatty() and not plan.as_json, quiet=plan.as_json)
        self._began = time.monotonic()
        self._kept = False  # the server stays up at the end

    async def run(self) -> bool:
        await end_kept(self._plan.data, self.view.line)
        notes = await self._notes()
        self._say_model(notes)
        await self._build_image(notes)
        model = await self._start_model(notes) if notes.scripted else None
        watched = Watched()
        try:
            async with self._serving(notes, watched) as server, Client(server) as client:
                await self._post(client, notes, watched)
                await self._watch(client, notes, watched)
                pulls: list[Json] = (await client.get("/api/v1/prs", project=notes.project))["prs"]
                audit = await client.get("/api/v1/audit/verify")
                self._write(notes.evolve(finished=True))
                self._kept = self._plan.keep
        finally:
            self.view.close()
            if model is not None and not self._kept:
                await end(model)
        problems = self._problems(notes, watched, pulls, audit)
        self._tell(notes, watched, problems)
        if self._kept:
            self.view.line(f"The server stays up at {server.url}. Talk to it:")
            self.view.line(f"  export CODESPAR_CONFIG={self._config}")
            self.view.line(f"  {_program()} chat      (or: send, status). The next demo ends it.")
        return not problems

    # preparing

    async def _notes(self) -> Notes:
        """Of the demo that was interrupted here, or of a new one."""
        instructions = self._plan.tasks
        scripted = not self._environment.get(KEY)
        found = self._read()
        if found is not None and not found.finished and self._fits(found, scripted):
            self.view.line("An earlier demo was interrupted here: going on with it.")
            return found
        clear(self._plan.data)
        repository, project = await self._repository()
        if not instructions:
            from codespar.scripted.demo import DEMO_INSTRUCTIONS

            instructions = DEMO_INSTRUCTIONS
        notes = Notes(
            run=os.urandom(4).hex(),
            project=project,
            repository=repository,
            instructions=instructions,
            scripted=scripted,
            port=free_port(),
            model_port=free_port(),
        )
        self._write(notes)
        return notes

    def _fits(self, found: Notes, scripted: bool) -> bool:
        wanted = self._plan.repository
        same = wanted is None or _absolute(wanted) == found.repository
        return same and found.scripted == scripted and self._plan.tasks in ((), found.instructions)

    async def _repository(self) -> tuple[str, str]:
        from codespar.forges.local import create_repository
        from codespar.scripted.sample import NAME, write_sample_project

        if self._plan.repository is not None:
            return _absolute(self._plan.repository), "demo"
        tree, bare = self._plan.data / "sample", self._plan.data / f"{NAME}.git"
        write_sample_project(tree)
        await create_repository(bare, tree)
        return str(bare), NAME

    def _say_model(self, notes: Notes) -> None:
        if notes.scripted:
            self.view.line(
                f"MODEL: SCRIPTED. {KEY} is not set, so a local server with prepared answers plays the model's part. Claude Code, Docker,"
                " git, the queue and the forge are real."
            )
        else:
            self.view.line(f"MODEL: REAL. {KEY} is set; the tasks cost money, at most their budget each.")

    @property
    def _config(self) -> Path:
        return self._plan.data / "codespar.yaml"

    def _write_config(self, notes: Notes) -> None:
        import json

        lines = [
            "# Written by `codespar demo`.",
            "data_dir: .",
            f"server: {{port: {notes.port}}}",
            "projects:",
            f"  - {{name: {notes.project}, repository: {json.dumps(notes.repository)}}}",
        ]
        if notes.scripted:
            lines.append(f"model: {{base_url: 'http://127.0.0.1:{notes.model_port}'}}")
        self._config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    async def _build_image(self, notes: Notes) -> None:
        from codespar.app import build_image
        from codespar.config import load_settings

        self._write_config(notes)
        await build_image(load_settings(self._config, {}), self.view.line)

    async def _start_model(self, notes: Notes) -> asyncio.subprocess.Process:
        process = await self._start(
            "-m", "codespar.scripted", "--port", str(notes.model_port), log="model.log"
        )
        (self._plan.data / "model.pid").write_text(str(process.pid))
        return process

    async def _start(self, *arguments: str, log: str) -> asyncio.subprocess.Process:
        with (self._plan.data / log).open("ab") as output:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # a Ctrl-C is ours to pass on
            )

    # the server

    @asynccontextmanager
    async def _serving(self, notes: Notes, watched: Watched) -> AsyncGenerator[Server]:
        """The server, started again when it dies, ended and swept at the end."""
        process = await self._start_server(notes)
        keeper = asyncio.create_task(self._keep_alive(notes, watched, process))
        try:
            token = (self._plan.data / "cli-token").read_text().strip()
            yield Server(f"http://127.0.0.1:{notes.port}", token)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            if not self._kept:
                await end_server(self._plan.data)
                await self._sweep()

    async def _start_server(self, notes: Notes) -> asyncio.subprocess.Process:
        process = await self._start("-m", "codespar", "up", "--config", str(self._config), log="server.log")
        deadline = time.monotonic() + READY_SECONDS
        async with Client(Server(f"http://127.0.0.1:{notes.port}")) as client:
            while time.monotonic() < deadline:
                with suppress(ServerUnreachable):
                    if (await client.readiness())[0]:
                        return process
                if process.returncode is not None:
                    break
                await asyncio.sleep(0.05)
        log = self._plan.data / "server.log"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        raise CodesparError(f"the server did not become ready; the end of {log}:\n{tail}")

    async def _keep_alive(self, notes: Notes, watched: Watched, process: asyncio.subprocess.Process) -> None:
        while True:
            await process.wait()
            await asyncio.sleep(1.0)  # somebody may be starting it already
            if holder(self._plan.data) is not None:
                await asyncio.sleep(1.0)
                continue
            if watched.restarts >= RESTARTS:
                self.view.line(f"The server died {RESTARTS + 1} times; see {self._plan.data / 'server.log'}.")
                return
            watched.restarts += 1
            self.view.line("The server has died. Starting it again; the tasks go on.")
            process = await self._start_server(notes)

    async def _sweep(self) -> None:
        """Remove the demo's containers: there are some only after an interruption."""
        from codespar.app import make_sandbox
        from codespar.config import load_settings

        sandbox = make_sandbox(load_settings(self._config, {}))
        try:
            await sandbox.sweep(set())
        finally:
            await sandbox.close()

    # the tasks

    async def _post(self, client: Client, notes: Notes, watched: Watched) -> None:
        for place, instruction in enumerate(notes.instructions):
            self.view.line(f"> @codespar instruct {one_line(instruction)}")
            answer = await self._patiently(
                client.say, f"instruct {instruction}", thread="demo", id=notes.message_id(place)
            )
            ids = tasks_named(answer["responses"])
            if len(ids) != 1:
                self.view.messages(answer["responses"])
                raise CodesparError(f"the instruction {place + 1} did not start a task")
            watched.ids += ids

    async def _watch(self, client: Client, notes: Notes, watched: Watched) -> None:
        """Show what is said and how the slots move until every task has ended."""
        threads = {f"cli/{notes.project}/demo": 0, f"cli/{notes.project}/": 0}
        deadline = self._began + self._plan.seconds
        while True:
            news: list[Json] = []
            for thread, cursor in threads.items():
                found = await self._patiently(client.messages, thread, cursor)
                news += found
                threads[thread] = max([cursor, *(int(message["seq"]) for message in found)])
            self.view.messages(sorted(news, key=lambda message: int(message["seq"])))
            for id in watched.ids:
                watched.tasks[id] = await self._patiently(client.get, f"/api/v1/tasks/{id}")
            self.view.slots([watched.tasks[id] for id in watched.ids])
            if all(task["status"] in FINAL for task in watched.tasks.values()):
                self.view.close()
                return
            if any(task["status"] == "waiting" for task in watched.tasks.values()):
                raise CodesparError(
                    "a task has reached its limit and asks; run the demo with --keep to answer"
                )
            if time.monotonic() > deadline:
                raise CodesparError(
                    f"the tasks did not end within {self._plan.seconds:.0f} s; `--timeout` allows more"
                )
            await asyncio.sleep(LOOK_SECONDS)

    async def _patiently(self, call: Any, *arguments: Any, **named: Any) -> Any:
        """A call that waits for a server which is being started again."""
        deadline = time.monotonic() + READY_SECONDS + 10
        while True:
            try:
                return await call(*arguments, **named)
            except ServerUnreachable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)

    # the end

    def _problems(self, notes: Notes, watched: Watched, pulls: list[Json], audit: Json) -> list[str]:
        """What did not hold of what the demo promises."""
        found: list[str] = []
        tasks = [watched.tasks[id] for id in watched.ids]
        for place, task in enumerate(tasks, start=1):
            result = task["result"] or {}
            if task["status"] != "completed":
                found.append(f"{task['id']} {task['status']}: {one_line(str(result.get('summary', '')))}")
                continue
            if place <= 3 and task["queuedPosition"] is not None:
                found.append(f"{task['id']} was queued although a slot was free")
            if place > 3 and task["queuedPosition"] != place - 3:
                found.append(f"{task['id']} was told position {task['queuedPosition']}, not {place - 3}")
            if not result["additions"] + result["deletions"]:
                found.append(f"{task['id']} has an empty diff")
            if (
                notes.scripted
                and self._plan.repository is None
                and (result["tests"] or {}).get("exitCode") != 0
            ):
                found.append(f"{task['id']}: the tests did not pass")
            if result["costMicros"] <= 0:
                found.append(f"{task['id']} has no cost")
            found += [f"{task['id']}: {problem}" for problem in isolation_problems(task["isolation"])]
        numbers = [task["result"]["prNumber"] for task in tasks if task["status"] == "completed"]
        if len(set(numbers)) != len(numbers):
            found.append(f"pull requests are not distinct: {numbers}")
        branches = [pull["branch"] for pull in pulls if pull["number"] in numbers]
        if len(set(branches)) != len(numbers):
            found.append(f"{len(numbers)} pull requests have {len(set(branches))} branches")
        if not audit["ok"]:
            found.append(f"the audit chain is broken: {audit['problem']}")
        return found

    def _tell(self, notes: Notes, watched: Watched, problems: list[str]) -> None:
        tasks = [watched.tasks[id] for id in watched.ids]
        seconds = time.monotonic() - self._began
        if self._plan.as_json:
            write_json(
                {
                    "ok": not problems,
                    "problems": problems,
                    "model": "scripted" if notes.scripted else "real",
                    "repository": notes.repository,
                    "seconds": round(seconds, 1),
                    "serverRestarts": watched.restarts,
                    "tasks": [summary(task) for task in tasks],
                }
            )
            return
        self.view.summary([summary(task) for task in tasks], notes.repository)
        for problem in problems:
            self.view.line(f"✗ {problem}")
        self._say_model(notes)
        made = f"{len(tasks) - sum(task['status'] != 'completed' for task in tasks)} pull requests in {seconds:.0f} s"
        self.view.line(f"{'✅ The demo held' if not problems else '❌ The demo did not hold'}: {made}.")

    def _read(self) -> Notes | None:
        try:
            return Notes.model_validate_json((self._plan.data / "demo.json").read_bytes())
        except (OSError, ValueError):  # none, or of another release: the demo begins anew
            return None

    def _write(self, notes: Notes) -> None:
        path = self._plan.data / "demo.json"
        path.with_suffix(".part").write_text(notes.model_dump_json(by_alias=True), encoding="utf-8")
        path.with_suffix(".part").replace(path)


def summary(task: Json) -> Json:
    """A task as the JSON summary has it."""
    result = task["result"] or {}
    kept = ("branch", "commit", "prNumber", "prTitle", "filesChanged", "additions", "deletions", "tests")
    return {
        "id": task["id"],
        "instruction": task["instruction"],
        "state": task["status"],
        "queuePosition": task["queuedPosition"],
        "startedAt": task["startedAt"],
        "endedAt": task["endedAt"],
        **{name: result.get(name) for name in kept},
        "costUsd": (result.get("costMicros") or 0) / 1_000_000,
        "isolation": task["isolation"],
    }


def isolation_problems(isolation: Json) -> list[str]:
    """What the live container lacked of the isolation that is promised for every task."""
    limits = Limits()
    wanted: dict[str, Any] = {
        "network": "none",
        "readOnlyRootfs": True,
        "privileged": False,
        "capDrop": ["ALL"],
        "capAdd": [],
        "memory": limits.memory_bytes,
        "cpus": limits.cpus,
    }
    found = [
        f"isolation: {name} is {isolation.get(name)}, not {value}"
        for name, value in wanted.items()
        if isolation.get(name) != value
    ]
    if "no-new-privileges" not in isolation.get("securityOpt", []):
        found.append("isolation: new privileges are allowed")
    if str(isolation.get("user", "0")).partition(":")[0] in ("", "0", "root"):
        found.append("isolation: it ran as root")
    if not isolation.get("pidsLimit"):
        found.append("isolation: the number of processes is not limited")
    writable = [mount["target"] for mount in isolation.get("mounts", []) if not mount["readOnly"]]
    if writable != ["/output"]:
        found.append(f"isolation: writable mounts are {writable}, not /output alone")
    return found


def _absolute(repository: str) -> str:
    path = Path(repository).expanduser()
    return str(path.resolve()) if path.exists() else repository


def _program() -> str:
    """How this program is called from here."""
    path = Path(sys.executable).with_name("codespar")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
