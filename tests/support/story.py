"""The story that several tests tell, each somewhere else: a build that breaks, and how it is mended.

The shop adds up prices. Its build works; then somebody takes one off, and it breaks. The team is told, and a fix is suggested; somebody
approves it. The Task Agent counts every price again, but also writes a function that runs what a name says: that is what the Review Agent and
its analysers find. People merge it all the same, and the build works.

What people and models say stands here, and the order of things; where it happens is a `Scene`, and what must be true then is each test's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from codespar.domain.builds import BuildJob, Conclusion, Run, Step
from codespar.forges.base import Forge
from codespar.scripted.reviews import Reviewed, Reviews, finds, found
from codespar.scripted.script import Library, Script, Turn, read, write
from codespar.scripted.server import ScriptedModel
from support.github.site import Site
from support.platforms.base import Shown
from support.platforms.slack import FakeSlack
from support.repositories import commit, git, repository
from support.team import Team

GOOD = "def total(prices):\n    return sum(prices)\n"
BROKEN = "def total(prices):\n    return sum(prices) - 1\n"
MENDED = f"""import subprocess


{GOOD}

def show(name):
    subprocess.call("echo " + name, shell=True)
"""
FIX = Script(
    (
        Turn("I look at it.", (read("cart.py"),)),
        Turn("I mend it.", (write("cart.py", MENDED),)),
        Turn("fix: count every price once"),
    )
)
FOUND = "A name with a quote breaks the command"  # on line 9
ALSO_FOUND = "Nothing is said of no prices"  # on line 5
WHEN = "Call it with an empty list."  # a failing case, of the first alone
REVIEWS = Reviews(
    (
        Reviewed(
            "correctness",
            finds(
                found("cart.py", 9, FOUND, severity="high", failing_case=WHEN, suggestion="    print(name)"),
                found("cart.py", 5, ALSO_FOUND, failing_case="Give it no prices."),
                summary="Counts every price and shows a name.",
            ),
        ),
    )
)
LOG = b"""2026-11-21T10:00:00.0000000Z ##[group]Run pytest -q
2026-11-21T10:00:01.0000000Z ##[endgroup]
2026-11-21T10:00:02.0000000Z \x1b[31mE   assert 5 == 6\x1b[0m
2026-11-21T10:00:02.1000000Z FAILED test_cart.py::test_total - assert 5 == 6
2026-11-21T10:00:03.0000000Z ##[error]Process completed with exit code 1.
"""
JOB, STEP = "unit", "Run pytest -q"
REVIEWER = "anthropic:claude-sonnet-5-5"
BREAKING, MENDING = "feat: totals", "fix: count every price once"


def model() -> ScriptedModel:
    """Claude Code and the reviewer of the story; not started."""
    return ScriptedModel(Library({"build of main": FIX}), reviews=REVIEWS)


def shop(folder: Path) -> Path:
    """Its bare repository, while all is well."""
    return repository(folder, {"cart.py": GOOD}, config="test: test -f cart.py\n")


@dataclass(frozen=True)
class Build:
    """A run of the workflow `tests` on main, these minutes after an hour ago. With a log it failed."""

    number: int
    commit: str
    minutes: int
    log: bytes = b""

    @property
    def run(self) -> Run:
        at = datetime.now(UTC) - timedelta(hours=1) + timedelta(minutes=self.minutes)
        return Run(
            id=str(self.number),
            workflow="tests",
            branch="main",
            commit=self.commit,
            title=BREAKING,
            conclusion=Conclusion.FAILURE if self.log else Conclusion.SUCCESS,
            started_at=at,
            updated_at=at,
        )

    @property
    def jobs(self) -> tuple[BuildJob, ...]:
        failed = Conclusion.FAILURE
        step = Step(number=1, name=STEP, conclusion=failed)
        return (BuildJob(id="1", name=JOB, conclusion=failed, steps=(step,)),) if self.log else ()

    async def told(self, forge: Forge) -> None:
        """Told to a forge that has no continuous integration of its own."""
        await forge.report_run(self.run, self.jobs, {"1": self.log} if self.log else {})

    def at(self, site: Site) -> None:
        """It is one of GitHub's own."""
        site.run(self.number, self.commit, "failure" if self.log else "success", minutes=self.minutes)
        if self.log:
            site.failed_job(self.number, 20 + self.number, JOB, STEP, self.log)


Seen = TypeVar("Seen", covariant=True)


class Scene(Protocol[Seen]):
    """Where the story takes place. `sees` gives the newest message with those words, as soon as it is there."""

    bare: Path

    async def built(self, build: Build) -> None: ...
    async def says(self, who: str, text: str) -> Any: ...
    async def sees(self, words: str, seconds: float = ...) -> Seen: ...
    async def approves(self) -> None: ...
    async def merges(self, number: int) -> None: ...


class Story(Generic[Seen]):
    """Its parts, in their order. Each ends when the team sees what came of it, and gives that message."""

    def __init__(self, scene: Scene[Seen]) -> None:
        self._scene = scene
        self._bare = scene.bare

    @property
    def main(self) -> str:
        return git("rev-parse", "main", cwd=self._bare)

    async def begins(self) -> None:
        """The agent may propose and do what is of low risk by itself; the build of main works."""
        await self._scene.says("ada", "autonomy L3")
        await self._scene.sees("L3")
        await self._scene.built(Build(1, self.main, 0))

    async def breaks(self) -> Seen:
        bad = commit(self._bare, {"cart.py": BROKEN}, BREAKING)
        await self._scene.built(Build(2, bad, 5, LOG))
        told = await self._scene.sees("Build broken: tests on main")
        await self._scene.sees("fix build tests")
        return told

    async def is_fixed(self) -> Seen:
        """Somebody approves the suggestion, and the pull request is opened."""
        await self._scene.approves()
        return await self._scene.sees("Task Completed", 240)

    async def is_reviewed(self, number: int = 1) -> Seen:
        return await self._scene.sees(f"Changes requested: PR #{number}", 240)

    async def is_merged(self, number: int = 1) -> Seen:
        await self._scene.merges(number)
        return await self._scene.sees(f"PR #{number} merged", 60)

    async def works_again(self) -> Seen:
        await self._scene.built(Build(3, self.main, 30))
        return await self._scene.sees("Build fixed: tests on main")


class InSlack:
    """In Slack's room. The builds are told to the embedded forge, or are GitHub's own where there is a `site`."""

    def __init__(self, team: Team, bare: Path, site: Site | None = None) -> None:
        slack = team.platforms["slack"]
        assert isinstance(slack, FakeSlack)
        self.bare = bare
        self._team = team
        self._slack = slack
        self._site = site

    async def built(self, build: Build) -> None:
        if self._site is None:
            await build.told(self._team.app.forge("shop"))
        else:
            build.at(self._site)
            self.looks()

    def looks(self) -> None:
        """Not to wait for the next look at GitHub, which comes every ten seconds."""
        self._team.app.hosts.look_soon("shop")

    async def says(self, who: str, text: str) -> None:
        await self._slack.say(who, text)

    async def sees(self, words: str, seconds: float = 60) -> Shown:
        return await self._team.sees("slack", words, seconds=seconds)

    async def approves(self) -> None:
        [suggestion] = [one for one in self._slack.seen(None) if "Approve" in one.buttons]
        await self._slack.press("grace", suggestion, "Approve")

    async def merges(self, number: int) -> None:
        await self.says("marcus", f"merge PR #{number} squash")
