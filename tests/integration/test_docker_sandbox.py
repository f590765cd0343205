"""The container side, on a real Docker Engine: images, isolation, the runner's two jobs, and every bad end."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from codespar.domain.tasks import Environment, Limits, TaskSpec
from codespar.sandbox.base import (
    EngineUnavailable,
    EnvironmentBroken,
    EnvironmentSetup,
    ImageMissing,
    Job,
    ModelTrouble,
    Order,
    OutputRefused,
    SandboxError,
    Usage,
)
from codespar.sandbox.docker import DockerSandbox
from codespar.sandbox.dockerengine import EngineClient
from codespar.sandbox.gateway import Gateway
from codespar.sandbox.images import TaskAgentImage
from codespar.scripted import script, server

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(600),  # the first of them may have to build the image
    pytest.mark.skipif(
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True).returncode != 0,
        reason="no Docker Engine answers",
    ),
]
DATA = Path(os.environ.get("CODESPAR_TEST_CACHE", "/var/tmp/codespar-test-cache"))
MODEL = "claude-sonnet-5-5"


async def no_file(commit: str, path: str) -> bytes | None:
    return None


def quiet(line: str) -> None:
    """Nobody waits."""


def git(*arguments: str, cwd: Path) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout.strip()


class Bench:
    """One sandbox and one small repository."""

    def __init__(self, folder: Path, sandbox: DockerSandbox, installation: str, image: str) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.installation = installation
        self.image = image
        made = folder / "made"
        made.mkdir()
        git("init", "-q", "-b", "main", cwd=made)
        (made / "README.md").write_text("hello\n")
        (made / ".gitignore").write_text("ignored/\n")
        git("add", "-A", cwd=made)
        git("-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-qm", "first", cwd=made)
        self.commit = git("rev-parse", "HEAD", cwd=made)
        self.repository = folder / "repository.git"
        git("clone", "-q", "--bare", str(made), str(self.repository), cwd=folder)

    def order(self, job: Job, test: str | None = None, patch: Path | None = None, **limits: Any) -> Order:
        name = f"codespar-test-{uuid.uuid4().hex[:8]}"
        spec = TaskSpec(
            id=name.removeprefix("codespar-"),
            project="demo",
            repository="demo",
            base_branch="main",
            base_commit=self.commit,
            instruction="Add hello.py",
            requester="Ada",
            environment=Environment(image=self.image, variables={"GREETING": "hi"}),
            test_command=test,
            limits=Limits(**({"memory_bytes": 512 * 1024**2, "tmp_bytes": 64 * 1024**2} | limits)),
            model=MODEL,
        )
        return Order(
            name=name, job=job, spec=spec, repository=self.repository, folder=self.folder / name, patch=patch
        )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    installation = f"test-{uuid.uuid4().hex[:8]}"
    sandbox = DockerSandbox(None, DATA, installation)
    image = await sandbox.ensure_image(
        project="demo", base_commit="0" * 40, setup=EnvironmentSetup(), read_file=no_file, say=quiet
    )
    try:
        yield Bench(tmp_path, sandbox, installation, image)
    finally:
        await sandbox.sweep(set())
        await sandbox.close()


def result(order: Order) -> dict[str, Any]:
    return json.loads((order.folder / "out" / "result.json").read_text())


async def until(found: Any, seconds: float = 120) -> None:
    async with asyncio.timeout(seconds):
        while not found():  # noqa: ASYNC110 (what it waits for happens in a container)
            await asyncio.sleep(0.05)


def wait_within(container: str, path: str) -> None:
    """Wait until there is something in a file of the container."""
    wait = f"until [ -s {path} ]; do sleep 0.1; done"
    subprocess.run(
        ["docker", "exec", container, "sh", "-c", wait], check=True, capture_output=True, timeout=120
    )


class ScriptedModel:
    """The Messages API on a Unix socket: streams one scripted answer after another."""

    def __init__(self, *answers: list[dict[str, Any]]) -> None:
        self._answers = list(answers)
        self.keys: list[str] = []

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.keys.append(request.headers.get("x-api-key", ""))
        blocks = [{"type": "text", "text": "x"}]
        if asked.get("tools") and self._answers:
            blocks = self._answers.pop(0)
        stop = "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn"
        usage = {"input_tokens": 1, "output_tokens": 1}
        message = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": [],
            "usage": usage,
        }
        if not asked.get("stream"):
            return web.json_response(message | {"content": blocks, "stop_reason": stop})
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": message | {"stop_reason": None, "stop_sequence": None}}
        ]
        for index, block in enumerate(blocks):
            if block["type"] == "text":
                first: dict[str, Any] = {"type": "text", "text": ""}
                delta = {"type": "text_delta", "text": block["text"]}
            else:
                first = block | {"input": {}}
                delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            events.append({"type": "content_block_start", "index": index, "content_block": first})
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
            events.append({"type": "content_block_stop", "index": index})
        events.append(
            {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage}
        )
        events.append({"type": "message_stop"})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        return response

    async def listen(self, socket: Path) -> web.AppRunner:
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_post("/v1/messages", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        socket.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(socket.parent, os.O_DIRECTORY)  # a socket's own path may be too long for its name
        await web.UnixSite(runner, f"/proc/self/fd/{folder}/{socket.name}").start()
        os.close(folder)
        return runner


def tool(name: str, **given: Any) -> list[dict[str, Any]]:
    return [{"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:12]}", "name": name, "input": given}]


def text(words: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": words}]


async def test_claude_code_works_without_network_and_its_change_comes_out(bench: Bench) -> None:
    order = bench.order(Job.WORK, memory_bytes=2 * 1024**3, tmp_bytes=512 * 1024**2)
    model = ScriptedModel(
        tool("Write", file_path="/tmp/work/hello.py", content="print('hello')\n"),
        tool(
            "Bash",
            command="mkdir -p ignored sub && touch ignored/x && cd sub && git init -q && echo hi > inner.txt",
            description="x",
        ),
        text("feat: say hello\n\nAdded hello.py."),
    )
    server = await model.listen(order.folder / "in" / "model.sock")
    try:
        container = await bench.sandbox.start(order)
        ended = await container.wait()
    finally:
        await server.cleanup()
    out = order.folder / "out"
    assert (ended.exit_code, result(order)["outcome"]) == (0, "done"), (
        result(order),
        ended,
        (out / "events.ndjson").read_text()[-3000:],
    )
    assert result(order)["summary"].startswith("feat: say hello")
    patch = (out / "changes.patch").read_text()
    assert "+print('hello')" in patch and "sub/inner.txt" in patch and "ignored/x" not in patch
    git("apply", "--check", str(out / "changes.patch"), cwd=bench.folder / "made")
    phases = [
        json.loads(line)["phase"]
        for line in (out / "events.ndjson").read_text().splitlines()
        if '"type":"runner"' in line
    ]
    assert phases == ["started", "cloned", "model_started", "finishing"]
    assert set(model.keys) == {"in-container"}


@pytest.mark.parametrize("named", ["claude-sonnet-5-5", "claude-opus-5-5", "claude-haiku-5-5"])
async def test_present_models_take_all_that_the_coding_cli_asks_of_them_and_no_other_model_is_asked(
    bench: Bench, named: str
) -> None:
    """The scripted model refuses what the vendor's do; also a subagent for which another tier was asked runs on the configured model."""
    order = bench.order(Job.WORK, memory_bytes=2 * 1024**3, tmp_bytes=512 * 1024**2)
    order = order.evolve(
        spec=order.spec.evolve(model=named, allowed_tools=(*order.spec.allowed_tools, "Task"))
    )
    other = {"description": "look", "prompt": "Look around", "subagent_type": "general-purpose"}
    turns = (
        script.Turn("I write it.", (script.write("hello.py", "print('hello')\n"),)),
        *(script.Turn("", (script.Call("Task", other | {"model": tier}),)) for tier in ("fable", "haiku")),
        script.Turn("feat: say hello\n\nAdded hello.py."),
    )
    used: list[Usage] = []
    troubles: list[ModelTrouble] = []

    async def keep(usage: Usage) -> None:
        used.append(usage)

    async with server.ScriptedModel(script.Library({"Add hello.py": script.Script(turns)})) as model:
        gateway = Gateway(model.url)
        try:
            await gateway.open(
                order.spec.id,
                order.folder / "in" / "model.sock",
                model=named,
                limits=Limits(),
                spent_micros=0,
                turns=0,
                on_usage=keep,
                on_trouble=troubles.append,
            )
            await (await bench.sandbox.start(order)).wait()
        finally:
            await gateway.close_all()
    assert (result(order)["outcome"], troubles) == ("done", [])
    assert "+print('hello')" in (order.folder / "out" / "changes.patch").read_text()
    assert {asked["model"] for asked in model.requests} == {named} and used
    of_subagents = [one for one in model.requests if "Look around" in json.dumps(one["messages"][0])]
    assert len(of_subagents) >= 2
    assert any('"type": "thinking"' in json.dumps(asked["messages"]) for asked in model.requests)
    sent = json.dumps(model.requests)
    assert '"cache_control": {"type": "ephemeral"}' in sent and '"ttl"' not in sent, (
        "for 5 minutes, not an hour"
    )


async def test_blocked_commands_are_refused_by_the_coding_cli(bench: Bench) -> None:
    order = bench.order(Job.WORK, memory_bytes=2 * 1024**3, tmp_bytes=512 * 1024**2)
    order = order.evolve(spec=order.spec.evolve(blocked_commands=("touch",)))
    model = ScriptedModel(
        tool("Bash", command="touch forbidden.txt", description="x"), text("chore: nothing")
    )
    server = await model.listen(order.folder / "in" / "model.sock")
    try:
        await (await bench.sandbox.start(order)).wait()
    finally:
        await server.cleanup()
    assert result(order)["outcome"] == "done"
    assert (order.folder / "out" / "changes.patch").read_bytes() == b""


async def test_stopping_keeps_the_work_so_far_and_the_next_attempt_goes_on_from_it(bench: Bench) -> None:
    order = bench.order(Job.WORK, memory_bytes=2 * 1024**3, tmp_bytes=512 * 1024**2)
    model = ScriptedModel(tool("Bash", command="echo half > half.txt; sleep 600", description="x"))
    server = await model.listen(order.folder / "in" / "model.sock")
    try:
        container = await bench.sandbox.start(order)
        events = order.folder / "out" / "events.ndjson"
        await until(lambda: events.is_file() and "half.txt" in events.read_text())
        await asyncio.to_thread(wait_within, order.name, "/tmp/work/half.txt")
        await container.stop(60)
        ended = await container.wait()
    finally:
        await server.cleanup()
    assert ended.stopped_by_us and not ended.out_of_memory
    assert result(order)["outcome"] == "stopped"
    patch = order.folder / "out" / "changes.patch"
    assert "+half" in patch.read_text()
    following = bench.order(Job.VERIFY, "cat half.txt", patch=patch)
    await (await bench.sandbox.start(following)).wait()
    assert result(following)["testExitCode"] == 0


async def test_verify_runs_the_test_command_on_base_and_patch(bench: Bench) -> None:
    (bench.folder / "made" / "new.txt").write_text("new\n")
    git("add", "-A", cwd=bench.folder / "made")
    patch = bench.folder / "p.patch"
    patch.write_text(git("diff", "--cached", cwd=bench.folder / "made") + "\n")
    order = bench.order(Job.VERIFY, "cat new.txt README.md; echo $GREETING; sleep 300 & exit 3", patch=patch)
    ended = await (await bench.sandbox.start(order)).wait()
    assert ended.exit_code == 0 and ended.seconds < 200
    assert result(order)["testExitCode"] == 3
    assert result(order)["outputTail"] == "new\nhello\nhi\n"
    assert (order.folder / "out" / "tests.log").read_text() == "new\nhello\nhi\n"


async def test_the_live_container_is_isolated_as_promised(bench: Bench) -> None:
    probe = """
    import os, socket
    print('interfaces', sorted(os.listdir('/sys/class/net')))
    for path in ('/workspace/x', '/run/codespar/x', '/etc/x', '/opt/codespar/x'):
        try: open(path, 'w')
        except OSError as error: print('refused', path)
    try: socket.create_connection(('1.1.1.1', 53), 2)
    except OSError: print('no route')
    print([line for line in open('/proc/self/status') if line.startswith(('CapEff', 'NoNewPrivs'))], os.getuid() != 0)
    """
    script = "python3 - <<'END'\n" + "\n".join(line[4:] for line in probe.splitlines()) + "\nEND\nsleep 1"
    order = bench.order(Job.VERIFY, script)
    container = await bench.sandbox.start(order)
    said = await container.isolation()
    await container.wait()
    tail = result(order)["outputTail"]
    assert "interfaces ['lo']" in tail and "no route" in tail and tail.count("refused") == 4
    assert "'CapEff:\\t0000000000000000\\n', 'NoNewPrivs:\\t1\\n'] True" in tail
    assert {key: said[key] for key in ("network", "memory", "memorySwap", "cpus", "readOnlyRootfs", "capDrop", "capAdd", "privileged")} == {
        "network": "none", "memory": 512 * 1024**2, "memorySwap": 512 * 1024**2, "cpus": 2.0, "readOnlyRootfs": True,
        "capDrop": ["ALL"], "capAdd": [], "privileged": False,
    }  # fmt: skip
    assert (
        said["securityOpt"] == ["no-new-privileges"]
        and said["pidsLimit"] == 512
        and said["image"] == bench.image
    )
    mounts: Any = said["mounts"]
    assert [(mount["target"], mount["readOnly"]) for mount in mounts] == [
        ("/output", False),
        ("/run/codespar", True),
        ("/workspace", True),
    ]


async def test_running_out_of_memory_is_told_apart(bench: Bench) -> None:
    order = bench.order(Job.VERIFY, "python3 -c 'x = bytearray(400 * 1024**2)'", memory_bytes=64 * 1024**2)
    ended = await (await bench.sandbox.start(order)).wait()
    assert ended.out_of_memory and ended.exit_code == 137
    assert result(order)["testExitCode"] == 137 and result(order)["oomKills"] >= 1


async def test_a_full_tmpfs_is_told_apart(bench: Bench) -> None:
    order = bench.order(Job.VERIFY, "head -c 100M /dev/zero > big", tmp_bytes=32 * 1024**2)
    ended = await (await bench.sandbox.start(order)).wait()
    assert ended.disk_full and result(order)["filesystemFull"]


async def test_work_on_a_full_tmpfs_still_leaves_a_patch(bench: Bench) -> None:
    order = bench.order(Job.WORK, memory_bytes=2 * 1024**3, tmp_bytes=96 * 1024**2)
    model = ScriptedModel(
        tool("Write", file_path="/tmp/work/kept.txt", content="kept\n"),
        tool("Bash", command="head -c 200M /dev/zero > /tmp/big; sync; ls -la /tmp/big", description="x"),
        text("chore: done"),
    )
    server = await model.listen(order.folder / "in" / "model.sock")
    try:
        ended = await (await bench.sandbox.start(order)).wait()
    finally:
        await server.cleanup()
    assert ended.disk_full, result(order)
    assert "+kept" in (order.folder / "out" / "changes.patch").read_text()


async def test_too_much_output_ends_the_container(bench: Bench) -> None:
    order = bench.order(
        Job.VERIFY, "while :; do head -c 1M /dev/zero >> /output/x; sleep 0.05; done", output_bytes=1024**2
    )
    ended = await asyncio.wait_for((await bench.sandbox.start(order)).wait(), 120)
    assert ended.stopped_by_us and "limits.output`" in ended.log_tail
    assert result(order)["outcome"] == "error" and "limits.output`" in result(order)["error"]


async def test_who_removes_or_asks_for_a_container_while_another_removes_it_finds_none(bench: Bench) -> None:
    order = bench.order(Job.VERIFY, "sleep 600")
    await bench.sandbox.start(order)

    async def until_gone() -> None:
        while await bench.sandbox.has(order.name):
            pass

    async with asyncio.timeout(120):
        await asyncio.gather(bench.sandbox.remove(order.name), *(until_gone() for _ in range(20)))


async def test_a_new_process_adopts_the_running_container_and_the_ended_one(bench: Bench) -> None:
    order = bench.order(Job.VERIFY, "sleep 2; echo ok")
    first = await bench.sandbox.start(order)
    assert not first.adopted
    later = DockerSandbox(None, DATA, bench.installation)
    try:
        again = await later.start(order)
        assert again.adopted
        assert (await again.wait()).exit_code == 0
        ended = await (await later.start(order)).wait()
        assert ended.exit_code == 0 and result(order)["outputTail"] == "ok\n"
        other = DockerSandbox(None, DATA, "another")
        with pytest.raises(SandboxError, match="not this installation's"):
            await other.start(order)
        assert await other.sweep(set()) == []
        await other.close()
        await first.stop()
        assert await later.sweep({order.name}) == []
        assert await later.sweep(set()) == [order.name]
        await again.remove()
    finally:
        await later.close()


async def test_a_link_in_place_of_an_earlier_patch_is_refused(bench: Bench) -> None:
    link = bench.folder / "link.patch"
    link.symlink_to("/etc/hostname")
    with pytest.raises(OutputRefused, match="link"):
        await bench.sandbox.start(bench.order(Job.VERIFY, "true", patch=link))


async def test_a_patch_that_does_not_apply_is_an_error_with_its_reason(bench: Bench) -> None:
    patch = bench.folder / "bad.patch"
    patch.write_text("--- a/nothing.txt\n+++ b/nothing.txt\n@@ -1 +1 @@\n-a\n+b\n")
    order = bench.order(Job.VERIFY, "true", patch=patch)
    ended = await (await bench.sandbox.start(order)).wait()
    assert ended.exit_code == 1 and "nothing.txt" in result(order)["error"]


async def test_an_environment_is_built_once_for_its_inputs(bench: Bench) -> None:
    content = {"requirements.txt": uuid.uuid4().hex.encode()}

    async def read(commit: str, path: str) -> bytes | None:
        return content.get(path)

    async def ensure(commands: tuple[str, ...], commit: str = "1" * 40) -> str:
        setup = EnvironmentSetup(setup=commands, inputs=("requirements.txt",), variables={"COLOUR": 'a "$b"'})
        return await bench.sandbox.ensure_image(
            project="demo", base_commit=commit, setup=setup, read_file=read, say=quiet
        )

    commands = ('cp requirements.txt /opt/from-setup; printf %s "$COLOUR" > /opt/colour',)
    first, second = await asyncio.gather(ensure(commands), ensure(commands))
    assert first == second == await ensure(commands, "2" * 40) != bench.image
    order = bench.order(Job.VERIFY, "cat /opt/from-setup /opt/colour")
    order = order.evolve(spec=order.spec.evolve(environment=Environment(image=first)))
    await (await bench.sandbox.start(order)).wait()
    assert result(order)["outputTail"] == content["requirements.txt"].decode() + 'a "$b"'
    with pytest.raises(EnvironmentBroken, match="no-such-command"):
        await ensure(("no-such-command",))
    content.clear()
    with pytest.raises(EnvironmentBroken, match=r"requirements\.txt"):
        await ensure(commands, "3" * 40)
    await asyncio.to_thread(subprocess.run, ["docker", "rmi", "-f", first], capture_output=True, check=True)
    with pytest.raises(ImageMissing, match="no longer on this host"):
        await bench.sandbox.start(order.evolve(name=order.name + "-again"))


def remove_images_with(mark: str) -> None:
    """Remove the images whose history holds `mark`."""
    names = subprocess.run(
        ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in names.stdout.split():
        if name.startswith(("codespar/environment:", "codespar/project:")):
            history = subprocess.run(
                ["docker", "history", "--no-trunc", name], capture_output=True, text=True
            )
            if mark in history.stdout:
                subprocess.run(["docker", "rmi", "-f", name], capture_output=True, check=True)


async def test_a_project_may_bring_its_own_image_if_it_has_git_and_python(bench: Bench) -> None:
    recipe = ""

    async def read(commit: str, path: str) -> bytes | None:
        return recipe.encode() if path == "ci/Dockerfile" else None

    async def ensure(commit: str) -> str:
        setup = EnvironmentSetup(dockerfile="ci/Dockerfile")
        return await bench.sandbox.ensure_image(
            project="d", base_commit=commit, setup=setup, read_file=read, say=quiet
        )

    mark = uuid.uuid4().hex
    recipe = f"FROM {bench.image}\nUSER 0\nRUN rm -r /opt/codespar && echo {mark} > /own\n"
    order = bench.order(Job.VERIFY, "cat /own && claude --version")
    order = order.evolve(spec=order.spec.evolve(environment=Environment(image=await ensure("4" * 40))))
    await (await bench.sandbox.start(order)).wait()
    assert result(order)["outputTail"].startswith(mark + "\n2.1.") and result(order)["testExitCode"] == 0
    recipe = f"FROM {bench.image}\nUSER 0\nRUN rm /usr/bin/git # {mark}\n"
    with pytest.raises(EnvironmentBroken, match="the image has no git"):
        await ensure("5" * 40)
    await asyncio.to_thread(remove_images_with, mark)


async def test_the_coding_cli_waits_for_a_gateway_that_comes_late(bench: Bench) -> None:
    order = bench.order(Job.WORK, memory_bytes=2 * 1024**3, tmp_bytes=512 * 1024**2)
    model = ScriptedModel(tool("Write", file_path="/tmp/work/late.txt", content="late\n"), text("feat: late"))
    container = await bench.sandbox.start(order)
    events = order.folder / "out" / "events.ndjson"
    await until(lambda: events.is_file() and "model_started" in events.read_text())
    await asyncio.sleep(1.5)
    socket = order.folder / "in" / "model.sock"
    server = await model.listen(socket)
    socket.chmod(0o666)
    try:
        await asyncio.wait_for(container.wait(), 180)
    finally:
        await server.cleanup()
    assert (
        result(order)["outcome"] == "done" and "+late" in (order.folder / "out" / "changes.patch").read_text()
    )


async def test_without_an_engine_the_error_says_what_to_do(tmp_path: Path) -> None:
    sandbox = DockerSandbox(f"unix://{tmp_path}/none.sock", tmp_path, "x")
    with pytest.raises(EngineUnavailable, match=r"\(No such file or directory\).*apt-get install docker\.io"):
        await sandbox.check()


async def test_a_missing_base_image_says_which_commands_help(tmp_path: Path) -> None:
    engine = EngineClient()
    image = TaskAgentImage(engine, tmp_path, base_image="registry.invalid/nothing:1")
    try:
        with pytest.raises(ImageMissing, match=r"docker pull registry\.invalid/nothing:1"):
            await image.ensure(quiet)
    finally:
        await engine.close()
