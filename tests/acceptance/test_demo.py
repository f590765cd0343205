"""`codespar demo` as a new user runs it: twice, and with everything killed in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from codespar.cli.processes import holder

pytestmark = pytest.mark.docker
SECONDS = 270


async def demo(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("ANTHROPIC_API_KEY", "KEEP")
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "codespar",
        "demo",
        "--data",
        str(folder),
        *arguments,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finished(process: asyncio.subprocess.Process) -> tuple[dict[str, Any], str]:
    """The JSON summary of a demo that held, and what it said beside it."""
    out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    said = err.decode()
    assert process.returncode == 0, f"{out.decode()}\n{said}"
    return json.loads(out), said


async def tasks_run(folder: Path) -> int:
    """The server's process id as soon as three tasks work in containers."""
    deadline = time.monotonic() + 240
    while True:
        events = list(folder.glob("tasks/*/1/out/events.ndjson"))
        pid = holder(folder)
        if pid and sum('"assistant"' in path.read_text(errors="replace") for path in events) >= 3:
            return pid
        assert time.monotonic() < deadline, "the demo's tasks did not start"
        await asyncio.sleep(0.1)


def holds(summary: dict[str, Any]) -> None:
    tasks = summary["tasks"]
    assert summary["ok"] and summary["model"] == "scripted" and len(tasks) == 4
    assert [task["queuePosition"] for task in tasks] == [None, None, None, 1]
    assert {task["state"] for task in tasks} == {"completed"}
    assert sorted(task["prNumber"] for task in tasks) == [1, 2, 3, 4]
    assert len({task["branch"] for task in tasks}) == 4
    for task in tasks:
        assert task["additions"] > 0 and task["costUsd"] > 0 and task["tests"]["exitCode"] == 0
        assert task["isolation"]["network"] == "none" and task["isolation"]["readOnlyRootfs"] is True


async def test_the_demo_holds_twice_and_leaves_nothing_running(tmp_path: Path, docker_engine: str) -> None:
    first, said = await finished(await demo(tmp_path, "--json"))
    holds(first)
    assert said.startswith("MODEL: SCRIPTED"), "who plays the model is said in plain words at the start"
    assert holder(tmp_path) is None
    second, _ = await finished(await demo(tmp_path, "--json"))
    holds(second)
    assert {task["id"] for task in first["tasks"]}.isdisjoint(task["id"] for task in second["tasks"])
    assert holder(tmp_path) is None and await containers(tmp_path) == ""


async def test_a_killed_server_is_started_again_and_finishes_all_four(
    tmp_path: Path, docker_engine: str
) -> None:
    running = await demo(tmp_path, "--json")
    os.kill(await tasks_run(tmp_path), signal.SIGKILL)
    summary, said = await finished(running)
    holds(summary)
    assert summary["serverRestarts"] == 1 and "Starting it again" in said


async def test_a_demo_of_which_everything_was_killed_goes_on(tmp_path: Path, docker_engine: str) -> None:
    running = await demo(tmp_path, "--json")
    server = await tasks_run(tmp_path)
    model = int((tmp_path / "model.pid").read_text())
    running.kill()
    os.kill(server, signal.SIGKILL)
    os.kill(model, signal.SIGKILL)
    await running.communicate()
    summary, said = await finished(await demo(tmp_path, "--json"))
    holds(summary)
    assert "going on with it" in said
    assert await containers(tmp_path) == ""


async def containers(folder: Path) -> str:
    """The containers of the installation in this folder, running or not."""
    label = f"label=codespar.installation={(folder / 'installation').read_text().strip()}"
    process = await asyncio.create_subprocess_exec(
        "docker", "ps", "-aq", "--filter", label, stdout=asyncio.subprocess.PIPE
    )
    return (await process.communicate())[0].decode()
