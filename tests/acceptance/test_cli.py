"""The command line against a running server, as a person types it: what it prints, and its exit codes 0, 1, 2, 3."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from codespar.scripted.script import Library, Script, Turn, pause, write
from support.house import House
from support.ports import free_port
from support.repositories import repository

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]
SCRIPTS = Library(
    {
        "do it": Script((Turn("I write.", (write("made.txt", "made\n"),)), Turn("feat: do it\n\nDone."))),
        "take long": Script((Turn("I wait.", (pause(600),)), Turn("feat: wait\n\nDone."))),
    }
)
CODE = {"shop/cart.py": "class ShoppingCart:\n    def total_price(self) -> int:\n        return 0\n"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, docker_engine: str) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("cli")
    bare = repository(folder / "shop.git", CODE)
    settings = {"projects": [{"name": "shop", "repository": str(bare), "alias": ["s"]}]}
    async with House(folder / "house", SCRIPTS, settings=settings) as house:
        yield house


async def codespar(
    house: House | None, *arguments: str, stdin: str = "", folder: Path | None = None, **environment: str
) -> tuple[int, str, str]:
    """Run the program where the server's codespar.yaml is. Returns its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "codespar",
        *arguments,
        cwd=folder or (house.folder if house else None),
        env={name: value for name, value in os.environ.items() if not name.startswith("CODESPAR_")}
        | environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 300)
    return process.returncode or 0, out.decode(), err.decode()


async def test_send_prints_the_answer_and_waits_for_the_end(house: House) -> None:
    code, out, err = await codespar(house, "send", "instruct do it", "--wait")
    assert (code, err) == (0, "")
    assert out.startswith('🔧 Task Agent Started\n─────────────────\nTask: "do it"\nAgent: task-')
    assert 'PR #1 opened: "feat: do it"\nFiles changed: 1 | Lines: +1 / -0' in out
    assert "\x1b" not in out, "plain when piped"


async def test_send_waits_for_the_end_of_a_review_and_of_a_merge(house: House) -> None:
    code, out, err = await codespar(house, "send", "review PR #1", "--wait")
    assert (code, err) == (0, "") and "🔍 Review of PR #1 began" in out and "🔍 Reviewed: PR #1" in out
    code, out, _ = await codespar(house, "send", "merge PR #1", "--wait", "--json")
    titles = [answer["response"]["title"] for answer in json.loads(out)["responses"]]
    assert code == 0 and titles == ["🔧 Merging PR #1 (merge)", "✅ PR #1 merged"]


async def test_json_is_one_object_and_nothing_else(house: House) -> None:
    code, out, _ = await codespar(house, "send", "status", "--json")
    body = json.loads(out)
    assert code == 0 and body["ok"] and body["responses"][0]["response"]["title"].startswith("📊 shop")
    code, out, _ = await codespar(house, "status", "--json")
    assert code == 0 and json.loads(out)["server"]["ready"] is True


async def test_what_failed_ends_with_1(house: House) -> None:
    code, out, _ = await codespar(house, "send", "instrct do it")
    assert code == 1 and "did you mean `instruct`" in out
    code, _, err = await codespar(house, "send", "status", "--project", "nope")
    assert code == 1 and "there is no project nope" in err and "shop" in err


async def test_wrong_usage_ends_with_2(house: House) -> None:
    assert (await codespar(house, "send"))[0] == 2
    assert (await codespar(house, "nonsense"))[0] == 2


async def test_no_server_ends_with_3_and_says_how_to_start_one(tmp_path: Path) -> None:
    code, _, err = await codespar(
        None, "status", CODESPAR_URL=f"http://127.0.0.1:{free_port()}", folder=tmp_path
    )
    assert code == 3 and "codespar up" in err and "Traceback" not in err


async def test_search_finds_a_part_of_a_name(house: House) -> None:
    code, out, _ = await codespar(house, "search", "shopping", "cart")
    assert code == 0 and "shop/cart.py:1 class ShoppingCart" in out
    code, _, err = await codespar(house, "search", "zzzznothing")
    assert code == 1 and "zzzznothing" in err


async def test_audit_verify_says_that_the_chain_is_whole(house: House) -> None:
    code, out, _ = await codespar(house, "audit", "verify")
    assert code == 0 and "whole" in out


async def test_chat_answers_piped_lines(house: House) -> None:
    code, out, _ = await codespar(house, "chat", stdin="whoami\ns queue\n")
    assert code == 0 and "Role: owner" in out and "📋 Active tasks: 0/3" in out


async def test_init_writes_a_valid_file_and_keeps_an_existing_one(tmp_path: Path) -> None:
    code, out, _ = await codespar(None, "init", folder=tmp_path)
    assert code == 0 and "`codespar up`\nprints a one-time code" in out, "how the first owner gets into chat"
    written = (tmp_path / "codespar.yaml").read_text()
    code, _, err = await codespar(None, "init", folder=tmp_path)
    assert code == 1 and "not touched" in err and (tmp_path / "codespar.yaml").read_text() == written
    code, out, _ = await codespar(None, "doctor", "--json", folder=tmp_path)
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert checks["configuration"]["ok"], checks["configuration"]


async def test_doctor_says_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    code, out, _ = await codespar(None, "doctor", folder=tmp_path, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert code == 1 and "no engine answers" in out and "apt-get install docker.io" in out
    assert "ANTHROPIC_API_KEY is not set" in out


async def test_doctor_says_what_a_chat_platform_lacks_and_how_its_owner_gets_in(tmp_path: Path) -> None:
    (tmp_path / "codespar.yaml").write_text(f"server: {{port: {free_port()}}}\nchannels: {{discord: {{}}}}\n")
    code, out, _ = await codespar(None, "doctor", folder=tmp_path)
    assert code == 1 and "✗ discord: CODESPAR_DISCORD_TOKEN is not set" in out
    assert "– owner on discord: codespar.yaml names no owner's id there" in out
    assert "codespar send register" in out


async def test_version(tmp_path: Path) -> None:
    code, out, _ = await codespar(None, "version", folder=tmp_path)
    assert code == 0 and out.startswith("codespar 0.")


async def test_who_stops_waiting_is_told_that_the_task_goes_on(house: House) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "codespar", "send", "instruct take long", "--wait"),
        cwd=house.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    first = [(await process.stdout.readline()).decode() for _ in range(4)]
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    task = first[3].removeprefix("Agent: ").strip()
    assert process.returncode == 130 and "What was begun goes on" in err.decode()
    assert (await house.client.get(f"/api/v1/tasks/{task}"))["status"] == "running"
    await codespar(house, "send", f"cancel {task}")
