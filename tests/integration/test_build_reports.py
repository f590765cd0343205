"""Builds that a continuous integration reports to a project of the embedded forge, over a real server and by the command line."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from codespar.cli.builds import HEAD, ROOM, TAIL, shortened
from codespar.domain.builds import BuildJob, Conclusion, Run
from codespar.forges.base import NotSupported
from codespar.forges.local import LocalForge
from codespar.forges.mirror import Mirror
from codespar.scripted.script import Library
from codespar.web.base import MAX_BODY
from support.house import House
from support.repositories import repository

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKENS = {"operator": "token-of-operator-0123456789", "reviewer": "token-of-reviewer-0123456789"}
SETTINGS: dict[str, Any] = {
    "people": [
        {"name": "Otto", "role": "operator", "token_env": "TOKEN_OPERATOR"},
        {"name": "Rita", "role": "reviewer", "token_env": "TOKEN_REVIEWER"},
    ],
    "sandbox": {"docker_host": "unix:///nonexistent/docker.sock"},
}
ENVIRONMENT = {"TOKEN_OPERATOR": TOKENS["operator"], "TOKEN_REVIEWER": TOKENS["reviewer"]}
COMMIT = "a" * 40
NOW = datetime.now(UTC)


def body(**changes: Any) -> dict[str, Any]:
    """A failed run of one job, as it is posted."""
    return {
        "id": "run-1",
        "workflow": "tests",
        "branch": "main",
        "commit": COMMIT,
        "conclusion": "failure",
        "startedAt": (NOW - timedelta(minutes=5)).isoformat(),
        "updatedAt": NOW.isoformat(),
        "jobs": [
            {
                "id": "unit",
                "name": "unit",
                "conclusion": "failure",
                "steps": [{"number": 1, "name": "pytest", "conclusion": "failure"}],
                "log": "E   assert 1 == 2 ✕\n",
            }
        ],
    } | changes


class Server:
    """The server, its embedded forge's own files, and a session."""

    def __init__(self, house: House, session: aiohttp.ClientSession) -> None:
        self.house = house
        self.session = session
        folders = [path.parent for path in house.folder.rglob("forge.git") if path.is_dir()]
        assert len(folders) == 1, folders
        self.forge = LocalForge(folders[0], str(house.folder / "one.git"))

    async def post(
        self, content: Any, *, project: str = "one", token: str | None = TOKENS["operator"]
    ) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.house.port}/api/v1/projects/{project}/builds"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.post(url, json=content, headers=headers) as answer:
            return answer.status, await answer.json()

    async def command(self, *words: str, stdin: bytes | None = None) -> tuple[int, str, str]:
        """Run `codespar build report`. Returns its exit code, output and errors."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "codespar", "build", "report", *words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                **os.environ,
                "CODESPAR_URL": f"http://127.0.0.1:{self.house.port}",
                "CODESPAR_TOKEN": TOKENS["operator"],
            },
        )
        out, err = await process.communicate(stdin or b"")
        return process.returncode or 0, out.decode(), err.decode()

    async def log(self, run: str, job: str) -> str:
        return b"".join([piece async for piece in self.forge.job_log(run, job)]).decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("house")
    async with House(folder, Library({}), settings=SETTINGS, environment=ENVIRONMENT) as house:
        await house.link("one", repository(folder / "one.git"))
        async with aiohttp.ClientSession() as session:
            status, _ = await _first(house, session)
            assert status == 201
            yield Server(house, session)
        assert "Traceback" not in house.log, house.log[-5000:]


async def _first(house: House, session: aiohttp.ClientSession) -> tuple[int, Any]:
    """The first report of all: also that of a project whose repository nobody looked at yet is taken."""
    url = f"http://127.0.0.1:{house.port}/api/v1/projects/one/builds"
    headers = {"Authorization": f"Bearer {TOKENS['operator']}"}
    async with session.post(url, json=body(id="first", conclusion="success"), headers=headers) as answer:
        return answer.status, await answer.json()


async def test_a_reported_run_is_kept_with_its_jobs_and_log(server: Server) -> None:
    status, answer = await server.post(body())
    assert (status, answer["new"]) == (201, True) and "jobs" not in answer["run"]
    found = {run.id: run for run in await server.forge.runs(branch="main", commit=COMMIT)}
    assert found["run-1"].conclusion is Conclusion.FAILURE and found["run-1"].wire() == answer["run"]
    job = (await server.forge.jobs("run-1", 1))[0]
    assert job.failed_step is not None and job.failed_step.name == "pytest"
    assert await server.log("run-1", "unit") == "E   assert 1 == 2 ✕\n"


async def test_a_run_told_again_changes_nothing_and_an_older_state_does_not_win(server: Server) -> None:
    _, first = await server.post(body(id="run-2"))
    assert await server.post(body(id="run-2")) == (201, first)
    older = body(id="run-2", conclusion=None, updatedAt=(NOW - timedelta(minutes=1)).isoformat())
    assert await server.post(older) == (201, {"run": first["run"], "new": False})


async def test_who_may_not_instruct_may_not_report(server: Server) -> None:
    status, answer = await server.post(body(), token=TOKENS["reviewer"])
    assert (status, answer["error"]["code"]) == (403, "forbidden")
    status, answer = await server.post(body(), token=None)
    assert (status, answer["error"]["code"]) == (401, "unauthorized")


async def test_a_report_of_an_unknown_project_is_refused(server: Server) -> None:
    status, answer = await server.post(body(), project="two")
    assert (status, answer["error"]["code"]) == (404, "no_such_project")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"commit": "main"}, "commit"),
        ({"commit": None}, "commit"),
        ({"workflow": ""}, "workflow"),
        ({"workflow": "a\nb"}, "workflow"),
        ({"branch": "x" * 201}, "branch"),
        ({"id": "../x"}, "id"),
        ({"attempt": 0}, "attempt"),
        ({"conclusion": "broken"}, "conclusion"),
        ({"startedAt": "yesterday"}, "startedAt"),
        ({"startedAt": "2026-01-01T00:00:00"}, "startedAt"),
        ({"updatedAt": "2999-01-01T00:00:00Z"}, "updatedAt"),
        ({"updatedAt": "2020-01-01T00:00:00Z"}, "updatedAt"),
        ({"url": "javascript:alert(1)"}, "url"),
        ({"pulls": [0]}, "pulls"),
        ({"surprise": 1}, "surprise"),
        ({"jobs": [{"id": "a", "name": "a"}, {"id": "a", "name": "b"}]}, "jobs"),
        ({"jobs": [{"id": "a", "name": "a", "log": 7}]}, "log"),
        ({"jobs": [{"id": "a", "name": "a", "steps": [{"number": 1}]}]}, "name"),
        ({"jobs": [{"id": str(n), "name": "a"} for n in range(101)]}, "jobs"),
    ],
)
async def test_a_field_that_is_not_right_is_named(
    server: Server, changes: dict[str, Any], named: str
) -> None:
    status, answer = await server.post(body(**changes))
    assert (status, answer["error"]["code"]) == (422, "invalid"), answer
    assert named in answer["error"]["message"]


async def test_a_report_over_the_size_of_a_request_is_refused(server: Server) -> None:
    jobs = [{"id": "a", "name": "a", "log": "x" * MAX_BODY}]
    status, answer = await server.post(body(jobs=jobs))
    assert (status, answer["error"]["code"]) == (413, "too_large")


async def test_half_a_character_is_left_out_of_a_log_and_refused_elsewhere(server: Server) -> None:
    status, _ = await server.post(body(id="half", jobs=[{"id": "a", "name": "a", "log": "x\ud800y"}]))
    assert status == 201 and await server.log("half", "a") == "x?y"
    for field in ("title", "event", "url", "workflow", "branch", "id"):
        status, answer = await server.post(body(**{field: "x\ud800y"}))
        assert status == 422 and field in answer["error"]["message"]


async def test_a_code_host_with_builds_of_its_own_takes_no_report(tmp_path: Path) -> None:
    run = Run(id="1", workflow="w", branch="b", commit=COMMIT, started_at=NOW, updated_at=NOW)
    with pytest.raises(NotSupported, match=r"example\.org/a\.git"):
        await Mirror(tmp_path, "https://example.org/a.git").report_run(run, [BuildJob(id="1", name="j")], {})


# the command line


async def test_the_command_reports_a_build_with_its_log(server: Server, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("collecting\nE   assert 3 == 4\n")
    code, out, err = await server.command(
        *("one", "--workflow", "tests", "--branch", "main", "--conclusion", "failure", "--commit", COMMIT),
        *("--step", "pytest", "--run", "run-9", "--job", "unit tests", "--log", str(log)),
    )
    assert (code, out, err) == (0, f"tests at {COMMIT[:12]}: failure (run run-9)\n", "")
    job = (await server.forge.jobs("run-9", 1))[0]
    assert (job.name, job.id, job.failed_step and job.failed_step.name) == (
        "unit tests",
        "unit-tests",
        "pytest",
    )
    assert await server.log("run-9", "unit-tests") == log.read_text()


async def test_the_command_reads_a_long_log_from_its_input_and_keeps_the_first_error(server: Server) -> None:
    noise = b"\x1b[32mcompiled a module without a hitch\x1b[0m \xe2\x9c\x93\n" * 40_000
    code, out, err = await server.command(
        *("one", "--workflow", "tests", "--branch", "main", "--conclusion", "failure", "--commit", COMMIT),
        *("--log", "-", "--json"),
        stdin=b"the first line\n" + noise + b"src/a.c:1:2: error: bad\n" + noise + b"the last line\n",
    )
    assert (code, err) == (0, "")
    log = await server.log(json.loads(out)["run"]["id"], "tests")
    assert log.startswith("the first line\n") and log.endswith("the last line\n")
    assert "src/a.c:1:2: error: bad" in log and "were left out here" in log and len(log.encode()) < MAX_BODY


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("one", "--conclusion", "broken", "--commit", COMMIT), 2, "is none of: success, failure"),
        (("one", "--commit", "main"), 2, "commit"),
        (("two", "--commit", COMMIT), 1, "there is no project two"),
        (("one", "--commit", COMMIT, "--log", "/nonexistent/log"), 1, "No such file"),
    ],
)
async def test_the_command_says_what_is_wrong(
    server: Server, words: tuple[str, ...], code: int, told: str
) -> None:
    found, out, err = await server.command(*words, "--workflow", "tests", "--branch", "main")
    assert (found, out) == (code, "") and told in err


@pytest.mark.parametrize("content", [b"", b"a log\n", b"x" * HEAD, b"\xff\x00\n" * 100])
async def test_a_short_log_is_sent_whole(content: bytes) -> None:
    assert shortened(io.BytesIO(content)) == content.decode("utf-8", "replace")


@pytest.mark.parametrize(
    "content",
    [b"\x00" * (HEAD + TAIL), b"\x1b" * 10**6, b"\xff" * 10**6, b"a\n" * 10**6, b"\xe2\x97\x8f\n" * 10**5],
)
async def test_a_log_of_any_bytes_fits_into_a_request(content: bytes) -> None:
    assert len(json.dumps(shortened(io.BytesIO(content)))) <= ROOM
