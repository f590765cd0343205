"""The second look at a review that lacked nothing but green checks: the news that one ended well begins it.

Gathers nothing and asks no model: what the case file holds is judged again, on the pull request, its checks, the repository's rules and the
project as they are now. It posts the approval, once, or says nothing to anybody. There is one at a time; what ends while one is under way is
written down, and looked at after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from codespar.agents import evidence, judgement, reviewcards, reviews
from codespar.agents.alone import does
from codespar.agents.reviewing import Answer, Overtaken, Reviewing, target
from codespar.domain.reviews import Gate, ReviewRecord, ReviewState, ReviewVerdict
from codespar.domain.verdicts import lacks_only_checks
from codespar.engine.base import WorkflowContext
from codespar.forges.base import PostedReview
from codespar.store.base import Unit

log = structlog.get_logger(__name__)


class SecondLook(Reviewing):
    """One object serves every look."""

    async def run(self, context: WorkflowContext, payload: dict[str, Any]) -> str:
        """Returns what came of it: approved, suggested, nothing, or why it ended."""
        id, look = str(payload["review"]), int(payload["look"])
        answer = await self.to_the_end(id, self.step(context, "look", self._look, id))
        return str(await context.step("settle", self._settle, id, look, answer))

    def over(self, record: ReviewRecord) -> str | None:
        return None if record.state is ReviewState.POSTED else f"the review is {record.state}"

    async def _look(self, record: ReviewRecord) -> Answer:
        """Judge on what is true now, and post the approval, in one step: nothing may change between the two unseen."""
        # what ends from here on may not be seen any more, and is looked at after this
        await self.change(record.id, lambda known: known.evolve(checked=False))
        forge, case, key = self._tools.forge(record.project), self.case(record), f"{record.id}-checks"
        if (earlier := await forge.review_under(record.number, key)) is not None:  # from before a crash
            return await self._approved(record.id, earlier, _green(record.gates))
        pull = await self.pull(record)
        checks = await evidence.checks_of(forge, pull)
        if any(check.conclusion is None for check in checks):
            return {"held": ["checks"]}
        default, tip = await forge.sync()
        found = await case.evidence()
        if (pull.base_branch, pull.base_commit) != (found.pull.base_branch, found.pull.base_commit):
            raise Overtaken(f"PR #{record.number} is a change to something else now")
        required, unread = await evidence.required_of(forge, pull)
        found = found.evolve(default_branch=default, required=required, required_unread=unread)
        rules = await evidence.rules_at(forge, tip, [])
        judged = (await self.judge(record, pull, checks, found, rules)).record
        if judged.verdict is not ReviewVerdict.APPROVE or judged.risk is None:
            held = [gate.name for gate in judged.gates if not gate.passed]
            if held == ["policy"]:  # it waits for no check any more
                await self.change(record.id, lambda known: known.evolve(gates=judged.gates))
            return {"held": held}
        if target(await self.pull(record)) != target(pull):
            return {"wait": 1.0, "why": "it was aimed elsewhere while it was judged"}
        project = await self._tools.store.read(lambda unit: unit.project(record.project))
        if project is None or not does(self.ruling(project, judged.risk, found)):
            return {"held": ["policy"]}  # it was stopped, or its level lowered, while this was judged
        draft = judgement.approval(record, checks, self.clean)
        posted = await forge.submit_review(record.number, draft, key)
        return await self._approved(record.id, posted, judged.gates, pull.url)

    async def _approved(self, id: str, posted: PostedReview, gates: Sequence[Gate], url: str = "") -> Answer:
        await self.change(id, lambda known: known.evolve(verdict=posted.verdict, gates=tuple(gates)))
        return {"approved": True, "url": posted.url or url}

    async def _settle(self, id: str, look: int, answer: Answer) -> str:
        now = self._tools.clock()
        if "failure" in answer:
            log.warning("review.look", review=id, error=answer["failure"])
        suggests = answer.get("held") == ["policy"]
        found = await self.case(await self.record(id)).evidence() if suggests else None

        def settle(unit: Unit) -> str:
            known = unit.review(id)
            if known is None or not known.looking or known.looks != look:
                return "settled before"
            record = known.evolve(looking=False)
            unit.update_review(record)
            if "approved" in answer:
                unit.record(
                    at=now,
                    actor=id,
                    action="review.approved",
                    project=record.project,
                    subject=f"PR #{record.number}",
                    detail={"head": record.head_commit, "verdict": str(record.verdict)},
                )
                card = reviewcards.done(record, str(answer["url"]))
                self.tell(unit, record, card, f"{reviews.look_id(record)}:ended", now)
                return "approved"
            if found is not None:
                self.suggest_approval(unit, record, found, now)
            if record.checked and lacks_only_checks(record.gates):
                reviews.look_again(unit, record, self._tools.policy(), now)
            return str(answer.get("overtaken") or answer.get("failure") or "nothing")

        return await self._tools.store.write(settle)


def _green(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """The gates when it was approved, which lacked nothing but green checks before it."""
    why = "they were green when it was approved"
    return tuple(gate if gate.passed else gate.evolve(passed=True, reason=why) for gate in gates)
