"""The sandbox and the secrets, attacked from inside: a hostile agent in a real container tries what the security rules forbid."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from codespar.cli.demo import isolation_problems
from codespar.scripted.script import Library, Script, Turn, bash, write
from support.files import contents
from support.house import House
from support.repositories import branches, git, repository

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]
OWNED = Path(f"/tmp/owned-{uuid.uuid4().hex}")  # what a trap would leave on the host
KEY = "sk-ant-test-0123456789abcdefghijklmnop"
PROBE = r"""
import glob, http.client, json, os, socket, subprocess

def tries(action):
    try:
        return repr(action())[:300]
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]

def connect(address):
    socket.create_connection(address, timeout=2)
    return "CONNECTED"

def ask(method, path, body=None):
    host, port = os.environ["ANTHROPIC_BASE_URL"].removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request(method, path, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    return [answer.status, answer.read().decode()[:500]]

def put(path):
    with open(path, "w") as file:
        file.write("mine")
    return "WRITTEN"

def processes():
    started = []
    try:
        while len(started) < 2000:
            started.append(subprocess.Popen(["sleep", "20"]))
    except OSError:
        pass
    for one in started:
        one.kill()
    for one in started:
        one.wait()
    return len(started)

status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
other_model = json.dumps({"model": "claude-opus-5-5", "max_tokens": 1, "messages": []})
found = {
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "internet": tries(lambda: connect(("1.1.1.1", 443))),
    "bridge": tries(lambda: connect(("172.17.0.1", 22))),
    "names": tries(lambda: socket.getaddrinfo("example.org", 443)),
    "uid": os.getuid(),
    "capabilities": status["CapEff"].strip(),
    "bounding": status["CapBnd"].strip(),
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "seccomp": status["Seccomp"].strip(),
    "root": tries(lambda: put("/root-file")),
    "usr": tries(lambda: put("/usr/bin/evil")),
    "workspace": tries(lambda: put("/workspace/evil")),
    "orders": tries(lambda: put("/run/codespar/task.json")),
    "sysctl": tries(lambda: put("/proc/sys/kernel/core_pattern")),
    "setuid": tries(lambda: os.setuid(0)),
    "mount": subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True).stderr,
    "engine": [path for path in ("/var/run/docker.sock", "/run/docker.sock") if os.path.exists(path)],
    "environment": dict(os.environ),
    "init_environment": tries(lambda: open("/proc/1/environ").read()),
    "orders_seen": open("/run/codespar/task.json").read(),
    "branches": subprocess.run(["git", "-C", "/workspace", "for-each-ref"], capture_output=True, text=True).stdout,
    "models": tries(lambda: ask("GET", "/v1/models")),
    "files": tries(lambda: ask("POST", "/v1/files", "{}")),
    "other_model": tries(lambda: ask("POST", "/v1/messages", other_model)),
    "processes": processes(),
    "tmp_bytes": os.statvfs("/tmp").f_blocks * os.statvfs("/tmp").f_frsize,
    "kernel_modules": tries(lambda: os.listdir("/lib/modules")),
    "host_paths": [path for path in glob.glob("/host*") + glob.glob("/mnt/*")],
}
json.dump(found, open("probe.json", "w"), indent=1)
"""
DAEMON = "setsid sh -c 'while :; do {}; done' >/dev/null 2>&1 & sleep 0.3"
NOISE = DAEMON.format("echo garbage > /output/changes.patch")
LINK = DAEMON.format("ln -sf /etc/passwd /output/changes.patch")
DONE = Turn("feat: done\n\nDone.")
SCRIPTS = Library(
    {
        "probe": Script((Turn("I look.", (write("probe.py", PROBE), bash("python3 probe.py && rm probe.py"))), DONE)),
        "garbage": Script((Turn("I cheat.", (write("a.txt", "a\n"), bash(NOISE))), DONE)),
        "link": Script((Turn("I cheat.", (write("a.txt", "a\n"), bash(LINK))), DONE)),
        "escape": Script((Turn("I link.", (bash("ln -s ../../../../etc/passwd out; ln -s /etc/shadow abs"),)), DONE)),
        "flood": Script((Turn("I flood.", (bash("head -c 300000000 /dev/zero > /output/flood; sleep 2"),)), DONE)),
        "hooks": Script(
            (
                Turn(
                    "I lay traps.",
                    (
                        bash(f"mkdir -p .git/hooks && printf '#!/bin/sh\\ntouch {OWNED}\\n' > .git/hooks/post-checkout"),
                        bash(f"chmod +x .git/hooks/* && git config core.fsmonitor 'touch {OWNED}'"),
                        bash(f"git config filter.x.clean 'touch {OWNED}; cat' && echo '* filter=x' > .gitattributes"),
                        write("honest.txt", "honest\n"),
                    ),
                ),
                DONE,
            )
        ),
    }
)  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, docker_engine: str) -> AsyncIterator[House]:
    environment = {"ANTHROPIC_API_KEY": KEY}
    async with House(tmp_path_factory.mktemp("isolation"), SCRIPTS, environment=environment) as house:
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def probe(house: House, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the hostile agent found out, as it reported it in its pull request."""
    bare = repository(tmp_path_factory.mktemp("probe") / "r.git", config="limits: {memory: 1g}\n")
    git("branch", "secret-plans", cwd=bare)
    await house.link("probe", bare)
    task = await house.until(await house.instruct("probe", "probe"), "completed")
    found: dict[str, Any] = json.loads(git("show", f"{task['result']['branch']}:probe.json", cwd=bare))
    return found | {"isolation": task["isolation"]}


async def test_the_engine_confirms_the_isolation(probe: dict[str, Any]) -> None:
    isolation = probe["isolation"]
    assert isolation["memory"] == 1024**3
    assert isolation_problems(isolation | {"memory": 2 * 1024**3}) == []
    assert isolation_problems(isolation | {"network": "bridge"}) != []


async def test_there_is_no_network(probe: dict[str, Any]) -> None:
    assert probe["interfaces"] == ["lo"]
    for target in ("internet", "bridge", "names"):
        assert ("CONNECTED" not in probe[target] and "Error" in probe[target]) or "gaierror" in probe[target]


async def test_there_are_no_rights(probe: dict[str, Any]) -> None:
    assert probe["uid"] != 0
    assert int(probe["capabilities"], 16) == 0 and int(probe["bounding"], 16) == 0
    assert probe["no_new_privileges"] == "1" and probe["seccomp"] == "2"
    assert "Error" in probe["setuid"] and probe["mount"]
    assert probe["engine"] == [] and probe["host_paths"] == []


async def test_nothing_can_be_written_but_tmp_and_output(probe: dict[str, Any]) -> None:
    for place in ("root", "usr", "workspace", "orders", "sysctl"):
        assert "WRITTEN" not in probe[place] and "Error" in probe[place], place
    assert probe["tmp_bytes"] == 512 * 1024**2


async def test_processes_are_limited(probe: dict[str, Any]) -> None:
    assert 50 < probe["processes"] < 512


async def test_only_the_default_branch_is_visible(probe: dict[str, Any]) -> None:
    assert "refs/heads/main" in probe["branches"] and "secret-plans" not in probe["branches"]


async def test_the_gateway_carries_only_messages_of_the_configured_model(probe: dict[str, Any]) -> None:
    for place in ("models", "files", "other_model"):
        assert probe[place].startswith("[403"), probe[place]


async def test_no_credential_is_anywhere(house: House, probe: dict[str, Any]) -> None:
    """Not in the container, its orders, the transcript, the log, a message, the audit trail or the database."""
    assert KEY not in json.dumps(probe)
    assert probe["environment"]["ANTHROPIC_API_KEY"] == "in-container"
    token = (house.folder / "data" / "cli-token").read_text().strip()
    searched = 0
    for path, content in contents(house.folder):
        if path.name != "cli-token":
            searched += 1
            assert KEY.encode() not in content, path
            assert token.encode() not in content, path
    assert searched > 20
    assert house.model.requests, "the model was asked"
    containers = subprocess.run(["docker", "ps", "-aq"], capture_output=True, text=True, check=True).stdout
    assert KEY not in containers


async def test_a_daemon_that_spoils_the_patch_gains_nothing(house: House, tmp_path: Path) -> None:
    """A process that outlives its session writes into the output; it is ended before the change is collected, which is the honest one."""
    for name in ("garbage", "link"):
        bare = repository(tmp_path / f"{name}.git")
        await house.link(name, bare)
        task = await house.until(await house.instruct(name, name), "completed")
        changed = git("diff", "--name-only", f"main...{task['result']['branch']}", cwd=bare)
        assert changed == "a.txt"
        assert "root:" not in json.dumps(task), "nothing of the host comes along"


async def test_links_out_of_the_tree_are_refused(house: House, tmp_path: Path) -> None:
    bare = repository(tmp_path / "escape.git")
    await house.link("escape", bare)
    task = await house.until(await house.instruct("escape", "escape"), "failed")
    assert "link out of the repository" in task["result"]["summary"] and branches(bare) == []


async def test_a_flood_of_output_ends_the_task(house: House, tmp_path: Path) -> None:
    bare = repository(tmp_path / "flood.git")
    await house.link("flood", bare)
    task = await house.until(await house.instruct("flood", "flood"), "failed")
    assert "output" in task["result"]["summary"]


async def test_traps_in_the_work_tree_never_spring_on_the_host(house: House, tmp_path: Path) -> None:
    bare = repository(tmp_path / "hooks.git")
    await house.link("hooks", bare)
    task = await house.until(await house.instruct("hooks", "hooks"), "completed")
    assert not OWNED.exists()
    changed = git("diff", "--name-only", f"main...{task['result']['branch']}", cwd=bare).split()
    assert changed == [".gitattributes", "honest.txt"]
