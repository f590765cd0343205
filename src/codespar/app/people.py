"""Who codespar.yaml says is who: the people of the file, this machine's own owner, and the conversations of the projects."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import datetime

from codespar.config import Settings
from codespar.domain.people import Person, Role
from codespar.store.base import Route, Unit


def people_of(settings: Settings) -> list[Person]:
    return [
        Person(id=entry.id or entry.name.lower().replace(" ", "-"), name=entry.name, role=entry.role)
        for entry in settings.people
    ]


def host_owner(settings: Settings) -> Person:
    """Who sits at this machine: the file's first owner, else the user the server runs as."""
    owner = next((person for person in people_of(settings) if person.role is Role.OWNER), None)
    if owner is not None:
        return owner
    name = os.environ.get("USER") or "owner"
    return Person(id=name.lower().replace(" ", "-"), name=name, role=Role.OWNER)


def token_holders(settings: Settings, environment: Mapping[str, str], own_token: str) -> dict[str, Person]:
    """Hashed bearer tokens and whose they are: the file's people, and the owner at this machine's command line."""
    known: dict[str, Person] = {}
    for entry, person in zip(settings.people, people_of(settings), strict=True):
        if entry.token_env and (token := environment.get(entry.token_env)):
            known[hash_of(token)] = person
    return known | {hash_of(own_token): host_owner(settings)}


def hash_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def write_down(unit: Unit, settings: Settings, at: datetime) -> None:
    """Bring the store's people and places to what the file says. What was linked or invited by command stays."""
    told = {person.id: person for person in people_of(settings)}
    owner = host_owner(settings)
    for member in unit.members():
        if member.source in ("file", "host") and member.person.id not in {*told, owner.id}:
            unit.remove_member(member.person.id)
    unit.remove_identities("file")
    for person in told.values():
        unit.save_member(person, "file")
    if owner.id not in told:
        unit.save_member(owner, "host")
    for entry, person in zip(settings.people, told.values(), strict=True):
        for channel, external in entry.identities.items():
            unit.save_identity(channel, external, person.id, "file", at)
    _write_routes(unit, settings)


def _write_routes(unit: Unit, settings: Settings) -> None:
    told = {
        (route.channel, route.conversation): Route(
            channel=route.channel,
            conversation=route.conversation,
            project=project.name,
            alerts=route.alerts,
            source="file",
        )
        for project in settings.projects
        for route in project.channels
    }
    for known in unit.routes():
        if known.source == "file" and (known.channel, known.conversation) not in told:
            unit.remove_route(known.channel, known.conversation)
    for route in told.values():
        unit.save_route(route)


def owner_is_known_on_chat(unit: Unit) -> bool:
    """Whether any owner can be recognized on a chat platform."""
    return any(member.identities for member in unit.members() if member.person.role is Role.OWNER)
