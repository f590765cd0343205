"""What a review waits for, and how many begin by themselves."""

from __future__ import annotations

from pathlib import Path

from codespar.agents.reviews import MOST_OF_ONE
from codespar.domain.happenings import PullAction
from codespar.domain.reviews import ReviewRecord, ReviewState, ReviewVerdict
from support.reviewing import CODE, Bureau, Once

SMALL = {"shop.py": CODE.replace("cart[3]", "cart[3] + 1")}


class Turning(Once):
    """While it sleeps for the second time, something happens."""

    def __init__(self, id: str, shop: Bureau, passed: bool) -> None:
        super().__init__(id, shop.clock)
        self.slept = 0
        self._shop = shop
        self._passed = passed

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        self.slept += 1
        if self.slept == 2:
            await self._shop.green(passed=self._passed)


async def test_a_change_that_lacks_nothing_but_running_checks_is_approved_when_they_succeed(
    tmp_path: Path,
) -> None:
    async with Bureau(tmp_path) as shop:
        await shop.open(SMALL, green=False)
        await shop.green(passed=None)
        await shop.look()
        made: list[Turning] = []
        await shop.work(lambda id: made.append(Turning(id, shop, True)) or made[-1])
        record = await shop.latest()
        assert (record.verdict, made[0].slept) == (ReviewVerdict.APPROVE, 2)


async def test_a_check_that_fails_meanwhile_ends_the_waiting_with_a_comment(tmp_path: Path) -> None:
    async with Bureau(tmp_path) as shop:
        await shop.open(SMALL, green=False)
        await shop.green(passed=None)
        await shop.look()
        made: list[Turning] = []
        await shop.work(lambda id: made.append(Turning(id, shop, False)) or made[-1])
        record = await shop.latest()
        assert (record.verdict, record.state, made[0].slept) == (ReviewVerdict.COMMENT, ReviewState.POSTED, 2)


async def test_pushes_without_end_begin_only_so_many_reviews_a_day_and_people_can_ask_for_more(
    tmp_path: Path,
) -> None:
    async with Bureau(tmp_path) as shop:
        pull = await shop.open(SMALL)

        def many(unit: object) -> None:
            for number in range(MOST_OF_ONE):
                record = ReviewRecord(
                    id=f"review-{number:06}",
                    project="shop",
                    number=1,
                    head_commit=f"{number:040x}",
                    state=ReviewState.SUPERSEDED,
                    started_at=shop.clock(),
                )
                unit.add_review(record)  # type: ignore[attr-defined]

        await shop.store.write(many)
        await shop.changed(pull, PullAction.UPDATED)
        assert all(one.state is ReviewState.SUPERSEDED for one in await shop.records())
        assert len(await shop.audit("review.left-out")) == 1
        shop.clock.move(days=1, hours=1)
        await shop.changed(pull, PullAction.READY)
        assert (await shop.latest()).state is ReviewState.RUNNING
