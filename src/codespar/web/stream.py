"""What happens, as server-sent events: messages and tasks, as far as their reader may see them.

A reader that names the last message it has is given all that came since, so that a lost connection loses nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

from codespar.domain.people import Permission, Person, may
from codespar.domain.slots import position
from codespar.domain.tasks import Task
from codespar.store.base import Outgoing, Unit
from codespar.web.base import ApiError, House
from codespar.web.edge import message_view

PING_SECONDS = 15.0


def task_view(task: Task, open_tasks: list[Task]) -> dict[str, Any]:
    """A task as clients see it."""
    shown = task.wire()
    for hidden in ("spec", "thread", "ticket", "limits"):
        shown.pop(hidden, None)
    return shown | {"threadKey": task.thread.key, "position": position(open_tasks, task.id)}


def may_read(caller: Person, sent: Outgoing) -> bool:
    """Blocks carry diffs; people without view_diffs see the rest of the conversation only."""
    return may(caller.role, Permission.VIEW_DIFFS) or not sent.response.blocks


async def stream(house: House, caller: Person, project: str | None, cursor: int | None) -> AsyncIterator[str]:
    """Events in the wire's own form: all messages after `cursor` first where one is given, then what happens, with a ping while nothing does."""
    async with house.bus.listen() as notices:
        seen = cursor or 0
        if cursor is not None:
            while missed := await house.store.read(partial(_after, seen)):
                for sent in missed:
                    seen = sent.seq
                    if may_read(caller, sent) and project in (None, sent.project):
                        yield _event("message", message_view(sent), sent.seq)
        yield _event("ping", {"at": datetime.now(UTC).isoformat()})
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    notice = await notices.get()
            except TimeoutError:
                yield _event("ping", {"at": datetime.now(UTC).isoformat()})
                continue
            if notice is None:
                return
            if project is not None and notice.project != project:
                continue
            if notice.kind == "message":
                sent = notice.body["message"]
                if sent.seq > seen and may_read(caller, sent):
                    yield _event("message", message_view(sent), sent.seq)
            elif notice.kind == "task":
                key = notice.key

                def read(unit: Any, key: str = key) -> dict[str, Any] | None:
                    found = unit.task(key)
                    return task_view(found, unit.open_tasks(found.project)) if found else None

                if view := await house.store.read(read):
                    yield _event("task", view)


def cursor_of(text: str) -> int:
    """A Last-Event-ID as we sent it. Raises `ApiError` (422): going on from anywhere else would lose messages unseen."""
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ApiError(
            422,
            "bad_cursor",
            f"Last-Event-ID {text[:40]!r} is no cursor of this server",
            "leave it out, and read GET /api/v1/messages for what was missed",
        )
    return int(text)


def _after(cursor: int, unit: Unit) -> list[Outgoing]:
    return unit.messages(None, cursor, 200)


def _event(kind: str, body: dict[str, Any], id: int | None = None) -> str:
    head = f"id: {id}\n" if id is not None else ""
    return f"{head}event: {kind}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n"
