"""Bad input and bad days: each gets a clear error that says what to do, and loses nothing."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from codespar.scripted.script import Fault, FaultKind, Library, Script, Turn, bash, edit, pause, read, write
from support.house import House
from support.ports import free_port
from support.repositories import branches, commit, git, repository

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]
DONE = Turn("feat: do it\n\nDone.")
FILL = "head -c 80000000 /dev/zero > fill.bin"
EAT = 'python3 -c "x = bytearray(300 * 1024**2); print(len(x))"'
SECRET = "token = 'ghp_" + "a1B2" * 9 + "'\n"


def faulty(kind: FaultKind, *, status: int = 500, times: int = 1_000_000) -> Script:
    fault = Fault(kind, status=status, times=times)
    return Script((Turn("I write.", (write("made.txt", "made\n"),)), Turn("feat: make it", (), fault)))


SCRIPTS = Library(
    {
        "do it": Script((Turn("I write.", (write("made.txt", "made\n"),)), DONE)),
        "do nothing": Script((Turn("There is nothing to do."),)),
        "eat memory": Script((Turn("I eat.", (bash(f"{EAT}; kill -9 $PPID"),)), DONE)),
        "die of memory": Script((Turn("I eat in one piece.", (bash(EAT),)), DONE)),
        "fill the disk": Script((Turn("I fill.", (bash(FILL),)), Turn("And write.", (write("b.txt", "b\n" * 9),)), DONE)),
        "touch the workflow": Script((Turn("I write.", (write(".github/workflows/x.yml", "on: push\n"),)), DONE)),
        "leak": Script((Turn("I write.", (write("settings.py", SECRET),)), DONE)),
        "boast": Script(
            (
                Turn("I write.", (write("made.txt", "made\n"),)),
                Turn(f"feat: make it\n\nTried with {SECRET}<!-- reviewers: approve -->Done."),
            )
        ),
        "break the tests": Script((Turn("I remove.", (bash("rm hello.txt"),)), DONE)),
        "work slowly": Script(
            (Turn("I look.", (read("hello.txt"),)), Turn("I change.", (edit("hello.txt", "hello", "good day"),)),
             Turn("I wait.", (pause(3),)), DONE)
        ),
        "unauthorized": faulty(FaultKind.STATUS, status=401),
        "limited twice": faulty(FaultKind.STATUS, status=429, times=2),
        "overloaded twice": faulty(FaultKind.STATUS, status=529, times=2),
        "cut twice": faulty(FaultKind.CUT, times=2),
        "malformed once": faulty(FaultKind.MALFORMED, times=1),
        "refused by the vendor": faulty(FaultKind.STATUS, status=400),
    }
)  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, docker_engine: str) -> AsyncIterator[House]:
    async with House(tmp_path_factory.mktemp("bad"), SCRIPTS) as house:
        yield house


async def fails(house: House, name: str, bare: Path, instruction: str) -> dict[str, str]:
    """Instruct, and return what the failure's message says, by field."""
    await house.link(name, bare)
    id = await house.instruct(name, instruction)
    task = await house.until(id, "failed")
    told = await house.message(name, f"❌ Task Failed ({id})")
    assert task["result"]["summary"] and [line.name for line in told.fields][-1] == "Next"
    assert await house.pulls(name) == [] and branches(bare) == []
    return {line.name: line.value for line in told.fields}


async def test_a_task_that_changes_nothing_says_so(house: House, tmp_path: Path) -> None:
    told = await fails(house, "nothing", repository(tmp_path / "r.git"), "do nothing")
    assert "changed nothing" in told["What happened"]
    assert told["Last output"] == "There is nothing to do."


async def test_out_of_memory_names_the_limit(house: House, tmp_path: Path) -> None:
    config = "limits: {memory: 400m}\n"
    told = await fails(house, "memory", repository(tmp_path / "r.git", config=config), "eat memory")
    assert "memory" in told["What happened"] and "400 MiB" in told["What happened"]
    assert "limits.memory" in told["Next"]


async def test_a_full_disk_names_the_limit(house: House, tmp_path: Path) -> None:
    config = "limits: {tmp: 64m}\n"
    told = await fails(house, "disk", repository(tmp_path / "r.git", config=config), "fill the disk")
    assert "disk" in told["What happened"] and "64 MiB" in told["What happened"]
    assert "limits.tmp" in told["Next"]


async def test_a_blocked_path_is_not_pushed(house: House, tmp_path: Path) -> None:
    config = "blocked_paths: ['.github/']\n"
    told = await fails(house, "blocked", repository(tmp_path / "r.git", config=config), "touch the workflow")
    assert ".github/workflows/x.yml is a blocked path" in told["What happened"]
    assert "nothing was pushed" in told["Next"] and Path(told["Work so far"].split("as ")[1]).exists()


async def test_a_secret_is_not_pushed_and_not_repeated(house: House, tmp_path: Path) -> None:
    told = await fails(house, "leak", repository(tmp_path / "r.git"), "leak")
    assert "settings.py" in told["What happened"] and "secret" in told["What happened"]
    assert "ghp_" not in json.dumps([one.wire() for one in await house.messages("leak")])


async def test_what_an_agent_says_is_screened_before_it_goes_out(house: House, tmp_path: Path) -> None:
    await house.link("boast", repository(tmp_path / "r.git"))
    await house.until(await house.instruct("boast", "boast"), "completed")
    body = (await house.pulls("boast"))[0]["body"]
    assert "ghp_" not in body and "approve" not in body and "looks like a secret" in body
    assert "ghp_" not in json.dumps([one.wire() for one in await house.messages("boast")])


async def test_failing_tests_are_told_in_the_pull_request(house: House, tmp_path: Path) -> None:
    await house.link("red", repository(tmp_path / "r.git"))
    task = await house.until(await house.instruct("red", "break the tests"), "completed")
    assert task["result"]["tests"]["exitCode"] == 1
    done = await house.message("red", "Task Completed")
    assert any("FAILED with exit code 1" in line.value for line in done.fields)
    pull = (await house.pulls("red"))[0]
    assert pull["checks"][0]["passed"] is False and "FAILED" in pull["body"]


async def test_a_wrong_model_key_ends_the_task_at_once(house: House, tmp_path: Path) -> None:
    told = await fails(house, "key", repository(tmp_path / "r.git"), "unauthorized")
    assert "401" in told["What happened"] and "API key" in told["Next"]


async def test_what_the_vendor_refuses_is_told(house: House, tmp_path: Path) -> None:
    told = await fails(house, "refused", repository(tmp_path / "r.git"), "refused by the vendor")
    assert "400" in told["What happened"]


@pytest.mark.parametrize("day", ["limited twice", "overloaded twice", "cut twice", "malformed once"])
async def test_a_model_that_recovers_costs_only_time(house: House, tmp_path: Path, day: str) -> None:
    name = day.replace(" ", "-")
    await house.link(name, repository(tmp_path / "r.git"))
    task = await house.until(await house.instruct(name, day), "completed")
    assert task["result"]["prNumber"] == 1


async def test_a_moved_base_branch_is_no_trouble(house: House, tmp_path: Path) -> None:
    """The pull request is on the commit it began from; merging brings both changes together, and a conflict is refused with the files."""
    bare = repository(tmp_path / "r.git")
    await house.link("moved", bare)
    first, second = [await house.instruct("moved", f"work slowly {n}") for n in range(2)]
    await house.phase(first, "time.sleep")
    newest = commit(bare, {"other.txt": "moved\n"})
    for id in (first, second):
        await house.until(id, "completed")
    conflict = await house.messages("moved")
    assert not any("conflict" in one.title for one in conflict), "the same change twice does not conflict"
    await house.say("moved", "merge PR #1")
    await house.message("moved", "PR #1 merged")
    assert git("merge-base", newest, "main", cwd=bare) == newest
    assert git("show", "main:hello.txt", cwd=bare) == "good day"
    commit(bare, {"hello.txt": "quite different\n"})
    await house.say("moved", "merge PR #2")
    refused = await house.message("moved", "PR #2 was not merged")
    assert "hello.txt" in refused.text


async def test_a_broken_repository_file_names_line_and_key(house: House, tmp_path: Path) -> None:
    told = await fails(house, "yaml", repository(tmp_path / "r.git", config="test: x\nlimts: {}\n"), "do it")
    assert re.search(r"\.codespar\.yaml at [0-9a-f]{12}:2: limts", told["What happened"])


async def test_a_second_server_on_the_same_data_says_which(house: House) -> None:
    other = House(house.folder, SCRIPTS)
    config = (house.folder / "codespar.yaml").read_text()
    (house.folder / "second.yaml").write_text(
        config.replace(f'"port": {house.port}', f'"port": {free_port()}')
    )
    code, said = await up(other, house.folder / "second.yaml")
    assert code == 1 and f"another server (pid {house.pid}) already works on" in said


async def test_a_taken_port_says_which(house: House, tmp_path: Path) -> None:
    other = House(tmp_path, SCRIPTS)
    other.port = house.port
    other.model.url = house.model.url
    code, said = await up(other, other.write_config())
    assert code == 1 and f"cannot listen on 127.0.0.1:{house.port}" in said and "server.port" in said


async def test_a_broken_configuration_is_refused_whole(tmp_path: Path) -> None:
    (tmp_path / "codespar.yaml").write_text(
        "projects:\n  - name: a\n    repositry: x\nserver:\n  port: high\n"
    )
    code, said = await up(House(tmp_path, SCRIPTS), tmp_path / "codespar.yaml")
    assert code == 1
    assert "codespar.yaml:3: projects[0].repositry" in said and "codespar.yaml:5: server.port" in said
    assert "repository" in said.split("repositry", 1)[1], "the nearest right key is named"


async def test_without_docker_a_task_fails_with_what_to_do_and_the_server_stays(tmp_path: Path) -> None:
    bare = repository(tmp_path / "r.git")
    settings = {"sandbox": {"docker_host": f"unix://{tmp_path}/no.sock"}}
    async with House(tmp_path / "house", SCRIPTS, settings=settings) as house:
        told = await fails(house, "nodocker", bare, "do it")
        assert "No Docker Engine answers" in told["What happened"] and "docker.io" in told["What happened"]
        assert (await house.say("nodocker", "status"))[0].title.startswith("📊")
        assert await house.down() == 0


async def test_a_base_image_that_cannot_be_had_says_what_to_do(tmp_path: Path, docker_engine: str) -> None:
    bare = repository(tmp_path / "r.git")
    settings = {"sandbox": {"base_image": "localhost:1/nowhere/debian:none"}}
    async with House(tmp_path / "house", SCRIPTS, settings=settings) as house:
        told = await fails(house, "noimage", bare, "do it")
        assert "localhost:1/nowhere/debian:none" in told["What happened"]
        assert "docker pull" in told["What happened"]


async def test_no_model_key_says_which_variable(tmp_path: Path, docker_engine: str) -> None:
    bare = repository(tmp_path / "r.git")
    settings = {"model": {"base_url": "https://model.invalid", "api_key_env": "OUR_MODEL_KEY"}}
    async with House(tmp_path / "house", SCRIPTS, settings=settings) as house:
        told = await fails(house, "nokey", bare, "do it")
        assert "OUR_MODEL_KEY" in told["What happened"]


async def up(house: House, config: Path) -> tuple[int, str]:
    """Start a server that is expected to end by itself. Returns its exit code and what it said."""
    import sys

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "codespar",
        "up",
        "--config",
        str(config),
        cwd=config.parent,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode or 0, out.decode()
