"""The token of a new approval: free, and the same one when the same is asked again."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from codespar.agents.consent import with_token
from codespar.domain.approvals import ApprovalKind, new_approval
from codespar.domain.people import Permission
from codespar.domain.tasks import Thread
from codespar.store.base import Unit
from codespar.store.database import Database

MAKE = partial(
    new_approval,
    kind=ApprovalKind.BUDGET,
    seed="task-1:1",
    project="shop",
    subject="task-1",
    action_summary="Go on?",
    requester="ada",
    permission=Permission.INSTRUCT_AGENT,
    thread=Thread(channel="cli", conversation="shop"),
    now=datetime(2026, 1, 2, tzinfo=UTC),
)


async def test_a_token_that_another_approval_holds_is_passed_over_and_asking_again_finds_its_own(
    tmp_path: Path,
) -> None:
    store = Database(f"sqlite:///{tmp_path / 'codespar.sqlite'}")
    await store.open()
    ours = partial(MAKE, shown_digest="ours")

    def ask(unit: Unit) -> None:
        other = MAKE(shown_digest="another's")
        unit.save_approval(other)
        approval, known = with_token(unit, ours, same=lambda held: held.shown_digest == "ours")
        assert approval == ours(attempt=1) and approval.token != other.token and not known
        unit.save_approval(approval)
        again = with_token(unit, ours, same=lambda held: held.shown_digest == "ours")
        assert again == (approval, True)
        third, known = with_token(unit, ours)
        assert third == ours(attempt=2) and not known, "what is never the same gets a token of its own"

    await store.write(ask)
    await store.close()
