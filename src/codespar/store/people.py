"""The unit's part for people and places: who is who on which platform, one-time codes, and which conversation serves which project."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from codespar.domain.messages import UtcDatetime
from codespar.domain.notifications import AlertKind
from codespar.domain.people import Person, Role
from codespar.store import tables as t
from codespar.store.base import Member, Notice, Route
from codespar.store.prepared import Prepared
from codespar.store.rows import Rows, stamp

MEMBER = Prepared(select(t.people).where(t.people.c.id == bindparam("id")))


class People(Rows):
    """People, their identities and codes, routes and aliases."""

    # places

    def route(self, channel: str, conversation: str) -> Route | None:
        row = self._db.execute(
            select(t.routes).where(t.routes.c.channel == channel, t.routes.c.conversation == conversation)
        ).first()
        return _route(row) if row else None

    def routes(self, project: str | None = None) -> list[Route]:
        query = select(t.routes).order_by(t.routes.c.channel, t.routes.c.conversation)
        if project is not None:
            query = query.where(t.routes.c.project == project)
        return [_route(row) for row in self._db.execute(query)]

    def save_route(self, route: Route) -> None:
        values = {
            "channel": route.channel,
            "conversation": route.conversation,
            "project": route.project,
            "alerts": json.dumps([kind.value for kind in route.alerts]),
            "source": route.source,
        }
        self._upsert(t.routes, ("channel", "conversation"), values)

    def remove_route(self, channel: str, conversation: str) -> None:
        self._db.execute(
            delete(t.routes).where(t.routes.c.channel == channel, t.routes.c.conversation == conversation)
        )

    def aliases(self) -> dict[str, str]:
        return {row.alias: row.project for row in self._db.execute(select(t.aliases))}

    def save_alias(self, alias: str, project: str) -> None:
        self._upsert(t.aliases, "alias", {"alias": alias.lower(), "project": project})
        self.notices.append(Notice(kind="names", key=alias, project=project))

    # people

    def member(self, id: str) -> Member | None:
        row = MEMBER.first(self._db, id=id)
        if row is None:
            return None
        rows = self._db.execute(
            select(t.identities.c.channel, t.identities.c.external).where(t.identities.c.person == id)
        )
        known = tuple(sorted((found[0], found[1]) for found in rows))
        return Member(person=_person(row), source=row[3], identities=known)

    def person(self, id: str) -> Person | None:
        """The person, as we know them now."""
        row = MEMBER.first(self._db, id=id)
        return _person(row) if row else None

    def members(self) -> list[Member]:
        known: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for row in self._db.execute(select(t.identities)):
            known[row.person].append((row.channel, row.external))
        return [
            Member(person=_person(row), source=row[3], identities=tuple(sorted(known[row[0]])))
            for row in self._db.execute(select(t.people).order_by(t.people.c.id))
        ]

    def save_member(self, person: Person, source: str) -> None:
        values = {"id": person.id, "name": person.name, "role": person.role.value, "source": source}
        self._upsert(t.people, "id", values)

    def remove_member(self, id: str) -> None:
        """Forget a person, their identities and their codes."""
        for table in (t.identities, t.codes):
            self._db.execute(delete(table).where(table.c.person == id))
        self._db.execute(delete(t.people).where(t.people.c.id == id))

    def person_of(self, channel: str, externals: Sequence[str]) -> Person | None:
        """Whose identity this is: the platform may know a person by several ids."""
        row = self._db.execute(
            select(t.people)
            .join(t.identities, t.identities.c.person == t.people.c.id)
            .where(t.identities.c.channel == channel, t.identities.c.external.in_(externals))
            .order_by(t.people.c.id)
        ).first()
        return _person(row) if row else None

    def save_identity(self, channel: str, external: str, person: str, source: str, at: UtcDatetime) -> None:
        values = {
            "channel": channel,
            "external": external,
            "person": person,
            "source": source,
            "linked_at": stamp(at),
        }
        self._upsert(t.identities, ("channel", "external"), values)

    def remove_identities(self, source: str) -> None:
        """Forget every identity that came from there."""
        self._db.execute(delete(t.identities).where(t.identities.c.source == source))

    # one-time codes

    def save_code(
        self, hash: str, person: str, made_by: str, at: UtcDatetime, expires_at: UtcDatetime
    ) -> None:
        """Keep a code's hash. A person has one code at a time: the one before does not count any more."""
        self._db.execute(delete(t.codes).where(t.codes.c.person == person, t.codes.c.used_at.is_(None)))
        values = {
            "hash": hash,
            "person": person,
            "made_by": made_by,
            "made_at": stamp(at),
            "expires_at": stamp(expires_at),
        }
        self._db.execute(insert(t.codes), values)

    def redeem(self, hash: str, at: UtcDatetime) -> str | None:
        """Use a code up. The id of the person it was made for, or None when there is no such code that still counts."""
        return self._db.execute(
            update(t.codes)
            .where(t.codes.c.hash == hash, t.codes.c.used_at.is_(None), t.codes.c.expires_at > stamp(at))
            .values(used_at=stamp(at))
            .returning(t.codes.c.person)
        ).scalar()

    def count_try(self, channel: str, external: str, at: UtcDatetime, since: UtcDatetime) -> int:
        """Note that somebody tried a code, and return how often they did from `since` on."""
        self._db.execute(insert(t.tries), {"channel": channel, "external": external, "at": stamp(at)})
        self._db.execute(delete(t.tries).where(t.tries.c.at < stamp(since)))
        return int(
            self._db.execute(
                select(func.count()).where(t.tries.c.channel == channel, t.tries.c.external == external)
            ).scalar_one()
        )


def _route(row: Any) -> Route:
    return Route(
        channel=row.channel,
        conversation=row.conversation,
        project=row.project,
        alerts=tuple(AlertKind(kind) for kind in json.loads(row.alerts)),
        source=row.source,
    )


def _person(row: Any) -> Person:
    return Person(id=row[0], name=row[1], role=Role(row[2]))
