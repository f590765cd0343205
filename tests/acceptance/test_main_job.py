"""From an instruction to a pull request, on both databases: slots, queue, cancel, retry, limits that ask, and a server that is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from codespar.scripted.script import Library, Script, Turn, bash, pause, write
from support.house import House
from support.repositories import branches, git, repository

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]


def makes(name: str, *, seconds: float = 0.0) -> Script:
    """A task that writes one file, slowly if need be."""
    first = Turn("I write it.", (write(name, f"made by {name}\n"),))
    slow = Turn("I wait.", (pause(seconds),)) if seconds else None
    turns = (first, slow) if slow else (first,)
    return Script((*turns, Turn(f"feat: add {name}\n\nDone.")))


SCRIPTS = Library(
    {
        "quick": makes("quick.txt"),
        "slow": makes("slow.txt", seconds=4),
        "forever": makes("forever.txt", seconds=600),
        "unfinished change to this": Script(  # what goes on after an answer has the rest to do alone
            (
                Turn("I look again.", (bash("cat dear.txt"),), input_tokens=1000),
                Turn("feat: add dear.txt\n\nDone."),
            )
        ),
        "expensive": Script(
            (
                Turn("First I write.", (write("dear.txt", "one\n"),), input_tokens=600_000),
                Turn("Then I look.", (bash("cat dear.txt"),), input_tokens=600_000),
                Turn("And once more.", (bash("ls"),), input_tokens=1000),
                Turn("feat: add dear.txt\n\nDone."),
            )
        ),
    }
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, docker_engine: str
) -> AsyncIterator[House]:
    settings = {}
    if request.param == "postgresql":
        settings["database_url"] = request.getfixturevalue("postgres_module_database")
    async with House(tmp_path_factory.mktemp("house"), SCRIPTS, settings=settings) as house:
        yield house


async def test_an_instruction_ends_in_a_tested_pull_request(house: House, tmp_path: Path) -> None:
    bare = repository(tmp_path / "one.git")
    await house.link("one", bare)
    id = await house.instruct("one", "do the quick thing")
    task = await house.until(id, "completed")
    result = task["result"]
    assert (result["prNumber"], result["prTitle"]) == (1, "feat: add quick.txt")
    assert (result["filesChanged"], result["additions"], result["deletions"]) == (1, 1, 0)
    assert result["tests"]["exitCode"] == 0 and result["costMicros"] > 0
    assert branches(bare) == [result["branch"]]
    message = git("log", "-1", "--format=%B", result["branch"], cwd=bare)
    assert (
        message.startswith("feat: add quick.txt") and f"Task: {id}" in message and "Requested-by: " in message
    )
    done = await house.message("one", "✅ Task Completed")
    assert [line.value for line in done.fields][:2] == [
        'PR #1 opened: "feat: add quick.txt"',
        "Files changed: 1 | Lines: +1 / -0",
    ]


async def test_three_run_the_fourth_queues_and_starts_by_itself(house: House, tmp_path: Path) -> None:
    await house.link("slots", repository(tmp_path / "slots.git"))
    first = [await house.instruct("slots", f"do the slow thing {n}") for n in range(3)]
    answers = await house.say("slots", "instruct do the quick thing")
    assert answers[0].title == "⏳ Task Queued (position 1)"
    assert [(line.name, line.value) for line in answers[0].fields] == [
        ("Task", '"do the quick thing"'),
        ("Active tasks", "3/3"),
        ("Estimated start", "when next task completes"),
    ]
    fourth = answers[0].agent or ""
    assert (await house.task(fourth))["position"] == 1
    await asyncio.gather(*(house.until(id, "completed") for id in (*first, fourth)))
    told = await house.message("slots", "🔧 Task Started (dequeued from position 1)")
    assert [line.name for line in told.fields] == ["Task", "Agent", "Active tasks"]
    await house.message(
        "slots", 'Task dequeued: "do the quick thing" (was position 1, 0 remaining in queue)', ""
    )
    assert len(await house.pulls("slots")) == 4


async def test_a_queued_task_that_is_cancelled_never_runs(house: House, tmp_path: Path) -> None:
    await house.link("cq", repository(tmp_path / "cq.git"))
    held = [await house.instruct("cq", f"wait forever {n}") for n in range(3)]
    queued = await house.instruct("cq", "do the quick thing")
    await house.say("cq", f"cancel {queued}")
    task = await house.until(queued, "cancelled")
    assert task["startedAt"] is None and "never ran" in task["result"]["summary"]
    for id in held:
        await house.phase(id, "time.sleep")
        await house.say("cq", f"cancel {id}")
    for id in held:
        ended = await house.until(id, "cancelled")
        assert ended["result"]["patch"], "the work so far is kept"
        assert "forever.txt" in Path(ended["result"]["patch"]).read_text()
        assert "cancelled by" in ended["result"]["summary"]
    assert await house.pulls("cq") == []
    again = await house.say("cq", f"cancel {held[0]}")
    assert "Nothing to cancel" in again[0].title


async def test_retry_does_the_same_again(house: House, tmp_path: Path) -> None:
    await house.link("retry", repository(tmp_path / "retry.git"))
    id = await house.instruct("retry", "do the quick thing")
    await house.until(id, "completed")
    answers = await house.say("retry", f"retry {id}")
    second = answers[0].agent or ""
    assert second != id
    task = await house.until(second, "completed")
    assert task["instruction"] == "do the quick thing"


async def test_a_message_sent_twice_starts_one_task(house: House, tmp_path: Path) -> None:
    await house.link("twice", repository(tmp_path / "twice.git"))
    ids = await asyncio.gather(*(house.instruct("twice", "do the quick thing", id="same") for _ in range(5)))
    assert len(set(ids)) == 1
    await house.until(ids[0], "completed")
    assert len(await house.pulls("twice")) == 1


async def test_a_spent_budget_asks_and_goes_on_with_the_work_so_far(house: House, tmp_path: Path) -> None:
    bare = repository(tmp_path / "budget.git", config="test: test -f dear.txt\nlimits: {cost: $2}\n")
    await house.link("budget", bare)
    id = await house.instruct("budget", "do the expensive thing")
    await house.until(id, "waiting")
    asked = await house.message("budget", f"{id} asks: the budget of $2.00 is spent")
    assert (await house.say("budget", "queue"))[0].title == "📋 Active tasks: 0/3"
    assert asked.actions[0].command.startswith("approve bg-")
    await house.say("budget", asked.actions[0].command)
    task = await house.until(id, "completed")
    assert task["attempt"] == 2 and task["result"]["additions"] == 1
    late = await house.say("budget", asked.actions[0].command)
    assert "does not count" in late[0].title


async def test_a_spent_budget_that_is_refused_ends_with_the_work_kept(house: House, tmp_path: Path) -> None:
    await house.link("no", repository(tmp_path / "no.git", config="limits: {cost: $2}\n"))
    id = await house.instruct("no", "do the expensive thing")
    await house.until(id, "waiting")
    asked = await house.message("no", f"{id} asks")
    await house.say("no", asked.actions[1].command)
    task = await house.until(id, "failed")
    assert "said to stop" in task["result"]["summary"] and Path(task["result"]["patch"]).exists()


async def test_silence_asks(house: House, tmp_path: Path) -> None:
    await house.link("stall", repository(tmp_path / "stall.git", config="limits: {stall: 3s}\n"))
    id = await house.instruct("stall", "wait forever")
    await house.until(id, "waiting")
    asked = await house.message("stall", f"{id} asks: no output for")
    await house.say("stall", f"cancel {id}")
    await house.until(id, "cancelled")
    assert (await house.say("stall", asked.actions[0].command))[0].tone.value == "failure"


async def test_a_task_at_its_time_limit_asks(house: House, tmp_path: Path) -> None:
    await house.link("wall", repository(tmp_path / "wall.git", config="limits: {wall: 4s}\n"))
    id = await house.instruct("wall", "wait forever")
    await house.until(id, "waiting")
    await house.message("wall", f"{id} asks: it worked for")
    await house.say("wall", f"cancel {id}")
    await house.until(id, "cancelled")


async def test_kill_9_loses_nothing_and_doubles_nothing(house: House, tmp_path: Path) -> None:
    """Killed again and again while four tasks run: each ends once, with one branch, one pull request and one message of its end."""
    bare = repository(tmp_path / "killed.git")
    await house.link("killed", bare)
    ids = [await house.instruct("killed", f"do the slow thing {n}") for n in range(4)]
    for moment in (0.5, 1.5, 2.5, 1.0):
        await asyncio.sleep(moment)
        await house.kill()
        await house.up()
    assert (await house.say("killed", "status"))[0].title.startswith("📊")
    for id in ids:
        await house.until(id, "completed")
    assert len(branches(bare)) == 4
    assert sorted(pull["number"] for pull in await house.pulls("killed")) == [1, 2, 3, 4]
    said = await house.messages("killed")
    for id in ids:
        assert sum(f"Task Completed ({id})" in one.title for one in said) == 1
    assert sum("dequeued" in one.title for one in said) == 1
    assert (await house.client.get("/api/v1/audit/verify"))["ok"]
