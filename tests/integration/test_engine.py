"""The durable engine on both databases, in a process of its own that is killed: no finished step runs again, nothing waits for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codespar.store.sibling import engine_database
from support.lives import Lives

PROGRAM = """
import asyncio, json, os, signal, sys
from datetime import UTC, datetime
from codespar.engine.durable import DurableEngine
from codespar.engine.starter import Starter
from codespar.store.base import Intent
from codespar.store.database import Database

url, trace, action = sys.argv[1:4]

def note(word):
    with open(trace, "a") as file:
        file.write(word + "\\n")
        file.flush()
        os.fsync(file.fileno())

async def first():
    note("first")
    return "one"

async def second():
    note("second")
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return "two"

async def unsteady():
    note("unsteady")
    if open(trace).read().count("unsteady") < 3:
        raise RuntimeError("the database is away")
    return "steady"

async def work(context, payload):
    answers = [await context.step("first", first), await context.step("second", second), payload["word"]]
    note("done " + json.dumps(answers))

async def wait(context, payload):
    note("answer " + json.dumps(await context.wait("answer", 30)))
    note("answer " + json.dumps(await context.wait("answer", 0.5)))

async def retry(context, payload):
    note("got " + await context.step("unsteady", unsteady))

async def hand_over(engine):
    now = lambda: datetime.now(UTC)
    store = Database(f"sqlite:///{trace}.sqlite")
    await store.open()
    lost = [Intent(id=f"lost-{n}", kind="send", target=f"nobody-{n}", payload={"topic": "t", "message": n}) for n in range(3)]
    start = Intent(id="start", kind="start", target="work", payload={"workflowId": "w-1", "word": "three"})
    for intent in [*lost, start]:
        await store.write(lambda unit: unit.intend(intent, now()))
    await Starter(store, engine, now).drain()
    left = await store.read(lambda unit: unit.open_intents(10))
    note("open " + " ".join(intent.id for intent in left))
    await store.close()

async def main():
    engine = DurableEngine(url)
    engine.register("work", work)
    engine.register("wait", wait)
    engine.register("retry", retry)
    await engine.open()
    if action in ("die", "twice"):
        for _ in range(2):
            await engine.start("work", "w-1", {"word": "three"})
    elif action == "retry":
        await engine.start("retry", "r-1", {})
    elif action == "park":
        await engine.start("wait", "p-1", {})
        await asyncio.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "answer":
        for _ in range(3):
            await engine.send("p-1", "answer", {"yes": True}, "same-key")
    elif action == "starter":
        await hand_over(engine)
    ending = {"starter": "done", "go-on": "done", "twice": "done", "retry": "got", "answer": "answer null"}.get(action, "")
    for _ in range(1600):
        if ending and os.path.exists(trace) and ending in open(trace).read():
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)  # for what must not happen again
    if action == "twice":
        await engine.close()  # takes its time: once is enough
    sys.stdout.flush()
    os._exit(0)

asyncio.run(main())
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'engine.sqlite'}"
        return
    database = request.getfixturevalue("postgres_database")
    yield asyncio.run(engine_database(database))


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    with Lives("codespar.engine.durable", "codespar.engine.starter", "codespar.store.database") as lives:
        yield lives


Run = Callable[..., list[str]]


@pytest.fixture
def run(lives: Lives, url: str, tmp_path: Path) -> Run:
    """One life of the process. Returns everything noted so far."""
    trace, said = tmp_path / "trace", tmp_path / "said"

    def run(action: str, *, killed: bool = False) -> list[str]:
        code = lives.live(PROGRAM, url, str(trace), action, said=said)
        assert code == (-9 if killed else 0), said.read_text()[-3000:]
        return trace.read_text().splitlines() if trace.exists() else []

    return run


def test_a_workflow_killed_in_a_step_goes_on_from_there(run: Run) -> None:
    assert run("die", killed=True) == ["first", "second"]
    lines = run("go-on")
    assert lines.count("first") == 1, "a finished step is not run again"
    assert lines.count("second") == 2, "a step runs at least once"
    assert json.loads(lines[-1].removeprefix("done ")) == ["one", "two", "three"]


def test_an_id_started_twice_runs_once(run: Run) -> None:
    assert run("twice") == ["first", "second", 'done ["one", "two", "three"]']


def test_a_wait_survives_a_kill_and_an_answer_counts_once(run: Run) -> None:
    run("park", killed=True)
    assert run("answer") == ['answer {"yes": true}', "answer null"]


def test_a_step_that_raises_is_tried_again(run: Run) -> None:
    assert run("retry") == ["unsteady", "unsteady", "unsteady", "got steady"]


def test_an_intent_that_cannot_be_handed_over_holds_up_no_other(run: Run) -> None:
    """The workflow it is for may be lost with an engine's database that was restored from a backup."""
    lines = run("starter")
    assert "open lost-0 lost-1 lost-2" in lines
    assert 'done ["one", "two", "three"]' in lines
