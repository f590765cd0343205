"""What a Project Agent answers from what is known: status, help, activity, and what was read for the message.

Each answer is a function of a `Turn`. None of them changes anything.
"""

from __future__ import annotations

from collections.abc import Callable

from codespar.agents import board, buildcards, cards
from codespar.agents.reviews import agent_of
from codespar.agents.turn import Turn
from codespar.domain.builds import under_way
from codespar.domain.commands import COMMANDS, CommandSpec, NotUnderstood
from codespar.domain.messages import Block, FieldLine, NormalizedResponse, Tone
from codespar.domain.slots import position, queue, running
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
        problem = turn.unit.problem(turn.project)
        runs = under_way(turn.unit.runs(turn.project, limit=30))
        standings = turn.unit.standings(turn.project)
        turn.say(buildcards.overview(turn.project, standings, runs, problem, turn.now))
        return
    tasks = turn.unit.open_tasks(turn.project)
    agent = turn.unit.agent(board.project_agent(turn.project))
    overview = cards.queue_overview(tasks, turn.max_tasks)
    running_reviews = [
        FieldLine(name=one.id, value=f"reviews PR #{one.number} {one.title}".rstrip())
        for one in turn.unit.running_reviews(turn.project)
    ]
    state = [FieldLine(name="Agent", value=f"{agent.id} {agent.state}" if agent else "unknown")]
    if problem := turn.unit.problem(turn.project):
        state.append(FieldLine(name="Repository", value=f"cannot be read: {problem}"))
    project = turn.unit.project(turn.project)
    paused = project is not None and project.paused
    if paused:
        state.insert(0, FieldLine(name="Stopped", value="nothing new begins; `resume` ends that"))
    turn.say(
        overview.evolve(
            title=f"📊 {turn.project}: {len(running(tasks))}/{turn.max_tasks} tasks"
            + (", stopped" if paused else ""),
            text="" if paused else overview.text,
            fields=(*state, *overview.fields, *running_reviews),
        )
    )


def status_of(turn: Turn, id: str) -> NormalizedResponse:
    review, task = turn.unit.review(id), turn.unit.task(id)
    agent = turn.unit.agent(agent_of(review) if review else id)
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
        lines.append(FieldLine(name="Used", value=cards.used(task)))
        if task.result and task.result.pr_number:
            lines.append(FieldLine(name="PR", value=f"#{task.result.pr_number} {task.result.pr_title}"))
    if review is not None:
        lines.append(FieldLine(name="PR", value=f"#{review.number} {review.title}"))
        lines.append(FieldLine(name="Commit", value=review.head_commit[:12]))
        said = review.verdict.value if review.verdict else "; ".join(review.problems)
        lines.append(FieldLine(name="Review", value=f"{review.state}{f': {said}' if said else ''}"))
    return NormalizedResponse(title=f"📊 {id}", fields=tuple(lines), agent=id)


def show_queue(turn: Turn) -> None:
    turn.say(cards.queue_overview(turn.unit.open_tasks(turn.project), turn.max_tasks))


def help_(turn: Turn) -> None:
    wanted = turn.command.args.text
    specs = [spec for spec in COMMANDS if not wanted or spec.name == wanted]
    lines = [
        FieldLine(
            name=spec.usage,
            value=spec.summary + ("" if spec.available else " (not in this release)"),
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


def not_here(spec: CommandSpec) -> NormalizedResponse:
    """Of a command that this release only recognizes."""
    return NormalizedResponse(
        title=f"⏳ `{spec.name}` is not in this release",
        tone=Tone.WARNING,
        text=f"Nothing was done: {spec.brought_by}.",
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
}
"""By command."""
