"""The cards of requests for approval: one in every place where it was asked, all edited as votes come in.

The card of a suggestion is told unasked, so it may have to wait for its place. The announcement that waits there names the card by what it
`replaces`, and is told as the card that the request has by then.
"""

from __future__ import annotations

from datetime import datetime

from codespar.agents import cards
from codespar.domain.approvals import Approval, ApprovalState, first_told
from codespar.domain.messages import NormalizedResponse
from codespar.domain.notifications import Announcement
from codespar.domain.tasks import Thread
from codespar.store.base import Unit


def card_key(approval: Approval, place: int) -> str:
    """The outbox key of the request's card in one of its places."""
    return f"{approval.token}:at:{place}"


def tell(unit: Unit, approval: Approval, now: datetime, why: str = "") -> None:
    """Bring the request's cards up to date wherever they stand. Where one still waits to be told, nothing is said."""
    card = _card(unit, approval, why)
    for place, thread in enumerate(approval.places):
        key = card_key(approval, place)
        if unit.was_said(key):
            unit.say(approval.project, thread, key, card.evolve(replaces=key), now)


def suggestions(unit: Unit, project: str) -> list[Approval]:
    """What the agent proposed by itself and nobody has answered."""
    waiting = unit.approvals(project, ApprovalState.PENDING.value, limit=1000)
    return [one for one in waiting if one.requester == f"agent-{project}" and one.command is not None]


def withdraw(unit: Unit, suggestion: Approval, why: str, now: datetime) -> None:
    """Nobody needs to answer a suggestion any more: the cards that stand say so, and the others are never told."""
    void = suggestion.evolve(state=ApprovalState.VOID)
    unit.save_approval(void)
    unit.record(
        at=now,
        actor=suggestion.requester,
        action="approval.void",
        project=suggestion.project,
        subject=suggestion.token,
        detail={"why": why},
    )
    tell(unit, void, now, why)


def is_moot(unit: Unit, waiting: Announcement, now: datetime) -> bool:
    """Whether what waits is the card of a request that nobody needs to answer any more."""
    approval = _asked(unit, waiting)
    if waiting.card is None or approval is None:
        return waiting.card is not None
    return approval.state is not ApprovalState.PENDING or approval.over(now)


def tell_card(unit: Unit, waiting: Announcement, now: datetime) -> None:
    """Tell a place of a request that waited: as it stands now. From the first time on its time runs, and the cards that stand say so."""
    unit.lock_project(waiting.project)
    known, key = _asked(unit, waiting), waiting.card
    if known is None or key is None or is_moot(unit, waiting, now):
        return  # it became so while the project was another's
    approval = first_told(known, now)
    if approval != known:
        unit.save_approval(approval)
    if approval.expires_at != known.expires_at:
        tell(unit, approval, now)
    why = next((line.value for line in waiting.response.fields if line.name == "Why"), "")
    unit.say(approval.project, Thread.of(waiting.place), key, _card(unit, approval, why), now)


def _asked(unit: Unit, waiting: Announcement) -> Approval | None:
    return unit.approval(waiting.card.partition(":")[0]) if waiting.card is not None else None


def _card(unit: Unit, approval: Approval, why: str = "") -> NormalizedResponse:
    names = {vote.person: _name(unit, vote.person) for vote in approval.votes}
    return cards.approval_request(approval, _name(unit, approval.requester), names, why)


def _name(unit: Unit, person: str) -> str:
    known = unit.person(person)
    return known.name if known else person
