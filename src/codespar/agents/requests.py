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


def tell(unit: Unit, approval: Approval, now: datetime) -> None:
    """Bring the request's cards up to date wherever they stand. Where one still waits to be told, nothing is said."""
    card = _card(unit, approval)
    for place, thread in enumerate(approval.places):
        key = card_key(approval, place)
        if unit.was_said(key):
            unit.say(approval.project, thread, key, card.evolve(replaces=key), now)


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
    assert known is not None and key is not None, "what is moot is not told"
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
