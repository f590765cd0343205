"""What a Project Agent answers from what is known: status, help, activity, and what was read for the message.

Each answer is a function of a `Turn`. None of them changes anything.
"""

from __future__ import annotations

from collections.abc import Callable

from codespar.agents import board, cards
from codespar.agents.turn import Turn
from codespar.domain.commands import COMMANDS, CommandSpec, NotUnderstood
from codespar.domain.messages import Block, FieldLine, NormalizedResponse, Tone
from codespar.domain.slots import position, queue, running
from codespar.domain.tasks import money
from codespar.models.base import Interpretation

_SHOWN_DIFF = 6000  # characters of a diff in a message


def status(turn: Turn) -> None:
    args = turn.command.args
    if args.id:
        turn.say(status_of(turn, args.id))
        return
    if args.scope == "all":
        lines = []
        for project in turn.unit.projects():
            held = turn.unit.open_tasks(project.name)
            told = f"{len(running(held))} running, {len(queue(held))} queued, autonomy L{project.autonomy}"
            lines.append(FieldLine(name=project.name, value=told + (", paused" if project.paused else "")))
        turn.say(NormalizedResponse(title="📊 All projects", fields=tuple(lines)))
        return
    if args.scope == "build":
        turn.say(later("Build status", "watching builds comes with the GitHub adapter"))
        return
    tasks = turn.unit.open_tasks(turn.project)
    agent = turn.unit.agent(board.project_agent(turn.project))
    overview = cards.queue_overview(tasks, turn.max_tasks)
    state = FieldLine(name="Agent", value=f"{agent.id} {agent.state}" if agent else "unknown")
    turn.say(
        overview.evolve(
            title=f"📊 {turn.project}: {len(running(tasks))}/{turn.max_tasks} tasks",
            fields=(state, *overview.fields),
        )
    )


def status_of(turn: Turn, id: str) -> NormalizedResponse:
    agent, task = turn.unit.agent(id), turn.unit.task(id)
    if agent is None or agent.project != turn.project:
        return cards.refused(
            "No such agent", f"{id} is not an agent of {turn.project}.", "`status` lists those that live"
        )
    lines = [FieldLine(name="State", value=f"{agent.state} since {agent.since:%H:%M:%S} UTC")]
    if agent.outcome:
        lines.append(FieldLine(name="Outcome", value=agent.outcome.value))
    if task is not None:
        place = position(turn.unit.open_tasks(task.project), task.id)
        lines.append(FieldLine(name="Task", value=f'"{task.instruction}"'))
        lines.append(FieldLine(name="Now", value=task.phase + (f" (position {place})" if place else "")))
        lines.append(
            FieldLine(
                name="Used",
                value=f"{task.turns} turns, {task.tokens} tokens, {money(task.cost_micros)}",
            )
        )
        if task.result and task.result.pr_number:
            lines.append(FieldLine(name="PR", value=f"#{task.result.pr_number} {task.result.pr_title}"))
    return NormalizedResponse(title=f"📊 {id}", fields=tuple(lines), agent=id)


def show_queue(turn: Turn) -> None:
    turn.say(cards.queue_overview(turn.unit.open_tasks(turn.project), turn.max_tasks))


def help_(turn: Turn) -> None:
    wanted = turn.command.args.text
    specs = [spec for spec in COMMANDS if not wanted or spec.name == wanted]
    lines = [
        FieldLine(
            name=spec.usage,
            value=spec.summary + ("" if spec.available else " (not configured yet)"),
        )
        for spec in specs
    ]
    turn.say(NormalizedResponse(title="📋 Commands" if not wanted else f"📋 {wanted}", fields=tuple(lines)))


def logs(turn: Turn) -> None:
    entries = turn.unit.audit_entries(turn.command.args.count or 20, turn.project or None)
    lines = "\n".join(f"{e['at'][:19]} {e['actor']} {e['action']} {e['subject']}" for e in entries)
    turn.say(
        NormalizedResponse(
            title=f"📋 Activity of {turn.project or 'all projects'}",
            blocks=(Block(text=lines or "nothing yet"),),
        )
    )


def show_facts(turn: Turn) -> None:
    facts = turn.facts
    if facts is None or facts.problem:
        turn.say(cards.refused("Nothing to show", facts.problem if facts else "nothing was found"))
        return
    cut = facts.text[:_SHOWN_DIFF]
    more = (
        f"{len(facts.text) - len(cut)} more characters: GET /api/v1/prs shows the whole"
        if len(cut) < len(facts.text)
        else ""
    )
    language = "diff" if turn.command.name == "diff" else ""
    turn.say(
        NormalizedResponse(title=f"📋 {facts.title}", text=more, blocks=(Block(language=language, text=cut),))
    )


def audit(turn: Turn) -> None:
    if turn.command.args.scope == "verify":
        report = turn.unit.verify_audit()
        if report.ok:
            turn.say(
                NormalizedResponse(
                    title=f"🛡️ The audit chain is whole: {report.entries} entries", tone=Tone.SUCCESS
                )
            )
        else:
            turn.say(
                cards.refused(
                    "The audit chain is broken",
                    str(report.problem),
                    "restore from a backup and find who had access",
                )
            )
        return
    logs(turn)


def memory(turn: Turn) -> None:
    done = turn.unit.tasks(turn.project, limit=10)
    lines = tuple(
        FieldLine(name=task.id, value=f'{task.status.value}: "{task.instruction}"') for task in done
    )
    turn.say(
        NormalizedResponse(title=f"📋 What {board.project_agent(turn.project)} remembers last", fields=lines)
    )


def not_understood(
    problem: NotUnderstood, interpretation: Interpretation | None = None
) -> NormalizedResponse:
    near = ", ".join(f"`{name}`" for name in problem.suggestions)
    return NormalizedResponse(
        title="❌ I did not understand that",
        tone=Tone.FAILURE,
        text=problem.why + (f" {interpretation.why}" if interpretation and interpretation.why else ""),
        fields=(
            FieldLine(
                name="Next",
                value=f"did you mean {near}? `help` lists every command"
                if near
                else "`help` lists every command",
            ),
        ),
    )


def not_configured(spec: CommandSpec) -> NormalizedResponse:
    return later(f"`{spec.name}`", spec.brought_by or "a later release brings it")


def later(what: str, why: str) -> NormalizedResponse:
    return NormalizedResponse(
        title=f"⏳ {what} is not configured yet",
        tone=Tone.WARNING,
        text=why,
        fields=(FieldLine(name="Next", value="`help` shows what works now, `status` what is there"),),
    )


ANSWERS: dict[str, Callable[[Turn], None]] = {
    "status": status,
    "queue": show_queue,
    "help": help_,
    "logs": logs,
    "diff": show_facts,
    "prs": show_facts,
    "search": show_facts,
    "audit": audit,
    "memory": memory,
}
"""By command."""
