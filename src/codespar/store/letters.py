"""The unit's part for what goes out to chat platforms: letters on their way, and what is told unasked."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import case, delete, select, update

from codespar.domain.messages import NormalizedResponse, UtcDatetime
from codespar.domain.notifications import AlertKind, Announcement
from codespar.store import tables as t
from codespar.store.base import Letter, Notice, Posted, Sending
from codespar.store.rows import Rows, stamp, time_of


class Letters(Rows):
    """Letters and announcements."""

    def letters(self, thread: str, limit: int) -> list[Letter]:
        """What waits for a thread, in the order in which it was said or changed."""
        rows = self._db.execute(
            select(t.outbox)
            .where(t.outbox.c.thread == thread, t.outbox.c.delivered_at.is_(None))
            .order_by(t.outbox.c.seq)
            .limit(limit)
        )
        return [_letter(row) for row in rows]

    def waiting_threads(self, channels: Collection[str]) -> list[str]:
        """The threads for which something waits, of these channels."""
        waiting = select(t.outbox.c.thread).where(
            t.outbox.c.delivered_at.is_(None), t.outbox.c.channel.in_(channels)
        )
        return [row[0] for row in self._db.execute(waiting.distinct())]

    def sending(self, key: str, sending: Sending | None) -> None:
        """Note that a part is about to be sent, or that its answer is known."""
        kept = sending.model_dump_json(by_alias=True) if sending else None
        self._db.execute(update(t.outbox).where(t.outbox.c.key == key).values(sending=kept))

    def posted(self, key: str, parts: Sequence[Posted]) -> None:
        """Note what stands at the platform now."""
        kept = json.dumps([part.wire() for part in parts])
        self._db.execute(update(t.outbox).where(t.outbox.c.key == key).values(parts=kept, sending=None))

    def delivered(self, letter: Letter, at: UtcDatetime, refused: str | None = None) -> bool:
        """Note that people see it, or never will (`refused`). False when it was changed meanwhile: it waits again."""
        unchanged = t.outbox.c.seq == letter.seq
        done = self._db.execute(
            update(t.outbox)
            .where(t.outbox.c.key == letter.key)
            .values(
                delivered_at=case((unchanged, stamp(at)), else_=None),
                refused=refused,
                attempts=0,
                next_attempt_at=None,
            )
            .returning(t.outbox.c.delivered_at)
        ).scalar()
        return done is not None

    def put_off(self, letter: Letter, until: UtcDatetime) -> None:
        """Note a try that failed, and when the next is due."""
        self._db.execute(
            update(t.outbox)
            .where(t.outbox.c.key == letter.key)
            .values(attempts=t.outbox.c.attempts + 1, next_attempt_at=stamp(until))
        )

    # what is told unasked

    def announce(
        self,
        project: str,
        place: str,
        key: str,
        kind: AlertKind,
        critical: bool,
        response: NormalizedResponse,
        at: UtcDatetime,
        standing: bool = False,
    ) -> None:
        """Keep something that a place is to be told when it may be. Again under the same key: nothing changes.

        What is `standing` is told alone, so that `amend` can put something else in its place later.
        """
        values = {
            "key": key,
            "project": project,
            "place": place,
            "kind": kind.value,
            "critical": int(critical),
            "body": response.model_dump_json(by_alias=True),
            "created_at": stamp(at),
            "standing": int(standing),
        }
        if self._insert_new(t.announcements, values):
            self.notices.append(Notice(kind="announcement", key=place, project=project))

    def announcements(self, place: str, limit: int) -> list[Announcement]:
        """What a place has not been told yet, what is critical first, then the oldest."""
        rows = self._db.execute(
            select(t.announcements)
            .where(t.announcements.c.place == place, t.announcements.c.told_at.is_(None))
            .order_by(t.announcements.c.critical.desc(), t.announcements.c.id)
            .limit(limit)
        )
        return [
            Announcement(
                id=row.id,
                project=row.project,
                kind=AlertKind(row.kind),
                critical=bool(row.critical),
                place=row.place,
                response=NormalizedResponse.model_validate_json(row.body),
                created_at=time_of(row.created_at),
                standing=bool(row.standing),
            )
            for row in rows
        ]

    def withdraw(self, announcements: Sequence[Announcement]) -> None:
        """Let go of what is not to be told any more."""
        if announcements:
            ids = [one.id for one in announcements]
            self._db.execute(delete(t.announcements).where(t.announcements.c.id.in_(ids)))

    def places_waiting(self) -> list[str]:
        """The places that have something to be told."""
        waiting = select(t.announcements.c.place).where(t.announcements.c.told_at.is_(None))
        return [row[0] for row in self._db.execute(waiting.distinct())]

    def told_at(self, place: str, since: UtcDatetime) -> list[datetime]:
        """When the place was told something unasked, from `since` on, oldest first: one entry a message, not an announcement."""
        rows = self._db.execute(
            select(t.announcements.c.told_at)
            .where(t.announcements.c.place == place, t.announcements.c.told_at >= stamp(since))
            .order_by(t.announcements.c.told_at)
            .distinct()
        )
        return [time_of(row[0]) for row in rows]

    def tell(self, announcements: Sequence[Announcement], at: UtcDatetime) -> None:
        """Note that these were told, in one message."""
        self._db.execute(
            update(t.announcements)
            .where(t.announcements.c.id.in_([one.id for one in announcements]))
            .values(told_at=stamp(at))
        )


def _letter(row: Any) -> Letter:
    return Letter(
        key=row.key,
        seq=row.seq,
        project=row.project,
        thread=row.thread,
        response=NormalizedResponse.model_validate_json(row.body),
        created_at=time_of(row.created_at),
        attempts=row.attempts,
        next_attempt_at=time_of(row.next_attempt_at) if row.next_attempt_at else None,
        parts=tuple(Posted.model_validate(part) for part in json.loads(row.parts or "[]")),
        sending=Sending.model_validate_json(row.sending) if row.sending else None,
    )
