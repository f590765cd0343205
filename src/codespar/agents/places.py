"""Which conversation serves which project: `link`, `unlink`, `alias`, `list projects`."""

from __future__ import annotations

from codespar.agents import cards
from codespar.agents.turn import Turn
from codespar.domain.commands import taken
from codespar.domain.messages import FieldLine, NormalizedResponse, Tone
from codespar.store.base import PULLED, Route


def link(turn: Turn) -> None:
    """Have this conversation serve a project. A repository that is not linked yet was made a project before this turn began."""
    facts = turn.facts
    if facts is None or facts.problem:
        turn.say(cards.refused("Nothing was linked", facts.problem if facts else "nothing was read"))
        return
    project = facts.text
    if turn.channel in PULLED:
        turn.say(NormalizedResponse(title=f"✅ {project} is linked", tone=Tone.SUCCESS, text=facts.title))
        return
    if turn.direct:
        told = f"{project} is a project here, and a direct message serves all of them."
        turn.say(cards.refused("Nothing to link", told, f"send `link {project}` in the team's channel"))
        return
    known = turn.unit.route(turn.thread.channel, turn.thread.conversation)
    if known is not None and known.project != project:
        told = f"this conversation serves {known.project}"
        turn.say(cards.refused("Nothing was linked", told, "`unlink` it first"))
        return
    turn.project = project
    if known is None:
        route = Route(channel=turn.thread.channel, conversation=turn.thread.conversation, project=project)
        turn.unit.save_route(route)
        turn.record("conversation.linked", project, {"conversation": turn.thread.key})
    turn.say(
        NormalizedResponse(
            title=f"✅ This conversation serves {project}",
            tone=Tone.SUCCESS,
            text=facts.title,
            fields=(FieldLine(name="Next", value="`help` shows the commands; mention me in front of them"),),
        )
    )


def unlink(turn: Turn) -> None:
    route = turn.unit.route(turn.thread.channel, turn.thread.conversation)
    if route is None:
        turn.say(cards.refused("Nothing to unlink", "this conversation serves no project"))
        return
    if route.source == "file":
        told = f"codespar.yaml says that it serves {route.project}"
        turn.say(cards.refused("Nothing was unlinked", told, "take it out of the project's `channels` there"))
        return
    turn.unit.remove_route(route.channel, route.conversation)
    turn.record("conversation.unlinked", route.project, {"conversation": turn.thread.key})
    told = f"The project goes on; `link {route.project}` brings it back."
    turn.say(
        NormalizedResponse(title=f"✅ This conversation does not serve {route.project} any more", text=told)
    )


def alias(turn: Turn) -> None:
    name, project = (turn.command.args.name or "").lower(), turn.command.args.target or ""
    aliases = turn.bench.aliases()
    found = aliases.get(project.lower())
    if found is None:
        known = ", ".join(sorted(one.name for one in turn.unit.projects()))
        turn.say(cards.refused("No such project", f"{project} is not linked here.", f"linked are: {known}"))
        return
    if taken(name) or len(name) > 60:
        turn.say(cards.refused("Not a name for a project", f"`{name}` means something in commands already"))
        return
    if aliases.get(name, found) != found:
        turn.say(cards.refused("That name is taken", f"`{name}` leads to {aliases[name]} already"))
        return
    turn.unit.save_alias(name, found)
    turn.record("alias.set", found, {"alias": name})
    turn.say(
        NormalizedResponse(
            title=f"✅ `{name}` is {found}", tone=Tone.SUCCESS, text=f"`{name} status` works now."
        )
    )


def list_projects(turn: Turn) -> None:
    lines: list[FieldLine] = []
    names = turn.bench.aliases()
    for project in turn.unit.projects():
        short = [name for name, meant in names.items() if meant == project.name and name != project.name]
        places = [f"{route.channel} {route.conversation}" for route in turn.unit.routes(project.name)]
        parts = [project.repository, *([f"also called {', '.join(short)}"] if short else []), *places]
        lines.append(FieldLine(name=project.name, value=" · ".join(parts)))
    turn.say(
        NormalizedResponse(
            title="📋 Projects", text="" if lines else "None is linked yet.", fields=tuple(lines)
        )
    )
