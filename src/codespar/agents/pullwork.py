"""What people have done to pull requests: merged, approved. Exactly the head that was shown, once; the answer goes to the thread that asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from codespar.agents import cards, reviewcards
from codespar.agents.turn import Facts, Turn
from codespar.domain.messages import FieldLine, NormalizedResponse, Tone
from codespar.domain.reviews import ReviewVerdict
from codespar.domain.tasks import Thread
from codespar.engine.base import WorkflowContext
from codespar.forges.base import (
    Forge,
    ForgeError,
    ForgeUnavailable,
    MergeMethod,
    NotMergeable,
    NotOnDiff,
    PullState,
    ReviewDraft,
)
from codespar.store.base import Intent, Notice, Store, Unit

MERGE, APPROVAL = "merge", "approve-pull"  # the names under which the workflows are registered: never change
TRIES, LONGEST = 6, 900.0  # how often a code host that asks for patience is asked again, and seconds between
Payload = dict[str, Any]


def merge(turn: Turn) -> None:
    """`merge PR #n`: exactly the head that was shown is merged."""
    _begin(turn, MERGE, "merge", "Merging", turn.command.args.method or "merge")


def approve(turn: Turn) -> None:
    """`approve PR #n`: a person says so, and exactly the head that was shown is approved at the code host."""
    _begin(turn, APPROVAL, "approve", "Approving")


def _begin(turn: Turn, workflow: str, verb: str, doing: str, method: str = "") -> None:
    facts, number = turn.facts, turn.command.args.number or 0
    if facts is None or facts.problem:
        turn.say(cards.refused(f"Cannot {verb}", facts.problem if facts else f"PR #{number} was not found"))
        return
    how = {"method": method} if method else {}
    id = f"{verb}-{turn.project}-{number}-{facts.text[:12]}-{turn.origin}"
    payload = {
        "workflowId": id,
        "project": turn.project,
        "number": number,
        **how,
        "head": facts.text,
        "by": turn.person.name,
        "thread": turn.thread.wire(),
    }
    turn.unit.intend(Intent(id=id, kind="start", target=workflow, payload=payload), turn.now)
    turn.record(f"pr.{verb}", f"PR #{number}", {"head": facts.text, **how})
    title = f"🔧 {doing} PR #{number}" + (f" ({method})" if method else "")
    turn.say(NormalizedResponse(title=title, text=facts.title, tone=Tone.PROGRESS))


class PullWork:
    """The workflows behind `merge` and `approve PR #n`."""

    def __init__(self, store: Store, forge: Callable[[str], Forge], clock: Callable[[], datetime]) -> None:
        self._store = store
        self._forge = forge
        self._clock = clock

    async def merge(self, context: WorkflowContext, payload: Payload) -> str:
        """Returns what people were told."""
        return await self._patiently(context, "merge", self._merge, payload)

    async def approve(self, context: WorkflowContext, payload: Payload) -> str:
        """Returns what people were told."""
        return await self._patiently(context, "approve", self._approve, payload)

    async def _patiently(
        self,
        context: WorkflowContext,
        name: str,
        step: Callable[[Payload, bool], Awaitable[dict[str, Any]]],
        payload: Payload,
    ) -> str:
        for attempt in range(TRIES):
            again = f"{name}-{attempt + 1}" if attempt else name
            answer = await context.step(again, step, payload, attempt == TRIES - 1)
            if "wait" not in answer:
                return str(answer["told"])
            await context.sleep(min(LONGEST, float(answer["wait"]) * 2**attempt))
        raise AssertionError("the last try tells people in any case")

    async def _merge(self, payload: Payload, last: bool) -> dict[str, Any]:
        number, project = int(payload["number"]), str(payload["project"])
        forge = self._forge(project)
        try:
            if await self._stopped(project) and (await forge.fetch_pull(number)).state is PullState.OPEN:
                raise NotMergeable(f"{project} was stopped meanwhile; `resume` it first")
            pull = await forge.merge(
                number,
                method=MergeMethod(payload["method"]),
                head_commit=str(payload["head"]),
                author=str(payload["by"]),
                at=self._clock(),
            )
            queued = pull.queued and pull.merge_commit is None
            card = NormalizedResponse(
                title=f"⏳ PR #{number} is in the merge queue" if queued else f"✅ PR #{number} merged",
                tone=Tone.PROGRESS if queued else Tone.SUCCESS,
                text=pull.title,
                fields=(
                    FieldLine(name="Commit", value=(pull.merge_commit or pull.head_commit)[:12]),
                    FieldLine(name="For", value=str(payload["by"])),
                ),
            )
        except ForgeUnavailable as error:
            if not last:
                return {"wait": error.retry_after or 10.0}
            card = cards.refused(f"PR #{number} was not merged", str(error), "say it again later")
        except ForgeError as error:
            card = cards.refused(f"PR #{number} was not merged", str(error))
        return await self._tell(payload, card)

    async def _approve(self, payload: Payload, last: bool) -> dict[str, Any]:
        number, head = int(payload["number"]), str(payload["head"])
        forge = self._forge(str(payload["project"]))
        body = f"Approved by {payload['by']}, by way of CodeSpar."
        draft = ReviewDraft(head_commit=head, verdict=ReviewVerdict.APPROVE, body=body)
        try:
            pull = await forge.fetch_pull(number)
            if pull.head_commit != head:
                raise NotOnDiff(f"it is at {pull.head_commit[:12]} now, not at {head[:12]} as was shown")
            posted = await forge.submit_review(number, draft, str(payload["workflowId"])[-60:])
            card = reviewcards.approved(number, pull.title, posted.verdict, str(payload["by"]))
        except ForgeUnavailable as error:
            if not last:
                return {"wait": error.retry_after or 10.0}
            card = reviewcards.not_approved(number, str(error))
        except ForgeError as error:
            card = reviewcards.not_approved(number, str(error))
        return await self._tell(payload, card)

    async def _stopped(self, project: str) -> bool:
        """Somebody gave `kill` since it was asked for: waiting for a code host can take an hour."""
        record = await self._store.read(lambda unit: unit.project(project))
        return record is not None and record.paused

    async def _tell(self, payload: Payload, card: NormalizedResponse) -> dict[str, Any]:
        project, now = str(payload["project"]), self._clock()
        thread = Thread.model_validate(payload["thread"])

        def write(unit: Unit) -> None:
            unit.say(project, thread, f"{payload['workflowId']}:done", card, now)
            unit.notices.append(Notice(kind="published", key=f"#{payload['number']}", project=project))

        await self._store.write(write)
        return {"told": card.title}


def approval_facts(number: int, title: str, head: str) -> Facts:
    """What `approve PR #n` is about: the same wherever it is read, so that a new head commit voids what was shown."""
    return Facts(
        title=title,
        text=head,
        shown=(FieldLine(name="PR", value=f"#{number} {title}"), FieldLine(name="Commit", value=head[:12])),
    )
