"""Containers and whoever follows them: what is left of one when its output is refused, and when the server dies in the middle.

The engine, the store and the gateway are the real ones. A server that dies is a supervision that is dropped and begun again by another.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from codespar.agents.supervisor import Supervisor
from codespar.domain.tasks import Environment, Limits, Task, TaskKind, TaskSpec, TaskStatus, Thread
from codespar.sandbox.base import EnvironmentBroken, EnvironmentSetup, Job, Order, OutputRefused
from codespar.sandbox.docker import DockerSandbox
from codespar.sandbox.gateway import Gateway
from codespar.store.database import Database
from support.repositories import git, repository

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("docker_engine")]
DATA = Path(os.environ.get("CODESPAR_TEST_CACHE", "/var/tmp/codespar-test-cache"))
AT = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
TAKES_LEAVE = "trap 'echo > /output/ending; until [ -e /output/end ]; do sleep 0.1; done; exit 0' TERM; while :; do sleep 0.1; done"
"""Asked to end, it says so and waits to be allowed to."""


def now() -> datetime:
    return AT


async def no_file(commit: str, path: str) -> bytes | None:
    return None


def quiet(line: str) -> None:
    """Nobody waits."""


@dataclass
class House:
    folder: Path
    bare: Path
    sandbox: DockerSandbox
    store: Database
    gateway: Gateway
    image: str

    def supervisor(self) -> Supervisor:
        return Supervisor(self.store, self.gateway, now)

    async def order(self, test: str, **limits: Any) -> Order:
        """An order that runs `test`, of a task that runs."""
        id = f"test-{uuid.uuid4().hex[:8]}"
        thread = Thread(channel="cli", conversation="demo")
        task = Task(
            id=id, project="demo", ticket=1, kind=TaskKind.INSTRUCT, instruction="x", requester="Ada",
            thread=thread, status=TaskStatus.RUNNING, created_at=AT,
        )  # fmt: skip
        await self.store.write(lambda unit: unit.add_task(task))
        spec = TaskSpec(
            id=id, project="demo", repository="demo", base_branch="main",
            base_commit=git("rev-parse", "main", cwd=self.bare), instruction="x", requester="Ada",
            environment=Environment(image=self.image), test_command=test, model="claude-sonnet-5-5",
            limits=Limits(**({"memory_bytes": 512 * 1024**2, "tmp_bytes": 64 * 1024**2} | limits)),
        )  # fmt: skip
        name = f"codespar-{id}-1"
        return Order(name=name, job=Job.VERIFY, spec=spec, repository=self.bare, folder=self.folder / id)

    async def cancel(self, order: Order, *, killed: bool = False) -> None:
        def write(unit: Any) -> None:
            unit.update_task(unit.task(order.spec.id).evolve(cancel_requested_by="Ada", killed=killed))

        await self.store.write(write)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    sandbox = DockerSandbox(None, DATA, f"test-{uuid.uuid4().hex[:8]}")
    image = await sandbox.ensure_image(
        project="demo", base_commit="0" * 40, setup=EnvironmentSetup(), read_file=no_file, say=quiet
    )
    store = Database(f"sqlite:///{tmp_path / 'codespar.sqlite'}")
    await store.open()
    gateway = Gateway("http://127.0.0.1:1")
    try:
        yield House(tmp_path, repository(tmp_path / "r.git"), sandbox, store, gateway, image)
    finally:
        await gateway.close_all()
        await sandbox.sweep(set())
        await sandbox.close()
        await store.close()


async def until(path: Path, words: str = "") -> None:
    async with asyncio.timeout(120):
        while not path.is_file() or words not in path.read_text():  # noqa: ASYNC110 (it is written in a container)
            await asyncio.sleep(0.05)


async def dies(following: asyncio.Task[Any]) -> None:
    """The server ends without another word."""
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


async def has_ended(order: Order) -> None:
    """Wait until its container has."""
    await asyncio.to_thread(subprocess.run, ["docker", "wait", order.name], check=True, capture_output=True)


HOSTILE = {
    "a link": "ln -sf /etc/passwd /output/events.ndjson",
    "a pipe": "rm /output/events.ndjson; mkfifo /output/events.ndjson",
}


@pytest.mark.parametrize("trick", HOSTILE.values(), ids=HOSTILE)
async def test_a_container_whose_output_is_refused_does_not_go_on(house: House, trick: str) -> None:
    order = await house.order(f"{trick}; sleep 600")
    with pytest.raises(OutputRefused):
        await house.supervisor().follow(house.sandbox, order)
    assert not await house.sandbox.has(order.name)


async def test_a_container_whose_test_result_is_refused_is_taken_away(house: House) -> None:
    order = await house.order("mkdir /output/result.json; echo ok")
    with pytest.raises(OutputRefused):
        await house.supervisor().verify(house.sandbox, order)
    assert not await house.sandbox.has(order.name)


async def test_a_task_whose_server_died_while_it_was_cancelled_is_cancelled(house: House) -> None:
    order = await house.order(TAKES_LEAVE)
    following = asyncio.create_task(house.supervisor().follow(house.sandbox, order))
    await until(order.folder / "out" / "events.ndjson", "testing")
    await house.cancel(order)
    await until(order.folder / "out" / "ending")
    assert (order.folder / "stop.json").is_file(), "why it is ended was kept before"
    await dies(following)
    (order.folder / "out" / "end").touch()
    await has_ended(order)
    seen = await house.supervisor().follow(house.sandbox, order)
    assert seen.outcome == "cancelled"
    assert not await house.sandbox.has(order.name)


async def test_time_goes_on_while_the_server_is_away_and_its_limit_asks_also_then(house: House) -> None:
    order = await house.order(TAKES_LEAVE, wall_seconds=600)
    following = asyncio.create_task(house.supervisor().follow(house.sandbox, order))
    await until(order.folder / "out" / "events.ndjson", "testing")
    await dies(following)
    began = time.time() - 600  # ten minutes go by
    os.utime(order.folder / "in" / "order.json", (began, began))
    again = asyncio.create_task(house.supervisor().follow(house.sandbox, order))
    await until(order.folder / "out" / "ending")  # and not ten minutes later
    await dies(again)
    (order.folder / "out" / "end").touch()
    seen = await house.supervisor().follow(house.sandbox, order)
    assert seen.outcome == "ask" and "its limit" in seen.summary


async def test_a_kill_gives_no_grace_to_the_tests_either(house: House) -> None:
    order = await house.order("trap '' TERM; while :; do sleep 0.1; done")
    verifying = asyncio.create_task(house.supervisor().verify(house.sandbox, order))
    await until(order.folder / "out" / "events.ndjson", "testing")
    await house.cancel(order, killed=True)
    async with asyncio.timeout(60):
        run = await verifying
    assert run.exit_code == 137, "it was killed, and did not end by itself"
    assert not (order.folder / "out" / "result.json").exists(), "no five seconds for the tests to end either"


async def test_who_no_longer_waits_for_an_environment_ends_its_build(house: House) -> None:
    mark = uuid.uuid4().hex
    setup = EnvironmentSetup(setup=(f"sleep 600 # {mark}",))
    building = asyncio.create_task(
        house.sandbox.ensure_image(
            project="demo", base_commit="1" * 40, setup=setup, read_file=no_file, say=quiet
        )
    )

    async def runs() -> bool:
        command = ["docker", "ps", "--no-trunc", "--format", "{{.Command}}"]
        shown = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        return mark in shown.stdout

    async with asyncio.timeout(120):
        while not await runs():  # noqa: ASYNC110 (the engine is asked)
            await asyncio.sleep(0.1)
        await dies(building)
        while await runs():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_a_ready_image_s_name_that_stands_for_another_image_is_looked_at_again(house: House) -> None:
    name = f"codespar-test/ready:{uuid.uuid4().hex[:8]}"
    setup = EnvironmentSetup(image=name)

    async def made(line: str) -> str:
        recipe = f"FROM {house.image}\nUSER 0\nRUN {line}\n"
        command = ["docker", "build", "-q", "-t", name, "-"]
        await asyncio.to_thread(
            subprocess.run, command, input=recipe, text=True, check=True, capture_output=True
        )
        return await house.sandbox.ensure_image(
            project="demo", base_commit="1" * 40, setup=setup, read_file=no_file, say=quiet
        )

    try:
        await made("echo one > /own")
        with pytest.raises(EnvironmentBroken, match="the image has no git"):
            await made("rm /usr/bin/git")
    finally:
        await asyncio.to_thread(subprocess.run, ["docker", "rmi", "-f", name], capture_output=True)
