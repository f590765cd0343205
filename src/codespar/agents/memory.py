"""What a project's agent knows, and what it is told to keep in mind: `memory`, `remember`, `forget`."""

from __future__ import annotations

import hashlib

from codespar.agents import board, cards
from codespar.agents.turn import Turn
from codespar.domain.approvals import ApprovalState
from codespar.domain.base import CodesparError, short_id
from codespar.domain.memory import MOST_CHARACTERS, MOST_MEMORIES, Memory
from codespar.domain.messages import Action, Block, FieldLine, NormalizedResponse, Tone
from codespar.domain.reviews import ReviewState

_DECISIONS = 10
_LOOKED_AT = 1000  # approvals of each state
_DECIDED = (ApprovalState.APPROVED, ApprovalState.EXECUTED, ApprovalState.REJECTED)


def memory(turn: Turn) -> None:
    """The index and how far it is behind, the team's conventions, what was decided and done last."""
    facts = turn.facts
    index = (
        facts.text if facts and not facts.problem else f"not known: {facts.problem if facts else 'not read'}"
    )
    kept = turn.unit.memories(turn.project)
    lines = [FieldLine(name="Index", value=index)]
    lines += [FieldLine(name=one.id, value=f"{one.text} ({one.author}, {one.at:%Y-%m-%d})") for one in kept]
    if not kept:
        lines.append(FieldLine(name="Conventions", value="none yet; `remember <text>` keeps one"))
    recent = _recent(turn)
    blocks = (Block(title="Recent decisions", text="\n".join(recent)),) if recent else ()
    agent = board.project_agent(turn.project)
    turn.say(
        NormalizedResponse(title=f"📋 What {agent} knows", fields=tuple(lines), blocks=blocks, agent=agent)
    )


def _recent(turn: Turn) -> list[str]:
    unit, project = turn.unit, turn.project
    told = [
        (
            task.ended_at or task.created_at,
            f'{task.id} {task.status.value}: "{" ".join(task.title.split())[:120]}"',
        )
        for task in unit.tasks(project, limit=_DECISIONS)
    ]
    told += [
        (record.started_at, f"{record.id} PR #{record.number}: {record.verdict or record.state.value}")
        for record in unit.reviews(project, limit=_DECISIONS)
        if record.state is not ReviewState.RUNNING
    ]
    decided = [one for state in _DECIDED for one in unit.approvals(project, state.value, limit=_LOOKED_AT)]
    for approval in decided:  # in no order, so that all are looked at for the newest
        if approval.votes:
            vote = approval.votes[-1]
            person = unit.person(vote.person)
            who = person.name if person else vote.person
            told.append(
                (vote.at, f"{approval.token} {approval.state.value} by {who}: {approval.action_summary}")
            )
    newest = sorted(told, key=lambda one: one[0], reverse=True)[:_DECISIONS]
    return [f"{at:%Y-%m-%d %H:%M} {text}" for at, text in newest]


def remember(turn: Turn) -> None:
    text = " ".join((turn.command.args.text or "").split())
    kept = turn.unit.memories(turn.project)
    same = next((one for one in kept if one.text == text), None)
    if same is not None:
        turn.say(cards.refused("Remembered already", f"{same.id}: {same.text}"))
        return
    if len(text) > MOST_CHARACTERS:
        told = f"It has {len(text)} characters, and {MOST_CHARACTERS} are kept at most."
        turn.say(
            cards.refused("That is too long to remember", told, "put it into the repository's documents")
        )
        return
    if len(kept) >= MOST_MEMORIES:
        told = f"{MOST_MEMORIES} conventions are kept already."
        turn.say(
            cards.refused(
                "Nothing more can be remembered", told, "`forget <id>` lets one go; `memory` lists them"
            )
        )
        return
    taken = {one.id for one in kept}
    id = next(
        (made for attempt in range(100) if (made := short_id("m", turn.seed, attempt)) not in taken), None
    )
    if id is None:
        raise CodesparError("no free id was found for what is to be remembered")
    turn.unit.remember(Memory(id=id, project=turn.project, text=text, author=turn.person.name, at=turn.now))
    written = hashlib.sha256(text.encode()).hexdigest()  # the trail is for ever, and what is forgotten is not
    turn.record("memory.kept", id, {"text": written})
    turn.say(
        NormalizedResponse(
            title=f"✅ Remembered ({id})",
            tone=Tone.SUCCESS,
            text=text,
            fields=(
                FieldLine(name="Next", value="tasks and reviews are told of it, as something the team said"),
            ),
            actions=(Action(label="Forget", command=f"forget {id}"),),
        )
    )


def forget(turn: Turn) -> None:
    id = turn.command.args.id or ""
    if not turn.unit.forget(turn.project, id):
        turn.say(
            cards.refused(
                "Nothing of that id is remembered",
                f"{id} is not known in {turn.project}.",
                "`memory` lists them",
            )
        )
        return
    turn.record("memory.let-go", id, {})
    turn.say(NormalizedResponse(title=f"✅ Forgotten ({id})", tone=Tone.SUCCESS))
