"""What is made of a build that breaks: with the real store, the embedded forge and git, and an engine that runs each step at once."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from codespar.agents import builds
from codespar.agents.announcer import Announcer
from codespar.agents.builds import BuildTools, BuildWatch
from codespar.app.webhooks import accept_news
from codespar.domain.approvals import Approval, ApprovalState
from codespar.domain.builds import BuildJob, Conclusion, Run, Standing, Step
from codespar.domain.happenings import Checked, Happening, News, Ran, RepositoryChanged
from codespar.domain.messages import NormalizedResponse
from codespar.domain.notifications import AlertKind, Rules
from codespar.domain.tasks import Task, TaskKind, TaskStatus
from codespar.forges.base import RepositoryUnusable
from codespar.forges.local import LocalForge
from codespar.screening.screen import Screen
from codespar.store.base import Intent
from support.agency import AT, ROOM, Agency
from support.repositories import commit, git, repository

GOOD, BAD = Conclusion.SUCCESS, Conclusion.FAILURE
RULES = Rules(per_hour=20, batch_seconds=0, quiet=None)
LOG = b"\x1b[31mE   assert 5 == 6\x1b[0m\nFAILED test_cart.py::test_total\n##[error]Process completed with exit code 1.\n"
UNIT = BuildJob(
    id="7",
    name="unit",
    conclusion=BAD,
    steps=(
        Step(number=1, name="Check out", conclusion=GOOD),
        Step(number=2, name="pytest -q", conclusion=BAD),
    ),
)


class Straight:
    """An engine's context that keeps nothing: steps run at once, answers are JSON, and sleeping moves the clock."""

    id = "build"

    def __init__(self, agency: Agency) -> None:
        self._agency = agency
        self.slept: list[float] = []

    async def step(self, name: str, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        return json.loads(json.dumps(await function(*arguments)))

    async def wait(self, topic: str, seconds: float) -> Any:
        return None

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._agency.clock.move(seconds=seconds)


class Shop(Agency):
    """The project, its builds as they are reported, and what came of them."""

    def __init__(self, folder: Path, bare: Path, autonomy: int, forge: LocalForge | None = None) -> None:
        super().__init__(folder / "house", bare, autonomy=autonomy)
        self.forge = forge or self.forge
        self.bare = bare
        self.engine = Straight(self)
        self.watch = BuildWatch(
            BuildTools(
                store=self.store,
                forge=lambda project: self.forge,
                workshop=lambda project: self._workshop,
                policy=lambda: self.policy,
                screening=Screen(),
                clock=self.clock,
            )
        )
        self.outcomes: list[str] = []
        self._minute = 0
        self._heard = 0

    async def __aenter__(self) -> Shop:
        await super().__aenter__()
        await self.forge.sync()
        return self

    async def level(self, number: int) -> None:
        await self.say(f"autonomy L{number}")

    async def head(self) -> str:
        return git("rev-parse", "main", cwd=self.bare)

    async def ran(
        self,
        conclusion: Conclusion | None,
        sha: str | None = None,
        *,
        id: str = "",
        attempt: int = 1,
        workflow: str = "tests",
        branch: str = "main",
        minute: int | None = None,
        jobs: tuple[BuildJob, ...] = (UNIT,),
        log: bytes | None = LOG,
        look: bool = True,
        event: str = "push",
    ) -> Run:
        """A run is reported and found. Its workflow waits for `work`."""
        self._minute += 1
        at = AT - timedelta(hours=2) + timedelta(minutes=self._minute if minute is None else minute)
        run = Run(
            id=id or f"run-{self._minute}",
            attempt=attempt,
            workflow=workflow,
            branch=branch,
            commit=sha or await self.head(),
            event=event,
            title="feat: totals",
            conclusion=conclusion,
            started_at=at,
            updated_at=at,
        )
        held = jobs if conclusion is not None and conclusion.bad else ()
        logs = {} if log is None else {job.id: log for job in held}
        await self.forge.report_run(run, held, logs)
        if look:
            await self.look()
        return run

    async def look(self) -> None:
        cursor = (await self.store.read(lambda unit: unit.watch("shop"))).cursor
        polled = await self.forge.poll(cursor)

        def write(unit: Any) -> None:
            for one in polled.news:
                accept_news(unit, "shop", one)
            unit.save_watch(unit.watch("shop").evolve(cursor=polled.cursor))

        await self.store.write(write)
        await self.quiet()

    async def hear(self, what: Happening) -> None:
        """News of the code host that no look found."""
        self._heard += 1
        news = News(delivery=f"heard-{self._heard}", repository="", at=self.clock(), what=what)
        await self.store.write(lambda unit: accept_news(unit, "shop", news))
        await self.quiet()

    async def status(self, conclusion: Conclusion, minute: int) -> None:
        """A status of the newest commit is set: again under the same id, as at GitHub."""
        at = AT + timedelta(minutes=minute)
        sha = await self.head()
        run = Run(
            id=f"status:{sha}:jenkins",
            workflow="jenkins",
            branch="main",
            commit=sha,
            event="status",
            conclusion=conclusion,
            started_at=at,
            updated_at=at,
        )
        await self.hear(Checked(run=run))

    async def work(self) -> list[str]:
        """Run the workflows that wait, and tell what is to be told. Returns what came of each."""
        found = await self.store.read(lambda unit: unit.open_intents(50))
        outcomes = []
        for intent in [one for one in found if one.target == builds.WORKFLOW]:
            outcomes.append(await self.run(intent))
            await self.store.write(lambda unit, id=intent.id: unit.close_intent(id, self.clock()))
        await self.tell()
        return outcomes

    async def run(self, intent: Intent) -> str:
        return await self.watch.run(self.engine, intent.payload)

    async def tell(self) -> None:
        announcer = Announcer(self.store, RULES, self.clock)
        announcer.start()
        while await self.store.read(lambda unit: unit.places_waiting()):  # noqa: ASYNC110 - the store is asked
            await asyncio.sleep(0.01)
        await announcer.stop()

    async def builds_told(self) -> list[NormalizedResponse]:
        return [one for one in await self.told() if "uild" in one.title and "sg-" not in one.title]

    async def standing(self, workflow: str = "tests", branch: str = "main") -> Standing:
        return await self.store.read(lambda unit: unit.standing("shop", branch, workflow))

    async def suggestions(self) -> list[Approval]:
        return await self.store.read(lambda unit: unit.approvals("shop"))

    async def tasks(self) -> list[Task]:
        return await self.store.read(lambda unit: unit.tasks("shop"))


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with Shop(tmp_path, repository(tmp_path / "shop.git"), 1) as shop:
        yield shop


async def breaks(shop: Shop, **how: Any) -> Run:
    """It worked, a commit follows, and it fails."""
    await shop.ran(GOOD)
    sha = commit(shop.bare, {"cart.py": f"{how}\n"}, "feat: totals")
    run = await shop.ran(BAD, sha, **how)
    await shop.work()
    return run


async def test_at_level_0_nothing_is_said_and_the_standing_is_kept(shop: Shop) -> None:
    await shop.level(0)
    run = await breaks(shop)
    standing = await shop.standing()
    assert standing.broken_by == run and standing.failure is not None and not standing.told
    assert await shop.builds_told() == [] and await shop.suggestions() == [] and await shop.tasks() == []
    assert len(await shop.audit("build.broke")) == 1


async def test_at_level_1_it_is_told_once_with_job_step_error_and_commits(shop: Shop) -> None:
    run = await breaks(shop)
    [told] = await shop.builds_told()
    assert told.title == "❌ Build broken: tests on main"
    fields = {line.name: line.value for line in told.fields}
    assert fields["Failed"] == "job unit, step pytest -q" and "Log" not in fields
    assert fields["Commit"] == f"{run.commit[:12]} feat: totals"
    blocks = {block.title: block.text for block in told.blocks}
    assert "E   assert 5 == 6" in blocks["First error"] and "\x1b" not in blocks["First error"]
    assert blocks["Since it last worked"] == f"{run.commit[:12]} Ada: feat: totals"
    await shop.ran(BAD)
    await shop.ran(BAD)
    assert await shop.work() == [] and len(await shop.builds_told()) == 1
    assert await shop.suggestions() == [] and await shop.tasks() == []


async def test_a_workflow_that_is_run_again_tells_nothing_twice(shop: Shop) -> None:
    await shop.level(2)
    await shop.ran(GOOD)
    await shop.ran(BAD, commit(shop.bare, {"a": "b"}))
    [intent] = [
        one for one in await shop.store.read(lambda unit: unit.open_intents(9)) if one.target == "build"
    ]
    assert [await shop.run(intent), await shop.run(intent)] == ["told", "told before"]
    await shop.tell()
    assert len(await shop.builds_told()) == 1 and len(await shop.suggestions()) == 1


@pytest.mark.parametrize("level", [2, 3])
async def test_at_levels_2_and_3_it_is_told_and_its_fix_suggested(shop: Shop, level: int) -> None:
    await shop.level(level)
    await breaks(shop)
    assert [one.title for one in await shop.builds_told()] == ["❌ Build broken: tests on main"]
    [suggestion] = await shop.suggestions()
    assert suggestion.state is ApprovalState.PENDING and suggestion.token.startswith("sg-")
    assert suggestion.command is not None and suggestion.command.written == "fix build tests"
    assert (await shop.standing()).suggestion == suggestion.token and await shop.tasks() == []


async def test_a_suggestion_that_is_approved_starts_the_fix_for_whoever_approved(shop: Shop) -> None:
    await shop.level(2)
    await breaks(shop)
    [suggestion] = await shop.suggestions()
    await shop.say(f"approve {suggestion.token}")
    [task] = await shop.tasks()
    assert (task.kind, task.requester, task.thread.thread_id) == (TaskKind.FIX, "Ada", "t")
    assert "E   assert 5 == 6" in task.failing_log and "feat: totals" in task.failing_log
    await shop.say(f"approve {suggestion.token}")
    assert len(await shop.tasks()) == 1 and (await shop.standing()).task == task.id


async def test_a_suggestion_that_is_rejected_is_not_made_again(shop: Shop) -> None:
    await shop.level(2)
    await breaks(shop)
    [suggestion] = await shop.suggestions()
    await shop.say(f"reject {suggestion.token} not now")
    before = len(await shop.told())
    await shop.ran(BAD)
    await shop.work()
    assert len(await shop.told()) == before and await shop.tasks() == []
    assert [one.state for one in await shop.suggestions()] == [ApprovalState.REJECTED]


async def test_at_level_4_a_fix_task_starts_with_the_log(shop: Shop) -> None:
    await shop.level(4)
    run = await breaks(shop)
    [task] = await shop.tasks()
    assert (task.kind, task.status, task.requester) == (TaskKind.FIX, TaskStatus.RUNNING, "agent-shop")
    assert run.commit[:12] in task.instruction and "pytest -q" not in task.instruction, "their names are data"
    assert "Job: unit\nStep: pytest -q\n" in task.failing_log
    assert "E   assert 5 == 6" in task.failing_log and "feat: totals" in task.failing_log
    [told] = await shop.builds_told()
    assert f"{task.id} works on it" in [line.value for line in told.fields]
    assert await shop.suggestions() == []


@pytest.mark.parametrize("level", [2, 4])
async def test_what_is_flaky_is_named_so_and_nothing_is_done_about_it(shop: Shop, level: int) -> None:
    await shop.level(level)
    await shop.ran(GOOD)
    await shop.ran(BAD)
    await shop.work()
    [told] = await shop.builds_told()
    assert told.title == "⚠️ Flaky build: tests on main"
    assert await shop.suggestions() == [] and await shop.tasks() == []


async def test_an_attempt_that_works_on_the_same_commit_names_it_flaky_in_the_same_message(
    shop: Shop,
) -> None:
    run = await breaks(shop, id="5")
    before = await shop.builds_told()
    await shop.ran(GOOD, run.commit, id="5", attempt=2)
    [fixed] = await shop.builds_told()
    assert len(before) == 1 and fixed.title == "✅ Build fixed: tests on main"
    assert "it is flaky" in fixed.fields[0].value


async def test_a_branch_that_is_not_the_default_is_told_nowhere(shop: Shop) -> None:
    await shop.level(4)
    git("branch", "feature", "main", cwd=shop.bare)
    await shop.ran(GOOD, branch="feature")
    await shop.ran(BAD, commit(shop.bare, {"a": "b"}), branch="feature")
    assert await shop.work() == ["feature is not the default branch"]
    assert await shop.builds_told() == [] and await shop.tasks() == []
    assert (await shop.standing(branch="feature")).broken_by is not None


async def test_what_is_fixed_before_it_was_told_is_not_told(shop: Shop) -> None:
    await shop.level(4)
    await shop.ran(GOOD)
    await shop.ran(BAD, commit(shop.bare, {"a": "b"}))
    await shop.ran(GOOD, commit(shop.bare, {"a": "c"}))
    assert await shop.work() == ["fixed meanwhile"]
    assert await shop.builds_told() == [] and await shop.tasks() == []
    assert (await shop.standing()).broken_by is None


async def test_what_was_told_is_changed_in_place_when_it_is_fixed_and_told_anew_when_it_breaks_again(
    shop: Shop,
) -> None:
    await breaks(shop)
    fixing = commit(shop.bare, {"cart.py": "mended\n"}, "fix: totals")
    await shop.ran(GOOD, fixing)
    [told] = await shop.builds_told()
    assert (
        told.title == "✅ Build fixed: tests on main"
        and f"{fixing[:12]} feat: totals" in told.fields[0].value
    )
    await shop.ran(BAD, commit(shop.bare, {"cart.py": "broken\n"}))
    assert await shop.work() == ["told"]
    assert sorted(one.title[0] for one in await shop.builds_told()) == ["✅", "❌"]


async def test_a_suggestion_is_void_when_the_build_is_fixed_by_another(shop: Shop) -> None:
    await shop.level(2)
    await breaks(shop)
    [suggestion] = await shop.suggestions()
    await shop.ran(GOOD, commit(shop.bare, {"cart.py": "mended\n"}))
    assert [one.state for one in await shop.suggestions()] == [ApprovalState.VOID]
    [late] = await shop.say(f"approve {suggestion.token}")
    assert "does not count" in late.title and await shop.tasks() == []
    assert any("oid" in one.title and suggestion.token in one.title for one in await shop.told())


async def test_runs_that_are_heard_of_in_any_order_are_told_by_the_first_that_failed(shop: Shop) -> None:
    good = await shop.head()
    first, second, third = (commit(shop.bare, {"cart.py": f"{n}\n"}, f"feat: {n}") for n in range(3))
    await shop.ran(BAD, third, id="c", minute=30)
    await shop.ran(BAD, second, id="b", minute=20)
    await shop.ran(GOOD, first, id="a", minute=10)
    await shop.ran(GOOD, good, id="z", minute=0)
    assert sorted(await shop.work()) == ["run b broke it", "told"]
    [told] = await shop.builds_told()
    standing = await shop.standing()
    assert standing.broken_by is not None and standing.broken_by.id == "b"
    fields = {line.name: line.value for line in told.fields}
    assert fields["Commit"].startswith(second[:12])
    assert {block.title: block.text for block in told.blocks}["Since it last worked"].endswith("feat: 1")


async def test_when_the_run_that_broke_it_works_at_a_second_try_the_next_bad_one_broke_it(shop: Shop) -> None:
    await shop.ran(GOOD, minute=0)
    commits = [commit(shop.bare, {"cart.py": f"{n}\n"}, f"feat: {n}") for n in range(4)]
    for number, sha in enumerate(commits):
        await shop.ran(BAD, sha, id=f"run-of-{number}", minute=10 * (number + 1))
    assert (await shop.standing()).broken_by == await kept_run(shop, "run-of-0")
    await shop.ran(GOOD, commits[0], id="run-of-0", attempt=2, minute=90)
    standing = await shop.standing()
    assert standing.broken_by == await kept_run(shop, "run-of-1"), "neither the newest nor the oldest bad one"
    assert standing.green is not None and (standing.green.id, standing.green.attempt) == ("run-of-0", 2)


async def test_a_second_try_is_compared_with_the_first_however_many_runs_lie_between(shop: Shop) -> None:
    first = await shop.ran(GOOD, id="the-first", minute=-1)
    between = [
        first.evolve(id=f"nightly-{n}", started_at=AT + timedelta(minutes=n), commit=f"{n:040d}")
        for n in range(builds.MOST_RUNS)
    ]
    await shop.store.write(lambda unit: [unit.save_run("shop", one) for one in between])
    await shop.ran(BAD, id="the-first", attempt=2, minute=1000)
    assert (await shop.standing()).flaky == (first.commit,)


async def kept_run(shop: Shop, id: str) -> Run:
    found = await shop.store.read(lambda unit: unit.runs("shop"))
    return next(one for one in found if one.id == id)


async def test_a_log_that_is_gone_is_said_to_be_and_the_rest_is_told(shop: Shop) -> None:
    await breaks(shop, log=None)
    [told] = await shop.builds_told()
    fields = {line.name: line.value for line in told.fields}
    assert fields["Failed"] == "job unit, step pytest -q"
    assert "could not be read: no log of job 7" in fields["Log"]
    assert [block.title for block in told.blocks] == ["Since it last worked"]


async def test_a_job_without_steps_is_told_by_its_name(shop: Shop) -> None:
    await breaks(shop, jobs=(BuildJob(id="9", name="lint", conclusion=BAD),))
    [told] = await shop.builds_told()
    fields = {line.name: line.value for line in told.fields}
    assert fields["Failed"] == "job lint" and "assert 5 == 6" in told.blocks[0].text


async def test_a_run_without_a_failed_job_is_told_as_such(shop: Shop) -> None:
    await breaks(shop, jobs=())
    [told] = await shop.builds_told()
    assert "no job of it failed" in {line.name: line.value for line in told.fields}["Log"]


class Flood(LocalForge):
    """A code host with a log of 200 MB, whose error lies in the middle."""

    async def job_log(self, run: str, job: str) -> AsyncIterator[bytes]:
        noise = b"2026-11-21T10:00:00.0000000Z Downloading package foo-1.2.3 (12 kB)\n" * 900
        pieces = 200 * 1024**2 // len(noise)
        for number in range(pieces):
            yield LOG if number == pieces // 2 else b"%d\n" % number + noise


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_log_of_200_megabytes_is_read_in_little_memory_while_others_are_served(
    tmp_path: Path,
) -> None:
    bare = repository(tmp_path / "shop.git")
    forge = Flood(tmp_path / "house" / "repos" / "shop", str(bare))
    async with Shop(tmp_path, bare, 1, forge) as shop:
        await shop.ran(GOOD)
        await shop.ran(BAD, commit(bare, {"a": "b"}))
        seen: list[int] = []
        times: list[float] = []

        async def serves() -> None:
            while True:
                seen.append(resident())
                times.append(time.monotonic())
                await asyncio.sleep(0.01)

        before = resident()
        serving = asyncio.create_task(serves())
        await shop.work()
        serving.cancel()
        assert max(seen) - before < 50 * 1024**2, (before, max(seen))
        longest = max(later - earlier for earlier, later in pairwise(times))
        assert longest < (times[-1] - times[0]) / 2, "others were not served while it was read"
        [told] = await shop.builds_told()
        assert "E   assert 5 == 6" in told.blocks[0].text


async def test_two_workflows_that_break_at_once_are_told_and_fixed_each_for_itself(shop: Shop) -> None:
    await shop.level(2)
    await shop.ran(GOOD, workflow="tests")
    await shop.ran(GOOD, workflow="lint")
    bad = commit(shop.bare, {"a": "b"})
    await shop.ran(BAD, bad, workflow="tests", look=False)
    await shop.ran(BAD, bad, workflow="lint")
    assert await shop.work() == ["told", "told"]
    titles = {one.title for one in await shop.builds_told()}
    assert titles == {"❌ Build broken: tests on main", "❌ Build broken: lint on main"}
    assert len(await shop.suggestions()) == 2
    [which] = await shop.say("fix build")
    assert which.title == "❌ No such build to fix" or "lint on main" in which.text
    assert "tests on main" in which.text and await shop.tasks() == []
    await shop.say("fix build LINT")
    [task] = await shop.tasks()
    assert task.failing_log.startswith("Workflow: lint\n")
    await shop.ran(GOOD, commit(shop.bare, {"a": "c"}), workflow="lint")
    titles = {one.title for one in await shop.builds_told()}
    assert {"❌ Build broken: tests on main", "✅ Build fixed: lint on main"} <= titles


async def test_fix_build_means_the_one_that_is_broken(shop: Shop) -> None:
    [none] = await shop.say("fix build")
    assert "no build is broken" in none.text
    await breaks(shop)
    [other] = await shop.say("fix build deploy")
    assert "broken are: tests on main" in other.text and await shop.tasks() == []
    await shop.say("fix the build")
    [task] = await shop.tasks()
    assert task.kind is TaskKind.FIX and "E   assert 5 == 6" in task.failing_log
    assert (await shop.standing()).task == task.id


async def test_status_build_tells_each_workflow_and_branch(shop: Shop) -> None:
    [none] = await shop.say("status build")
    assert "none known" in none.title and "has reported" in none.text
    run = await breaks(shop)
    await shop.ran(GOOD, workflow="lint")
    await shop.ran(GOOD, branch="feature")
    await shop.ran(None, workflow="deploy")
    [told] = await shop.say("status build")
    assert told.title == "📊 Builds of shop: 1 broken"
    lines = {line.name: line.value for line in told.fields}
    assert lines["main · tests"].startswith(f"❌ since {run.commit[:12]}")
    assert "job unit, step pytest -q" in lines["main · tests"]
    assert lines["main · lint"].startswith("✅") and lines["feature · tests"].startswith("✅")
    assert "runs on" in lines["main · deploy"]


@pytest.mark.parametrize("minutes", [-9, 0, 9])
async def test_an_end_counts_whatever_time_it_bears_and_is_not_taken_back(shop: Shop, minutes: int) -> None:
    run = await shop.ran(None, id="5")
    end = run.evolve(conclusion=BAD, updated_at=run.updated_at + timedelta(minutes=minutes))
    for one in (end, run.evolve(updated_at=AT)):
        await shop.hear(Ran(run=one))
    [told] = await shop.say("status build")
    assert [(line.name, line.value[:1]) for line in told.fields] == [("main · tests", "❌")]


async def test_an_attempt_whose_end_was_never_told_does_not_run_beside_the_next(shop: Shop) -> None:
    sha = await shop.head()
    await shop.ran(None, sha, id="5")
    [told] = await shop.say("status build")
    assert [line.value for line in told.fields] == [f"⏳ runs on {sha[:12]}"]
    await shop.ran(None, sha, id="5", attempt=2)
    [told] = await shop.say("status build")
    assert [line.value for line in told.fields] == [f"⏳ runs on {sha[:12]}"]
    await shop.ran(GOOD, sha, id="5", attempt=2)
    [told] = await shop.say("status build")
    assert [line.value[:1] for line in told.fields] == ["✅"]


async def test_a_host_that_does_not_answer_is_asked_again_before_anything_is_told(tmp_path: Path) -> None:
    """Which branch is the default one is not known meanwhile, and its log is worth waiting for."""

    class Away(LocalForge):
        away = 3

        async def sync(self) -> tuple[str, str]:
            if self.away:
                self.away -= 1
                raise RepositoryUnusable("it does not answer")
            return await super().sync()

    bare = repository(tmp_path / "shop.git")
    forge = Away(tmp_path / "house" / "repos" / "shop", str(bare))
    forge.away = 0
    async with Shop(tmp_path, bare, 1, forge) as shop:
        await shop.ran(GOOD)
        await shop.ran(BAD, commit(bare, {"a": "b"}))
        forge.away = 3
        assert await shop.work() == ["told"]
        assert shop.engine.slept == [40.0, 80.0, 160.0]
        [told] = await shop.builds_told()
        assert "E   assert 5 == 6" in told.blocks[0].text


async def test_a_secret_in_a_log_is_neither_told_nor_kept_nor_given_to_a_task(shop: Shop) -> None:
    token = "ghp_" + "Zk3mP9qR7tV2xW5yA8bC1dE4fG6hJ0kL2nM4"
    await shop.level(4)
    await shop.ran(Conclusion.FAILURE, log=LOG.replace(b"5 == 6", b"5 == 6 " + token.encode()))
    await shop.work()
    [task] = await shop.tasks()
    standing = await shop.standing()
    assert standing.failure is not None and task.failing_log
    told = " ".join(one.plain() for one in await shop.told())
    assert not any(token in text for text in (task.failing_log, told, standing.model_dump_json()))


async def test_the_fix_task_of_level_4_answers_where_the_team_talks(shop: Shop) -> None:
    await shop.route(ROOM, AlertKind.BUILDS)
    await shop.level(4)
    await breaks(shop)
    [task] = await shop.tasks()
    assert (task.thread.channel, task.thread.conversation) == ("slack", ROOM)


async def test_a_status_that_fails_again_on_the_same_commit_is_flaky_and_told_again(shop: Shop) -> None:
    await shop.level(2)
    await shop.status(BAD, 1)
    assert await shop.work() == ["told"] and len(await shop.suggestions()) == 1
    await shop.status(GOOD, 2)
    [fixed] = await shop.builds_told()
    assert "it is flaky" in fixed.fields[0].value
    await shop.status(BAD, 3)
    assert await shop.work() == ["told"]
    titles = [one.title for one in await shop.builds_told()]
    assert sorted(titles) == ["⚠️ Flaky build: jenkins on main", "✅ Build fixed: jenkins on main"]


async def test_a_run_that_breaks_it_for_the_second_time_is_told_though_it_was_looked_at_before(
    shop: Shop,
) -> None:
    await shop.ran(GOOD, minute=0)
    first, second = (commit(shop.bare, {"cart.py": f"{n}\n"}) for n in range(2))
    late = await shop.ran(BAD, second, id="late", minute=20)
    [look] = [
        one for one in await shop.store.read(lambda unit: unit.open_intents(9)) if one.target == "build"
    ]
    await shop.ran(BAD, first, id="early", minute=10)
    assert await shop.run(look) == "run early broke it"
    await shop.store.write(lambda unit: unit.close_intent(look.id, shop.clock()))
    await shop.ran(GOOD, first, id="early", attempt=2, minute=30)
    assert "told" in await shop.work()
    standing = await shop.standing()
    assert standing.broken_by == late and standing.told


async def test_a_pull_request_from_the_default_branch_says_nothing_of_that_branch(shop: Shop) -> None:
    await shop.level(4)
    await shop.ran(GOOD)
    await shop.ran(BAD, event="pull_request")
    await shop.ran(BAD, workflow="merges", event="pull_request")
    assert await shop.work() == ["it tried a pull request, and no branch"]
    assert await shop.builds_told() == [] and await shop.tasks() == []
    assert (await shop.standing()).broken_by is None and not (await shop.standing()).flaky


async def test_a_status_of_a_commit_that_is_in_no_branch_of_ours_breaks_none(shop: Shop) -> None:
    """GitHub names no branch where the commit is a fork's."""
    at, sha = shop.clock(), "f" * 40
    run = Run(
        id=f"status:{sha}:ci",
        workflow="ci",
        branch="",
        commit=sha,
        event="status",
        started_at=at,
        updated_at=at,
    )
    await shop.hear(Checked(run=run))
    [told] = await shop.say("status build")
    assert [line.name for line in told.fields] == ["elsewhere · ci"]
    await shop.hear(Checked(run=run.evolve(conclusion=BAD)))
    [told] = await shop.say("status build")
    assert told.title == "📊 Builds of shop: none known" and told.fields == ()
    assert await shop.store.read(lambda unit: unit.standings("shop")) == []


async def test_what_is_broken_on_a_branch_is_told_when_that_becomes_the_default_one(shop: Shop) -> None:
    git("branch", "trunk", "main", cwd=shop.bare)
    await shop.ran(GOOD, branch="trunk")
    await shop.ran(BAD, commit(shop.bare, {"a": "b"}), branch="trunk")
    assert await shop.work() == ["trunk is not the default branch"]
    git("symbolic-ref", "HEAD", "refs/heads/trunk", cwd=shop.bare)
    await shop.hear(RepositoryChanged(action="default_branch", old="main", new="trunk"))
    assert await shop.work() == ["told"]
    assert [one.title for one in await shop.builds_told()] == ["❌ Build broken: tests on trunk"]


async def test_a_branch_that_was_deleted_is_broken_no_more(shop: Shop) -> None:
    git("branch", "feature", "main", cwd=shop.bare)
    await shop.ran(BAD, branch="feature")
    [before] = await shop.say("status build")
    git("branch", "-D", "feature", cwd=shop.bare)
    await shop.look()
    [after] = await shop.say("status build")
    assert (before.title, after.title) == (
        "📊 Builds of shop: 1 broken",
        "📊 Builds of shop: none known",
    )


async def test_while_a_task_mends_a_build_no_second_one_begins(shop: Shop) -> None:
    await shop.level(2)
    await breaks(shop)
    await shop.say("fix build")
    [task] = await shop.tasks()
    [suggestion] = await shop.suggestions()
    told = await shop.say(f"approve {suggestion.token}")
    assert any(f"{task.id} works on tests on main" in one.text for one in told)
    assert await shop.tasks() == [task]
    ended = task.evolve(status=TaskStatus.FAILED)
    await shop.store.write(lambda unit: unit.update_task(ended))
    await shop.say("fix build")
    assert len(await shop.tasks()) == 2
