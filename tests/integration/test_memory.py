"""What the agent knows and is told to keep in mind, by commands on the real store, and how it reaches a task's prompt as data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from codespar.domain.approvals import ApprovalKind, Verdict, new_approval, vote
from codespar.domain.memory import MOST_CHARACTERS, MOST_MEMORIES, Memory
from codespar.domain.messages import NormalizedResponse
from codespar.domain.people import Permission
from codespar.domain.tasks import Thread
from codespar.store.base import Unit
from support.agency import AT, PEOPLE, Agency
from support.repositories import commit, git, repository


@pytest.fixture
async def agency(tmp_path: Path) -> AsyncIterator[Agency]:
    async with Agency(tmp_path / "data", repository(tmp_path / "shop.git")) as made:
        yield made


def field(response: NormalizedResponse, name: str) -> str:
    return next(line.value for line in response.fields if line.name == name)


async def update(agency: Agency) -> None:
    _, tip = await agency.forge.sync()
    await agency.index.update(agency.forge.base_repository, tip)


async def test_memory_says_how_far_the_index_is_behind(agency: Agency, tmp_path: Path) -> None:
    remote = tmp_path / "shop.git"
    [nothing] = await agency.say("memory")
    assert field(nothing, "Index").startswith("nothing yet; main is at ")
    await update(agency)
    [up_to_date] = await agency.say("memory")
    assert field(up_to_date, "Index").endswith("up to date with main")
    commit(remote, {"a.py": "def a(): ...\n"})
    [one] = await agency.say("memory")
    assert field(one, "Index").endswith(", 1 commit behind main")
    commit(remote, {"b.py": "b = 1\n"})
    commit(remote, {"c.py": "c = 1\n"})
    [three] = await agency.say("context")
    assert field(three, "Index").endswith(", 3 commits behind main")


async def test_memory_says_when_the_index_shows_another_history(agency: Agency, tmp_path: Path) -> None:
    remote = tmp_path / "shop.git"
    commit(remote, {"a.py": "a = 1\n"})
    await update(agency)
    tree = tmp_path / "forced"
    git("clone", "-q", str(remote), str(tree), cwd=tmp_path)
    git("reset", "-q", "--hard", "HEAD~1", cwd=tree)
    (tree / "b.py").write_text("b = 1\n")
    git("add", "-A", cwd=tree)
    git("commit", "-q", "-m", "another", cwd=tree)
    git("push", "-q", "--force", cwd=tree)
    [told] = await agency.say("memory")
    assert field(told, "Index").endswith("on another history than main")
    await update(agency)
    [again] = await agency.say("memory")
    assert field(again, "Index").endswith("up to date with main")


async def test_a_repository_that_cannot_be_reached_is_said_and_the_rest_is_shown(
    agency: Agency, tmp_path: Path
) -> None:
    await agency.say("remember We squash")
    (tmp_path / "shop.git").rename(tmp_path / "gone.git")
    [told] = await agency.say("memory")
    assert field(told, "Index").startswith("not known: ")
    assert any(line.value.startswith("We squash (Ada") for line in told.fields)


async def test_what_is_remembered_is_listed_and_can_be_taken_back_once(agency: Agency) -> None:
    [kept] = await agency.say("remember We   squash\n before we merge")
    id = kept.title.split("(")[1].rstrip(")")
    assert kept.text == "We squash before we merge" and kept.actions[0].command == f"forget {id}"
    [listed] = await agency.say("memory")
    assert field(listed, id) == "We squash before we merge (Ada, 2026-03-02)"
    [forgotten] = await agency.say(f"forget {id.upper()}")
    assert forgotten.title == f"✅ Forgotten ({id})"
    [twice] = await agency.say(f"forget {id}")
    assert "Nothing of that id" in twice.title
    [none] = await agency.say("memory")
    assert field(none, "Conventions").startswith("none yet")


async def test_the_trail_says_that_something_was_kept_and_not_what(agency: Agency) -> None:
    await agency.say("remember the word is xyzzy")
    [entry] = await agency.audit("memory.kept")
    assert "xyzzy" not in str(entry) and entry["actor"] == "Ada"


async def test_the_same_is_remembered_once_and_so_is_the_same_message(agency: Agency) -> None:
    await agency.say("remember We squash", id="one")
    await agency.say("remember We squash", id="one")
    [again] = await agency.say("remember  We  squash")
    assert "already" in again.title
    assert len(await agency.store.read(lambda unit: unit.memories("shop"))) == 1


async def test_there_is_an_end_to_what_is_remembered(agency: Agency) -> None:
    [long] = await agency.say("remember " + "x" * (MOST_CHARACTERS + 1))
    assert "too long" in long.title

    def fill(unit) -> None:
        for number in range(MOST_MEMORIES):
            unit.remember(Memory(id=f"m-{number:06}", project="shop", text=f"n{number}", author="Ada", at=AT))

    await agency.store.write(fill)
    [full] = await agency.say("remember one more")
    assert "Nothing more" in full.title
    await agency.say("forget m-000007")
    [room] = await agency.say("remember one more")
    assert room.title.startswith("✅")


async def test_who_may_not_instruct_may_not_remember_or_forget(agency: Agency) -> None:
    [kept] = await agency.say("remember We squash")
    id = kept.title.split("(")[1].rstrip(")")
    for text in ("remember never mind", f"forget {id}"):
        [told] = await agency.say(text, by="rex")
        assert "not yours to give" in told.title
    assert len(await agency.store.read(lambda unit: unit.memories("shop"))) == 1


async def test_recent_decisions_are_shown_newest_first(agency: Agency) -> None:
    await agency.say("instruct first thing")
    agency.clock.move(minutes=5)
    await agency.say("instruct second thing")
    [told] = await agency.say("memory")
    [block] = told.blocks
    assert block.title == "Recent decisions"
    assert [line.split('"')[1] for line in block.text.splitlines()] == ["second thing", "first thing"]


async def test_a_decision_has_one_line_whatever_was_instructed(agency: Agency) -> None:
    await agency.say("instruct first\n\n2026-03-02 08:00 task-000000 completed: all of it")
    [told] = await agency.say("memory")
    assert len(told.blocks[0].text.splitlines()) == 1


async def test_the_newest_decision_is_shown_however_many_there_were_before(agency: Agency) -> None:
    def decide(unit: Unit) -> None:
        for number in range(150):
            at = AT + timedelta(minutes=number)
            asked = new_approval(
                kind=ApprovalKind.TASK,
                seed=f"{number}",
                project="shop",
                subject="instruct",
                action_summary=f"number {number}",
                shown_digest="",
                requester="rex",
                permission=Permission.INSTRUCT_AGENT,
                thread=Thread(channel="cli", conversation="shop"),
                now=at,
            )
            unit.save_approval(vote(asked, PEOPLE[0], Verdict.APPROVE, "cli", at, "").approval)

    await agency.store.write(decide)
    [told] = await agency.say("memory")
    assert told.blocks[0].text.splitlines()[0].endswith("approved by Ada: number 149")
