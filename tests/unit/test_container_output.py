"""What a container may leave in its output to deceive whoever reads it, and the relay that its model calls go through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from codespar.agents.leavings import Events, read_output, read_result
from codespar.sandbox.base import OutputRefused
from codespar.sandbox.folder import ENTRIES, regular, says_disk_full, size_of, write_result
from codespar.sandbox.image import runner

CAP = 1024**2


def lay(path: Path, kind: str) -> None:
    match kind:
        case "folder":
            path.mkdir()
            (path / "x").write_text("x")
        case "link":
            path.symlink_to("/etc/passwd")
        case "loop":
            path.symlink_to(path.name)
        case _:
            os.mkfifo(path)


@pytest.mark.parametrize("kind", ["folder", "link", "loop", "fifo"])
def test_what_is_no_file_is_refused_by_whoever_reads_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "result.json"
    lay(path, kind)
    before = len(os.listdir("/proc/self/fd"))
    for reads in (
        lambda: regular(path, CAP),
        lambda: read_output(path, CAP),
        lambda: read_result(path),
        lambda: Events(path, CAP).read(),
    ):
        with pytest.raises(OutputRefused):
            reads()
    assert not says_disk_full(path)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", ["folder", "link", "loop", "fifo"])
def test_our_word_takes_the_place_of_whatever_lies_where_the_result_should_be(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "result.json"
    lay(path, kind)
    write_result(path, "too much")
    assert read_result(path).error == "too much"


def test_a_result_that_is_nested_too_deeply_says_nothing_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("[" * 200_000)
    assert not says_disk_full(tmp_path / "result.json")
    assert "malformed" in read_result(tmp_path / "result.json").error


def test_events_that_are_noise_are_passed_over_and_what_people_see_is_text(tmp_path: Path) -> None:
    command = {"type": "tool_use", "name": "Bash", "input": {"command": "echo \ud800\0\x1b[2J done"}}
    said = {"type": "text", "text": "first\nlast \udfff\0 line"}
    lines = [
        b"[" * 200_000,
        b"\xff\xfe",
        json.dumps({"type": "assistant", "message": {"content": [said]}}).encode(),
    ]
    lines.append(json.dumps({"type": "assistant", "message": {"content": [command]}}).encode())
    (tmp_path / "events.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    events = Events(tmp_path / "events.ndjson", CAP)
    events.read_all()
    assert (events.phase, events.last_line) == ("running echo ?[2J done", "last ? line")


def test_events_are_read_to_their_end_when_a_container_is_found_ended(tmp_path: Path) -> None:
    noise = json.dumps({"type": "user", "x": "y" * 1000}) + "\n"
    end = json.dumps({"type": "result", "result": "feat: all of it"}) + "\n"
    (tmp_path / "events.ndjson").write_text(noise * 3000 + end)
    events = Events(tmp_path / "events.ndjson", 64 * CAP)
    events.read_all()
    assert events.summary == "feat: all of it"


def test_what_comes_and_goes_in_a_folder_hides_nothing_else_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").write_bytes(b"x" * 100)
    scan = os.scandir

    class Racing:
        """The operating system's listing, of which every second file is gone by the time it is looked at."""

        def __init__(self, path: str) -> None:
            self._path = path

        def __enter__(self) -> list[os.DirEntry[str]]:
            with scan(self._path) as found:
                entries = list(found)
            for entry in entries[::2]:
                os.unlink(entry.path)
            return entries

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(os, "scandir", Racing)
    assert size_of(tmp_path) == (1000, 20)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_folder_that_cannot_be_looked_into_counts_as_too_much(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    os.chown(hidden, 65534, 65534)
    hidden.chmod(0o300)  # files can be made in it, and nobody but root can list them
    seen, told = os.pipe()
    if (child := os.fork()) == 0:  # the server without root, whose user the container then has
        folder_handle = os.open(tmp_path, os.O_RDONLY)
        os.fchdir(folder_handle)
        os.setuid(65534)
        os.write(told, str(size_of(Path())[1]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(told)
    with os.fdopen(seen) as file:
        assert int(file.read()) > ENTRIES


RELAY = f"""
import importlib.util, os, resource, socket, sys, threading, time
spec = importlib.util.spec_from_file_location("runner", {runner.__file__!r})
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)
runner.IN = sys.argv[1]
gateway = socket.socket(socket.AF_UNIX)
gateway.bind(sys.argv[1] + "/model.sock")
gateway.listen(64)
def echo():
    while True:
        end, _ = gateway.accept()
        threading.Thread(target=lambda: end.sendall(end.recv(9)), daemon=True).start()
threading.Thread(target=echo, daemon=True).start()
port = runner.relay()
def asks():
    with socket.create_connection(("127.0.0.1", port), timeout=3) as line:
        line.sendall(b"hello")
        try:
            return line.recv(9)
        except ConnectionError:
            return b""
assert asks() == b"hello"
{{trouble}}
assert asks() == b"hello", "the relay is gone"
"""
FILES = """
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    os.close(taken.pop())
line = socket.create_connection(("127.0.0.1", port))
time.sleep(0.5)
line.close()
for handle in taken:
    os.close(handle)
time.sleep(0.5)
"""
PROCESSES = """
start = threading.Thread.start
def refused(thread):
    if thread._target is runner.pump:
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = refused
assert asks() == b""
threading.Thread.start = start
"""


@pytest.mark.parametrize("trouble", [FILES, PROCESSES], ids=["files", "processes"])
def test_the_relay_outlives_a_job_that_takes_all_files_or_processes(tmp_path: Path, trouble: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", RELAY.replace("{trouble}", trouble), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ended.returncode == 0, ended.stderr
