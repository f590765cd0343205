"""The embedded forge: real git repositories, pull requests kept as git objects.

`base.git` holds the default branch's history alone and is what tasks may see. `forge.git` borrows its objects and holds our branches and
the records of pull requests. Patches are applied in a throw-away index: no work tree, so no hooks, filters or links are ever in force.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from codespar import git
from codespar.forges.base import (
    Check,
    Comment,
    Conflict,
    FileChange,
    ForgeError,
    MergeMethod,
    NotMergeable,
    PatchRefused,
    PullRequest,
    PullState,
    PushRefused,
    RepositoryUnusable,
    Review,
)
from codespar.forges.records import PullRecords

_SOURCE = "source"  # the file that keeps a URL with credentials, for its owner alone
_MODES = {"100644", "100755", "120000", "000000"}
_MAX_FILE = 1024**2


class LocalForge:
    """`Forge` over a path or URL that git understands. Never touches a work tree of the user's."""

    def __init__(self, folder: Path, source: str) -> None:
        self._folder = folder
        given = str(Path(source).expanduser().resolve()) if _is_path(source) else source
        self._shown = git.without_credentials(given)
        self._source = given if given != self._shown else _kept_source(folder, self._shown)
        self._base = folder / "base.git"
        self._forge = folder / "forge.git"
        self._records = PullRecords(self._forge)
        self._lock = asyncio.Lock()
        self._branch = ""

    @property
    def base_repository(self) -> Path:
        return self._base

    # the default branch

    async def sync(self) -> tuple[str, str]:
        async with self._lock:
            branch, commit = await self._remote_head()
            await self._create("sha256" if len(commit) == 64 else "sha1")
            known = (
                await self._try(
                    "rev-parse", "--verify", "-q", f"refs/heads/{branch}^{{commit}}", cwd=self._base
                )
            ) or ""
            if known != commit:
                refspec = f"+refs/heads/{branch}:refs/heads/{branch}"
                try:
                    # a shallow clone is worked on as it is: its oldest commits simply have no parents here
                    await git.run(
                        "fetch",
                        "--quiet",
                        "--no-tags",
                        "--update-shallow",
                        self._source,
                        refspec,
                        cwd=self._base,
                    )
                except git.GitError as error:
                    raise RepositoryUnusable(
                        f"{self._shown} cannot be fetched: {_clean(error.stderr)}"
                    ) from error
                commit = await git.run("rev-parse", f"refs/heads/{branch}", cwd=self._base)
                if (shallow := self._base / "shallow").exists():
                    shutil.copyfile(shallow, self._forge / "shallow")
            if self._branch != branch:
                await git.run("symbolic-ref", "HEAD", f"refs/heads/{branch}", cwd=self._base)
                self._branch = branch
            return branch, commit

    async def _remote_head(self) -> tuple[str, str]:
        try:
            told = await git.run("ls-remote", "--symref", self._source, "HEAD", timeout=60)
        except git.GitError as error:
            if "dubious ownership" in error.stderr:
                raise RepositoryUnusable(
                    f"{self._shown} belongs to another user than the one CodeSpar runs as, and git refuses to work on it: "
                    "run CodeSpar as its owner, give it to this user (chown -R), or link it by an ssh:// or https:// URL"
                ) from error
            raise RepositoryUnusable(
                f"{self._shown} is not a git repository that can be reached: {_clean(error.stderr)}. "
                "Check the path or URL in codespar.yaml and this user's access to it."
            ) from error
        named = re.search(r"^ref: refs/heads/(\S+)\tHEAD$", told, re.MULTILINE)
        at = re.search(r"^([0-9a-f]{40,64})\tHEAD$", told, re.MULTILINE)
        if at is None:
            raise RepositoryUnusable(await self._why_no_head())
        if named is None:
            raise RepositoryUnusable(
                f"HEAD of {self._shown} is detached: check out its default branch (git switch <branch>), then try again"
            )
        return named[1], at[1]

    async def _why_no_head(self) -> str:
        told = await self._try("ls-remote", "--heads", self._source) or ""
        if heads := re.findall(r"\trefs/heads/(\S+)", told):
            return (
                f"HEAD of {self._shown} names a branch that does not exist; it has {', '.join(heads[:5])}. "
                f"Set the default branch there (git symbolic-ref HEAD refs/heads/{heads[0]}), then try again"
            )
        return f"{self._shown} is empty: commit and push a first file, then try again"

    async def _create(self, object_format: str) -> None:
        if self._source != self._shown:
            self._keep_source()
        if (self._forge / "HEAD").exists():
            return
        for bare in (self._base, self._forge):
            bare.mkdir(parents=True, exist_ok=True)
            await git.run("init", "--quiet", "--bare", f"--object-format={object_format}", str(bare))
        alternates = self._forge / "objects" / "info" / "alternates"
        alternates.write_text(f"{(self._base / 'objects').resolve()}\n")

    def _keep_source(self) -> None:
        """Keep the URL's credentials where only this user reads them, so that nothing else has to hold them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / _SOURCE
        if path.exists() and path.read_text().strip() == self._source:
            return
        unfinished = path.with_suffix(".part")
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(self._source + "\n")
        unfinished.replace(path)

    async def read_file(self, commit: str, path: str) -> bytes | None:
        entry = await git.run("ls-tree", "-l", commit, "--", path, cwd=self._base)
        if not entry:
            return None
        _mode, kind, blob, size = entry.split("\t")[0].split()
        if kind != "blob":
            return None
        if int(size) > _MAX_FILE:
            raise ForgeError(f"{path} of {commit[:12]} has {size} bytes; at most {_MAX_FILE} are read")
        return (await git.run_bytes("cat-file", "blob", blob, cwd=self._base))[1]

    # changes

    async def import_patch(
        self, *, base_commit: str, patch: bytes, branch: str, message: str, author: str, at: datetime
    ) -> str:
        with tempfile.TemporaryDirectory(prefix="index-", dir=self._folder) as scratch:
            env = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            await git.run("read-tree", base_commit, cwd=self._forge, extra_env=env)
            try:
                await git.run(
                    "apply",
                    "--cached",
                    "--binary",
                    "--whitespace=nowarn",
                    "-",
                    cwd=self._forge,
                    stdin=patch,
                    extra_env=env,
                )
            except git.GitError as error:
                raise PatchRefused(
                    f"it does not apply to {base_commit[:12]}: {_clean(error.stderr)}"
                ) from error
            tree = await git.run("write-tree", cwd=self._forge, extra_env=env)
        await self._refuse_tricks(base_commit, tree)
        commit = await git.commit_tree(self._forge, tree, [base_commit], message, author, at)
        await git.run("update-ref", f"refs/heads/{branch}", commit, cwd=self._forge)
        return commit

    async def _refuse_tricks(self, base: str, tree: str) -> None:
        _, raw = await git.run_bytes("diff-tree", "-r", "-z", "--no-renames", base, tree, cwd=self._forge)
        parts = raw.split(b"\0")
        if len(parts) < 2:
            raise PatchRefused("it changes nothing")
        for head, name in zip(parts[0::2], parts[1::2], strict=False):
            _old, mode, _from, blob, _status = head.decode().lstrip(":").split()
            path = name.decode(errors="surrogateescape")
            if mode not in _MODES:
                raise PatchRefused(f"{path} would become a submodule or an unknown kind of entry ({mode})")
            pieces = path.split("/")
            if path.startswith("/") or any(piece.lower() in (".git", "..", ".", "") for piece in pieces):
                raise PatchRefused(f"{path} is not a path a change may have")
            if path == ".gitmodules" and mode != "000000":
                raise PatchRefused("it changes .gitmodules: submodules are added by people")
            if mode == "120000":
                target = (await git.run_bytes("cat-file", "blob", blob, cwd=self._forge))[1].decode(
                    errors="replace"
                )
                if _leaves_tree(pieces[:-1], target):
                    raise PatchRefused(f"{path} would be a link out of the repository ({target[:100]})")

    async def push(self, *, branch: str, commit: str) -> None:
        ref = f"refs/heads/{branch}"
        there = await self._try("ls-remote", self._source, ref)
        if there and there.split()[0] == commit:
            return
        if there:
            raise PushRefused(
                f"{branch} already is on {self._shown} at {there[:12]}, which is not this task's commit {commit[:12]}"
            )
        await self._push(f"{commit}:{ref}", f"--force-with-lease={ref}:")

    async def _push(self, refspec: str, *options: str) -> None:
        try:
            await git.run("push", "--quiet", "--no-verify", *options, self._source, refspec, cwd=self._forge)
        except git.GitError as error:
            raise PushRefused(
                f"{self._shown} refused the push of {refspec.split(':')[-1]}: {_clean(error.stderr)}. The commit is kept; settle it there, then retry."
            ) from error

    async def diff(self, base_commit: str, head: str) -> str:
        _, out = await git.run_bytes(
            "diff", "--no-ext-diff", "--no-textconv", f"{base_commit}...{head}", cwd=self._forge
        )
        return out.decode(errors="replace")

    async def changes(self, base_commit: str, head: str) -> list[FileChange]:
        _, out = await git.run_bytes(
            "diff",
            "--no-renames",
            "--numstat",
            "-z",
            "--no-ext-diff",
            f"{base_commit}...{head}",
            cwd=self._forge,
        )
        found = []
        for entry in out.decode(errors="surrogateescape").split("\0"):
            if entry:
                added, removed, path = entry.split("\t", 2)
                shown = path.encode(errors="surrogateescape").decode(errors="replace")
                found.append(FileChange(path=shown, additions=_number(added), deletions=_number(removed)))
        return found

    # pull requests

    async def open_pull(
        self,
        *,
        branch: str,
        commit: str,
        base_branch: str,
        base_commit: str,
        title: str,
        body: str,
        author: str,
        at: datetime,
    ) -> PullRequest:
        files = tuple(await self.changes(base_commit, commit))

        def make(number: int) -> PullRequest:
            return PullRequest(
                number=number,
                title=title,
                body=body,
                branch=branch,
                base_branch=base_branch,
                head_commit=commit,
                base_commit=base_commit,
                author=author,
                files=files,
                created_at=at,
                updated_at=at,
            )

        def is_ours(pull: PullRequest) -> bool:
            return pull.branch == branch and (pull.state is PullState.OPEN or pull.head_commit == commit)

        return await self._records.add(is_ours, make)

    async def get_pull(self, number: int) -> PullRequest:
        return await self._records.get(number)

    async def list_pulls(self, state: PullState | None = None) -> list[PullRequest]:
        return [pull for pull in await self._records.all() if state in (None, pull.state)]

    async def set_check(self, number: int, check: Check) -> PullRequest:
        def change(pull: PullRequest) -> PullRequest:
            others = tuple(one for one in pull.checks if one.name != check.name)
            return pull.evolve(checks=(*others, check), updated_at=check.at)

        return await self._records.change(
            number, f"check:{check.name}:{check.at.isoformat()}:{check.passed}", change, check.at
        )

    async def add_comment(self, number: int, comment: Comment, key: str) -> PullRequest:
        return await self._records.change(
            number,
            f"comment:{key}",
            lambda pull: pull.evolve(comments=(*pull.comments, comment), updated_at=comment.at),
            comment.at,
        )

    async def add_review(self, number: int, review: Review, key: str) -> PullRequest:
        return await self._records.change(
            number,
            f"review:{key}",
            lambda pull: pull.evolve(reviews=(*pull.reviews, review), updated_at=review.at),
            review.at,
        )

    async def close(self, number: int, *, at: datetime) -> PullRequest:
        def change(pull: PullRequest) -> PullRequest:
            if pull.state is PullState.MERGED:
                raise NotMergeable(f"PR #{number} is merged and cannot be closed")
            return pull.evolve(state=PullState.CLOSED, updated_at=at)

        return await self._records.change(number, "closed", change, at)

    async def merge(
        self, number: int, *, method: MergeMethod, head_commit: str, author: str, at: datetime
    ) -> PullRequest:
        pull = await self.get_pull(number)
        if pull.state is PullState.MERGED and pull.head_commit == head_commit:
            return pull
        if pull.state is not PullState.OPEN:
            raise NotMergeable(f"PR #{number} is {pull.state}")
        if pull.head_commit != head_commit:
            raise NotMergeable(
                f"PR #{number} is at {pull.head_commit[:12]} now, not at {head_commit[:12]} as was shown: look at it again"
            )
        branch, tip = await self.sync()
        if branch != pull.base_branch:
            raise NotMergeable(
                f"the default branch is {branch} now, but PR #{number} was made for {pull.base_branch}"
            )
        merged = await self._merged_before(pull, tip) or await self._make_merge(pull, method, tip, author, at)
        if merged != tip:
            await self._push(f"{merged}:refs/heads/{branch}")
        await self.sync()
        return await self._records.change(
            number,
            "merged",
            lambda one: one.evolve(state=PullState.MERGED, merge_commit=merged, updated_at=at),
            at,
        )

    async def _merged_before(self, pull: PullRequest, tip: str) -> str | None:
        """The commit by which an interrupted merge already brought this pull request into the default branch."""
        found = await git.run(
            "log",
            "-1",
            "--format=%H",
            "--fixed-strings",
            f"--grep=Merged-pull-request: #{pull.number}",
            tip,
            cwd=self._forge,
        )
        return found or None

    async def _make_merge(
        self, pull: PullRequest, method: MergeMethod, tip: str, author: str, at: datetime
    ) -> str:
        trailer = f"Merged-pull-request: #{pull.number}\nMerged-by: {author}\n"
        if method is MergeMethod.REBASE:
            # our branches are one commit on their base, so replaying it is merging its tree
            listed = (
                await git.run("rev-list", f"{pull.base_commit}..{pull.head_commit}", cwd=self._forge)
            ).split()
            if len(listed) > 1:
                raise NotMergeable(
                    f"PR #{pull.number} has {len(listed)} commits; rebase it by hand, or merge with `squash` or `merge`"
                )
        tree = await self._merge_tree(tip, pull.head_commit, pull.number)
        if method is MergeMethod.MERGE:
            message = f"Merge pull request #{pull.number}: {pull.title}\n\n{trailer}"
            return await git.commit_tree(self._forge, tree, [tip, pull.head_commit], message, author, at)
        if method is MergeMethod.SQUASH:
            return await git.commit_tree(
                self._forge, tree, [tip], f"{pull.title} (#{pull.number})\n\n{trailer}", pull.author, at
            )
        original = await git.run("log", "-1", "--format=%B", pull.head_commit, cwd=self._forge)
        return await git.commit_tree(
            self._forge, tree, [tip], f"{original.rstrip()}\n{trailer}", pull.author, at
        )

    async def _merge_tree(self, ours: str, theirs: str, number: int) -> str:
        code, out = await git.run_bytes(
            "merge-tree",
            "--write-tree",
            "--name-only",
            "--no-messages",
            ours,
            theirs,
            cwd=self._forge,
            ok_codes=(0, 1),
        )
        lines = out.decode(errors="replace").splitlines()
        if code == 1:
            raise NotMergeable(
                f"PR #{number} conflicts with the default branch in {', '.join(lines[1:6])}: retry its task on the newest commit"
            )
        return lines[0]

    async def conflicts(self, number: int) -> list[Conflict]:
        mine = await self.get_pull(number)
        others = [pull for pull in await self.list_pulls(PullState.OPEN) if pull.number != number][:50]
        gate = asyncio.Semaphore(4)

        async def compare(other: PullRequest) -> Conflict | None:
            async with gate:
                code, out = await git.run_bytes(
                    "merge-tree",
                    "--write-tree",
                    "--name-only",
                    "--no-messages",
                    mine.head_commit,
                    other.head_commit,
                    cwd=self._forge,
                    ok_codes=(0, 1),
                )
            if code == 0:
                return None
            paths = tuple(sorted({line for line in out.decode(errors="replace").splitlines()[1:] if line}))
            return Conflict(number=number, other=other.number, paths=paths)

        found = await asyncio.gather(*(compare(other) for other in others))
        return [conflict for conflict in found if conflict is not None]

    async def _try(self, *arguments: str, cwd: Path | None = None) -> str | None:
        try:
            return await git.run(*arguments, cwd=cwd)
        except git.GitError:
            return None


async def create_repository(folder: Path, worktree: Path | None = None) -> Path:
    """A bare repository that plays the remote; with `worktree`, its first commit is that folder's content."""
    folder.mkdir(parents=True, exist_ok=True)
    await git.run("init", "--quiet", "--bare", str(folder))
    if worktree is not None:
        await git.run("init", "--quiet", str(worktree))
        await git.run("add", "-A", cwd=worktree)
        await git.run("commit", "--quiet", "-m", "chore: first commit", cwd=worktree)
        await git.run("push", "--quiet", str(folder), "HEAD:refs/heads/main", cwd=worktree)
    return folder


def _is_path(source: str) -> bool:
    return "://" not in source and not re.match(r"^[\w.-]+@[\w.-]+:", source)


def _kept_source(folder: Path, shown: str) -> str:
    """The URL with the credentials that came when the repository was linked, where there were any; else `shown`."""
    try:
        kept = (folder / _SOURCE).read_text().strip()
    except FileNotFoundError:
        return shown
    return kept if git.without_credentials(kept) == shown else shown


def _clean(stderr: str) -> str:
    """git's own words on one line, without credentials."""
    return git.without_credentials(" ".join(stderr.split()))[-600:]


def _leaves_tree(folder: Sequence[str], target: str) -> bool:
    if target.startswith("/"):
        return True
    depth = len(folder)
    for piece in target.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(piece, 1)
        if depth < 0:
            return True
    return False


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
