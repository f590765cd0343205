"""The mistakes people make at the command line, against a real server: each is told in words that lead on, and half-done work says so."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import pytest_asyncio

from codespar.scripted.script import Library
from support.house import House, free_port
from support.repositories import git, repository

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("mistakes")
    repository(folder / "shop.git", {"a.py": "print(1)\n"})
    async with House(folder / "house", Library({})) as house:
        yield house


async def codespar(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the program there. Returns its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "codespar",
        *arguments,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("CODESPAR_")}
        | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(180):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_without_a_project_chat_says_how_to_link_one_and_a_webhook_that_failed_says_that_the_link_stands(
    house: House,
) -> None:
    code, _, err = await codespar(house.folder, "chat")
    assert code == 1 and "`codespar link <repository>`" in err
    webhook = ("--webhook", "https://codespar.example.com/webhooks/github")
    code, out, err = await codespar(house.folder, "link", "../shop.git", *webhook)
    assert (code, out) == (
        1,
        "",
    ) and "shop is linked, but no webhook was registered: shop is not at GitHub" in err
    code, out, _ = await codespar(house.folder, "status")
    assert code == 0 and "shop (" in out


async def test_a_reported_build_is_known_at_once_and_not_at_the_next_look(house: House) -> None:
    bare = house.folder.parent / "shop.git"
    assert (await codespar(house.folder, "link", str(bare)))[0] == 0
    reported = (
        "--workflow",
        "tests",
        "--commit",
        git("rev-parse", "HEAD", cwd=bare),
        "--branch",
        "main",
        "--conclusion",
        "failure",
    )
    code, out, err = await codespar(house.folder, "build", "report", "shop", *reported)
    assert (code, err) == (0, "") and "tests at" in out
    deadline = time.monotonic() + 40  # it is looked at every 60 s otherwise
    while "1 broken" not in (await codespar(house.folder, "send", "status build"))[1]:
        assert time.monotonic() < deadline, "the report waits for the next look"


async def test_an_output_that_knows_none_of_our_marks_gets_question_marks_and_no_traceback(
    house: House,
) -> None:
    code, out, err = await codespar(house.folder, "send", "list projects", PYTHONIOENCODING="ascii")
    assert (code, err) == (0, "") and out.startswith("? Projects\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("send", "  "), "there is nothing to send"),
        (("link", ".", "--name", "My Shop"), "lower-case letters, digits and dashes"),
        (
            ("build", "report", "shop", "--workflow", "w", "--branch", "main", "--commit", "abc123"),
            "`git rev-parse HEAD` prints one",
        ),
    ],
)
async def test_what_cannot_be_meant_ends_with_2_and_says_what_would_be_right(
    house: House, arguments: tuple[str, ...], told: str
) -> None:
    code, out, err = await codespar(house.folder, *arguments)
    assert (code, out) == (2, "") and told in err


async def test_a_wrong_token_is_told_in_sentences(house: House) -> None:
    code, _, err = await codespar(house.folder, "status", CODESPAR_TOKEN="wrong")
    assert code == 1 and "bearer token. The command line's own" in err


async def test_a_closed_port_is_told_in_the_systems_words(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code, _, err = await codespar(tmp_path, "status", "--server", url)
    assert code == 3 and f"no CodeSpar server answers at {url} (Connection refused). `codespar up`" in err


async def test_another_programs_server_is_named_by_its_address(tmp_path: Path) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None: ...

    other = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    Thread(target=other.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{other.server_port}"
        code, _, err = await codespar(tmp_path, "status", "--server", url)
    finally:
        other.shutdown()
        other.server_close()
    assert code == 1 and f"{url} answered with HTTP status 404. If a CodeSpar server is there" in err


async def test_the_version_is_told_as_an_option_too(tmp_path: Path) -> None:
    told = await codespar(tmp_path, "version")
    assert told == await codespar(tmp_path, "--version")
    assert told[0] == 0 and told[1].startswith("codespar ")


async def test_a_data_folder_that_cannot_be_is_told_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file\n")
    (tmp_path / "codespar.yaml").write_text("server: {port: 0}\ndata_dir: taken\n")
    code, _, err = await codespar(tmp_path, "up")
    assert code == 1 and "Traceback" not in err
    assert (
        f"the data folder {tmp_path / 'taken'} cannot be written to: File exists" in err and "data_dir" in err
    )


async def test_a_server_without_the_models_key_says_so_as_it_starts(tmp_path: Path) -> None:
    (tmp_path / "codespar.yaml").write_text("server: {port: 0}\nmodel: {api_key_env: KEY_OF_NOBODY}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CODESPAR_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "codespar", "up"),
        cwd=tmp_path,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(120):
            while "model.no-key" not in (line := (await process.stdout.readline()).decode()):
                assert line, "the server ended and had not said it"
        assert "KEY_OF_NOBODY" in line
    finally:
        process.terminate()
        await process.communicate()


async def test_who_asks_a_stopped_project_is_told_that_it_is_stopped_and_what_ends_that(house: House) -> None:
    assert (await codespar(house.folder, "link", "../shop.git"))[0] == 0
    try:
        await codespar(house.folder, "send", "kill")
        _, status, _ = await codespar(house.folder, "send", "status")
        code, told, _ = await codespar(house.folder, "send", "instruct tidy up")
    finally:
        await codespar(house.folder, "send", "resume")
    assert "tasks, stopped" in status and "starts one" not in status
    assert code == 1 and "Not done: shop is stopped" in told and "Next: `resume` ends that" in told
    assert "ask one of" not in told


async def test_a_command_that_this_release_only_knows_by_name_is_not_called_a_matter_of_configuration(
    house: House,
) -> None:
    assert (await codespar(house.folder, "link", "../shop.git"))[0] == 0
    _, told, _ = await codespar(house.folder, "send", "investigate the outage")
    assert "`investigate` is not in this release" in told and "configured" not in told
