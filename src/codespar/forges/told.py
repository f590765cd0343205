"""What is said of pull requests and commits at the embedded forge: comments, reviews, checks, builds, deployments.

A part of `LocalForge`. Everything is one change of a record under a key, so that what is done again after a crash is done once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codespar.domain.builds import BuildJob, Conclusion, Run
from codespar.domain.diffs import Diff, parse
from codespar.domain.happenings import NO_COMMIT, News, PullAction, PullChanged, Pushed, Ran
from codespar.domain.reviews import ReviewVerdict
from codespar.forges.base import (
    Artefact,
    Check,
    Comment,
    Gone,
    InlineComment,
    Issue,
    NotOnDiff,
    NotSupported,
    Polled,
    PostedReview,
    PullRequest,
    PullState,
    Review,
    ReviewDraft,
)
from codespar.forges.documents import pack_references
from codespar.forges.mirror import Mirror, branches_of
from codespar.forges.records import PULLS, RUNS, BuildRecords, CommitRecords, PullBrief, PullRecords
from codespar.forges.standing import stand_of

NOBODY = "codespar"  # who speaks at the embedded forge: it has no accounts


class Told(Mirror):
    """The part of the embedded forge that remembers what was said."""

    def __init__(self, folder: Path, source: str) -> None:
        super().__init__(folder, source)
        self._pulls = PullRecords(self.full)
        self._builds = BuildRecords(self.full)
        self._commits = CommitRecords(self.full)
        self._packs = True
        self._merging = asyncio.Lock()  # two at once would each be made on a tip that the other one moves
        self._looked: tuple[str, dict[str, Any]] | None = (
            None  # how all stood before the last look, its cursor
        )

    async def _brought(self, pull: PullRequest) -> PullRequest:
        """The pull request as it is at the remote, where somebody may have moved its branch."""
        ref = f"refs/heads/{pull.branch}"
        branch, tip, there = await self.sync_asking(ref)
        head = there.get(ref)
        if head and head != pull.head_commit:  # which is here, or it could not have been noted
            head = await self.fetch_branch(pull.branch)
        if head is None:
            if await self.knows(pull.head_commit):
                return pull
            raise Gone(f"the branch {pull.branch} of PR #{pull.number} is not on {self.shown} any more")
        if (head, tip) == (pull.head_commit, pull.base_commit):
            return pull
        base = (await self.merge_base(tip, head)) or pull.base_commit
        if (head, base) == (pull.head_commit, pull.base_commit) or branch != pull.base_branch:
            return pull
        files = tuple(await self.changes(base, head))

        def moved(one: PullRequest) -> PullRequest:
            checks = one.checks if one.head_commit == head else ()
            return one.evolve(head_commit=head, base_commit=base, files=files, checks=checks)

        # under no key: it may be moved back to where it was before, and on again
        return await self._pulls.change(pull.number, None, moved, pull.updated_at)

    # checks and statuses

    async def set_check(self, number: int, check: Check) -> PullRequest:
        def change(pull: PullRequest) -> PullRequest:
            others = tuple(one for one in pull.checks if one.name != check.name)
            return pull.evolve(checks=(*others, check), updated_at=max(check.at, pull.updated_at))

        said = hashlib.sha256(check.model_dump_json().encode()).hexdigest()
        return await self._pulls.change(number, f"check:{said}", change, check.at)

    async def checks(self, commit: str) -> list[Check]:
        found = {check.name: check for check in await self._commits.statuses(commit)}
        for run in reversed(await self._builds.find(commit=commit)):
            passed = run.conclusion.good if run.conclusion else None
            found[run.workflow] = Check(
                name=run.workflow, passed=passed, at=run.updated_at, url=run.url, conclusion=run.conclusion
            )
        for pull in await self._pulls.find(lambda one: one.head_commit == commit):
            found |= {check.name: check for check in pull.checks}
        return list(found.values())

    async def required_checks(self, branch: str) -> list[str]:
        return []

    async def set_status(
        self, commit: str, *, context: str, state: Conclusion | None, description: str, url: str = ""
    ) -> None:
        passed = state.good if state else None
        check = Check(
            name=context, passed=passed, summary=description, url=url, conclusion=state, at=datetime.now(UTC)
        )
        await self._commits.set_status(commit, check)

    # words

    async def comment_commit(self, commit: str, body: str, key: str) -> str:
        return await self._commits.comment(commit, body, key)

    async def comment(self, number: int, body: str, key: str) -> str:
        at = datetime.now(UTC)
        id = f"{number}.{key}"

        def change(pull: PullRequest) -> PullRequest:
            said = Comment(author=NOBODY, body=body, at=at, id=id)
            return pull.evolve(comments=(*pull.comments, said), updated_at=max(at, pull.updated_at))

        await self._pulls.change(number, f"comment:{key}", change, at)
        return id

    async def find_comment(self, number: int, key: str, since: datetime) -> str | None:
        pull = await self._pulls.get(number)
        return next((one.id for one in pull.comments if one.id == f"{number}.{key}"), None)

    async def edit_comment(self, comment: str, body: str) -> None:
        await self._change_comment(comment, lambda one: one.evolve(body=body))

    async def delete_comment(self, comment: str) -> None:
        try:
            await self._change_comment(comment, lambda one: None)
        except Gone:
            return

    async def _change_comment(self, id: str, change: Callable[[Comment], Comment | None]) -> None:
        pull = await self._pulls.get(_pull_of(id))
        if all(one.id != id for one in pull.comments):
            raise Gone(f"there is no comment {id} at PR #{pull.number}")
        at = datetime.now(UTC)

        def put(found: PullRequest) -> PullRequest:
            changed = [change(one) if one.id == id else one for one in found.comments]
            return found.evolve(comments=tuple(one for one in changed if one is not None))

        await self._pulls.change(pull.number, None, put, at)

    # reviews

    async def submit_review(self, number: int, draft: ReviewDraft, key: str) -> PostedReview:
        pull = await self._pulls.get(number)
        if pull.head_commit != draft.head_commit and all(one.id != key for one in pull.reviews):
            raise NotOnDiff(
                f"PR #{number} is at {pull.head_commit[:12]} now, not at {draft.head_commit[:12]}"
            )
        diff = Diff()
        if draft.comments:  # a change that is too large to be read can be reviewed without
            diff = await asyncio.to_thread(parse, await self.diff(pull.base_commit, draft.head_commit))
        held = [_is_held(one, diff) for one in draft.comments]
        ids = tuple(f"{number}.{key}.{place}" if held[place] else "" for place in range(len(held)))
        at = datetime.now(UTC)

        def change(found: PullRequest) -> PullRequest:
            said = tuple(
                Comment(
                    author=NOBODY,
                    body=one.body,
                    path=one.path,
                    line=one.line,
                    start_line=one.start_line,
                    side=one.side,
                    at=at,
                    id=id,
                )
                for one, id in zip(draft.comments, ids, strict=True)
                if id
            )
            review = Review(
                author=NOBODY,
                verdict=draft.verdict.value,
                body=draft.body,
                head_commit=draft.head_commit,
                at=at,
                id=key,
            )
            return found.evolve(
                comments=(*found.comments, *said),
                reviews=(*found.reviews, review),
                updated_at=max(at, found.updated_at),
            )

        known = await self._pulls.change(number, f"review:{key}", change, at)
        stands = next((one.verdict for one in known.reviews if one.id == key), draft.verdict.value)
        there = {one.id for one in known.comments}
        ids = tuple(id if id in there else "" for id in ids)  # what was said first stands
        refused = tuple(place for place, id in enumerate(ids) if not id)
        return PostedReview(id=key, comments=ids, refused=refused, verdict=ReviewVerdict(stands))

    async def review_under(self, number: int, key: str) -> PostedReview | None:
        known = (await self._pulls.get(number)).reviews
        return next(
            (PostedReview(id=key, verdict=ReviewVerdict(one.verdict)) for one in known if one.id == key), None
        )

    async def resolve(self, number: int, comments: Sequence[str], note: str) -> list[str]:
        pull = await self._pulls.get(number)
        known = [one.id for one in pull.comments if one.id in comments]
        at = datetime.now(UTC)
        for id in known:

            def mark(found: PullRequest, id: str = id) -> PullRequest:
                return found.evolve(
                    comments=tuple(
                        one.evolve(body=f"✅ {note}\n\n{one.body}") if one.id == id else one
                        for one in found.comments
                    )
                )

            await self._pulls.change(number, f"resolved:{id}", mark, at)
        return known

    async def issue(self, number: int) -> Issue:
        raise NotSupported(f"the embedded forge keeps pull requests, and no issues such as #{number}")

    # builds, as others report them

    async def report_run(self, run: Run, jobs: Sequence[BuildJob], logs: dict[str, bytes]) -> Run:
        """Keep what a continuous integration says of one of its runs; `logs` by the jobs' ids. Said again, nothing changes."""
        return await self._builds.save(run, jobs, logs)

    async def runs(
        self, *, branch: str | None = None, commit: str | None = None, limit: int = 50
    ) -> list[Run]:
        return (await self._builds.find(branch, commit))[:limit]

    async def jobs(self, run: str, attempt: int) -> list[BuildJob]:
        return await self._builds.jobs(run)

    async def job_log(self, run: str, job: str) -> AsyncIterator[bytes]:
        yield await self._builds.log(run, job)

    async def artefacts(self, run: str) -> list[Artefact]:
        return []

    async def artefact(self, id: str) -> AsyncIterator[bytes]:
        raise Gone(f"there is no artefact {id}: the embedded forge keeps none")
        yield b""  # an async generator, as the port has it

    async def start_deployment(self, *, ref: str, environment: str, description: str, key: str) -> str:
        raise NotSupported("the embedded forge keeps no deployments; CodeSpar's own records have them")

    async def set_deployment(self, deployment: str, *, state: str, description: str, url: str = "") -> None:
        raise NotSupported("the embedded forge keeps no deployments; CodeSpar's own records have them")

    # what happened

    async def poll(self, cursor: dict[str, Any]) -> Polled:
        """A few calls of git; none where neither a repository on this machine nor our own references changed since the last look. The first
        look tells of the newest runs alone."""
        stand = await self._stand()
        if stand is not None and (stand, cursor) == self._looked:
            return Polled(cursor=cursor)
        polled = await self._look(cursor)
        self._looked = (stand, polled.cursor) if stand is not None else None
        return polled

    async def _stand(self) -> str | None:
        """How the references stand, here and at the remote; None where that cannot be seen without asking."""
        if not Path(self.source).is_dir():
            return None
        theirs, ours = await asyncio.to_thread(lambda: (stand_of(Path(self.source)), stand_of(self.full)))
        return f"{theirs} {ours}" if theirs and ours else None

    async def _look(self, cursor: dict[str, Any]) -> Polled:
        """A cursor is `{"branches": {name: tip}, "pulls": {number: [head, state]}, "runs": {id: "attempt:conclusion"}, "looks": how many found
        news}`: of pull requests those that are not merged, which is for good, and of runs the newest. What can happen twice alike, as a branch
        that is moved to and fro, is delivered under the number of the look, too: a look done again after a crash has the same."""
        at = datetime.now(UTC)
        default, _, references = await self.sync_asking("refs/heads/*")
        self._packs = self._packs and await pack_references(self.full, PULLS, RUNS)
        tips = branches_of(references)
        there = {str(pull.number): pull for pull in await self._pulls.briefs()}
        runs = {run.id: run for run in reversed(await self._builds.find())}
        stands = {number: [pull.head_commit, pull.state.value] for number, pull in there.items()}
        news: list[News] = []
        looks: int = cursor.get("looks", 0)
        if cursor:
            news += self._pushes(cursor.get("branches", {}), tips, default, at, looks)
            seen: dict[str, list[str]] = cursor.get("pulls", {})
            changed = {
                pull.number
                for number, pull in there.items()
                if _action(seen.get(number), pull.head_commit, pull.state) or _has_moved(pull, tips)
            }
            for known in reversed(await self._pulls.find(lambda pull: pull.number in changed)):
                pull = await self._brought(known) if _has_moved(known, tips) else known
                if action := _action(seen.get(str(pull.number)), pull.head_commit, pull.state):
                    news.append(self._changed(action, pull, at, looks))
                    stands[str(pull.number)] = [pull.head_commit, pull.state.value]
        done: dict[str, str] = cursor.get("runs", {})
        told = {id: f"{run.attempt}:{run.conclusion or 'under way'}" for id, run in runs.items()}
        for id, run in runs.items():
            if done.get(id) != told[id]:
                news.append(self._news(f"run:{id}:{told[id]}", run.updated_at, Ran(run=run)))
        pulls = {number: stand for number, stand in stands.items() if stand[1] != PullState.MERGED}
        after: dict[str, Any] = {"branches": tips, "pulls": pulls, "runs": told}
        if looks + bool(news):
            after["looks"] = looks + bool(news)
        return Polled(news=tuple(news), cursor=after)

    def _pushes(
        self, known: dict[str, str], tips: dict[str, str], default: str, at: datetime, look: int
    ) -> list[News]:
        """The branches whose tips are not the `known` ones any more."""
        found: list[News] = []
        for branch in sorted({*tips, *known}):
            before, after = known.get(branch, NO_COMMIT), tips.get(branch, NO_COMMIT)
            if before != after:
                pushed = Pushed(branch=branch, before=before, after=after, default=branch == default)
                name = hashlib.sha256(branch.encode()).hexdigest()[
                    :16
                ]  # it may be longer than a delivery's id
                found.append(self._news(f"push:{look}:{name}:{before}:{after}", at, pushed))
        return found

    def _changed(self, action: PullAction, pull: PullRequest, at: datetime, look: int) -> News:
        changed = PullChanged(
            action=action,
            number=pull.number,
            title=pull.title,
            head_commit=pull.head_commit,
            branch=pull.branch,
            base_branch=pull.base_branch,
            author=pull.author,
            draft=pull.draft,
            updated_at=max(pull.updated_at, at) if action is PullAction.UPDATED else pull.updated_at,
        )
        delivery = f"pull:{look}:{pull.number}:{action}:{pull.head_commit[:12]}:{pull.updated_at.isoformat()}"
        return self._news(delivery, at, changed)

    def _news(self, delivery: str, at: datetime, what: Pushed | PullChanged | Ran) -> News:
        return News(delivery=delivery[:190], repository=self.repository_name, at=at, what=what)


def _pull_of(comment: str) -> int:
    number = comment.partition(".")[0]
    return int(number) if number.isdigit() else 0


def _is_held(comment: InlineComment, diff: Diff) -> bool:
    """Whether the diff shows both ends of its lines."""
    ends = (comment.start_line or comment.line, comment.line)
    hunks = [hunk for file in diff.files if file.path == comment.path for hunk in file.hunks]
    return all(any(line in hunk.extent(comment.side) for hunk in hunks) for line in ends)


def _has_moved(pull: PullBrief | PullRequest, tips: dict[str, str]) -> bool:
    """Whether somebody pushed to the branch of an open pull request; one that is gone has not moved."""
    return pull.state is PullState.OPEN and tips.get(pull.branch, pull.head_commit) != pull.head_commit


def _action(seen: list[str] | None, head: str, state: PullState) -> PullAction | None:
    """What happened since a pull request was `seen` with a head and a state."""
    if seen is None:
        return PullAction.OPENED if state is PullState.OPEN else None
    if state.value != seen[1]:
        return PullAction.MERGED if state is PullState.MERGED else PullAction.CLOSED
    return PullAction.UPDATED if head != seen[0] else None
