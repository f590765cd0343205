"""Where adapters bring what they heard: who is it, which project is meant, and is it for us at all.

What is for us is committed to the inbox before `hear` returns; the platform's delivery id makes a repeat recognizable. Nothing is decided
here but whether somebody is listened to: a conversation that serves no project is not, except to be linked by somebody who may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from codespar.channels.base import Heard
from codespar.domain.commands import Command, parse
from codespar.domain.messages import Author, NormalizedMessage
from codespar.domain.people import Permission, Person, Role, may
from codespar.domain.tasks import Thread
from codespar.store.base import Route, Store, Unit

NO_PROJECT = ""  # the lane of what is not said to any one project
MAX_CONTENT = 32_000  # characters


class FrontDesk:
    """The `Reception` of every channel. `on_ignored` hears of what nobody listens to, by channel and reason."""

    def __init__(self, store: Store, aliases: Callable[[], Mapping[str, str]]) -> None:
        self._store = store
        self._aliases = aliases
        self.on_ignored: Callable[[str, str], None] = lambda channel, why: None

    async def hear(self, heard: Heard) -> bool:
        """Commit what was heard. False when it was there already, or is not for us."""
        if not heard.addressed:
            self.on_ignored(heard.channel, "not addressed")
            return False
        why, new = await self._store.write(lambda unit: self._take(unit, heard))
        if why:
            self.on_ignored(heard.channel, why)
        return new

    def _take(self, unit: Unit, heard: Heard) -> tuple[str, bool]:
        person = unit.person_of(heard.channel, (heard.sender, *heard.also))
        if heard.public and person is None and not self._would_register(heard):
            return "a stranger in a public place", False
        route = _route(unit, heard)
        if route is None and not heard.direct and not self._would_link(heard, person):
            return "a conversation that serves no project", False
        if route is not None:
            project = route.project
        else:
            projects = unit.projects() if person is not None else []
            project = projects[0].name if len(projects) == 1 else NO_PROJECT
        thread = Thread(
            channel=heard.channel,
            conversation=heard.conversation,
            thread_id=heard.thread_id,
            person=person.id if person else None,
        )
        message = NormalizedMessage(
            id=heard.delivery,
            channel=heard.channel,
            author=Author(
                id=heard.sender,
                name=person.name if person else heard.sender_name,
                role=person.role if person else Role.READ_ONLY,
            ),
            content=heard.content[:MAX_CONTENT],
            thread_id=heard.thread_id,
            reply_to=heard.reply_to,
            timestamp=heard.at,
            metadata={
                "direct": heard.direct,
                "public": heard.public,
                "via": heard.via,
                "also": list(heard.also),
                "offered": [offered.wire() for offered in heard.offered],
                "length": len(heard.content),
            },
        )
        body = {
            "message": message.wire(),
            "person": person.id if person else None,
            "thread": thread.wire(),
        }
        return "", unit.accept(heard.channel, heard.delivery, project, body, heard.at)[1]

    def _would_register(self, heard: Heard) -> bool:
        """A one-time code may be used in public: with its first use it is used up."""
        command = parse(heard.content, aliases=self._aliases())
        return isinstance(command, Command) and command.name == "register" and command.args.code is not None

    def _would_link(self, heard: Heard, person: Person | None) -> bool:
        """In a conversation that serves no project yet, `link` is listened to, from somebody who may link."""
        if person is None or not may(person.role, Permission.LINK_CHANNEL):
            return False
        command = parse(heard.content, aliases=self._aliases())
        return isinstance(command, Command) and command.name in ("link", "whoami", "help")


def _route(unit: Unit, heard: Heard) -> Route | None:
    """What the conversation serves; a part of one (`<chat>/<topic>`) serves what the whole does, unless it has a route of its own."""
    whole = heard.conversation.rpartition("/")[0]
    found = unit.route(heard.channel, heard.conversation)
    return found or (unit.route(heard.channel, whole) if whole else None)
