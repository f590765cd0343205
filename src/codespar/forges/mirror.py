"""One repository as git knows it: the default branch's history, what else was fetched, and the commits that are ours.

`base.git` holds the default branch's history alone and is what tasks may see. `forge.git` borrows its objects and holds everything else.
Never touches a work tree of the user's, and never writes a credential anywhere but, for a URL that was given with one, a file that its owner
alone reads.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath

from codespar import git
from codespar.config.private import write_private
from codespar.domain.builds import BuildJob, CommitLine, Run
from codespar.forges.base import (
    Conflict,
    FileChange,
    ForgeError,
    NotSupported,
    PastCommit,
    PullRequest,
    PushRefused,
    RepositoryUnusable,
)
from codespar.forges.leftlocks import LeftLocks
from codespar.forges.patches import apply_patch

_SOURCE = "source"  # the file that keeps a URL with credentials, for its owner alone
_MAX_FILE = 1024**2  # bytes
MOST_DIFF = 64 * 1024**2  # bytes
Access = Callable[[], Awaitable[Mapping[str, str]]]  # what git needs in its environment to be let in


class TooLarge(ForgeError):
    """A change is larger than is read."""


async def _open_to_all() -> Mapping[str, str]:
    return {}


class Mirror:
    """The git side that every `Forge` shares; its methods of the same names mean the same. `access` gives short-lived credentials for each call
    of git that needs them."""

    def __init__(self, folder: Path, source: str, access: Access = _open_to_all) -> None:
        self.folder = folder
        given = str(Path(source).expanduser().resolve()) if _is_path(source) else source
        self.shown = git.without_credentials(given)
        self.source = given if given != self.shown else _kept_source(folder, self.shown)
        self.base = folder / "base.git"
        self.full = folder / "forge.git"
        self._access = access
        self._lock = asyncio.Lock()
        self._branch = ""
        self._left_locks = LeftLocks(self.base, self.full)

    @property
    def base_repository(self) -> Path:
        return self.base

    @property
    def whole_repository(self) -> Path:
        return self.full

    @property
    def repository_name(self) -> str:
        return self.shown

    # the default branch

    async def sync(self) -> tuple[str, str]:
        branch, commit, _ = await self.sync_asking()
        return branch, commit

    async def sync_asking(self, *patterns: str) -> tuple[str, str, dict[str, str]]:
        """`sync`, and by the same question what the remote's references of these names point at. Others may be among them, whose names end alike."""
        async with self._lock:
            await self._left_locks.remove()
            branch, commit, there = await self._remote_head(*patterns)
            await self._create("sha256" if len(commit) == 64 else "sha1")
            ref = f"refs/heads/{branch}"
            known = await self._try("rev-parse", "--verify", "-q", f"{ref}^{{commit}}", cwd=self.base)
            if self._branch != branch:
                await self._forget_others(ref)
            if known != commit:
                await self._fetch(self.base, f"+{ref}:{ref}", self.shown)
                commit = await git.run("rev-parse", ref, cwd=self.base)
                if (shallow := self.base / "shallow").exists():
                    shutil.copyfile(shallow, self.full / "shallow")
            if self._branch != branch:
                await git.run("symbolic-ref", "HEAD", ref, cwd=self.base)
                self._branch = branch
            return branch, commit, there

    async def _forget_others(self, ref: str) -> None:
        """Let go of what was the default branch before: git does not keep `a` beside `a/b`, and tasks see the default branch alone."""
        there = await git.run("for-each-ref", "--format=%(refname)", "refs/heads", cwd=self.base)
        others = "".join(f"delete {name}\n" for name in there.split("\n") if name not in ("", ref))
        if others:
            await git.run(
                "update-ref", "--stdin", cwd=self.base, stdin=others.encode(errors="surrogateescape")
            )

    async def _remote_head(self, *patterns: str) -> tuple[str, str, dict[str, str]]:
        asked = ("ls-remote", "--symref", self.source, "HEAD", *patterns)
        try:
            told = await git.run(*asked, timeout=60, extra_env=await self._access())
        except git.GitError as error:
            if "dubious ownership" in error.stderr:
                raise RepositoryUnusable(
                    f"{self.shown} belongs to another user than the one CodeSpar runs as, and git refuses to work on it: "
                    "run CodeSpar as its owner, give it to this user (chown -R), or link it by an ssh:// or https:// URL"
                ) from error
            raise RepositoryUnusable(
                f"{self.shown} is not a git repository that can be reached: {error.said.rstrip('.')}. "
                "Check the path or URL that it is linked by and this user's access to it."
            ) from error
        named = re.search(r"^ref: refs/heads/(.+)\tHEAD$", told, re.MULTILINE)
        there = _references(told)
        if "HEAD" not in there:
            raise RepositoryUnusable(await self._why_no_head())
        if named is None:
            raise RepositoryUnusable(
                f"HEAD of {self.shown} is detached: check out its default branch (git switch <branch>), then try again"
            )
        return named[1], there["HEAD"], there

    async def _why_no_head(self) -> str:
        told = await self._ls_remote("--heads")
        if heads := re.findall(r"\trefs/heads/(\S+)", told):
            return (
                f"HEAD of {self.shown} names a branch that does not exist; it has {', '.join(heads[:5])}. "
                f"Set the default branch there (git symbolic-ref HEAD refs/heads/{heads[0]}), then try again"
            )
        return f"{self.shown} is empty: commit and push a first file, then try again"

    async def _create(self, object_format: str) -> None:
        if self.source != self.shown:
            await asyncio.to_thread(self._keep_source)
        alternates = self.full / "objects" / "info" / "alternates"
        # Relative, so that the folder can be moved, or a backup of it put back elsewhere. It is the last thing that is made: a server that
        # was killed before goes on here.
        borrowed = f"../../{self.base.name}/objects\n"
        if alternates.exists() and alternates.read_text() == borrowed:
            return
        for bare in (self.base, self.full):
            if (bare / "HEAD").exists():
                continue
            unfinished = bare.with_name(f"{bare.name}.part")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            await git.run("init", "--quiet", "--bare", f"--object-format={object_format}", str(unfinished))
            unfinished.rename(bare)
        part = alternates.with_suffix(".part")
        part.write_text(borrowed)
        part.replace(alternates)

    def _keep_source(self) -> None:
        """Keep the URL's credentials where only this user reads them, so that nothing else has to hold them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / _SOURCE
        if path.exists() and path.read_text().strip() == self.source:
            return
        write_private(path, self.source + "\n")

    async def read_file(self, commit: str, path: str) -> bytes | None:
        wanted = PurePosixPath(path)
        if "\0" in path or wanted.is_absolute() or ".." in wanted.parts or not wanted.parts:
            return None
        listing = ("--literal-pathspecs", "ls-tree", "-l", "-z", commit, "--", path)
        entry, _, name = (await git.run(*listing, cwd=self.full)).partition("\0")[0].partition("\t")
        if name != path or entry.split()[1] != "blob":
            return None
        *_, blob, size = entry.split()
        if int(size) > _MAX_FILE:
            raise ForgeError(f"{path} of {commit[:12]} has {size} bytes; at most {_MAX_FILE} are read")
        return (await git.run_bytes("cat-file", "blob", blob, cwd=self.full))[1]

    async def paths(self, commit: str) -> list[str]:
        _, out = await git.run_bytes(
            "ls-tree", "-r", "-z", "--name-only", "--full-tree", commit, cwd=self.full
        )
        return out.decode(errors="replace").split("\0")[:-1]

    # changes

    async def import_patch(
        self, *, base_commit: str, patch: bytes, branch: str, message: str, author: str, at: datetime
    ) -> str:
        tree = await apply_patch(self.full, base_commit, patch, scratch=self.folder)
        commit = await git.commit_tree(self.full, tree, [base_commit], message, author, at)
        await git.run("update-ref", f"refs/heads/{branch}", commit, cwd=self.full)
        return commit

    async def push(self, *, branch: str, commit: str) -> None:
        ref = f"refs/heads/{branch}"
        try:
            there = await self._asked(ref)
        except RepositoryUnusable as error:
            raise PushRefused(f"{branch} was not pushed: {error}") from error
        if there == commit:
            return
        if there:
            raise PushRefused(
                f"{branch} already is on {self.shown} at {there[:12]}, which is not this task's commit {commit[:12]}"
            )
        await self.send(f"{commit}:{ref}", f"--force-with-lease={ref}:")

    async def send(self, refspec: str, *options: str) -> None:
        """Push one refspec. Raises `PushRefused`."""
        try:
            await git.run(
                "push",
                "--quiet",
                "--no-verify",
                *options,
                self.source,
                refspec,
                cwd=self.full,
                extra_env=await self._access(),
            )
        except git.GitError as error:
            raise PushRefused(
                f"{self.shown} refused the push of {refspec.split(':')[-1]}: {error.said}. The commit is kept; settle it there, then retry."
            ) from error

    async def diff(self, base_commit: str, head: str) -> str:
        return (await self._diff(base_commit, head, cap=MOST_DIFF)).decode(errors="replace")

    async def patch(self, base_commit: str, head: str, cap: int) -> bytes:
        return await self._diff(base_commit, head, "--binary", "--full-index", cap=cap)

    async def changes(self, base_commit: str, head: str) -> list[FileChange]:
        raw = await self._diff(base_commit, head, "--no-renames", "--numstat", "-z")
        found: list[FileChange] = []
        for entry in raw.decode(errors="surrogateescape").split("\0"):
            if entry:
                added, removed, path = entry.split("\t", 2)
                found.append(
                    FileChange(path=_shown(path), additions=_number(added), deletions=_number(removed))
                )
        return found

    async def _diff(self, base_commit: str, head: str, *options: str, cap: int | None = None) -> bytes:
        """What `git diff` prints from the merge base to `head`. Raises `TooLarge` beyond `cap` bytes, and `ForgeError`."""
        wanted = ("diff", "--no-ext-diff", "--no-textconv", *options, f"{base_commit}...{head}")
        try:
            return (await git.run_bytes(*wanted, cwd=self.full, cap=cap))[1]
        except git.OutputTooLarge as error:
            most = (cap or 0) // 1024**2
            raise TooLarge(f"the change is larger than {most} MiB as a diff") from error
        except git.GitError as error:
            raise ForgeError(
                f"{base_commit[:12]} and {head[:12]} cannot be compared: {error.said}"
            ) from error

    # history

    async def log(self, older: str | None, newer: str, limit: int) -> list[CommitLine]:
        span = f"{older}..{newer}" if older else newer
        out = await self._try("log", f"-{limit}", "--format=%H%x00%an%x00%s", span, "--") or ""
        lines = (
            line.split("\0") for line in out.split("\n")
        )  # and at nothing else that Unicode ends lines with
        return [
            CommitLine(commit=_shown(line[0]), author=_shown(line[1]), title=_shown(line[2]))
            for line in lines
            if len(line) == 3
        ]

    async def history(
        self, commit: str, paths: Sequence[str], since: datetime, limit: int
    ) -> list[PastCommit]:
        if not paths:
            return []
        out = await self._try(
            "log",
            f"-{limit}",
            f"--since={since.isoformat()}",
            "--no-renames",
            "--name-only",
            "--format=%x00%H%x00%an%x00%cI%x00%s%x00%b%x00",
            commit,
            "--",
            *(f":(literal){path}" for path in paths),
            cwd=self.full,
        )
        found: list[PastCommit] = []
        told = iter((out or "").split("\0")[1:])  # the one character that is in no message
        for id, author, at, title, body, names in zip(*[told] * 6, strict=True):
            takes_back = title.lower().startswith("revert") or "This reverts commit " in body
            found.append(
                PastCommit(
                    commit=id,
                    author=_shown(author),
                    title=_shown(title),
                    at=datetime.fromisoformat(at),
                    reverts=takes_back,
                    paths=tuple(_shown(_unquoted(name)) for name in names.split("\n") if name),
                )
            )
        return found

    async def behind(self, older: str, newer: str) -> int | None:
        counted = await self._try("rev-list", "--count", f"{older}..{newer}", "--")
        return int(counted) if counted else None

    async def merge_base(self, one: str, other: str) -> str | None:
        """The newest commit that both have, or None where they have none in common."""
        return await self._try("merge-base", one, other)

    async def knows(self, commit: str) -> bool:
        """Whether the commit is here."""
        return await self._try("cat-file", "-e", f"{commit}^{{commit}}") is not None

    async def report_run(self, run: Run, jobs: Sequence[BuildJob], logs: dict[str, bytes]) -> Run:
        raise NotSupported(
            f"{self.shown} has builds of its own, which CodeSpar reads there; report to it instead"
        )

    async def branches(self) -> dict[str, str]:
        return branches_of(_references(await self._ls_remote("--heads")))

    async def fetch_branch(self, branch: str) -> str | None:
        # hashed: `a` may be gone at the remote and `a/b` there, and git does not keep both
        kept = hashlib.sha256(branch.encode(errors="surrogateescape")).hexdigest()[:32]
        return await self.fetch(f"refs/heads/{branch}", f"refs/codespar/heads/{kept}")

    async def fetch(self, remote: str, local: str) -> str | None:
        """Bring a reference of the remote here under another name. Returns its commit; None when the remote has none of that name."""
        if not (self.full / "HEAD").exists():
            await self.sync()
        if not (there := await self._asked(remote)):
            return None
        here = f"{local}^{{commit}}"
        if await self._try("rev-parse", "--verify", "-q", here) == there:
            return there
        await self._fetch(self.full, f"+{remote}:{local}", f"{remote} of {self.shown}")
        return await git.run("rev-parse", here, cwd=self.full)

    async def _fetch(self, into: Path, refspec: str, what: str) -> None:
        """Fetch one refspec of the remote. Raises `RepositoryUnusable`, which names `what`."""
        # a shallow clone is worked on as it is: its oldest commits simply have no parents here
        wanted = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--update-shallow")
        try:
            await git.run(*wanted, self.source, refspec, cwd=into, extra_env=await self._access())
        except git.GitError as error:
            raise RepositoryUnusable(f"{what} cannot be fetched: {error.said}") from error

    async def collisions(self, ours: str, theirs: str) -> tuple[str | None, tuple[str, ...]]:
        """Both merged as a tree; or None, and the paths that conflict."""
        code, out = await git.run_bytes(
            "merge-tree",
            "--write-tree",
            "-z",
            "--name-only",
            "--no-messages",
            ours,
            theirs,
            cwd=self.full,
            ok_codes=(0, 1),
        )
        tree, *paths = out.decode(errors="replace").split("\0")
        return (tree, ()) if code == 0 else (None, tuple(sorted({path for path in paths if path})))

    async def _asked(self, ref: str) -> str:
        """What the remote's reference of that whole name points at; empty where there is none. Raises `RepositoryUnusable`."""
        # git takes a name for the end of one: `refs/heads/x` is also found as `refs/heads/refs/heads/x`
        return _references(await self._ls_remote(pattern=ref)).get(ref, "")

    async def _ls_remote(self, *options: str, pattern: str = "") -> str:
        """The remote's references as lines `<commit>\\t<name>`. Raises `RepositoryUnusable`: no answer is not "there is none"."""
        asked = (*options, self.source, pattern) if pattern else (*options, self.source)
        try:
            return await git.run("ls-remote", *asked, timeout=60, extra_env=await self._access())
        except git.GitError as error:
            raise RepositoryUnusable(f"{self.shown} does not answer: {error.said}") from error

    async def _try(self, *arguments: str, cwd: Path | None = None) -> str | None:
        """What git prints in `cwd`, else the whole repository; None where it refuses."""
        try:
            return await git.run(*arguments, cwd=cwd or self.full)
        except git.GitError:
            return None


async def conflicts_of(mirror: Mirror, mine: PullRequest, others: Sequence[PullRequest]) -> list[Conflict]:
    """The others whose changes cannot be merged together with mine."""
    gate = asyncio.Semaphore(4)

    async def compare(other: PullRequest) -> Conflict | None:
        async with gate:
            tree, paths = await mirror.collisions(mine.head_commit, other.head_commit)
        return None if tree else Conflict(number=mine.number, other=other.number, paths=paths)

    found = await asyncio.gather(*(compare(other) for other in others))
    return [conflict for conflict in found if conflict is not None]


def _references(told: str) -> dict[str, str]:
    """What each reference points at, by its name, as `git ls-remote` lists them."""
    listed = re.findall(r"^([0-9a-f]{40,64})\t(.+)$", told, re.MULTILINE)
    return {name: commit for commit, name in listed}


def branches_of(references: Mapping[str, str]) -> dict[str, str]:
    """Those of the references that are branches, by the branches' names."""
    heads = "refs/heads/"
    return {
        _shown(name.removeprefix(heads)): commit
        for name, commit in references.items()
        if name.startswith(heads)
    }


def _is_path(source: str) -> bool:
    """Whether it is no URL as git reads them. What begins with a dash is a path, too: git would take it for an option."""
    return not re.match(r"[a-z][a-z0-9+.-]*://|[a-z0-9_][\w.-]*@[\w.-]+:", source, re.IGNORECASE)


def _kept_source(folder: Path, shown: str) -> str:
    """The URL with the credentials that came when the repository was linked, where there were any; else `shown`."""
    try:
        kept = (folder / _SOURCE).read_text().strip()
    except FileNotFoundError:
        return shown
    return kept if git.without_credentials(kept) == shown else shown


def _unquoted(name: str) -> str:
    """A path as it is, which git shows in quotes where it has control characters, quotes or backslashes."""
    if not name.startswith('"'):
        return name
    raw = name[1:-1].encode(errors="surrogateescape")
    plain = re.sub(rb"\\([0-7]{3}|.)", lambda found: _escaped(found[1]), raw)
    return plain.decode(errors="surrogateescape")


def _escaped(code: bytes) -> bytes:
    if len(code) == 3:
        return bytes([int(code, 8)])
    return dict(zip(b"abtnvfr", b"\a\b\t\n\v\f\r", strict=True)).get(code[0], code[0]).to_bytes()


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _shown(text: str) -> str:
    """git's bytes as text that every reader takes."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
