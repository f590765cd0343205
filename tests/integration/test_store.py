"""The store on both databases: inbox, outbox, intents, tasks, agents, and units of work that are all or nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from codespar.domain.agents import AgentKind, AgentState, Outcome, TransitionRefused
from codespar.domain.messages import Author, Channel, NormalizedMessage, NormalizedResponse
from codespar.domain.people import Role
from codespar.domain.tasks import Task, TaskKind, TaskStatus, Thread
from codespar.store.base import Intent, Notice, Outgoing, Project, StoreError, Unit
from codespar.store.database import Database

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
THREAD = Thread(channel="cli", conversation="shop", thread_id="t", person="ada")


def body(text: str = "status") -> dict[str, object]:
    author = Author(id="ada", name="Ada", role=Role.OWNER)
    message = NormalizedMessage(id="d1", channel=Channel.CLI, author=author, content=text, timestamp=AT)
    return {"message": message.wire(), "person": "ada", "thread": THREAD.wire()}


def card(title: str, replaces: str | None = None) -> NormalizedResponse:
    return NormalizedResponse(title=title, replaces=replaces)


def task(id: str, ticket: int, status: TaskStatus = TaskStatus.QUEUED) -> Task:
    return Task(
        id=id,
        project="shop",
        ticket=ticket,
        kind=TaskKind.INSTRUCT,
        instruction="do it",
        requester="Ada",
        thread=THREAD,
        status=status,
        created_at=AT,
    )


async def test_a_repeated_delivery_is_kept_once_and_known_by_its_first_id(store: Database) -> None:
    async def deliver(source: str, delivery: str) -> tuple[int, bool]:
        return await store.write(lambda unit: unit.accept(source, delivery, "shop", body(), AT))

    first = await deliver("slack", "d1")
    assert first[1] and await deliver("slack", "d1") == (first[0], False)
    assert (await deliver("telegram", "d1"))[1], "another platform's ids are another space"


async def test_the_inbox_is_read_in_order_and_what_is_done_is_gone(store: Database) -> None:
    ids = []
    for number in range(3):
        kept = await store.write(
            lambda unit, n=number: unit.accept("cli", f"d{n}", "shop", body(f"say {n}"), AT)
        )
        ids.append(kept[0])
    pending = await store.read(lambda unit: unit.pending("shop", 10))
    assert [one.id for one in pending] == ids and pending[1].message.content == "say 1"
    await store.write(lambda unit: unit.finish(ids[0], AT))
    assert [one.id for one in await store.read(lambda unit: unit.pending("shop", 10))] == ids[1:]
    assert await store.read(lambda unit: unit.projects_with_pending()) == ["shop"]
    assert await store.read(lambda unit: unit.is_pending(ids[1])) is True
    await store.write(lambda unit: unit.finish(ids[1], AT, "it said \x00 and \udcff"))
    assert await store.read(lambda unit: unit.is_pending(ids[1])) is False, "whatever an error quotes"


async def test_said_twice_is_said_once_and_an_edit_moves_the_message_to_the_end(store: Database) -> None:
    await store.write(lambda unit: unit.say("shop", THREAD, "a", card("one"), AT, 7))
    await store.write(lambda unit: unit.say("shop", THREAD, "a", card("one again"), AT, 7))
    await store.write(lambda unit: unit.say("shop", THREAD, "p", card("progress 1", "p"), AT))
    await store.write(lambda unit: unit.say("shop", THREAD, "b", card("two"), AT))
    await store.write(lambda unit: unit.say("shop", THREAD, "p", card("progress 2", "p"), AT))
    found = await store.read(lambda unit: unit.messages(THREAD.key, 0, 10))
    assert [one.response.title for one in found] == ["one", "two", "progress 2"]
    assert [
        one.response.title
        for one in await store.read(lambda unit: unit.messages(THREAD.key, found[0].seq, 10))
    ] == [
        "two",
        "progress 2",
    ]
    assert [one.response.title for one in await store.read(lambda unit: unit.answers(7))] == ["one"]
    assert found[0].created_at == AT


async def test_an_intent_is_kept_once_and_open_until_closed(store: Database) -> None:
    intent = Intent(id="task-1:start", kind="start", target="task", payload={"task": "task-1"})
    for _ in range(2):
        await store.write(lambda unit: unit.intend(intent, AT))
    assert await store.read(lambda unit: unit.open_intents(10)) == [intent]
    await store.write(lambda unit: unit.close_intent(intent.id, AT))
    assert await store.read(lambda unit: unit.open_intents(10)) == []


async def test_tasks_are_found_by_status_in_order_of_arrival(store: Database) -> None:
    for number, status in enumerate((TaskStatus.RUNNING, TaskStatus.QUEUED, TaskStatus.COMPLETED)):
        await store.write(
            lambda unit, n=number, s=status: unit.add_task(task(f"task-{n}", unit.next_ticket(), s))
        )
    assert await store.write(lambda unit: unit.add_task(task("task-0", 99))) is False, "an id is taken once"
    assert [one.id for one in await store.read(lambda unit: unit.open_tasks("shop"))] == ["task-0", "task-1"]
    assert [one.id for one in await store.read(lambda unit: unit.tasks("shop", "completed"))] == ["task-2"]
    queued = await store.read(lambda unit: unit.task("task-1"))
    assert queued is not None and queued.phase == ""
    await store.write(lambda unit: unit.update_task(queued.evolve(phase="thinking", started_at=AT)))
    known = await store.read(lambda unit: unit.task("task-1"))
    assert known is not None and (known.phase, known.started_at) == ("thinking", AT)


async def test_an_answer_of_the_model_is_counted_once(store: Database) -> None:
    for _ in range(3):
        await store.write(lambda unit: unit.record_usage("task-1", "msg_1", "m", 100, 5, AT))
    await store.write(lambda unit: unit.record_usage("task-1", "msg_2", "m", 50, 4, AT))
    assert await store.read(lambda unit: unit.usage("task-1")) == (9, 150, 2)


async def test_transitions_are_stored_with_time_cause_and_correlation_and_others_refused(
    store: Database,
) -> None:
    later = AT + timedelta(seconds=1)

    def live(unit: Unit) -> None:
        unit.create_agent("task-1", AgentKind.TASK, "shop", "instructed", "c1", AT)
        unit.transition("task-1", AgentState.IDLE, "ready", "c1", AT)
        unit.transition("task-1", AgentState.ACTIVE, "slot granted", "c2", later)

    await store.write(live)
    with pytest.raises(TransitionRefused, match="task-1 is ACTIVE"):
        await store.write(lambda unit: unit.transition("task-1", AgentState.ACTIVE, "again", "c3", later))
    await store.write(
        lambda unit: unit.transition("task-1", AgentState.TERMINATED, "done", "c4", later, Outcome.SUCCEEDED)
    )
    agent = await store.read(lambda unit: unit.agent("task-1"))
    assert agent is not None and (agent.state, agent.outcome, agent.since) == (
        "TERMINATED",
        "succeeded",
        later,
    )
    steps = await store.read(lambda unit: unit.transitions("task-1"))
    assert [(one["before"], one["after"], one["cause"], one["correlation"]) for one in steps] == [
        (None, "INITIALIZING", "instructed", "c1"),
        ("INITIALIZING", "IDLE", "ready", "c1"),
        ("IDLE", "ACTIVE", "slot granted", "c2"),
        ("ACTIVE", "TERMINATED", "done", "c4"),
    ]


async def test_a_unit_that_fails_leaves_nothing_while_its_neighbours_are_kept(store: Database) -> None:
    heard: list[Notice] = []
    store.on_commit = heard.extend

    def fail(unit: Unit) -> None:
        unit.say("shop", THREAD, "lost", card("lost"), AT)
        raise RuntimeError("in the middle")

    works = [
        lambda unit: unit.say("shop", THREAD, "one", card("one"), AT),
        fail,
        lambda unit: unit.say("shop", THREAD, "two", card("two"), AT),
    ]
    answers = await store.write_all(works)
    assert isinstance(answers[1], RuntimeError) and answers[0] is None
    outcomes = await asyncio.gather(*(store.write(work) for work in works), return_exceptions=True)
    assert isinstance(outcomes[1], RuntimeError)
    with pytest.raises(RuntimeError):
        await store.write(fail)
    kept = [one.response.title for one in await store.read(lambda unit: unit.messages(None, 0, 10))]
    assert kept == ["one", "two"]
    assert [notice.key for notice in heard] == ["one", "two"], "what was rolled back is not announced"


async def test_nothing_is_announced_before_it_can_be_read(store: Database) -> None:
    """Whoever is told of a message finds it: the notice comes after the commit, and before the writer goes on."""
    found: list[asyncio.Task[list[Outgoing]]] = []

    def look(notices: list[Notice]) -> None:
        found.extend(
            asyncio.ensure_future(store.read(lambda unit: unit.messages(None, 0, 100))) for _ in notices
        )

    store.on_commit = look
    says = [
        store.write(lambda unit, n=number: unit.say("shop", THREAD, f"k{n}", card(f"{n}"), AT))
        for number in range(20)
    ]
    await asyncio.gather(*says)
    assert len(found) == 20
    seen = await asyncio.gather(*found)
    assert all(seen) and len(seen[-1]) == 20


async def test_a_reader_sees_one_moment_and_nothing_uncommitted(store: Database) -> None:
    """What is committed while a read is under way is not seen half, and what is not committed not at all."""
    entered, go_on = threading.Event(), threading.Event()

    def write_slowly(unit: Unit) -> None:
        unit.say("shop", THREAD, "slow", card("slow"), AT)
        entered.set()
        assert go_on.wait(60)

    def read_twice(unit: Unit) -> tuple[int, int]:
        before = len(unit.messages(None, 0, 10))
        assert entered.wait(60)
        go_on.set()
        time.sleep(0.3)  # the writer commits meanwhile
        return before, len(unit.messages(None, 0, 10))

    reading = asyncio.ensure_future(store.read(read_twice))
    await store.write(write_slowly)
    assert await reading == (0, 0)
    assert len(await store.read(lambda unit: unit.messages(None, 0, 10))) == 1


async def test_a_closed_store_refuses_instead_of_waiting_for_ever(store: Database) -> None:
    await store.close()
    for ask in (store.write, store.read):
        with pytest.raises(StoreError, match="closed"):
            await asyncio.wait_for(ask(lambda unit: unit.projects()), 60)


async def test_what_was_handed_in_before_closing_is_committed(store: Database) -> None:
    writes = [asyncio.ensure_future(store.write(lambda unit: unit.next_ticket())) for _ in range(150)]
    await asyncio.sleep(0)
    await store.close()
    assert sorted(await asyncio.gather(*writes)) == list(range(1, 151))


async def test_many_writers_lose_nothing_and_count_without_gaps(store: Database) -> None:
    tickets = await asyncio.gather(*(store.write(lambda unit: unit.next_ticket()) for _ in range(200)))
    assert sorted(tickets) == list(range(1, 201))


async def test_what_one_unit_reads_stays_true_until_it_is_committed(store: Database) -> None:
    """Read, decide, write, many at once: no update is lost."""
    await store.write(lambda unit: unit.add_task(task("task-1", 1)))

    def spend(unit: Unit) -> None:
        known = unit.task("task-1")
        assert known is not None
        unit.update_task(known.evolve(turns=known.turns + 1))

    await asyncio.gather(*(store.write(spend) for _ in range(100)))
    known = await store.read(lambda unit: unit.task("task-1"))
    assert known is not None and known.turns == 100


async def test_a_project_is_saved_over_its_older_self(store: Database) -> None:
    project = Project(name="shop", repository="/srv/shop.git", created_at=AT)
    for paused in (False, True):
        await store.write(lambda unit, p=paused: unit.save_project(project.evolve(paused=p)))
    assert await store.read(lambda unit: unit.projects()) == [project.evolve(paused=True)]
