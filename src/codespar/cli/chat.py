"""`codespar chat`: a conversation with a project's agent, typed in a terminal or piped in line by line.

In a terminal one types on while answers and news appear above the prompt and running tasks show in the toolbar. Nothing is decided here,
nothing is printed twice, and no text of others reaches the terminal uncleaned.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.patch_stdout import patch_stdout

from codespar.channels.cli import clean, duration, one_line
from codespar.cli.client import Client, Json, Refused, Server, ServerUnreachable
from codespar.cli.talk import FINAL, LOOK_SECONDS, OUTAGE_SECONDS, render_plain, show, write
from codespar.domain.base import CodesparError
from codespar.domain.commands import COMMANDS
from codespar.domain.messages import NormalizedResponse, Tone
from codespar.domain.tasks import money

LEAVING = frozenset({"exit", "quit"})
CACHE_SECONDS = 1.0  # how long names for completion are taken as fresh
TOOLBAR_SECONDS = 1.0  # between redraws of the elapsed times
CHUNK = 65_536  # bytes of piped input read at once


async def run_chat(server: Server, project: str | None) -> int:
    """Talk until the person leaves or the input ends, and return the exit code.

    In a terminal it is 0. With piped input it is 1 if an answer was a failure, and a refusal by the server is raised.
    Raises `ServerUnreachable` when no server answers at the start, `CodesparError` when it is unclear which project is meant.
    """
    async with Client(server) as client:
        name = await _choose(client, project)
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return await _converse_by_line(client, name)
        person = str((await client.get("/api/v1/version"))["id"])
        await Chat(client, name, person).run()
        return 0


async def _choose(client: Client, wanted: str | None) -> str:
    """The name of the project to talk to."""
    names = [str(entry["name"]) for entry in (await client.get("/api/v1/projects"))["projects"]]
    if wanted in names:
        return str(wanted)
    if wanted is None and len(names) == 1:
        return names[0]
    if not names:
        raise CodesparError(
            "no project is linked yet: `codespar link <repository>` links one, or name it under `projects:` in codespar.yaml"
        )
    problem = "several projects are linked" if wanted is None else f"there is no project {wanted}"
    raise CodesparError(f"{problem}. Say which with --project; one of: {', '.join(names)}")


async def _say(client: Client, project: str, text: str) -> Json:
    """Send a message and return what was answered. Over a short outage it is sent again under its id, so it takes effect once.

    Raises `ServerUnreachable` when the outage lasts, `Refused`.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + OUTAGE_SECONDS
    while True:
        try:
            return await client.say(text, project=project, id=own)
        except ServerUnreachable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(LOOK_SECONDS)


# piped input


async def _converse_by_line(client: Client, project: str) -> int:
    """Send every line of standard input, each after the answer to the one before."""
    failed = False
    async for line in _lines(sys.stdin.fileno()):
        text = line.strip()
        if text.lower() in LEAVING:
            break
        if not text:
            continue
        for answer in (await _say(client, project, text))["responses"]:
            response = NormalizedResponse.model_validate(answer["response"])
            failed = failed or response.tone is Tone.FAILURE
            write(render_plain(response) + "\n")
    return 1 if failed else 0


async def _lines(source: int) -> AsyncIterator[str]:
    """The lines of a file descriptor, of any kind: a pipe, a file or a terminal."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    rest = ""
    while chunk := await _read(source):
        *whole, rest = (rest + decode(chunk)).split("\n")
        for line in whole:
            yield line
    if rest := rest + decode(b"", True):
        yield rest


async def _read(source: int) -> bytes:
    """The next bytes, or none at the end of input."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[bytes] = loop.create_future()

    def settle(chunk: bytes, error: OSError | None) -> None:
        if arrived.cancelled():
            return
        if error is not None:
            arrived.set_exception(error)
        else:
            arrived.set_result(chunk)

    def read() -> None:
        try:
            outcome: tuple[bytes, OSError | None] = os.read(source, CHUNK), None
        except OSError as error:
            outcome = b"", error
        with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits any more
            loop.call_soon_threadsafe(settle, *outcome)

    # A daemon, and no pool: a read that never returns must not keep the program from ending.
    threading.Thread(target=read, daemon=True, name="stdin").start()
    try:
        return await arrived
    except OSError as error:
        raise CodesparError(
            f"standard input cannot be read: {error.strerror}. Pipe lines into it, or run this in a terminal."
        ) from error


# what the toolbar shows


class Board:
    """The project's open tasks as last heard of, oldest first."""

    def __init__(self) -> None:
        self._tasks: dict[str, Json] = {}

    def replace(self, tasks: Sequence[Json]) -> None:
        """Forget everything and begin with these, newest first."""
        self._tasks = {str(task["id"]): task for task in reversed(tasks) if task["status"] not in FINAL}

    def put(self, task: Json) -> None:
        """A task has changed."""
        if task["status"] in FINAL:
            self._tasks.pop(str(task["id"]), None)
        else:
            self._tasks[str(task["id"])] = task

    def note(self, response: NormalizedResponse) -> None:
        """An in-place edit told how far a task is."""
        task, progress = self._tasks.get(response.agent or ""), response.progress
        if task is not None and progress is not None:
            self._tasks[str(task["id"])] = {
                **task,
                "phase": progress.phase,
                "costMicros": max(progress.cost_micros, int(task.get("costMicros") or 0)),
            }

    def lines(self, now: datetime) -> list[str]:
        """A line for every running task, then what waits; empty when nothing is open."""
        found = [_running(task, now) for task in self._tasks.values() if task["status"] == "running"]
        counts = {
            "queued": sum(task["status"] == "queued" for task in self._tasks.values()),
            "waiting for an answer": sum(task["status"] == "waiting" for task in self._tasks.values()),
        }
        if waiting := [f"{count} {what}" for what, count in counts.items() if count]:
            found.append(", ".join(waiting))
        return found


def _running(task: Json, now: datetime) -> str:
    began = task.get("startedAt")
    elapsed = (now - datetime.fromisoformat(str(began))).total_seconds() if began else 0.0
    phase = one_line(str(task.get("phase") or "")) or "starting"
    return f"{task['id']} · {phase} · {duration(elapsed)} · {money(int(task.get('costMicros') or 0))}"


# completion


@dataclass(frozen=True)
class Names:
    """What can be named in a message, each with a word of explanation."""

    open_tasks: tuple[tuple[str, str], ...] = ()
    failed_tasks: tuple[tuple[str, str], ...] = ()
    approvals: tuple[tuple[str, str], ...] = ()
    projects: tuple[tuple[str, str], ...] = ()


_CHOICES = re.compile(r"\[(\w+(?:\|\w+)+)\]")  # `[open|closed]` in a usage; `[n]` and `[reason]` are no words
_COMMANDS = {spec.name: spec for spec in COMMANDS if spec.available}
_PROSE = frozenset({"instruct", "fix", "search"})  # what follows is for an agent, or for the index
_OF_PROJECTS = frozenset({"status", "queue", "logs", "prs", "autonomy", "audit", "memory"})
_FIRST: Mapping[str, Callable[[Names], Sequence[tuple[str, str]]]] = {
    "approve": lambda names: names.approvals,
    "reject": lambda names: names.approvals,
    "cancel": lambda names: names.open_tasks,
    "retry": lambda names: names.failed_tasks,
    "help": lambda _: [(name, spec.summary) for name, spec in _COMMANDS.items()],
}


def offers(text: str, names: Names) -> list[tuple[str, str, str]]:
    """What may stand where `text` ends, as (what is typed of it, the whole word, explanation)."""
    before, beginning = text.lstrip(), True
    first, space, after = before.partition(" ")
    if space and first.lower() in {name for name, _ in names.projects}:  # `shop status`: a command follows
        before, beginning = after.lstrip(), False
        first, space, after = before.partition(" ")
    command, candidates = first.lower(), list[tuple[str, str]]()
    typed = before.rpartition(" ")[2]
    if not space or command == "list":
        typed = before
        candidates += [(name, spec.summary) for name, spec in _COMMANDS.items()]
        if beginning:
            candidates += [*names.projects, *((word, "leave") for word in sorted(LEAVING))]
    elif command in _FIRST:
        candidates += _FIRST[command](names) if " " not in after.lstrip() else ()
    elif command in _COMMANDS and command not in _PROSE:
        choices = _CHOICES.findall(_COMMANDS[command].usage)
        candidates += [(word, "") for group in choices for word in group.split("|")]
        candidates += names.open_tasks if command in ("status", "diff") else ()
        candidates += names.projects if command in _OF_PROJECTS else ()
    lowered = typed.lower()
    return [(typed, word, one_line(why)) for word, why in candidates if word.lower().startswith(lowered)]


def _named(
    entries: Sequence[Json], name: str, why: str, keep: Callable[[Json], bool] = lambda _: True
) -> tuple[tuple[str, str], ...]:
    return tuple(
        (one_line(str(entry[name])), one_line(str(entry.get(why) or ""))) for entry in entries if keep(entry)
    )


class Words(Completer):
    """Completes command words, tasks, tokens and projects, as the server knows them now."""

    def __init__(self, client: Client, project: str) -> None:
        self._client = client
        self._project = project
        self._names = Names()
        self._read_at = float("-inf")

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> list[Completion]:
        """What fits before the cursor, from what is known already."""
        text = document.text_before_cursor
        if "\n" in text:
            return []
        return [
            Completion(word, start_position=-len(typed), display_meta=why)
            for typed, word, why in offers(text, self._names)
        ]

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """The same, from what the server says."""
        await self._refresh()
        for found in self.get_completions(document, complete_event):
            yield found

    async def _refresh(self) -> None:
        if time.monotonic() - self._read_at < CACHE_SECONDS:
            return
        self._read_at = time.monotonic()
        try:
            tasks, approvals, projects = await asyncio.gather(
                self._client.get("/api/v1/tasks", project=self._project),
                self._client.get("/api/v1/approvals", project=self._project, state="pending"),
                self._client.get("/api/v1/projects"),
            )
        except (ServerUnreachable, Refused):
            return  # completion goes on with what it knew; the conversation itself tells of the trouble
        self._names = Names(
            open_tasks=_named(tasks["tasks"], "id", "instruction", lambda task: task["status"] not in FINAL),
            failed_tasks=_named(
                tasks["tasks"], "id", "instruction", lambda task: task["status"] in ("failed", "cancelled")
            ),
            approvals=_named(approvals["approvals"], "token", "actionSummary"),
            projects=_named(projects["projects"], "name", "repository"),
        )


# the terminal


class Chat:
    """One conversation in a terminal: the prompt, the messages on their way out, and the stream of what happens."""

    def __init__(self, client: Client, project: str, person: str) -> None:
        self._client = client
        self._project = project
        self._board = Board()
        self._threads = {f"cli/{project}/{person}", f"cli/{project}/"}  # one's own, and the project's channel
        self._shown: dict[str, int] = {}  # message key -> the newest seq that was printed
        self._cursor: int | None = None  # the newest seq the stream brought
        self._sending = False
        self._held: list[Json] = []  # came while an answer was awaited, which may be among them
        self._lost = False
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()
        self._session: PromptSession[str] = PromptSession(
            message=[("bold", f"{one_line(project)}> ")],
            history=_history(os.environ),
            completer=Words(client, project),
            complete_while_typing=True,
            key_bindings=_keys(),
            bottom_toolbar=self._toolbar,
            prompt_continuation="  ",
            refresh_interval=TOOLBAR_SECONDS,
        )

    async def run(self) -> None:
        """Until the person leaves; what was typed before is still sent and answered."""
        with patch_stdout(raw=True):
            write(
                f"Project {one_line(self._project)} at {one_line(self._client.server.url)}. `help` lists the commands, "
                "Tab completes, Alt-Enter starts a new line, Ctrl-D leaves."
            )
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(self._listen()), group.create_task(self._speak())]
                await self._type()
                await self._drain()
                for helper in helpers:
                    helper.cancel()

    async def _drain(self) -> None:
        """Wait until everything that was typed is answered."""
        try:
            async with asyncio.timeout(1):
                await self._outgoing.join()
        except TimeoutError:
            write("The last answer is still awaited; Ctrl-C leaves at once.")
            await self._outgoing.join()

    async def _type(self) -> None:
        while True:
            try:
                text = (await self._session.prompt_async()).strip()
            except EOFError:
                return
            if text.lower() in LEAVING:
                return
            if text:
                self._outgoing.put_nowait(text)

    async def _speak(self) -> None:
        """Send what was typed, one message after the other, and print the answers."""
        while True:
            text = await self._outgoing.get()
            self._sending = True
            try:
                self._answered(await _say(self._client, self._project, text))
            except (ServerUnreachable, Refused) as error:
                write(f"❌ {clean(str(error))}\n")
            self._sending = False
            held, self._held = self._held, []
            for message in held:
                self._hear(message)
            self._outgoing.task_done()

    def _answered(self, posted: Json) -> None:
        for answer in posted["responses"]:
            self._shown[str(answer["key"])] = int(answer["seq"])
            show(NormalizedResponse.model_validate(answer["response"]))
        if self._cursor is None and self._shown:
            self._cursor = max(self._shown.values())

    async def _listen(self) -> None:
        """Follow the stream of what happens in the project, over every lost connection."""
        try:
            async for event in self._client.events(self._project):
                if event.kind == "lost":
                    self._lost = True
                    write("The connection to the server is lost; it is tried again until it stands.\n")
                elif event.kind == "found":
                    self._lost = False
                    write("The connection to the server stands again.\n")
                elif event.kind == "ping":
                    await self._catch_up()
                elif event.kind == "task":
                    self._board.put(event.data)
                elif event.kind == "message":
                    self._cursor = max(self._cursor or 0, int(event.data["seq"]))
                    self._hear(event.data)
                self._session.app.invalidate()
        except Refused as error:
            write(f"❌ No news come any more: {clean(str(error))}\n")

    async def _catch_up(self) -> None:
        """See to what a stream that was away could not bring: the tasks as they are, and messages missed."""
        try:
            tasks = (await self._client.get("/api/v1/tasks", project=self._project))["tasks"]
            missed = [
                message
                for thread in sorted(self._threads)
                if self._cursor is not None
                for message in await self._client.messages(thread, self._cursor)
            ]
        except (ServerUnreachable, Refused):
            return  # the next ping comes soon, and a lost connection is told by the stream
        self._board.replace(tasks)
        for message in sorted(missed, key=lambda message: int(message["seq"])):
            self._hear(message)

    def _hear(self, message: Json) -> None:
        """Print a message of the own thread once; an in-place edit of progress goes to the toolbar only."""
        response = NormalizedResponse.model_validate(message["response"])
        if response.progress is not None:
            self._board.note(response)
            return
        if self._sending:
            self._held.append(message)
            return
        key, seq = str(message["key"]), int(message["seq"])
        if message["thread"] in self._threads and seq > self._shown.get(key, 0):
            self._shown[key] = seq
            show(response)

    def _toolbar(self) -> StyleAndTextTuples:
        lines = self._board.lines(datetime.now(UTC)) or ["nothing runs"]
        if self._lost:
            lines.append("no connection to the server")
        return [("", "\n".join(f" {line}" for line in lines))]


def _keys() -> KeyBindings:
    keys = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)

    @keys.add("escape", "enter", filter=typing)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c", filter=typing)
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        event.app.current_buffer.reset()

    return keys


def _history(environment: Mapping[str, str]) -> History:
    """What was typed before, in a file that only this user may read; kept in memory where no file can be written."""
    base = environment.get("XDG_STATE_HOME") or ""
    folder = (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state") / "codespar"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / "history", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.fchmod(handle, 0o600)
        finally:
            os.close(handle)
    except OSError as error:
        write(f"What you type is not remembered: {folder / 'history'}: {error.strerror}.")
        return InMemoryHistory()
    return FileHistory(str(folder / "history"))
