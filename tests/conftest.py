"""What tests of any kind may lean on: a real PostgreSQL, a real container engine, a folder of their own.

Nothing here pretends to be something else, and nothing is skipped for being absent: it fails and says how to get it.
"""

from __future__ import annotations

import fcntl
import gc
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import hypothesis
import psycopg
import pytest

ROOT = Path(__file__).resolve().parent.parent
POSTGRES_SECONDS = 120.0  # until a new server must answer

# The same examples on every run, so that a change is judged by itself; `CODESPAR_EXPLORE=1` looks for new ones.
# How long one takes says how busy the machine is.
hypothesis.settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
if not os.environ.get("CODESPAR_EXPLORE"):
    hypothesis.settings.load_profile("repeatable")


def pytest_collection() -> None:
    """What is loaded and collected stays for the whole run: looking through it for garbage, again and again, takes a fifth of that time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """And is looked through no more afterwards."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _no_paid_calls() -> None:
    """No test may spend somebody's money: an API key of the caller is not seen."""
    os.environ.pop("ANTHROPIC_API_KEY", None)


@pytest.fixture
def work_folder(tmp_path: Path) -> Path:
    """An empty folder for this test alone."""
    return tmp_path


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the container engine that answers, such as `unix:///var/run/docker.sock`, with the images of this release in it.

    Building that takes minutes where it was never built, which is no test's time. One process of a run looks, and the others take its word.
    """
    folder = tmp_path_factory.getbasetemp()
    run = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with (run / "container-engine").open("a+") as found:
        fcntl.flock(found, fcntl.LOCK_EX)
        found.seek(0)
        address = found.read()
        if not address:
            address = _docker_engine()
            found.write(address)
        return address


def _docker_engine() -> str:
    asked = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "engine_answers.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        pytest.fail(
            f"no container engine answers ({asked.stderr.strip()}); start one: scripts/ensure_docker.sh",
            pytrace=False,
        )
    built = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "ensure_images.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        pytest.fail(f"{built.stdout}{built.stderr[-3000:]}", pytrace=False)
    return asked.stdout.strip()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a private PostgreSQL server on a loopback port, without a database name at its end.

    It keeps nothing: its folder goes with it, and it does not wait for the disk. It ends with the test run, however that ends.
    """
    programs = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3])
    )
    if not programs:
        pytest.fail(
            "PostgreSQL's programs are not installed; get them: scripts/ensure_postgres.sh", pytrace=False
        )
    folder = Path(tempfile.mkdtemp(prefix="codespar-postgres-", dir="/tmp"))
    process: subprocess.Popen[bytes] | None = None
    try:
        become = _as_postgres(folder)
        _make_cluster(programs[-1], folder, become)
        process, port = _start(programs[-1].with_name("postgres"), folder, become)
        yield f"postgresql://postgres@127.0.0.1:{port}"
    finally:
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)  # PostgreSQL's "fast" shutdown
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """The URL of a new, empty database for this test alone."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    _administer(postgres_url, f"CREATE DATABASE {name}")
    yield f"{postgres_url}/{name}"
    _administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def postgres_module_database(postgres_url: str) -> Iterator[str]:
    """The URL of a new, empty database for the tests of this module."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    _administer(postgres_url, f"CREATE DATABASE {name}")
    yield f"{postgres_url}/{name}"
    _administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


def _folder_of(port: int) -> str:
    """The data folder of the server that answers there."""
    with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres") as connection:
        (folder,) = connection.execute("SHOW data_directory").fetchone() or ("",)
        return str(folder)


def _administer(server: str, statement: str) -> None:
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(statement.encode())


def _as_postgres(folder: Path) -> list[str]:
    """The words before a command that make it run as a user PostgreSQL accepts, and end when this process does."""
    ending = ["setpriv", "--pdeathsig", "INT"]
    if os.getuid() != 0:
        return ending
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return [*ending, "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--init-groups"]


def _make_cluster(initdb: Path, folder: Path, become: list[str]) -> None:
    options = [
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        "--no-instructions",
    ]
    made = subprocess.run(
        [*become, str(initdb), "-D", str(folder / "data"), *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.fail(
            f"initdb could not make a cluster in {folder}: {made.stderr.strip()[-2000:]}", pytrace=False
        )


def _start(postgres: Path, folder: Path, become: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """The server and its port. Another program may take the free port before the server does: then the next one is tried."""
    log = folder / "log"
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "off",
            "timezone": "UTC",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*become, str(postgres), "-D", str(folder / "data"), *options],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + POSTGRES_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(psycopg.OperationalError):
                if _folder_of(port) == str(folder / "data"):  # another may have the port
                    return process, port
            time.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait()
    pytest.fail(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}", pytrace=False)
