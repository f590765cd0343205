"""The Project Agent: receives every message of its project, decides, and owns the task slots.

`gather` reads what a command needs from outside the store; `decide` runs inside the turn's unit of work and never waits. Every command
passes `authorize` once, in `carry_out`, whether it was written, pressed, understood from plain language or approved. A command that later
work brings is answered with what is missing and how to see what is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from codespar.agents import (
    cards,
    consent,
    controls,
    issues,
    memory,
    people,
    places,
    pullwork,
    reviews,
    tasking,
    watcher,
)
from codespar.agents.alone import may_tell
from codespar.agents.answers import ANSWERS, not_configured, not_understood
from codespar.agents.frontdesk import MAX_CONTENT
from codespar.agents.turn import TELLING, Bench, Facts, Turn, acts_alone, who_asks
from codespar.agents.turns import Understood
from codespar.agents.understanding import LASTS, Understanding, as_command
from codespar.channels.base import Offered
from codespar.codeindex.base import CodeIndex
from codespar.domain.approvals import Approval
from codespar.domain.autonomy import (
    Action,
    Ask,
    AuthorizationVerdict,
    Context,
    Decision,
    Resource,
    Risk,
    authorize,
)
from codespar.domain.base import CodesparError
from codespar.domain.commands import Command, NotUnderstood, parse
from codespar.domain.messages import Attachment, FieldLine, NormalizedResponse
from codespar.domain.people import Person, may
from codespar.forges.base import AccessLost, Forge, ForgeUnavailable, PullState
from codespar.screening.base import Screening
from codespar.store.base import PULLED, Happened, Incoming, Project, Store, Unit

ANYWHERE = frozenset(
    {"help", "whoami", "register", "invite", "list projects", "alias", "approve", "reject", "policy", "audit"}
)
"""The commands that need no project."""
FOR_STRANGERS = frozenset({"help", "whoami", "register"})  # in a direct message of somebody we do not know
STALE = timedelta(days=7)  # a pull request that nobody touched for as long
Keep = Callable[[str, tuple[Offered, ...]], Awaitable[tuple[Attachment, ...]]]  # of a channel
LinkRepository = Callable[
    [str, Person], Awaitable[tuple[str, str]]
]  # what was named to (project, repository)


class ProjectAgent:
    """One object serves every project. `keep` fetches what came with a message, `link` makes a repository a project."""

    def __init__(
        self,
        store: Store,
        bench: Bench,
        forge: Callable[[str], Forge],
        index: Callable[[str], CodeIndex],
        clock: Callable[[], datetime],
        *,
        keep: Keep,
        link: LinkRepository,
        screening: Screening,
        understanding: Understanding | None = None,
    ) -> None:
        self._store = store
        self._bench = bench
        self._forge = forge
        self._index = index
        self._clock = clock
        self._keep = keep
        self._link = link
        self._screening = screening
        self._understanding = understanding
        self._gatherers: dict[str, Callable[[str, Command], Awaitable[Facts]]] = {
            "diff": self._gather_diff,
            "prs": self._gather_pulls,
            "search": self._gather_search,
            "merge": self._gather_merge,
            "review": self._gather_head,
            "approve": self._gather_head,
            "memory": self._gather_memory,
            "fix": self._gather_issue,
        }
        self._handlers: dict[str, Callable[[Turn], None]] = ANSWERS | {
            "instruct": tasking.instruct,
            "fix": tasking.instruct,
            "cancel": tasking.cancel,
            "retry": tasking.retry,
            "merge": pullwork.merge,
            "approve": self._approve,
            "reject": self._vote,
            "review": reviews.review,
            "memory": memory.memory,
            "remember": memory.remember,
            "forget": memory.forget,
            "register": people.register,
            "invite": people.invite,
            "whoami": people.whoami,
            "link": places.link,
            "unlink": places.unlink,
            "alias": places.alias,
            "list projects": places.list_projects,
            "autonomy": controls.autonomy,
            "policy": controls.show_policy,
            "kill": controls.kill,
            "resume": controls.resume,
        }

    # reading what lies outside the store

    async def gather(self, incoming: Incoming) -> Understood:
        aliases = self._bench.aliases()
        command = parse(incoming.message.content, aliases=aliases)
        interpretation = None
        known = incoming.person is not None  # a model is paid for: it is not asked about what strangers write
        lost = isinstance(command, NotUnderstood) and command.command is None
        if self._understanding is not None and known and lost:
            person = await self._store.read(lambda unit: who_asks(unit, incoming))
            interpretation = await self._understanding.read(incoming, person, aliases)
            if (meant := as_command(interpretation, aliases)) is not None:
                command = meant
        if not isinstance(command, Command):
            return Understood(command=command, interpretation=interpretation)
        return Understood(
            command=command, facts=await self._facts(incoming, command), interpretation=interpretation
        )

    async def _facts(self, incoming: Incoming, command: Command) -> Facts | None:
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
                return await self._facts_of_approval(project, command.args.token, person)
            if command.name == "link":
                name, repository = await self._link(command.args.target or "", person)
                return Facts(text=name, title=repository)
            known = command.name in self._gatherers and project
            facts = await self._gathered(project, command) if known else None
            if isinstance(offered, list) and not (facts and facts.problem):
                files = tuple(Offered.model_validate(one) for one in offered)
                kept = await self._keep(incoming.message.channel, files)
                return (facts or Facts()).evolve(attachments=kept)
            return facts
        except CodesparError as error:
            return Facts(problem=str(error))

    async def _gathered(self, project: str, command: Command) -> Facts:
        try:
            return await self._gatherers[command.name](project, command)
        except (ForgeUnavailable, AccessLost) as error:
            if command.name != "fix" or (number := issues.meant(command.args.text or "")) is None:
                raise
            return issues.unread(number, str(error))  # nobody waits for a host to have something mended

    async def _facts_of_approval(self, project: str, token: str | None, person: Person) -> Facts | None:
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

    async def _gather_issue(self, project: str, command: Command) -> Facts:
        number = issues.meant(command.args.text or "")
        return await issues.read(self._forge(project), self._screening, number) if number else Facts()

    async def _gather_diff(self, project: str, command: Command) -> Facts:
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

    async def _gather_pulls(self, project: str, command: Command) -> Facts:
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
        return Facts(title=f"{len(pulls)} pull requests ({state})", text="\n".join(lines))

    async def _gather_search(self, project: str, command: Command) -> Facts:
        forge, index = self._forge(project), self._index(project)
        _, commit = await forge.sync()
        await index.update(forge.base_repository, commit)
        hits = await index.search(command.args.text or "", 12)
        lines = [f"{hit.path}:{hit.line} {hit.symbol or ''} {hit.snippet.strip()[:120]}" for hit in hits]
        return Facts(
            title=f"{len(hits)} places at {commit[:12]}",
            text="\n".join(lines) or "nothing matches these words",
        )

    async def _gather_head(self, project: str, command: Command) -> Facts:
        pull = await self._forge(project).fetch_pull(command.args.number or 0)
        if pull.state is not PullState.OPEN:
            return Facts(problem=f"PR #{pull.number} is {pull.state}")
        facts = pullwork.approval_facts(pull.number, pull.title, pull.head_commit)
        return facts.evolve(judged=tuple(change.path for change in pull.files))

    async def _gather_memory(self, project: str, command: Command) -> Facts:
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
            plural = "commit" if behind == 1 else "commits"
            far = f"{behind} {plural} behind" if behind else "up to date with"
        told = f"{state.files} files and {state.symbols} symbols of {state.commit[:12]}, {far} {branch}"
        return Facts(text=told)

    async def _gather_merge(self, project: str, command: Command) -> Facts:
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

    # deciding

    def decide(self, unit: Unit, incoming: Incoming, understood: Understood, now: datetime) -> None:
        """One turn. Everything it writes is in `unit`."""
        command = understood.command
        length = incoming.message.metadata.get("length")
        if isinstance(length, int) and length > MAX_CONTENT:
            told = f"It has {length} characters, and {MAX_CONTENT} are read at most; nothing was done."
            card = cards.refused("That message is too long", told, "attach it as a file")
            unit.say(incoming.project, incoming.thread, f"in{incoming.id}:1", card, now, incoming.id)
            return
        if isinstance(command, NotUnderstood):
            card = not_understood(command, understood.interpretation)
            unit.say(incoming.project, incoming.thread, f"in{incoming.id}:1", card, now, incoming.id)
            return
        turn = Turn.of(unit, self._bench, now, incoming, command, understood.facts)
        if understood.interpretation is not None and command.spec.risk is not Risk.LOW:
            self._propose(turn)
            return
        if understood.interpretation is not None:
            turn.say(NormalizedResponse(title=f"🔍 Understood as `{command.written}`"))
        self.carry_out(turn)

    def carry_out(self, turn: Turn) -> bool:
        """Do what the command says, if it may be done. False: it was not, and the turn has said why."""
        name = turn.command.name
        if self._is_stranger(turn) and name not in FOR_STRANGERS:
            told = "I do not know you yet, and answer in direct messages only to people I know."
            able = "send `register <code>` with a code from an owner (`invite <your name> <role>` makes one)"
            turn.say(cards.refused("You are not known here", told, able))
            return False
        if turn.public and (turn.command.project is not None or turn.command.args.scope == "all"):
            told = "What is said here can be read by anybody, so it is about this repository alone."
            turn.say(cards.refused("Not here", told, "ask in the other project's own channel"))
            return False
        project = turn.unit.project(turn.project) if turn.project else None
        of_a_pull = name == "approve" and turn.command.args.number is not None
        everywhere = (
            (name in ANYWHERE and not of_a_pull) or turn.command.args.scope == "all" or name == "link"
        )
        if project is None and not everywhere:
            self._which_project(turn)
            return False
        decision = self._authorize(turn, project)
        if decision.verdict is AuthorizationVerdict.DENY:
            turn.record("denied", name, {"rule": decision.rule, "reason": decision.reason})
            if turn.alone and project is not None and not may_tell(project, self._bench.policy()):
                return False  # nobody asked, and there the agent says nothing unasked
            able = ", ".join(role.value for role in decision.who_could)
            told = f"{decision.reason} Rule: {decision.rule}."
            title = f"`{name}` is not yours to give"
            if turn.alone:
                title = f"{turn.person.name} did not do `{turn.command.written}`, which its schedule asks for"
            turn.say(cards.refused(title, told, f"ask one of: {able}" if able else ""))
            return False
        handler = self._handlers.get(name)
        if handler is None:
            turn.say(not_configured(turn.command.spec))
            return False
        if decision.verdict is AuthorizationVerdict.NEEDS_APPROVAL:
            return self._ask(turn, decision)
        handler(turn)
        return True

    def _authorize(self, turn: Turn, project: Project | None) -> Decision:
        command = turn.command
        risk = Risk.LOW if command.permission is None else command.spec.risk
        if (
            turn.alone
            and project is not None
            and command.name in TELLING
            and may_tell(project, self._bench.policy())
        ):
            return Decision(verdict=AuthorizationVerdict.ALLOW, rule="tells", reason="it only tells")
        return authorize(
            None if turn.alone else turn.person,
            Action(name=command.name, permission=command.permission, risk=risk, level=command.args.level),
            _resource(turn, turn.project, project, command),
            Context(
                at=turn.now,
                policy=self._bench.policy(),
                by_agent=turn.alone,
                approval=turn.approval,
                channel=turn.channel,
            ),
        )

    def _is_stranger(self, turn: Turn) -> bool:
        """Anybody on the platform can write to the bot directly; what a team's own channel may see, they may not."""
        alone = turn.direct and turn.channel not in PULLED and turn.approval is None
        return alone and turn.unit.person(turn.person.id) is None

    def _which_project(self, turn: Turn) -> None:
        linked = ", ".join(found.name for found in turn.unit.projects())
        if turn.project:
            turn.say(
                cards.refused(
                    "No such project", f"{turn.project} is not linked here.", f"linked are: {linked}"
                )
            )
            return
        told = f"Put its name in front: `<project> {turn.command.written}`."
        turn.say(
            cards.refused("Which project?", told, f"linked are: {linked}" if linked else "none is linked yet")
        )

    def _ask(self, turn: Turn, decision: Decision) -> bool:
        assert decision.ask is not None, "a decision that needs an approval says which"
        if turn.facts is not None and turn.facts.problem:
            turn.say(cards.refused(f"Cannot {turn.command.name}", turn.facts.problem))
            return False
        consent.ask(turn, decision.ask, decision.reason)
        return True

    def _propose(self, turn: Turn) -> None:
        """Show what was understood before it changes anything. Whoever could not give the command is told so at once."""
        project = turn.unit.project(turn.project) if turn.project else None
        decision = self._authorize(turn, project)
        if decision.verdict is AuthorizationVerdict.DENY or turn.command.permission is None:
            self.carry_out(turn)
            return
        wanted = Ask(
            kind="sg",
            quorum=1,
            expires_in=LASTS,
            self_approval_allowed=True,
            permission=turn.command.permission,
        )
        consent.ask(turn, wanted, "understood from your words")

    def notice(self, unit: Unit, happened: Happened, now: datetime) -> None:
        """News of a project's code host: a turn that nobody waits for."""
        watcher.notice(unit, happened, self._bench.policy, now)

    def _approve(self, turn: Turn) -> None:
        """`approve` means a vote, or with a number a pull request."""
        if turn.command.args.number is not None:
            pullwork.approve(turn)
        else:
            self._vote(turn)

    def _vote(self, turn: Turn) -> None:
        consent.cast_vote(turn, self._may_vote, self.carry_out)

    def _may_vote(self, turn: Turn, person: Person, approval: Approval) -> Decision:
        """The same question as for the action itself, asked of who votes."""
        command = approval.command
        project = turn.unit.project(approval.project) if approval.project else None
        name, risk = (command.name, command.spec.risk) if command else ("approve", Risk.LOW)
        return authorize(
            person,
            Action(
                name=name,
                permission=approval.permission,
                risk=risk,
                level=command.args.level if command else None,
            ),
            _resource(turn, approval.project, project, command),
            Context(at=turn.now, policy=self._bench.policy(), channel=turn.channel),
        )


def _resource(turn: Turn, name: str, project: Project | None, command: Command | None) -> Resource:
    """What the command is done to. A question of a task (no command) is answered while its project is paused, too."""
    return Resource(
        project=name,
        autonomy=project.autonomy if project else 0,
        paused=bool(project and project.paused) and command is not None,
        environment=command.args.environment if command else None,
        paths=(*turn.facts.paths, *turn.facts.judged) if turn.facts else (),
    )
