"""Small real git repositories to work on."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

TEST = "test -f hello.txt"
IDENTITY = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main")


def git(*arguments: str, cwd: Path, stdin: str | None = None) -> str:
    """Run git as a person would. Raises CalledProcessError."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    environment |= {"GIT_ALLOW_PROTOCOL": "file", "TZ": "UTC"}
    ended = subprocess.run(
        ["git", *IDENTITY, *arguments],
        cwd=cwd,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise AssertionError(f"git {' '.join(arguments)}: {ended.stderr}")
    return ended.stdout.strip()


def repository(
    folder: Path,
    files: Mapping[str, str] | None = None,
    *,
    config: str | None = f"test: {TEST}\n",
    branch: str = "main",
    past: str = "",
) -> Path:
    """A bare repository with one commit of these files, and `config` as its .codespar.yaml. Returns its path.

    `past` is what git's fast-import puts on top of that. What is asked for alike is made once, and copied after that."""
    written = {"hello.txt": "hello\n"} | dict(files or {})
    if config is not None:
        written[".codespar.yaml"] = config
    made = _made(tuple(written.items()), branch, past)
    tree = _tree(folder)
    shutil.copytree(_tree(made), tree, symlinks=True)
    shutil.copytree(made, folder, symlinks=True, dirs_exist_ok=True)
    known = folder / "config"
    known.write_text(known.read_text().replace(str(_tree(made)), str(tree)))
    return folder


def _tree(bare: Path) -> Path:
    """The work tree whose clone it is."""
    return bare.with_name(bare.name + "-tree")


@functools.cache
def _templates() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="repositories-")  # it is taken away when the process ends


@functools.cache
def _made(written: tuple[tuple[str, str], ...], branch: str, past: str) -> Path:
    folder = Path(tempfile.mkdtemp(dir=_templates().name)) / "made.git"
    tree = _tree(folder)
    tree.mkdir()
    git("init", "-q", "-b", branch, cwd=tree)
    for name, content in written:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    git("add", "-A", cwd=tree)
    git("commit", "-q", "-m", "chore: first commit", cwd=tree)
    git("clone", "-q", "--bare", str(tree), str(folder), cwd=tree)
    if past:
        git("fast-import", "--quiet", cwd=folder, stdin=past)
    return folder


def commit(bare: Path, files: Mapping[str, str], message: str = "chore: go on") -> str:
    """Another commit on the default branch. Returns its id."""
    tree = bare.with_name(bare.name + "-more")
    if not tree.exists():
        git("clone", "-q", str(bare), str(tree), cwd=bare)
    git("pull", "-q", cwd=tree)
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    git("add", "-A", cwd=tree)
    git("commit", "-q", "-m", message, cwd=tree)
    git("push", "-q", cwd=tree)
    return git("rev-parse", "HEAD", cwd=tree)


def branches(bare: Path) -> list[str]:
    """The branches that tasks have pushed."""
    return git("for-each-ref", "--format=%(refname:short)", "refs/heads/codespar", cwd=bare).split()
