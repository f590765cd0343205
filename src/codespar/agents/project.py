"""The Project Agent: receives every message of its project, decides, and owns the task slots.

`gather` understands a message and has read what its command works on; `decide` runs inside the turn's unit of work and never waits. Every command
passes `authorize` once, in `carry_out`, whether it was written, pressed, understood from plain language or approved. A command that later
work brings is answered with what is missing and how to see what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from codespar.agents import (
    cards,
    consent,
    controls,
    memory,
    people,
    places,
    pullwork,
    reviews,
    tasking,
    watcher,
)
from codespar.agents.alone import may_tell
from codespar.agents.answers import ANSWERS, not_here, not_understood
from codespar.agents.frontdesk import MAX_CONTENT
from codespar.agents.gathering import Gathering
from codespar.agents.turn import TELLING, Bench, Turn, who_asks
from codespar.agents.turns import Understood
from codespar.agents.understanding import LASTS, Understanding, as_command
from codespar.domain.approvals import Approval
from codespar.domain.autonomy import (
    PAUSED,
    Action,
    Ask,
    AuthorizationVerdict,
    Context,
    Decision,
    Resource,
    Risk,
    authorize,
)
from codespar.domain.commands import Command, NotUnderstood, parse
from codespar.domain.messages import NormalizedResponse
from codespar.domain.people import Person
from codespar.store.base import PULLED, Happened, Incoming, Project, Store, Unit

ANYWHERE = frozenset(
    {"help", "whoami", "register", "invite", "list projects", "alias", "approve", "reject", "policy", "audit"}
)
"""The commands that need no project."""
FOR_STRANGERS = frozenset({"help", "whoami", "register"})  # in a direct message of somebody we do not know


class ProjectAgent:
    """One object serves every project."""

    def __init__(
        self, store: Store, bench: Bench, gathering: Gathering, understanding: Understanding | None = None
    ) -> None:
        self._store = store
        self._bench = bench
        self._gathering = gathering
        self._understanding = understanding
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

    # before the turn

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
            command=command,
            facts=await self._gathering.facts(incoming, command),
            interpretation=interpretation,
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
            next_step = f"ask one of: {able}" if able else ""
            if decision.rule == PAUSED:
                title = title if turn.alone else f"Not done: {turn.project} is stopped"
                next_step = (
                    "`resume` ends that"
                    if turn.person.role in decision.who_could
                    else f"`resume` ends that; {next_step}"
                )
            turn.say(cards.refused(title, told, next_step))
            return False
        handler = self._handlers.get(name)
        if handler is None:
            turn.say(not_here(turn.command.spec))
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
