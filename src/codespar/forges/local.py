"""The embedded forge: real git repositories, and pull requests, reviews and builds kept as git objects beside them.

What a code host would keep is kept under `refs/codespar/` of the project's own bare repository, so that it outlives the server and is backed
up with it. It has no continuous integration of its own: builds are what others report of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from codespar import git
from codespar.forges.base import Conflict, MergeMethod, NotMergeable, PullRequest, PullState
from codespar.forges.mirror import conflicts_of
from codespar.forges.records import PullBrief
from codespar.forges.told import Told

_MERGED, _MERGED_HEAD = "Merged-pull-request", "Merged-head"  # trailers by which a merge is known again


class LocalForge(Told):
    """`Forge` over a path or URL that git understands."""

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
        draft: bool = False,
        labels: Sequence[str] = (),
        reviewers: Sequence[str] = (),
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
                draft=draft,
                labels=tuple(labels),
                created_at=at,
                updated_at=at,
            )

        def is_ours(pull: PullBrief) -> bool:
            return pull.branch == branch and (pull.state is PullState.OPEN or pull.head_commit == commit)

        return await self._pulls.add(is_ours, make)

    async def get_pull(self, number: int) -> PullRequest:
        return await self._pulls.get(number)

    async def list_pulls(self, state: PullState | None = None) -> list[PullRequest]:
        return await self._pulls.find(lambda pull: state in (None, pull.state))

    async def fetch_pull(self, number: int) -> PullRequest:
        """As it is at the remote: somebody may have pushed to its branch, or taken it away."""
        pull = await self.get_pull(number)
        if pull.state is not PullState.OPEN:
            return pull
        return await self._brought(pull)

    async def close(self, number: int, *, at: datetime) -> PullRequest:
        def change(pull: PullRequest) -> PullRequest:
            if pull.state is PullState.MERGED:
                raise NotMergeable(f"PR #{number} is merged and cannot be closed")
            return pull.evolve(state=PullState.CLOSED, updated_at=at)

        return await self._pulls.change(number, "closed", change, at)

    async def merge(
        self, number: int, *, method: MergeMethod, head_commit: str, author: str, at: datetime
    ) -> PullRequest:
        pull = await self.get_pull(number)
        if pull.state is PullState.MERGED and pull.head_commit == head_commit:
            return pull
        if pull.state is not PullState.OPEN:
            raise NotMergeable(f"PR #{number} is {pull.state}")
        async with self._merging:
            merged = await self._merge(pull, method, head_commit, author, at)
        await self.sync()
        return await self._pulls.change(
            number,
            "merged",
            lambda one: one.evolve(state=PullState.MERGED, merge_commit=merged, updated_at=at),
            at,
        )

    async def _merge(
        self, known: PullRequest, method: MergeMethod, head_commit: str, author: str, at: datetime
    ) -> str:
        """Bring it into the remote's default branch. Returns the commit by which it is there."""
        number = known.number
        branch, tip = await self.sync()
        if branch != known.base_branch:
            raise NotMergeable(
                f"the default branch is {branch} now, but PR #{number} was made for {known.base_branch}"
            )
        if known.head_commit == head_commit and (merged := await self._merged_before(known, tip)):
            return merged
        pull = await self.fetch_pull(number)
        if pull.head_commit != head_commit:
            raise NotMergeable(
                f"PR #{number} is at {pull.head_commit[:12]} now, not at {head_commit[:12]} as was shown: look at it again"
            )
        merged = await self._make_merge(pull, method, tip, author, at)
        await self.send(f"{merged}:refs/heads/{branch}")
        return merged

    async def _merged_before(self, pull: PullRequest, tip: str) -> str | None:
        """The commit by which an interrupted merge already brought this pull request into the default branch."""
        # its whole trailers, and since its own base alone: an older history may tell of others of the same number
        wanted = f"{_MERGED}: #{pull.number}\n{_MERGED_HEAD}: {pull.head_commit}\n"
        span = f"{pull.base_commit}..{tip}"
        _, out = await git.run_bytes("log", "-z", "--format=%H%n%B", span, "--", cwd=self.full)
        for entry in out.decode(errors="replace").split("\0"):
            commit, _, message = entry.partition("\n")
            if f"\n{wanted}" in message:
                return commit
        return None

    async def _make_merge(
        self, pull: PullRequest, method: MergeMethod, tip: str, author: str, at: datetime
    ) -> str:
        by = " ".join(author.split())
        trailer = f"{_MERGED}: #{pull.number}\n{_MERGED_HEAD}: {pull.head_commit}\nMerged-by: {by}\n"
        if method is MergeMethod.REBASE:
            # our branches are one commit on their base, so replaying it is merging its tree
            listed = (
                await git.run("rev-list", f"{pull.base_commit}..{pull.head_commit}", cwd=self.full)
            ).split()
            if len(listed) > 1:
                raise NotMergeable(
                    f"PR #{pull.number} has {len(listed)} commits; rebase it by hand, or merge with `squash` or `merge`"
                )
        tree = await self._merge_tree(tip, pull.head_commit, pull.number)
        if method is MergeMethod.MERGE:
            message = f"Merge pull request #{pull.number}: {pull.title}\n\n{trailer}"
            return await git.commit_tree(self.full, tree, [tip, pull.head_commit], message, author, at)
        if method is MergeMethod.SQUASH:
            return await git.commit_tree(
                self.full, tree, [tip], f"{pull.title} (#{pull.number})\n\n{trailer}", pull.author, at
            )
        original = await git.run("log", "-1", "--format=%B", pull.head_commit, cwd=self.full)
        return await git.commit_tree(
            self.full, tree, [tip], f"{original.rstrip()}\n{trailer}", pull.author, at
        )

    async def _merge_tree(self, ours: str, theirs: str, number: int) -> str:
        tree, paths = await self.collisions(ours, theirs)
        if tree is None:
            raise NotMergeable(
                f"PR #{number} conflicts with the default branch in {', '.join(paths[:5])}: retry its task on the newest commit"
            )
        return tree

    async def conflicts(self, number: int) -> list[Conflict]:
        mine = await self.get_pull(number)
        others = [pull for pull in await self.list_pulls(PullState.OPEN) if pull.number != number][:50]
        return await conflicts_of(self, mine, others)


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
