"""Repositories of every kind, each with what a scripted task does to it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from codespar.cli.client import Json
from codespar.scripted.script import Script, Turn, bash, pause, write
from support.repositories import IDENTITY, branches, commit, git, repository

GITLINK = "160000"
Tree = dict[bytes, tuple[str, str]]
Fill = Callable[[Path], None]


# repositories of a kind


def raw(*arguments: str, cwd: Path, stdin: bytes | None = None) -> bytes:
    """git's output as bytes: file names need not be text."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(
        ["git", *IDENTITY, *arguments], cwd=cwd, env=environment, input=stdin, capture_output=True, check=True
    ).stdout


def worktree(folder: Path, fill: Fill, *, branch: str = "main", options: tuple[str, ...] = ()) -> Path:
    """A person's own work tree with one commit of what `fill` puts there."""
    folder.mkdir(parents=True)
    git("init", "-q", "-b", branch, *options, cwd=folder)
    fill(folder)
    git("add", "-A", "-f", cwd=folder)
    git("commit", "-q", "-m", "chore: first commit", cwd=folder)
    return folder


def bare(folder: Path, fill: Fill, *, branch: str = "main", options: tuple[str, ...] = ()) -> Path:
    """A bare repository with one commit of what `fill` puts into a work tree."""
    tree = worktree(folder.with_name(folder.name + "-tree"), fill, branch=branch, options=options)
    git("clone", "-q", "--bare", "--no-hardlinks", str(tree), str(folder), cwd=tree)
    shutil.rmtree(tree)
    return folder


def entries(repository: Path, revision: str) -> Tree:
    """Path → (mode, object) of a whole tree."""
    listed = raw("ls-tree", "-r", "-z", "--full-tree", revision, cwd=repository).split(b"\0")
    found: Tree = {}
    for entry in filter(None, listed):
        facts, _, path = entry.partition(b"\t")
        mode, _kind, name = facts.decode().split()
        found[path] = (mode, name)
    return found


def changed(repository: Path, before: str, after: str) -> set[bytes]:
    """The paths that differ between two commits."""
    old, new = entries(repository, before), entries(repository, after)
    return {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}


def content(repository: Path, revision: str, path: bytes) -> bytes:
    return raw("cat-file", "blob", entries(repository, revision)[path][1], cwd=repository)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a work tree but git's own, byte for byte, and git's index."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    kept = [*files, folder / ".git" / "index", folder / ".git" / "HEAD", folder / ".git" / "config"]
    return {str(path): (path.stat().st_mode, path.read_bytes()) for path in kept}


# the kinds: how each is made, what its task does, and what must come of it


@dataclass(frozen=True)
class Outcome:
    repository: Path
    task: Json

    @property
    def head(self) -> str:
        assert self.task["status"] == "completed", self.task["result"]
        assert self.task["result"]["branch"] in branches(self.repository)
        return str(self.task["result"]["branch"])

    @property
    def changed(self) -> set[bytes]:
        return changed(self.repository, f"{self.head}~", self.head)

    @property
    def new(self) -> Tree:
        return entries(self.repository, self.head)

    def content(self, path: bytes) -> bytes:
        return content(self.repository, self.head, path)

    @property
    def refusal(self) -> str:
        assert self.task["status"] == "failed", self.task["status"]
        assert branches(self.repository) == []
        return str(self.task["result"]["summary"])


def one_file(folder: Path) -> None:
    (folder / "hello.txt").write_text("hello\n")


def configured(text: str) -> Fill:
    def fill(folder: Path) -> None:
        one_file(folder)
        (folder / ".codespar.yaml").write_text(text)

    return fill


def make_odd_path(folder: Path) -> Path:
    return bare(folder / "my répos 仓库 & more's" / "a b.git", one_file, branch="trunk")


def make_own_tree(folder: Path) -> Path:
    """Somebody's work tree with unfinished work, hooks, a file-system monitor and filters, each of which would leave a trace."""
    tree = worktree(folder / "mine", one_file)
    trace = f"touch {folder}/ran"
    (tree / "staged.txt").write_text("staged\n")
    (tree / ".gitattributes").write_text("* filter=mine\n")
    git("add", "staged.txt", cwd=tree)
    (tree / "hello.txt").write_text("hello, unfinished\n")
    (tree / "untracked.txt").write_text("untracked\n")
    git("config", "core.fsmonitor", f"{trace}-fsmonitor", cwd=tree)
    for side in ("clean", "smudge"):
        git("config", f"filter.mine.{side}", f"{trace}-{side}; cat", cwd=tree)
    git("config", "uploadpack.packObjectsHook", f"{trace}-pack", cwd=tree)
    for hook in ("post-checkout", "pre-push", "pre-commit", "post-index-change", "fsmonitor-watchman"):
        path = tree / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{trace}-{hook}\n")
        path.chmod(0o755)
    return tree


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 12345\n"


def make_attributes(folder: Path) -> Path:
    """Blobs that no checkout and check-in by these attributes would give back as they are."""

    def fill(tree: Path) -> None:
        (tree / "hello.txt").write_bytes(b"one\r\ntwo\r\n")
        (tree / "crlf.dos").write_bytes(b"kept\r\nas\r\nit is\r\n")
        (tree / "mixed.dos").write_bytes(b"a\r\nb\nc\r\n")
        (tree / "windows.bat").write_bytes(b"echo one\r\necho two\r\n")
        (tree / "big.bin").write_bytes(LFS)
        (tree / "id.c").write_bytes(b"/* $Id: somebody wrote this $ */\n")
        (tree / "version.txt").write_bytes(b"$Format:%H$\n")
        (tree / "wide.txt").write_bytes("weit ä\n".encode("utf-16"))

    tree = worktree(folder / "attributes", fill)
    rules = (
        "*.dos text eol=lf\n*.bat text eol=crlf\n*.bin filter=lfs diff=lfs merge=lfs -text\n*.c ident\n"
        "version.txt export-subst\n*.secret filter=evil diff=evil merge=evil\nwide.txt -text\n"
    )
    (tree / ".gitattributes").write_text(rules)
    git("add", ".gitattributes", cwd=tree)
    git("commit", "-q", "-m", "chore: attributes", cwd=tree)
    return tree


def make_submodules(folder: Path) -> Path:
    def fill(tree: Path) -> None:
        one_file(tree)
        modules = '[submodule "gone"]\n\tpath = lib/gone\n\turl = https://unreachable.invalid/gone.git\n'
        (tree / ".gitmodules").write_text(modules)

    path = bare(folder / "submodules.git", fill)
    tree = folder / "submodules-more"
    git("clone", "-q", str(path), str(tree), cwd=folder)
    git("update-index", "--add", "--cacheinfo", f"{GITLINK},{'1' * 40},lib/gone", cwd=tree)
    git("commit", "-q", "-m", "chore: add a submodule", cwd=tree)
    git("push", "-q", cwd=tree)
    return path


def make_links(folder: Path) -> Path:
    def fill(tree: Path) -> None:
        one_file(tree)
        (tree / "docs").mkdir()
        (tree / "docs" / "inside").symlink_to("../hello.txt")
        (tree / "passwd").symlink_to("/etc/passwd")
        (tree / "up").symlink_to("../../somewhere")
        (tree / "nowhere").symlink_to("not there")

    return bare(folder / "links.git", fill)


ODD = [
    "two words", "tab\there", "new\nline", 'double"quote', "single'quote", "back\\slash", "-rf", "--help", "*", "[a-z]?", "{a,b}",
    "$(touch pwned)", "`id`", "%s%n", "#hash", "~", ":(top)magic", "!bang", " leading", "trailing ", "dot.", "..dots", "é".encode().decode(),
    "nfd-e\u0301", "nfc-\u00e9", "日本語", "\u202egnp.exe", "emoji 🐙", "a => b", "{x => y}", "con", "very-" + "long-" * 40,
]  # fmt: skip
ODD_BYTES = [name.encode() for name in ODD] + [b"latin-\xe9", b"\xff\xfe", b"\x01\x7f"]


def make_names(folder: Path) -> Path:
    def fill(tree: Path) -> None:
        one_file(tree)
        for name in ODD_BYTES:
            for place in (b"at " + name, name):
                with open(os.path.join(os.fsencode(tree), place), "wb") as file:
                    file.write(name)
        os.mkdir(os.path.join(os.fsencode(tree), b"dir \xe9"))
        with open(os.path.join(os.fsencode(tree), b"dir \xe9", b"x"), "wb") as file:
            file.write(b"x")

    return bare(folder / "names.git", fill)


# Changes the files called "at …" and removes two, and writes "new …" of every odd name.
NAMES = f"""python3 - <<'END'
import os
for name in {ODD_BYTES!r}:
    with open(b'at ' + name, 'ab') as file: file.write(b' changed')
    with open(b'new ' + name, 'wb') as file: file.write(name)
os.unlink(b'-rf'); os.unlink(b'\\xff\\xfe')
END"""


def make_changes(folder: Path) -> Path:
    def fill(tree: Path) -> None:
        one_file(tree)
        (tree / "run.sh").write_text("#!/bin/sh\n")
        (tree / "tool").write_text("#!/bin/sh\n")
        (tree / "tool").chmod(0o755)
        (tree / "image.bin").write_bytes(bytes(range(256)) * 20)
        (tree / "old name.txt").write_text("moved\n" * 20)
        (tree / "gone.txt").write_text("gone\n")
        (tree / "file-then-folder").write_text("file\n")
        (tree / "folder-then-file").mkdir()
        (tree / "folder-then-file" / "a").write_text("a\n")
        (tree / "folder-then-link").mkdir()
        (tree / "folder-then-link" / "a").write_text("a\n")
        (tree / "link-then-folder").symlink_to("folder-then-link")
        (tree / "no-newline").write_text("no newline")
        (tree / "empty").write_text("")

    return bare(folder / "changes.git", fill)


CHANGES = """chmod +x run.sh && chmod -x tool && python3 - <<'END'
import os, shutil
data = bytes(range(256)) * 20
open('image.bin', 'wb').write(data[:100] + b'\\0new\\0' + data[100:])
open('new.bin', 'wb').write(bytes(range(255, -1, -1)))
os.mkdir('deep'); os.rename('old name.txt', 'deep/new name.txt'); os.unlink('gone.txt'); os.unlink('empty')
os.unlink('file-then-folder'); os.mkdir('file-then-folder'); open('file-then-folder/b', 'w').write('b')
shutil.rmtree('folder-then-file'); open('folder-then-file', 'w').write('now a file')
shutil.rmtree('folder-then-link'); os.symlink('deep', 'folder-then-link')
os.unlink('link-then-folder'); os.mkdir('link-then-folder'); open('link-then-folder/c', 'w').write('c')
open('no-newline', 'a').write(' still'); open('empty too', 'w').close(); os.mkfifo('pipe')
open('unreadable', 'w').write('secret of the task'); os.chmod('unreadable', 0)
os.mkdir('closed'); open('closed/in', 'w').write('in'); os.chmod('closed', 0)
END"""


def make_big(folder: Path) -> Path:
    """5,000 files and one of 40 MB, through fast-import."""
    path = folder / "big.git"
    git("init", "-q", "--bare", "-b", "main", str(path), cwd=folder)
    noise = os.urandom(40 * 1024**2)
    parts = [b"commit refs/heads/main\ncommitter Ada <ada@example.org> 0 +0000\ndata 5\nfirst\n"]
    for number in range(5000):
        text = f"def function_{number}():\n    return {number}\n".encode()
        parts.append(
            f"M 644 inline src/p{number % 50}/m{number}.py\ndata {len(text)}\n".encode() + text + b"\n"
        )
    parts.append(f"M 644 inline noise.bin\ndata {len(noise)}\n".encode() + noise + b"\n")
    raw("-c", "core.compression=0", "fast-import", "--quiet", cwd=path, stdin=b"".join(parts))
    return path


def make_too_big(folder: Path) -> Path:
    def fill(tree: Path) -> None:
        configured("limits: {tmp: 64m}\n")(tree)
        (tree / "noise.bin").write_bytes(os.urandom(80 * 1024**2))

    return bare(folder / "too-big.git", fill)


def make_shallow(folder: Path) -> Path:
    full = repository(folder / "full.git", config=None)
    commit(full, {"hello.txt": "hello again\n"})
    commit(full, {"hello.txt": "and again\n"})
    path = folder / "shallow.git"
    git("clone", "-q", "--bare", "--depth", "1", f"file://{full}", str(path), cwd=folder)
    return path


# The work tree's own git directory turned against whoever reads it afterwards, and repositories inside the tree.
HOSTILE = """printf '[core]\\n\\tfsmonitor = touch /output/pwned\\n\\thooksPath = hooks\\n\\tworktree = /\\n\\tsshCommand = false\\n\\tpager = false
[filter "evil"]\\n\\tclean = touch /output/pwned\\n\\tsmudge = touch /output/pwned\\n\\trequired = true
[diff]\\n\\texternal = touch /output/pwned\\n[diff "evil"]\\n\\ttextconv = touch /output/pwned\\n[include]\\n\\tpath = /etc/passwd\\n' > .git/config
mkdir -p hooks .git/hooks
printf '#!/bin/sh\\ntouch /output/pwned\\n' | tee hooks/pre-commit .git/hooks/post-index-change > /dev/null
chmod +x hooks/pre-commit .git/hooks/*
printf '* filter=evil diff=evil\\n' > .gitattributes; printf '*\\n' > .git/info-exclude; mkdir -p .git/info; printf '*\\n' > .git/info/exclude
printf 'garbage' > .git/index; printf 'ref: refs/heads/other\\n' > .git/HEAD; touch .git/index.lock
git init -q nested; printf 'in\\n' > nested/in.txt; mkdir fake; printf 'gitdir: /workspace\\n' > fake/.git; printf 'x\\n' > fake/x.txt
printf 'good\\n' > good.txt"""


@dataclass(frozen=True)
class Kind:
    make: Callable[[Path], Path]
    script: Script
    url: Callable[[Path], str] = str


def does(command: str, *, seconds: float = 0.0) -> Script:
    turns = [Turn("I do it.", (bash(command),))]
    if seconds:
        turns.append(Turn("I wait.", (pause(seconds),)))
    return Script((*turns, Turn("feat: do it\n\nDone.")))


WRITES = Script((Turn("I write.", (write("new.txt", "new\n"),)), Turn("feat: add new.txt\n\nDone.")))
KINDS = {
    "odd-path": Kind(make_odd_path, WRITES),
    "file-url": Kind(make_odd_path, WRITES, lambda path: f"file://{quote(str(path))}"),
    "own-tree": Kind(make_own_tree, WRITES),
    "attributes": Kind(make_attributes, does("printf 'three\\r\\n' >> hello.txt; printf x > x.secret; printf 'n\\n' > new.bin")),
    "submodules": Kind(make_submodules, WRITES),
    "links": Kind(make_links, does("ln -s ../hello.txt docs/second; rm nowhere; echo more >> docs/inside")),
    "link-out": Kind(make_links, does("ln -s /etc/shadow stolen; echo x > good.txt")),
    "names": Kind(make_names, does(NAMES)),
    "changes": Kind(make_changes, does(CHANGES)),
    "big": Kind(make_big, does("echo '# more' >> src/p7/m7.py")),
    "too-big": Kind(make_too_big, WRITES),
    "hostile": Kind(lambda folder: bare(folder / "hostile.git", one_file), does(HOSTILE)),
    "shallow": Kind(make_shallow, does("git log --oneline | wc -l > new.txt")),
    "sha256": Kind(lambda folder: bare(folder / "sha256.git", one_file, options=("--object-format=sha256",)), WRITES),
    "broken-yaml": Kind(lambda folder: bare(folder / "b.git", configured("test: [unclosed\n")), WRITES),
    "unknown-key": Kind(lambda folder: bare(folder / "u.git", configured("test: 'true'\ntset: x\n")), WRITES),
    "ignored": Kind(
        lambda folder: bare(folder / "ignored.git", lambda tree: (one_file(tree), (tree / ".gitignore").write_text("*.log\n"))[0]),
        does("echo x > build.log"),
    ),
    "nothing-left": Kind(
        lambda folder: bare(folder / "nothing.git", configured("test: test -f hello.txt\n")),
        does("git ls-files -z | xargs -0 rm -rf"),
    ),
}  # fmt: skip
