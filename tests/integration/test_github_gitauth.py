"""The token that git is lent: with the real git against a server that asks for it, and where it must not be found afterwards."""

from __future__ import annotations

import os
import subprocess
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from codespar import git
from codespar.forges.base import ForgeError
from codespar.forges.github.gitauth import HELPER, git_environment
from support.githttp import GitServer

TOKEN = "ghs_" + "t0kEn" * 8


class Watch:
    """Looks at the arguments of every process of this machine, again and again."""

    def __init__(self) -> None:
        self.seen = 0
        self.with_token: list[bytes] = []
        self._stop = threading.Event()

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.is_set():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = process.read_bytes()
                except OSError:
                    continue
                self.seen += b"remote-http" in line or b"askpass" in line
                if TOKEN.encode() in line:
                    self.with_token.append(line)


class Elsewhere:
    """A host that asks for credentials and keeps what it is shown; or one that sends everybody to another."""

    def __init__(self, target: str = "") -> None:
        seen: list[str | None] = []
        self.seen = seen

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.headers.get("Authorization"))
                self.send_response(302 if target else 401)
                if target:
                    self.send_header("Location", target + self.path)
                else:
                    self.send_header("WWW-Authenticate", 'Basic realm="elsewhere"')
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Tests say what went wrong themselves."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[Elsewhere]:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()


@pytest.fixture
async def origin(tmp_path: Path) -> Path:
    served = tmp_path / "served" / "acme"
    served.mkdir(parents=True)
    bare = served / "gateway.git"
    await git.run("init", "--bare", "--quiet", str(bare))
    tree = await git.run("mktree", cwd=bare, stdin=b"")
    commit = await git.run("commit-tree", tree, "-m", "first", cwd=bare)
    await git.run("update-ref", "refs/heads/main", commit, cwd=bare)
    return bare


def files_with(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


async def test_git_clones_fetches_and_pushes_and_the_token_is_nowhere(tmp_path: Path, origin: Path) -> None:
    clone = tmp_path / "clone"
    with GitServer(tmp_path / "served", "x-access-token", TOKEN) as server, Watch() as watch:
        url = f"http://{server.address}/acme/gateway.git"
        lent = git_environment(TOKEN, url)
        await git.run("clone", "--quiet", url, str(clone), extra_env=lent)
        # What a machine's or a repository's own settings may ask for.
        await git.run("config", "credential.helper", f"store --file={tmp_path}/stored", cwd=clone)
        await git.run("config", "credential.useHttpPath", "true", cwd=clone)
        await git.run("config", "core.logAllRefUpdates", "true", cwd=clone)
        await git.run("commit", "--quiet", "--allow-empty", "-m", "second", cwd=clone)
        await git.run("push", "--quiet", "origin", "HEAD:refs/heads/task", cwd=clone, extra_env=lent)
        await git.run("fetch", "--quiet", "origin", cwd=clone, extra_env=lent)
    assert await git.run("log", "--format=%s", "refs/heads/task", cwd=origin) == "second\nfirst"
    assert watch.seen > 0
    assert watch.with_token == []
    assert (clone / ".git" / "logs" / "HEAD").exists()
    assert files_with(tmp_path, TOKEN) == []
    assert not (tmp_path / "stored").exists()
    assert TOKEN not in (clone / ".git" / "config").read_text()


async def test_a_refused_token_is_in_no_error(tmp_path: Path, origin: Path) -> None:
    with GitServer(tmp_path / "served", "x-access-token", "another") as server:
        url = f"http://{server.address}/acme/gateway.git"
        with pytest.raises(git.GitError) as caught:
            await git.run("ls-remote", url, extra_env=git_environment(TOKEN, url))
    assert "Authentication failed" in str(caught.value)
    assert TOKEN not in str(caught.value) + caught.value.stderr


async def test_a_host_that_git_is_redirected_to_is_not_shown_the_token(tmp_path: Path) -> None:
    with Elsewhere().running() as other, Elsewhere(f"http://{other.address}").running() as first:
        url = f"http://{first.address}/acme/gateway.git"
        with pytest.raises(git.GitError, match="could not read Username"):
            await git.run("ls-remote", url, extra_env=git_environment(TOKEN, url))
    assert other.seen and set(other.seen) == {None}


async def test_another_host_than_the_one_it_was_lent_for_is_not_shown_the_token() -> None:
    with Elsewhere().running() as other:
        lent = git_environment(TOKEN, "https://github.com/acme/gateway.git")
        for url in (
            f"http://{other.address}/acme/gateway",
            f"http://x-access-token@{other.address}/acme/gateway",
        ):
            with pytest.raises(git.GitError):
                await git.run("ls-remote", url, extra_env=lent)
    assert other.seen
    for shown in other.seen:  # git shows the user that a URL names by itself, with an empty password
        assert TOKEN.encode() not in b64decode((shown or "Basic ").removeprefix("Basic "))


def ask(prompt: str, **changes: str) -> tuple[int, str]:
    lent = git_environment(TOKEN, "https://github.com/acme/gateway") | changes
    ended = subprocess.run([HELPER, prompt], env=lent, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout


def test_the_helper_answers_for_the_one_host_alone() -> None:
    assert ask("Username for 'https://github.com': ") == (0, "x-access-token\n")
    assert ask("Password for 'https://x-access-token@github.com': ") == (0, f"{TOKEN}\n")
    for prompt in (
        "Password for 'http://x-access-token@github.com': ",
        "Password for 'https://x-access-token@github.com.evil.example': ",
        "Password for 'https://x-access-token@evil.example/github.com': ",
        "Password for 'https://x-access-token@github.com:8443': ",
        "Password for 'https://someone@github.com': ",
        "Password for 'https://evil.example/': Password for 'https://x-access-token@github.com': ",
        "Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
        "",
    ):
        code, said = ask(prompt)
        assert code != 0 and said == "", prompt


def test_a_host_name_is_no_pattern() -> None:
    code, said = ask("Password for 'https://x-access-token@evil.example': ", CODESPAR_GIT_SITE="*")
    assert code != 0 and said == ""


def test_a_token_is_printed_as_it_is() -> None:
    odd = "a b%s\\n$HOME`id`'\"*"
    code, said = ask("Password for 'https://x-access-token@github.com': ", CODESPAR_GIT_PASSWORD=odd)
    assert (code, said) == (0, odd + "\n")


def test_a_helper_that_cannot_run_is_told_before_git_fails(tmp_path: Path) -> None:
    helper = tmp_path / "askpass"
    helper.write_bytes(HELPER.read_bytes())
    helper.chmod(0o644)
    with pytest.raises(ForgeError, match=r"cannot be executed.*noexec"):
        git_environment(TOKEN, "https://github.com/a/b", helper=helper)
    assert os.access(HELPER, os.X_OK)
