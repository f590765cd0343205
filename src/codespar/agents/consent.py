"""Approvals: ask for one, count the votes, carry out what was approved, once.

A request is a row, its cards in every place where it was asked, and nothing that waits: a restart or an upgrade finds it as it was. What
is carried out is the command that was shown, with its requester's rights as they are then. The request is void when what it showed has
changed: the facts are read again for the vote that decides, and compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from functools import partial

from codespar.agents import cards
from codespar.agents.announcer import places_of
from codespar.agents.pullwork import approval_facts
from codespar.agents.requests import card_key, suggestions, tell, withdraw
from codespar.agents.tasking import answer
from codespar.agents.turn import Facts, Turn
from codespar.domain.approvals import (
    Approval,
    ApprovalKind,
    ApprovalState,
    Verdict,
    expire,
    new_approval,
    vote,
)
from codespar.domain.autonomy import Ask, AuthorizationVerdict, Decision
from codespar.domain.base import CodesparError
from codespar.domain.commands import Command
from codespar.domain.happenings import PullAction, PullChanged
from codespar.domain.messages import FieldLine, NormalizedResponse, Tone
from codespar.domain.notifications import AlertKind
from codespar.domain.people import Person, may
from codespar.domain.tasks import Thread
from codespar.store.base import PULLED, Unit

Authorize = Callable[
    [Turn, Person, Approval], Decision
]  # whether somebody may vote, on what the turn has read
CarryOut = Callable[[Turn], bool]  # whether it was carried out; else the turn said why not


def digest(command: Command, project: str, facts: Facts | None) -> str:
    """Of exactly what a request shows: the command, and what was read for it."""
    known = facts or Facts()
    document = [command.wire(), project, known.title, known.text, known.problem, *known.paths]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def with_token(
    unit: Unit,
    make: Callable[..., Approval],
    same: Callable[[Approval], bool] = lambda held: False,
) -> tuple[Approval, bool]:
    """The approval that `make` (`new_approval`, but for its `attempt`) makes under the first token that is free, and False; or under the
    first whose holder is the `same` one, and True: it was asked for before. Raises `CodesparError` when a hundred tokens are taken.
    """
    for attempt in range(100):
        approval = make(attempt=attempt)
        held = unit.approval(approval.token)
        if held is None or same(held):
            return approval, held is not None
    raise CodesparError("no free token was found: the store holds an unbelievable number of approvals")


def ask(turn: Turn, wanted: Ask, why: str) -> Approval:
    """Ask for an approval of the turn's command, in its thread and in the project's other places."""
    found = ApprovalKind(wanted.kind)
    shown = digest(turn.command, turn.project, turn.facts)
    summary = f"`{turn.command.written}`" + (f" in {turn.project}" if turn.project else "")
    approval, _ = with_token(
        turn.unit,
        partial(
            new_approval,
            kind=found,
            seed=turn.seed,
            project=turn.project,
            subject=turn.command.name,
            action_summary=summary,
            shown_digest=shown,
            requester=turn.person.id,
            permission=wanted.permission,
            thread=turn.thread,
            now=turn.now,
            expires_in=wanted.expires_in,
            quorum=wanted.quorum,
            self_approval_allowed=wanted.self_approval_allowed,
            command=turn.command,
            shown=turn.facts.shown if turn.facts else (),
            places=_places(turn, everywhere=found is not ApprovalKind.SUGGESTION),
        ),
    )
    turn.unit.save_approval(approval)
    turn.record("approval.asked", approval.token, {"command": turn.command.written, "why": why})
    for place, thread in enumerate(approval.places):
        card = cards.approval_request(approval, turn.person.name, {}, why)
        key = card_key(approval, place)
        cause = turn.cause if thread == turn.thread else None
        turn.unit.say(turn.project, thread, key, card, turn.now, cause)
    return approval


def suggest(
    unit: Unit,
    project: str,
    command: Command,
    decision: Decision,
    why: str,
    now: datetime,
    *,
    seed: str,
    kind: AlertKind,
    shown: tuple[FieldLine, ...] = (),
    facts: Facts | None = None,
    bound: bool = True,
) -> Approval | None:
    """What the agent proposes by itself, with one tap: whoever says yes gives the command, with their own rights.

    It is asked in every place of the project that takes `kind`, as soon as the rules for what is told unasked let it; what no place was told
    of yet makes room for the next suggestion of the same command. None where the decision is another than to propose it, and where the same was
    suggested before and not withdrawn since.
    `facts` are what was read for it, and it is void when they have changed since; not `bound`, it is not, and is done on what is there then.
    """
    wanted = decision.ask
    if wanted is None:
        return None
    places = tuple(place.thread for place in places_of(unit, project, kind))
    agent = f"agent-{project}"
    shown_digest = digest(command, project, facts if bound else None)
    approval, known = with_token(
        unit,
        partial(
            new_approval,
            kind=ApprovalKind.SUGGESTION,
            seed=f"{agent}:{seed}",
            project=project,
            subject=command.name,
            action_summary=f"`{command.written}` in {project}",
            shown_digest=shown_digest,
            requester=agent,
            permission=wanted.permission,
            thread=places[0],
            now=now,
            expires_in=wanted.expires_in,
            quorum=wanted.quorum,
            command=command,
            shown=shown,
            places=places,
            bound=bound,
            untold=any(place.channel not in PULLED for place in places),
        ),
        same=lambda one: (
            one.requester == agent
            and one.shown_digest == shown_digest
            and one.state is not ApprovalState.VOID
        ),
    )
    if known:
        return None
    for older in suggestions(unit, project):
        if older.untold and older.command == command and not older.votes:
            withdraw(unit, older, f"{approval.token} asks for it anew", now)
    unit.save_approval(approval)
    unit.record(
        at=now,
        actor=agent,
        action="approval.asked",
        project=project,
        subject=approval.token,
        detail={"command": command.written, "why": why},
    )
    for place, thread in enumerate(approval.places):
        card = cards.approval_request(approval, agent, {}, why)
        key = card_key(approval, place)
        if thread.channel in PULLED:  # no rule applies there
            unit.say(project, thread, key, card, now)
        else:
            unit.announce(project, thread.key, key, kind, False, card.evolve(replaces=key), now)
    return approval


def pull_changed(unit: Unit, project: str, pull: PullChanged, now: datetime) -> None:
    """What was suggested for a pull request means nothing once that is closed, and what showed its head no more once that moved on."""
    for one in suggestions(unit, project):
        if one.command is None or one.command.args.number != pull.number:
            continue
        if pull.action in (PullAction.CLOSED, PullAction.MERGED):
            withdraw(unit, one, f"PR #{pull.number} was {pull.action}", now)
        elif (
            one.bound and pull.updated_at > one.created_at
        ):  # else it is old news: the suggestion knew better
            facts = approval_facts(pull.number, pull.title, pull.head_commit)
            if digest(one.command, project, facts) != one.shown_digest:
                withdraw(unit, one, f"PR #{pull.number} has changed since", now)


def _places(turn: Turn, *, everywhere: bool) -> tuple[Thread, ...]:
    """The thread that asked, and the other conversations that serve the project."""
    places = [turn.thread]
    here = (turn.thread.channel, turn.thread.conversation)
    if everywhere and turn.project:
        for route in turn.unit.routes(turn.project):
            if route.source != "host" and (route.channel, route.conversation) != here:
                places.append(Thread(channel=route.channel, conversation=route.conversation))
    return tuple(places)


def pending(unit: Unit, project: str, now: datetime, person: Person) -> list[Approval]:
    """The approvals that wait for the person's yes: of the project, or of all where none is meant. Where none does, those that wait for
    others, so that they are told why theirs does not count."""
    waiting = unit.approvals(project or None, ApprovalState.PENDING.value)
    found = [one for one in waiting if not one.over(now) and may(person.role, one.permission)]
    return [one for one in found if _yes_counts(one, person)] or found


def _yes_counts(approval: Approval, person: Person) -> bool:
    asked = approval.requester == person.id and not approval.self_approval_allowed
    return not asked and all(vote.person != person.id for vote in approval.votes)


def cast_vote(turn: Turn, may_vote: Authorize, carry_out: CarryOut) -> None:
    """`approve` and `reject`: count the vote, tell every place, and when it decides carry out what was asked."""
    approval = _chosen(turn)
    if approval is None:
        return
    turn.project = approval.project
    turn.unit.lock_project(approval.project)
    current = approval.shown_digest
    verdict = Verdict.APPROVE if turn.command.name == "approve" else Verdict.REJECT
    read = turn.facts is not None and turn.facts.about == approval.token
    if approval.command is not None and (read or verdict is Verdict.APPROVE):  # a no needs nothing read
        if turn.facts is None or not read:
            why = turn.facts.problem if turn.facts is not None else ""
            why = why or f"{approval.token} came while your message was being read"
            turn.say(cards.refused("The vote does not count", why, f"send `approve {approval.token}`"))
            return
        current = digest(approval.command, approval.project, turn.facts if approval.bound else None)
    decision = may_vote(turn, turn.person, approval)
    if decision.verdict is AuthorizationVerdict.DENY and verdict is Verdict.APPROVE:
        turn.record("denied", approval.token, {"rule": decision.rule, "reason": decision.reason})
        told = f"{decision.reason} Rule: {decision.rule}."
        turn.say(cards.refused("The vote does not count", told))
        return
    reason = turn.command.args.reason or ""
    outcome = vote(approval, turn.person, verdict, turn.channel, turn.now, current, reason=reason)
    detail = {"accepted": outcome.accepted, "why": outcome.why, "channel": turn.channel}
    turn.record(f"approval.{verdict.value}", approval.token, detail)
    if outcome.approval != approval:
        turn.unit.save_approval(outcome.approval)
        tell(turn.unit, outcome.approval, turn.now)
    if not outcome.accepted:
        turn.say(cards.refused("The vote does not count", outcome.why))
        return
    turn.say(NormalizedResponse(title=f"✅ {approval.token}: {outcome.why}", tone=Tone.SUCCESS))
    if outcome.decided:
        _act(turn, outcome.approval, verdict, carry_out)


def _chosen(turn: Turn) -> Approval | None:
    token = turn.command.args.token
    if token is None:
        waiting = pending(turn.unit, turn.project, turn.now, turn.person)
        if len(waiting) != 1:
            told = ", ".join(f"`{one.token}` ({one.action_summary})" for one in waiting)
            title = "Which one?" if waiting else "Nothing to approve"
            turn.say(cards.refused(title, told or "nothing waits for your answer"))
            return None
        token = waiting[0].token
    approval = turn.unit.approval(token)
    if approval is None or (turn.project and approval.project != turn.project and not turn.direct):
        told = f"{token} is not known in {turn.project}." if turn.project else f"{token} is not known."
        turn.say(cards.refused("No such approval", told, "`approve` alone lists what waits"))
        return None
    return approval


def _act(turn: Turn, approval: Approval, verdict: Verdict, carry_out: CarryOut) -> None:
    """The waiting is over. What was approved is carried out in this very transaction, so that it happens with the vote or not at all."""
    if approval.command is None:
        task = turn.unit.task(approval.subject)
        if task is not None:
            answer(turn.unit, task, {"verdict": verdict.value, "by": turn.person.name}, turn, approval.token)
        return
    if verdict is Verdict.REJECT:
        return
    requester = turn.unit.person(approval.requester)
    suggested = requester is None and approval.requester == f"agent-{approval.project}"
    if suggested:  # an agent has no rights: what it suggests is done with those of who says yes
        requester = turn.person
    if requester is None:
        _end(turn, approval, ApprovalState.VOID)
        turn.say(cards.refused("Not carried out", "who asked for it is not known any more; ask for it again"))
        return
    approved = Turn.approved(
        turn.unit, turn.bench, turn.now, approval, approval.command, requester, turn.facts
    )
    if suggested:
        approved.thread, approved.channel = turn.thread, turn.channel
    if approval.kind is ApprovalKind.SUGGESTION:
        approved.approval = None  # it says what was meant; what that needs, it still needs
    done = carry_out(approved)
    _end(turn, approval, ApprovalState.EXECUTED if done else ApprovalState.VOID)


def _end(turn: Turn, approval: Approval, state: ApprovalState) -> None:
    ended = approval.evolve(state=state)
    turn.unit.save_approval(ended)
    turn.record(f"approval.{state.value}", approval.token, {})
    tell(turn.unit, ended, turn.now)


def overdue(unit: Unit, now: datetime) -> list[Approval]:
    """The approvals nobody decided in time. Questions of tasks end with their task's own wait."""
    waiting = unit.approvals(None, ApprovalState.PENDING.value, limit=1000)
    return [one for one in waiting if one.command is not None and one.over(now)]


def expire_due(unit: Unit, now: datetime) -> list[str]:
    """End what nobody decided in time, and say so where it was asked."""
    ended: list[str] = []
    for approval in overdue(unit, now):
        over = expire(approval, now)
        unit.save_approval(over)
        unit.record(
            at=now,
            actor=f"agent-{approval.project}",
            action="approval.expired",
            project=approval.project,
            subject=approval.token,
            detail={},
        )
        tell(unit, over, now)
        ended.append(approval.token)
    return ended
