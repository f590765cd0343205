"""GitHub as a `Forge`: commits by git, everything else by its REST API, and two things that only its GraphQL API has.

The same method again finds its own earlier trace: a pull request by its branch, a check by what its external id says, words by a hidden line
at their end, and those only where their author is ourselves. Nothing that a repository, a pull request or a person says can steer what is
asked of GitHub. Every method says how many requests it takes; git counts as none, for it has no quota.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog

from codespar import git
from codespar.forges.base import (
    AccessLost,
    Conflict,
    Gone,
    MergeMethod,
    NotMergeable,
    Polled,
    PullRequest,
    PullRequestNotFound,
    PullState,
)
from codespar.forges.github import polling
from codespar.forges.github.builds import Builds
from codespar.forges.github.checks import Checks
from codespar.forges.github.comments import Comments
from codespar.forges.github.errors import Unprocessable
from codespar.forges.github.hooks import Hooks
from codespar.forges.github.marks import with_mark
from codespar.forges.github.reviews import Reviews
from codespar.forges.github.values import PullData, pull_of
from codespar.forges.mirror import conflicts_of

log = structlog.get_logger(__name__)
_NEWEST = 100  # pull requests in a list: one page
_COMPARED = 50  # open pull requests that one is compared with
_QUEUE = re.compile(r"merge queue", re.IGNORECASE)
_QUEUED = re.compile(r"already (?:in|queued|enqueued)|is in the merge queue", re.IGNORECASE)
_EXISTS = re.compile(r"pull request already exists", re.IGNORECASE)
_ENQUEUE = """
mutation ($pull: ID!, $head: GitObjectID!) {
  enqueuePullRequest(input: {pullRequestId: $pull, expectedHeadOid: $head}) { mergeQueueEntry { id } }
}
"""


class GithubForge(Reviews, Comments, Checks, Builds, Hooks):
    """`Forge` over one repository at github.com or an Enterprise Server. `client` and `credentials` are that repository's own."""

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
        """Two requests: one looks for it, one opens it; one more each for labels and reviewers, where there are any.

        Its author is whom our credentials are. A reviewer with a `/` is a team. Labels that we may not set and reviewers that cannot be asked
        are left out, and logged.
        """
        data = await self._opened(branch, commit)
        if data is None:
            wanted = {
                "title": title,
                "head": branch,
                "base": base_branch,
                "body": with_mark(body, ""),
                "draft": draft,
            }
            try:
                made = await self._client.send("POST", self._at("/pulls"), wanted)
            except Unprocessable as error:
                data = await self._opened(branch, commit) if _EXISTS.search(str(error)) else None
                if data is None:
                    raise
            else:
                data = PullData.model_validate(made)
        pull = pull_of(data, self._clock())
        has = {label.casefold() for label in pull.labels}
        if missing := [label for label in labels if label.casefold() not in has]:
            await self._label(pull.number, missing)
        asked = {user.login.casefold() for user in data.requested_reviewers}
        if people := [name for name in reviewers if name.casefold() not in asked]:
            await self._ask(pull.number, people)
        files = (
            tuple(await self.changes(base_commit, pull.head_commit))
            if await self.knows(pull.head_commit)
            else ()
        )
        return pull.evolve(base_commit=base_commit, files=files, labels=(*pull.labels, *missing))

    async def _opened(self, branch: str, commit: str) -> PullData | None:
        """The pull request of our branch: the open one, or one of that very commit that was closed since."""
        owner = self._repository.partition("/")[0]
        params = {"head": f"{owner}:{branch}", "state": "all"}
        items = await self._client.pages(self._at("/pulls"), params, most=_NEWEST)
        found = [PullData.model_validate(item) for item in items]
        ours = [one for one in found if one.head.ref == branch and not one.fork]
        return next(
            (one for one in ours if one.state == "open"),
            next((one for one in ours if one.head.sha == commit), None),
        )

    async def _label(self, number: int, labels: list[str]) -> None:
        try:
            await self._client.send(
                "POST", self._at(f"/issues/{number}/labels"), {"labels": labels}, repeatable=True
            )
        except (AccessLost, Gone, Unprocessable) as error:
            log.warning("github.labels.refused", number=number, labels=labels, reason=str(error)[:200])

    async def _ask(self, number: int, people: list[str]) -> None:
        """Ask for reviews. GitHub refuses all when one cannot be asked: then each is asked alone."""
        try:
            await self._client.send(
                "POST",
                self._at(f"/pulls/{number}/requested_reviewers"),
                {
                    "reviewers": [name for name in people if "/" not in name],
                    "team_reviewers": [name.rpartition("/")[2] for name in people if "/" in name],
                },
                repeatable=True,
            )
        except (AccessLost, Gone, Unprocessable) as error:
            if len(people) > 1 and isinstance(error, Unprocessable):
                for name in people:
                    await self._ask(number, [name])
                return
            log.warning("github.reviewers.refused", number=number, people=people, reason=str(error)[:200])

    async def get_pull(self, number: int) -> PullRequest:
        """One request. Its files come from git; none where its commits are gone. What was said of it is not here: ask `checks`."""
        pull, _ = await self._pull(number)
        try:
            return await self._brought(pull)
        except Gone:
            return pull

    async def list_pulls(self, state: PullState | None = None) -> list[PullRequest]:
        """One request: the newest 100, without their files, and with the base branch's commit as `base_commit`."""
        asked = {None: "all", PullState.OPEN: "open"}.get(state, "closed")
        params = {"state": asked, "sort": "created", "direction": "desc"}
        items = await self._client.pages(self._at("/pulls"), params, most=_NEWEST)
        pulls = [pull_of(PullData.model_validate(item), self._clock()) for item in items]
        return [pull for pull in pulls if state in (None, pull.state)]

    async def close(self, number: int, *, at: datetime) -> PullRequest:
        """One request."""
        path = self._at(f"/pulls/{number}")
        try:
            told = await self._client.send("PATCH", path, {"state": "closed"}, repeatable=True)
        except Gone as error:
            raise PullRequestNotFound(f"there is no pull request #{number} in {self._repository}") from error
        pull = pull_of(PullData.model_validate(told), self._clock())
        if pull.state is PullState.MERGED:
            raise NotMergeable(f"PR #{number} is merged and cannot be closed")
        return pull

    # merging

    async def merge(
        self, number: int, *, method: MergeMethod, head_commit: str, author: str, at: datetime
    ) -> PullRequest:
        """Two requests: one looks, one merges, as whom our credentials are. Where GitHub refuses, up to six more find out why."""
        pull, data = await self._pull(number)
        if _merged_as(pull, head_commit):
            return pull
        body = {"sha": head_commit, "merge_method": method.value}
        try:
            told: Any = await self._client.send("PUT", self._at(f"/pulls/{number}/merge"), body)
        except Unprocessable as error:
            now, data = await self._pull(number)
            if _merged_as(now, head_commit):  # an answer before this one was lost
                return now
            if _QUEUE.search(str(error)):
                return await self._enqueue(now, data, head_commit)
            raise await self._why_not(now, data, error) from error
        commit = told.get("sha") if isinstance(told, dict) else None  # pyright: ignore[reportUnknownMemberType]
        return pull.evolve(state=PullState.MERGED, merge_commit=commit, updated_at=at)

    async def _enqueue(self, pull: PullRequest, data: PullData, head_commit: str) -> PullRequest:
        try:
            await self._client.graphql(_ENQUEUE, {"pull": data.node_id, "head": head_commit})
        except Unprocessable as error:
            if not _QUEUED.search(str(error)):
                raise NotMergeable(
                    f"PR #{pull.number} cannot be put in the merge queue: {error.message or error}"
                ) from error
        return pull.evolve(queued=True)

    async def _why_not(self, pull: PullRequest, data: PullData, error: Unprocessable) -> NotMergeable:
        """GitHub's reason, and what it leaves out."""
        why = error.message or str(error)
        if data.mergeable_state == "dirty":
            why += ". It conflicts with its base branch: retry its task on the newest commit"
        elif pull.draft:
            why += ". It is a draft: mark it as ready for review first"
        elif data.mergeable_state == "blocked" or "status check" in why.casefold():
            try:
                required = set(await self.required_checks(pull.base_branch))
            except AccessLost:  # GitHub's own reason has to do
                required = set[str]()
            known = {check.name: check for check in await self.checks(pull.head_commit)}
            waiting = [name for name in sorted(required) if name not in known or known[name].passed is None]
            failed = [name for name in sorted(required & known.keys()) if known[name].passed is False]
            why += f". Failed: {', '.join(failed)}" if failed else ""
            why += f". Not there yet: {', '.join(waiting)}" if waiting else ""
        return NotMergeable(f"GitHub does not merge PR #{pull.number}: {why}")

    async def conflicts(self, number: int) -> list[Conflict]:
        """Two requests."""
        mine = await self.fetch_pull(number)
        others = [
            pull
            for pull in await self.list_pulls(PullState.OPEN)
            if pull.number != number and pull.base_branch == mine.base_branch
        ][:_COMPARED]
        await self._bring(others)
        return await conflicts_of(self, mine, [one for one in others if await self.knows(one.head_commit)])

    async def _bring(self, pulls: Sequence[PullRequest]) -> None:
        """Bring their heads here, all by one fetch where GitHub has them all."""
        missing = [pull for pull in pulls if not await self.knows(pull.head_commit)]
        names = {f"refs/pull/{pull.number}/head": f"refs/codespar/pull/{pull.number}" for pull in missing}
        if not names:
            return
        specs = [f"+{remote}:{local}" for remote, local in names.items()]
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--update-shallow")
        try:
            await git.run("fetch", *options, self.source, *specs, cwd=self.full, extra_env=await self._lent())
        except git.GitError:  # one of them is not there
            for remote, local in names.items():
                await self.fetch(remote, local)

    # what happened

    async def poll(self, cursor: dict[str, Any]) -> Polled:
        return await polling.look(self._client, self._repository, cursor, self._clock())


def _merged_as(pull: PullRequest, head_commit: str) -> bool:
    """Whether it is merged as it was shown. Raises `NotMergeable` when it never will be."""
    if pull.state is PullState.CLOSED:
        raise NotMergeable(f"PR #{pull.number} is closed")
    if pull.head_commit != head_commit:
        raise NotMergeable(
            f"PR #{pull.number} is at {pull.head_commit[:12]} now, not at {head_commit[:12]} as was shown: look at it again"
        )
    return pull.state is PullState.MERGED
