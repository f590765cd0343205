"""What a command works on, read from outside the store before its turn: the code host, the code index, files that came with a message.

Nothing is read for who may not see it. What a pending approval is about is read again with each vote, so that the turn can compare it
with what its request showed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from codespar.agents import consent, issues, pullwork
from codespar.agents.turn import Facts, acts_alone, who_asks
from codespar.channels.base import Offered
from codespar.codeindex.base import CodeIndex
from codespar.domain.approvals import Approval
from codespar.domain.base import CodesparError
from codespar.domain.commands import Command
from codespar.domain.messages import Attachment, FieldLine
from codespar.domain.people import Person, may
from codespar.domain.tasks import counted
from codespar.forges.base import AccessLost, Forge, ForgeUnavailable, PullState
from codespar.screening.base import Screening
from codespar.store.base import Incoming, Store, Unit

STALE = timedelta(days=7)  # a pull request that nobody touched for as long
Keep = Callable[[str, tuple[Offered, ...]], Awaitable[tuple[Attachment, ...]]]  # of a channel
LinkRepository = Callable[
    [str, Person], Awaitable[tuple[str, str]]
]  # what was named to (project, repository)


class Gathering:
    """One object serves every project. `keep` fetches what came with a message, `link` makes a repository a project."""

    def __init__(
        self,
        store: Store,
        forge: Callable[[str], Forge],
        index: Callable[[str], CodeIndex],
        clock: Callable[[], datetime],
        *,
        keep: Keep,
        link: LinkRepository,
        screening: Screening,
    ) -> None:
        self._store = store
        self._forge = forge
        self._index = index
        self._clock = clock
        self._keep = keep
        self._link = link
        self._screening = screening
        self._gatherers: dict[str, Callable[[str, Command], Awaitable[Facts]]] = {
            "diff": self._diff,
            "prs": self._pulls,
            "search": self._search,
            "merge": self._merge,
            "review": self._head,
            "approve": self._head,
            "memory": self._memory,
            "fix": self._issue,
        }

    async def facts(self, incoming: Incoming, command: Command) -> Facts | None:
        """What the command needs from outside the store. Nothing is read for who may not see it: the turn says so."""
        offered = incoming.message.metadata.get("offered") if command.name in ("instruct", "fix") else None
        vote = command.name in ("approve", "reject") and command.args.number is None
        if not (vote or offered or command.name == "link" or command.name in self._gatherers):
            return None
        person = await self._store.read(lambda unit: who_asks(unit, incoming))
        if (
            command.permission is not None
            and not may(person.role, command.permission)
            and not acts_alone(incoming)
        ):
            return None
        project = command.project or incoming.project
        try:
            if vote:
                return await self._of_approval(project, command.args.token, person)
            if command.name == "link":
                name, repository = await self._link(command.args.target or "", person)
                return Facts(text=name, title=repository)
            known = command.name in self._gatherers and project
            facts = await self._of(project, command) if known else None
            if isinstance(offered, list) and not (facts and facts.problem):
                files = tuple(Offered.model_validate(one) for one in offered)
                kept = await self._keep(incoming.message.channel, files)
                return (facts or Facts()).evolve(attachments=kept)
            return facts
        except CodesparError as error:
            return Facts(problem=str(error))

    async def _of(self, project: str, command: Command) -> Facts:
        try:
            return await self._gatherers[command.name](project, command)
        except (ForgeUnavailable, AccessLost) as error:
            if command.name != "fix" or (number := issues.meant(command.args.text or "")) is None:
                raise
            return issues.unread(number, str(error))  # nobody waits for a host to have something mended

    async def _of_approval(self, project: str, token: str | None, person: Person) -> Facts | None:
        """What the approved command would work on now, to be compared with what its request showed."""

        def find(unit: Unit) -> Approval | None:
            if token is not None:
                return unit.approval(token)
            waiting = consent.pending(unit, project, self._clock(), person)
            return waiting[0] if len(waiting) == 1 else None

        approval = await self._store.read(find)
        if approval is None or approval.command is None:
            return None
        gatherer = self._gatherers.get(approval.command.name)
        try:
            facts = await gatherer(approval.project, approval.command) if gatherer else Facts()
        except (ForgeUnavailable, AccessLost) as error:  # nothing is known to have changed
            return Facts(problem=f"what {approval.token} is about cannot be read now: {error}")
        except CodesparError as error:
            facts = Facts(problem=str(error))
        return facts.evolve(about=approval.token)

    async def _issue(self, project: str, command: Command) -> Facts:
        number = issues.meant(command.args.text or "")
        return await issues.read(self._forge(project), self._screening, number) if number else Facts()

    async def _diff(self, project: str, command: Command) -> Facts:
        forge = self._forge(project)
        target = (command.args.target or "").strip()
        number = command.args.number
        if number is None:
            for pull in await forge.list_pulls():
                if pull.branch == target or (target and f"/{target}-" in pull.branch) or not target:
                    number = pull.number
                    break
        if number is None:
            told = f"no pull request belongs to {target or 'this project'}; `prs all` lists them"
            return Facts(problem=told)
        pull = await forge.fetch_pull(number)
        diff = await forge.diff(pull.base_commit, pull.head_commit)
        return Facts(title=f"PR #{pull.number}: {pull.title}", text=diff)

    async def _pulls(self, project: str, command: Command) -> Facts:
        state = command.args.state or "open"
        wanted = None if state == "all" else PullState.OPEN if state == "stale" else PullState(state)
        pulls = await self._forge(project).list_pulls(wanted)
        if state == "stale":
            pulls = [pull for pull in pulls if self._clock() - pull.updated_at >= STALE]
        lines = []
        for pull in pulls[:30]:
            checks = " ".join("✅" if check.passed else "❌" for check in pull.checks)
            size = f", +{pull.additions}/-{pull.deletions}" if pull.files else ""
            since = f", untouched since {pull.updated_at:%Y-%m-%d}" if state == "stale" else ""
            draft = ", draft" if pull.draft else ""
            told = (
                f"#{pull.number} {pull.title} ({pull.state}{draft}, by {pull.author}{size}{since}) {checks}"
            )
            lines.append(told.rstrip())
        return Facts(title=f"{counted(len(pulls), 'pull request')} ({state})", text="\n".join(lines))

    async def _search(self, project: str, command: Command) -> Facts:
        forge, index = self._forge(project), self._index(project)
        _, commit = await forge.sync()
        await index.update(forge.base_repository, commit)
        hits = await index.search(command.args.text or "", 12)
        lines = [f"{hit.path}:{hit.line} {hit.symbol or ''} {hit.snippet.strip()[:120]}" for hit in hits]
        return Facts(
            title=f"{len(hits)} places at {commit[:12]}",
            text="\n".join(lines) or "nothing matches these words",
        )

    async def _head(self, project: str, command: Command) -> Facts:
        pull = await self._forge(project).fetch_pull(command.args.number or 0)
        if pull.state is not PullState.OPEN:
            return Facts(problem=f"PR #{pull.number} is {pull.state}")
        facts = pullwork.approval_facts(pull.number, pull.title, pull.head_commit)
        return facts.evolve(judged=tuple(change.path for change in pull.files))

    async def _memory(self, project: str, command: Command) -> Facts:
        forge, index = self._forge(project), self._index(project)
        state = await index.state()
        branch, tip = await forge.sync()
        if state.commit is None:
            return Facts(text=f"nothing yet; {branch} is at {tip[:12]}")
        behind = await forge.behind(state.commit, tip) if state.commit != tip else 0
        ahead = await forge.behind(tip, state.commit) if behind is not None else None
        if behind is None or ahead:  # somebody pushed with force: what it shows is not in the branch any more
            far = "on another history than"
        else:
            far = f"{counted(behind, 'commit')} behind" if behind else "up to date with"
        told = f"{state.files} files and {state.symbols} symbols of {state.commit[:12]}, {far} {branch}"
        return Facts(text=told)

    async def _merge(self, project: str, command: Command) -> Facts:
        pull = await self._forge(project).fetch_pull(command.args.number or 0)
        if pull.state is not PullState.OPEN:
            return Facts(problem=f"PR #{pull.number} is {pull.state}")
        size = f"{len(pull.files)} files, +{pull.additions} / -{pull.deletions}"
        return Facts(
            title=pull.title,
            text=pull.head_commit,
            paths=tuple(change.path for change in pull.files),
            shown=(
                FieldLine(name="PR", value=f"#{pull.number} {pull.title}"),
                FieldLine(name="Commit", value=pull.head_commit[:12]),
                FieldLine(name="Changes", value=size),
            ),
        )
