"""Reviews at work without a server: the Agency's store, forge, index and rules, a model that plays its script, and workflows that a test can
repeat or kill.

The analysers are a twin in memory of the port, so that most tests need no container; what they say, the test writes down.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from codespar.agents import pullwork, reviews
from codespar.agents.evidence import Sources
from codespar.agents.pullwork import PullWork
from codespar.agents.review import ReviewAgent, ReviewTools
from codespar.codeindex.base import CodeIndex
from codespar.config import ModelSettings
from codespar.config.work import ReviewSettings
from codespar.domain.happenings import News, PullAction, PullChanged
from codespar.domain.messages import Author, NormalizedMessage, NormalizedResponse
from codespar.domain.people import Person, Role
from codespar.domain.reviews import Category, Finding, ReviewRecord, Severity
from codespar.domain.tasks import Limits, Thread
from codespar.engine.base import WorkflowContext
from codespar.forges.base import Check, PullRequest, ReviewDraft
from codespar.forges.local import LocalForge
from codespar.models.base import Reviewer
from codespar.models.reviewer import ModelReviewer
from codespar.sandbox.base import AnalyserReport, Analysers, AnalysisOrder, SandboxError
from codespar.screening.screen import Screen
from codespar.scripted.reviews import Refuted, Reviewed, Reviews
from codespar.scripted.script import Library
from codespar.scripted.server import ScriptedModel
from codespar.store.base import Notice
from support.agency import Agency, Clock
from support.repositories import git, repository

CODE = "".join(f"def price_{n}(cart):\n    return cart[{n}]\n\n\n" for n in range(6))
OTTO = Person(id="otto", name="Otto", role=Role.OPERATOR)
Content = str | bytes | None  # None: the file is taken away


def finding(path: str, line: int, title: str, **more: Any) -> Finding:
    """As the analyser `lint` would give it."""
    said = {"source": "lint:E1", "severity": Severity.MEDIUM, "category": Category.CORRECTNESS}
    return Finding(**(said | {"path": path, "start_line": line, "end_line": line, "title": title} | more))


class Twin:
    """The port of the analysers, in memory. `head` and `base` are what `lint` finds; `meanwhile` happens while it looks."""

    def __init__(self) -> None:
        self.head: tuple[Finding, ...] = ()
        self.base: tuple[Finding, ...] = ()
        self.others: tuple[AnalyserReport, ...] = ()
        self.unlooked: dict[str, str] = {}
        self.problem = ""
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.held = False  # they go on until they are stopped
        self.orders: list[AnalysisOrder] = []
        self.stopped: list[str] = []
        self._stop = asyncio.Event()

    async def analyse(self, order: AnalysisOrder) -> tuple[AnalyserReport, ...]:
        self.orders.append(order)
        if self.meanwhile is not None:
            await self.meanwhile()
        if self.held:
            await asyncio.wait_for(self._stop.wait(), 60)
            return (AnalyserReport(analyser="lint", problem="it was stopped"),)
        if self.problem:
            raise SandboxError(self.problem)
        lint = AnalyserReport(
            analyser="lint", version="1.0", head=self.head, base=self.base, unlooked=self.unlooked
        )
        return (lint, *self.others)

    async def stop(self, name: str) -> None:
        self.stopped.append(name)
        self._stop.set()


class NoSandbox:
    """An engine that does not answer."""

    async def ensure_image(self, **_: Any) -> str:
        raise SandboxError("no Docker Engine answers")


class Host(LocalForge):
    """The embedded forge, as a host across a network would be: `troubles` are raised by the next calls of a method, `lost` by those whose
    answer does not come back though the host did it."""

    def __init__(self, folder: Path, source: str) -> None:
        super().__init__(folder, source)
        self.troubles: dict[str, list[Exception]] = {}
        self.lost: dict[str, list[Exception]] = {}
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}
        self.forks: set[int] = set()
        self.resolved: list[tuple[str, ...]] = []
        self.posts: list[ReviewDraft] = []

    async def _call(self, name: str, work: Awaitable[Any]) -> Any:
        if name in self.before:
            await self.before.pop(name)()
        if self.troubles.get(name):
            work.close()  # type: ignore[attr-defined]
            raise self.troubles[name].pop(0)
        done = await work
        if self.lost.get(name):
            raise self.lost[name].pop(0)
        return done

    async def fetch_pull(self, number: int) -> PullRequest:
        pull = await self._call("fetch_pull", super().fetch_pull(number))
        return pull.evolve(fork=True) if number in self.forks else pull

    async def sync_asking(self, *patterns: str) -> tuple[str, str, dict[str, str]]:
        return await self._call("sync", super().sync_asking(*patterns))

    async def submit_review(self, number: int, draft: ReviewDraft, key: str) -> Any:
        self.posts.append(draft)
        return await self._call("submit_review", super().submit_review(number, draft, key))

    async def comment(self, number: int, body: str, key: str) -> str:
        return await self._call("comment", super().comment(number, body, key))

    async def resolve(self, number: int, comments: Sequence[str], note: str) -> list[str]:
        self.resolved.append(tuple(comments))
        return await self._call("resolve", super().resolve(number, comments, note))

    async def checks(self, commit: str) -> list[Check]:
        return await self._call("checks", super().checks(commit))


class Once:
    """A workflow's hands: each step is run, and its answer given."""

    def __init__(self, id: str, clock: Clock) -> None:
        self.id = id
        self.steps: list[str] = []
        self._clock = clock

    async def step(self, name: str, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        self.steps.append(name)
        return await function(*arguments)

    async def wait(self, topic: str, seconds: float) -> Any:
        raise AssertionError(f"a review waits for nothing, and not for {topic}")

    async def sleep(self, seconds: float) -> None:
        self._clock.move(seconds=seconds)


class Twice(Once):
    """Each step is done twice, as after a crash between its end and the note of it."""

    async def step(self, name: str, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        await super().step(name, function, *arguments)
        return await function(*arguments)


class Killed(BaseException):
    """The process ended here."""


class Journal(Once):
    """Keeps the answers of the steps, as an engine does. The process is killed after the step at place `at`, before its answer was kept."""

    def __init__(self, id: str, clock: Clock, at: int, kept: dict[str, Any]) -> None:
        super().__init__(id, clock)
        self._at = at
        self._kept = kept

    async def step(self, name: str, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        if name in self._kept:
            return self._kept[name]
        place = len(self._kept)
        answer = await super().step(name, function, *arguments)
        if place == self._at:
            raise Killed(name)
        self._kept[name] = answer
        return answer


def _past(commits: int = 30) -> str:
    """What gives a repository a past, in which Ada changed its code often: whoever is new somewhere is a risk."""
    return "".join(
        f"commit refs/heads/main\ncommitter Ada <ada@example.org> {1_750_000_000 + n} +0000\ndata 1\nx\n"
        + ("from refs/heads/main^0\n" if n == 0 else "")
        + f"M 100644 inline shop.py\ndata {len(text)}\n{text}\n"
        for n in range(commits)
        for text in [CODE if n == commits - 1 else f"{n}\n"]
    )


class Bureau(Agency):
    """The Agency with a Review Agent. `scripts` is what its model says; None: there is no model."""

    def __init__(
        self,
        folder: Path,
        *,
        autonomy: int = 3,
        files: Mapping[str, str] | None = None,
        config: str | None = None,
        scripts: Sequence[Reviewed | Refuted] | None = (),
        settings: ReviewSettings | None = None,
        reviewer: Reviewer | None = None,
        analysers: Analysers | None = None,
    ) -> None:
        written = {"shop.py": CODE} | dict(files or {})
        self.remote = repository(folder / "shop.git", written, config=config, past=_past())
        super().__init__(folder, self.remote, autonomy=autonomy)
        self.forge: Host = Host(folder / "repos" / "shop", str(self.remote))
        self.twin = Twin()
        self.analysers: Analysers = analysers or self.twin
        self.settings = settings or ReviewSettings()
        self.index_used: CodeIndex = self.index
        self.own: Callable[[PullRequest], bool] = lambda pull: pull.branch.startswith("codespar/task-")
        self._scripts = scripts
        self._reviewer = reviewer
        self._model: ScriptedModel | None = None
        self._tree = folder / "work"
        self._cursor: dict[str, Any] = {}
        self._counter = itertools.count(1)

    async def __aenter__(self) -> Bureau:
        await super().__aenter__()
        await self.store.write(lambda unit: unit.save_member(OTTO, "file"))
        if self._reviewer is None and self._scripts is not None:
            self._model = ScriptedModel(Library({}), reviews=Reviews(tuple(self._scripts)))
            await self._model.start()
            named = ModelSettings(review="anthropic:claude-sonnet-5-5", base_url=self._model.url)
            self._reviewer = ModelReviewer(named, {})
        self.reviewer = ReviewAgent(
            ReviewTools(
                store=self.store,
                forge=lambda project: self.forge,
                sources=lambda project, memories: Sources(
                    forge=self.forge,
                    index=self.index_used,
                    conventions=memories,
                    own=self.own,
                    limits=Limits(),
                ),
                analysers=self.analysers,
                sandbox=NoSandbox(),  # type: ignore[arg-type]
                reviewer=self._reviewer,
                advisories=None,
                screening=Screen(),
                settings=self.settings,
                policy=lambda: self.policy,
                clock=self.clock,
                folder=self.folder / "reviews",
            )
        )
        self.pull_work = PullWork(self.store, lambda project: self.forge, self.clock)
        self.listeners.append(self._on_review)
        git("clone", "-q", str(self.remote), str(self._tree), cwd=self.folder)
        await self.look()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._model is not None:
            assert self._reviewer is not None
            await self._reviewer.close()
            await self._model.stop()
        await super().__aexit__()

    def _on_review(self, notice: Notice) -> None:
        if notice.kind == "review":
            self.reviewer.on_review(notice)

    # what people do at the code host

    def push(
        self, branch: str, files: Mapping[str, Content], *, message: str = "feat: change", base: str = "main"
    ) -> str:
        """Commit these files on a branch, which begins at `base` where it is new, and push it. Returns the commit."""
        tree = self._tree
        self.clock.move(minutes=1)
        git("fetch", "-q", "--prune", "origin", cwd=tree)
        known = git("for-each-ref", f"refs/remotes/origin/{branch}", cwd=tree)
        git("checkout", "-q", "-B", branch, f"origin/{branch if known else base}", cwd=tree)
        for name, content in files.items():
            path = tree / name
            if content is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        git("add", "-A", cwd=tree)
        git("commit", "-q", "--allow-empty", "-m", message, cwd=tree)
        return self.send(branch)

    def send(self, branch: str) -> str:
        """Push what is checked out, over whatever is there."""
        git("push", "-q", "--force", "origin", f"HEAD:refs/heads/{branch}", cwd=self._tree)
        return git("rev-parse", "HEAD", cwd=self._tree)

    @property
    def tree(self) -> Path:
        """The work tree of whoever pushes."""
        return self._tree

    async def open(
        self,
        files: Mapping[str, Content],
        *,
        branch: str = "feature",
        title: str = "feat: prices",
        body: str = "",
        green: bool = True,
        base: str = "main",
        draft: bool = False,
        message: str = "feat: change",
    ) -> PullRequest:
        """A pull request by Grace with these files."""
        return await self.open_at(
            self.push(branch, files, message=message, base=base),
            branch=branch,
            title=title,
            body=body,
            green=green,
            base=base,
            draft=draft,
        )

    async def open_at(
        self,
        head: str,
        *,
        branch: str = "feature",
        title: str = "feat: prices",
        body: str = "",
        green: bool = True,
        base: str = "main",
        draft: bool = False,
    ) -> PullRequest:
        await self.forge.sync()
        await self.forge.fetch_branch(branch)
        tip = await self.forge.fetch_branch(base)
        assert tip is not None
        pull = await self.forge.open_pull(
            branch=branch,
            commit=head,
            base_branch=base,
            base_commit=await self.forge.merge_base(tip, head) or tip,
            title=title,
            body=body,
            author="grace",
            at=self.clock(),
            draft=draft,
        )
        if green:
            await self.green(pull.number)
        return pull

    async def green(self, number: int = 1, passed: bool | None = True) -> None:
        await self.forge.set_check(number, Check(name="ci", passed=passed, at=self.clock()))

    async def look(self) -> None:
        """Hear what happened at the code host since the last look."""
        polled = await self.forge.poll(self._cursor)
        self._cursor = polled.cursor
        await self.hear(*polled.news)

    async def hear(self, *news: News) -> None:
        def write(unit: Any) -> None:
            for one in news:
                unit.accept("host", one.delivery, "shop", {"news": one.wire()}, self.clock())

        await self.store.write(write)
        await self.quiet()

    async def changed(self, pull: PullRequest, action: PullAction, **fields: Any) -> None:
        """The host tells that the pull request changed."""
        known: dict[str, Any] = {
            "action": action,
            "number": pull.number,
            "title": pull.title,
            "head_commit": pull.head_commit,
            "branch": pull.branch,
            "base_branch": pull.base_branch,
            "author": pull.author,
            "draft": pull.draft,
            "updated_at": self.clock.move(seconds=1),
        }
        what = PullChanged(**(known | fields))
        await self.hear(
            News(delivery=f"d{next(self._counter)}", repository="shop", at=self.clock(), what=what)
        )

    # what the agent does

    async def work(
        self, hands: Callable[[str], WorkflowContext] | None = None, *, keep: bool = False
    ) -> list[Any]:
        """Run the workflows that were begun, one after another. Returns their outcomes."""
        workflows = {reviews.WORKFLOW: self.reviewer.run, pullwork.APPROVAL: self.pull_work.approve}
        outcomes = []
        for intent in await self.store.read(lambda unit: unit.open_intents(100)):
            context = hands(intent.id) if hands else Once(intent.id, self.clock)
            outcomes.append(await workflows[intent.target](context, intent.payload))
            if not keep:
                id = intent.id
                await self.store.write(lambda unit, id=id: unit.close_intent(id, self.clock()))
        return outcomes

    async def reviewed(
        self, files: Mapping[str, Content] | None = None, **more: Any
    ) -> tuple[ReviewRecord, PullRequest]:
        """Somebody opens a pull request (or pushed to it), and the agent reviews it by itself. The record, and the pull request after it."""
        if files is not None:
            await self.open(files, **more)
        await self.look()
        await self.work()
        return await self.latest(), await self.forge.get_pull(1)

    async def latest(self, number: int = 1) -> ReviewRecord:
        return (await self.records(number))[0]

    async def records(self, number: int = 1) -> list[ReviewRecord]:
        """The newest first."""
        return await self.store.read(lambda unit: unit.reviews("shop", number))

    async def by(self, person: Person, text: str) -> list[NormalizedResponse]:
        """Anybody gives a command in a terminal; the answers."""
        n = next(self._counter)
        message = NormalizedMessage(
            id=f"by-{n}",
            channel="cli",
            author=Author(id=person.id, name=person.name, role=person.role),
            content=text,
            timestamp=self.clock(),
        )
        thread = Thread(channel="cli", conversation="shop", thread_id="t", person=person.id)
        body = {"message": message.wire(), "person": person.id, "thread": thread.wire()}
        incoming, _ = await self.store.write(
            lambda unit: unit.accept("cli", message.id, "shop", body, self.clock())
        )
        return [sent.response for sent in await self.turns.answered(incoming)]


def words(card: NormalizedResponse) -> str:
    """All that a card says."""
    return " | ".join([card.title, card.text, *(f"{one.name}: {one.value}" for one in card.fields)])
