"""The cards of requests for approval: one in every place where it was asked, all edited as votes come in."""

from __future__ import annotations

from datetime import datetime

from codespar.agents import cards
from codespar.domain.approvals import Approval
from codespar.store.base import Unit


def card_key(approval: Approval, place: int) -> str:
    """The outbox key of the request's card in one of its places."""
    return f"{approval.token}:at:{place}"


def tell(unit: Unit, approval: Approval, now: datetime) -> None:
    """Bring the request's cards up to date wherever they stand."""
    names = {vote.person: _name(unit, vote.person) for vote in approval.votes}
    for place, thread in enumerate(approval.places):
        card = cards.approval_request(approval, _name(unit, approval.requester), names)
        key = card_key(approval, place)
        unit.say(approval.project, thread, key, card.evolve(replaces=key), now)


def _name(unit: Unit, person: str) -> str:
    known = unit.person(person)
    return known.name if known else person
