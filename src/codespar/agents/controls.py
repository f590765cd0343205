"""What steers the agents themselves: `autonomy`, `policy`, `kill` and `resume`."""

from __future__ import annotations

from codespar.agents import board, cards
from codespar.agents.announcer import announce
from codespar.agents.reviews import stop_all
from codespar.agents.tasking import stop
from codespar.agents.turn import Turn
from codespar.domain.autonomy import LEVELS
from codespar.domain.messages import FieldLine, NormalizedResponse, Tone
from codespar.domain.notifications import AlertKind
from codespar.domain.rulebook import describe
from codespar.store.base import Project


def autonomy(turn: Turn) -> None:
    project = turn.unit.project(turn.project)
    wanted = turn.command.args.level
    assert project is not None, "a command that needs a project is not carried out without one"
    if wanted is None or wanted == project.autonomy:
        level = LEVELS[project.autonomy]
        turn.say(NormalizedResponse(title=f"🛡️ Autonomy L{level.level}: {level.name}", text=level.means))
        return
    turn.unit.save_project(project.evolve(autonomy=wanted))
    turn.record("autonomy.set", turn.project, {"before": project.autonomy, "after": wanted})
    level = LEVELS[wanted]
    turn.say(
        NormalizedResponse(
            title=f"✅ Autonomy L{level.level}: {level.name}",
            tone=Tone.SUCCESS,
            text=level.means,
            fields=(
                FieldLine(name="Before", value=f"L{project.autonomy}: {LEVELS[project.autonomy].name}"),
                FieldLine(name="By", value=turn.person.name),
            ),
        )
    )


def show_policy(turn: Turn) -> None:
    rules = describe(turn.bench.policy())
    turn.say(NormalizedResponse(title="🛡️ The rules in force", fields=rules))


def kill(turn: Turn) -> None:
    """Stop containers, empty the queue, pause: in this very transaction. What runs is stopped as soon as it is committed."""
    projects = _meant(turn)
    stopped = ended = reviewing = 0
    for project in projects:
        turn.unit.save_project(project.evolve(paused=True))
        for task in turn.unit.open_tasks(project.name):
            if task.cancel_requested_by is not None and task.killed:
                continue
            if stop(turn, task, killed=True):
                stopped += 1
            else:
                ended += 1
        reviewing += stop_all(turn.unit, project.name, f"{turn.person.name} stopped the project", turn.now)
        turn.unit.record(
            at=turn.now,
            actor=turn.person.name,
            action="project.killed",
            project=project.name,
            subject=project.name,
            detail={"stopped": stopped, "ended": ended, "reviews": reviewing},
        )
        _announce(turn, project.name, f"🛑 {project.name} was stopped by {turn.person.name}")
    named = ", ".join(project.name for project in projects) or "nothing"
    turn.say(
        NormalizedResponse(
            title=f"🛑 Stopped: {named}",
            tone=Tone.WARNING,
            fields=(
                FieldLine(name="Running tasks stopped", value=str(stopped)),
                FieldLine(name="Queued tasks cancelled", value=str(ended)),
                FieldLine(name="Reviews ended", value=str(reviewing)),
                FieldLine(name="Next", value="`resume` brings it back; work so far is kept as patches"),
            ),
        )
    )


def resume(turn: Turn) -> None:
    paused = [project for project in _meant(turn) if project.paused]
    if not paused:
        turn.say(cards.refused("Nothing to resume", "nothing is stopped"))
        return
    for project in paused:
        turn.unit.save_project(project.evolve(paused=False))
        turn.unit.record(
            at=turn.now,
            actor=turn.person.name,
            action="project.resumed",
            project=project.name,
            subject=project.name,
            detail={},
        )
        board.promote(turn.unit, project.name, turn.bench.workshop(project.name).max_tasks, turn.now)
        _announce(turn, project.name, f"✅ {project.name} works again, said {turn.person.name}")
    named = ", ".join(project.name for project in paused)
    turn.say(NormalizedResponse(title=f"✅ Working again: {named}", tone=Tone.SUCCESS))


def _meant(turn: Turn) -> list[Project]:
    if turn.command.args.scope == "all":
        return turn.unit.projects()
    project = turn.unit.project(turn.project)
    return [project] if project else []


def _announce(turn: Turn, project: str, title: str) -> None:
    """Tell the project's other places: nobody should wonder why nothing moves."""
    here = (turn.thread.channel, turn.thread.conversation)
    card = NormalizedResponse(title=title, tone=Tone.WARNING, agent=f"agent-{project}")
    key = f"{turn.origin}:{turn.command.name}:{project}"
    announce(turn.unit, project, AlertKind.INCIDENTS, card, key, turn.now, critical=True, but=here)
